"""Where people and camera are at any time of a shot, and the projection of points into the frame.

Reads nothing. Writes object transforms into the open Blender scene; metres, seconds, radians.
"""

from __future__ import annotations

import math
import random

import bpy
import numpy as np
from figures import HEAD_HEIGHT, HEAD_Z, Figure, face_points, landmarks
from mathutils import Vector
from stage import Stage
from world import FPS, HEAD_FRACTION, HEIGHT, SHOT_FRAMES, WIDTH, Plan, Shot

LENGTH = (SHOT_FRAMES - 1) / FPS  # seconds from the first to the last frame of a shot
SENSOR = 36.0  # mm, width
SPEEDS = {"walk": 0.75, "run": 2.2, "enter": 0.8}  # m/s


class Take:
    """One staged shot: `pose(u)` puts figures and camera where they are at u in 0..1."""

    def __init__(
        self, plan: Plan, number: int, stage: Stage, figures: list[Figure], camera: bpy.types.Object
    ) -> None:
        self.plan, self.shot, self.stage = plan, plan.shots[number], stage
        self.figures, self.camera = figures, camera
        self.start = number * SHOT_FRAMES / FPS
        self.tracks: list[dict] = []
        r = random.Random(f"take {plan.seed} {number}")
        if plan.world == "road":
            self.stage_drive(number, r)
            return
        for _ in range(200):  # until the view is free
            self.stage_people(r)
            if self.stage_camera(r):
                break
        else:
            raise RuntimeError(f"No free camera found for {plan.sequence} shot {number}.")

    # -------------------------------------------------------- people

    def stage_people(self, r: random.Random) -> None:
        """Places, headings and head turns; the camera's azimuth is drawn first, all relate to it."""
        shot: Shot = self.shot
        self.azimuth = math.radians(r.uniform(-48, 48) if self.plan.world == "street" else r.uniform(-38, 38))
        self.tracks = [dict() for _ in self.figures]
        order = [shot.subject] + [k for k in range(len(self.figures)) if k != shot.subject]
        side = r.choice([-1, 1])
        right = np.array([math.cos(self.azimuth), math.sin(self.azimuth)])
        back = np.array([-math.sin(self.azimuth), math.cos(self.azimuth)])
        place = np.array([r.uniform(-1.1, 1.1), r.uniform(-2.3, -1.5)])
        for rank, k in enumerate(order):
            action = shot.actions[k]
            speed = SPEEDS.get(action, 0.0)
            if rank:  # the other stands beside and a little behind
                gap = r.uniform(0.62, 0.8) if shot.shot_size != "close up" else r.uniform(0.7, 1.0)
                place = place + side * gap * right + r.uniform(0.0, 0.35) * back
            middle, heading = place.copy(), self.azimuth + math.radians(r.uniform(-35, 35))
            if speed:
                across = side if action != "enter" else -side
                if rank and action != "enter":
                    across, speed = 0, 0.0
                turn = math.radians(r.uniform(15, 60))  # 0 comes towards the camera, 90 crosses
                heading = self.azimuth + (across or 1) * turn
                if action in ("run", "enter"):
                    heading = self.azimuth + across * math.radians(r.uniform(70, 80))
                if action == "enter":  # so that it arrives beside the subject at the end
                    middle = place + side * 0.5 * speed * LENGTH * right
            low, high = sorted((r.uniform(-40, 40), r.uniform(-40, 40)))
            if high - low < 15:
                low, high = low - 8, high + 8
            if r.random() < 0.5:
                low, high = high, low
            if rank == 0 and shot.shot_size in ("close up", "medium close up"):
                low, high = low * 0.8, high * 0.8
            self.tracks[k] = {
                "middle": middle,
                "mark": place,
                "heading": heading,
                "speed": speed,
                "low": low,
                "high": high,
                "spin": action in ("turn", "turn_fast"),
                "rate": 2.2 if action == "turn_fast" else 1.0,
            }

    def person_at(self, k: int, u: float) -> tuple[np.ndarray, float, float]:
        """Place [2], body yaw and head yaw (radians, world) of figure k at u."""
        t = self.tracks[k]
        forward = np.array([math.sin(t["heading"]), -math.cos(t["heading"])])
        place = t["middle"] + forward * t["speed"] * LENGTH * (u - 0.5)
        ease = 0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, t["rate"] * (u - 0.5) + 0.5)))
        look = self.azimuth + math.radians(t["low"] + (t["high"] - t["low"]) * ease)
        body = t["heading"] + (0.5 * (look - self.azimuth) if t["spin"] else 0.0)
        return place, body, body + min(1.2, max(-1.2, look - body))

    # -------------------------------------------------------- camera

    def stage_camera(self, r: random.Random) -> bool:
        """Distance, height, move; False if something stands in the way."""
        shot, subject = self.shot, self.shot.subject
        scale = self.figures[subject].person.shape["tall"]
        self.lens = {"close up": 60.0, "medium close up": 52.0, "medium shot": 42.0, "wide shot": 35.0}[
            shot.shot_size
        ]
        fraction = r.uniform(*HEAD_FRACTION[shot.shot_size])
        frame = HEAD_HEIGHT * scale / fraction  # metres seen from top to bottom at the subject
        self.distance = frame * self.lens / (SENSOR * HEIGHT / WIDTH)
        drop = {"close up": 0.02, "medium close up": 0.06, "medium shot": 0.28, "wide shot": 0.62}[
            shot.shot_size
        ]
        self.aim_z = HEAD_Z * scale - drop
        self.eye_z = max(0.5, self.aim_z + r.uniform(-0.10, 0.22) * min(2.5, self.distance) / 1.5)
        self.offset = r.uniform(-0.10, 0.10) * frame
        others = [t for k, t in enumerate(self.tracks) if k != subject]
        if others and shot.shot_size == "medium close up":  # keep both in the frame
            right = np.array([math.cos(self.azimuth), math.sin(self.azimuth)])
            self.offset = 0.38 * float((others[0]["mark"] - self.tracks[subject]["middle"]) @ right)
        self.follow = {"close up": 0.9, "medium close up": 0.85, "medium shot": 0.6, "wide shot": 0.2}[
            shot.shot_size
        ]
        if shot.actions[subject] == "run":  # else the runner is in the frame for half the shot
            self.follow = 0.92
        amount = r.choice([-1, 1])
        self.move = {
            "hold": (0, 0, 0),
            "pan": (amount * 0.10 * frame, 0, 0),
            "dolly": (0, amount * 0.12, 0),
            "orbit": (0, 0, amount * math.radians(9)),
            "whip": (amount * 0.40 * frame, 0, 0),
            "orbit_fast": (0, 0.1, amount * math.radians(30)),
        }[shot.camera_move]
        return all(self.view_is_free(u) for u in (0.0, 0.5, 1.0))

    def camera_at(self, u: float) -> tuple[np.ndarray, np.ndarray]:
        """Eye and aim [3] at u."""
        subject = self.shot.subject
        middle = self.tracks[subject]["middle"]
        place = middle + self.follow * (self.person_at(subject, u)[0] - middle)
        swing = u - 0.5 if self.shot.camera_move != "whip" else 0.5 * math.tanh(6 * (u - 0.45))
        slide, zoom, orbit = (m * 2 * swing for m in self.move)
        angle, distance = self.azimuth + orbit, self.distance * (1 - zoom)
        right = np.array([math.cos(angle), math.sin(angle)])
        aim = np.array([*(place + (self.offset + slide) * right), self.aim_z])
        still = place + self.offset * right
        eye = np.array(
            [still[0] + distance * math.sin(angle), still[1] - distance * math.cos(angle), self.eye_z]
        )
        return eye, aim

    def view_is_free(self, u: float) -> bool:
        """Whether the line from camera to subject keeps clear of props, walls and other people."""
        eye, _ = self.camera_at(u)
        place = self.person_at(self.shot.subject, u)[0]
        if abs(eye[0]) > self.stage.half_width - 0.3 and eye[1] > -6.0:
            return False
        if not all(
            -3.1 < self.person_at(k, v)[0][1] < -0.95 for k in range(len(self.tracks)) for v in (0.0, 1.0)
        ):
            return False
        circles = [(x, y, rad + 0.15) for x, y, rad in self.stage.obstacles]
        for k in range(len(self.tracks)):
            at = self.person_at(k, u)[0]
            if k != self.shot.subject:
                circles.append((*at, 0.42))
                if np.linalg.norm(at - place) < 0.5:
                    return False
            for x, y, rad in self.stage.obstacles:
                if math.hypot(at[0] - x, at[1] - y) < rad + 0.15:
                    return False
        line = place - eye[:2]
        for x, y, rad in circles:
            along = np.clip(((x, y) - eye[:2]) @ line / (line @ line), 0.0, 1.0)
            if np.linalg.norm((x, y) - (eye[:2] + along * line)) < rad and along < 0.95:
                return False
        return True

    def stage_drive(self, number: int, r: random.Random) -> None:
        """The ego camera of the road world: over the bonnet, then another mount."""
        self.lens = r.uniform(24, 34)
        self.side = 2.0 + r.uniform(-0.3, 0.3)
        self.height = r.uniform(1.25, 1.6) if number == 0 else r.uniform(1.5, 2.2)
        self.yaw = r.uniform(-0.03, 0.03) if number == 0 else r.choice([-1, 1]) * r.uniform(0.1, 0.35)
        self.drift = r.uniform(-0.05, 0.05)

    def pose(self, u: float) -> None:
        """Move everything to u in 0..1 of this shot."""
        time = self.start + u * LENGTH
        self.camera.data.lens = self.lens
        if self.plan.world == "road":
            y = float(self.plan.decor["ego_speed"]) * time
            yaw = self.yaw + self.drift * (u - 0.5)
            for obj, speed in self.stage.movers:
                heading = obj.rotation_euler[2]
                if "start_y" not in obj:
                    obj["start_y"] = obj.location.y
                obj.location.y = obj["start_y"] - math.cos(heading) * speed * time
            eye = np.array([self.side, y, self.height])
            aim = eye + np.array([10 * math.sin(yaw), 10 * math.cos(yaw), -0.45])
            self.camera.data.dof.focus_distance = 18.0
            self.camera.data.dof.aperture_fstop = 8.0
        else:
            for k, figure in enumerate(self.figures):
                place, body, head = self.person_at(k, u)
                figure.pose(self.shot.actions[k], time, tuple(place), body, head, self.tracks[k]["speed"])
            eye, aim = self.camera_at(u)
            self.camera.data.dof.focus_distance = self.distance
            self.camera.data.dof.aperture_fstop = 2.4 + 1.2 * min(1.0, self.distance / 3)
        self.camera.location = eye
        self.camera.rotation_euler = Vector(aim - eye).to_track_quat("-Z", "Y").to_euler()
        bpy.context.view_layer.update()


