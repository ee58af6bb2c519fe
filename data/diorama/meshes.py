"""Low-poly solids by Blender's data API: boxes, ellipsoids, lathed bodies, prisms, with colours.

Reads nothing. Writes one mesh object per `Solid.build`, lengths in metres, colours linear RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import bpy
import numpy as np

KINDS = (
    "plain",
    "brick",
    "plank",
    "tile",
    "slab",
    "stripe",
    "facade",
    "gloss",
    "glass",
    "skin",
    "hair",
    "cloth",
    "leaf",
    "asphalt",
    "lamp",
    "eye",
)
Vec = Sequence[float]


def linear(colour: Vec) -> tuple[float, float, float]:
    """sRGB to linear RGB."""
    return tuple(c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)


def shade(colour: Vec, factor: float) -> tuple[float, float, float]:
    """A lighter or darker sRGB colour."""
    return tuple(min(0.95, max(0.02, c * factor)) for c in colour)


class Solid:
    """A mesh under construction: every face has a material kind and two base colours (sRGB)."""

    def __init__(self) -> None:
        self.verts: list[Vec] = []
        self.faces: list[tuple[int, ...]] = []
        self.uvs: list[tuple[float, float]] = []
        self.base: list[Vec] = []
        self.second: list[Vec] = []
        self.kind: list[int] = []
        self.smooth: list[bool] = []

    def add(
        self,
        verts: Sequence[Vec],
        faces: Sequence[tuple[int, ...]],
        kind: str,
        base: Vec,
        second: Vec | None = None,
        smooth: bool = False,
        uvs: Sequence[Sequence[tuple[float, float]]] | None = None,
    ) -> Solid:
        """Append faces over new vertices; uv in metres where the kind is a pattern."""
        start = len(self.verts)
        self.verts += [tuple(v) for v in verts]
        lin, lin2 = linear(base), linear(second if second is not None else base)
        for k, face in enumerate(faces):
            self.faces.append(tuple(start + i for i in face))
            self.uvs += uvs[k] if uvs is not None else [(0.0, 0.0)] * len(face)
            self.base.append(lin)
            self.second.append(lin2)
            self.kind.append(KINDS.index(kind))
            self.smooth.append(smooth)
        return self

    def box(
        self, low: Vec, high: Vec, kind: str, base: Vec, second: Vec | None = None, turn: float = 0.0
    ) -> Solid:
        """An axis-aligned box from corner to corner, turned about its vertical axis (radians)."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        verts = [(x, y, z) for z in (z0, z1) for y in (y0, y1) for x in (x0, x1)]
        faces = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
        axes = [(0, 1), (0, 1), (0, 2), (0, 2), (1, 2), (1, 2)]
        uvs = [[(verts[i][a], verts[i][b]) for i in f] for f, (a, b) in zip(faces, axes, strict=True)]
        if turn:
            cx, cy, c, s = (x0 + x1) / 2, (y0 + y1) / 2, math.cos(turn), math.sin(turn)
            verts = [
                (cx + (x - cx) * c - (y - cy) * s, cy + (x - cx) * s + (y - cy) * c, z) for x, y, z in verts
            ]
        return self.add(verts, faces, kind, base, second, uvs=uvs)

    def ball(
        self,
        at: Vec,
        radii: Vec,
        kind: str,
        base: Vec,
        second: Vec | None = None,
        rings: int = 8,
        sides: int = 12,
        shape: Callable[[np.ndarray], np.ndarray] | None = None,
        keep: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Solid:
        """An ellipsoid; `shape` bends its vertices [n, 3] about the centre, `keep` drops faces."""
        theta = np.linspace(0.0, math.pi, rings + 1)
        phi = np.linspace(0.0, 2 * math.pi, sides, endpoint=False)
        unit = np.stack(
            [
                np.outer(np.sin(theta), np.cos(phi)),
                np.outer(np.sin(theta), np.sin(phi)),
                np.outer(np.cos(theta), np.ones(sides)),
            ],
            -1,
        ).reshape(-1, 3)
        verts = unit * np.asarray(radii)
        if shape is not None:
            verts = shape(verts)
        faces = []
        for i in range(rings):
            for j in range(sides):
                a, b = i * sides + j, i * sides + (j + 1) % sides
                quad = (a, a + sides, b + sides, b)
                if i == 0:
                    quad = (a, a + sides, b + sides)
                elif i == rings - 1:
                    quad = (a, a + sides, b)
                if keep is None or keep(verts[list(quad)].mean(0)):
                    faces.append(quad)
        return self.add(verts + np.asarray(at), faces, kind, base, second, smooth=True)

    def lathe(
        self,
        rings: Sequence[tuple[float, float, float]],
        kind: str,
        base: Vec,
        second: Vec | None = None,
        at: Vec = (0, 0, 0),
        sides: int = 12,
        smooth: bool = True,
    ) -> Solid:
        """A stack of ellipses (z, radius in x, radius in y) with closed ends."""
        phi = [2 * math.pi * j / sides for j in range(sides)]
        verts = [
            (at[0] + rx * math.cos(p), at[1] + ry * math.sin(p), at[2] + z)
            for z, rx, ry in rings
            for p in phi
        ]
        flip = rings[-1][0] < rings[0][0]
        faces, uvs = [], []
        for i in range(len(rings) - 1):
            for j in range(sides):
                a, b = i * sides + j, i * sides + (j + 1) % sides
                quad = (a, b, b + sides, a + sides)
                faces.append(quad[::-1] if flip else quad)
                u0, u1 = phi[j] * rings[i][1], (phi[j] + 2 * math.pi / sides) * rings[i][1]
                uv = [(u0, rings[i][0]), (u1, rings[i][0]), (u1, rings[i + 1][0]), (u0, rings[i + 1][0])]
                uvs.append(uv[::-1] if flip else uv)
        self.add(verts, faces, kind, base, second, smooth, uvs)
        for k, down in ((0, True), (len(rings) - 1, False)):
            cap = tuple(range(sides))
            cap = cap[::-1] if down != flip else cap
            self.add(verts[k * sides : (k + 1) * sides], [cap], kind, base, second)
        return self

    def tube(
        self, points: Sequence[Vec], radius: float, kind: str, base: Vec, sides: int = 6, closed: bool = False
    ) -> Solid:
        """A round wire through points."""
        path = np.asarray(points, float)
        count = len(path)
        ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
        if not closed:
            ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
        verts = []
        for p, t in zip(path, ahead, strict=True):
            t = t / np.linalg.norm(t)
            side = np.cross(t, (0.0, 0.0, 1.0) if abs(t[2]) < 0.9 else (1.0, 0.0, 0.0))
            side /= np.linalg.norm(side)
            up = np.cross(side, t)
            for j in range(sides):
                a = 2 * math.pi * j / sides
                verts.append(p + radius * (math.cos(a) * side + math.sin(a) * up))
        faces = []
        for i in range(count if closed else count - 1):
            for j in range(sides):
                k = (i + 1) % count
                faces.append(
                    (i * sides + j, i * sides + (j + 1) % sides, k * sides + (j + 1) % sides, k * sides + j)
                )
        if not closed:
            faces += [tuple(range(sides))[::-1], tuple((count - 1) * sides + j for j in range(sides))]
        return self.add(verts, faces, kind, base, smooth=True)

    def prism(
        self,
        profile: Sequence[tuple[float, float]],
        x0: float,
        x1: float,
        kind: str,
        base: Vec,
        inset: float = 0.0,
    ) -> Solid:
        """A side view (y, z) drawn anticlockwise from +x, extruded from x0 to x1 metres."""
        n = len(profile)
        top = max(z for _, z in profile)
        low = min(z for _, z in profile)
        lean = [inset * (z - low) / (top - low) for _, z in profile]
        verts = [(x0 + d, y, z) for (y, z), d in zip(profile, lean, strict=True)]
        verts += [(x1 - d, y, z) for (y, z), d in zip(profile, lean, strict=True)]
        faces = [(i, (i + 1) % n, n + (i + 1) % n, n + i) for i in range(n)]
        faces = [f[::-1] for f in faces] + [tuple(range(n))[::-1], tuple(range(n, 2 * n))]
        return self.add(verts, faces, kind, base)

    def build(
        self,
        name: str,
        index: int,
        materials: dict[str, bpy.types.Material],
        parent: bpy.types.Object | None = None,
        at: Vec = (0, 0, 0),
        turn: float = 0.0,
    ) -> bpy.types.Object:
        """Turn the lists into an object with pass index `index`."""
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(self.verts, [], self.faces)
        used = sorted(set(self.kind))
        for k in used:
            mesh.materials.append(materials[KINDS[k]])
        slot = {k: i for i, k in enumerate(used)}
        mesh.polygons.foreach_set("material_index", [slot[k] for k in self.kind])
        mesh.polygons.foreach_set("use_smooth", self.smooth)
        for attribute, rows in (("base", self.base), ("second", self.second)):
            values = np.ones((len(rows), 4), np.float32)
            values[:, :3] = rows
            layer = mesh.attributes.new(attribute, "FLOAT_COLOR", "FACE")
            layer.data.foreach_set("color", values.ravel())
        layer = mesh.uv_layers.new(name="UVMap")
        layer.uv.foreach_set("vector", np.asarray(self.uvs, np.float32).ravel())
        obj = bpy.data.objects.new(name, mesh)
        obj.pass_index = index
        obj.location = at
        obj.rotation_euler[2] = turn
        obj.parent = parent
        bpy.context.scene.collection.objects.link(obj)
        return obj
