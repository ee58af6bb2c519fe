"""The ablation lab of 03 in JupyterLab, in a real browser, over a finished run of the tiny profile."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from jupyter_lab import WIDTHS, run_all, serving
from lab_page import LabPage, write_notebook
from PIL import Image

from rmkit import profile, sources
from rmkit.kit import store, video
from rmkit.pipeline import stages

SIDEWAYS = "(n => n.scrollWidth - n.clientWidth)(document.querySelector('.jp-WindowedPanel-outer'))"


@pytest.fixture
def run(tiny_profile: profile.Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The profile's file; its results lie in the repository, where the notebook's kernel finds them."""
    content = tiny_profile.model_dump(mode="json")
    content["name"] = f"pytest-ablation-{os.getpid()}"
    monkeypatch.undo()
    (tmp_path / "lab").mkdir()
    file = tmp_path / "lab" / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    made = profile.load(file)
    for sequence in sources.sequences(made, "validation"):
        frames = sequence.frames(range(len(sequence)))
        truth = (frames * np.array([0.9, 0.95, 1.0])).astype(np.uint8)
        video.write(made.layout.truth / f"{sequence.id}.mp4", truth, sequence.fps)
    for stage in (stages.data, stages.anchors, stages.structure, stages.propagate):
        stage(made)
    for picture in made.layout.anchors.glob(
        "*/*.png"
    ):  # untrained models: the gate may refuse what they edit
        store.write_json(store.sidecar_of(picture), store.read_sidecar(picture) | {"accepted": True})
    stages.propagate(made)
    yield file
    shutil.rmtree(made.layout.root)


@pytest.fixture
def address(run: Path) -> Iterator[str]:
    """The notebook's lab, served."""
    write_notebook(run.parent, str(run))
    with serving(run.parent) as address:
        yield address


def test_everything_is_turned_generated_kept_and_exported(
    address: str,
    run: Path,
    browser,
) -> None:
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    context.set_default_timeout(120_000)  # of a machine with other tests on every core
    page = context.new_page()
    run_all(page, address, "03.ipynb")
    page.get_by_text("the run's own").wait_for()
    lab = LabPage(page)
    shown = lab.pictures()
    assert {"Render", "Control video", "Mask", "Nearest anchor", "Result", "Truth"} <= set(shown)
    _seen(lab)
    _chosen(lab)
    _generated(lab)
    _wide_and_narrow(page)
    _kept(lab, run)
    context.close()


def _seen(lab: LabPage) -> None:
    """One slider moves all; anchors are marked; a wipe between any two; zoom; play."""
    every = tuple(lab.pictures())
    wiped = lab.page.locator("img.rmkit-picture").last
    lab.slide("Frame", "Home")
    lab.page.get_by_text("Control video (an anchor)").wait_for()
    lab.changes(lambda: lab.slide("Frame", times=3), "Render", "Control video", "Mask", "Result", "Truth")
    lab.page.get_by_text("Control video (an anchor)").wait_for(state="detached")
    for act in (
        lambda: lab.slide("Wipe", times=5),
        lambda: lab.menu("Wipe from", "Truth"),
        lambda: lab.menu("to", "Mask"),
    ):
        before = wiped.get_attribute("src")
        act()
        lab.page.wait_for_function("([i, s]) => i.src !== s", arg=[wiped.element_handle(), before])
    width = lab.page.locator(".rmkit-head + img").first.bounding_box()["width"]
    lab.slide("Zoom", times=4)
    lab.page.wait_for_timeout(300)
    assert lab.page.locator(".rmkit-head + img").first.bounding_box()["width"] > width
    play = lab.page.locator(".jupyter-widget-play button, .widget-play button").first
    lab.changes(play.click, "Render", "Result")
    play.click()
    assert tuple(lab.pictures()) == every


