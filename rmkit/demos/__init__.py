"""What the paper shows beyond its tables, a file a notebook: weather, another engine, limits, your own clip (5, 3.2, A)."""
