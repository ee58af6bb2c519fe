"""The rehearsal: a real profile run through the real code, with small random models and made data in place of the real ones."""

import sys

from rmkit.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "data/diorama"))  # architectures.py and face_models.py
