"""From linear light to frames: the game's encoding, a filmic curve, a lens, matched exposure, weather.

Reads and writes nothing; arrays are float32 [frames, height, width, 3], linear Rec. 709.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw
from world import FPS, HEIGHT, SHOT_FRAMES, WIDTH

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# AgX as published by T. Sobotka, in the polynomial form used by real-time engines.
INSET = np.array(
    [
        [0.842479062253094, 0.0784335999999992, 0.0792237451477643],
        [0.0423282422610123, 0.878468636469772, 0.0791661274605434],
        [0.0423756549057051, 0.0784336, 0.879142973793104],
    ],
    np.float32,
)
OUTSET = np.linalg.inv(INSET).astype(np.float32)
EV_LOW, EV_HIGH = -12.47393, 4.026069
POLYNOMIAL = (15.5, -40.14, 31.96, -6.868, 0.4298, 0.1191, -0.00232)
GRADE_POWER, GRADE_SATURATION = 1.30, 1.30  # one constant grade
LENS_SIGMA = 0.6  # pixels: contrast halves at 0.31 cycles a pixel, as in a video camera
BRIGHTNESS = {"clear": 1.0, "rain": 0.85, "snow": 1.08, "fog": 1.05, "dusk": 0.72}  # truth / render
FOG_COLOUR = {"fog": (0.62, 0.64, 0.66), "rain": (0.30, 0.33, 0.37), "snow": (0.55, 0.58, 0.62)}
FOG_METRES = {"fog": 7.0, "rain": 30.0, "snow": 30.0}


def encode_render(light: np.ndarray) -> np.ndarray:
    """Clip and encode as sRGB: the 'Standard' view transform; 0..1."""
    x = np.clip(light, 0.0, 1.0)
    return np.where(x < 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def encode_film(light: np.ndarray) -> np.ndarray:
    """AgX with the constant grade; 0..1."""
    x = np.maximum(light @ INSET.T, 1e-10)
    x = np.clip((np.log2(x) - EV_LOW) / (EV_HIGH - EV_LOW), 0.0, 1.0)
    y = np.zeros_like(x)
    for coefficient in POLYNOMIAL:
        y = y * x + coefficient
    y = np.clip(y, 0.0, 1.0) ** GRADE_POWER
    grey = (y @ LUMA)[..., None]
    y = np.maximum(grey + GRADE_SATURATION * (y - grey), 0.0)
    return np.clip(y @ OUTSET.T, 0.0, 1.0)


def soften(frames: np.ndarray) -> np.ndarray:
    """Encoded frames as a lens and a sensor resolve them; the game's edges stay those of its pixels."""
    return np.stack([cv2.GaussianBlur(f, (0, 0), LENS_SIGMA, borderType=cv2.BORDER_REFLECT) for f in frames])


def match_exposure(
    light: np.ndarray, target: float, encode: Callable[[np.ndarray], np.ndarray] = encode_film
) -> float:
    """Stops that give the light the mean luminance `target` (0..1) after encoding."""
    few = light[::3, ::2, ::2]
    low, high = -6.0, 6.0
    for _ in range(18):
        middle = (low + high) / 2
        if float((encode(few * 2.0**middle) @ LUMA).mean()) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def haze(light: np.ndarray, depth: np.ndarray, colour: tuple, metres: float) -> np.ndarray:
    """Mix towards a haze colour with the distance, e-fold `metres`."""
    share = (1 - np.exp(-np.minimum(depth, 400.0) / metres))[..., None].astype(np.float32)
    return light * (1 - share) + share * np.asarray(colour, np.float32)


def add_weather(light: np.ndarray, depth: np.ndarray, weather: str, seed: int) -> np.ndarray:
    """Haze by depth, then streaks or flakes that fall in front of what lies behind them."""
    if weather in FOG_METRES:
        grey = np.asarray(FOG_COLOUR[weather], np.float32) * float(np.median(light @ LUMA)) * 2.2
        light = haze(light, depth, tuple(grey), FOG_METRES[weather])
    if weather not in ("rain", "snow"):
        return light
    rain = weather == "rain"
    bright = float(np.percentile(light @ LUMA, 85)) * (1.3 if rain else 1.8)
    alpha = np.stack([drops(k, depth[k], rain, seed) for k in range(len(light))])[..., None]
    return light * (1 - alpha) + alpha * bright


def drops(frame: int, depth: np.ndarray, rain: bool, seed: int) -> np.ndarray:
    """Coverage [height, width] of rain streaks or flakes in one frame.

    Fewer and larger than in nature: a streak of less than a pixel and a half does not survive the video VAE at this size.
    """
    r = np.random.default_rng(seed + 7919 * (frame // SHOT_FRAMES))
    count, speed = (260, 6.5) if rain else (330, 1.1)  # m/s
    away = r.uniform(0.9, 7.0, count)
    tall = away * 0.75
    x = r.uniform(-1, 1, count) * away * 0.62
    phase = r.uniform(0, 1, count)
    time = frame / FPS
    z = ((phase - speed * time / tall) % 1.0 - 0.5) * tall
    x = x + (0.10 * speed * time % 0.5 if rain else 0.12 * np.sin(3 * time + 9 * phase))
    scale = WIDTH * 1.3 / away * 3  # three times oversampled
    column, row = 1.5 * WIDTH + x * scale, 1.5 * HEIGHT - z * scale
    image = Image.new("L", (3 * WIDTH, 3 * HEIGHT), 0)
    draw = ImageDraw.Draw(image)
    for c, w, a, s in zip(column, row, away, scale, strict=True):
        i, j = int(w / 3), int(c / 3)
        if not (0 <= i < HEIGHT and 0 <= j < WIDTH) or depth[i, j] < a:
            continue
        if rain:
            length = max(speed / FPS * 0.30 * s, 24)
            draw.line([(c, w), (c - 0.10 * length, w - length)], fill=170, width=5)
        else:
            size = max(0.014 * s, 3.2)
            draw.ellipse([c - size, w - size, c + size, w + size], fill=235)
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255
