"""RealMaster reproducibility kit: rendered video in, photorealistic video out (arXiv 2603.23462).

One module a stage, one verb a module; see README.md for the map. Importing the package is cheap:
torch, diffusers and friends are imported by the stage that needs them, when it runs.
"""

__version__ = "0.1.0"
