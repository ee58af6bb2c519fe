"""Files that are not the kit's: what is refused says why, nothing of the user's is replaced, and what differs is noted."""

import os
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import set_model
from test_dino import checkpoint as checkpoint
from test_metrics import rows_of
from test_own_video import adapted as adapted
from test_own_video import moving, with_sound
from test_video_matrix import identity as identity

from rmkit import cli, profile
from rmkit.errors import InputError
from rmkit.extras import outputs, own_video, pace, score
from rmkit.kit import footage, progress, store, video
from rmkit.method import training


def tagged(path: Path, transfer: int) -> Path:
    """A small video that says so of its transfer."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.colorspace, stream.color_primaries, stream.color_trc = 9, 9, transfer
        for frame in moving(3):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            made.color_trc = transfer
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_a_sentence(tmp_path: Path, transfer: int, name: str):
    with pytest.raises(InputError, match=f"high dynamic range, {name}.*tone-map"):
        footage.scan(tagged(tmp_path / "hdr.mp4", transfer))
    assert footage.scan(tagged(tmp_path / "sdr.mp4", 1)).frames == 3


def test_a_size_that_changes_in_mid_stream_is_a_sentence(tmp_path: Path):
    path = tmp_path / "parts.h264"
    parts = b""
    for size in ((32, 48), (48, 64)):
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for frame in moving(4, *size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        parts += path.read_bytes()
    path.write_bytes(parts)
    with pytest.raises(InputError, match="changes its size at frame 4, from 48x32 to 64x48"):
        footage.scan(path)


def test_only_files_of_the_kit_are_to_be_deleted(tmp_path: Path):
    path = tmp_path / "cut.mp4"
    video.write_viewing_copy(path, moving(20), 16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"truncated.*get a whole copy of it"):
        video.read(path)
    store.write_json(store.sidecar_of(path), {"key": "1"})
    with pytest.raises(InputError, match=r"truncated.*delete it and make it again"):
        video.read(path)


def test_names_with_colons_and_capitals(identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    source, target = Path("take:1.MP4"), Path("made:1.MP4")
    video.write(tmp_path / "a.mp4", moving(3), 16)
    (tmp_path / "a.mp4").rename(source)
    assert own_video.enhance_video(identity, source, target) == [target]
    assert footage.scan(target).frames == 3
    (tmp_path / "mine.YAML").write_text("name: mine\nseed: x\n")
    with pytest.raises(InputError, match=r"mine\.YAML"):
        profile.load("mine.YAML")


def test_a_name_that_cannot_be_written_is_a_sentence(identity, tmp_path: Path):
    source = tmp_path / "a.mp4"
    video.write(source, moving(5), 16)
    with pytest.raises(InputError, match="a name of more than 200 bytes"):
        own_video.enhance_video(identity, source, tmp_path / ("é" * 100 + ".mp4"))
    foreign = tmp_path / os.fsdecode(b"caf\xe9.mp4")  # Latin-1, as an old archive has them
    with pytest.raises(InputError, match="has a name that is not UTF-8"):
        own_video.enhance_video(identity, source, foreign)
    source.rename(foreign)
    with pytest.raises(InputError, match="has a name that is not UTF-8"):
        own_video.enhance_video(identity, foreign, tmp_path / "out.mp4")


def test_nothing_of_the_users_is_replaced(identity, tmp_path: Path):
    source, target = tmp_path / "game.mp4", tmp_path / "real.mp4"
    video.write(source, moving(3), 16)
    for name in ("real.mp4", "real.preview.mp4", "real.mp4.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(InputError, match=f"{name} exists and was not made by the kit"):
            own_video.enhance_video(identity, source, target)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    target.write_text("mine")
    own_video.enhance_video(identity, source, target, force=True)
    # The kit's own are replaced, also one whose sidecar a kill has taken; one that was changed since is not.
    own_video.enhance_video(identity, source, target, prompt="another")
    store.sidecar_of(target).unlink()
    own_video.enhance_video(identity, source, target, prompt="a third")
    target.write_text("mine")
    with pytest.raises(InputError, match="was not made by the kit"):
        own_video.enhance_video(identity, source, target, prompt="a fourth")
    # An input is not replaced whatever is said.
    shutil.copy(source, tmp_path / "shot.preview.mp4")
    with pytest.raises(InputError, match=r"shot\.preview\.mp4 would be written over"):
        own_video.enhance_video(identity, tmp_path / "shot.preview.mp4", tmp_path / "shot.mp4", force=True)
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    with pytest.raises(InputError, match=r"game\.mp4 would be written over"):
        own_video.enhance_video(identity, source, link, force=True)


def test_a_preview_of_the_users_in_a_folder_is_a_video(tmp_path: Path):
    for name in ("a.preview.mp4", "b.mp4", ".hidden.mp4"):
        video.write(tmp_path / name, moving(3), 16)
    assert [path.name for path in outputs.videos(tmp_path)] == ["a.preview.mp4", "b.mp4"]


def test_whether_it_can_be_written_is_asked_first(identity, tmp_path: Path):
    source = tmp_path / "game.mp4"
    video.write(source, moving(3), 16)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="nothing can be written to"):
        own_video.enhance_video(identity, source, tmp_path / "file" / "real.mp4")
    with pytest.raises(InputError, match="nothing can be written to"):
        store.require_space(tmp_path / "file" / "results", 0)


def test_what_a_container_does_not_hold_is_said_before_the_work(identity, tmp_path: Path):
    source = tmp_path / "raw.mkv"
    with_sound(source, moving(5), 16, "pcm_s16le")
    with pytest.raises(InputError, match=r"pcm_s16le.*mp4 does not hold.*\.mkv"):
        own_video.enhance_video(identity, source, tmp_path / "o.mp4")
    made = own_video.enhance_video(identity, source, tmp_path / "o.mkv")[0]
    with av.open(str(made)) as container:
        assert container.streams.audio[0].codec_context.name == "pcm_s16le"


def test_no_container_is_named_that_does_not_hold_it_either(identity, tmp_path: Path):
    source = tmp_path / "old.wmv"
    with_sound(source, moving(5), 16, "wmav2")
    for ending in (".mp4", ".mkv"):
        with pytest.raises(InputError, match=rf"wmav2, which {ending[1:]} does not hold: convert the input"):
            own_video.enhance_video(identity, source, tmp_path / f"o{ending}")


def test_older_containers_are_seen_in_a_folder(identity, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name, sound in (("a.mpg", "mp2"), ("b.ts", "aac"), ("c.mkv", "aac")):
        with_sound(tmp_path / "in" / name, moving(5), 25, sound)
    own_video.enhance_video(identity, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in outputs.videos(tmp_path / "out")] == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_stops(wrong: float):
    frames = np.zeros((2, 4, 4, 3), np.float32)
    frames[1, 2, 2, 1] = wrong
    with pytest.raises(InputError, match="not finite"):
        video.to_uint8(frames)


def test_a_broken_adapter_leaves_nothing_behind(adapted, tmp_path: Path, capsys):
    """Its folder has a name that no module can have."""
    from safetensors.torch import load_file, save_file

    folder, broken = adapted.layout.adapters / training.NAME, tmp_path / "my adapter v1.2"
    shutil.copytree(folder, broken)
    source, target = tmp_path / "game.mp4", tmp_path / "made" / "real.mp4"
    video.write(source, moving(9), 16)
    own_video.enhance_video(adapted, source, target, broken)
    said = capsys.readouterr().out
    assert "1 window x 2 steps, about" in said and "trained on clips of 9 frames of 48x32" in said
    for file in broken.rglob("*.safetensors"):
        from safetensors import safe_open

        with safe_open(file, "pt") as content:
            header = content.metadata()
        save_file({name: t * float("nan") for name, t in load_file(file).items()}, file, metadata=header)
    with pytest.raises(InputError, match="not finite"):
        own_video.enhance_video(adapted, source, tmp_path / "made" / "b.mp4", broken)
    assert not list((tmp_path / "made").glob("*b*"))


def test_working_smaller_returns_to_the_inputs_size(adapted, tmp_path: Path, capsys):
    source, target = tmp_path / "game.mp4", tmp_path / "real.mp4"
    video.write(source, moving(5, 64, 96), 16)
    own_video.enhance_video(adapted, source, target, height=32)
    assert video.probe(target) == video.VideoInfo(5, 64, 96, Fraction(16))
    assert "worked at 48x32" in capsys.readouterr().out
    assert store.read_sidecar(target)["settings"]["height"] == 32


def test_a_pace_is_a_parabola_of_the_pixels():
    speed = pace.Pace(linear=1e-6, square=1e-12, codec=2e-6)
    assert speed.seconds(1000, 1000, 3, 2) == pytest.approx(3 * (2 * (1 + 1) + 2))
    said = [progress.duration(seconds) for seconds in (0, 0.2, 89, 600, 7200, None)]
    assert said == ["0 s", "1 s", "89 s", "10 min", "2.0 h", "not known"]


@pytest.fixture
def unlike(tmp_path: Path) -> tuple[Path, Path]:
    """Two pairs: one of two sizes and rates, in two containers; one whose rates differ by rounding alone."""
    renders, made = tmp_path / "game", tmp_path / "made"
    video.write(renders / "a.mp4", moving(9, 32, 48), 30)
    video.write(made / "a.mp4", moving(9, 48, 64), 24)
    (made / "a.mp4").rename(made / "a.MOV")
    video.write(renders / "b.mp4", moving(9), Fraction(24000, 1001))
    video.write(made / "b.mp4", moving(9), Fraction(2997, 125))
    return renders, made


def test_pairs_that_differ_are_compared_and_noted(tiny_profile, unlike, capsys):
    rows = rows_of(score.score(tiny_profile, *unlike))
    notes = {row["clip"]: row["note"] for row in rows}
    assert "render stretched from 48x32 to 64x48" in notes["a"] and "30 fps, output at 24" in notes["a"]
    assert notes["b"] == ""
    assert {row["clip"] for row in rows if row["metric"] == "edge_f1"} == {"a", "b"}
    said = capsys.readouterr().out
    assert "2 clips, mean" in said and f"1 of 2 pairs: {notes['a']}." in said
    with pytest.raises(InputError, match=r"a\.MOV has 9 frames of 48x64"):
        score.score(tiny_profile, *unlike, strict=True)


def test_rows_are_written_pair_by_pair(tiny_profile, unlike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rmkit.metrics import sharpness

    measure, out = sharpness.METRIC.measure, tmp_path / "mine.csv"

    def stopped(subject, *rest):
        if subject.clip == "b":
            raise KeyboardInterrupt
        return measure(subject, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(sharpness.METRIC, "measure", stopped)
        with pytest.raises(KeyboardInterrupt):
            score.score(tiny_profile, *unlike, out)
    assert {row["clip"] for row in rows_of(out)} == {"a"}
    assert {row["clip"] for row in rows_of(score.score(tiny_profile, *unlike, out))} == {"a", "b"}


def test_a_table_of_the_users_is_not_replaced(tiny_profile, unlike, tmp_path: Path):
    out = tmp_path / "notes.csv"
    out.write_text("day,weather\n")
    with pytest.raises(InputError, match="no table of this kind"):
        score.score(tiny_profile, *unlike, out)
    assert out.read_text() == "day,weather\n"
    score.score(tiny_profile, *unlike, out, force=True)


def test_models_of_one_world_are_left_out_unless_asked_for(tiny_profile, checkpoint: Path, unlike, capsys):
    (checkpoint / "card.json").write_text('{"knows": "the diorama"}')
    settings = set_model(tiny_profile, "dino", checkpoint)
    try:
        names = {row["metric"] for row in rows_of(score.score(settings, *unlike))}
        assert "sharpness" in names and "dino" not in names
        assert "its model knows the diorama only; --metrics dino asks for it" in capsys.readouterr().out
        rows = rows_of(score.score(settings, *unlike, asked=["dino"]))
        assert {row["metric"].partition("_")[0] for row in rows} == {"dino"}
    finally:
        (checkpoint / "card.json").unlink()
    with pytest.raises(InputError, match="there is no such metric"):
        score.score(settings, *unlike, asked=["beauty"])


def test_the_shipped_models_say_what_they_know():
    mini = profile.load("mini")
    from rmkit import metrics

    knowing = {metric.name for metric in metrics.every() if metric.own_clips and metric.knows(mini)}
    assert knowing == {"arcface", "dino"}


def test_a_place_that_cannot_be_written_to_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys):
    def refuse(_):
        raise PermissionError(13, "Permission denied", "/results/mini")

    monkeypatch.setattr(cli, "_load", refuse)
    assert cli.main(["plan"]) == 2
    assert "/results/mini cannot be read or written: Permission denied" in capsys.readouterr().err


def test_a_list_of_files_is_no_video(tmp_path: Path):
    video.write(tmp_path / "other.mp4", moving(3), 25)
    listing = tmp_path / "take.mp4"
    listing.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(InputError, match=r"take\.mp4 cannot be opened"):
        footage.scan(listing)


@pytest.mark.parametrize("clock", [5.0, 95443.5], ids=["early", "turns over"])
def test_a_broadcasts_clock_begins_at_nought(identity, tmp_path: Path, clock: float):
    """MPEG-TS counts from anywhere, in 33 bits: what comes out begins at once, with the sound in step."""
    made, source = tmp_path / "made.mp4", tmp_path / "take.ts"
    with_sound(made, moving(9), 25)
    with av.open(str(made)) as given, av.open(str(source), "w", format="mpegts") as container:
        streams = [container.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.dts is not None:
                later = round(clock / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    own_video.enhance_video(identity, source, tmp_path / "out.mp4")
    shown, out = footage.scan(source), footage.scan(tmp_path / "out.mp4")
    begins = float(shown.times[0] * shown.base - shown.begins)
    assert float(out.times[0] * out.base) == pytest.approx(begins, abs=1e-5) and begins < 1
    assert np.diff(out.times).tolist() == np.diff(shown.times).tolist()
    starts = {}
    for name, path in (("in", source), ("out", tmp_path / "out.mp4")):
        with av.open(str(path)) as container:
            sound = container.streams.audio[0]
            starts[name] = float(next(container.demux(sound)).pts * sound.time_base)
    before = float(shown.times[0] * shown.base) - starts["in"]
    assert float(out.times[0] * out.base) - starts["out"] == pytest.approx(before, abs=2e-3)


def test_damage_inside_a_file_is_said(identity, tiny_profile, tmp_path: Path, capsys):
    """A decoder makes up what is missing, and says nothing: a file that was copied badly, and not cut short."""
    whole, hurt = tmp_path / "whole" / "a.mp4", tmp_path / "hurt" / "a.mp4"
    for path in (whole, hurt):
        path.parent.mkdir()
        video.write_viewing_copy(path, moving(25, 64, 96), 25)
    raw = bytearray(hurt.read_bytes())
    with av.open(str(whole)) as container:
        entry = container.streams.video[0].index_entries[12]
    raw[entry.pos + 20 : entry.pos + entry.size] = bytes(entry.size - 20)
    hurt.write_bytes(raw)
    said = r"damaged frames, counted from 0: \d+"
    own_video.enhance_video(identity, hurt, tmp_path / "out.mp4")
    assert re.search(f"a.mp4: {said}", capsys.readouterr().out)
    rows = rows_of(score.score(tiny_profile, whole.parent, hurt.parent))
    assert all(re.fullmatch(f"output: {said}", row["note"]) for row in rows)


def test_what_of_a_picture_goes_is_said(identity, tmp_path: Path, capsys):
    for name, codec, pixels, options in (
        ("clear.mov", "png", "rgba", {}),
        ("halves.mkv", "mpeg2video", "yuv420p", {"flags": "+ildct+ilme"}),
    ):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
            for frame in moving(3):
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels))
                )
            container.mux(stream.encode())
        own_video.enhance_video(identity, tmp_path / name, tmp_path / "out" / f"{name}.mp4")
    said = capsys.readouterr().out
    assert "clear.mov: its transparency is not kept" in said
    assert "halves.mkv: it is interlaced" in said
