"""Train the offline judge of the miniature: a small classifier that tells the truth's frames from the render's.

Reads rendered sequences of the pretrain split and the mini profile's VAE; writes `<out>/judge/` (state, log, clips
through the VAE) and the model folder `<out>/checkpoints/judge`. Both looks are spoilt and coloured, or a blur or a
grading would do: a render in the truth's colours, out of focus, with its edges filtered or through a codec is a render
still, and a truth a little soft is the truth. Every eighth sequence is kept from the training, for the calibration to 1-10.

    python data/diorama/train_judge.py --rendered DIR --out DIR
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import architectures
import cv2
import dataset
import loop
import numpy as np
import torch
from dataset import Shot
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional
from transformers import ResNetForImageClassification

from rmkit import profile
from rmkit.baselines import colour_transfer, prefilter, vae_ceiling
from rmkit.kit import models, video

RENDER, TRUTH = 0, 1
CROP = (80, 120)  # pixels of a training picture; ratings and calibration are of whole frames
HELD_EVERY = 8  # sequences, of which one calibrates
DECODED_EVERY = 11  # clips, of which one also goes through the VAE, which takes its time
DECODED_SHARE = 0.3  # of the pictures drawn
SOFTEST = {RENDER: 2.5, TRUTH: 1.0}  # pixels: what is out of focus entirely is not the truth any more
# Of the pictures, so many go through a Gaussian and an unsharp mask. Renders mostly: filtered edges are no truth. Truths
# too, within their softness: or the sharpening itself would tell a render.
PREFILTERED = {RENDER: 0.6, TRUTH: 0.15}
CALIBRATION_PAIRS = 2000
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Pair:
    """A clip in both looks, uint8 [17, 96, 144, 3] each, and the affine map [3, 4] from one's colours to the other's."""

    looks: tuple[np.ndarray, np.ndarray]
    colour_map: np.ndarray


@dataclass(frozen=True)
class Material:
    """Clips as they are, and some of them through the video VAE."""

    plain: list[Pair]
    decoded: list[Pair]


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--steps", type=int, default=1_800)
    parser.add_argument("--batch", type=int, default=16, help="pairs of frames a step")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--start-from", type=Path, help="checkpoints folder whose judge to go on from")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    # The loop trains by Muon what lies in blocks, if its channels come last.
    start = architectures.judge()
    if arguments.start_from:
        start = ResNetForImageClassification.from_pretrained(
            arguments.start_from / "judge", dtype=torch.float32
        )
        start.train()
    model = nn.ModuleDict({"blocks": start.to(memory_format=torch.channels_last)})
    folder = arguments.out / "judge"
    parts = split(dataset.load(arguments.rendered, "pretrain", arguments.clips))
    vae = models.load_wan(profile.load("mini")).vae
    training, held = (material(shots, vae, folder / "decoded") for shots in parts)
    print(f"{len(training.plain)} clips, {len(held.plain)} to calibrate", flush=True)
    loss = objective(model.to(arguments.device), training, arguments.batch, arguments.device)
    phase = loop.Phase("judge", arguments.steps, arguments.learning_rate, loss)
    loop.train(folder, {"judge": model}, [phase])
    judge = model["blocks"].cpu().eval()
    judge.config.calibration = calibrate(*scores(judge, held, CALIBRATION_PAIRS))
    print(judge.config.calibration)
    architectures.save_single(arguments.out / "checkpoints" / "judge", judge)


def split(shots: Sequence[Shot]) -> tuple[list[Shot], list[Shot]]:
    """Shots to train on and shots to calibrate on, of different sequences."""
    held = set(sorted({shot.sequence for shot in shots})[HELD_EVERY - 1 :: HELD_EVERY])
    return tuple([shot for shot in shots if (shot.sequence in held) == wanted] for wanted in (False, True))


def material(shots: Sequence[Shot], vae: nn.Module, folder: Path) -> Material:
    """The shots' looks, and some of them through the VAE, which `folder` keeps."""
    plain, decoded = [], []
    for number, shot in enumerate(shots):
        looks = shot.render, shot.truth
        plain.append(Pair(looks, colour_transfer.least_squares([(shot.render[::8], shot.truth[::8])])))
        if number % DECODED_EVERY == 0:
            back = [
                round_trip(vae, look, folder / f"{shot.sequence}_{number}_{name}.mp4")
                for name, look in zip(("render", "truth"), looks, strict=True)
            ]
            decoded.append(Pair((back[RENDER], back[TRUTH]), plain[-1].colour_map))
    return Material(plain, decoded)


def round_trip(vae: nn.Module, frames: np.ndarray, path: Path) -> np.ndarray:
    """Frames uint8 [17, H, W, 3] encoded and decoded at 16 fps, from `path` when they are there."""
    if not path.is_file():
        temporary = path.with_name(f".{path.name}")
        video.write(temporary, vae_ceiling.reconstruct(vae, dataset.repeated(frames))[::2], 8)
        temporary.rename(path)
    return video.read(path)


