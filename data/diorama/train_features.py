"""Train the feature model of the miniature's DINO metrics: a small ViT that teaches itself (Caron et al. 2021).

Reads rendered sequences of the pretrain split; writes `<out>/features/` (state, log) and the model folder
`<out>/checkpoints/features`. A student sees crops of a frame in one look and is to agree with its own moving average,
which sees the same frame in the other look: what both have in common is what is shown, not how it is lit. There is no
blur among the augmentations, and all crops of a frame are mirrored together: damage must stay visible.

    python data/diorama/train_features.py --rendered DIR --out DIR
"""

import copy
import math

import architectures
import cv2
import dataset
import loop
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

PROTOTYPES = 512
GLOBAL, LOCAL = (64, 96), (32, 48)  # pixels of the crops; cut out up to 1.5 and 1.75 times as large
LOCALS = 4  # small crops a frame, for the student only
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
CENTRE_MOMENTUM = 0.9
TEACHER_MOMENTUM = 0.99  # at the start; it rises to 1 by a cosine
LEARNING_RATE = 5e-4


def main() -> None:
    parser = loop.parser(__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=16, help="frames a step")
    parser.add_argument("--clips", type=int, help="use so many clips only, for a quick trial")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--save-only", action="store_true", help="write the folder from the last state")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    # The loop trains by Muon what lies in blocks, if its channels come last.
    vit = architectures.features().to(memory_format=torch.channels_last)
    student = nn.ModuleDict({"blocks": vit, "head": Head()})
    teacher = Teacher(student, arguments.steps)
    if arguments.save_only:
        teacher.load_state_dict(load_file(arguments.out / "features" / "state" / "teacher.safetensors"))
    else:
        shots = dataset.load(arguments.rendered, "pretrain", arguments.clips)
        looks = [(shot.render, shot.truth) for shot in shots]
        print(f"{len(looks)} clips", flush=True)
        del shots  # their depth and edges take as much memory again
        modules = {"student": student.to(arguments.device), "teacher": teacher.to(arguments.device)}
        loss = objective(student, teacher, looks, arguments.batch)
        phase = loop.Phase("features", arguments.steps, arguments.learning_rate, loss)
        loop.train(arguments.out / "features", modules, [phase])
    architectures.save_single(arguments.out / "checkpoints" / "features", teacher.model["blocks"])


class Head(nn.Module):
    """CLS features [B, 128] to how much they resemble each prototype, cosines [B, 512]."""

    def __init__(self, width: int = architectures.FEATURE_WIDTH, hidden: int = 256, bottleneck: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, bottleneck))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.layers(x), dim=-1) @ functional.normalize(self.prototypes, dim=-1).T


class Teacher(nn.Module):
    """The student's moving average, and the centre that keeps it from giving one answer to everything."""

    def __init__(self, student: nn.ModuleDict, steps: int):
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.steps = steps
        # Buffers, so that a resumed training goes on from them.
        self.register_buffer("centre", torch.zeros(PROTOTYPES))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, student: nn.ModuleDict) -> None:
        """Move towards the student, ever more slowly."""
        share = min(self.step.item() / self.steps, 1.0)
        keep = 1 - (1 - TEACHER_MOMENTUM) * (1 + math.cos(math.pi * share)) / 2
        for own, other in zip(self.model.parameters(), student.parameters(), strict=True):
            own.lerp_(other, 1 - keep)
        self.step += 1

    @torch.no_grad()
    def targets(self, crops: torch.Tensor) -> torch.Tensor:
        """Sharpened, centred probabilities of the prototypes, [B, 512]; moves the centre."""
        logits = answers(self.model, crops)
        found = ((logits - self.centre) / TEACHER_TEMPERATURE).softmax(-1)
        self.centre.lerp_(logits.mean(0), 1 - CENTRE_MOMENTUM)
        return found


