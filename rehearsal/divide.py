"""A profile divided: its sizes, lengths and counts made small, its data and face pack made ones, every other option its own.

Reads and writes nothing.
"""

from pathlib import Path
from typing import Any

import torch

from rmkit import baselines
from rmkit.profile import Profile

PREFIX = "rehearsal-"  # of the name, and so of the folder in results/
SIDE = 12.5  # by which sides of pictures are divided: 800x1200 becomes 64x96
FRAMES = 5  # by which lengths are: 81 frames become 17, and half a second still is one of several anchors
SHOTS = 41 / 9  # the same in source frames: 81 frames take 41, 17 take 9
CELL = 32  # pixels a side, of LucyEdit, which has the largest
# No count is larger; the fewest with which every branch is taken: two checkpoints, a held-out pair, several to train on.
MOST = {
    "train_clips": 6,
    "validation_clips": 3,
    "clips": 1,
    "steps": 2,
    "overlap": 4,
    "held_out": 1,
    "warmup": 1,
    "evaluate_every": 2,
    "checkpoint_every": 1,
    "fewest_pairs": 2,
}
KEPT = ("judge", "baselines")  # groups that are not divided as the others


def divide(profile: Profile, made: Path) -> Profile:
    """The profile to rehearse; `made` is the folder of the made data and the face pack.

    It computes where the machine can: on the CPU in the profile's own type, where there is no GPU.
    """
    content = profile.model_dump()
    # Their defaults are the authors' sizes, which the profile leaves out.
    for name, method in baselines.asked(profile).items():
        content["baselines"][name] = _divided(method.settings(profile).model_dump(), CELL)
    for group, values in content.items():
        if isinstance(values, dict) and group not in KEPT:
            content[group] = _divided(values)
    content["name"], content["extends"] = PREFIX + profile.name, None
    content["anchors"]["edit_area"] = round(profile.anchors.edit_area / SIDE**2)
    content["data"]["root"] = str(made / profile.data.source)
    if profile.carla:
        content["carla"]["root"] = str(made / profile.carla.source)
    if profile.identity.model_pack:
        content["identity"]["model_pack"] = str(made / "packs" / profile.identity.model_pack)
    if not torch.cuda.is_available():
        content["models"]["device"] = "cpu"  # said outright, as only then a CPU may compute in bfloat16
        if content["models"].get("editor_weights") == "nf4":
            content["models"]["editor_weights"] = "full"  # bitsandbytes' needs a GPU
    return Profile.model_validate(content)


def names(profile: Profile) -> list[str]:
    """The models that the profile names, by the hub."""
    found = [profile.models.wan, profile.models.vace, profile.models.editor, *profile.metrics.values()]
    found += [
        settings["model"] for settings in profile.baselines.asked.values() if "usd_per_second" not in settings
    ]
    return [*found, *filter(None, [profile.structure.depth_model])]


def accelerators(profile: Profile) -> dict[str, dict[str, Any]]:
    """The accelerators that the profile names, by the role of the model that they are for."""
    asked = profile.models.model_dump().get("accelerators", {})
    return {role: settings for role, settings in asked.items() if settings}


def pixels(height: int, width: int, cell: int = 16) -> tuple[int, int]:
    """A picture's size divided, of the shape it had, as far as cells allow: heights of 32 keep 3:2."""
    high = max(1, round(height / SIDE / CELL)) * CELL
    return high, max(1, round(high * width / height / cell)) * cell


def frames(count: int) -> int:
    """A clip's length, 4k + 1 as before."""
    return max(1, (count - 1) // (4 * FRAMES)) * 4 + 1


def _divided(values: dict[str, Any], cell: int = 16) -> dict[str, Any]:
    """A group of settings with its sizes, lengths and counts divided."""
    made = dict(values)
    for key, value in values.items():
        if isinstance(value, dict):
            made[key] = _divided(value, cell)
        elif key == "sigmas":  # of a distilled model: as many as it takes steps
            made[key] = value[:: max(1, len(value) // MOST["steps"])][: MOST["steps"]]
        elif not isinstance(value, int) or isinstance(value, bool):
            continue
        elif key == "det_size":
            made[key] = max(1, round(value / SIDE / 32)) * 32
        elif key == "frames":
            made[key] = frames(value)
        elif key in MOST:
            made[key] = min(value, MOST[key])
    if values.get("height") and values.get("width"):
        made["height"], made["width"] = pixels(values["height"], values["width"], cell)
    return made
