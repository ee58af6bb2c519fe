"""Train the two VAEs of the miniature: Wan's (video) and Qwen-Image's (pictures).

Reads rendered sequences of the pretrain split; writes `<out>/<which>_vae/` (diffusers format, with measured
`latents_mean` and `latents_std`) and `log.csv`. First both halves learn a linear code of 8x8 blocks, which gives
each a direct gradient (20.2 dB after 150 steps instead of 16.3); then images; then images and clips in turns, from
weights that treat every frame alone (a random start in time fell from 31 to 24 dB and stayed there; this one starts
at 27). Many small steps beat few large ones here: batches are of a few crops. At last, with `--later-frames`, what
comes after a clip's first frame, whose latent holds that frame alone, while each later one holds two new ones.

    python data/diorama/train_vae.py --rendered DIR --out DIR --which wan
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import architectures
import cv2
import dataset
import loop
import numpy as np
import torch
from dataset import GREY, Shot
from torch import nn

# What VACE and the IC-LoRA feed the VAE; one trained on truth alone gave 13 dB on edge maps.
KINDS = {"truth": 0.45, "render": 0.25, "anchored_truth": 0.1, "edges": 0.08, "anchored_edges": 0.06,
         "depth": 0.06}  # fmt: skip
PICTURES = 4  # single frames a step; of clips one
LINE_WEIGHT = 0.15  # of edge maps in the loss: their errors are large, and they only guide
LATENT_NOISE = 0.02  # keeps the decoder smooth around each latent
LATENT_PENALTY = 1e-3  # keeps latents near unit scale without a KL term's blur
# For `--later-frames`:
LENGTHS = {1: 0.08, 9: 0.27, 17: 0.65}  # frames of a step's crops, with their shares
PICTURE_WEIGHT = 0.3  # single frames are to stay good, no more
FIRST_WEIGHT, END_WEIGHT = 0.05, 3.0  # of a clip's first frame and of those that end a latent; of others 1
OLD_LATENTS = 0.25  # share of the steps that teach the decoder alone, on the latents there were
STAY = 0.04  # weight of how far latents move, squared, in their spread


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--which", choices=("wan", "qwen"), required=True)
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps of all phases")
    parser.add_argument("--start-from", type=Path, help="checkpoints folder to go on from")
    parser.add_argument(
        "--later-frames",
        action="store_true",
        help="go on for the frames after a clip's first; models trained on the latents still serve",
    )
    arguments = parser.parse_args()
    wan = arguments.which == "wan"
    if arguments.later_frames and not wan:
        parser.error("--later-frames is for the video VAE: --which wan.")
    torch.manual_seed(0)
    shots = dataset.load(arguments.rendered, "pretrain", arguments.clips)
    print(f"{len(shots)} clips", flush=True)
    folder = arguments.out / f"{arguments.which}_vae"
    source = folder if arguments.later_frames else None
    if arguments.start_from:
        source = arguments.start_from / ("wan" if wan else "editor") / "vae"
    vae = (architectures.wan_vae if wan else architectures.qwen_vae)()
    if source:
        vae = type(vae).from_pretrained(source, torch_dtype=torch.float32)
    elif wan:
        frame_by_frame(vae)
    channels_last(vae.to(arguments.device))
    if arguments.later_frames:
        phases = [loop.Phase("later frames", 3000, 3e-4, later_loss(vae, shots))]
    elif wan and source:
        # Mostly clips, at a rate that does not undo what is there.
        phases = [loop.Phase("further", 5000, 2.5e-4, clip_loss(vae, shots, 48, (1, 9, 9, 9, 17)))]
    else:
        phases = wan_phases(vae, shots) if wan else qwen_phases(vae, shots)
    phases = [replace(phase, steps=round(phase.steps * arguments.scale)) for phase in phases]
    loop.train(arguments.out / "wan_vae_later" if arguments.later_frames else folder, {"vae": vae}, phases)
    if not arguments.later_frames:  # after which latents' mean and spread stay what other models know
        measure_latents(vae, shots, frames=17 if wan else 1)
    vae.save_pretrained(folder)


def wan_phases(vae: nn.Module, shots: list[Shot]) -> list[loop.Phase]:
    """A linear code, then pictures, then pictures and clips in turns."""
    code = BlockCode(_frames(shots), vae.config.z_dim)
    return [
        loop.Phase("code", 3000, 3e-3, clip_loss(vae, shots, 32, (1,), code=code)),
        loop.Phase("images", 9000, 2e-3, clip_loss(vae, shots, 48, (1,))),
        loop.Phase("images and clips", 8000, 5e-4, clip_loss(vae, shots, 48, (1, 1, 9, 9, 17))),
    ]


def clip_loss(
    vae: nn.Module,
    shots: list[Shot],
    size: int,
    lengths: tuple[int, ...],
    code: "BlockCode | None" = None,
):
    """Reconstruction of square crops, each step of one of the lengths in frames."""

    def loss(rng: np.random.Generator, generator: torch.Generator):
        return reconstruction(vae, crops(shots, int(rng.choice(lengths)), size, rng), generator, code)

    return loss


def later_loss(vae: nn.Module, shots: list[Shot]):
    """Reconstruction of clips by what their frames lack, by latents that stay where a copy of the VAE has them.

    A little in each latent says what its later frames lacked (they move by a tenth of their spread), and what was
    trained on the latents there were goes on to serve: the decoder is taught on those as well.
    """
    before = deepcopy(vae).eval().requires_grad_(False)
    spread = vae.config.latents_std[0]

    def loss(rng: np.random.Generator, generator: torch.Generator):
        frames = int(rng.choice(list(LENGTHS), p=list(LENGTHS.values())))
        samples = crops(shots, frames, 64, rng)
        x = pixels(vae, [clip for _, clip in samples])
        with loop.autocast(x.device):
            with torch.no_grad():
                z = old = before.encode(x).latent_dist.mean
            if rng.random() >= OLD_LATENTS:
                z = vae.encode(x).latent_dist.mean
            noise = torch.randn(z.shape, generator=generator).to(x.device)
            y = vae.decode(z + LATENT_NOISE * noise).sample
        moved = ((z - old).float() / spread).square().mean()
        error = difference(y.float(), x, frame_weights(frames).to(x.device))
        figures = {"moved": moved.sqrt().item()} if z is not old else {}
        return (sample_weights(samples).to(x.device) * error).mean() + STAY * moved, figures

    return loss


def frame_weights(frames: int) -> torch.Tensor:
    """What each frame counts in a clip, 1 in the mean, or in a single picture: float32 [F]."""
    if frames == 1:
        return torch.tensor([PICTURE_WEIGHT])
    weights = torch.ones(frames)
    weights[4::4] = END_WEIGHT
    weights[0] = FIRST_WEIGHT
    return weights / weights.mean()


@torch.no_grad()
def frame_by_frame(vae: nn.Module) -> None:
    """Have the video VAE start by treating each frame alone and passing a clip's time on unchanged.

    Pictures train neither the taps into the past, which see padding, nor the convolutions over time, which a first
    frame skips: left random, they undo on the first clip what the pictures have taught.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv3d) or module.kernel_size[0] == 1:
            continue
        module.weight[:, :, :-1] = 0
        if name.endswith("time_conv"):
            out, width = module.weight.shape[:2]  # twice as many out where time is doubled
            module.weight[:, :, -1, 0, 0] = torch.eye(width).repeat(out // width, 1)
            module.bias.zero_()


class BlockCode:
    """Principal components of 8x8 blocks of single frames: the best linear code of that many channels."""

    def __init__(self, frames: list[np.ndarray], channels: int) -> None:
        x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1
        blocks = self._blocks(x).flatten(0, 2)  # [N, 192]
        self.mean = blocks.mean(0)
        _, _, basis = torch.linalg.svd(blocks[::4] - self.mean, full_matrices=False)
        self.basis = basis[:channels]
        spread = ((blocks - self.mean) @ self.basis.T).std(0)
        # The weak components stay weak, at most ten times amplified: a code of noise helps nobody.
        self.scale = spread.clamp_min(0.1 * spread[0])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 1, h, w] -> [B, C, 1, h/8, w/8], the strongest component with spread 1."""
        code = (self._blocks(x.cpu()) - self.mean) @ self.basis.T / self.scale
        return code.permute(0, 3, 1, 2)[:, :, None].to(x.device)

    @staticmethod
    def _blocks(x: torch.Tensor) -> torch.Tensor:
        b, c, _, h, w = x.shape
        blocks = x[:, :, 0].reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5)
        return blocks.flatten(3)  # [B, h/8, w/8, 192]


def qwen_phases(vae: nn.Module, shots: list[Shot]) -> list[loop.Phase]:
    """Single frames enlarged twice, as the editor sees them at the miniature's edit area."""
    looks = ("truth", "render")

    def phase(name: str, steps: int, rate: float, size: int):
        code = None
        if name == "code":
            code = BlockCode([enlarged(frame) for frame in _frames(shots, looks)], vae.config.z_dim)

        def loss(rng: np.random.Generator, generator: torch.Generator):
            crops = [sample(shots, 1, (size, size), rng, looks) for _ in range(PICTURES)]
            pictures = [(kind, enlarged(crop[0])[None]) for kind, crop in crops]
            return reconstruction(vae, pictures, generator, code)

        return loop.Phase(name, steps, rate, loss)

    return [phase("code", 3000, 3e-3, 16), phase("images", 8000, 2e-3, 32)]


