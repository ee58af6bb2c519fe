"""Loading: the real classes come out as they were saved, and incomplete models are refused before that."""

import json
import shutil
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
from PIL import Image

from rmkit.errors import InputError
from rmkit.kit import editor, models, weights
from rmkit.profile import Profile


def pointed_at(profile: Profile, **names: str | Path) -> Profile:
    settings = {key: str(value) for key, value in names.items()}
    return profile.model_copy(update={"models": profile.models.model_copy(update=settings)})


def test_loading_gives_the_saved_weights_in_the_profiles_type(tiny_profile, tiny_checkpoints):
    from safetensors.torch import load_file

    pipeline = models.load_wan(tiny_profile)
    files = {
        "transformer": "transformer/diffusion_pytorch_model.safetensors",
        "transformer_2": "transformer_2/diffusion_pytorch_model.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
    }
    for part, file in files.items():
        saved = load_file(tiny_checkpoints / "wan" / file)
        loaded = getattr(pipeline, part).state_dict()
        assert set(saved) <= set(loaded)
        for name, tensor in saved.items():
            assert loaded[name].dtype == torch.float32
            assert torch.equal(loaded[name], tensor.float()), f"{part}.{name}"
    # UMT5 reads its words from either name of the embedding.
    words = pipeline.text_encoder
    assert torch.equal(words.shared.weight, words.get_input_embeddings().weight)
    assert pipeline.config.boundary_ratio == 0.875


def test_vace_takes_shared_parts_and_the_true_stride_from_wan(tiny_profile):
    vace, wan = models.load_vace(tiny_profile), models.load_wan(tiny_profile)
    assert vace.vae_scale_factor_spatial == vace.vae.config.scale_factor_spatial == 8
    assert vace.video_processor.config.vae_scale_factor == 8
    for ours, theirs in zip(vace.vae.parameters(), wan.vae.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert vace.tokenizer.get_vocab() == wan.tokenizer.get_vocab()


def test_vace_depends_on_the_wan_parts_it_borrows(tiny_profile, tiny_checkpoints, tmp_path):
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    moved = pointed_at(tiny_profile, wan=tmp_path / "wan")
    before = models.fingerprint(moved, "vace")
    assert before == models.fingerprint(tiny_profile, "vace")
    config = tmp_path / "wan" / "vae" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert models.fingerprint(moved, "vace") != before


def test_a_card_is_no_part_of_a_model(tiny_profile, tiny_checkpoints, tmp_path):
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    moved = pointed_at(tiny_profile, wan=tmp_path / "wan")
    before = models.fingerprint(moved, "wan")
    (tmp_path / "wan" / "card.json").write_text("{}")
    (tmp_path / "wan" / "sheet.png").write_bytes(b"a picture")
    assert models.fingerprint(moved, "wan") == before
    index = tmp_path / "wan" / "model_index.json"
    index.write_text(index.read_text() + "\n")
    assert models.fingerprint(moved, "wan") != before


def test_edit_area_acts_inside_the_block_only(tiny_profile):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as module

    pipeline = models.load_editor(tiny_profile)
    before = module.calculate_dimensions
    with pytest.raises(RuntimeError), editor.at_area(pipeline, 64 * 96):
        assert module.calculate_dimensions(1024 * 1024, 1.5)[:2] == (96, 64)
        raise RuntimeError
    assert module.calculate_dimensions is before
    assert before(1024 * 1024, 1.5)[:2] == (1248, 832)


def test_processor_without_torchvision_expands_each_picture(tiny_profile, tiny_checkpoints):
    processor = editor.processor(tiny_checkpoints / "editor")
    pictures = [Image.new("RGB", size) for size in ((96, 64), (64, 64))]
    text = "one <|image_pad|> two <|image_pad|>"
    inputs = processor(text=[text], images=pictures, padding=True, return_tensors="pt")
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    tokens = inputs["image_grid_thw"].prod(dim=-1).sum() // 4
    assert (inputs["input_ids"] == pad).sum() == tokens > 2
    assert inputs["pixel_values"].shape[0] == inputs["image_grid_thw"].prod(dim=-1).sum()


def test_the_plus_form_of_the_editor_loads_and_edits(tiny_profile, tiny_checkpoints, tmp_path):
    folder = tmp_path / "plus"
    shutil.copytree(tiny_checkpoints / "editor", folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "_class_name": "QwenImageEditPlusPipeline"})
    )
    pipeline = models.load_editor(pointed_at(tiny_profile, editor=folder))
    assert type(pipeline).__name__ == "QwenImageEditPlusPipeline"
    with editor.at_area(pipeline, 64 * 96):
        picture = pipeline(
            image=Image.fromarray(np.full((32, 48, 3), 120, np.uint8)),
            prompt="make it look photorealistic",
            true_cfg_scale=1.0,
            num_inference_steps=2,
        ).images[0]
    assert picture.size == (96, 64)


