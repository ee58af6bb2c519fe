"""A stage over items: what is done is left alone, what fails loses nothing that is finished, what is left out is named."""

from pathlib import Path

import pytest

from rmkit.errors import InputError
from rmkit.kit import stage, store


def items(folder: Path, count: int = 3, version: int = 1) -> list[stage.Item[int]]:
    recipes = [store.Recipe("stage", version, {}, {"number": str(i)}) for i in range(count)]
    return [stage.Item(folder / f"{i}.txt", recipe, i) for i, recipe in enumerate(recipes)]


def write(item: stage.Item[int], temporary: Path) -> dict[str, int]:
    temporary.write_text(str(item.subject))
    return {"subject": item.subject}


def test_items_are_made_once(tmp_path: Path):
    paths = stage.run("stage", items(tmp_path), lambda: write, device="a device")
    assert [path.read_text() for path in paths] == ["0", "1", "2"]
    sidecar = store.read_sidecar(paths[1])
    assert (sidecar["device"], sidecar["subject"]) == ("a device", 1)

    def never() -> stage.Make[int]:
        raise AssertionError("nothing is missing, so nothing is loaded")

    assert stage.run("stage", items(tmp_path), never) == paths
    paths[1].unlink()
    made = []
    stage.run(
        "stage", items(tmp_path), lambda: lambda item, path: made.append(item.subject) or write(item, path)
    )
    assert made == [1]


def test_the_seconds_are_those_of_the_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 100, 7))
    monkeypatch.setattr(store.time, "monotonic", lambda: next(clock))
    (path,) = stage.run("stage", items(tmp_path, 1), lambda: write)
    assert store.read_sidecar(path)["seconds"] >= 7


def test_what_fails_keeps_what_is_finished(tmp_path: Path):
    def fails(item: stage.Item[int], temporary: Path) -> None:
        if item.subject == 1:
            raise RuntimeError
        write(item, temporary)

    with pytest.raises(RuntimeError):
        stage.run("stage", items(tmp_path), lambda: fails)
    assert [item.is_done for item in items(tmp_path)] == [True, False, False]


def test_what_is_left_out_is_named_and_an_earlier_version_goes(tmp_path: Path, capsys: pytest.CaptureFixture):
    stage.run("stage", items(tmp_path), lambda: write)

    def leaves_out(item: stage.Item[int], temporary: Path) -> None:
        if item.subject == 1:
            raise stage.LeftOut("it has no anchor")
        write(item, temporary)

    paths = stage.run("stage", items(tmp_path, version=2), lambda: leaves_out)
    assert [path.name for path in paths] == ["0.txt", "2.txt"]
    assert "stage: 1 is left out: it has no anchor" in capsys.readouterr().out


def test_room_is_asked_for_before_anything_is_loaded(tmp_path: Path):
    def never() -> stage.Make[int]:
        raise AssertionError

    with pytest.raises(InputError, match="GB free"):
        stage.run("stage", items(tmp_path), never, item_bytes=10**18)
