"""A user's own video: any length, size and rate; one window is the stage; sound kept; bad input refused."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from test_enhance import save_adapters, with_enhance

from rmkit import cli
from rmkit.errors import InputError
from rmkit.extras import own_video
from rmkit.kit import encode, footage, models, store, video
from rmkit.method import enhance, training


@pytest.fixture
def adapted(tiny_profile):
    save_adapters(tiny_profile)
    return tiny_profile


def moving(frames, height=32, width=48):
    """A bright square that wanders over a gradient: uint8 [F, H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    clip = np.repeat(np.stack([y * 3, x * 2, y + x], -1)[None], frames, 0).astype(np.uint8)
    for i in range(frames):
        clip[i, 8:20, (2 * i) % (width - 12) :][:, :12] = 230
    return clip


def with_sound(path, frames, fps, codec="aac"):
    """A video with a tone, in whatever container the ending says."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps)
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        tone = container.add_stream(codec, rate=48_000, bit_rate=128_000)
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(picture.encode())
        seconds = len(frames) / fps
        wave = np.sin(np.arange(int(48_000 * seconds)) * 0.05).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout="mono")
        sound.sample_rate = 48_000
        for part in av.AudioResampler(tone.codec_context.format, "mono", 48_000).resample(sound):
            container.mux(tone.encode(part))
        container.mux(tone.encode())


def job(source, *first):
    """The video in windows that begin at these frames."""
    shot = footage.scan(source)
    return own_video.Job(source, shot, first, "a prompt", shot.height, shot.width)


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


@pytest.mark.parametrize(
    ("frames", "height", "width", "fps"), [(25, 32, 48, 24), (3, 30, 46, 30), (14, 35, 51, 16)]
)
def test_length_size_and_rate_are_the_inputs(adapted, tmp_path, frames, height, width, fps):
    """Three windows of 9 frames; fewer frames than a window; odd sides and a last window moved back."""
    source, target = tmp_path / "game.mp4", tmp_path / "out" / "real.mp4"
    video.write(source, moving(frames, height, width), fps)
    assert own_video.enhance_video(adapted, source, target) == [target]
    found = video.probe(target)
    assert (found.frames, found.height, found.width, found.fps) == (frames, height, width, fps)
    preview = video.probe(target.with_suffix(".preview.mp4"))
    assert (preview.frames, preview.height, preview.width) == (frames, height, 2 * width)
    before = target.stat().st_mtime_ns
    own_video.enhance_video(adapted, source, target)
    assert target.stat().st_mtime_ns == before
    own_video.enhance_video(adapted, source, target, prompt="a street in the rain")
    assert target.stat().st_mtime_ns != before
    assert store.read_sidecar(target)["settings"]["prompt"] == "a street in the rain"


def test_a_video_of_one_window_is_what_the_stage_makes(adapted):
    folder = adapted.layout.adapters / training.NAME
    pipeline = enhance.load(adapted, folder)
    text = encode.text(pipeline, adapted.train.prompt)
    negative = enhance.negative(adapted, pipeline)
    source = adapted.layout.root / "one.mp4"
    video.write(source, moving(9), 16)
    expected = enhance.run(adapted, pipeline, moving(9), text, negative, 5)
    found = list(own_video.enhanced(adapted, pipeline, job(source, 0), text, negative, 5))
    assert np.array_equal(np.stack(found), expected)


def test_latents_come_back_as_the_pipeline_decodes_them(tiny_profile):
    pipeline = models.load_wan(tiny_profile)
    channels = pipeline.vae.config.z_dim
    pipeline.vae.register_to_config(latents_mean=[0.1] * channels, latents_std=[1.5] * channels)
    noise = torch.randn(1, channels, 3, 4, 6, generator=models.generator(0))
    inputs = {"prompt_embeds": encode.text(pipeline, "x"), "height": 32, "width": 48, "num_frames": 9}
    inputs |= {"num_inference_steps": 2, "guidance_scale": 1.0, "latents": noise}
    frames = video.to_uint8(pipeline(**inputs, output_type="np").frames[0])
    found = encode.frames(pipeline, pipeline(**inputs, output_type="latent").frames)
    # The pipeline divides by one over the standard deviation, which may round to the other side.
    assert np.abs(found.astype(int) - frames).max() <= 1 and (found != frames).mean() < 1e-3


def test_a_window_is_made_before_the_next_is_read(adapted, tmp_path, monkeypatch):
    """So that memory does not grow with the length."""
    source, seen, stream = tmp_path / "long.mp4", [], video.stream
    video.write(source, moving(37), 16)
    monkeypatch.setattr(own_video.video, "stream", lambda path: (seen.append(1) or f for f in stream(path)))
    pipeline = enhance.load(adapted, adapted.layout.adapters / training.NAME)
    text = encode.text(pipeline, "a prompt")
    first = [0, 4, 8, 12, 16, 20, 24, 28]
    frames = own_video.enhanced(adapted, pipeline, job(source, *first), text, None, 0)
    counts = [len(seen) for _ in frames]
    assert len(counts) == 37 and counts[0] == 9 and counts[4] == 13 and counts[-1] == 37


def test_cached_keys_and_values_give_the_same_video(adapted, tmp_path):
    """Frames as they leave the model: an encoder makes much of the least difference."""
    save_adapters(adapted, "oneway", mode="one-way")
    one_way = adapted.model_copy(update={"train": adapted.train.model_copy(update={"mode": "one-way"})})
    source, folder = tmp_path / "in.mp4", adapted.layout.adapters / "oneway"
    video.write(source, moving(13), 16)
    made = []
    for mode in (None, "one-way cached"):
        settings = one_way.enhance.model_copy(update={"mode": mode, "steps": 3})
        profile = one_way.model_copy(update={"enhance": settings})
        pipeline = enhance.load(profile, folder)
        text = encode.text(pipeline, "a prompt")
        frames = own_video.enhanced(profile, pipeline, job(source, 0, 4), text, None, 0)
        made.append(np.stack(list(frames)).astype(int))
    difference = np.abs(made[0] - made[1])
    assert difference.max() <= 2 and (difference > 0).mean() < 1e-2


def test_sound_is_copied_as_it_is(adapted, tmp_path):
    source, target = tmp_path / "talk.mp4", tmp_path / "real.mp4"
    with_sound(source, moving(9), 16)
    own_video.enhance_video(adapted, source, target)
    assert packets(target) == packets(source) and packets(source)


def test_a_folder_becomes_a_folder(adapted, tmp_path, capsys):
    for name, count in (("a.mp4", 5), ("b.mov", 9)):
        video.write(tmp_path / "in" / name, moving(count), Fraction(30_000, 1001))
    (tmp_path / "in" / "notes.txt").write_text("no video")
    paths = own_video.enhance_video(adapted, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in paths] == ["a.mp4", "b.mp4"]
    assert video.probe(paths[1]).fps == Fraction(30_000, 1001)
    said = capsys.readouterr().out
    assert "a.mp4: 5 frames of 48x32" in said and "b.mov: 9 frames of 48x32" in said


def test_what_does_not_fit_is_refused_before_a_model_is_loaded(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_wan", None)
    source = tmp_path / "game.mp4"
    video.write(source, moving(5), 16)
    video.write(tmp_path / "a.preview.mp4", moving(5), 16)
    cases = [
        (tmp_path / "none.mp4", tmp_path / "o.mp4", None, "does not exist"),
        (source, source, None, "written over"),
        (tmp_path / "a.preview.mp4", tmp_path / "a.mp4", None, r"a\.preview\.mp4 would be written over"),
        (source, tmp_path / "o.avi", None, "must end in .mp4"),
        (tmp_path, tmp_path / "o.mp4", None, "is a folder"),
        (tmp_path / "empty", tmp_path / "o", None, "holds no video"),
        (source, tmp_path / "o.mp4", tmp_path / "no adapter", "train the adapter first"),
    ]
    (tmp_path / "empty").mkdir()
    for given, out, folder, said in cases:
        with pytest.raises(InputError, match=said):
            own_video.enhance_video(adapted, given, out, folder)
    raw = tmp_path / "raw.mkv"
    with_sound(raw, moving(5), 16, "pcm_s16le")
    with pytest.raises(InputError, match=r"pcm_s16le.*mp4 does not hold"):
        own_video.enhance_video(adapted, raw, tmp_path / "o.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(source.read_bytes()[:200])
    with pytest.raises(InputError, match="truncated or not a video"):
        own_video.enhance_video(adapted, broken, tmp_path / "o.mp4")
    assert not (tmp_path / "o.mp4").exists()


def test_an_overlap_as_long_as_a_window_is_a_sentence(tiny_profile, tmp_path):
    with pytest.raises(InputError, match=r"overlap is 16 and must be less than clips.frames - 1 \(8\)"):
        own_video.enhance_video(
            with_enhance(tiny_profile, overlap=16), tmp_path / "any.mp4", tmp_path / "o.mp4"
        )


def test_command_wants_both_in_and_out(capsys):
    assert cli.main(["enhance", "--profile", "smoke", "only.mp4"]) == 2
    assert "give both" in capsys.readouterr().err
