"""Figures: a jointed body and a distinguishing face from an `Identity`, posed by the time in seconds.

Reads nothing. Writes the objects of one person into the open Blender scene, lengths in metres.
A figure faces -y at yaw 0; its right hand, and the left eye in the image, lie at -x.
"""

from __future__ import annotations

import math

import bpy
import numpy as np
from meshes import Solid, shade
from world import COLOURS, HAIR_COLOURS, Identity

HEAD_Z = 1.50  # metres, centre of the head of a figure of scale 1
HEAD_HEIGHT = 0.36  # metres, chin to crown with hair
UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = 0.25, 0.23, 0.40, 0.38  # metres


class Head:
    """The shape of a head: where its surface lies, so that features sit on it."""

    def __init__(self, person: Identity) -> None:
        s = person.shape
        self.w, self.d, self.h, self.jaw = s["head_w"], 0.135, s["head_h"], s["jaw"]

    def bend(self, v: np.ndarray) -> np.ndarray:
        """Narrow the jaw and round the back of an ellipsoid [n, 3]."""
        out = v.copy()
        down = np.clip(-v[:, 2] / self.h, 0, 1.5)
        out[:, 0] *= 1 - self.jaw * down**1.5 * 0.8
        out[:, 1] *= 1 - 0.10 * down
        return out

    def front(self, x: float, z: float) -> float:
        """The y of the face at x, z metres from the head's centre."""
        down = min(max(-z / self.h, 0.0), 1.0)
        wide = self.w * (1 - self.jaw * down**1.5 * 0.8)
        return -self.d * (1 - 0.10 * down) * math.sqrt(max(0.05, 1 - (x / wide) ** 2 - (z / self.h) ** 2))

    def at(self, x: float, z: float, out: float = 0.0) -> tuple[float, float, float]:
        """A point on the face, pushed out by `out` metres."""
        return (x, self.front(x, z) - out, z)


def landmarks(person: Identity) -> np.ndarray:
    """Five points [5, 3] in head coordinates: the eyes, nose tip, mouth corners, image left first."""
    head, s = Head(person), person.shape
    nose_z, mouth_z = -s["nose_l"], mouth_height(person)
    corner = mouth_z + s["smile"] * s["mouth_w"] * 0.4
    return np.array(
        [
            head.at(-s["eye_x"], 0.012, 0.012),
            head.at(s["eye_x"], 0.012, 0.012),
            head.at(0, nose_z, s["nose_out"]),
            head.at(-s["mouth_w"], corner),
            head.at(s["mouth_w"], corner),
        ]
    )


def face_points(person: Identity) -> np.ndarray:
    """Points [n, 3] on the front of the face, chin to hairline, that span its box."""
    head = Head(person)
    rows = []
    for z in np.linspace(-0.96, 0.62, 9) * head.h:
        for u in (-0.9, -0.5, 0.0, 0.5, 0.9):
            down = min(max(-z / head.h, 0.0), 1.0)
            wide = head.w * (1 - head.jaw * down**1.5 * 0.8) * math.sqrt(1 - (z / head.h) ** 2)
            rows.append(head.at(u * wide, z, 0.004))
    return np.array(rows)


def mouth_height(person: Identity) -> float:
    """The z of the mouth's middle."""
    return -0.052 - person.shape["nose_l"] * 0.75


