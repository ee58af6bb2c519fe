"""Kernel Inception Distance to real footage of the user's, in the features of the profile's DINO (ours; not in the paper).

Reads the mp4 files of `judge.real` and clips of a run; writes nothing. The distance and its bootstrap over subsets are
torchmetrics' (the extra `real`; Binkowski et al. 2018); features are DINO's in place of Inception's, which would have to be
fetched, so values compare with one another and with no other paper's.
"""

import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from rmkit import baselines, metrics
from rmkit.baselines import real
from rmkit.kit import models, video
from rmkit.method.sampling import Clip
from rmkit.metrics.dino import FeatureModel
from rmkit.profile import Profile

FRAMES = 8  # of a video
SUBSETS, LARGEST = 100, 50  # subsets, and frames in one


def why_not(profile: Profile) -> str | None:
    """Why it is not measured ('not run', a colon, and the reason), or None where it can be."""
    if not real.files(profile):
        return "not run: judge.real names no folder of real footage (mp4 files) of your own."
    if reason := metrics.metric_of("dino").why_not(profile):
        return reason
    if importlib.util.find_spec("torchmetrics") is None:
        return 'not run: torchmetrics is not installed (`pip install -e ".[real]"`).'
    return None


def measure(profile: Profile, clips: Sequence[Clip], methods: Sequence[str]) -> pd.DataFrame:
    """A row a method that has clips: kid, its standard deviation over subsets, and frames on both sides.

    FRAMES moments of each video count, at the clips' size.
    """
    dino, known = metrics.metric_of("dino"), baselines.every(profile)
    model = FeatureModel(*dino.place(profile), models.device(profile))
    footage = [_moments(list(real.stream(profile, path))) for path in real.files(profile)]
    there, rows = _features(model, chain(*footage)), []
    for method in (known[name] for name in methods):
        videos = [_moments(list(method.stream(profile, clip))) for clip in method.having(profile, clips)]
        if videos:
            here = _features(model, chain(*videos))
            kid, deviation = distance(there, here)
            facts = {"kid": kid, "deviation": deviation, "frames": len(here), "real_frames": len(there)}
            rows.append({"method": method.label, **facts})
    return pd.DataFrame(rows)


def distance(there: np.ndarray, here: np.ndarray) -> tuple[float, float]:
    """KID of two samples of features [N, D] and its standard deviation over subsets; 0 for samples of one distribution."""
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(LARGEST, len(there), len(here))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # that it keeps the features
        torch.manual_seed(0)
        kid = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=SUBSETS, subset_size=size)
        kid.update(torch.from_numpy(there), real=True)
        kid.update(torch.from_numpy(here), real=False)
        mean, deviation = kid.compute()
    return float(mean), float(deviation)


def _moments(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Some of a video's frames, evenly spread, without the ends, which are anchors."""
    return [frames[i] for i in video.midpoints(min(FRAMES, len(frames)), len(frames))]


def _features(model: FeatureModel, frames: Iterable[np.ndarray]) -> np.ndarray:
    """CLS tokens, float32 [N, D]."""
    return np.stack([found.cls.cpu().numpy() for found in model(list(frames))])
