"""Stand-ins: a small random model for each that a shipped profile names, of the same classes in the same folders and files.

`install` writes the hub's cache as a download leaves it (`models--<owner>--<name>/snapshots/<commit>/`), so that a profile
keeps its names and the real way from a name to weights is walked. Numbers that decide shapes (channels, patches, strides,
the stages of a VAE) are the real models'; widths and depths are not.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import architectures
import torch
from diffusers import AutoencoderKLWan, LucyEditPipeline, WanPipeline, WanVACEPipeline
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    T5Tokenizer,
)

from rmkit.baselines import PROMPT

WIDTH, HIDDEN, LAYERS = 24, 32, 2  # of a transformer; the feed-forward part's; blocks
TEXT_WIDTH = 32
RANK = 3  # of Ditto's LoRA
SIDES = {f"{kind}_attn.{part}": (1, 1) for kind in ("self", "cross") for part in "qkvo"}
DITTO = {**SIDES, "ffn.0": (1, 0), "ffn.2": (0, 1)}  # (into, out): 1 the width, 0 the hidden width


def wan_vae() -> AutoencoderKLWan:
    """Wan2.1's, which Wan2.2-A14B and VACE share: [B, 3, F, H, W] -> [B, 16, (F-1)/4+1, H/8, W/8]."""
    return AutoencoderKLWan(base_dim=4, num_res_blocks=1)  # the defaults are the real one's


def wan22_vae() -> AutoencoderKLWan:
    """Wan2.2-5B's, which LucyEdit has: [B, 3, F, H, W] -> [B, 48, (F-1)/4+1, H/16, W/16]."""
    return architectures.wan_vae(
        base_dim=4,
        decoder_base_dim=4,
        dim_mult=[1, 2, 4, 4],
        temperal_downsample=[False, True, True],
        scale_factor_spatial=16,
    )


def wan(folder: Path, experts: int = 1) -> None:
    """Wan2.1's text-to-video pipeline, or Wan2.2-A14B's with two experts."""
    second = (
        {"transformer_2": _transformer(), "boundary_ratio": architectures.BOUNDARY} if experts == 2 else {}
    )
    parts = {**_text(), **second}
    pipeline = WanPipeline(
        vae=wan_vae(), scheduler=architectures.wan_scheduler(), transformer=_transformer(), **parts
    )
    _save(pipeline, folder)


def vace(folder: Path) -> None:
    """Wan2.1-VACE's pipeline, complete as its authors ship it."""
    transformer = architectures.vace_transformer(**_sizes(16), vace_layers=[0, 1])
    scheduler = architectures.wan_scheduler()
    _save(WanVACEPipeline(vae=wan_vae(), scheduler=scheduler, transformer=transformer, **_text()), folder)


def lucy_edit(folder: Path) -> None:
    """Lucy-Edit-Dev's: the clip's 48 channels beside the noisy ones, and a time for each token."""
    transformer = architectures.wan_transformer(**_sizes(48) | {"in_channels": 96})
    scheduler, parts = architectures.wan_scheduler(), {"transformer": transformer, "expand_timesteps": True}
    _save(LucyEditPipeline(vae=wan22_vae(), scheduler=scheduler, **parts, **_text()), folder)


def editor(folder: Path, plus: bool = False) -> None:
    """Qwen-Image-Edit's pipeline, or its Plus form; the processor's files are there, as they are on the hub."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, *architectures.QWEN_SPECIAL_TOKENS])}
    special = list(architectures.QWEN_SPECIAL_TOKENS[1:])
    tokenizer = Qwen2Tokenizer(vocabulary, [], eos_token="<|im_end|>", extra_special_tokens=special)
    architectures.save_editor(
        folder,
        architectures.qwen_vae(base_dim=4, dim_mult=[1, 2, 4, 4]),
        architectures.qwen_encoder(tokenizer),
        tokenizer,
        architectures.qwen_transformer(num_layers=1, num_attention_heads=2),
    )
    tokenizer.save_pretrained(folder / "processor")
    Qwen2VLImageProcessorPil().save_pretrained(folder / "processor")
    _index(
        folder,
        _class_name="QwenImageEditPlusPipeline" if plus else "QwenImageEditPipeline",
        processor=["transformers", "Qwen2VLProcessor"],
        tokenizer=["transformers", "Qwen2Tokenizer"],
    )


def depth_anything(folder: Path) -> None:
    """Depth-Anything-V2's four levels, on pictures of about 56 pixels in place of 518."""
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)