def build_head(person: Identity) -> Solid:
    """The head with hair, brows, eyes, nose, mouth, ears, and what is worn on it."""
    s, head, solid = person.shape, Head(person), Solid()
    skin, hair = person.skin, HAIR_COLOURS[person.hair]
    solid.ball((0, 0, 0), (head.w, head.d, head.h), "skin", skin, rings=14, sides=20, shape=head.bend)
    for side in (-1, 1):
        x, r = side * s["eye_x"], s["eye_r"]
        y = head.front(x, 0.012)
        solid.ball((x, y + r * 0.25, 0.012), (r, r * 0.62, r * s["eye_tall"]), "eye", (0.93, 0.92, 0.90))
        iris = r * 0.58
        solid.ball((x * 0.97, y - r * 0.22, 0.012), (iris, r * 0.3, min(iris, r * 0.66)), "eye", person.iris)
        solid.ball(
            (x * 0.97, y - r * 0.38, 0.012),
            (iris * 0.55, r * 0.22, iris * 0.55),
            "eye",
            (0.04, 0.04, 0.05),
            rings=6,
            sides=8,
        )
        brow = [
            head.at(
                side * (s["eye_x"] + k * r * 1.25),
                s["brow_z"] + 0.012 - 0.008 * k * k + k * s["brow_tilt"] * 0.022,
                0.004,
            )
            for k in (-1, -0.3, 0.4, 1)
        ]
        solid.tube(brow, s["brow_r"], "hair", shade(hair, 0.75 if person.hair != "white" else 0.9))
        if person.woman:  # upper lashes
            lash = [
                (x + k * r, y - r * 0.30 * (1 - 0.5 * k * k), 0.012 + r * s["eye_tall"] * (1 - 0.55 * k * k))
                for k in (-1, -0.4, 0.4, 1)
            ]
            solid.tube(lash, 0.0045, "hair", (0.08, 0.06, 0.06), sides=5)
        solid.ball((side * head.w * 0.99, 0.012, -0.005), (0.016, 0.022, s["ear"]), "skin", shade(skin, 0.95))
        solid.ball(
            head.at(side * 0.066, -0.045, -0.010),
            (0.026, 0.014, 0.022),
            "skin",
            (skin[0], skin[1] * 0.90, skin[2] * 0.88),
            rings=6,
        )  # cheeks
    nose_z = -s["nose_l"]
    solid.ball(
        head.at(0, nose_z, s["nose_out"] * 0.35),
        (s["nose_w"], s["nose_out"], s["nose_w"] * 0.85),
        "skin",
        shade(skin, 0.90),
    )
    solid.ball(
        head.at(0, nose_z * 0.4, s["nose_out"] * 0.05),
        (s["nose_w"] * 0.55, s["nose_out"] * 0.8, s["nose_l"] * 0.8),
        "skin",
        shade(skin, 0.97),
    )
    z, w = mouth_height(person), s["mouth_w"]
    lips = (0.66, 0.20, 0.22) if person.woman else shade((skin[0], skin[1] * 0.7, skin[2] * 0.7), 0.78)
    beard_out = 0.012 if person.beard in ("full", "goatee") else 0.002
    solid.tube(
        [head.at(k * w, z + s["smile"] * w * (abs(k) ** 2 - 0.6), beard_out) for k in (-1, -0.6, 0, 0.6, 1)],
        s["mouth_r"],
        "skin",
        lips,
    )
    build_beard(person, head, solid, shade(hair, 0.9))
    build_hair(person, head, solid, hair)
    build_worn(person, head, solid)
    return solid


def build_beard(person: Identity, head: Head, solid: Solid, colour: tuple) -> None:
    """A shell over the jaw, a goatee or a moustache."""
    if person.beard == "full":
        solid.ball(
            (0, -0.002, -0.004),
            (head.w * 1.05, head.d * 1.05, head.h * 1.06),
            "hair",
            colour,
            rings=20,
            sides=20,
            shape=head.bend,
            keep=lambda c: (
                (c[2] < -0.058 + 0.5 * max(0, c[1]) and c[1] < 0.02)
                or (abs(c[0]) > head.w * 0.72 and c[2] < 0.0 and c[1] < 0.01)
            ),
        )
    if person.beard == "goatee":
        solid.ball(head.at(0, -head.h * 0.86, -0.01), (0.042, 0.032, 0.040), "hair", colour)
    if person.beard in ("full", "goatee", "moustache"):
        z = (mouth_height(person) - person.shape["nose_l"]) / 2 + 0.002
        solid.tube(
            [head.at(k * 0.044, z - 0.010 * k * k, 0.008) for k in (-1, -0.5, 0, 0.5, 1)],
            0.0085,
            "hair",
            colour,
        )


