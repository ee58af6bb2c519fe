"""The set of a plan: street, room or road.

Reads nothing. Writes static objects into the open Blender scene.
"""

from __future__ import annotations

import random

import bpy
from interior import interior
from meshes import Solid
from outdoors import road, street
from stage import Stage, jitter
from world import COLOURS, Plan


def build_set(plan: Plan, materials: dict[str, bpy.types.Material]) -> Stage:
    """Build the plan's world; deterministic in the plan's seed."""
    stage, r = Stage(materials), random.Random(f"set {plan.seed}")
    {"street": street, "interior": interior, "road": road}[plan.world](stage, plan, r)
    if any("many_small" in shot.subsets for shot in plan.shots):
        many_small(stage, plan.world, r)
    return stage


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
