"""In context together with what diffusers offers to save time and memory: the same result as without."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from diffusers.models.attention_dispatch import attention_backend
from small_wan import adapted, expert, inputs, reference
from torch._dynamo.testing import CompileCounter

from rmkit.method import incontext
from rmkit.method.incontext import CACHED, in_context

MODES = [*incontext.MODES, CACHED]


def predict(model: WanTransformer3DModel, mode: str, calls: int = 2) -> torch.Tensor:
    """The prediction of the last of some calls; in mode "one-way cached" it is one that reads the cache."""
    with torch.no_grad(), in_context(model, reference(), mode), model.cache_context("cond"):
        for _ in range(calls):
            sample = model(**inputs()).sample
    return sample


def gradients(model: WanTransformer3DModel, mode: str) -> dict[str, torch.Tensor]:
    with in_context(model, reference(), mode):
        model(**inputs()).sample.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("mode", incontext.MODES)
def test_every_adapter_learns_with_and_without_checkpointing(mode):
    plain = gradients(adapted(), mode)
    model = adapted()
    model.enable_gradient_checkpointing()
    checkpointed = gradients(model, mode)
    # 2 blocks, 4 + 4 + 2 projections each
    assert sum("lora_B" in name for name in plain) == 2 * 10
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, checkpointed[name]), name


@pytest.mark.parametrize("mode", MODES)
def test_attention_backend_can_be_chosen(mode):
    model = expert(0)
    native = predict(model, mode)
    with torch.no_grad(), in_context(model, reference(), mode), attention_backend("_native_math"):
        model.set_attention_backend("_native_math")  # and every model's to come, until the context ends
        chosen = {layer.attn1.processor._attention_backend for layer in model.blocks}
        other = model(**inputs()).sample
    assert {str(backend.value) for backend in chosen} == {"_native_math"}
    assert (native - other).abs().max() < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_projections_can_be_fused(mode):
    model = expert(0)
    apart = predict(model, mode)
    model.fuse_qkv_projections()
    assert all(block.attn1.fused_projections for block in model.blocks)
    assert (predict(model, mode) - apart).abs().max() < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_blocks_can_be_compiled(mode):
    """One graph serves all blocks, calls and clips; none is broken."""
    model, counter = adapted(), CompileCounter()
    want = predict(model, mode)
    torch._dynamo.reset()
    model.compile_repeated_blocks(backend=counter, fullgraph=True)
    assert torch.equal(predict(model, mode), want)
    assert torch.equal(predict(model, mode, calls=3), want)
    assert counter.frame_count == 1


def test_the_whole_model_can_be_compiled():
    model = expert(0)
    want = predict(model, CACHED)
    torch._dynamo.reset()
    model.compile(backend=CompileCounter())
    assert torch.equal(predict(model, CACHED), want)


@pytest.mark.parametrize("mode", MODES)
def test_weights_can_be_stored_in_8_bit(mode):
    stored, rounded = expert(0), expert(0)
    stored.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    small = {name: p for name, p in stored.named_parameters() if p.dtype == torch.float8_e4m3fn}
    assert sum("attn1.to_" in name for name in small) == 2 * 4 * 2  # weight and bias of four projections
    for name, parameter in small.items():
        rounded.get_parameter(name).data = parameter.float()
    assert torch.equal(predict(stored, mode), predict(rounded, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", ["leaf_level", "block_level"])
def test_weights_can_be_offloaded_in_groups(mode, level):
    """On a machine without a GPU both places are the CPU: hooks and their order run all the same."""
    model = adapted()
    want = predict(model, mode)
    cpu = torch.device("cpu")
    model.enable_group_offload(cpu, cpu, offload_type=level, num_blocks_per_group=1)
    assert torch.equal(predict(model, mode), want)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: streams, and memory other than the CPU's"
)
@pytest.mark.parametrize("mode", MODES)
def test_weights_can_be_offloaded_to_the_cpu_on_a_stream(mode):
    model = adapted()
    want = predict(model, mode)
    model.enable_group_offload(torch.device("cuda"), offload_type="leaf_level", use_stream=True)
    with torch.no_grad(), in_context(model, reference(), mode):
        for _ in range(2):
            sample = model(**{name: value.cuda() for name, value in inputs().items()}).sample
    assert (sample.cpu() - want).abs().max() < 1e-4


@pytest.mark.parametrize("mode", incontext.MODES)
def test_first_block_cache_that_skips_nothing_changes_nothing(mode):
    """In mode "one-way cached" it is refused (test_incontext_cached)."""
    model = adapted()
    want = predict(model, mode)
    model.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    assert torch.equal(predict(model, mode, calls=1), want)