def test_missing_model_is_refused_in_a_sentence(tiny_profile, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"models\.wan is .*does not exist"):
        models.check(pointed_at(tiny_profile, wan=tmp_path / "none"), "wan")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="not in the local cache"):
        models.check(pointed_at(tiny_profile, wan="nobody/nothing-of-this-name"), "wan")


def test_hub_model_is_downloaded_at_its_pinned_commit(tiny_profile, tiny_checkpoints, monkeypatch):
    from diffusers import DiffusionPipeline

    asked = []

    def download(name, **arguments):
        asked.append((name, arguments["revision"]))
        return str(tiny_checkpoints / name.split("/")[1])

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    there = {name: tiny_checkpoints / name for name in ("wan", "editor")}
    monkeypatch.setattr(
        weights, "hub_snapshot", lambda name, file: (there[name.split("/")[1].split("@")[0]], "c0ffee")
    )
    monkeypatch.setattr(weights, "_is_offline", lambda: True)  # the files are listed in the snapshot
    hub = pointed_at(tiny_profile, wan="owner/wan@v2", editor="owner/editor")
    assert models.load_wan(hub).config.boundary_ratio == 0.875
    assert type(models.load_editor(hub)).__name__ == "QwenImageEditPipeline"
    assert asked == [("owner/wan", "c0ffee"), ("owner/editor", "c0ffee")]
    assert models.fingerprint(hub, "wan") == "c0ffee"