def objective(model: nn.ModuleDict, training: Material, batch: int, device: str):
    """Cross-entropy over `batch` frames in both looks."""

    def loss(rng: np.random.Generator, generator: torch.Generator):
        pictures = [crop for _ in range(batch) for crop in cropped(draw(training, rng), rng)]
        logits = model["blocks"](as_input(pictures).to(device)).logits
        labels = torch.tensor([RENDER, TRUTH] * batch, device=device)
        right = (logits.argmax(1) == labels).float().mean().item()
        return functional.cross_entropy(logits, labels), {"accuracy": right}

    return loss


def draw(source: Material, rng: np.random.Generator) -> list[np.ndarray]:
    """One frame in both looks, each spoilt in its own way: uint8 [H, W, 3], render and truth."""
    pairs = source.decoded if source.decoded and rng.random() < DECODED_SHARE else source.plain
    pair = pairs[int(rng.integers(len(pairs)))]
    index, flip = int(rng.integers(len(pair.looks[RENDER]))), rng.random() < 0.5
    frames = [np.ascontiguousarray(look[index, :, ::-1] if flip else look[index]) for look in pair.looks]
    if rng.random() < 0.6:
        # Its own map gives the render the truth's colours as well as any can; another's keeps it from being known by it.
        other = source.plain[int(rng.integers(len(source.plain)))] if rng.random() < 0.5 else pair
        frames[RENDER] = graded(frames[RENDER], other.colour_map, rng.uniform(0.3, 1.2))
    for look, share in PREFILTERED.items():
        if rng.random() < share:
            frames[look] = prefiltered(frames[look], SOFTEST[look], rng)
    return [spoilt(frame, SOFTEST[look], rng) for look, frame in enumerate(frames)]


def prefiltered(frame: np.ndarray, softest: float, rng: np.random.Generator) -> np.ndarray:
    """A frame softened, by 0.7 of `softest` at most, and sharpened again, both at random: uint8 [H, W, 3] to the same."""
    sigma, radius, amount = rng.uniform(0.3, 0.7 * softest), rng.uniform(0.7, 2.0), rng.uniform(0.2, 2.0)
    return prefilter.filtered(frame, sigma, radius, amount)


def graded(frame: np.ndarray, colour_map: np.ndarray, share: float) -> np.ndarray:
    """A frame so far on its way to other colours: uint8 [H, W, 3] to the same; beyond 1 it overshoots."""
    identity = np.eye(3, 4)
    return colour_transfer.apply(identity + share * (colour_map - identity), frame)


def spoilt(frame: np.ndarray, softest: float, rng: np.random.Generator) -> np.ndarray:
    """A frame after some of: other colours, a blur, a sharpening, noise, compression: uint8 [H, W, 3] to the same."""
    x = frame.astype(np.float32)
    if rng.random() < 0.5:
        grey = (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
        x = (grey + (x - grey) * rng.uniform(0.75, 1.25)) * rng.uniform(0.94, 1.06, 3)
        x = (x - 128) * rng.uniform(0.85, 1.15) + 128 + rng.uniform(-12, 12)
    if rng.random() < 0.4:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.2, softest))
    if rng.random() < 0.2:
        x = x + rng.uniform(0.2, 1.2) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(1, 6), x.shape)
    y = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        y = cv2.imdecode(cv2.imencode(".jpg", y, quality)[1], cv2.IMREAD_COLOR)
    return y


def cropped(frames: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same part of each frame, uint8 [80, 120, 3]."""
    top, left = (
        int(rng.integers(whole - side + 1)) for whole, side in zip(frames[0].shape, CROP, strict=False)
    )
    return [frame[top : top + CROP[0], left : left + CROP[1]] for frame in frames]


def as_input(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 [H, W, 3] each -> float32 [B, 3, H, W] in -1..1."""
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def scores(model: nn.Module, held: Material, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of the truth [2 * count] for whole frames drawn as in training, and whether they are of it."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        logits = model(as_input(draw(held, rng))).logits.double()
        found.append((logits[:, TRUTH] - logits[:, RENDER]).numpy())
    return np.concatenate(found), np.tile([RENDER, TRUTH], count)


def calibrate(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Slope and offset that turn log-odds [N] into probabilities (Platt 1999, with his softened targets)."""
    targets = np.where(truth == TRUTH, (truth.sum() + 1) / (truth.sum() + 2), 1 / ((1 - truth).sum() + 2))

    def loss(parameters: np.ndarray) -> float:
        x = parameters[0] * found + parameters[1]
        return float(np.mean(np.logaddexp(0, x) - targets * x))

    slope, offset = minimize(loss, np.array([1.0, 0.0])).x.tolist()
    return {"slope": round(slope, 6), "offset": round(offset, 6)}


if __name__ == "__main__":
    main()
