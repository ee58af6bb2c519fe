"""Training of the weather classifier: what stands beside a frame in a weather is called clear, and a step learns."""

import json
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
import train_weather
import world

from rmkit.kit import video


def scene(level: int = 0) -> train_weather.Scene:
    rng = np.random.default_rng(level)
    render = np.kron(rng.integers(40, 200, (17, 12, 18, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    truth = {
        w: np.clip(render.astype(int) - 10 * i, 0, 255).astype(np.uint8) for i, w in enumerate(world.WEATHERS)
    }
    return train_weather.with_maps(f"s{level}", render, truth)


def test_two_steps_learn_from_weather_and_its_likenesses(tmp_path: Path) -> None:
    source = train_weather.Material([scene(0), scene(1)], [scene(0)])
    small = {"hidden_sizes": [16, 16], "depths": [1, 1]}
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"blocks": architectures.weather(**small).to(memory_format=torch.channels_last)}
    )
    before = [p.detach().clone() for p in model.parameters()]
    phase = train_weather.loop.Phase("weather", 2, 1e-3, train_weather.objective(model, source, 2, "cpu"))
    rows = train_weather.loop.train(tmp_path, {"weather": model}, [phase])
    assert rows[-1]["step"] == 2 and 0 <= rows[-1]["accuracy"] <= 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    classifier = model["blocks"].eval()
    found = train_weather.rulers(classifier, source)
    assert set(found) == set(world.WEATHERS[1:])
    assert all(set(ends) == {"weather", "clear", "weather_vae", "clear_vae"} for ends in found.values())
    figures = train_weather.figures(classifier, source)
    assert {"told_right_clear", "told_right_dusk_vae", "score_of_fixed_overlay_over_render_snow"} <= set(
        figures
    )
    assert all(0 <= value <= 1 for value in figures.values())


def test_every_likeness_is_drawn_and_none_is_the_weather_itself() -> None:
    rng, one, other = np.random.default_rng(0), scene(0), scene(1)
    for weather in world.WEATHERS[1:]:
        drawn = {train_weather.likeness(one, other, 3, weather, rng).tobytes() for _ in range(30)}
        assert len(drawn) > 10 and one.truth[weather][3].tobytes() not in drawn
        assert one.truth["clear"][3].tobytes() in drawn


def test_scenes_are_read_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(number: int, kinds: tuple[str, ...] = ("render", "truth")) -> None:
        folder = tmp_path / "pretrain" / f"{world.world_of('pretrain', number)}_{number:05d}"
        for kind in kinds:
            video.write(folder / f"{kind}.mp4", np.full((17, 32, 48, 3), number % 200, np.uint8), 8)
        (folder / "meta.json").write_text(json.dumps({}))

    for number in (600, *range(2000, 2005), *range(2005, 2009), *range(2010, 2015)):
        put(number)
    assert train_weather.finished(tmp_path) == [2000, 2010]
    found = train_weather.read(tmp_path, 2010)
    levels = [int(found.truth[weather][0, 0, 0, 0]) for weather in world.WEATHERS]
    assert levels == [10, 11, 12, 13, 14] and found.name == "street_02010"

    # Of all that goes through the VAE only the first shot; kept where it was made.
    monkeypatch.setattr(train_weather.train_judge.vae_ceiling, "reconstruct", lambda vae, frames: frames)
    made = train_weather.material(tmp_path, [2000, 2010], None, tmp_path / "decoded", every=2)
    assert len(made.plain) == 2 and [one.name for one in made.decoded] == ["street_02000"]
    assert len(list((tmp_path / "decoded").glob("*.mp4"))) == 1 + len(world.WEATHERS)
