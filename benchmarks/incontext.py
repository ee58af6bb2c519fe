"""What seeing the render costs beside plain text-to-video: seconds, memory and FLOPs of one denoising step.

Prints two tables (`make bench`) and writes nothing. Measured: every mode in turn, on the same random weights
and clip, of a small model in A14B's proportions. Counted: the same modes by formula, at A14B's own size.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # no messages of the profiler; torch reads it when imported

import torch
from concatenation import concatenated
from diffusers import WanTransformer3DModel
from torch.profiler import ProfilerActivity, profile

from rmkit.attention.key_value_cache import cache_bytes
from rmkit.attention.one_way import CACHED
from rmkit.kit import machine
from rmkit.method.incontext import in_context

TURNS = 3  # of which the fastest counts: whatever else the machine does only slows a step down
PLAIN, CONCATENATION = "plain T2V", "frame concatenation"
CHANNELS, PATCH, FREQUENCIES = 16, 4, 256  # of the latents; latent pixels a token; of the timestep


@dataclass(frozen=True)
class Shape:
    """What the cost of a Wan transformer depends on."""

    width: int
    heads: int
    feed_forward: int
    layers: int
    text: int  # tokens
    text_width: int


@dataclass(frozen=True)
class Passed:
    """What a step passes through the blocks, in those of plain T2V."""

    tokens: int  # sequences of clip length that go through the layers
    pairs: int  # of clip length each: queries times keys of self-attention
    texts: int  # rows of text


A14B = Shape(width=5120, heads=40, feed_forward=13824, layers=40, text=512, text_width=4096)
A14B_GRIDS = {"480x832x81": (21, 30, 52), "800x1200x81": (21, 50, 75)}  # tokens: frames, height, width
# The feed-forward, text and clips are as many widths as A14B's, so that the ratios are as well.
SMALL = Shape(width=192, heads=2, feed_forward=518, layers=2, text=19, text_width=154)
SMALL_GRIDS = ((6, 12, 17), (7, 20, 21))

PASSED = {
    PLAIN: Passed(tokens=1, pairs=1, texts=1),
    CONCATENATION: Passed(tokens=2, pairs=4, texts=1),
    "joint": Passed(tokens=2, pairs=4, texts=2),
    "one-way": Passed(tokens=2, pairs=3, texts=2),  # reference with itself, noisy with both
    CACHED: Passed(tokens=1, pairs=2, texts=1),  # a later step; the first of a text also passes the reference
}


def flops(shape: Shape, length: int, mode: str) -> int:
    """Floating point operations of one step, two a multiply-add, at `length` tokens a clip.

    Matrix products alone: norms, activations and rotations are left out.
    """
    passed, width = PASSED[mode], shape.width
    tokens = passed.tokens * length
    block = (
        tokens * 8 * width**2  # self-attention: query, key, value, output
        + passed.pairs * 4 * length**2 * width  # its scores and its weighted sum
        + tokens * 4 * width**2  # cross-attention: query, output
        + passed.texts * shape.text * 4 * width**2  # its keys and values, of the text
        + tokens * 4 * shape.text * width  # its scores and its weighted sum
        + tokens * 4 * width * shape.feed_forward  # into the feed-forward and out
    )
    # Modulation: frequencies to width, width to width, width to six; of a row, or of a token if concatenated.
    timesteps = tokens if mode == CONCATENATION else passed.tokens
    ends = (
        timesteps * 2 * (FREQUENCIES * width + 7 * width**2)
        + passed.texts * shape.text * 2 * (shape.text_width * width + width**2)  # text to width
        + tokens * 2 * 2 * PATCH * CHANNELS * width  # patches to width and back
    )
    return shape.layers * block + ends


def ratios(shape: Shape, length: int) -> dict[str, float]:
    """FLOPs of every mode in those of plain T2V."""
    return {mode: flops(shape, length, mode) / flops(shape, length, PLAIN) for mode in PASSED}


def build(shape: Shape) -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.width // shape.heads,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=shape.text_width,
        freq_dim=FREQUENCIES,
        ffn_dim=shape.feed_forward,
        num_layers=shape.layers,
    ).eval()


def clip(shape: Shape, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Random reference latents [1, C, F, H, W] of so many tokens, and the arguments of a step."""
    frames, height, width = grid
    latents = torch.randn(2, CHANNELS, frames, 2 * height, 2 * width)
    call = {
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, shape.text, shape.text_width),
    }
    return latents[:1], {"hidden_states": latents[1:], **call}


