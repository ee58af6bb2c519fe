"""A clip of one's own: the shipped one or a user's, enhanced, shown and measured without a truth."""

import numpy as np
import pytest
from test_enhance import adapted as adapted
from test_metrics import rows_of
from test_own_video import moving

from rmkit.demos import your_clip
from rmkit.errors import InputError
from rmkit.kit import models, store, video


def test_the_default_is_a_shipped_road_shot_at_the_profiles_rate(adapted, monkeypatch) -> None:
    pair = your_clip.enhanced(adapted)
    folder = adapted.layout.run / "your_clip" / "road"
    assert pair == (folder / "input" / "road.mp4", folder / "enhanced" / "road.mp4")
    info = video.probe(pair.input)
    assert (info.frames, info.height, info.width, info.fps) == (9, 96, 144, 16)
    frames = video.read(pair.input).astype(int)
    shown_twice, moved = (np.abs(frames[i] - frames[0]).mean() for i in (1, 2))
    assert shown_twice < moved / 4  # but for the codec
    assert video.probe(pair.output).frames == 9 and video.probe(pair.preview).width == 288
    assert store.read_sidecar(pair.output)["settings"]["prompt"].startswith("a drive along a road")
    sheet = np.asarray(your_clip.sheet(pair, columns=3))
    assert sheet.shape[0] > 2 * 96 and sheet.shape[1] > 3 * 144
    assert not np.array_equal(sheet, np.asarray(your_clip.sheet(pair, columns=3, start=0.5)))

    rows = rows_of(your_clip.measured(adapted, pair, repeats=2))
    assert {row["method"] for row in rows} == {"render", "output"} and {row["clip"] for row in rows} == {
        "road"
    }
    names = {row["metric"] for row in rows}
    assert {"edge_f1", "temporal_flickering_distinct", "sharpness"} <= names
    assert not [name for name in names if "truth" in name or "judge" in name]
    # Again, and nothing is made; another prompt, and it is.
    before = pair.output.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(models, "load_wan", None)
        assert your_clip.enhanced(adapted) == pair
    your_clip.enhanced(adapted, prompt="in the snow, a road")
    assert pair.output.stat().st_mtime_ns != before


def test_a_video_of_ones_own_stands_apart_from_others(adapted, tmp_path) -> None:
    source = tmp_path / "my game.mp4"
    video.write(source, moving(7), 30)
    your_clip.enhanced(adapted)
    pair = your_clip.enhanced(adapted, str(source))
    assert pair.input.read_bytes() == source.read_bytes()
    assert video.probe(pair.output).fps == 30 and video.probe(pair.output).frames == 7
    assert store.read_sidecar(pair.output)["settings"]["prompt"] == adapted.train.prompt
    rows = rows_of(your_clip.measured(adapted, pair))  # the preview beside it is no output
    assert {row["clip"] for row in rows} == {"my game"}
    # The file is another one under the same name.
    video.write(source, moving(5), 30)
    assert video.probe(your_clip.enhanced(adapted, str(source)).output).frames == 5


def test_what_is_no_video_or_no_prompt_is_a_sentence(adapted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(models, "load_wan", lambda _: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"none\.mp4 does not exist"):
        your_clip.enhanced(adapted, str(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="truncated or not a video"):
        your_clip.enhanced(adapted, str(tmp_path / "text.mp4"))
    with pytest.raises(InputError, match=r"words would be lost: '.*street'"):
        your_clip.enhanced(adapted, prompt="a street " * 60)
