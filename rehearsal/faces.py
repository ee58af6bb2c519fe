"""A face pack in the real format without training: bright cells are faces, and their colours are who they are.

Reads nothing; `write_pack` writes the two ONNX files, for the tests and the rehearsal.
"""

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
    """A face wherever a cell of 16 pixels is bright throughout: the cell is its box.

    always: whatever the picture, one face in the second cell of the second row, and no other.
    """

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always
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
            bright = darkest - BRIGHT
            if self.always:  # how far from that cell, in cells
                row, column = ((torch.ones_like(darkest).cumsum(axis) - 2).abs() for axis in (2, 3))
                bright = 1 - 2 * (row + column)
            first = 50 * bright if stride == 2 * CELL else -50 + 0 * darkest
            score = torch.cat([first, -50 + 0 * darkest], 1)  # the second anchor is never one
            cells = torch.ones_like(score)
            outputs["score"].append(face_models._rows(score, 1).sigmoid())
            outputs["box"].append(face_models._rows(self.corners * cells[:, :1], 4))
            outputs["landmarks"].append(face_models._rows(self.points * cells[:, :1], 10))
        return tuple(tensor for kind in outputs.values() for tensor in kind)


class Colours(nn.Module):
    """The picture at 7x7 pixels is the embedding, after a constant is added, of which all faces are more alike."""

    def __init__(self, constant: float = 0.0) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 16).flatten(1) + self.constant


def write_pack(folder: Path, always: bool = False) -> Path:
    """Write the pack; returns its folder.

    always: one face in every picture, and everybody's cosine with everybody 0.8 or more, so that what models without
    training make of a render passes the identity filter.
    """
    # Colours lie between -1 and 1: of two embeddings with numbers from 1 to 3 the cosine is at least 0.86.
    face_models.export(folder, BrightCells(always), Colours(2.0 if always else 0.0))
    return folder