def enlarged(frame: np.ndarray) -> np.ndarray:
    """Twice the size, by the filter the editor's pipeline resizes with."""
    return cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)


def _frames(shots: list[Shot], kinds: tuple[str, ...] | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [sample(shots, 1, (96, 144), rng, kinds)[1][0] for _ in range(200)]


def sample(
    shots: list[Shot],
    frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    kinds: tuple[str, ...] | None = None,
) -> tuple[str, np.ndarray]:
    """A random crop of one of the things the VAE is fed: its kind and uint8 [frames, h, w, 3]."""
    shot = shots[int(rng.integers(len(shots)))]
    names = kinds or tuple(KINDS)
    weights = np.array([KINDS[name] for name in names])
    kind = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    distinct = (frames + 1) // 2
    first = int(rng.integers(0, 17 - distinct + 1))
    base = kind.removeprefix("anchored_")
    clip = getattr(shot, base)[first : first + distinct]
    clip = dataset.repeated(clip)
    if kind.startswith("anchored_"):
        known = dataset.known_frames("random", frames, rng)
        # Inactive frames hold anchors amid grey, reactive ones structure amid grey (FACTS 4).
        grey = ~known if base == "truth" else known
        clip = np.where(grey[:, None, None, None], np.uint8(GREY), clip)
    top, left = dataset.crop(shot, base, first, size, rng)
    clip = clip[:, top : top + size[0], left : left + size[1]]
    return kind, clip[:, :, ::-1] if rng.random() < 0.5 else clip


def crops(
    shots: list[Shot], frames: int, size: int, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """The samples of a step, square: one clip, or several single pictures."""
    return [sample(shots, frames, (size, size), rng) for _ in range(PICTURES if frames == 1 else 1)]


def reconstruction(
    vae: nn.Module,
    samples: list[tuple[str, np.ndarray]],
    generator: torch.Generator,
    code: BlockCode | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """What samples lose on their way through the VAE.

    samples: (kind, uint8 [F, h, w, 3]) of one size. With a code the encoder learns it and the decoder reads it,
    each on its own. Logs the PSNR of pictures: that of edge maps would drown it.
    """
    x = pixels(vae, [clip for _, clip in samples])
    device = x.device
    with loop.autocast(device):
        z = vae.encode(x).latent_dist.mean
        noise = torch.randn(z.shape, generator=generator).to(device)
        target = z if code is None else code(x)
        y = vae.decode(target + LATENT_NOISE * noise).sample
    y, z = y.float(), z.float()
    loss = (sample_weights(samples).to(device) * difference(y, x)).mean() + LATENT_PENALTY * z.square().mean()
    if code is not None:
        loss = loss + (z - target).square().mean()
    decibel = -10 * torch.log10((y - x).square().mean((1, 2, 3, 4)).detach().cpu() / 4)
    pictures = torch.tensor([kind in ("truth", "render") for kind, _ in samples])
    figures = {"psnr": decibel[pictures].mean().item()} if pictures.any() else {}
    return loss, figures


def pixels(vae: nn.Module, clips: Sequence[np.ndarray]) -> torch.Tensor:
    """Clips of one size, uint8 [F, h, w, 3] each, in -1..1 where the VAE is: float32 [B, 3, F, h, w]."""
    x = torch.from_numpy(np.stack(clips)).to(next(vae.parameters()).device).float() / 127.5 - 1
    return x.permute(0, 4, 1, 2, 3).contiguous(memory_format=torch.channels_last_3d)


def sample_weights(samples: list[tuple[str, np.ndarray]]) -> torch.Tensor:
    """What each sample counts in the loss: float32 [B]."""
    return torch.tensor([LINE_WEIGHT if "edges" in kind else 1.0 for kind, _ in samples])


def difference(y: torch.Tensor, x: torch.Tensor, by_frame: torch.Tensor | float = 1.0) -> torch.Tensor:
    """L1 on pixels and on their differences, so that edges stay where they are: [B, 3, F, h, w] twice -> [B]."""
    error = (y - x).abs().mean((1, 3, 4))  # [B, F]
    for axis in (-1, -2):
        error = error + 0.5 * (y.diff(dim=axis) - x.diff(dim=axis)).abs().mean((1, 3, 4))
    return (error * by_frame).mean(1)


@torch.no_grad()
def measure_latents(vae: nn.Module, shots: list[Shot], frames: int) -> None:
    """Mean of each latent channel over truth clips and the deviation of all, into the VAE's config.

    One deviation: a few channels hold most of a picture, and scaling each to 1 would have the transformers spend
    their training, and their noise, on what hardly shows.
    """
    rng, latents = np.random.default_rng(0), []
    for _ in range(48):
        _, clip = sample(shots, frames, (96, 144), rng, kinds=("truth",))
        if frames == 1:
            clip = enlarged(clip[0])[None]
        z = vae.encode(pixels(vae, [clip])).latent_dist.mean
        latents.append(z[0].flatten(1).float().cpu())
    values = torch.cat(latents, dim=1)  # [C, everything else]
    mean, std = values.mean(1), values.var(1).mean().sqrt().item()
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in mean.tolist()], latents_std=[round(std, 4)] * len(mean)
    )


def channels_last(model: nn.Module) -> None:
    """Weights in the memory order that convolutions on CPUs are fastest in (1.6x)."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
