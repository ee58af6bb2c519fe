"""Weather: how much a clip looks like rain, snow, fog or dusk, by a classifier (paper, 5 and Fig. 8; the measure is ours).

At `mini` a small classifier of our own, which knows the diorama's truth in five weathers (data/diorama/train_weather.py); at
other profiles CLIP, asked without training. Reads the model's folder, whose config holds the rulers; writes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rmkit.errors import InputError
from rmkit.kit import models, vision, weights
from rmkit.metrics import Column, Measure, Metric, Subject, options_of
from rmkit.profile import WEATHERS, Profile

if TYPE_CHECKING:
    import pandas as pd
    import torch

BATCH = 16  # frames at a time
# What CLIP is asked (ours).
SENTENCES = {
    "clear": "a photo taken on a clear day",
    "rain": "a photo taken in the rain",
    "snow": "a photo taken in falling snow",
    "fog": "a photo taken in thick fog",
    "dusk": "a photo taken at dusk",
}
# The two rulers that a share is read between: both through the video VAE, as outputs are.
ENDS = ("weather_vae", "clear_vae")
_ASKED = {"digits": 3, "floor": 5e-3, "asked": True, "distinct": True}


class WeatherShare(Metric):
    """The probability of each weather, mean over a clip's distinct frames, and the asked one's place between two rulers."""

    columns = (
        *(
            Column(f"weather_{weather}", f"Looks like {weather}", "probability", 0, **_ASKED)
            for weather in WEATHERS
        ),
        Column(
            "weather_share", "Weather share", "of the way from clear to weather", 0, **_ASKED, optional=True
        ),
    )
    label = "Weather"
    needs_model = True
    own_clips = False  # whose weather nobody has asked for

    def check(self, profile: Profile, height: int, width: int) -> None:
        """A classifier of other things, without rulers or of frames of another size would give numbers that mean nothing."""
        name, config = weights.single_config(self.key, self.model(profile))
        if _is_clip(config):
            return
        if config.get("id2label") != {str(i): weather for i, weather in enumerate(WEATHERS)}:
            raise InputError(
                f"{self.key}: {name} is neither CLIP nor a weather classifier: its config.json must name the classes "
                f"{', '.join(WEATHERS)}, as data/diorama/train_weather.py writes it."
            )
        if not _has_rulers(config):
            raise InputError(
                f"{self.key}: {name} has no rulers: its config.json must hold the mean scores on kept-apart truth that "
                "data/diorama/train_weather.py writes."
            )
        if config.get("frame_size") != [height, width]:
            raise InputError(
                f"{self.key}: {name} knows frames of {config.get('frame_size')} pixels and the profile's clips have "
                f"{[height, width]}: train one for them, or name a CLIP."
            )

    def ready(self, profile: Profile, subjects: Sequence[Subject]) -> Measure:
        config, rulers = self._config(profile), self.rulers(profile)
        kind = ZeroShot if _is_clip(config) else Classifier
        classifier = kind(*self.place(profile), models.device(profile))

        def measure(subject: Subject, columns: Sequence[Column]) -> dict[str, float]:
            found = look(classifier, list(subject.output(columns[0])))
            values = {f"weather_{weather}": found[weather] for weather in WEATHERS}
            if rulers:
                values["weather_share"] = share(found, rulers, asked_of(subject.method))
            return values

        return measure

    def rulers(self, profile: Profile) -> dict[str, dict[str, float]] | None:
        """Mean scores on kept-apart truth by weather, or None: CLIP has none."""
        return self._config(profile).get("rulers")

    def options(self, profile: Profile) -> dict[str, str]:
        by = "zero-shot CLIP" if _is_clip(self._config(profile)) else "own classifier"
        return {"by": by, **super().options(profile)}

    def note(self, profile: Profile, rows: "pd.DataFrame") -> str:
        """Nothing where nobody asked for it: the tables of the run have no such column."""
        if rows.empty:
            return ""
        how = f"Weather ({options_of(rows)}), mean probability over a clip's distinct frames"
        if not self.rulers(profile):
            return f"{how}, zero-shot: nothing was trained and there are no rulers, so the share is n/a."
        return (
            f"{how}. Share: 0 is the classifier's mean score on clear truth, 1 that on truth in the asked weather, of scenes "
            "kept apart and through the video VAE; of clear outputs the highest share of any weather."
        )

    def _config(self, profile: Profile) -> dict[str, Any]:
        return weights.single_config(self.key, self.model(profile))[1]


class Looks(Protocol):
    """Pictures uint8 [H, W, 3] of one size to the probability of each weather, float64 [N, 5]."""

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray: ...


class Classifier(vision.Classifier):
    """A classifier in transformers' format, its classes the five weathers."""

    what = "the weather classifier"

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        return self.logits(frames).softmax(1).cpu().numpy()


class ZeroShot:
    """CLIP, which is shown pictures and asked which of five sentences fits."""

    def __init__(self, name: str, commit: str | None, device: "torch.device | str" = "cpu"):
        """`name` is a folder, or a hub name with its commit. Raises InputError when it cannot be loaded."""
        import torch
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        where = {"revision": commit} if commit else {}
        try:
            self.model = CLIPModel.from_pretrained(name, **where, use_safetensors=True, dtype=torch.float32)
            self.prepare = CLIPImageProcessorPil.from_pretrained(name, **where)
            tokenizer = CLIPTokenizer.from_pretrained(name, **where)
        except OSError as error:
            raise InputError(f"the weather model {name} cannot be loaded: {error}") from None
        self.model.eval().to(device)
        self.text = tokenizer(
            [SENTENCES[weather] for weather in WEATHERS], padding=True, return_tensors="pt"
        ).to(device)

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        pixels = self.prepare(list(frames), return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            return self.model(**self.text, **pixels).logits_per_image.double().softmax(1).cpu().numpy()


def look(classifier: Looks, frames: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean probability of each weather, 0 to 1, over frames uint8 [H, W, 3]."""
    parts = [classifier(frames[first : first + BATCH]) for first in range(0, len(frames), BATCH)]
    return dict(zip(WEATHERS, np.concatenate(parts).mean(0).tolist(), strict=True))


def share(found: Mapping[str, float], rulers: Mapping[str, Mapping[str, float]], asked: str) -> float:
    """How far a clip's probabilities are on the way from clear truth (0) to truth in the asked weather (1); not clipped.

    asked: a weather; of 'clear', the highest share of any weather, which should be near 0.
    """
    if asked == WEATHERS[0]:
        return max(share(found, rulers, weather) for weather in WEATHERS[1:])
    weather, clear = (rulers[asked][end] for end in ENDS)
    return (found[asked] - clear) / (weather - clear)


def asked_of(method: str) -> str:
    """The weather that a method's name says it was asked for ('rain', 'overlay_rain'); 'clear' where it names none."""
    return next((word for word in method.split("_") if word in WEATHERS), WEATHERS[0])


def _has_rulers(config: Mapping[str, Any]) -> bool:
    """A pair of numbers by weather, the one on weather above the one on clear truth."""
    try:
        pairs = [[config["rulers"][weather][end] for end in ENDS] for weather in WEATHERS[1:]]
        return all(weather > clear for weather, clear in pairs)
    except (KeyError, TypeError):
        return False


def _is_clip(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "clip"


METRIC = WeatherShare()
