"""The paper: from clips to the in-context LoRA and what it makes of a render (sections 3 and B)."""
