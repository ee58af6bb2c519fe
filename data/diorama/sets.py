"""The three sets: a street, a room, a road; walls, props, cars and trees from a plan.

Reads nothing. Writes static objects into the open Blender scene; metres, wall at y = 0, people at
y < 0, the road runs along +y.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import bpy
from meshes import Solid, shade
from world import COLOURS, Plan

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


def build_set(plan: Plan, materials: dict[str, bpy.types.Material]) -> Stage:
    """Build the plan's world; deterministic in the plan's seed."""
    stage, r = Stage(materials), random.Random(f"set {plan.seed}")
    {"street": street, "interior": interior, "road": road}[plan.world](stage, plan, r)
    if any("many_small" in shot.subsets for shot in plan.shots):
        many_small(stage, plan.world, r)
    return stage


def jitter(name: str, r: random.Random) -> RGB:
    """A named colour, slightly off."""
    return tuple(min(0.92, max(0.05, c + r.uniform(-0.03, 0.03))) for c in COLOURS[name])


def joint_of(colour: RGB) -> RGB:
    """Mortar: lighter than dark walls, darker than light ones."""
    return shade(colour, 0.62) if sum(colour) > 1.3 else tuple(0.55 * c + 0.28 for c in colour)


# ---------------------------------------------------------------- street


def street(stage: Stage, plan: Plan, r: random.Random) -> None:
    """A row of houses, a pavement with things on it, a road with cars."""
    d = plan.decor
    slabs = shade((0.60, 0.58, 0.55), r.uniform(0.8, 1.15))
    stage.put(
        Solid().box((-20, -3.2, -0.2), (20, 0, 0), "slab", slabs, shade(slabs, 0.72)), "ground", "pavement"
    )
    ground = Solid().box((-20, -11, -0.4), (20, -3.2, -0.12), "asphalt", (0.30, 0.30, 0.32))
    for k in range(-8, 9):
        ground.box((k * 2.4, -7.0, -0.13), (k * 2.4 + 1.2, -6.85, -0.115), "plain", (0.82, 0.81, 0.76))
    ground.box((-60, -60, -0.5), (60, 60, -0.41), "plain", (0.44, 0.47, 0.38))
    stage.put(ground, "ground", "road")
    far = Solid().box((-20, -14, -0.3), (20, -11, 0), "slab", slabs, shade(slabs, 0.72))
    stage.put(far, "ground", "far pavement")
    left = r.uniform(-4.5, -2.8)
    right = r.uniform(3.0, 4.8)
    second = r.choice(["brick", "plain", "plank"])
    for name, x0, x1, colour, pattern in (
        ("house left", -20.0, left, d["second"], second),
        ("house", left, right, d["wall"], d["wall_pattern"]),
        ("house right", right, 20.0, d["second"], second),
    ):
        paint = jitter(colour, r)
        front = r.uniform(-0.03, 0.03)
        solid = Solid().box((x0, front, 0), (x1, 0.5, r.uniform(5.5, 7.5)), pattern, paint, joint_of(paint))
        solid.box((x0, front - 0.04, 0), (x1, 0.4, 0.28), "plain", shade(paint, 0.55))
        stage.put(solid, "wall", name)
    slot, doors = -8.6, 0
    while slot < 8.6:
        near_edge = min(abs(slot - left), abs(slot - right)) < 0.9
        kind = r.choice(["window", "window", "door", "bare"])
        if doors == 0 and slot > -1.2:
            kind = "door"
        if not near_edge and kind == "door":
            street_door(stage, slot, jitter(d["door"], r), r)
            doors += 1
        elif not near_edge and kind == "window":
            street_window(stage, slot, r, d)
        slot += r.uniform(1.55, 2.1)
    x = -9.0
    while x < 9.0:
        kind = r.choice(["crate", "crates", "barrel", "bench", "pot", "bin", "none", "none"])
        street_prop(
            stage, kind, x + r.uniform(-0.2, 0.2), jitter(r.choice(list(COLOURS)), r), r, jitter(d["prop"], r)
        )
        x += r.uniform(1.2, 2.0)
    for x in (r.uniform(-8, -5.5), r.uniform(-3.6, -2.9), r.uniform(2.9, 3.6), r.uniform(5.5, 8)):
        if r.random() < 0.6:
            tree(stage, x, -2.8, r)
        elif r.random() < 0.6:
            lamp_post(stage, x, -2.9, 0.0)
    for side in (-1, 1):
        paint = jitter(r.choice(list(COLOURS)), r)
        solid = Solid().box(
            (side * 21 - 1, -16, 0), (side * 21 + 1, 3, r.uniform(6, 9)), "facade", GLASS, paint
        )
        stage.put(solid, "wall", "end house")
        car(stage, jitter(d["car"], r), side * r.uniform(5.0, 9.0), -4.3, math.pi / 2 * side, r)


def street_door(stage: Stage, x: float, paint: RGB, r: random.Random) -> None:
    """A framed door with panels, a knob and a step."""
    s = Solid().box((x - 0.58, -0.07, 0), (x + 0.58, 0.1, 2.22), "plain", (0.80, 0.78, 0.74))
    s.box((x - 0.48, -0.10, 0.04), (x + 0.48, 0, 2.12), "plain", paint)
    for dx in (-0.24, 0.24):
        for z0, z1 in ((0.25, 0.95), (1.10, 1.90)):
            s.box((x + dx - 0.16, -0.12, z0), (x + dx + 0.16, 0, z1), "plain", shade(paint, 0.78))
    s.ball((x + 0.40, -0.15, 1.02), (0.04, 0.04, 0.04), "gloss", (0.75, 0.62, 0.30))
    s.box((x - 0.7, -0.42, 0), (x + 0.7, 0, 0.09), "plain", (0.56, 0.54, 0.52))
    if r.random() < 0.5:
        s.box((x - 0.35, -0.105, 2.25), (x + 0.35, 0, 2.5), "glass", GLASS)
    stage.put(s, "door", "door")


def street_window(stage: Stage, x: float, r: random.Random, d: dict[str, str]) -> None:
    """A framed window with a sill, and shutters, an awning or a flower box."""
    trim = (0.84, 0.83, 0.80)
    s = Solid().box((x - 0.52, -0.06, 1.0), (x + 0.52, 0.1, 2.2), "plain", trim)
    for dx in (-0.23, 0.23):
        for z0, z1 in ((1.08, 1.58), (1.64, 2.12)):
            s.box((x + dx - 0.20, -0.065, z0), (x + dx + 0.20, 0, z1), "glass", GLASS)
    s.box((x - 0.62, -0.14, 0.93), (x + 0.62, 0, 1.01), "plain", shade(trim, 0.9))
    extra = r.choice(["shutters", "awning", "flowers", "none"])
    paint = jitter(d["door"] if r.random() < 0.5 else d["second"], r)
    if extra == "shutters":
        for side in (-1, 1):
            x0 = x + side * 0.72
            s.box((x0 - 0.19, -0.08, 1.0), (x0 + 0.19, 0, 2.2), "plain", paint)
            for k in range(5):
                s.box(
                    (x0 - 0.15, -0.10, 1.08 + 0.22 * k),
                    (x0 + 0.15, 0, 1.20 + 0.22 * k),
                    "plain",
                    shade(paint, 0.8),
                )
    if extra == "awning":
        points = [(x - 0.75, -0.75, 2.10), (x + 0.75, -0.75, 2.10), (x + 0.75, 0, 2.60), (x - 0.75, 0, 2.60)]
        points += [(p[0], p[1], p[2] - 0.05) for p in points]
        uv = [
            [(p[0], 0) for p in points[:4]],
            [(p[0], 0) for p in reversed(points[4:])],
            [(points[k][0], 0) for k in (0, 4, 5, 1)],
        ]
        s.add(points, [(0, 1, 2, 3), (7, 6, 5, 4), (0, 4, 5, 1)], "stripe", paint, trim, uvs=uv)
    if extra == "flowers":
        s.box((x - 0.45, -0.28, 1.0), (x + 0.45, -0.06, 1.16), "plain", (0.45, 0.30, 0.20))
        for k in range(7):
            colour = jitter(r.choice(["red", "pink", "yellow", "green", "green"]), r)
            s.ball(
                (x - 0.39 + 0.13 * k, -0.18, 1.20), (0.085, 0.085, 0.085), "leaf", colour, rings=6, sides=8
            )
    stage.put(s, "window", "window")


def street_prop(stage: Stage, kind: str, x: float, paint: RGB, r: random.Random, other: RGB) -> None:
    """One thing that stands against the wall."""
    y, turn = -0.55, r.uniform(-0.25, 0.25)
    wood = shade((0.62, 0.45, 0.28), r.uniform(0.8, 1.1))
    s = Solid()
    if kind in ("crate", "crates"):
        for k, (dx, z, size) in enumerate([(0, 0, 0.6), (0.08, 0.6, 0.45)][: 1 + (kind == "crates")]):
            h, colour = size / 2, wood if k == 0 else other
            s.box((dx - h, -h, z), (dx + h, h, z + size), "plank", colour, shade(colour, 0.6))
            for e in (-1, 1):
                e0, e1 = sorted((e * h, e * (h - 0.07)))
                s.box((dx + e0, -h - 0.02, z), (dx + e1, h + 0.02, z + size), "plain", shade(colour, 0.8))
            s.box(
                (dx - h, -h - 0.02, z + size - 0.07),
                (dx + h, h + 0.02, z + size + 0.01),
                "plain",
                shade(colour, 0.85),
            )
    elif kind == "barrel":
        s.lathe(
            [(0, 0.26, 0.26), (0.2, 0.31, 0.31), (0.45, 0.33, 0.33), (0.7, 0.31, 0.31), (0.9, 0.26, 0.26)],
            "plain",
            paint,
            sides=16,
        )
        for z in (0.2, 0.66):
            s.lathe([(z, 0.335, 0.335), (z + 0.07, 0.335, 0.335)], "gloss", (0.25, 0.25, 0.26), sides=16)
    elif kind == "bench":
        for dx in (-0.6, 0.6):
            s.box((dx - 0.04, -0.2, 0), (dx + 0.04, 0.2, 0.45), "plain", DARK)
        for k in range(3):
            s.box((-0.8, -0.25 + 0.17 * k, 0.45), (0.8, -0.11 + 0.17 * k, 0.50), "plain", paint)
        for k in range(2):
            s.box((-0.8, 0.22, 0.62 + 0.2 * k), (0.8, 0.27, 0.76 + 0.2 * k), "plain", paint)
        turn = 0.0
    elif kind == "pot":
        s.lathe([(0, 0.17, 0.17), (0.38, 0.25, 0.25), (0.44, 0.27, 0.27)], "plain", (0.66, 0.36, 0.24))
        for k in range(7):
            a = k * 2.4
            s.ball(
                (0.13 * math.cos(a), 0.13 * math.sin(a), 0.55 + 0.07 * k),
                (0.17, 0.17, 0.15),
                "leaf",
                shade((0.28, 0.50, 0.24), 0.85 + 0.05 * k),
                rings=6,
                sides=8,
            )
    elif kind == "bin":
        s.lathe([(0, 0.21, 0.21), (0.75, 0.25, 0.25)], "gloss", paint, sides=14)
        s.lathe(
            [(0.75, 0.27, 0.27), (0.80, 0.27, 0.27), (0.88, 0.12, 0.12)], "gloss", shade(paint, 0.7), sides=14
        )
    else:
        return
    stage.put(s, kind.rstrip("s"), kind, (x, y, 0), turn, 0.85 if kind == "bench" else 0.45)


def tree(stage: Stage, x: float, y: float, r: random.Random, tall: float = 1.0) -> None:
    """A trunk and a lumpy crown."""
    top = r.uniform(2.0, 2.6) * tall
    s = Solid().lathe([(0, 0.17, 0.17), (0.3, 0.12, 0.12), (top, 0.09, 0.09)], "plain", TRUNK)
    green = jitter(r.choice(["green", "green", "green", "yellow", "orange"]), r)
    for k in range(9):
        a, out = k * 2.4, 0.55 * tall if k < 6 else 0.2
        size = r.uniform(0.45, 0.65) * tall
        s.ball(
            (out * math.cos(a), out * math.sin(a), top + (0.1 + 0.1 * k) * tall),
            (size, size, size * 0.85),
            "leaf",
            shade(green, r.uniform(0.8, 1.1)),
            rings=7,
            sides=9,
        )
    stage.put(s, "tree", "tree", (x, y, 0), 0, 0.45)


def lamp_post(stage: Stage, x: float, y: float, reach: float) -> None:
    """A post with a lantern, on an arm if reach (metres) is not 0."""
    s = Solid().lathe(
        [(0, 0.12, 0.12), (0.25, 0.10, 0.10), (0.3, 0.05, 0.05), (3.4, 0.04, 0.04)],
        "gloss",
        (0.16, 0.20, 0.19),
    )
    if reach:
        s.tube(
            [(0, 0, 3.3), (0, 0, 4.4), (reach * 0.4, 0, 4.7), (reach, 0, 4.7)],
            0.05,
            "gloss",
            (0.30, 0.32, 0.33),
        )
        s.box((reach - 0.3, -0.1, 4.6), (reach + 0.3, 0.1, 4.7), "lamp", (0.9, 0.88, 0.8))
    else:
        s.lathe([(3.4, 0.09, 0.09), (3.75, 0.16, 0.16)], "lamp", (0.92, 0.86, 0.66))
        s.lathe([(3.75, 0.19, 0.19), (3.95, 0.03, 0.03)], "gloss", (0.16, 0.20, 0.19))
    stage.put(s, "lamp post", "lamp post", (x, y, 0), 0, 0.3)


def car(
    stage: Stage, paint: RGB, x: float, y: float, turn: float, r: random.Random, speed: float = 0.0
) -> None:
    """A car that heads for -y at turn 0; with a speed (m/s along its heading) it moves."""
    van = r.random() < 0.25
    s = Solid()
    hull = [(-2.0, 0.35), (1.95, 0.35), (2.0, 0.75), (1.7, 0.92), (-1.0, 0.88), (-1.9, 0.78), (-2.05, 0.6)]
    cabin = [(-0.9, 0.86), (1.75, 0.86), (1.45, 1.42), (-0.15, 1.42)]
    if van:
        hull = [(-2.0, 0.35), (2.1, 0.35), (2.12, 1.0), (-1.3, 1.0), (-1.95, 0.85), (-2.05, 0.6)]
        cabin = [(-1.3, 0.98), (2.1, 0.98), (2.05, 1.85), (-0.7, 1.85)]
    s.prism(hull, -0.85, 0.85, "gloss", paint)
    s.prism(cabin, -0.80, 0.80, "glass", (0.20, 0.26, 0.32), inset=0.12)
    roof = cabin[3][1]
    s.box((-0.68, cabin[3][0] - 0.03, roof - 0.02), (0.68, cabin[2][0] + 0.03, roof + 0.05), "gloss", paint)
    for yy in (0.45, cabin[2][0] + 0.05):  # pillars
        for side in (-1, 1):
            s.add(
                [
                    (side * 0.815, yy - 0.06, 0.86),
                    (side * 0.815, yy + 0.06, 0.86),
                    (side * 0.70, yy + 0.06, roof),
                    (side * 0.70, yy - 0.06, roof),
                ],
                [(0, 1, 2, 3)],
                "gloss",
                paint,
            )
    for side in (-1, 1):
        for yy in (-1.25, 1.3):
            wheel = [(side * 0.72, yy, 0.34), (side * 0.90, yy, 0.34)]
            s.tube(wheel, 0.34, "plain", (0.10, 0.10, 0.11), sides=14)
            s.tube(
                [(side * 0.85, yy, 0.34), (side * 0.915, yy, 0.34)], 0.19, "gloss", (0.6, 0.6, 0.62), sides=10
            )
        s.ball((side * 0.62, -2.0, 0.68), (0.16, 0.06, 0.10), "lamp", (0.92, 0.91, 0.82), rings=6)
        s.box((side * 0.62 - 0.14, 1.93, 0.62), (side * 0.62 + 0.14, 2.05, 0.80), "gloss", (0.75, 0.10, 0.10))
    s.box((-0.25, 1.99, 0.45), (0.25, 2.04, 0.58), "plain", (0.85, 0.84, 0.75))
    obj = stage.put(
        s,
        "car",
        "van" if van else "car",
        (x, y, -0.12 if plan_height(stage) else 0),
        turn,
        0.0 if speed else 1.7,
    )
    if speed:
        stage.movers.append((obj, speed))


def plan_height(stage: Stage) -> bool:
    """Whether the carriageway lies below the pavement (street) or at 0 (road)."""
    return any(o["name"] == "far pavement" for o in stage.objects.values())


# ---------------------------------------------------------------- interior


def interior(stage: Stage, plan: Plan, r: random.Random) -> None:
    """A room without ceiling and front wall, as on a film stage."""
    d = plan.decor
    half = stage.half_width = r.uniform(3.4, 4.2)
    wall, side_wall = jitter(d["wall"], r), jitter(r.choice([d["wall"], d["second"]]), r)
    wood = shade((0.60, 0.42, 0.27), r.uniform(0.75, 1.2))
    floor = wood if d["floor"] == "plank" else jitter(r.choice(["grey", "white", "brown"]), r)
    stage.put(
        Solid().box((-half - 2, -12, -0.2), (half + 2, 0.2, 0), d["floor"], floor, shade(floor, 0.6)),
        "ground",
        "floor",
    )
    second = shade(wall, 0.72) if d["wall_pattern"] == "stripe" else joint_of(wall)
    s = Solid().box((-half, 0, 0), (half, 0.2, 4.6), d["wall_pattern"], wall, second)
    s.box((-half, -0.03, 0), (half, 0, 0.14), "plain", (0.84, 0.82, 0.78))
    stage.put(s, "wall", "back wall")
    for side in (-1, 1):
        x0, x1 = sorted((side * half, side * (half + 0.2)))
        s = Solid().box((x0, -5.5, 0), (x1, 0.2, 4.6), "plain", side_wall)
        x0, x1 = sorted((side * half, side * (half - 0.03)))
        s.box((x0, -5.5, 0), (x1, 0, 0.14), "plain", (0.84, 0.82, 0.78))
        for y in (-1.6, -3.8):
            s.box((side * half - 0.04, y - 0.4, 1.2), (side * half + 0.04, y + 0.4, 2.1), "plain", wood)
            s.box(
                (side * half - 0.05, y - 0.34, 1.26),
                (side * half + 0.05, y + 0.34, 2.04),
                "plain",
                jitter(r.choice(list(COLOURS)), r),
            )
        wall_object = stage.put(s, "wall", "side wall")
        wall_object.visible_shadow = False  # the stage light comes over it in both looks
    x = -half + 0.75
    order = ["window", "door", "picture", "shelf", "window", "picture", "lamp"]
    r.shuffle(order)
    low = ["sofa", "table", "plant", "chair", "cupboard"]
    r.shuffle(low)
    while x < half - 0.5:
        kind = order.pop() if order else "picture"
        room_wall_thing(stage, kind, x, r, jitter(d["door"], r), wood)
        if kind not in ("door", "shelf", "lamp") and low:
            wide = room_low_thing(stage, low.pop(), x, r, jitter(d["sofa"], r), jitter(d["prop"], r), wood)
            x += 0.5 * wide
        x += r.uniform(1.15, 1.5)
    rug = jitter(d["second"], r)
    s = Solid().box((-1.6, -2.9, 0), (1.6, -1.2, 0.02), "stripe", rug, shade(rug, 0.7))
    stage.put(s, "rug", "rug")
    for side in (-1, 1):
        if r.random() < 0.6:
            room_low_thing(
                stage,
                r.choice(["plant", "chair"]),
                side * (half - 0.6),
                r,
                jitter(d["sofa"], r),
                jitter(d["prop"], r),
                wood,
                -2.6,
            )


def room_wall_thing(stage: Stage, kind: str, x: float, r: random.Random, door: RGB, wood: RGB) -> None:
    """One thing on the back wall."""
    s, trim = Solid(), (0.86, 0.85, 0.82)
    if kind == "door":
        s.box((x - 0.52, -0.06, 0), (x + 0.52, 0, 2.2), "plain", trim)
        s.box((x - 0.43, -0.08, 0.02), (x + 0.43, 0, 2.1), "plain", door)
        for z0, z1 in ((0.2, 0.95), (1.1, 1.95)):
            s.box((x - 0.30, -0.10, z0), (x + 0.30, 0, z1), "plain", shade(door, 0.82))
        s.ball((x + 0.36, -0.14, 1.0), (0.04, 0.04, 0.04), "gloss", (0.78, 0.64, 0.30))
    elif kind == "window":
        s.box((x - 0.6, -0.06, 0.95), (x + 0.6, 0, 2.35), "plain", trim)
        for dx in (-0.27, 0.27):
            for z0, z1 in ((1.02, 1.62), (1.68, 2.28)):
                s.box((x + dx - 0.24, -0.065, z0), (x + dx + 0.24, 0, z1), "glass", LIGHT_GLASS)
        for side in (-1, 1):
            c = shade(door, 1.1)
            for k in range(3):
                s.lathe(
                    [(0.75, 0.06, 0.05), (2.5, 0.06, 0.05)],
                    "cloth",
                    shade(c, 0.9 + 0.1 * (k % 2)),
                    at=(x + side * (0.55 + 0.09 * k), -0.13, 0),
                    sides=8,
                )
        s.tube([(x - 0.85, -0.13, 2.5), (x + 0.85, -0.13, 2.5)], 0.025, "plain", wood)
    elif kind == "picture":
        w, h, z = r.uniform(0.28, 0.45), r.uniform(0.22, 0.38), r.uniform(1.5, 1.75)
        s.box(
            (x - w - 0.05, -0.04, z - h - 0.05),
            (x + w + 0.05, 0, z + h + 0.05),
            "plain",
            r.choice([DARK, wood, trim]),
        )
        s.box((x - w, -0.05, z - h), (x + w, 0, z + h), "plain", jitter(r.choice(list(COLOURS)), r))
        s.box(
            (x - w, -0.055, z - h),
            (x + w, 0, z - h * r.uniform(0.1, 0.5)),
            "plain",
            jitter(r.choice(list(COLOURS)), r),
        )
        dx = r.uniform(-0.4, 0.4) * w
        s.ball(
            (x + dx, -0.05, z + 0.2 * h),
            (0.3 * h, 0.012, 0.3 * h),
            "plain",
            jitter(r.choice(list(COLOURS)), r),
        )
    elif kind == "shelf":
        s.box((x - 0.55, -0.32, 0), (x - 0.50, 0, 2.0), "plain", wood)
        s.box((x + 0.50, -0.32, 0), (x + 0.55, 0, 2.0), "plain", wood)
        s.box((x - 0.5, -0.03, 0), (x + 0.5, 0, 2.0), "plain", shade(wood, 0.7))
        for z in (0.05, 0.5, 0.95, 1.4, 1.95):
            s.box((x - 0.5, -0.32, z), (x + 0.5, 0, z + 0.05), "plain", wood)
            at = x - 0.48
            while z < 1.9 and at < x + 0.36:
                w = r.uniform(0.05, 0.11)
                s.box(
                    (at, -0.27, z + 0.05),
                    (at + w, -0.05, z + r.uniform(0.26, 0.40)),
                    "plain",
                    jitter(r.choice(list(COLOURS)), r),
                )
                at += w + r.choice([0.005, 0.005, 0.12])
    else:
        s.lathe(
            [(0, 0.17, 0.17), (0.04, 0.17, 0.17), (0.06, 0.02, 0.02), (1.5, 0.02, 0.02)],
            "gloss",
            DARK,
            at=(x, -0.4, 0),
        )
        s.lathe([(1.42, 0.26, 0.26), (1.80, 0.15, 0.15)], "lamp", (0.93, 0.86, 0.68), at=(x, -0.4, 0))
        stage.obstacles.append((x, -0.4, 0.35))
    stage.put(s, kind, kind)
    if kind == "shelf":
        stage.obstacles.append((x, -0.2, 0.5))


def room_low_thing(
    stage: Stage, kind: str, x: float, r: random.Random, sofa: RGB, prop: RGB, wood: RGB, y: float = -0.6
) -> float:
    """One piece of furniture; returns its width in metres."""
    s, wide = Solid(), 0.8
    if kind == "sofa":
        wide = 1.8
        s.box((-0.9, -0.4, 0.08), (0.9, 0.4, 0.40), "cloth", sofa)
        s.box((-0.9, 0.22, 0.3), (0.9, 0.45, 0.88), "cloth", shade(sofa, 0.92))
        for side in (-1, 1):
            x0, x1 = sorted((side * 0.9, side * 0.72))
            s.box((x0, -0.42, 0.1), (x1, 0.42, 0.62), "cloth", shade(sofa, 1.06))
            x0, x1 = sorted((side * 0.02, side * 0.70))
            s.box((x0, -0.42, 0.40), (x1, 0.22, 0.52), "cloth", shade(sofa, 1.12))
        s.ball((-0.5, 0.10, 0.66), (0.19, 0.08, 0.17), "cloth", prop)
    elif kind == "table":
        wide = 1.2
        s.box((-0.6, -0.35, 0.70), (0.6, 0.35, 0.76), "plank", wood, shade(wood, 0.6))
        for dx in (-0.54, 0.54):
            for dy in (-0.29, 0.29):
                s.box((dx - 0.04, dy - 0.04, 0), (dx + 0.04, dy + 0.04, 0.7), "plain", shade(wood, 0.85))
        s.lathe(
            [(0.76, 0.09, 0.09), (0.86, 0.13, 0.13), (1.0, 0.05, 0.05), (1.06, 0.07, 0.07)],
            "gloss",
            prop,
            at=(0.25, 0, 0),
        )
        s.lathe([(0.76, 0.05, 0.05), (0.86, 0.06, 0.06)], "gloss", (0.86, 0.85, 0.82), at=(-0.2, -0.1, 0))
        s.box((-0.5, 0, 0.76), (-0.28, 0.2, 0.82), "plain", jitter("red", r))
    elif kind == "plant":
        s.lathe([(0, 0.15, 0.15), (0.32, 0.21, 0.21)], "gloss", prop)
        for k in range(9):
            a, tilt = k * 2.4, 0.10 + 0.02 * k
            s.ball(
                (tilt * math.cos(a), tilt * math.sin(a), 0.55 + 0.07 * k),
                (0.13, 0.13, 0.16),
                "leaf",
                shade((0.27, 0.50, 0.26), 0.85 + 0.04 * k),
                rings=6,
                sides=8,
            )
    elif kind == "chair":
        s.box((-0.24, -0.24, 0.42), (0.24, 0.24, 0.48), "plain", prop)
        s.box((-0.24, 0.20, 0.48), (0.24, 0.25, 1.0), "plain", prop)
        for dx in (-0.2, 0.2):
            for dy in (-0.2, 0.2):
                s.box((dx - 0.03, dy - 0.03, 0), (dx + 0.03, dy + 0.03, 0.42), "plain", shade(wood, 0.7))
    else:
        wide = 1.1
        s.box((-0.55, -0.24, 0.06), (0.55, 0.24, 0.85), "plank", wood, shade(wood, 0.6))
        for dx in (-0.27, 0.27):
            s.box((dx - 0.24, -0.26, 0.12), (dx + 0.24, -0.2, 0.80), "plain", shade(wood, 1.15))
            s.ball((dx * 0.3, -0.28, 0.5), (0.03, 0.03, 0.03), "gloss", (0.75, 0.62, 0.3), rings=6)
        s.lathe([(0.85, 0.10, 0.10), (1.0, 0.14, 0.14), (1.1, 0.05, 0.05)], "gloss", prop, at=(0.2, 0, 0))
    turn = r.uniform(-0.15, 0.15) if kind in ("chair", "plant") else 0.0
    stage.put(s, kind, kind, (x, y, 0), turn, max(0.45, wide / 2))
    return wide


# ---------------------------------------------------------------- road


def road(stage: Stage, plan: Plan, r: random.Random) -> None:
    """A straight road with markings, rows of houses, trees and lamp posts, and traffic."""
    d = plan.decor
    s = Solid().box((-4.2, -40, -0.3), (4.2, 260, 0), "asphalt", (0.30, 0.30, 0.32))
    for side in (-1, 1):
        s.box((side * 3.9 - 0.07, -40, 0), (side * 3.9 + 0.07, 260, 0.006), "plain", (0.84, 0.83, 0.78))
    for k in range(-8, 50):
        s.box((-0.08, k * 5, 0), (0.08, k * 5 + 2.4, 0.006), "plain", (0.84, 0.83, 0.78))
    stage.put(s, "road", "road")
    walk = shade((0.60, 0.58, 0.55), r.uniform(0.85, 1.1))
    for side in (-1, 1):
        x0, x1 = sorted((side * 4.2, side * 8.0))
        stage.put(
            Solid().box((x0, -40, -0.3), (x1, 260, 0.14), "slab", walk, shade(walk, 0.72)),
            "ground",
            "pavement",
        )
        x0, x1 = sorted((side * 8.0, side * 90))
        stage.put(
            Solid().box((x0, -40, -0.3), (x1, 260, 0.10), "plain", (0.42, 0.50, 0.32)), "ground", "grass"
        )
        y = -30 + r.uniform(0, 6)
        while y < 150:
            length, tall, back = r.uniform(7, 15), r.uniform(4.5, 13), r.uniform(8.3, 10.5)
            paint = jitter(r.choice([d["wall"], d["wall"], d["second"], r.choice(list(COLOURS))]), r)
            x0, x1 = sorted((side * back, side * (back + 9)))
            house = Solid().box((x0, y, 0), (x1, y + length, tall), "facade", GLASS, paint)
            house.box(
                (x0 - 0.2, y - 0.1, tall),
                (x1 + 0.2, y + length + 0.1, tall + 0.35),
                "plain",
                shade(paint, 0.6),
            )
            house.box((min(x0, x0 - 0.06), y, 0), (x1 + 0.06, y + length, 0.9), "plain", shade(paint, 0.65))
            if r.random() < 0.85:
                stage.put(house, "building", "building")
            y += length + r.choice([0.3, 0.3, r.uniform(3, 7)])
        y = -20 + r.uniform(0, 6)
        while y < 120:
            if r.random() < 0.55:
                tree(stage, side * r.uniform(5.6, 6.6), y, r, tall=r.uniform(1.1, 1.6))
            else:
                lamp_post(stage, side * 4.9, y, -side * 1.4)
            y += r.uniform(7, 14)
    ego = r.uniform(6.0, 10.0)
    stage.movers.clear()
    plan.decor["ego_speed"] = f"{ego:.3f}"
    car(stage, jitter(d["car"], r), 2.0, r.uniform(8, 14), math.pi, r, ego + r.uniform(-1.0, 1.5))
    if r.random() < 0.5:
        car(stage, jitter(r.choice(list(COLOURS)), r), 2.0, r.uniform(24, 36), math.pi, r, ego)
    y = r.uniform(14, 24)
    for _ in range(4):
        car(stage, jitter(r.choice(list(COLOURS)), r), -2.0, y, 0.0, r, r.uniform(5, 9))
        y += r.uniform(14, 26)


def many_small(stage: Stage, world: str, r: random.Random) -> None:
    """Balls and boxes, 10-25 cm, all over the ground behind and beside the people."""
    for _ in range(26):
        size, colour = r.uniform(0.06, 0.13), jitter(r.choice(list(COLOURS)), r)
        reach = stage.half_width - 0.5 if world == "interior" else 4.5
        at = (r.uniform(-reach, reach), r.uniform(-3.0, -0.9), 0.0)
        s = Solid()
        if r.random() < 0.5:
            s.ball((0, 0, size), (size, size, size), "gloss", colour, rings=7, sides=10)
        else:
            s.box((-size, -size, 0), (size, size, 2 * size), "plain", colour, turn=r.uniform(0, 1.5))
        stage.put(s, "small thing", "small thing", at)
