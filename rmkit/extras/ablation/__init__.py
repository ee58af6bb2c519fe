"""The ablation lab of 03: one clip with other settings than the profile's, looked at, measured and kept (paper, 4.5; ours)."""
