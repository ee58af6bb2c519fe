"""What a profile that extends another takes from its run, and what it makes: by the keys, and as `plan` foretells it."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from test_cli import contents, saved

from rmkit import cli, profile
from rmkit.kit import reuse, store
from rmkit.paths import RECORD, REPOSITORY, Layout
from rmkit.pipeline import changes, plan, plan_table, stages

ORDER = ("data", "anchors", "structure", "propagate", "filter", "encode", "train", "enhance", "evaluate")
FOLLOWS_EDGES = {"edges", "multi_anchor", "realmaster", "colour_transfer"}


def run(settings: profile.Profile) -> None:
    for name in ORDER:
        stages.STAGES[name](settings)


def extending(folder: Path, name: str, extends: str, **settings: object) -> profile.Profile:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"extends": extends, "name": name, **settings}))
    return profile.load(path)


def made(layout: Layout) -> dict[str, set[str]]:
    """Folders of what a run made itself; of measurements the methods by metric."""
    found: dict[str, set[str]] = {"metrics": set(), "stages": set()}
    for path in layout.root.rglob("*.json"):
        artefact = path.with_suffix("")
        if artefact.exists() and "taken_from" not in (sidecar := json.loads(path.read_text())):
            parts = artefact.relative_to(layout.root).parts
            if parts[0] == "metrics":
                found["metrics"].add("/".join(parts[1:3]))
            else:
                found["stages"].add(sidecar["stage"] if parts[0] != "structure" else "/".join(parts[:2]))
                found["stages"] |= {"/".join(parts[:2])} if parts[0] in ("propagated", "enhanced") else set()
    return found


def test_only_what_a_change_reaches_is_computed(tiny_profile: profile.Profile, tmp_path: Path, capsys):
    base = profile.load(saved(tiny_profile, tmp_path))
    run(base)
    measured = made(base.layout)["metrics"]
    before, state = contents(base.layout.root), os.stat(base.layout.metrics)

    edges = extending(tmp_path, "edges", "own.yaml", structure={"edges": "gradient"})
    foretold = {row.stage: (row.count - row.done, row.reused) for row in plan.steps(edges)}
    run(edges)
    assert made(edges.layout)["stages"] == {
        *(
            "structure/edges",
            "propagate",
            "propagated/edges",
            "propagated/multi_anchor",
            "identity",
            "latents",
            "train",
        ),
        *(
            "enhance",
            "enhanced/realmaster",
            "colour_transfer.fit",
            "colour_transfer",
            "enhanced/colour_transfer",
        ),
    }
    assert made(edges.layout)["metrics"] == {m for m in measured if m.split("/")[1] in FOLLOWS_EDGES}
    assert foretold["anchors"][0] == foretold["data"][0] == 0 and foretold["data"][1] == 4
    assert foretold["structure"] == (4, 2) and foretold["propagate"] == (6, 2)
    assert foretold["train"] == (4, 0) and foretold["enhance"] == (2, 0)

    enhance = extending(tmp_path, "enhance", "own.yaml", enhance={"shift": 2.0})
    foretold = {row.stage: (row.count - row.done, row.reused) for row in plan.steps(enhance)}
    run(enhance)
    assert made(enhance.layout)["stages"] == {"enhance", "enhanced/realmaster"}
    assert made(enhance.layout)["metrics"] == {m for m in measured if m.endswith("/realmaster")}
    assert foretold["train"] == (0, 4) and foretold["enhance"] == (2, 0) and foretold["propagate"] == (0, 8)
    adapter, theirs = (one.layout.adapters / "realmaster" / "high" for one in (enhance, base))
    assert store.fingerprint(adapter) == store.fingerprint(theirs)
    assert (adapter.parent / "README.md").is_file()

    features = str(REPOSITORY / "data/diorama/checkpoints/features")
    metric = extending(tmp_path, "metric", "enhance.yaml", metrics={"dino": features})
    run(metric)
    assert made(metric.layout)["stages"] == set()
    assert {m.split("/")[0] for m in made(metric.layout)["metrics"]} == {"dino"}
    taken = store.read_sidecar(next((metric.layout.enhanced / "realmaster").glob("*.mp4")))
    assert taken["taken_from"] == "enhance" and taken["seconds"] > 0 and taken["seed"] is not None

    assert contents(base.layout.root) == before and os.stat(base.layout.metrics) == state
    capsys.readouterr()
    plan_table.show(metric)
    shown = capsys.readouterr().out
    assert "changed beside" in shown and "enhance.shift 3.0 -> 2.0" in shown and "0 clips to make" in shown


def test_the_other_run_may_be_deleted_or_never_have_been(tiny_profile: profile.Profile, tmp_path: Path):
    base = profile.load(saved(tiny_profile, tmp_path))
    first = extending(tmp_path, "first", "own.yaml", enhance={"shift": 2.0})
    stages.data(first)
    assert not base.layout.root.exists() and made(first.layout)["stages"] >= {"clips"}
    # A run that extends this one takes from it, and keeps what it has when it is gone.
    second = extending(tmp_path, "second", "first.yaml", enhance={"shift": 1.0})
    stages.data(second)
    assert "clips" not in made(second.layout)["stages"]
    clip = next(second.layout.clips.glob("*.mp4"))
    assert store.read_sidecar(clip)["taken_from"] == "first"
    shutil.rmtree(first.layout.root)
    stages.data(second)
    assert clip.is_file() and "clips" not in made(second.layout)["stages"]
    assert [name for name, _ in reuse.counterparts(clip)] == ["first", "tiny"]


def test_files_come_by_link_or_as_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    file = tmp_path / "a" / "deep" / "x.bin"
    file.write_bytes(b"1")
    reuse.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "x.bin").samefile(file)

    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refused)
    reuse.link(tmp_path / "a", tmp_path / "c")
    copy = tmp_path / "c" / "deep" / "x.bin"
    assert copy.read_bytes() == b"1" and not copy.samefile(file)


def test_writing_anew_leaves_the_other_run_as_it_was(tmp_path: Path):
    """A hard link is replaced, never written through."""
    for name, extends in (("a", []), ("b", ["a"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD).write_text(json.dumps({"extends": extends}))
    recipe, other = (store.Recipe("stage", 1, {"k": k}, {}) for k in (1, 2))
    with store.writing(tmp_path / "a" / "x.txt", recipe) as temporary:
        temporary.write_text("old")
    assert store.is_done(tmp_path / "b" / "x.txt", recipe) and not store.is_done(
        tmp_path / "b" / "y.txt", recipe
    )
    with store.writing(tmp_path / "b" / "x.txt", other) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a" / "x.txt").read_text() == "old"
    store.discard(tmp_path / "b" / "x.txt")
    assert store.is_done(tmp_path / "a" / "x.txt", recipe)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [RECORD]


def test_an_edited_profile_goes_on_and_says_what_is_computed_anew(
    tiny_profile: profile.Profile, tmp_path: Path, capsys
):
    path = saved(tiny_profile, tmp_path)
    assert cli.main(["data", "--profile", str(path), "--anyway"]) == 0
    layout = profile.load(path).layout
    assert layout.owner == path
    capsys.readouterr()
    path.write_text(path.read_text().replace("shift: 16.0", "shift: 3.0").replace("seed: 0", "seed: 1"))
    assert cli.main(["data", "--profile", str(path), "--anyway"]) == 0
    said = capsys.readouterr().out
    assert (
        "was begun with other settings: seed 0 -> 1" in said
        and "computed anew: anchors, propagated/edges" in said
    )
    assert cli.main(["data", "--profile", str(path), "--anyway"]) == 0
    assert "begun with" not in capsys.readouterr().out

    # Another file of that name is refused before it writes anything.
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "own.yaml"
    other.write_text(path.read_text())
    before = contents(layout.root)
    for command in ("data", "enhance", "plan", "notebooks"):
        assert cli.main([command, "--profile", str(other)]) == 2
    assert "are those of another profile of that name" in capsys.readouterr().err
    assert contents(layout.root) == before


def test_a_run_of_before_there_was_a_setting_is_not_stale(
    tiny_profile: profile.Profile, tmp_path: Path, capsys
):
    base = profile.load(saved(tiny_profile, tmp_path))
    stages.data(base)
    changes.begin(base)
    noted = base.layout.noted
    del noted["settings"]["propagation"]["conditioning"]
    store.write_json(base.layout.record, noted)
    assert list(changes.lines(base)) == []
    changes.begin(base)
    assert "begun with" not in capsys.readouterr().out
    assert base.layout.noted["stale"] == {} and "conditioning" in base.layout.noted["settings"]["propagation"]


def test_what_was_made_before_an_edit_is_not_done(tiny_profile: profile.Profile, tmp_path: Path):
    path = saved(tiny_profile, tmp_path)
    base = profile.load(path)
    stages.data(base)
    stages.structure(base)
    done = {row.stage: row.done for row in plan.steps(base)}
    assert (done["data"], done["structure"]) == (4, 6)
    path.write_text(path.read_text().replace("edges: canny", "edges: gradient"))
    edited = profile.load(path)
    assert {row.stage: row.done for row in plan.steps(edited)}["structure"] == 2
    changes.begin(edited)
    assert {row.stage: row.done for row in plan.steps(edited)}["structure"] == 2
    stages.structure(edited)
    assert {row.stage: row.done for row in plan.steps(edited)}["structure"] == 6


def test_every_setting_is_read_by_a_stage_or_is_known_to_cost_only():
    """Who adds a setting says what reads it: what nothing reads would be foretold as computing nothing."""
    mini = profile.load("mini")
    graph = dict(changes._graph(mini))
    read = {one for reads, _ in graph.values() for one in reads} | set(changes.COST)
    other = {
        "name",
        "extends",
        "weather",
        "carla",
        "judge",
        "metrics",
        "baselines",
    }  # of demonstrations, or by their own names
    cheap = {"models.device", "models.offload", "propagation.variants"}  # where it runs, and how many
    keys = [key for key in changes.differences({}, flat(mini.model_dump())) if key.split(".")[0] not in other]
    assert [
        k for k in keys if k not in cheap and not any(k == r or k.startswith(f"{r}.") for r in read)
    ] == []


def flat(settings: dict, group: str = "") -> dict:
    found = {}
    for key, value in settings.items():
        found |= flat(value, f"{group}{key}.") if isinstance(value, dict) else {f"{group}{key}": value}
    return found


def test_a_demonstration_that_has_run_is_done(tiny_profile: profile.Profile) -> None:
    folder, wanted = tiny_profile.layout.notebooks, {"06_weather": 5, "09_your_clip": 7}
    folder.mkdir(parents=True)
    (folder / "09_your_clip.ipynb.json").write_text("{}")
    changes.begin(tiny_profile)
    counted = (changes.counted(tiny_profile, name, changes.runs(tiny_profile), wanted) for name in wanted)
    assert list(counted) == [(0, 0), (7, 0)]
