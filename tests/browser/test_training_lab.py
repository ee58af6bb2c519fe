"""04's labs in JupyterLab, in a real browser: menus of pictures; a training stopped, and gone on with, while its cell runs."""

import json
import os
import shutil
from collections.abc import Iterator

import pytest
import yaml
from jupyter_lab import WIDTHS, run_all, serving
from test_enhance import save_adapters

from rmkit import profile
from rmkit.kit import store, video
from rmkit.method import dataset, record, sampling, training
from rmkit.paths import REPOSITORY

SIDEWAYS = "(n => n.scrollWidth - n.clientWidth)(document.querySelector('.jp-WindowedPanel-outer'))"
STEPS = 2000  # more than a test waits for: it ends by being stopped


@pytest.fixture
def run(
    tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> Iterator[profile.Profile]:
    """The tiny profile with pairs to train on; its results lie in the repository, where a kernel finds them."""
    content = tiny_profile.model_dump(mode="json")
    content["name"] = f"pytest-training-{os.getpid()}"
    content["train"] |= {"held_out": 0, "sampler": "logit-normal"}
    content["train"]["high"]["steps"] = STEPS
    monkeypatch.undo()
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.yaml").write_text(yaml.safe_dump(content))
    made = profile.load(tmp_path / "lab" / "mine.yaml")
    rows = []
    for clip in sampling.sample(made):
        if clip.split == "train":
            render, target = sampling.path(made, clip), made.layout.propagated / "edges" / f"{clip.id}.mp4"
            video.write(target, 255 - video.read(render), made.clips.fps)
            sides = {"render": str(render), "target": str(target)}
            rows.append({"clip": clip.id, "caption": clip.caption, "kept": True, "reason": "kept", **sides})
    made.layout.pairs.mkdir(parents=True)
    store.write_json(made.layout.pairs / "pairs.json", rows)
    dataset.encode(made)
    save_adapters(made)  # whose attention is shown; not of this training
    clip = sampling.load(made, "validation")[0]
    made_of_it = made.layout.enhanced / training.NAME / f"{clip.id}.mp4"
    video.write(made_of_it, 255 - video.read(sampling.path(made, clip)), made.clips.fps)
    yield made
    shutil.rmtree(made.layout.root)


def test_a_click_stops_and_another_goes_on(run: profile.Profile, browser, tmp_path) -> None:
    book = json.loads((REPOSITORY / "notebooks" / "04_iclora_training.ipynb").read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    lab = [cell for cell in code if "training_lab" in "".join(cell["source"])]
    noise, attention = (
        next(cell for cell in code if part in "".join(cell["source"]))
        for part in ("noise_levels", "attending")
    )
    code[0]["source"] = [f"profile = {str(tmp_path / 'lab' / 'mine.yaml')!r}"]
    lab[1]["source"] = ["await training_lab.train(settings)"]
    imports = {
        **lab[0],
        "id": "imports",
        "source": [
            "from IPython.display import display\n",
            "from rmkit.evaluation import figures\n",
            "from rmkit.kit import widgets\n",
            "from rmkit.method import objective, sampling\n",
            "validation = sampling.load(settings, 'validation')",
        ],
    }
    for name, cells in (("menus", [imports, noise, attention]), ("04", lab)):
        text = json.dumps(book | {"cells": [*code[:2], *cells]})
        (tmp_path / "lab" / f"{name}.ipynb").write_text(text)
    log = run.layout.adapters / training.NAME / "high.log" / "curve.csv"
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    context.set_default_timeout(120_000)  # of a machine with other tests on every core
    page = context.new_page()
    with serving(tmp_path / "lab") as address:
        run_all(page, address, "menus.ipynb")
        assert page.get_by_label("sampler").input_value() == "logit-normal"  # the profile's own
        _turned(page, 0, {"sampler": "uniform"})
        _turned(page, 1, {"expert": "low", "block": "2", "head": "2", "place": "middle"})
        page.goto(f"{address}lab/tree/04.ipynb?reset")
        page.get_by_text("| Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        button = page.get_by_role("button", name="Stop after this step")
        button.wait_for()
        while not log.is_file():
            page.wait_for_timeout(100)
        button.click()
        page.get_by_text("expert was stopped after step").wait_for()
        first = record.so_far(run, training.NAME)[0].step.max()
        assert store.read_sidecar(log.parents[1] / "high.checkpoint.safetensors")["step"] == first + 1
        page.get_by_role("button", name="Go on").click()
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Stop after this step").click()
        page.get_by_text("expert was stopped after step").wait_for()
        assert record.so_far(run, training.NAME)[0].step.max() > first + 1
        page.get_by_role("button", name="Follow the log").click()
        page.locator(".widget-image").wait_for()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(SIDEWAYS) <= 0
    context.close()


def _turned(page, which: int, choices: dict[str, str]) -> None:
    """Another choice in each menu of a picture gives another picture."""
    picture = page.locator(".widget-interact").nth(which).locator("img").first
    picture.wait_for()
    for name, label in choices.items():
        before = picture.get_attribute("src")
        page.get_by_label(name, exact=True).select_option(label=label)
        page.wait_for_function(
            "([w, s]) => { const i = document.querySelectorAll('.widget-interact')[w].querySelector('img'); return i && i.src !== s }",
            arg=[which, before],
        )