def _chosen(lab: LabPage) -> None:
    """Each control changes what VACE is given, or says why it cannot be."""
    lab.slide("Frame", "Home")
    lab.slide("Frame", times=3)
    lab.settle()
    control, other = "Control video", ("Render", "Truth")
    lab.changes(lambda: lab.menu("Edge detector", "gradient"), control, "Result", still=other)
    lab.changes(lambda: lab.menu("Edge detector", "canny"), control, "Result", still=other)
    lab.changes(lambda: lab.drag("Thresholds", 0.98, 1), control, still=other)
    lab.changes(lambda: lab.menu("Thickness", "3 pixels"), control, still=other)
    lab.changes(lambda: lab.menu("Variant", "Depth"), control, still=other)
    lab.menu("Depth source", "depth_anything")
    lab.page.get_by_text("structure.depth_model is empty").wait_for()
    lab.menu("Depth source", "engine")
    lab.changes(lambda: lab.menu("Variant", "Edges"), control)
    lab.changes(
        lambda: lab.menu(
            "Clip", lab.page.get_by_label("Clip", exact=True).locator("option").nth(1).inner_text()
        ),
        *other,
    )
    lab.changes(lambda: lab.menu("Variant", "Multiple Anchors"), "Nearest anchor")
    lab.changes(lambda: lab.menu("Anchors", "every 0.5 s"), "Nearest anchor", still=other)
    lab.changes(lambda: lab.menu("Anchors", "every 0.25 s"), "Nearest anchor", still=other)
    for frame in "404":  # anchors are taken away, and one is put back
        lab.changes(lambda frame=frame: lab.press(frame), "Nearest anchor", still=other)
    lab.type("Steps", "0")
    lab.page.get_by_text("greater than or equal to 1").wait_for()
    lab.type("Steps", "1")
    lab.page.get_by_text("Not generated yet").wait_for()
    lab.type("Prompt", "red coat " * 600)
    lab.press("Generate this clip")
    lab.page.get_by_text("these words would be lost").wait_for()
    lab.type("Prompt", "a man with a hat waits in a room")


def _generated(lab: LabPage) -> None:
    """A new clip for every setting of the sampler; a known one at once; a stopped one leaves nothing."""
    lab.page.get_by_text("Not generated yet").wait_for()
    lab.generates()
    for act in (
        lambda: lab.type("Steps", "3"),
        lambda: lab.slide("Conditioning", "ArrowLeft", 8),
        lambda: lab.type("Shift", "5"),
        lambda: lab.type("Guidance", "2"),
        lambda: lab.type("Seed", "7"),
    ):
        lab.changes(act, "Result")  # grey: not generated yet
        lab.generates()
    lab.changes(lambda: lab.type("Seed", "0"), "Result")
    lab.page.get_by_text("from the lab's store").wait_for()
    lab.type("Steps", "400")
    lab.page.get_by_text("Not generated yet").wait_for()
    lab.press("Generate this clip")
    lab.page.get_by_text("of 400").wait_for()
    lab.press("Cancel")
    lab.page.get_by_text("Cancelled").wait_for()
    lab.type("Steps", "3")
    lab.page.get_by_text("from the lab's store").wait_for()


def _wide_and_narrow(page) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for shown in ("Clip", "Wipe from", "File name"):
            page.get_by_label(shown, exact=True).scroll_into_view_if_needed()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(SIDEWAYS) == 0
            if folder := os.environ.get("RMKIT_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/ablation_{width}_{shown.replace(' ', '_')}.png")
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})


def _kept(lab: LabPage, run: Path) -> None:
    """A pin is a column; a profile is saved, with sentences for what cannot be one; pictures are exported."""
    page, made = lab.page, profile.load(run)
    lab.type("Pin label", "mine")
    lab.press("Pin")
    page.get_by_text("Pinned: mine").wait_for()
    assert "mine" in lab.pictures() and "mine" in lab.table()
    for name, said in (("No such", "String should match"), (made.name, "is taken")):
        lab.type("Profile name", name)
        lab.press("Save as profile")
        page.get_by_text(said).wait_for()
    lab.type("Profile name", "chosen")
    lab.press("Save as profile")
    page.get_by_text("make reproduce PROFILE=").last.wait_for()
    lab.type("File name", "../out")
    lab.press("Export")
    page.get_by_text("cannot be a file's name").wait_for()
    lab.type("File name", "out")
    lab.press("Export")
    page.get_by_text("out.csv").wait_for()
    folder = made.layout.root / "lab"
    assert Image.open(folder / "exported" / "out.png").width > 9 * 200
    assert video.probe(folder / "exported" / "out.mp4").frames == made.clips.frames
    assert "mine" in (folder / "exported" / "out.csv").read_text().splitlines()[0]
    lab.press("Remove pins")
    page.get_by_text("No pins").wait_for()
    assert "mine" not in lab.pictures() and "mine" not in lab.table()

    content = yaml.safe_load((folder / "chosen.yaml").read_text())
    assert content["extends"] == str(run) and content["name"] == "chosen"
    assert (
        content["propagation"] | {"anchor_frames": [4, 8], "guidance": 2.0, "steps": 3}
        == content["propagation"]
    )
    saved = profile.load(folder / "chosen.yaml")
    assert saved.propagation.anchor_frames == (4, 8) and saved.data == made.data