@torch.no_grad()
def turn(
    model: WanTransformer3DModel, shown: torch.Tensor, call: dict[str, torch.Tensor], mode: str
) -> float:
    """Seconds of the second of two steps: the first one fills the cache and warms up."""

    def two(step: Callable[[], object]) -> float:
        step()
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    if mode == PLAIN:
        return two(lambda: model(**call))
    if mode == CONCATENATION:
        return two(lambda: concatenated(model, shown, **call))
    with in_context(model, shown, mode):
        return two(lambda: model(**call))


def peak_bytes(work: Callable[[], object]) -> int:
    """Most CPU memory that `work` has allocated through torch at any time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"))


def measure(shape: Shape, grid: tuple[int, int, int], turns: int) -> dict[str, tuple[float, int]]:
    """Seconds of a step and peak bytes above the weights, of every mode."""
    model = build(shape)
    shown, call = clip(shape, grid)
    seconds = {mode: [] for mode in PASSED}
    for _ in range(turns):
        for mode in PASSED:
            seconds[mode].append(turn(model, shown, call, mode))
    peaks = {mode: peak_bytes(lambda m=mode: turn(model, shown, call, m)) for mode in PASSED}
    return {mode: (min(seconds[mode]), peaks[mode]) for mode in PASSED}


def show_measured(shape: Shape, grid: tuple[int, int, int], turns: int) -> None:
    found = measure(shape, grid, turns)
    length = grid[0] * grid[1] * grid[2]
    counted, (plain_seconds, plain_peak) = ratios(shape, length), found[PLAIN]
    print(f"\nMeasured: {length:,} tokens of width {shape.width}, {shape.layers} layers, one row, float32")
    print(
        f"{'':22}{'seconds':>9}{'of plain':>10}{'counted':>9}{'meas./count.':>14}{'peak MiB':>10}{'of plain':>10}"
    )
    for mode, (seconds, peak) in found.items():
        ratio = seconds / plain_seconds
        print(
            f"{mode:22}{seconds:9.3f}{ratio:10.2f}{counted[mode]:9.2f}{ratio / counted[mode]:14.2f}"
            f"{peak / 2**20:10.1f}{peak / plain_peak:10.2f}"
        )


def show_counted(shape: Shape = A14B) -> None:
    lengths = {size: grid[0] * grid[1] * grid[2] for size, grid in A14B_GRIDS.items()}
    print("\nCounted by formula, not measured: Wan2.2 T2V-A14B, one row of one step")
    print(f"{'':22}" + "".join(f"{f'{size}, {length:,} tokens':>30}" for size, length in lengths.items()))
    print(f"{'':22}" + f"{'PFLOP':>18}{'of plain':>12}" * len(lengths))
    for mode in PASSED:
        cells = ""
        for length in lengths.values():
            count = flops(shape, length, mode)
            cells += f"{count / 1e15:18.2f}{count / flops(shape, length, PLAIN):12.2f}"
        print(f"{mode:22}{cells}")
    with torch.device("meta"):
        model = build(shape)
        latents = [clip(shape, grid)[0].bfloat16() for grid in A14B_GRIDS.values()]
    for label, in_8_bit in (("bf16", False), ("8 bit", True)):
        sizes = [cache_bytes(model, noisy, in_8_bit) / 2**30 for noisy in latents]
        print(f"{f'cache a text, {label}':22}" + "".join(f"{size:18.1f}{'GiB':>12}" for size in sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=TURNS, help="of every mode, the fastest counts")
    turns = parser.parse_args().turns
    print(f"{machine.machine()}; torch {torch.__version__} on the CPU, {torch.get_num_threads()} threads")
    print(f"One denoising step, the fastest of {turns} turns; peak memory above the weights, over two steps.")
    for grid in SMALL_GRIDS:
        show_measured(SMALL, grid, turns)
    print(f"'{CACHED}' is a later step: the first of a text passes the reference too, once plain T2V more.")
    show_counted()


if __name__ == "__main__":
    main()
