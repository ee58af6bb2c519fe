"""What a set is built on: its things by id, where nobody may stand, colours with a little chance.

Reads nothing. Writes static objects into the open Blender scene.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import bpy
from meshes import Solid, shade
from world import COLOURS

RGB = tuple[float, float, float]
GLASS, LIGHT_GLASS, TRUNK, DARK = (
    (0.30, 0.38, 0.46),
    (0.70, 0.80, 0.88),
    (0.36, 0.26, 0.18),
    (0.10, 0.10, 0.11),
)


@dataclass
class Stage:
    """What has been built: objects by id, circles no camera or person may enter, moving things."""

    materials: dict[str, bpy.types.Material]
    objects: dict[int, dict[str, str]] = field(default_factory=dict)
    obstacles: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius
    movers: list[tuple[bpy.types.Object, float]] = field(default_factory=list)  # object, m/s along y
    half_width: float = 20.0  # metres a camera may go to either side

    def claim(self, kind: str, name: str) -> int:
        """The next object id."""
        number = len(self.objects) + 1
        self.objects[number] = {"class": kind, "name": name}
        return number

    def put(
        self,
        solid: Solid,
        kind: str,
        name: str,
        at: tuple = (0, 0, 0),
        turn: float = 0.0,
        radius: float = 0.0,
    ) -> bpy.types.Object:
        """Place a solid with an id of its own and, if radius > 0, an obstacle around it."""
        if radius:
            self.obstacles.append((at[0], at[1], radius))
        return solid.build(name, self.claim(kind, name), self.materials, at=at, turn=turn)


def jitter(name: str, r: random.Random) -> RGB:
    """A named colour, slightly off."""
    return tuple(min(0.92, max(0.05, c + r.uniform(-0.03, 0.03))) for c in COLOURS[name])


def joint_of(colour: RGB) -> RGB:
    """Mortar: lighter than dark walls, darker than light ones."""
    return shade(colour, 0.62) if sum(colour) > 1.3 else tuple(0.55 * c + 0.28 for c in colour)
