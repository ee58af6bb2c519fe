"""The tiny models: small instances of the very classes of Wan2.2, VACE, Qwen-Image-Edit and DINO's ViT; a judge.

Reads nothing; `save_*` write the pipeline folders that `from_pretrained` reads. The training scripts
beside this file fill them; the tests save them untrained and smaller.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    QwenImageTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.configuration_utils import ConfigMixin
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    ResNetConfig,
    ResNetForImageClassification,
    UMT5Config,
    UMT5EncoderModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)
from world import WEATHERS

LATENT_CHANNELS = 48  # 2x2 patches make tokens of 192 numbers: below the width, or noise would stay
HEADS, HEAD_WIDTH, FFN_WIDTH = 4, 52, 320  # width 208
LAYERS = 4
# VACE's stream holds the noise and what it makes of its control. Of patches that alone are nearly as wide as the stream
# it could not hold both, so its tokens are single latents, 48 numbers each.
VACE_PATCH, VACE_FFN_WIDTH, VACE_LAYERS = (1, 1, 1), 480, [0, 1, 2]
TEXT_WIDTH = 96
TEXT_TOKENS = 64  # every prompt is padded to this length, as Wan pads to 512
BOUNDARY = 0.875  # sigma at which Wan2.2 hands over from the high-noise expert to the low-noise one
SHIFT = 3.0
FEATURE_WIDTH = 128
QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def wan_vae(**overrides: Any) -> AutoencoderKLWan:
    """Residual Wan2.2 VAE, 8x in space and 4x in time: [B, 3, F, H, W] -> [B, 48, (F-1)/4+1, H/8, W/8]."""
    channels = overrides.get("z_dim", LATENT_CHANNELS)
    settings = {
        "base_dim": 24,
        "decoder_base_dim": 32,
        "z_dim": channels,
        "dim_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "scale_factor_spatial": 8,
        # Measured on the training data once it is trained; the defaults are of 16 channels.
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }
    return AutoencoderKLWan(**{**settings, **overrides})


def wan_transformer(**overrides: Any) -> WanTransformer3DModel:
    """One expert of the text-to-video model."""
    return WanTransformer3DModel(**{**_transformer_settings(), **overrides})


def vace_transformer(**overrides: Any) -> WanVACETransformer3DModel:
    """The text-to-video model with finer tokens and wider feed-forward parts, VACE blocks beside all layers but the last."""
    finer = {"patch_size": VACE_PATCH, "ffn_dim": VACE_FFN_WIDTH, "vace_layers": VACE_LAYERS}
    settings = {**_transformer_settings(), **finer, **overrides}
    # Inactive and reactive latents, and the mask at the VAE's 8x8 pixels a cell.
    settings.setdefault("vace_in_channels", 2 * settings["in_channels"] + 8**2)
    return WanVACETransformer3DModel(**settings)


def text_encoder(tokenizer: PreTrainedTokenizerFast, **overrides: Any) -> UMT5EncoderModel:
    """UMT5 encoder for captions: token ids [B, L] -> [B, L, 96]."""
    settings = {
        "vocab_size": len(tokenizer),
        "d_model": TEXT_WIDTH,
        "d_kv": 24,
        "d_ff": 192,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return UMT5EncoderModel(UMT5Config(**{**settings, **overrides}))


def caption_tokenizer(captions: Iterable[str], vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on captions: their words become single tokens, any text still works."""
    tokenizer = _byte_level_bpe(captions, vocabulary, ["<pad>", "</s>", "<unk>"])
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_TOKENS,
    )


def qwen_vae(**overrides: Any) -> AutoencoderKLQwenImage:
    """Image VAE of the editor, 8x: [B, 3, 1, H, W] -> [B, 16, 1, H/8, W/8]."""
    channels = overrides.get("z_dim", 16)
    settings = {
        "base_dim": 12,
        "z_dim": channels,
        "dim_mult": [1, 2, 3, 3],
        "num_res_blocks": 1,
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }
    return AutoencoderKLQwenImage(**{**settings, **overrides})


def qwen_transformer(**overrides: Any) -> QwenImageTransformer2DModel:
    """Dual-stream transformer of the editor, on 2x2 patches of the image VAE's latents."""
    settings = {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 4,
        "attention_head_dim": 32,
        "num_attention_heads": 4,
        "joint_attention_dim": 64,
        "axes_dims_rope": (8, 12, 12),
    }
    return QwenImageTransformer2DModel(**{**settings, **overrides})