def dino(folder: Path) -> None:
    """DINO's ViT with patches of 16 pixels."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "image_size": 32}
    architectures.save_single(folder, architectures.features(**sizes, patch_size=16))


def ditto(
    folder: Path, width: int = WIDTH, hidden: int = HIDDEN, blocks: int = LAYERS, scale: float = 0.5
) -> Path:
    """A LoRA as DiffSynth's trainer writes one on VACE's blocks (the format of Ditto_models); returns its file."""
    generator, tensors = torch.Generator().manual_seed(3), {}
    for block in range(blocks):
        for name, wide in DITTO.items():
            into, out = (width if side else hidden for side in wide)
            stem = f"vace_blocks.{block}.{name}.lora_"
            tensors[f"{stem}A.default.weight"] = torch.randn(RANK, into, generator=generator)
            tensors[f"{stem}B.default.weight"] = scale * torch.randn(out, RANK, generator=generator)
    file = folder / "models" / "ditto_sim2real.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, file)
    return file


# By the names that the shipped profiles use.
STAND_INS: dict[str, Callable[[Path], object]] = {
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": lambda folder: wan(folder, experts=2),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": wan,
    "Wan-AI/Wan2.1-VACE-14B-diffusers": vace,
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": vace,
    "Qwen/Qwen-Image-Edit": editor,
    "Qwen/Qwen-Image-Edit-2509": lambda folder: editor(folder, plus=True),
    "depth-anything/Depth-Anything-V2-Large-hf": depth_anything,
    "depth-anything/Depth-Anything-V2-Small-hf": depth_anything,
    "facebook/dino-vitb16": dino,
    "decart-ai/Lucy-Edit-Dev": lucy_edit,
    "QingyanBai/Ditto_models": ditto,
}
# Of these the hub's main revision has weights in pickles only, which the kit does not read; refs/pr/7 has safetensors.
PICKLED = ("facebook/dino-vitb16",)


def install(name: str, hub: Path) -> Path:
    """Put a stand-in for a hub name (or `name@revision`) into the hub's cache, once; returns its folder.

    Raises KeyError for a model that has none: it then needs a line in STAND_INS.
    """
    plain, folder = name.partition("@")[0], _snapshot(name, hub)
    if not folder.is_dir():
        torch.manual_seed(0)
        making = folder.with_name("making")
        STAND_INS[plain](making)
        if name in PICKLED:
            (making / "model.safetensors").rename(making / "pytorch_model.bin")
        making.rename(folder)
    return folder


def install_accelerator(role: str, settings: dict[str, Any], hub: Path) -> None:
    """Put the LoRA files of one of `models.accelerators` into the hub's cache, once, under the names that it gives."""
    folder = _snapshot(settings["model"], hub)
    for name in filter(None, (settings["file"], settings.get("file_2"))):
        if not (folder / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_file(_accelerator(role), folder / name)


def _accelerator(role: str) -> dict[str, torch.Tensor]:
    """A random LoRA as LightX2V names one: of the editor's attention, or of the layers of Wan's own blocks (VACE has them too)."""
    if role == "editor":
        inner = 2 * 32  # the width of `editor`
        names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
        sides = {f"transformer_blocks.0.attn.{name}": (inner, inner) for name in names}
    else:
        width = {name: tuple(WIDTH if side else HIDDEN for side in wide) for name, wide in DITTO.items()}
        sides = {
            f"diffusion_model.blocks.{i}.{name}": wide for i in range(LAYERS) for name, wide in width.items()
        }
    generator, tensors = torch.Generator().manual_seed(4), {}
    for name, (into, out) in sides.items():
        tensors[f"{name}.lora_down.weight"] = 0.2 * torch.randn(RANK, into, generator=generator)
        tensors[f"{name}.lora_up.weight"] = 0.2 * torch.randn(out, RANK, generator=generator)
        if role == "editor":
            tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
    return tensors


def _snapshot(name: str, hub: Path) -> Path:
    """Where the cache keeps a hub name, or one at a revision (a branch, a commit, refs/pr/7), with the reference to it."""
    plain, _, revision = name.partition("@")
    is_commit = len(revision) == 40
    commit = revision if is_commit else hashlib.sha1(name.encode()).hexdigest()
    repository = hub / f"models--{plain.replace('/', '--')}"
    (repository / "snapshots").mkdir(parents=True, exist_ok=True)
    if not is_commit:
        reference = repository / "refs" / (revision or "main")
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
    return repository / "snapshots" / commit


def _transformer() -> torch.nn.Module:
    return architectures.wan_transformer(**_sizes(16))


def _sizes(channels: int) -> dict[str, object]:
    return {
        "num_attention_heads": 2,
        "attention_head_dim": WIDTH // 2,
        "in_channels": channels,
        "out_channels": channels,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 16,
        "ffn_dim": HIDDEN,
        "num_layers": LAYERS,
        "patch_size": (1, 2, 2),
    }


def _text() -> dict[str, object]:
    """UMT5 and its tokenizer: a piece for each letter and each common Chinese sign (Wan's negative prompt), and for words of ours."""
    signs = [chr(code) for first, last in ((0x21, 0x7F), (0x4E00, 0x9FFF)) for code in range(first, last)]
    pieces = [*dict.fromkeys(f"▁{word}" for word in PROMPT.split()), *signs, "，", "。"]
    scored = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((piece, -3.0) for piece in pieces),
    ]
    tokenizer = T5Tokenizer(scored, extra_ids=0)
    sizes = {"d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 64}
    return {"tokenizer": tokenizer, "text_encoder": architectures.text_encoder(tokenizer, **sizes)}


def _save(pipeline: WanPipeline | WanVACEPipeline | LucyEditPipeline, folder: Path) -> None:
    """The pipeline's folder, matrices in bfloat16 but the VAE's; the index names the tokenizer as the hub's do."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name != "vae":
            architectures._stored_as(part, torch.bfloat16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _index(folder, tokenizer=["transformers", "T5TokenizerFast"])


def _index(folder: Path, **changes: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes, indent=1))