@pytest.mark.parametrize("file", ["model_index.json", "models/one.safetensors"])
def test_a_snapshot_is_named_by_its_commit_however_deep_the_file(monkeypatch, file):
    import huggingface_hub

    cached = Path("cache/models--owner--name/snapshots/c0ffee")
    asked = []

    def cache(*names, revision):
        asked.append((*names, revision))
        return str(cached / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
    assert weights.hub_snapshot("owner/name", file) == (cached, "c0ffee")
    assert weights.hub_snapshot("owner/name@refs/pr/7", file) == (cached, "c0ffee")
    assert asked == [("owner/name", file, "main"), ("owner/name", file, "refs/pr/7")]


def test_a_hub_model_without_safetensors_is_refused_before_it_is_downloaded(monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(weights, "hub_snapshot", lambda name, file: (tmp_path, name))
    files = {"o/old": ["config.json", "pytorch_model.bin"], "o/new": ["config.json", "model.safetensors"]}

    class Api:
        def list_repo_files(self, name, revision):
            return files[name] if revision == name else files["o/new"]

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(weights, "_is_offline", lambda: False)
    with pytest.raises(InputError, match=r"metrics\.dino: o/old has no \*\.safetensors .* as o/old@REVISION"):
        weights.single("metrics.dino", "o/old")
    assert weights.single("metrics.dino", "o/old@refs/pr/7") == ("o/old", "o/old@refs/pr/7")
    assert weights.single_config("metrics.dino", "o/new") == ("o/new", {})
    index = {
        "_class_name": "WanPipeline",
        "vae": ["diffusers", "AutoencoderKLWan"],
        "transformer_2": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"models\.wan: o/new has no .* in vae/"):
        weights.pipeline_folder("models.wan", "o/new")


def test_only_a_name_of_the_hubs_kind_is_one():
    assert weights.is_hub_name("owner/name") and weights.is_hub_name("owner/name@refs/pr/7")
    assert not any(
        weights.is_hub_name(name) for name in ("a/b/c", "data/diorama", "owner/name@", "owner/name@a b")
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "model_index.json").unlink(), "no model_index.json"),
        (lambda root: (root / "model_index.json").write_text("{"), "not valid JSON"),
        (lambda root: shutil.rmtree(root / "transformer_2"), "lacks its transformer_2"),
        (lambda root: next((root / "vae").glob("*.safetensors")).unlink(), "no .*safetensors"),
        (lambda root: _truncate(next((root / "vae").glob("*.safetensors"))), "truncated"),
        (lambda root: (root / "text_encoder" / "config.json").unlink(), "no config.json"),
        (lambda root: (root / "vae" / "config.json").write_text("{"), "vae/config.json is not valid JSON"),
        (lambda root: (root / "vae" / "config.json").write_text("[]"), "vae/config.json has no keys"),
        (lambda root: (root / "model_index.json").write_text("[]"), "model_index.json has no _class_name"),
        (lambda root: (root / "vae" / "a.safetensors.index.json").write_text("{}"), "has no weight_map"),
        (lambda root: (root / "tokenizer" / "tokenizer_config.json").write_text(""), "not valid JSON"),
        (lambda root: (root / "scheduler" / "scheduler_config.json").write_text("["), "not valid JSON"),
    ],
)
def test_incomplete_model_is_refused_before_loading(tiny_profile, tiny_checkpoints, tmp_path, spoil, message):
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    spoil(tmp_path / "wan")
    with pytest.raises(InputError, match=message):
        models.check(pointed_at(tiny_profile, wan=tmp_path / "wan"), "wan")


@pytest.mark.parametrize(
    ("role", "key", "named", "message"),
    [
        ("editor", "_class_name", "Sora", r"is a Sora, which diffusers [.\d]+ does not know"),
        ("wan", "vae", ["diffusers", "Sora"], "cannot be loaded as a WanPipeline .*Sora"),
    ],
)
def test_a_class_that_is_not_known(tiny_profile, tiny_checkpoints, tmp_path, role, key, named, message):
    shutil.copytree(tiny_checkpoints / role, tmp_path / role)
    index = tmp_path / role / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {key: named}))
    load = {"editor": models.load_editor, "wan": models.load_wan}[role]
    with pytest.raises(InputError, match=message):
        load(pointed_at(tiny_profile, **{role: tmp_path / role}))


def test_a_config_of_other_weights_is_a_sentence(tiny_profile, tiny_checkpoints, tmp_path):
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    config = tmp_path / "wan" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 1}))
    with pytest.raises(
        InputError, match=r"wan cannot be loaded as a WanPipeline \(.*expected shape.*: copy the model"
    ):
        models.load_wan(pointed_at(tiny_profile, wan=tmp_path / "wan"))


def test_tokenizer_that_would_cut_into_the_prompt_is_refused(tiny_profile):
    pipeline = models.load_editor(tiny_profile)
    pipeline.prompt_template_encode_start_idx = 10_000
    with pytest.raises(InputError, match="cut into the prompt"):
        editor.check_template(pipeline)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_settings_that_cannot_be_followed_are_refused_before_loading(tiny_profile, monkeypatch):
    with pytest.raises(
        InputError, match=r"models\.attention is 'flesh', .* it knows .*_native_cudnn, .*flash, "
    ):
        models.check(pointed_at(tiny_profile, attention="flesh"), "vace")
    small = pointed_at(tiny_profile, editor_weights="nf4")
    models.check(small, "wan")  # the editor's alone
    with pytest.raises(InputError, match="needs a CUDA GPU and the package bitsandbytes"):
        models.check(small, "editor")
    monkeypatch.setattr(models, "device", lambda profile: torch.device("cuda"))
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: object())
    models.check(small, "editor")
    with pytest.raises(InputError, match=r"set models\.offload to 'model'"):
        models.check(pointed_at(small, offload="group"), "editor")


