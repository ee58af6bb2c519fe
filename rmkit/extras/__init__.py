"""Beyond the paper: videos of one's own, and scores of one's own folders."""
