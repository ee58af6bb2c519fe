"""A random Wan transformer of two small blocks, adapted or not, and inputs for it."""

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from rmkit.method.lora import TARGETS


def expert(seed: int) -> WanTransformer3DModel:
    """A random transformer whose gates and modulation are all at work."""
    torch.manual_seed(seed)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    ).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def adapted(seed: int = 0, gaussian: bool = True) -> WanTransformer3DModel:
    model = expert(seed).requires_grad_(False)
    model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
    if gaussian:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    return model


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "hidden_states": torch.randn(batch, 4, 3, 4, 6, generator=generator),
        "timestep": torch.tensor([900.0, 300.0, 20.0])[:batch],
        "encoder_hidden_states": torch.randn(batch, 5, 8, generator=generator),
    }


def reference(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 3, 4, 6, generator=torch.Generator().manual_seed(8))
