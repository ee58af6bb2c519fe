"""Where things have gone: what VACE's attention is told in training, since it finds out slowly by itself.

Reads and writes nothing. `where_from` looks up in the two ends the point of a surface that is seen in each latent, and
`contents` says which objects are where; `Told` is the loss of a block's attention that has one head look there in the first
frame, and one in the last, and neither of them at another object.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import nn

CELL = 8  # pixels of a latent
HALF = CELL // 2
GAP = 2.0  # metres: what lies farther apart in neighbouring pixels is not one surface
NOWHERE = -1.0
STILL = 0.1  # weight of what has moved by a latent at most
BITS = 63
EVERYTHING = -1  # all bits: of an end that is not known


def where_from(surface: np.ndarray) -> np.ndarray:
    """Places in the first and the last latent frame of what is seen in every latent, in latents.

    Points on surfaces as of render.py, float32 [D, H, W, 3] of distinct frames, 0 where there are none -> float16
    [2, F, H/8, W/8, 2], (row, column), NOWHERE of what an end does not show.
    """
    middles = _middles(len(surface))
    cells = (..., slice(HALF, None, CELL), slice(HALF, None, CELL), slice(None))
    asked = surface[middles][cells]  # [F, h, w, 3]
    precision = np.stack([_spacing(surface[n]) for n in middles])[..., None][cells][..., 0]
    found = np.full((2, *asked.shape[:3], 2), NOWHERE, np.float16)
    for places, end in zip(found, (surface[0], surface[-1]), strict=True):
        at = np.argwhere(end.any(-1))
        if len(at):
            missed, number = cKDTree(end[tuple(at.T)]).query(asked)  # [F, h, w]
            nearest = at[number]
            near = missed <= np.maximum(precision, _spacing(end)[tuple(np.moveaxis(nearest, -1, 0))])
            there = near & asked.any(-1)
            places[there] = nearest[there] / CELL - 0.5
    return found


def contents(objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which object each latent is of, and which there are in each latent of the first and the last frame, as bits.

    Objects' numbers, uint8 [D, H, W, 1] -> uint8 [F, H/8, W/8], below BITS, and int64 [2, H/8, W/8].
    """
    bits = objects[..., 0] % BITS  # two of a crowd may share one, and are then one thing
    middle = bits[_middles(len(bits))]
    ends = np.left_shift(np.int64(1), bits[[0, -1]].astype(np.int64))
    height, width = (size // CELL for size in ends.shape[1:])
    cells = ends.reshape(2, height, CELL, width, CELL)
    return middle[:, HALF::CELL, HALF::CELL], np.bitwise_or.reduce(cells, axis=(2, 4))


def _middles(count: int) -> list[int]:
    """The distinct frame that each latent shows most of, out of so many: latent t shows 2t - 2 to 2t."""
    return [0, *range(1, count - 1, 2)]


def _spacing(points: np.ndarray) -> np.ndarray:
    """By how much each point of a frame lies apart from the farthest neighbour on its surface: [H, W, 3] -> [H, W]."""
    spacing = np.zeros(points.shape[:2], np.float32)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = np.linalg.norm(points[one] - points[other], axis=-1)
        apart[apart > GAP] = 0
        spacing[one] = np.maximum(spacing[one], apart)
        spacing[other] = np.maximum(spacing[other], apart)
    return spacing


class Told:
    """Loss of a WanAttention whose heads 0 and 1 are to look at where a latent's content is in the two ends."""

    def __init__(self, attention: nn.Module) -> None:
        self.attention = attention
        attention.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple) -> None:
        self.states, self.rotary = inputs[0], inputs[3]

    def loss(self, places: torch.Tensor, own: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """What the last forward call's attention missed: a cross-entropy where a place is known, and how much went astray.

        `places` as of where_from, float [B, 2, F, h, w, 2], `own` and `ends` as of contents, [B, F, h, w] and [B, 2, h, w].
        Where no place is known, what an end shows of other objects is not to be looked at.
        """
        attention = self.attention
        query, key = (
            self._turned(norm(project(self.states)).unflatten(2, (attention.heads, -1))[:, :, :2])
            for project, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k))
        )  # [B, 2, L, D]
        score = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5  # [B, 2, L, L]
        frames, height, width = places.shape[2:5]
        at = places.float().flatten(2, 4)  # [B, 2, L, 2]
        known = (at > NOWHERE).all(-1)
        # The four latents about a place, by their share of it.
        limits = at.new_tensor([height - 1, width - 1])
        at = at.clamp(min=0).minimum(limits)
        corner = at.floor().minimum(limits - 1)
        y, x = corner.long().unbind(-1)
        down, right = (at - corner).unbind(-1)
        chosen = torch.stack(
            [y * width + x, y * width + x + 1, (y + 1) * width + x, (y + 1) * width + x + 1], -1
        )
        shares = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        chosen[:, 1] += (frames - 1) * height * width
        all_ = score.logsumexp(-1)
        said = score.gather(-1, chosen) - all_[..., None]
        error = -(said * torch.stack(shares, -1)).sum(-1)  # [B, 2, L]
        here = torch.stack(torch.meshgrid(*map(torch.arange, (height, width)), indexing="ij"), -1)
        moved = (at - here.flatten(0, 1).repeat(frames, 1).to(at)).norm(dim=-1) > 1
        # What has not moved is most of a clip, and found anyway.
        counts = known * (STILL + (1 - STILL) * moved)
        missed = (error * counts).sum() / counts.sum().clamp(min=1)
        seen = ends.flatten(2)[:, :, None]  # [B, 2, 1, h w]
        same = ((seen >> own.flatten(1)[:, None, :, None].long()) & 1).bool()  # [B, 2, L, h w]
        at_ends = torch.stack([score[:, 0, :, : height * width], score[:, 1, :, -height * width :]], 1)
        others = at_ends.masked_fill(same, -torch.inf).logsumexp(-1)
        itself = at_ends.masked_fill(~same, -torch.inf).logsumexp(-1)
        # In the logarithm of one minus its share, so that what is all astray is felt.
        astray = (others - all_).clamp(max=-1e-4)
        lost = -torch.log1p(-astray.exp()) * ~known
        missed = missed + lost.sum() / (~known).sum().clamp(min=1)
        # What neither end shows, but more of its object: a wall's colours are found on the rest of the wall.
        guessed = (same & (seen != EVERYTHING)).any(-1) & ~known.any(1, keepdim=True)
        unlike = torch.where(guessed, all_ - itself, 0)
        return missed + unlike.sum() / guessed.sum().clamp(min=1)

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary positions as WanAttnProcessor applies them: [B, L, heads, D] -> [B, heads, L, D]."""
        cos, sin = self.rotary[0][..., 0::2], self.rotary[1][..., 1::2]
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).type_as(x).transpose(1, 2)