def build_hair(person: Identity, head: Head, solid: Solid, colour: tuple) -> None:
    """A cap cut at the hairline, plus what the style adds."""
    style = person.hair_style
    if style == "bald":
        return
    w, d, h = head.w, head.d, head.h
    line = {"fringe": 0.058, "bob": 0.070, "curly": 0.085}.get(style, 0.095)
    thick = 1.13 if style in ("bob", "long", "curly") else 1.08
    nape = -0.04 if style in ("short", "quiff", "fringe", "bun", "ponytail") else -0.10

    def keep(c: np.ndarray) -> bool:
        if c[1] < -0.035:
            return c[2] > line - 0.15 * abs(c[0])
        if c[1] < 0.025:
            return c[2] > (line - 0.02) * (0.025 - c[1]) / 0.06 + min(nape + 0.06, 0.02)
        return c[2] > nape

    solid.ball(
        (0, 0.008, 0.006),
        (w * thick, d * thick, h * (thick + 0.02)),
        "hair",
        colour,
        rings=20,
        sides=24,
        keep=keep,
    )
    if style in ("bob", "long"):
        length = 0.19 if style == "bob" else 0.33
        for side in (-1, 1):
            solid.ball(
                (side * w * 1.0, 0.025, -length * 0.42),
                (0.040, 0.075, length * 0.62),
                "hair",
                colour,
                rings=10,
            )
        solid.ball((0, 0.075, -length * 0.42), (w * 0.98, 0.065, length * 0.62), "hair", colour)
    if style == "bun":
        solid.ball((0, 0.05, h * 1.22), (0.062, 0.062, 0.055), "hair", shade(colour, 1.05))
    if style == "ponytail":
        solid.ball((0, d * 1.25, 0.02), (0.045, 0.065, 0.05), "hair", colour)
        solid.ball((0, d * 1.5, -0.13), (0.042, 0.045, 0.15), "hair", colour)
    if style == "quiff":
        solid.ball((0, -d * 0.62, h * 0.93), (w * 0.75, 0.060, 0.042), "hair", shade(colour, 1.08))
    if style == "curly":
        for k in range(18):
            a, row = k * 2.4, k / 17
            up = 0.10 + 0.95 * row
            out = math.sqrt(max(0.0, 1 - (up - 0.15) ** 2)) if up > 0.15 else 1.0
            y = math.sin(a) * d * out + 0.03
            if y > -0.075 or up > 0.72:
                solid.ball(
                    (math.cos(a) * w * 1.08 * out, y, h * 1.06 * up),
                    (0.044, 0.044, 0.042),
                    "hair",
                    shade(colour, 0.95 + 0.12 * (k % 2)),
                    rings=6,
                    sides=8,
                )