def answers(model: nn.ModuleDict, crops: torch.Tensor) -> torch.Tensor:
    """Cosines with the prototypes, float32 [B, 512], of crops [B, 3, h, w] in -1..1."""
    with loop.autocast(crops.device):
        hidden = model["blocks"](crops, interpolate_pos_encoding=True).last_hidden_state
        return model["head"](hidden[:, 0]).float()


def objective(
    student: nn.ModuleDict, teacher: Teacher, looks: list[tuple[np.ndarray, np.ndarray]], batch: int
):
    """Cross-entropy of the student's answers to every crop with the teacher's to each other large one.

    looks: (render, truth) of each clip, uint8 [F, H, W, 3].
    """

    def loss(rng: np.random.Generator, generator: torch.Generator):
        teacher.follow(student)
        large, small = sample(looks, batch, rng)
        device = teacher.centre.device
        large, small = (coloured(part, rng).to(device) for part in (large, small))
        targets = teacher.targets(large).view(2, batch, -1)
        seen_large = (answers(student, large) / STUDENT_TEMPERATURE).log_softmax(-1).view(2, batch, -1)
        seen_small = (answers(student, small) / STUDENT_TEMPERATURE).log_softmax(-1).view(LOCALS, batch, -1)
        pairs = [
            (target, seen) for i, target in enumerate(targets) for seen in (seen_large[1 - i], *seen_small)
        ]
        total = sum(-(target * seen).sum(-1).mean() for target, seen in pairs) / len(pairs)
        mean = targets.mean((0, 1))
        # Collapse shows here: all prototypes are in use (6.2 is even use), and a frame has few (0 is one).
        figures = {"used": entropy(mean).item(), "sharp": entropy(targets).mean().item()}
        return total, figures

    return loss


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """In nats, over the last axis."""
    return -(probabilities * probabilities.clamp_min(1e-9).log()).sum(-1)


def sample(
    looks: list[tuple[np.ndarray, np.ndarray]], batch: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops uint8 of `batch` frames: large ones [2 * B, 3, h, w], first all of one look, and small ones."""
    large, small = [[], []], [[] for _ in range(LOCALS)]
    for _ in range(batch):
        clip = looks[int(rng.integers(len(looks)))]
        index, flip, first = int(rng.integers(len(clip[0]))), rng.random() < 0.5, int(rng.integers(2))
        pair = [look[index, :, ::-1] if flip else look[index] for look in clip]
        for i in range(2):
            large[i].append(crop(pair[(first + i) % 2], GLOBAL, 1.5, rng))
        for i in range(LOCALS):
            small[i].append(crop(pair[int(rng.integers(2))], LOCAL, 1.75, rng))
    return tuple(
        torch.from_numpy(np.stack([c for row in crops for c in row])).permute(0, 3, 1, 2)
        for crops in (large, small)
    )


def crop(frame: np.ndarray, size: tuple[int, int], most: float, rng: np.random.Generator) -> np.ndarray:
    """A part of a frame, up to `most` times as large as the crop it is shrunk to: uint8 [h, w, 3]."""
    scale = rng.uniform(1.0, most)
    height, width = (min(round(side * scale), whole) for side, whole in zip(size, frame.shape, strict=False))
    top = int(rng.integers(frame.shape[0] - height + 1))
    left = int(rng.integers(frame.shape[1] - width + 1))
    part = np.ascontiguousarray(frame[top : top + height, left : left + width])
    return cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)


def coloured(crops: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each crop in its own exposure, contrast, saturation and tint: uint8 [B, 3, h, w] to float in -1..1."""
    count = len(crops)

    def draw(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, channels, 1, 1)).astype(np.float32))

    x = crops.float() / 127.5 - 1
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = grey + (x - grey) * draw(0.3, 1.5)
    x = (x + 1) * draw(0.85, 1.15, 3) - 1
    return (x * draw(0.6, 1.4) + draw(-0.3, 0.3)).clamp(-1, 1)


if __name__ == "__main__":
    main()
