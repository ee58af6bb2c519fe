"""The street and the road: houses, doors, windows, trees, lamps and cars.

Reads nothing. Writes static objects into the open Blender scene; metres, the street's wall at y = 0, people at
y < 0, the road runs along +y.
"""

from __future__ import annotations

import math
import random

from meshes import Solid, shade
from stage import DARK, GLASS, RGB, TRUNK, Stage, jitter, joint_of
from world import COLOURS, Plan


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
