"""The methods that are compared: the external ones, framing, LucyEdit and Editto on small random checkpoints in the real formats, who runs when."""

import json
import shutil
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_metrics import measured as measured
from test_metrics import rows_of

from rehearsal import models as stand_ins
from rmkit import baselines, cli, profile
from rmkit.baselines import editto, framing
from rmkit.baselines.lucy_edit import LucyEdit
from rmkit.errors import InputError
from rmkit.evaluation import evaluate, having
from rmkit.kit import models, store, video
from rmkit.method import sampling
from rmkit.pipeline import plan

AREA = {"height": 32, "width": 64}  # another shape than the clips' 32x48, so that bars are needed


@pytest.fixture(scope="session")
def lucy_folder(tiny_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder as Lucy-Edit-Dev's: Wan2.2's small VAE, the clip's latents beside the noisy ones."""
    import architectures
    from diffusers import LucyEditPipeline, WanPipeline

    wan = WanPipeline.from_pretrained(tiny_checkpoints / "wan", transformer=None, transformer_2=None)
    torch.manual_seed(1)
    channels = 2 * architectures.LATENT_CHANNELS
    transformer = architectures.wan_transformer(
        num_layers=2, num_attention_heads=2, ffn_dim=96, in_channels=channels
    )
    pipeline = LucyEditPipeline(
        tokenizer=wan.tokenizer,
        text_encoder=wan.text_encoder,
        vae=wan.vae,
        scheduler=architectures.wan_scheduler(),
        transformer=transformer,
        expand_timesteps=True,
    )
    folder = tmp_path_factory.mktemp("lucy")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


# A LoRA that fits the tiny VACE.
lora = partial(stand_ins.ditto, width=104, hidden=96)


def asking(made: profile.Profile, **baselines: dict) -> profile.Profile:
    return profile.Profile.model_validate({**made.model_dump(), "baselines": baselines})


def make(made: profile.Profile, clips: list[sampling.Clip]) -> None:
    baselines.make(made, clips, baselines.asked(made))


def ready(made: profile.Profile, name: str) -> baselines.Edit:
    return baselines.every(made)[name].ready(made)


@pytest.fixture
def lucy(tiny_profile: profile.Profile, lucy_folder: Path) -> profile.Profile:
    return asking(tiny_profile, lucy_edit={"model": str(lucy_folder), "steps": 2, **AREA})


@pytest.fixture
def ditto(tiny_profile: profile.Profile, tmp_path: Path) -> profile.Profile:
    """Its negative prompt is long, so that VACE reads as many tokens as the real one."""
    shutil.copytree(tiny_profile.models.wan, tmp_path / "wan")
    file = tmp_path / "wan" / "tokenizer" / "tokenizer_config.json"
    store.write_json(file, json.loads(file.read_text()) | {"model_max_length": models.TEXT_TOKENS})
    named = tiny_profile.models.model_copy(update={"wan": str(tmp_path / "wan")})
    lora(tmp_path / "ditto")
    made = tiny_profile.model_copy(update={"models": named})
    return asking(made, editto={"model": str(tmp_path / "ditto"), "steps": 2, **AREA})


def gradient(height: int, width: int, count: int = 2) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([255 * rows / height, 255 * columns / width, np.full((height, width), 200)], axis=-1)
    return np.stack([picture.astype(np.uint8)] * count)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((800, 1200), (slice(0, 480), slice(56, 776))),  # the paper's clips
        ((480, 720), (slice(0, 480), slice(56, 776))),
        ((96, 240), (slice(73, 406), slice(0, 832))),
        ((480, 832), (slice(0, 480), slice(0, 832))),
    ],
)
def test_a_clip_is_never_stretched_and_comes_back_as_it_was(size: tuple, box: framing.Box) -> None:
    frames = gradient(*size)
    shown, found = framing.letterbox(frames, 480, 832)
    assert shown.shape == (2, 480, 832, 3) and found == box
    height, width = (side.stop - side.start for side in found)
    assert abs(width / height / (size[1] / size[0]) - 1) < 0.002
    outside_box = np.ones((480, 832), bool)
    outside_box[found] = False
    assert not shown[:, outside_box].any() and shown[0, ~outside_box].min(axis=0)[2] == 200
    back = framing.unboxed(shown, found, *size)
    assert back.shape == frames.shape and np.abs(back.astype(int) - frames).mean() < 1