def qwen_tokenizer(texts: Iterable[str], vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's special tokens."""
    tokenizer = _byte_level_bpe(texts, vocabulary, list(QWEN_SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=list(QWEN_SPECIAL_TOKENS[3:]),
    )


def qwen_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Vision-language encoder of the editor: two layers for sight, two for text, width 64."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in QWEN_SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def features(**overrides: Any) -> ViTModel:
    """Feature model of the DINO metrics, a ViT of 8x8 patches: [B, 3, H, W] -> [B, 1 + H/8 * W/8, 128].

    Its positions are a square of 12x12, which transformers stretches to any picture: it knows no oblong ones.
    """
    settings = {
        "hidden_size": FEATURE_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 4 * FEATURE_WIDTH,
        "image_size": 96,
        "patch_size": 8,
    }
    return ViTModel(ViTConfig(**{**settings, **overrides}), add_pooling_layer=False)


def judge(**overrides: Any) -> ResNetForImageClassification:
    """Offline judge: frames [B, 3, H, W] in -1..1 -> logits [B, 2] of render and truth."""
    settings = {
        "embedding_size": 16,
        "hidden_sizes": [24, 48, 96],
        "depths": [1, 1, 1],
        "layer_type": "basic",
        "id2label": {0: "render", 1: "truth"},
        "label2id": {"render": 0, "truth": 1},
        "frame_size": [96, 144],  # what the calibration is for
    }
    return ResNetForImageClassification(ResNetConfig(**{**settings, **overrides}))


def weather(**overrides: Any) -> ResNetForImageClassification:
    """Weather classifier: frames [B, 3, H, W] in -1..1 -> logits [B, 5] of `world.WEATHERS`."""
    settings = {
        "id2label": dict(enumerate(WEATHERS)),
        "label2id": {name: i for i, name in enumerate(WEATHERS)},
    }
    return judge(**{**settings, **overrides})


def save_wan(
    folder: Path,
    vae: AutoencoderKLWan,
    encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    high: WanTransformer3DModel,
    low: WanTransformer3DModel,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the text-to-video pipeline folder; `transformer` is the high-noise expert, as in Wan2.2."""
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_stored_as(encoder, dtype),
        vae=_stored_as(vae, dtype),
        scheduler=wan_scheduler(),
        transformer=_stored_as(high, dtype),
        transformer_2=_stored_as(low, dtype),
        boundary_ratio=BOUNDARY,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def save_vace(
    folder: Path, transformer: WanVACETransformer3DModel, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write VACE's own parts; VAE, text encoder and tokenizer are those of the Wan folder."""
    _stored_as(transformer, dtype).save_pretrained(folder / "transformer", safe_serialization=True)
    wan_scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(
        '{\n "_class_name": "WanVACEPipeline",\n "_diffusers_version": "0.42.1",\n'
        ' "scheduler": ["diffusers", "UniPCMultistepScheduler"],\n'
        ' "transformer": ["diffusers", "WanVACETransformer3DModel"]\n}\n'
    )


def save_editor(
    folder: Path,
    vae: AutoencoderKLQwenImage,
    encoder: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    transformer: QwenImageTransformer2DModel,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the Qwen-Image-Edit pipeline folder, without the processor (it would need torchvision)."""
    parts = {
        "vae": vae,
        "text_encoder": encoder,
        "transformer": transformer,
    }
    for name, part in parts.items():
        _stored_as(part, dtype).save_pretrained(folder / name, safe_serialization=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    editor_scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(
        '{\n "_class_name": "QwenImageEditPipeline",\n "_diffusers_version": "0.42.1",\n'
        ' "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],\n'
        ' "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],\n'
        ' "tokenizer": ["transformers", "PreTrainedTokenizerFast"],\n'
        ' "transformer": ["diffusers", "QwenImageTransformer2DModel"],\n'
        ' "vae": ["diffusers", "AutoencoderKLQwenImage"]\n}\n'
    )


def save_single(
    folder: Path, model: ViTModel | ResNetForImageClassification, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a feature model or a judge with its preprocessor: pictures of any size, each channel to -1..1."""
    _stored_as(model, dtype).save_pretrained(folder, safe_serialization=True)
    processor = ViTImageProcessorPil(do_resize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder)


def wan_scheduler() -> UniPCMultistepScheduler:
    """UniPC on flow sigmas, as Wan and VACE ship it."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=SHIFT,
    )


def editor_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Euler on flow sigmas with the shift that depends on the size, as Qwen-Image-Edit ships it."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
        time_shift_type="exponential",
    )


def _stored_as(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Matrices and kernels in `dtype`; biases, norms and modulations are few and stay as they are."""
    if isinstance(model, ConfigMixin):
        model.register_to_config(_name_or_path="")  # else the config tells where it was loaded from
    for parameter in model.parameters():
        if parameter.ndim >= 2 and parameter.numel() >= 4096:
            parameter.data = parameter.data.to(dtype)
    return model


def _transformer_settings() -> dict[str, Any]:
    return {
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD_WIDTH,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 64,
        "ffn_dim": FFN_WIDTH,
        "num_layers": LAYERS,
    }


def _byte_level_bpe(texts: Iterable[str], vocabulary: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