def build_worn(person: Identity, head: Head, solid: Solid) -> None:
    """Glasses and hat."""
    s, (w, d, h) = person.shape, (head.w, head.d, head.h)
    if person.glasses != "none":
        colour, r = COLOURS[person.glasses_colour], s["eye_r"] * 1.38
        y = head.front(s["eye_x"], 0.012) - s["eye_r"] * 0.75
        corners = 14 if person.glasses == "round" else 4
        for side in (-1, 1):
            x = side * s["eye_x"]
            turn = 0.0 if corners > 4 else math.pi / 4
            grow = 1.0 if corners > 4 else 1.25
            ring = [
                (
                    x + grow * r * math.cos(2 * math.pi * k / corners + turn),
                    y + 0.12 * abs(x),
                    0.010 + grow * 0.86 * r * math.sin(2 * math.pi * k / corners + turn),
                )
                for k in range(corners)
            ]
            solid.tube(ring, 0.0062, "gloss", colour, closed=True)
            solid.tube(
                [(x + side * r, y + 0.01, 0.016), (side * w * 1.04, 0.0, 0.014)], 0.005, "gloss", colour
            )
        inner = s["eye_x"] - r
        solid.tube([(-inner, y, 0.018), (inner, y, 0.018)], 0.005, "gloss", colour)
    colour = COLOURS[person.hat_colour]
    if person.hat in ("cap", "beanie"):
        solid.ball(
            (0, 0.005, 0.020),
            (w * 1.20, d * 1.20, h * 1.14),
            "cloth",
            colour,
            rings=14,
            sides=20,
            keep=lambda c: c[2] > 0.055,
        )
    if person.hat == "cap":
        solid.ball((0, -d * 1.25, 0.082), (w * 0.92, 0.085, 0.012), "cloth", shade(colour, 0.85))
    if person.hat == "beanie":
        solid.lathe(
            [(0.058, w * 1.22, d * 1.22), (0.100, w * 1.22, d * 1.22)],
            "cloth",
            shade(colour, 0.75),
            at=(0, 0.005, 0),
            sides=20,
        )
        solid.ball((0, 0.005, h * 1.26), (0.030, 0.030, 0.028), "cloth", shade(colour, 1.2))
    if person.hat == "brim":
        solid.lathe([(0.075, w * 1.85, d * 1.75), (0.088, w * 1.85, d * 1.75)], "cloth", colour, sides=24)
        solid.lathe(
            [(0.085, w * 1.16, d * 1.16), (0.120, w * 1.15, d * 1.15)], "cloth", shade(colour, 0.6), sides=20
        )
        solid.lathe(
            [(0.118, w * 1.14, d * 1.14), (0.215, w * 1.0, d * 1.0), (0.225, w * 0.8, d * 0.8)],
            "cloth",
            colour,
            sides=20,
        )


