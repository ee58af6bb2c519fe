"""Who attends to whom: what is measured is what the model's own attention weighs."""

import numpy as np
import pytest
import torch
from diffusers.models.transformers import transformer_wan
from safetensors.numpy import load_file
from test_enhance import save_adapters

from rmkit.demos import attending
from rmkit.errors import InputError
from rmkit.kit import store, video
from rmkit.method import sampling


@pytest.mark.parametrize("most", [attending.QUERIES, 4])
def test_weights_are_the_models_own(tiny_profile, tiny_clips, monkeypatch, most):
    monkeypatch.setattr(attending, "QUERIES", most)
    save_adapters(tiny_profile)
    clip = sampling.load(tiny_profile, "validation")[0]
    with pytest.raises(InputError, match="enhance the clip first"):
        attending.measure(tiny_profile, clip)
    made = 255 - video.read(sampling.path(tiny_profile, clip))
    video.write(tiny_profile.layout.enhanced / "realmaster" / f"{clip.id}.mp4", made, 16)
    stock, asked = transformer_wan.dispatch_attention_fn, []

    def seen(query, key, value, *args, **kwargs):
        asked.append((query, key))
        return stock(query, key, value, *args, **kwargs)

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", seen)
    path = attending.measure(tiny_profile, clip)
    found, written = load_file(path), path.stat().st_mtime_ns
    both = [each for each in asked if each[0].shape[1] == each[1].shape[1]]  # self-attention: 2L by 2L
    experts, blocks, heads = attending.shape(tiny_profile, clip)
    assert experts == ["high", "low"] and len(both) == 2 * blocks
    for i, name in enumerate(experts):
        frames, points = found[f"{name}.frames"], found[f"{name}.points"]
        count, (height, width) = frames.shape[2], points.shape[-2:]
        assert frames.shape == (blocks, heads, count, 2 * count) and points.shape[:3] == (blocks, 9, 2)
        asked = torch.arange(min(most, height * width)) * height * width // min(most, height * width)
        np.testing.assert_allclose(frames.sum(axis=-1), 1, rtol=1e-4)
        for block in range(blocks):
            query, key = (states[0].transpose(0, 1).float() for states in both[i * blocks + block])
            weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=-1)
            noisy = weights[:, count * height * width :]  # [heads, L, 2L]
            every = noisy.unflatten(1, (count, -1)).unflatten(3, (2 * count, -1))  # [heads, F, H W, 2F, H W]
            by_frame = every[:, :, asked].sum(dim=4).mean(dim=2)
            np.testing.assert_allclose(frames[block], by_frame, rtol=1e-3, atol=1e-5)
            middle, token = count // 2, height // 2 * width + width // 2
            own = every[:, middle, token].mean(dim=0)[[middle, middle + count]]
            np.testing.assert_allclose(points[block, 4].reshape(2, -1), own, rtol=1e-3, atol=1e-6)
    figure = attending.picture(tiny_profile, clip, expert="low", block=0, head=1, place="top left")
    assert "low noise, block 1 of 2, head 2" in figure.get_suptitle()
    assert attending.measure(tiny_profile, clip) == path and path.stat().st_mtime_ns == written
    assert store.read_sidecar(path)["stage"] == "attention" and torch.is_grad_enabled()