def project(camera: bpy.types.Object, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points [n, 3] to pixels [n, 2] (x right, y down) and depths [n] in metres."""
    inverse = np.array(camera.matrix_world.inverted())
    local = points @ inverse[:3, :3].T + inverse[:3, 3]
    depth = -local[:, 2]
    scale = WIDTH * camera.data.lens / SENSOR / np.maximum(depth, 1e-3)
    return np.stack([WIDTH / 2 + local[:, 0] * scale, HEIGHT / 2 - local[:, 1] * scale], 1), depth


def measure_face(figure: Figure, camera: bpy.types.Object, ids: np.ndarray, depth: np.ndarray) -> dict:
    """Face box, landmarks (pixels) and the share of the face that is seen, from ids and depth."""
    matrix = np.array(figure.head.matrix_world)

    def to_world(points: np.ndarray) -> np.ndarray:
        return points @ matrix[:3, :3].T + matrix[:3, 3]

    outline = to_world(face_points(figure.person))
    pixels, away = project(camera, outline)
    marks, _ = project(camera, to_world(landmarks(figure.person)))
    front = -matrix[:3, 1] / np.linalg.norm(matrix[:3, 1])
    towards = np.array(camera.matrix_world.translation) - matrix[:3, 3]
    facing = float(front @ towards / np.linalg.norm(towards))
    column, row = np.floor(pixels[:, 0]).astype(int), np.floor(pixels[:, 1]).astype(int)
    inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT) & (away > 0.1)
    seen = np.zeros(len(pixels), bool)
    seen[inside] = (ids[row[inside], column[inside]] == figure.index) & (
        np.abs(depth[row[inside], column[inside]] - away[inside]) < 0.2
    )
    visibility = float(seen.mean()) if facing > 0.25 and away.min() > 0.1 else 0.0
    box = [*pixels.min(0), *pixels.max(0)] if away.min() > 0.1 else [0.0] * 4
    return {
        "object_id": figure.index,
        "identity": figure.person.id,
        "box": [round(float(v), 2) for v in box],
        "landmarks": np.round(marks, 2).tolist(),
        "visibility": round(visibility, 3),
        "facing": round(facing, 3),
    }
