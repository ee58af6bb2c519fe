"""The clip of a choice: the run's own, one that the lab has made, or a new one (paper, 3.1 and 4.5; ours).

Reads what `choice` does and `propagated/`; writes results/<profile>/lab/: `clips/<clip>/<key>.mp4`, and `anchors/` that the
run does not have. The run itself stays as it is.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit.errors import InputError
from rmkit.extras.ablation import choice as choices
from rmkit.extras.ablation.choice import Choice, Condition
from rmkit.kit import models, prompts, stage, store, video
from rmkit.method import anchoring, propagation, sampling
from rmkit.profile import Profile

if TYPE_CHECKING:
    from diffusers import QwenImageEditPipeline, WanVACEPipeline

VERSION = 1
# What is being done, and the part that is done, 0 to 1; what it raises stops the work.
Tell = Callable[[str, float], None]


class Models:
    """VACE and the editor, each loaded when it is first needed and kept."""

    def __init__(self, profile: Profile):
        self.profile = profile

    @functools.cached_property
    def vace(self) -> "WanVACEPipeline":
        models.check(self.profile, "vace")
        return propagation.load(self.profile)

    @functools.cached_property
    def editor(self) -> "QwenImageEditPipeline":
        models.check(self.profile, "editor")
        return models.load_editor(self.profile)


def own(profile: Profile, choice: Choice) -> Path | None:
    """The run's own clip, where the choice is one of the profile's variants and it has been made; else None."""
    for variant in profile.propagation.variants:
        same = propagation.kind_of(variant) == propagation.kind_of(choice.variant)
        path = propagation.path(profile, variant, choice.clip)
        if (
            same
            and replace(choice, variant=variant) == choices.choose(profile, choice.clip, variant)
            and path.is_file()
        ):
            return path
    return None


def of_run(profile: Profile, choice: Choice) -> Path | None:
    """The run's own clip of the variant that is chosen, whatever else is."""
    return own(profile, choices.choose(profile, choice.clip, choice.variant))


def find(profile: Profile, choice: Choice, given: Condition | None = None) -> Path | None:
    """A result that is there already, the run's own or the lab's, or None; given: its condition, if it is at hand."""
    if path := own(profile, choice):
        return path
    given = given or choices.condition(choice)
    if any(not choices.anchor_path(choice, index).is_file() for index in choice.anchors):
        return None
    target, recipe = _result(choice, given)
    return target if store.is_done(target, recipe) else None


def generate(profile: Profile, choice: Choice, loaded: Models, tell: Tell = lambda said, part: None) -> Path:
    """The clip as chosen: the known result, or a new one, for which missing anchors are edited first.

    Raises InputError before anything is computed where clip or model is missing, the prompt is too long, or an anchor was
    refused; and what `tell` raises. Nothing is left of a clip that was stopped.
    """
    if path := find(profile, choice):
        return path
    asked = choice.profile
    sampling.check(asked, [choice.clip])
    if "vace" not in vars(loaded):
        tell("loading VACE", 0)
        prompts.check(models.vace_tokenizer(asked), {"the prompt": choice.prompt})
    vace = loaded.vace
    models.set_flow_shift(vace, asked.propagation.shift)
    embeds = propagation.encoder(asked, vace)(choice.prompt)
    for index in choice.anchors:
        _edit(choice, index, loaded, tell)
    given = choices.condition(choice)
    (target, recipe), steps = _result(choice, given), asked.propagation.steps
    tell("generating", 0)
    with store.writing(target, recipe, device=str(models.device(asked))) as temporary:
        stepped = lambda step: tell(f"step {step} of {steps}", step / steps)  # noqa: E731
        frames = propagation.run(asked, vace, given.video, given.mask, embeds, recipe.seed, stepped)
        video.write(temporary, frames, asked.clips.fps)
    return target


def _edit(choice: Choice, index: int, loaded: Models, tell: Tell) -> None:
    """Edit an anchor unless it is there; InputError for one that the gate refused."""
    profile, clip, target = choice.profile, choice.clip, choices.anchor_path(choice, index)
    if not target.is_file():
        tell(f"editing the anchor of frame {index}", 0)
        recipe = anchoring.recipe(profile, clip, index, models.fingerprint(profile, "editor"))
        items = [stage.Item(target, recipe, (clip, index))]
        ready = functools.partial(anchoring.maker, profile, loaded.editor)
        stage.run("", items, ready, device=str(models.device(profile)))
    if not store.read_sidecar(target).get("accepted", True):
        raise InputError(
            f"the anchor of frame {index} was refused, as its edit is out of place: take it away."
        )


def _result(choice: Choice, given: Condition) -> tuple[Path, store.Recipe]:
    """Where a choice's clip lies, and all that decides its content."""
    profile, clip = choice.profile, choice.clip
    inputs = {f"anchor/{i}": store.fingerprint(choices.anchor_path(choice, i)) for i in choice.anchors}
    inputs["structure"] = hashlib.sha256(given.guide.tobytes()).hexdigest()[:32]
    settings = propagation.settings_of(profile, clip, choice.prompt)
    seed, model = store.seed_for(profile.seed, "propagate", clip.id), models.fingerprint(profile, "vace")
    recipe = store.Recipe("lab", VERSION, settings, inputs, seed, model)
    return choices.folder(profile) / "clips" / clip.id / f"{recipe.key}.mp4", recipe