@pytest.mark.parametrize("offload", ["none", "model", "group"])
def test_offloading_is_diffusers_and_on_a_gpu_only(tiny_profile, monkeypatch, offload):
    asked = []

    class Pipeline:
        vae, components = None, {}
        set_progress_bar_config = lambda self, disable: None  # noqa: E731
        to = lambda self, device: asked.append(("none", device.type))  # noqa: E731
        enable_model_cpu_offload = lambda self, device: asked.append(("model", device.type))  # noqa: E731

        def enable_group_offload(self, onload_device, use_stream, **options):
            assert use_stream and options["exclude_modules"] == ["vae"]
            asked.append(("group", onload_device.type))

    monkeypatch.setattr(models, "device", lambda profile: torch.device("cuda"))
    profile = pointed_at(tiny_profile, offload=offload)
    models._place(profile, Pipeline())
    models._place(profile, Pipeline(), on_cpu=True)  # for training, which moves what it needs
    assert asked == [(offload, "cuda")]


def test_the_editor_in_8_bit_edits_nearly_alike(tiny_profile):
    from rmkit.method import anchoring

    frame = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    small = pointed_at(tiny_profile, editor_weights="fp8")
    loaded = models.load_editor(small)
    kept = {p.dtype for p in loaded.transformer.transformer_blocks.parameters()}
    assert torch.float8_e4m3fn in kept
    whole, rounded = (
        anchoring.edit_frame(p, models.load_editor(p), frame, 0).astype(int) for p in (tiny_profile, small)
    )
    assert not np.array_equal(whole, rounded) and np.abs(whole - rounded).mean() < 8
    assert models.settings(tiny_profile, "editor") == {"dtype": "float32"}  # keys of before stay
    assert models.settings(small, "editor") == {"dtype": "float32", "weights": "fp8"}
    assert models.settings(small, "wan") == {"dtype": "float32"}


@pytest.mark.parametrize("mode", ["joint", "one-way"])
def test_the_attention_asked_for_is_used_in_context_too(tiny_profile, monkeypatch, mode):
    from diffusers.models import attention_dispatch

    from rmkit.method.incontext import in_context

    profile = pointed_at(tiny_profile, attention="_native_math")
    backends, registry = [], attention_dispatch._AttentionBackendRegistry
    before = registry.get_active_backend()
    pipeline = models.load_wan(profile)
    assert registry.get_active_backend() == before  # of other profiles' models in this process
    stock = registry._backends[attention_dispatch.AttentionBackendName._NATIVE_MATH]

    def watched(*arguments, **options):
        backends.append("math")
        return stock(*arguments, **options)

    monkeypatch.setitem(registry._backends, attention_dispatch.AttentionBackendName._NATIVE_MATH, watched)
    model = pipeline.transformer
    latents = torch.randn(1, model.config.in_channels, 2, 4, 4)
    text = torch.randn(1, 4, model.config.text_dim)
    with torch.no_grad(), in_context(model, latents, mode):
        model(latents, torch.tensor([500.0]), text)
    calls = {"joint": 1, "one-way": 2}[mode] + 1  # self-attention's, and cross-attention's one
    assert len(backends) == calls * len(model.blocks)


def test_fast_convolutions_give_what_plain_ones_give():
    vae = architectures.wan_vae(base_dim=8, decoder_base_dim=8).eval()
    clip = torch.rand(1, 3, 9, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = vae.decode(vae.encode(clip).latent_dist.mode()).sample
        models.speed_up_convolutions(vae)
        fast = vae.decode(vae.encode(clip).latent_dist.mode()).sample
    assert (plain - fast).abs().max() < 1e-5
