"""Enhancing: the stock pipeline under the fold, and adapters that do not belong are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from rmkit import cli
from rmkit.errors import InputError
from rmkit.kit import encode, models, store, video
from rmkit.method import enhance, incontext, lora, sampling, training, wan


@pytest.fixture
def adapted(tiny_profile, tiny_clips):
    """The tiny profile with an adapter that does something, saved as training saves it."""
    save_adapters(tiny_profile)
    return tiny_profile


def save_adapters(profile, name=training.NAME, **facts):
    pipeline = models.load_wan(profile)
    for expert in wan.experts(profile):
        transformer = getattr(pipeline, expert.part)
        parameters = lora.add(profile, transformer, seed=1)
        for key, parameter in parameters.items():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(2))
        known = {"mode": "joint", "expert": expert.name, "base": wan.fingerprint(profile, expert.part)}
        folder = profile.layout.adapters / name / expert.name
        folder.mkdir(parents=True, exist_ok=True)
        lora.save(folder, transformer, parameters, {**known, **facts})


def with_enhance(profile, **changes):
    return profile.model_copy(update={"enhance": profile.enhance.model_copy(update=changes)})


def validation(profile):
    return sampling.load(profile, "validation")


def test_enhances_every_clip_once(adapted, monkeypatch):
    chosen = validation(adapted)
    paths = enhance.enhance(adapted, chosen)
    assert [path.name for path in paths] == [f"{clip.id}.mp4" for clip in chosen]
    assert paths[0].parent == adapted.layout.enhanced / "realmaster"
    videos = [video.read(path) for path in paths]
    assert all(frames.shape == (9, 32, 48, 3) for frames in videos)
    assert not np.array_equal(*videos)
    sidecar = store.read_sidecar(paths[0])
    assert sidecar["settings"]["prompt"] == chosen[0].caption and sidecar["settings"]["mode"] == "joint"

    # Killed after the first clip and run again, in another order: the same video; the other is left alone.
    paths[1].unlink()
    untouched = paths[0].stat().st_mtime_ns
    enhance.enhance(adapted, chosen[::-1])
    assert np.array_equal(video.read(paths[1]), videos[1])
    assert paths[0].stat().st_mtime_ns == untouched
    monkeypatch.setattr(enhance.models, "load_wan", None)
    assert enhance.enhance(adapted, chosen) == paths


def test_another_prompt_has_a_folder_of_its_own_on_the_command_line_too(adapted, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_load", lambda _: adapted)
    assert cli.main(["enhance", "--prompt", "a man in the snow", "--into", "snow"]) == 0
    paths = [adapted.layout.enhanced / "snow" / f"{clip.id}.mp4" for clip in validation(adapted)]
    assert {store.read_sidecar(path)["settings"]["prompt"] for path in paths} == {"a man in the snow"}
    assert not (adapted.layout.enhanced / "realmaster").exists()
    for wrong, said in (
        (["--prompt", "a man"], "give --prompt and --into"),
        (["--into", "snow"], "give --prompt and --into"),
        (["--prompt", "a man", "--into", "blur"], "holds the clips of the method blur"),
        (["--prompt", "a man", "--into", "../snow"], "--into ../snow must be a name"),
        (["in.mp4", "out.mp4", "--into", "snow"], "and no --into"),
    ):
        assert cli.main(["enhance", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_latents_are_those_the_pipeline_decodes(tiny_profile, tiny_clips):
    """With a mean and a standard deviation of its own for each channel, as trained VAEs have."""
    pipeline = models.load_wan(tiny_profile)
    channels = pipeline.vae.config.z_dim
    pipeline.vae.register_to_config(
        latents_mean=[0.1 * i for i in range(channels)], latents_std=[1 + 0.1 * i for i in range(channels)]
    )
    frames = video.read(sampling.path(tiny_profile, tiny_clips[0]))
    latents = encode.latents(pipeline, frames)
    assert latents.shape == (1, channels, 3, 4, 6) and latents.dtype == torch.float32
    pixels = torch.from_numpy(video.to_unit(frames)).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        raw = pipeline.vae.encode(pixels).latent_dist.mode()
    means = torch.tensor(pipeline.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    stds = torch.tensor(pipeline.vae.config.latents_std).view(1, -1, 1, 1, 1)
    assert torch.allclose(latents * stds + means, raw, atol=1e-5)


def test_embeddings_are_those_of_the_pipeline(tiny_profile):
    pipeline = models.load_wan(tiny_profile)
    call = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 1, "output_type": "latent"}
    call |= {"guidance_scale": 1.0, "max_sequence_length": models.text_length(pipeline.tokenizer)}
    own = pipeline("a red coat", generator=models.generator(0), **call).frames
    text = encode.text(pipeline, "a red coat")
    given = pipeline(prompt_embeds=text, generator=models.generator(0), **call).frames
    assert torch.equal(own, given)


@pytest.mark.parametrize(
    ("low", "high", "calls"), [(1.0, 1.0, 3), (3.0, 4.0, 6), (3.0, 1.0, 6)], ids=["off", "both", "low"]
)
def test_guidance_one_costs_one_pass(adapted, monkeypatch, low, high, calls):
    seen = []
    stock = incontext._stack
    monkeypatch.setattr(incontext, "_stack", lambda *args: seen.append(args[1]) or stock(*args))
    profile = with_enhance(adapted, guidance_low=low, guidance_high=high, steps=3)
    pipeline = enhance.load(profile, profile.layout.adapters / training.NAME)
    frames = video.read(sampling.path(profile, validation(profile)[0]))
    text, negative = (encode.text(pipeline, words) for words in ("a man", ""))
    enhance.run(profile, pipeline, frames, text, negative if max(low, high) > 1 else None, 0)
    assert len(seen) == calls
    assert {id(model) for model in seen} == {id(pipeline.transformer), id(pipeline.transformer_2)}
    assert not pipeline.transformer._forward_pre_hooks  # out of context again


def test_the_render_steers_the_result(adapted):
    pipeline = enhance.load(adapted, adapted.layout.adapters / training.NAME)
    text = encode.text(pipeline, "a man")
    bright, dark = np.full((9, 32, 48, 3), 230, np.uint8), np.full((9, 32, 48, 3), 20, np.uint8)
    out = [enhance.run(adapted, pipeline, clip, text, None, 0) for clip in (bright, bright, dark)]
    assert np.array_equal(out[0], out[1])
    assert not np.array_equal(out[0], out[2])


def test_a_run_takes_the_mode_of_the_training_and_cached_is_the_same(adapted, monkeypatch, capsys):
    """Under guidance, so with two texts, and through both experts."""
    save_adapters(adapted, "oneway", mode="one-way")
    one_way = adapted.model_copy(update={"train": adapted.train.model_copy(update={"mode": "one-way"})})
    one_way = with_enhance(one_way, guidance_low=3.0, guidance_high=4.0, steps=3)
    cached = with_enhance(one_way, mode="one-way cached")
    passes, forward = [], WanTransformer3DModel.forward

    def counted(self, *args, **kwargs):
        passes.append(kwargs["timestep"].tolist())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(WanTransformer3DModel, "forward", counted)
    videos = []
    for profile, count in ((one_way, 6), (cached, 6 + 4)):  # the reference once an expert and text
        (path,) = enhance.enhance(profile, validation(profile)[:1], "oneway")
        assert store.read_sidecar(path)["settings"]["mode"] == (profile.enhance.mode or "one-way")
        assert len(passes) == count
        passes.clear()
        videos.append(video.read(path).astype(int))
    assert np.abs(videos[0] - videos[1]).max() <= 1
    assert capsys.readouterr().out.count("in context: 0.00 GiB a text on cpu\n") == 1
    (path,) = enhance.enhance(with_enhance(cached, cache="8-bit"), validation(cached)[:1], "oneway")
    assert np.abs(video.read(path).astype(int) - videos[0]).mean() < 1
    assert "on cpu, rounded to 8 bit\n" in capsys.readouterr().out

    for profile, name, words in (
        (cached, training.NAME, "mode 'joint' and this run needs 'one-way'"),
        (with_enhance(one_way, mode="joint"), "oneway", "mode 'one-way' and this run needs 'joint'"),
    ):
        with pytest.raises(InputError, match=words):
            enhance.enhance(profile, validation(profile), name)


def test_foreign_and_unfit_adapters_are_refused_before_a_model_is_loaded(adapted, monkeypatch):
    chosen = validation(adapted)
    save_adapters(adapted, "oneway", mode="one-way")
    save_adapters(adapted, "elsewhere", base="0123")
    monkeypatch.setattr(enhance.models, "load_wan", None)
    for name, words in {
        "absent": "does not exist",
        "oneway": "mode 'one-way' and this run needs 'joint'",
        "elsewhere": "base '0123'",
    }.items():
        with pytest.raises(InputError, match=words):
            enhance.enhance(adapted, chosen, name)

    folder = adapted.layout.adapters / "realmaster"
    file = folder / "high" / lora.WEIGHTS
    whole = file.read_bytes()
    save_file(load_file(file), file)  # the same weights without a header of ours
    with pytest.raises(InputError, match="foreign LoRA"):
        enhance.enhance(adapted, chosen)
    save_file(load_file(file), file, {lora.HEADER: "{"})
    with pytest.raises(InputError, match="has a damaged header"):
        enhance.enhance(adapted, chosen)
    file.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="truncated"):
        enhance.enhance(adapted, chosen)
    shutil.copy(folder / "low" / lora.WEIGHTS, file)
    with pytest.raises(InputError, match="expert 'low' and this run needs 'high'"):
        enhance.enhance(adapted, chosen)


@pytest.mark.parametrize("change", ["renamed", "missing"])
def test_every_module_must_load(adapted, change):
    """A file that diffusers would load in part, with no more than a warning."""
    folder = adapted.layout.adapters / "realmaster" / "low"
    header = {lora.HEADER: (folder / "adapter.json").read_text()}
    tensors = load_file(folder / lora.WEIGHTS)
    lost = [key for key in tensors if "blocks.1.attn1.to_q" in key]
    assert len(lost) == 2
    for key in lost:
        tensor = tensors.pop(key)
        if change == "renamed":
            tensors[key.replace("blocks.1", "blocks.7")] = tensor
    if change == "missing":
        del tensors["transformer.blocks.0.attn1.to_q.lora_B.weight"]
    save_file(tensors, folder / lora.WEIGHTS, header)
    with pytest.raises(InputError, match="does not fit transformer_2"):
        enhance.enhance(adapted, validation(adapted))


def test_one_expert_models_are_enhanced_too(tiny_profile, tiny_clips, tmp_path):
    folder = tmp_path / "wan21"
    shutil.copytree(tiny_profile.models.wan, folder)
    shutil.rmtree(folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index.update(transformer_2=[None, None], boundary_ratio=None)
    (folder / "model_index.json").write_text(json.dumps(index))
    profile = tiny_profile.model_copy(
        update={"models": tiny_profile.models.model_copy(update={"wan": str(folder)})}
    )
    profile = with_enhance(profile, guidance_low=2.0)
    save_adapters(profile)
    (path,) = enhance.enhance(profile, validation(profile)[:1])
    assert video.probe(path).frames == 9


def test_several_prompts_and_guidances_are_made_by_one_load(adapted, monkeypatch):
    clip = validation(adapted)[0]
    guided = with_enhance(adapted, guidance_low=2.0, guidance_high=2.0)
    alone = {
        name: video.read(enhance.enhance(p, [clip], into=f"{name}_alone")[0])
        for name, p in (("a", adapted), ("b", guided))
    }
    loads, stock = [], models.load_wan
    monkeypatch.setattr(models, "load_wan", lambda *a, **k: loads.append(1) or stock(*a, **k))
    wanted = enhance.items(adapted, [clip], into="a") + enhance.items(guided, [clip], into="b")
    wanted += enhance.items(adapted, [clip], prompt=lambda _: "a man waits", into="c")
    made = [video.read(path) for path in enhance.make(adapted, wanted)]
    assert len(loads) == 1 and all(
        np.array_equal(one, alone[name]) for name, one in zip("ab", made, strict=False)
    )
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
