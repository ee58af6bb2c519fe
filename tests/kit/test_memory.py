"""Memory is given back: models that are let go of leave it, though offloading puts each in a cycle of references."""

import gc
import weakref

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import LucyEditPipeline
from test_external import lucy_folder as lucy_folder

from rmkit.kit import models, stage, store
from rmkit.method import dataset, propagation, sampling
from rmkit.profile import Profile

LOADS = {
    "wan": models.load_wan,
    "encoders": lambda profile: models.load_wan(profile, without=("transformer", "transformer_2")),
    "vace": models.load_vace,
    "editor": models.load_editor,
    "lucy": lambda profile: models.load(profile, LucyEditPipeline, profile.baselines["lucy_edit"]["model"]),
}


@pytest.fixture
def watched(monkeypatch):
    """Weak references to all that is loaded; each part has its forward replaced, as offloading does, and nothing is
    collected by chance."""
    seen, place = [], models._place

    def hooked(profile, pipeline, on_cpu=False):
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                add_hook_to_module(part, ModelHook())
                seen.append(weakref.ref(part))
        return place(profile, pipeline, on_cpu)

    monkeypatch.setattr(models, "_place", hooked)
    gc.collect()
    gc.disable()
    yield seen
    gc.enable()


def alive(seen):
    return [part for ref in seen if (part := ref()) is not None]


@pytest.mark.parametrize("which", LOADS)
def test_five_loads_leave_one_alive(tiny_profile, lucy_folder, watched, which):
    load, named = LOADS[which], {"lucy_edit": {"model": str(lucy_folder)}}
    profile = Profile.model_validate(tiny_profile.model_dump() | {"baselines": named})

    @models.given_back()
    def use():
        load(profile)

    for _ in range(4):
        use()
    kept = load(profile)
    parts = [part for part in kept.components.values() if isinstance(part, torch.nn.Module)]
    assert len(watched) == 5 * len(parts)
    assert {id(part) for part in alive(watched)} == {id(part) for part in parts}


def test_without_it_they_stay(tiny_profile, watched):
    """What the test above is about: were there no cycle, it could not fail."""
    for _ in range(2):
        models.load_wan(tiny_profile)
    assert len(alive(watched)) == len(watched)


def test_a_stage_gives_back_what_it_loaded_after_an_error_too(tiny_profile, watched, tmp_path):
    def ready():
        pipeline = models.load_wan(tiny_profile)

        def make(item, temporary):
            assert alive(watched) and pipeline
            if item.subject == "broken":
                raise stage.LeftOut("broken")
            temporary.write_text(item.subject)

        return make

    for subject in ("one", "broken", "two"):
        item = stage.Item(tmp_path / f"{subject}.txt", store.Recipe("test", 1, {}, {}), subject)
        stage.run("test", [item], ready)
        assert not alive(watched)


def test_a_stage_loads_its_model_once_and_training_never_a_text_encoder(
    pairs_profile, tiny_clips, watched, monkeypatch
):
    from rmkit.method import training
    from rmkit.pipeline import stages

    loaded = []
    for name in ("load_editor", "load_vace", "load_wan"):
        stock = getattr(models, name)
        monkeypatch.setattr(
            models, name, lambda *a, stock=stock, name=name, **k: loaded.append(name) or stock(*a, **k)
        )
    stages.anchors(pairs_profile)
    stages.structure(pairs_profile)
    stages.propagate(pairs_profile)
    assert loaded == ["load_editor", "load_vace"] and not alive(watched)
    dataset.encode(pairs_profile)
    seen = []

    def looking(*arguments, stock=training.velocity_loss):
        seen.append(sorted(type(part).__name__ for part in alive(watched)))
        return stock(*arguments)

    monkeypatch.setattr(training, "velocity_loss", looking)
    training.train(pairs_profile)
    assert seen == [["AutoencoderKLWan", "WanTransformer3DModel"]] * 4  # one expert at a time
    assert not alive(watched)
    assert all(
        propagation.path(pairs_profile, variant, clip).is_file()
        for variant in pairs_profile.propagation.variants
        for clip in sampling.load(pairs_profile, "validation")
    )
