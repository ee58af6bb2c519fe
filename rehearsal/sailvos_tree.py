"""A made SAIL-VOS: the release's folders, names and keys, with painted pictures in which things move and shots change.

Writes `<root>/{train,valid}.json`, COCO-like, `<video>/images/*.bmp` (1280x800, divided), `visible/*.npy` (object-id maps)
and `<objid>_<Class>/*.png` (amodal masks). There is no depth and no caption, as in the release.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# Frames of each shot of seven of SAIL-VOS' videos (PySceneDetect, content score 27): most are shorter than a clip.
SHOTS = {
    "train.json": {
        "ah_1_mcs_1": (9, 29, 7, 16, 52, 45, 5, 86, 48, 7, 16, 50),
        "ah_3a_explosion": (9, 72, 22, 123),
        "fam_2_mcs_1": (9, 5, 143, 42, 29, 12, 5, 30, 52, 58, 5, 8, 12),
        "sol_5_mcs_1_p1": (9, 30, 60, 53, 5, 97),
    },
    "valid.json": {
        "hs3f_all_drp1": (9, 15, 104, 140),
        "rbhs_mcs_3_p2": (9, 96),
        "trv_drf_idle": (9, 42, 25, 33, 87, 10),
    },
}
SIZE = (800, 1280)  # pixels of a picture of the release
CLASSES = ("person", "car")  # two of its 24, named as it names them


def write(root: Path, divided: float, shorter: float) -> None:
    """Write the tree: sides of pictures divided by the one, lengths of shots by the other."""
    height, width = (round(side / divided) for side in SIZE)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    for listing, shots in SHOTS.items():
        content: dict[str, list] = {"videos": [], "images": [], "annotations": [], "categories": categories}
        for number, (name, lengths) in enumerate(shots.items()):
            content["videos"].append({"id": number, "name": name, "width": width, "height": height})
            lengths = [max(2, round(length / shorter)) for length in lengths]
            for i, (picture, masks) in enumerate(_paint(name, lengths, height, width)):
                _write_frame(root, content, number, name, i, picture, masks)
        (root / listing).write_text(json.dumps(content))


def _write_frame(
    root: Path, content: dict[str, list], number: int, name: str, i: int, picture: np.ndarray, masks: list
) -> None:
    """One frame's files, and its entries in the listing; of two objects in one place the later is seen."""
    video, file = root / name, f"{i:06d}"
    visible = np.zeros(picture.shape[:2], np.int32)
    image = {"id": len(content["images"]), "file_name": f"{name}/images/{file}.bmp", "frame_id": i}
    image |= {"video": number, "vid_name": name, "height": picture.shape[0], "width": picture.shape[1]}
    content["images"].append(image)
    for category, mask in enumerate(masks, start=1):
        visible[mask] = 100 + category
        _save(
            mask.astype(np.uint8) * 255, video / f"{100 + category}_{CLASSES[category - 1]}" / f"{file}.png"
        )
        rows, columns = np.nonzero(mask)
        box = (
            [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] if len(rows) else [0, 0, 0, 0]
        )
        content["annotations"].append(
            {
                "id": len(content["annotations"]),
                "image_id": image["id"],
                "category_id": category,
                "bbox": [int(side) for side in box],
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    _save(picture, video / "images" / f"{file}.bmp")
    (video / "visible").mkdir(exist_ok=True)
    np.save(video / "visible" / f"{file}.npy", visible)


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _paint(name: str, lengths: list[int], height: int, width: int) -> Iterator[tuple[np.ndarray, list]]:
    """Pictures uint8 [H, W, 3] of one video and the masks [H, W] of its objects; each shot has a wall of its own."""
    noise = np.random.default_rng(list(name.encode()))
    side = max(2, height // 12)
    rows, columns = np.mgrid[:height, :width]
    for length in lengths:
        tint = noise.integers(20, 200, 3)
        bricks = noise.integers(-20, 56, (height // side + 1, width // side + length + 2, 1)) + tint
        wall = np.kron(bricks.clip(0, 255), np.ones((side, side, 1))).astype(np.uint8)
        colours, start = noise.integers(0, 256, (len(CLASSES), 3)), noise.integers(0, width // 2)
        for i in range(length):
            picture = wall[:height, i : i + width].copy()
            masks = []
            for k, colour in enumerate(
                colours
            ):  # a person walks to the right, a car comes into the picture from there
                left = start + 2 * i if k == 0 else width - 3 * i
                mask = (abs(columns - left) < (k + 1) * width // 16) & (rows > height * (0.3 + 0.3 * k))
                picture[mask] = colour
                masks.append(mask)
            yield picture, masks
