"""The tiny face models: an SCRFD-shaped detector and an ArcFace-shaped recogniser, and their export to ONNX.

Reads nothing; `export` writes a pack, a folder of two ONNX files, which `insightface.app.FaceAnalysis` loads like any
other. Channels, strides, inputs and outputs are what insightface's `SCRFD` and `ArcFaceONNX` expect.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell; SCRFD's number for nine outputs
CROP = 112  # pixels of an aligned face
WIDTH = 512  # numbers of an embedding
OPSET = 17
DETECTOR, RECOGNISER = "detector.onnx", "recogniser.onnx"


class Detector(nn.Module):
    """Three levels of scores, boxes and five landmarks from a picture [B, 3, H, W], H and W multiples of 32.

    Forward returns nine tensors: scores (logits in training, else probabilities) [B, N, 1], distances to the box's sides
    [B, N, 4], offsets of landmarks [B, N, 10], each for the three strides and in units of it; N runs over rows,
    columns and the two anchors of a cell. Scores of all strides come first, then boxes, then landmarks.
    """

    def __init__(self, widths: Sequence[int] = (12, 24, 48, 72, 72), neck: int = 40) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, widths[0], stride=2), convolution(widths[0], widths[1], stride=2)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), Residual(after))
            for before, after in pairwise(widths[1:])
        )
        self.lateral_blocks = nn.ModuleList(nn.Conv2d(width, neck, 1) for width in widths[2:5])
        self.smooth_blocks = nn.ModuleList(convolution(neck, neck) for _ in STRIDES)
        self.head_block = Residual(neck)
        self.score = nn.Conv2d(neck, ANCHORS, 3, padding=1)
        self.box = nn.Conv2d(neck, 4 * ANCHORS, 3, padding=1)
        self.landmarks = nn.Conv2d(neck, 10 * ANCHORS, 3, padding=1)
        # Nearly every cell is empty: a start at 1 % keeps the first steps from drowning in them.
        nn.init.constant_(self.score.bias, -4.6)
        self.scale = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(x)
        levels = []
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        merged = [lateral(level) for lateral, level in zip(self.lateral_blocks, levels, strict=True)]
        for i in (1, 0):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], scale_factor=2.0, mode="nearest")
        scores, boxes, landmarks = [], [], []
        for i, smooth in enumerate(self.smooth_blocks):
            h = self.head_block(smooth(merged[i]))
            scores.append(_rows(self.score(h), 1))
            # The exponent keeps distances positive and lets one head serve faces of several sizes.
            boxes.append(_rows((self.box(h) * self.scale[i]).clamp(max=4.0).exp(), 4))
            landmarks.append(_rows(self.landmarks(h), 10))
        if not self.training:
            scores = [score.sigmoid() for score in scores]
        return (*scores, *boxes, *landmarks)


class Recogniser(nn.Module):
    """An embedding [B, 512] of aligned faces [B, 3, 112, 112] in -1..1; its direction is what counts."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128), width: int = WIDTH) -> None:
        super().__init__()
        self.stem = convolution(3, widths[0], stride=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), Residual(after))
            for before, after in pairwise(widths)
        )
        # A weight for each place instead of a mean over places: an aligned face has its eyes where eyes are.
        self.pool = nn.Conv2d(widths[-1], widths[-1], CROP // 16, groups=widths[-1], bias=False)
        self.norm = nn.BatchNorm1d(widths[-1])
        self.out = nn.Linear(widths[-1], width, bias=False)
        self.out_norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.out_norm(self.out(self.norm(self.pool(x).flatten(1))))


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al. 2019): each identity has a direction, its faces keep within a margin."""

    def __init__(self, identities: int, width: int = WIDTH, scale: float = 24.0, margin: float = 0.4) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(identities, width))
        self.scale, self.margin = scale, margin

    def forward(self, embedding: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Loss of embeddings [B, 512] of faces of identities [B]."""
        cosine = F.normalize(embedding) @ F.normalize(self.directions).T  # [B, identities]
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        own = F.one_hot(identity, cosine.shape[1]).bool()
        return F.cross_entropy(self.scale * torch.where(own, (angle + self.margin).cos(), cosine), identity)


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input passes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.act = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.second(self.first(x)))


def convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, PReLU."""
    kernel = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(after), nn.PReLU(after))


def export(folder: Path, detector: Detector, recogniser: Recogniser) -> None:
    """Write the pack: both models in evaluation mode, the detector for pictures of any size."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{what}_{stride}" for what in ("score", "bbox", "kps") for stride in STRIDES]
    picture, face = torch.zeros(1, 3, 96, 160), torch.zeros(1, 3, CROP, CROP)
    _write(folder / DETECTOR, _Unbatched(detector), picture, names, {2: "height", 3: "width"})
    _write(folder / RECOGNISER, recogniser, face, ["embedding"], {0: "faces"})


class _Unbatched(nn.Module):
    """The detector for one picture: insightface takes outputs [N, 1], [N, 4], [N, 10] by their order."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(output[0] for output in self.detector(x))


def _rows(x: torch.Tensor, numbers: int) -> torch.Tensor:
    """[B, anchors * numbers, h, w] -> [B, h * w * anchors, numbers]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)


def _write(
    path: Path, model: nn.Module, example: torch.Tensor, outputs: list[str], dynamic: dict[int, str]
) -> None:
    axes = {"input": dynamic}
    if len(outputs) == 1:
        axes[outputs[0]] = dynamic
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript, which the kit does without.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=outputs,
            dynamic_axes=axes,
        )
