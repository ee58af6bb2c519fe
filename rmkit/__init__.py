"""RealMaster reproducibility kit: rendered video in, photorealistic video out (arXiv 2603.23462).

One module a stage, one verb a module; see README.md for the map. Importing the package is cheap:
torch, diffusers and friends are imported by the stage that needs them, when it runs.
"""

import os

__version__ = "0.1.0"

# How long a waiting thread of torch's spins before it sleeps, where nobody set it otherwise: before torch is loaded.
# With OpenMP's own 300,000, two busy programs beside a small model cost it 26 times what they cost with this; alone it
# is as fast with either.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
