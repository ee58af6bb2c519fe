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
from rmkit.kit import models, weights
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
    with pytest.raises(RuntimeError), models.edit_area(pipeline, 64 * 96):
        assert module.calculate_dimensions(1024 * 1024, 1.5)[:2] == (96, 64)
        raise RuntimeError
    assert module.calculate_dimensions is before
    assert before(1024 * 1024, 1.5)[:2] == (1248, 832)


def test_processor_without_torchvision_expands_each_picture(tiny_profile, tiny_checkpoints):
    processor = models._processor(tiny_checkpoints / "editor")
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
    with models.edit_area(pipeline, 64 * 96):
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
    monkeypatch.setattr(weights, "hub_snapshot", lambda name, file: (Path("cache/none"), "c0ffee"))
    hub = pointed_at(tiny_profile, wan="owner/wan", editor="owner/editor")
    assert models.load_wan(hub).config.boundary_ratio == 0.875
    assert type(models.load_editor(hub)).__name__ == "QwenImageEditPipeline"
    assert asked == [("owner/wan", "c0ffee"), ("owner/editor", "c0ffee")]
    assert models.fingerprint(hub, "wan") == "c0ffee"


@pytest.mark.parametrize("file", ["model_index.json", "models/one.safetensors"])
def test_a_snapshot_is_named_by_its_commit_however_deep_the_file(monkeypatch, file):
    import huggingface_hub

    cached = Path("cache/models--owner--name/snapshots/c0ffee")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(cached / file))
    assert weights.hub_snapshot("owner/name", file) == (cached, "c0ffee")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "model_index.json").unlink(), "no model_index.json"),
        (lambda root: (root / "model_index.json").write_text("{"), "not valid JSON"),
        (lambda root: shutil.rmtree(root / "transformer_2"), "lacks its transformer_2"),
        (lambda root: next((root / "vae").glob("*.safetensors")).unlink(), "no .*safetensors"),
        (lambda root: _truncate(next((root / "vae").glob("*.safetensors"))), "truncated"),
        (lambda root: (root / "text_encoder" / "config.json").unlink(), "no config.json"),
    ],
)
def test_incomplete_model_is_refused_before_loading(tiny_profile, tiny_checkpoints, tmp_path, spoil, message):
    shutil.copytree(tiny_checkpoints / "wan", tmp_path / "wan")
    spoil(tmp_path / "wan")
    with pytest.raises(InputError, match=message):
        models.check(pointed_at(tiny_profile, wan=tmp_path / "wan"), "wan")


def test_tokenizer_that_would_cut_into_the_prompt_is_refused(tiny_profile):
    pipeline = models.load_editor(tiny_profile)
    pipeline.prompt_template_encode_start_idx = 10_000
    with pytest.raises(InputError, match="cut into the prompt"):
        models._check_template(pipeline)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_fast_convolutions_give_what_plain_ones_give():
    vae = architectures.wan_vae(base_dim=8, decoder_base_dim=8).eval()
    clip = torch.rand(1, 3, 9, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = vae.decode(vae.encode(clip).latent_dist.mode()).sample
        models.speed_up_convolutions(vae)
        fast = vae.decode(vae.encode(clip).latent_dist.mode()).sample
    assert (plain - fast).abs().max() < 1e-5
