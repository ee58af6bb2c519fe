"""Renders sequences of the miniature world: both looks, depth, object ids, faces, captions.

Reads nothing but its arguments: python render.py --out DIR --split train --first 0 --count 4
Writes DIR/<split>/<sequence>/{render,truth}.mp4, depth.npy, visible.npy, surface.npy, meta.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av
import bpy
import numpy as np
from figures import Figure
from film import BRIGHTNESS, LUMA, add_weather, encode_film, encode_render, haze, match_exposure, soften
from looks import SAMPLES, make_light, make_materials, switch
from sets import build_set
from staging import Take, measure_face
from world import (
    FPS,
    FRAMES,
    HEIGHT,
    SEED_OFFSET,
    SHOT_FRAMES,
    SHOTS,
    SKY_DEPTH,
    WEATHERS,
    WIDTH,
    Plan,
    plan_sequence,
)


def main() -> None:
    """Render the sequences first, first + step, ... that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=list(SEED_OFFSET), required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1, help="sequences to go through")
    parser.add_argument("--step", type=int, default=1, help="2 with two processes side by side")
    parser.add_argument("--looks", default="render,truth")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="paths a pixel of the truth, then denoised"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        choices=range(1, SHOT_FRAMES),
        metavar="N",
        help="render only every Nth frame of a shot, and hold it",
    )
    parser.add_argument(
        "--weather", choices=WEATHERS, help="instead of the plan's own, for its truth in another"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    looks = arguments.looks.split(",")
    if not set(looks) <= {"render", "truth"}:
        parser.error(f"--looks takes render and truth, not {arguments.looks!r}.")
    for k in range(arguments.count):
        plan = plan_sequence(arguments.split, arguments.first + k * arguments.step)
        plan = replace(plan, weather=arguments.weather or plan.weather)
        folder = arguments.out / plan.split / plan.sequence
        if (folder / "meta.json").exists():
            continue
        begin = time.time()
        parts = render_sequence(plan, folder, looks, arguments.threads, arguments.samples, arguments.every)
        told = " ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
        print(f"{plan.split}/{plan.sequence} {time.time() - begin:.1f} s ({told})", flush=True)


def render_sequence(
    plan: Plan, folder: Path, looks: list[str], threads: int, samples: int = SAMPLES, every: int = 1
) -> dict[str, float]:
    """Build once, render passes and looks, write the folder; returns seconds by part."""
    clock, parts = time.time(), {}

    def lap(name: str) -> None:
        nonlocal clock
        parts[name], clock = time.time() - clock, time.time()

    takes, figures, stage = build(plan, threads)
    lap("build")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        coded, faces = shoot("passes", plan, takes, work, every, figures)
        visible = np.rint(coded[..., 0]).astype(np.uint8)
        depth = np.where(visible == 0, SKY_DEPTH, coded[..., 1]).astype(np.float16)
        surface, _ = shoot("surface", plan, takes, work, every)
        lap("passes")
        # Both looks get the brightness of the scene's base colours: a bright room stays bright, and the gap
        # between the looks is one of light and material, not of exposure.
        unlit, light = (shoot(look, plan, takes, work, every)[0] for look in ("unlit", "render"))
        if plan.world == "road":  # the other engine's bluish air
            unlit, light = (
                haze(x, depth.astype(np.float32), (0.55, 0.66, 0.85), 170.0) for x in (unlit, light)
            )
        brightness = float((encode_render(unlit) @ LUMA).mean())
        lap("render")
        if "render" in looks:
            stops = match_exposure(light, brightness, encode_render)
            write_video(work / "render.mp4", encode_render(light * 2.0**stops))
        if "truth" in looks:
            light, _ = shoot("truth", plan, takes, work, every, samples=samples)
            light = add_weather(light, depth.astype(np.float32), plan.weather, plan.seed)
            target = brightness * BRIGHTNESS[plan.weather]
            film = encode_film(light * 2.0 ** match_exposure(light, target))
            write_video(work / "truth.mp4", soften(film))
            lap("truth")
        np.save(work / "depth.npy", depth)
        np.save(work / "visible.npy", visible)
        np.save(work / "surface.npy", surface)
        (work / "meta.json").write_text(json.dumps(describe(plan, stage.objects, faces), indent=1))
        os.chmod(work, 0o755)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return parts


def build(plan: Plan, threads: int) -> tuple[list[Take], list[Figure], object]:
    """An empty file, then set, people, light, camera and the staged shots."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    r = random.Random(f"light {plan.seed}")
    materials = make_materials(plan)
    stage = build_set(plan, materials)
    figures = []
    for person in plan.identities:
        number = stage.claim("person", f"person {person.id}")
        figures.append(Figure(person, number, materials))
    side = r.choice([-1, 1])
    azimuth, elevation = {
        "street": (r.uniform(20, 60), r.uniform(35, 55)),
        "interior": (r.uniform(15, 45), r.uniform(40, 55)),
        "road": (r.uniform(20, 60), r.uniform(38, 58)),
    }[plan.world]
    if plan.weather == "dusk":
        elevation = 14.0 + 0.15 * elevation
    make_light(plan, side * math.radians(azimuth), math.radians(elevation))
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.clip_start, camera.data.clip_end = 0.05, 400.0
    image = scene.render
    image.resolution_x, image.resolution_y, image.resolution_percentage = WIDTH, HEIGHT, 100
    image.threads_mode, image.threads = "FIXED", threads
    image.image_settings.file_format = "OPEN_EXR"
    image.image_settings.color_depth, image.image_settings.exr_codec = "32", "NONE"
    takes = [Take(plan, k, stage, figures, camera) for k in range(SHOTS)]
    return takes, figures, stage


def shoot(
    look: str,
    plan: Plan,
    takes: list[Take],
    work: Path,
    every: int,
    figures: list[Figure] | None = None,
    samples: int = SAMPLES,
) -> tuple[np.ndarray, list[list[dict]]]:
    """All frames in one look, linear float32 [frames, height, width, 3]; with figures, the faces.

    With `every` above 1 only every so many frames of a shot are rendered, from its first on, and held until the next.
    """
    scene = bpy.context.scene
    switch(look, plan, samples)
    path = work / "frame.exr"
    scene.render.filepath = str(path)
    frames, faces = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.float32), []
    for k in range(FRAMES):
        if k % SHOT_FRAMES % every:
            frames[k] = frames[k - 1]
            faces += faces[-1:]
            continue
        takes[k // SHOT_FRAMES].pose(k % SHOT_FRAMES / (SHOT_FRAMES - 1))
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(str(path))
        flat = np.empty(len(image.pixels), np.float32)
        image.pixels.foreach_get(flat)
        bpy.data.images.remove(image)
        frames[k] = flat.reshape(HEIGHT, WIDTH, -1)[::-1, :, :3]
        if figures is not None:
            ids = np.rint(frames[k, ..., 0])
            faces.append([measure_face(f, scene.camera, ids, frames[k, ..., 1]) for f in figures])
    path.unlink()
    return frames, faces


def write_video(path: Path, frames: np.ndarray) -> None:
    """0..1 frames as lossless H.264 in RGB; raises if they do not read back bit for bit."""
    pixels = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        stream.options = {"qp": "0", "preset": "medium"}
        stream.thread_count = 1
        for frame in pixels:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    with av.open(str(path)) as container:
        back = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    if not np.array_equal(back, pixels):
        raise RuntimeError(f"{path} does not read back bit for bit.")


def describe(plan: Plan, objects: dict, faces: list[list[dict]]) -> dict:
    """The contents of meta.json."""
    shots = [
        {
            "first_frame": s.first_frame,
            "frames": s.frames,
            "caption": s.caption,
            "weather": plan.weather,
            "subsets": s.subsets,
            "shot_size": s.shot_size,
            "camera_move": s.camera_move,
        }
        for s in plan.shots
    ]
    return {
        "sequence": plan.sequence,
        "split": plan.split,
        "world": plan.world,
        "seed": plan.seed,
        "fps": FPS,
        "size": [HEIGHT, WIDTH],
        "shots": shots,
        "objects": {str(k): v for k, v in objects.items()},
        "identities": [p.id for p in plan.identities],
        "faces": faces,
    }


if __name__ == "__main__":
    main()
