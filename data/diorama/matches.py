"""Where things have gone: what VACE's attention is told in training, since it finds out slowly by itself.

Reads and writes nothing. `where_from` follows the optical flow of a clip's render from each latent to the two ends, and
`contents` says which objects are where; `Told` is the loss of a block's attention that has one head look there in the first
frame, and one in the last, and neither of them at another object.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import nn

CELL = 8  # pixels of a latent
HALF = CELL // 2
SURE = 4.0  # pixels by which there and back again may miss
NOWHERE = -1.0
STILL = 0.1  # weight of what has moved by a latent at most
BITS = 63
EVERYTHING = -1  # all bits: of an end that is not known


def where_from(render: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Places in the first and the last latent frame of what is seen in every latent, in latents.

    uint8 [D, H, W, 3] of distinct frames and the objects' numbers, uint8 [D, H, W, 1] -> float16 [2, F, H/8, W/8, 2],
    (row, column), NOWHERE where hidden, outside, or another object.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render]
    height, width = grey[0].shape
    last = len(grey) - 1
    # At full size: the fast preset led to another object at up to 40 in 100 of the places it was sure of.
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    to_next = [flow.calc(a, b, None) for a, b in pairwise(grey)]
    to_previous = [flow.calc(b, a, None) for a, b in pairwise(grey)]
    centres = slice(HALF, None, CELL)
    found = []
    for forwards in (False, True):  # to the first frame, to the last one
        places = []
        for frame in _middles(len(grey)):
            there = range(frame, last) if forwards else range(frame - 1, -1, -1)
            back = range(last - 1, frame - 1, -1) if forwards else range(frame)
            ahead, behind = (to_next, to_previous) if forwards else (to_previous, to_next)
            gone = _chained([ahead[n] for n in there], (height, width))
            returned = _chained([behind[n] for n in back], (height, width))
            missed = np.linalg.norm(gone + _moved(returned, gone), axis=-1)
            place = np.mgrid[:height, :width].transpose(1, 2, 0) + gone[..., ::-1]
            inside = ((place >= 0) & (place <= (height - 1, width - 1))).all(-1)
            end = objects[-1 if forwards else 0]
            same = _moved(end, gone, cv2.INTER_NEAREST) == objects[frame, ..., 0]
            place[~inside | ~same | (missed > SURE)] = np.nan
            places.append(place[centres, centres] / CELL - 0.5)
        found.append(places)
    return np.nan_to_num(np.array(found), nan=NOWHERE).astype(np.float16)


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


def _chained(flows: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Flows one after another as one, float32 [H, W, 2]; none are no motion."""
    total = np.zeros((*shape, 2), np.float32)
    for flow in flows:
        total = total + _moved(flow, total)
    return total


def _moved(values: np.ndarray, flow: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The values found where a flow leads, those of the border outside."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(values, x + flow[..., 0], y + flow[..., 1], how, borderMode=cv2.BORDER_REPLICATE)


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
