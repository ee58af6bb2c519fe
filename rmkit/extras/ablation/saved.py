"""A choice as a profile of its own, which extends the run's and holds only what was changed (ours).

Writes results/<profile>/lab/<name>.yaml.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rmkit import profile as profiles
from rmkit.errors import InputError
from rmkit.extras.ablation.choice import Choice, folder
from rmkit.kit import store
from rmkit.method import anchoring, propagation
from rmkit.profile import Profile


def described(profile: Profile, choice: Choice) -> str:
    """A result in a few words, for a heading: its variant, and what differs from the profile's own."""
    found, _ = changes(profile, choice)
    values = {
        key: value for group in found.values() if isinstance(group, dict) for key, value in group.items()
    }
    values |= {"seed": found["seed"]} if "seed" in found else {}
    shown = [f"{key}={'-'.join(map(str, v)) if isinstance(v, list) else v}" for key, v in values.items()]
    return ", ".join([choice.variant, *shown])


def changes(profile: Profile, choice: Choice) -> tuple[dict[str, Any], list[str]]:
    """What a profile that makes all clips as chosen changes in this one, and sentences on what no profile can say."""
    found, left = {}, []
    for group in ("structure", "propagation"):
        was, now = (getattr(each, group).model_dump(mode="json") for each in (profile, choice.profile))
        if changed := {key: value for key, value in now.items() if value != was[key]}:
            found[group] = changed
    if choice.anchors not in {tuple(anchoring.indices(choice.profile, v)) for v in ("edges", "multi_anchor")}:
        if choice.anchors and propagation.kind_of(choice.variant) == "edges":
            found["propagation"] = found.get("propagation", {}) | {"anchor_frames": list(choice.anchors)}
        else:
            left.append(
                "Anchors chosen by hand are kept for edges only: `depth` has the ends, in any profile."
            )
    if choice.prompt != propagation.prompt_of(choice.profile, choice.clip):
        if choice.clip.caption.strip():
            left.append(
                "The prompt is not kept: this clip has a caption of its own, which the data set gives."
            )
        else:
            found["propagation"] = found.get("propagation", {}) | {"prompt": choice.prompt}
    if choice.profile.seed != profile.seed:
        found["seed"] = choice.profile.seed
    return found, left


def save(profile: Profile, choice: Choice, base: str, name: str) -> tuple[Path, list[str]]:
    """Write lab/<name>.yaml, a profile that extends `base`, the profile's name or path; returns what it cannot say, too.

    Raises InputError for a name that cannot be one or is taken, and where nothing was changed.
    """
    found, left = changes(profile, choice)
    if not found:
        raise InputError(" ".join(["Nothing that a profile holds was changed.", *left]))
    if (profiles.PROFILES / f"{name}.yaml").is_file() or name == profile.name:
        raise InputError(
            f"the name '{name}' is taken by a profile whose results it would share: choose another."
        )
    try:
        Profile.model_validate(profile.model_dump() | {"name": name})
    except ValidationError as error:
        raise InputError(profiles.first_mistake(error)) from None
    path = Path(base).expanduser()
    extends = str(path.resolve()) if path.suffix.lower() in (".yaml", ".yml") else base
    text = yaml.safe_dump({"extends": extends, "name": name, **found}, sort_keys=False, allow_unicode=True)
    target = folder(profile) / f"{name}.yaml"
    if target.is_file() and target.read_text() != text:
        raise InputError(f"{target} holds other settings: choose another name, or delete it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(target, text)
    return target, left
