"""Readers of datasets: each yields sequences of frames with what the engine knows of them."""
