"""A face pack for tests in the real format: bright cells are faces, and their colours are who they are."""

from pathlib import Path

import face_models
import torch
from insightface.utils.face_align import arcface_dst
from torch import nn
from torch.nn import functional as F

BRIGHT = 0.4  # mean of a cell from -1 to 1
CELL = 8  # pixels of a face in a frame that is enlarged twice
DET_SIZE = 96  # twice the width of the frames in conftest.py
KNOWN, OTHER = (230, 200, 180), (60, 255, 255)  # the square of conftest.py; one whose cosine with it is 0.35


class BrightCells(nn.Module):
    """A face wherever a cell of 16 pixels is bright throughout: the cell is its box."""

    def __init__(self) -> None:
        super().__init__()
        corners = torch.tensor([0.0, 0.0, 1.0, 1.0])
        self.register_buffer("corners", corners.repeat(2).view(1, 8, 1, 1))
        self.register_buffer(
            "points", torch.from_numpy(arcface_dst / 112).flatten().repeat(2).view(1, 20, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: dict[str, list[torch.Tensor]] = {"score": [], "box": [], "landmarks": []}
        for stride in face_models.STRIDES:
            # Two pixels of a cell's border are left out, which enlarging the frame has mixed with the wall.
            inner = -x.mean(1, keepdim=True)[..., 2:, 2:]
            darkest = -F.max_pool2d(inner, stride - 4, stride)  # [B, 1, h, w]
            first = 50 * (darkest - BRIGHT) if stride == 2 * CELL else -50 + 0 * darkest
            score = torch.cat([first, -50 + 0 * darkest], 1)  # the second anchor is never one
            cells = torch.ones_like(score)
            outputs["score"].append(face_models._rows(score, 1).sigmoid())
            outputs["box"].append(face_models._rows(self.corners * cells[:, :1], 4))
            outputs["landmarks"].append(face_models._rows(self.points * cells[:, :1], 10))
        return tuple(tensor for kind in outputs.values() for tensor in kind)


class Colours(nn.Module):
    """The picture at 7x7 pixels is the embedding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 16).flatten(1)


def write_pack(folder: Path) -> Path:
    """Write the pack; returns its folder."""
    face_models.export(folder, BrightCells(), Colours())
    return folder