def test_windows_cover_every_frame_once_at_full_length() -> None:
    assert framing.windows(81, 73) == [range(73), range(8, 81)]
    assert framing.windows(73, 73) == [range(73)] and framing.windows(33, 73) == [range(33)]
    assert framing.windows(20, 9) == [range(9), range(9, 18), range(11, 20)]
    assert framing.windows(18, 9) == [range(9), range(9, 18)]
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    passes = []

    def numbered(window: np.ndarray) -> np.ndarray:
        passes.append(len(window))
        return window + 100 * np.uint8(len(passes) - 1)

    edited = framing.in_windows(numbered, frames, 9)[:, 0, 0, 0].tolist()
    assert passes == [9, 9, 9] and edited == [*range(9), *range(109, 118), *range(218, 220)]


def test_a_frame_is_the_one_shown_at_its_time() -> None:
    def numbers(count: int, rate: float, wanted: int) -> list[int]:
        frames = (np.full((1, 1, 3), i, np.uint8) for i in range(count))
        return [int(f[0, 0, 0]) for f in framing.at_rate(frames, Fraction(rate), wanted, 16)]

    assert numbers(9, 16, 9) == list(range(9))
    assert numbers(12, 24, 8) == [0, 2, 3, 5, 6, 8, 9, 11]
    assert numbers(8, 8, 16) == [i // 2 for i in range(16)]
    # Five seconds of the 81 frames of the paper: the last one is held.
    assert numbers(120, 24, 81)[-2:] == [119, 119]
    with pytest.raises(InputError, match="ends after 100 frames at 24 a second"):
        numbers(100, 24, 81)


def test_another_picture_is_not_cropped_into_shape() -> None:
    assert framing.filling(gradient(720, 1088)[0], 800, 1200).shape == (800, 1200, 3)
    with pytest.raises(InputError, match="720x1280 do not show a clip of 800x1200"):
        framing.filling(gradient(720, 1280)[0], 800, 1200)


def test_lucy_edit_edits_each_clip_once(lucy, tiny_clips, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tiny_clips[2:]
    make(lucy, held)
    paths = [lucy.layout.enhanced / "lucy_edit" / f"{clip.id}.mp4" for clip in held]
    made = [video.read(path) for path in paths]
    for clip, frames in zip(held, made, strict=True):
        render = video.read(sampling.path(lucy, clip))
        assert frames.shape == render.shape and not np.array_equal(frames, render)
    before = [path.read_bytes() for path in paths]
    # A killed run goes on where it was, with the same result; nothing is loaded once all is done.
    paths[1].unlink()
    make(lucy, held)
    assert [path.read_bytes() for path in paths] == before
    with monkeypatch.context() as patch:
        patch.setattr(LucyEdit, "load", lambda *_: pytest.fail("loaded"))
        make(lucy, held)
    other = asking(lucy, lucy_edit=lucy.baselines["lucy_edit"] | {"prompt": "a cartoon"})
    make(other, held)
    assert paths[0].read_bytes() != before[0]


def test_lucy_edit_sees_the_clip_and_heeds_prompt_and_bars(lucy, tiny_clips) -> None:
    pipeline = LucyEdit().load(lucy)
    seen = {}
    original = pipeline.prepare_latents

    def spy(video_, *rest):
        seen["video"] = video_
        return original(video_, *rest)

    def encoded(prompt, negative_prompt=None, **rest):
        seen["prompts"] = (prompt, negative_prompt, rest["do_classifier_free_guidance"])
        return encode(prompt, negative_prompt=negative_prompt, **rest)

    encode, pipeline.encode_prompt, pipeline.prepare_latents = pipeline.encode_prompt, encoded, spy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LucyEdit, "load", lambda *_: pipeline)
        ready(lucy, "lucy_edit")(tiny_clips[2], 5)
    assert seen["prompts"] == ("make the video look photorealistic", "", True)
    assert seen["video"].shape == (1, 3, 9, 32, 64)
    bars = torch.cat([seen["video"][..., :8], seen["video"][..., 56:]], dim=-1)
    assert (bars == -1).all()
    render = torch.from_numpy(video.to_unit(video.read(sampling.path(lucy, tiny_clips[2])))).permute(
        3, 0, 1, 2
    )
    assert torch.allclose(seen["video"][0, ..., 8:56], render, atol=1e-6)


def test_longer_clips_take_more_passes(lucy, tiny_clips) -> None:
    short = asking(lucy, lucy_edit=lucy.baselines["lucy_edit"] | {"frames": 5})
    pipeline, lengths = LucyEdit().load(short), []
    original = pipeline.prepare_latents
    pipeline.prepare_latents = lambda video_, *rest: (
        lengths.append(video_.shape[2]) or original(video_, *rest)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LucyEdit, "load", lambda *_: pipeline)
        frames = ready(short, "lucy_edit")(tiny_clips[2], 5)
    assert lengths == [5, 5] and len(frames) == 9


def test_every_tensor_of_edittos_lora_finds_its_place(ditto, tmp_path: Path) -> None:
    pipeline, plain = editto.load(ditto), models.load_vace(ditto)
    wanted = editto.tensors(tmp_path / "ditto" / "models" / "ditto_sim2real.safetensors")
    loaded = {
        f"transformer.{name.replace('.editto.', '.')}": value
        for name, value in pipeline.transformer.named_parameters()
        if ".lora_" in name
    }
    assert len(wanted) == 2 * 2 * 10 and set(loaded) == set(wanted)
    assert all(torch.equal(loaded[name].float(), wanted[name].float()) for name in wanted)
    raw = load_file(tmp_path / "ditto" / "models" / "ditto_sim2real.safetensors")
    names = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"]
    names += [name.replace("attn1", "attn2") for name in names] + ["ffn.net.0.proj", "ffn.net.2"]
    parts = [f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"] + ["ffn.0", "ffn.2"]
    for part, name in zip(parts, names, strict=True):
        there = loaded[f"transformer.vace_blocks.1.{name}.lora_B.weight"]
        assert torch.equal(there.float(), raw[f"vace_blocks.1.{part}.lora_B.default.weight"].float())
    # At full strength: the product of the two sides is added, as the authors' script does.
    layer = pipeline.transformer.vace_blocks[1].ffn.net[0].proj
    stem = "transformer.vace_blocks.1.ffn.net.0.proj.lora_"
    change = wanted[f"{stem}B.weight"].float() @ wanted[f"{stem}A.weight"].float()
    x = torch.randn(2, 104)
    base = plain.transformer.vace_blocks[1].ffn.net[0].proj
    assert torch.allclose(layer(x), base(x) + x @ change.T, atol=1e-3)
    assert pipeline.scheduler.config.flow_shift == 5.0


def test_editto_shows_the_clip_under_a_white_mask(ditto, tiny_clips, monkeypatch) -> None:
    pipeline, seen = editto.load(ditto), {}
    original, encode = pipeline.prepare_video_latents, pipeline.encode_prompt

    def spy(video_, mask, *rest):
        seen["video"], seen["mask"] = video_, mask
        return original(video_, mask, *rest)

    def encoded(prompt, **rest):
        seen.setdefault("prompt", (prompt, rest["negative_prompt"]))
        return encode(prompt, **rest)

    def encoded_or_given(prompt=None, **rest):
        return encoded(prompt, **rest) if prompt else encode(prompt, **rest)

    pipeline.prepare_video_latents, pipeline.encode_prompt = spy, encoded_or_given
    monkeypatch.setattr(editto, "load", lambda _: pipeline)
    frames = ready(ditto, "editto")(tiny_clips[2], 5)
    assert seen["prompt"] == ("make the video look photorealistic", editto.WAN_NEGATIVE_PROMPT)
    assert seen["mask"].shape == (1, 3, 9, 32, 64) and (seen["mask"] == 1).all()
    assert (seen["video"][..., :8] == -1).all() and (seen["video"][..., 8:56] != -1).any()
    render = video.read(sampling.path(ditto, tiny_clips[2]))
    assert frames.shape == render.shape and not np.array_equal(frames, render)


def test_edittos_lora_and_prompt_matter_and_are_keyed(ditto, tiny_clips, tmp_path: Path) -> None:
    held = tiny_clips[2:3]
    target = ditto.layout.enhanced / "editto" / f"{held[0].id}.mp4"
    make(ditto, held)
    with_lora, key = target.read_bytes(), store.read_sidecar(target)["key"]
    lora(tmp_path / "ditto", scale=0.0)
    make(ditto, held)
    without = target.read_bytes()
    assert without != with_lora and store.read_sidecar(target)["key"] != key
    own = ditto.baselines["editto"] | {"prompt": "Turn it into the real domain"}
    make(asking(ditto, editto=own), held)
    assert target.read_bytes() != without


def test_diffusers_own_lora_format_is_read_too(ditto, tmp_path: Path) -> None:
    file = tmp_path / "ditto" / "models" / "ditto_sim2real.safetensors"
    renamed = editto.tensors(file)
    save_file(renamed, file)
    editto.METHOD.check(ditto, 1)
    assert set(editto.tensors(file)) == set(renamed)


@pytest.mark.parametrize("kind", ["absent", "truncated", "another model", "another lora", "half"])
def test_a_lora_that_does_not_fit_is_a_sentence_before_the_model_loads(
    ditto, tiny_clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(models, "load_vace", lambda _: pytest.fail("loaded"))
    file = tmp_path / "ditto" / "models" / "ditto_sim2real.safetensors"
    said = "does not fit models.vace"
    if kind == "absent":
        file.unlink()
        said = "does not exist: get the LoRA"
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
        said = "is not Editto's LoRA, or is truncated"
    elif kind == "another model":
        lora(tmp_path / "ditto", blocks=3)
    elif kind == "half":
        whole = editto.tensors(file)
        save_file({name: tensor for name, tensor in whole.items() if "lora_A" in name}, file)
    else:
        save_file({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(3, 104)}, file)
        said = "is not Editto's LoRA"
    with pytest.raises(InputError, match=said):
        make(ditto, tiny_clips[2:])


def test_what_is_missing_is_named_before_anything_runs(
    lucy, ditto, tiny_clips, lucy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """LucyEdit could run, Editto cannot: nothing is loaded."""
    monkeypatch.setattr(LucyEdit, "load", lambda *_: pytest.fail("loaded"))
    both = asking(
        lucy,
        lucy_edit=lucy.baselines["lucy_edit"],
        editto={"model": str(tmp_path / "nowhere"), **AREA},
    )
    with pytest.raises(InputError, match=r"nowhere.*does not exist: get the LoRA"):
        make(both, tiny_clips[2:])
    away = asking(lucy, lucy_edit={"model": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match=r"baselines\.lucy_edit\.model is .*nowhere"):
        make(away, tiny_clips[2:])
    path = tmp_path / "own.yaml"
    path.write_text(away.model_dump_json())
    for command in ("baselines", "doctor"):
        assert cli.main([command, "--profile", str(path)]) == 2
    said = capsys.readouterr()
    assert "rmkit: baselines.lucy_edit.model is" in said.err and "MISSING lucy_edit" in said.out


def test_a_gpu_is_asked_for_where_it_is_needed(lucy, tiny_clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def placed(**changes: str) -> profile.Profile:
        return lucy.model_copy(update={"models": lucy.models.model_copy(update=changes)})

    with pytest.raises(InputError, match="LucyEdit needs a CUDA GPU and torch sees none"):
        make(placed(device="auto", dtype="bfloat16"), tiny_clips[2:])
    with pytest.raises(InputError, match="this machine has no CUDA GPU"):
        make(placed(device="cuda"), tiny_clips[2:])
    baselines.every(lucy)["lucy_edit"].check(placed(device="cpu", dtype="bfloat16"), 1)


@pytest.mark.parametrize("name", ["lucy", "ditto"])
def test_a_size_that_does_not_fit_the_model(name: str, request, tiny_clips) -> None:
    made = request.getfixturevalue(name)
    ((which, settings),) = made.baselines.asked.items()
    odd = asking(made, **{which: settings | {"height": 40}})
    with pytest.raises(InputError, match=r"40x64 does not fit .* cells of 16 pixels"):
        make(odd, tiny_clips[2:])


def test_nothing_runs_unless_it_is_asked_for(tiny_profile, monkeypatch) -> None:
    own = ["blur", "prefilter", "colour_transfer", "per_frame", "vae_ceiling"]
    for made in (tiny_profile, profile.load("mini"), profile.load("smoke")):
        assert list(baselines.made(made)) == own and baselines.asked(made) == {}
    null = asking(tiny_profile, **dict.fromkeys(baselines.EXTERNAL))
    for made in (tiny_profile, null):
        for method in baselines.EXTERNAL:
            said = (
                f"not run: baselines.{method} is null in this profile, and enhanced/{method}/ holds no clips."
            )
            assert baselines.every(made)[method].why_not(made) == said
            assert having.why_no_row(made, method) == said


def test_real_profiles_name_the_real_models() -> None:
    paper, consumer = profile.load("paper"), profile.load("consumer")
    assert list(baselines.asked(paper)) == ["lucy_edit", "editto"]
    assert list(baselines.asked(consumer)) == ["lucy_edit"]
    ours, theirs = (method.settings(paper) for method in baselines.asked(paper).values())
    assert (ours.model, ours.height, ours.width, ours.frames) == ("decart-ai/Lucy-Edit-Dev", 480, 832, 81)
    assert (ours.steps, ours.guidance) == (50, 5.0)
    assert (theirs.model, theirs.height, theirs.width) == ("QingyanBai/Ditto_models", 480, 832)
    assert (theirs.frames, paper.models.vace) == (73, "Wan-AI/Wan2.1-VACE-14B-diffusers")
    assert ours.prompt == theirs.prompt == "make the video look photorealistic"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"editto": {"model": "x", "frames": 74}}, "'baselines.editto.frames': frames must be 4k+1"),
        ({"lucy_edit": {"model": "x", "frames": 80}}, "'baselines.lucy_edit.frames': frames must be 4k+1"),
        (
            {"lucy_edit": {"model": "x", "prompts": "y"}},
            "'baselines.lucy_edit.prompts': there is no such setting",
        ),
        ({"lucy_edit": {}}, "'baselines.lucy_edit.model': Field required"),
        ({"editto": {"model": "x", "height": "tall"}}, "'baselines.editto.height': Input should be"),
        ({"lucy_edt": {"model": "x"}}, "'baselines.lucy_edt': there is no rmkit/baselines/lucy_edt.py"),
        ({"../blur": {}}, "'baselines.../blur': there is no rmkit/baselines/../blur.py"),
        ({"framing": {}}, "'baselines.framing': there is no such setting"),
        ({"blur": {}}, "'baselines.blur': this method takes no settings"),
        ({"lucy_edit": "decart-ai/Lucy-Edit-Dev"}, "'baselines.lucy_edit': Input should be"),
        ({"folders": {"blur": "Mine"}}, "baselines.folders: 'blur' is a method of the kit's"),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_runs(
    tiny_profile, tmp_path: Path, capsys, settings: dict, said: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(tiny_profile.model_dump(mode="json") | {"baselines": settings}))
    assert cli.main(["plan", "--profile", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_plan_lists_what_is_asked_for(lucy, tiny_clips) -> None:
    assert not {"lucy_edit", "editto"} & {step.stage for step in plan.steps(profile.load("mini"))}
    make(lucy, tiny_clips[2:3])
    (step,) = [step for step in plan.steps(lucy) if step.stage == "lucy_edit"]
    assert (step.count, step.done, step.items) == (2, 1, "clips")
    without = asking(lucy)
    assert plan.gigabytes(plan.steps(lucy)) > plan.gigabytes(plan.steps(without))


NEGATIVE = """
from rmkit.baselines import Made
from rmkit.kit import stage, store, video
from rmkit.method import sampling


class Negative(Made):
    name, label = "negative", "Negative"

    def recipe(self, profile, clip):
        return store.Recipe("negative", 1, {{}}, {{"clip": clip.id}}, seed=1)

    def ready(self, profile):
        def edit(clip, seed):
            if clip.id == "{dark}":
                raise stage.LeftOut("too dark")
            return 255 - video.read(sampling.path(profile, clip))

        return edit


METHODS = (Negative(),)
"""


def test_a_method_is_added_by_one_file(
    tiny_profile, tiny_clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A file with METHODS; a clip that it refuses is left out, the others go on."""
    first, second = tiny_clips[2:]
    (tmp_path / "negative.py").write_text(NEGATIVE.format(dark=second.id))
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    known = baselines.every(tiny_profile)
    assert list(known)[5:9] == [*baselines.EXTERNAL, "negative"] and known["negative"].label == "Negative"
    assert [known[name].label for name in baselines.EXTERNAL] == ["Runway Aleph", "LucyEdit", "Editto"]
    negative = {"negative": baselines.made(tiny_profile)["negative"]}
    stale = tiny_profile.layout.enhanced / "negative" / f"{second.id}.mp4"
    video.write(stale, video.read(sampling.path(tiny_profile, second)), 16)
    with pytest.raises(InputError, match=r"was not made by this kit .*: move it away"):
        baselines.make(tiny_profile, tiny_clips[2:], negative)
    store.write_json(store.sidecar_of(stale), {"key": "of other settings"})
    baselines.make(tiny_profile, tiny_clips[2:], negative)
    made = video.read(tiny_profile.layout.enhanced / "negative" / f"{first.id}.mp4")
    assert (made == 255 - video.read(sampling.path(tiny_profile, first))).all()
    assert not stale.exists() and f"negative: {second.id} is left out: too dark" in capsys.readouterr().out


def test_a_method_is_added_by_a_folder_of_clips(measured, capsys) -> None:
    """Measured like any other where the profile lists it, named where it does not, refused where the name is taken."""
    held = sampling.load(measured, "validation")
    for clip in held:
        frames = video.read(sampling.path(measured, clip))
        video.write(measured.layout.enhanced / "Their-model_2" / f"{clip.id}.mp4", frames, measured.clips.fps)
    assert "Their-model_2" not in {row["method"] for row in rows_of(evaluate.evaluate(measured))}
    said = "enhanced/Their-model_2 holds clips of no known method: list it under baselines.folders."
    assert capsys.readouterr().out.splitlines().count(said) == 1

    listed = with_folders(measured, {"Their-model_2": "Their model", "other": "Another"})
    rows = rows_of(evaluate.evaluate(listed))
    assert said not in capsys.readouterr().out
    found = {(row["clip"], row["metric"]): row for row in rows if row["method"] == "Their-model_2"}
    assert {clip for clip, _ in found} == {clip.id for clip in held}
    assert float(found[held[0].id, "edge_f1"]["value"]) == 1
    known = list(baselines.every(listed))
    assert known == [*known[:8], "Their-model_2", "other", "multi_anchor", *known[11:]]
    assert known[5:8] == list(baselines.EXTERNAL) and set(known) == {
        *baselines.FIRST,
        *baselines.LAST[:-1],
    } | {
        "Their-model_2",
        "other",
    }
    order = list(dict.fromkeys(row["method"] for row in rows))
    assert order == [name for name in known if name in order]
    assert having.why_no_row(listed, "other").startswith("not run: enhanced/other/ holds no clip")
    assert baselines.videos(listed) == baselines.videos(measured) + len(held)
    for name in ("realmaster", "lucy_edit", "truth"):
        with pytest.raises(InputError, match=f"baselines.folders: '{name}' is a method of the kit's"):
            evaluate.evaluate(with_folders(measured, {name: "Mine"}))
    for name, label in (("../up", "x"), ("a b", "x"), ("", "x"), ("fine", "")):
        with pytest.raises(ValueError, match=r"baselines\.folders"):
            with_folders(measured, {name: label})


def with_folders(settings: profile.Profile, folders: dict[str, str]) -> profile.Profile:
    content = settings.model_dump()
    content["baselines"]["folders"] = folders
    return profile.Profile.model_validate(content)
