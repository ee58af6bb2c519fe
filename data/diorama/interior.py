"""The room: walls with doors, windows, pictures and shelves, and what stands in it.

Reads nothing. Writes static objects into the open Blender scene; metres, back wall at y = 0, people at y < 0.
"""

from __future__ import annotations

import math
import random

from meshes import Solid, shade
from stage import DARK, LIGHT_GLASS, RGB, Stage, jitter, joint_of
from world import COLOURS, Plan


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
