"""One-way attention and its cached keys and values: what stands beside the paper's joint attention (ours)."""
