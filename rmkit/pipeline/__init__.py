"""The stages in order, what they need and what is left of them."""