class Figure:
    """A person in the scene: objects, joints, and a pose as a function of time."""

    def __init__(self, person: Identity, index: int, materials: dict) -> None:
        self.person, self.index = person, index
        name = f"person {person.id}"
        shirt, second = COLOURS[person.shirt], COLOURS[person.shirt_second]
        second = second if person.striped else shirt
        trousers, skin, b = shade(COLOURS[person.trousers], 0.9), person.skin, person.shape["build"]
        self.root = bpy.data.objects.new(name, None)
        bpy.context.scene.collection.objects.link(self.root)
        self.root.scale = (person.shape["tall"],) * 3
        wide = 0.165 * b if person.woman else 0.190 * b
        waist = 0.125 * b if person.woman else 0.160 * b

        def part(solid: Solid, label: str, parent: bpy.types.Object, at: tuple) -> bpy.types.Object:
            return solid.build(f"{name} {label}", index, materials, parent, at)

        torso = Solid()
        torso.lathe(
            [
                (-0.06, 0.14 * b, 0.10),
                (0.04, 0.155 * b, 0.115),
                (0.20, waist, 0.10),
                (0.36, wide * 0.98, 0.12),
                (0.45, wide * 0.97, 0.11),
                (0.495, wide * 0.62, 0.08),
                (0.515, 0.055, 0.055),
            ],
            "cloth",
            shirt,
            second,
            sides=18,
        )
        torso.lathe([(0.48, 0.060, 0.060), (0.62, 0.054, 0.056)], "skin", shade(skin, 0.94))
        torso.tube(
            [
                (0.066 * math.cos(a), 0.066 * math.sin(a) - 0.004, 0.505)
                for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)
            ],
            0.013,
            "cloth",
            shade(shirt, 0.8),
            closed=True,
        )
        if person.skirt:
            torso.lathe(
                [(-0.42, 0.25, 0.22), (-0.10, 0.175 * b, 0.14), (0.05, 0.15 * b, 0.115)],
                "cloth",
                trousers,
                sides=18,
            )
        else:
            torso.ball((0, 0, -0.02), (0.155 * b, 0.115, 0.10), "cloth", trousers)
        self.torso = part(torso, "torso", self.root, (0, 0, 0.80))
        self.head = part(build_head(person), "head", self.torso, (0, -0.01, HEAD_Z - 0.80))
        self.arms, self.legs = [], []
        for side in (-1, 1):
            upper = Solid().ball((0, 0, 0), (0.058, 0.058, 0.058), "cloth", shirt, second)
            upper.lathe([(0, 0.056, 0.056), (-UPPER_ARM, 0.043, 0.043)], "cloth", shirt, second)
            upper = part(upper, "arm", self.torso, (side * (wide + 0.015), 0, 0.43))
            lower = Solid().ball((0, 0, 0), (0.044, 0.044, 0.044), "cloth", shirt, second)
            lower.lathe([(0, 0.042, 0.042), (-LOWER_ARM, 0.034, 0.034)], "cloth", shirt, second)
            lower.ball((0, 0, -LOWER_ARM - 0.035), (0.036, 0.042, 0.052), "skin", skin)
            self.arms.append((upper, part(lower, "forearm", upper, (0, 0, -UPPER_ARM))))
            cover = "skin" if person.skirt else "cloth"
            colour = skin if person.skirt else trousers
            thigh = Solid().lathe([(0, 0.085, 0.085), (-UPPER_LEG, 0.062, 0.062)], cover, colour)
            thigh = part(thigh, "thigh", self.root, (side * 0.085 * b, 0, 0.80))
            shin = Solid().ball((0, 0, 0), (0.062, 0.062, 0.062), cover, colour)
            shin.lathe([(0, 0.061, 0.061), (-LOWER_LEG + 0.03, 0.047, 0.047)], cover, colour)
            shin.ball((0, -0.045, -LOWER_LEG + 0.020), (0.052, 0.105, 0.040), "gloss", (0.16, 0.12, 0.10))
            self.legs.append((thigh, part(shin, "shin", thigh, (0, 0, -UPPER_LEG))))

    def pose(
        self,
        action: str,
        time: float,
        at: tuple[float, float],
        body_yaw: float,
        head_yaw: float,
        speed: float,
    ) -> None:
        """Place the figure: time in s, place and speed in m and m/s, yaws in radians (world)."""
        phase = 2 * math.pi * time * (0.9 + 0.45 * speed)
        stride = min(1.0, speed / 1.3)
        sway = math.sin(2 * math.pi * 0.35 * time + self.person.id)
        self.root.location = (*at, 0.018 * stride * abs(math.sin(phase)))
        self.root.rotation_euler = (0, 0, body_yaw)
        self.torso.rotation_euler = (0.06 * stride, 0.02 * sway, 0)
        nod = 0.05 * math.sin(2 * math.pi * 1.4 * time) if action == "talk" else 0.02 * sway
        self.head.rotation_euler = (nod, 0.05 * sway, head_yaw - body_yaw)
        for k, ((upper, lower), (thigh, shin)) in enumerate(zip(self.arms, self.legs, strict=True)):
            side = -1 if k == 0 else 1
            swing = math.sin(phase + (math.pi if k else 0.0))
            thigh.rotation_euler[0] = 0.6 * stride * swing
            shin.rotation_euler[0] = 0.5 * stride * max(0.0, math.cos(phase + math.pi * k)) + 0.03
            upper.rotation_euler = (-0.55 * stride * swing - 0.05, -side * 0.10, 0)
            lower.rotation_euler = (-0.25 - 0.5 * stride, 0, 0)
            if action == "talk" and (k == 0 or sway > 0):
                beat = math.sin(2 * math.pi * 1.1 * time + 2 * k)
                upper.rotation_euler = (-0.35 - 0.15 * beat, -side * 0.18, 0)
                lower.rotation_euler = (-1.5 - 0.35 * beat, 0, 0)
            if action == "wave" and k == 0:
                upper.rotation_euler = (-0.4, 2.1, 0)
                lower.rotation_euler = (-0.2, 0.55 + 0.5 * math.sin(2 * math.pi * 1.6 * time), 0)
