"""Plans every sequence of the miniature world from its seed: set, people, shots, captions (no bpy).

Reads nothing. Writes nothing: `plan_sequence(split, index)` returns a `Plan` that sets.py builds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

HEIGHT, WIDTH = 96, 144  # pixels
FPS = 8
SHOT_FRAMES = 17  # 4 k + 1, what a video VAE with 4x temporal stride takes
SHOTS = 2
FRAMES = SHOT_FRAMES * SHOTS
SKY_DEPTH = 1000.0  # metres, where no surface is hit

SEED_OFFSET = {"pretrain": 0, "train": 100_000, "validation": 200_000, "road": 300_000}
IDENTITY_POOL = {"pretrain": (0, 240), "train": (1000, 48), "validation": (2000, 24)}
WEATHER_SHARE = 0.3  # of the street and road sequences of split pretrain
LABELLED_FROM = 752  # first pretrain sequence whose people may walk in or move fast, as some of validation do
WEATHERS = ("clear", "rain", "snow", "fog", "dusk")
KEPT = range(2270, 2300)  # pretrain sequences that nothing is trained on: for choosing, and for rulers
WEATHERS_FROM = 2000  # pretrain sequences from here on: outdoor scenes, each five times, once in each weather

# Base colours in sRGB; the names are the caption's colour words.
COLOURS = {
    "red": (0.74, 0.17, 0.15),
    "orange": (0.87, 0.47, 0.14),
    "yellow": (0.88, 0.74, 0.25),
    "green": (0.25, 0.52, 0.27),
    "teal": (0.16, 0.52, 0.52),
    "blue": (0.20, 0.35, 0.70),
    "purple": (0.47, 0.29, 0.60),
    "pink": (0.86, 0.52, 0.60),
    "white": (0.86, 0.85, 0.82),
    "grey": (0.52, 0.53, 0.54),
    "black": (0.15, 0.15, 0.17),
    "brown": (0.45, 0.30, 0.20),
}
HAIR_COLOURS = {
    "black": (0.11, 0.10, 0.11),
    "brown": (0.34, 0.21, 0.13),
    "blond": (0.83, 0.67, 0.36),
    "red": (0.63, 0.25, 0.10),
    "grey": (0.60, 0.60, 0.61),
    "white": (0.86, 0.86, 0.85),
}
SKINS = [
    (0.95, 0.79, 0.69),
    (0.91, 0.71, 0.57),
    (0.84, 0.62, 0.46),
    (0.73, 0.51, 0.36),
    (0.60, 0.40, 0.28),
    (0.47, 0.31, 0.22),
    (0.38, 0.25, 0.18),
]
IRISES = [(0.22, 0.13, 0.08), (0.16, 0.33, 0.58), (0.20, 0.42, 0.25), (0.35, 0.36, 0.38)]
HEAD_FRACTION = {
    "close up": (0.60, 0.72),
    "medium close up": (0.43, 0.52),
    "medium shot": (0.22, 0.29),
    "wide shot": (0.10, 0.14),
}  # of the frame's height
WEATHER_WORDS = {
    "clear": "",
    "rain": "in the rain, ",
    "snow": "in the snow, ",
    "fog": "in fog, ",
    "dusk": "at dusk, ",
}
WALL_PATTERNS = {"brick": "brick", "plank": "wooden", "plain": "plain", "stripe": "striped", "tile": "tiled"}
RGB = tuple[float, float, float]


@dataclass
class Identity:
    """A person: everything that tells one from another, from one integer."""

    id: int
    woman: bool
    skin: RGB
    hair: str
    hair_style: str
    hat: str
    hat_colour: str
    glasses: str
    glasses_colour: str
    beard: str
    shirt: str
    striped: bool
    shirt_second: str
    trousers: str
    skirt: bool
    iris: RGB
    shape: dict[str, float] = field(default_factory=dict)

    def words(self) -> str:
        """The noun phrase of the caption."""
        with_ = []
        if self.hair_style != "bald":
            with_.append(f"{self.hair} hair")
        if self.beard in ("full", "goatee"):
            with_.append("a beard")
        if self.beard == "moustache":
            with_.append("a moustache")
        if self.glasses != "none":
            with_.append("glasses")
        if self.hat != "none":
            with_.append(f"a {self.hat_colour} hat")
        noun = ("bald " if self.hair_style == "bald" else "") + ("woman" if self.woman else "man")
        phrase = f"a {noun}" + (f" with {' and '.join(with_)}" if with_ else "")
        return f"{phrase} in {article(self.shirt)}{' striped' if self.striped else ''} shirt"


@dataclass
class Shot:
    """One camera set-up of 17 frames."""

    first_frame: int
    shot_size: str
    subject: int  # index in Plan.identities; on the road unused
    camera_move: str  # hold, pan, dolly, orbit
    actions: list[str]  # per figure: stand, turn, talk, wave, walk, run, enter, away
    subsets: list[str]
    caption: str = ""
    frames: int = SHOT_FRAMES


@dataclass
class Plan:
    """A whole sequence before anything is built."""

    sequence: str
    split: str
    world: str
    seed: int
    weather: str
    identities: list[Identity]
    decor: dict[str, str]
    shots: list[Shot]


def article(word: str) -> str:
    """The word after its indefinite article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def identity(number: int) -> Identity:
    """The person with this number; the same number gives the same person in every scene."""
    r = random.Random(f"identity {number}")
    woman = r.random() < 0.5
    style = r.choice(
        ["bob", "long", "bun", "ponytail", "short", "curly"]
        if woman
        else ["short", "short", "quiff", "curly", "bald", "fringe", "bob"]
    )
    hat = r.choice(["none"] * 5 + ["cap", "beanie", "brim"])
    beard = "none" if woman else r.choice(["none", "none", "full", "goatee", "moustache"])
    skin = r.choice(SKINS)
    dark = SKINS.index(skin) >= 3
    hair = r.choice(["black", "brown", "grey"] if dark and r.random() < 0.7 else list(HAIR_COLOURS))
    shirt = r.choice(list(COLOURS))
    u = r.uniform
    shape = {
        "tall": u(0.92, 1.06) * (0.96 if woman else 1.0),
        "head_w": u(0.112, 0.136),
        "head_h": u(0.150, 0.172),
        "jaw": u(-0.05, 0.30) + (0.1 if woman else 0.0),
        "eye_x": u(0.044, 0.058),
        "eye_r": u(0.024, 0.031),
        "eye_tall": u(0.65, 0.95),
        "brow_tilt": u(-0.35, 0.35),
        "brow_r": u(0.005, 0.011) * (0.75 if woman else 1.1),
        "brow_z": u(0.048, 0.062),
        "nose_w": u(0.014, 0.027),
        "nose_l": u(0.030, 0.055),
        "nose_out": u(0.016, 0.034),
        "mouth_w": u(0.030, 0.052),
        "mouth_r": u(0.006, 0.011),
        "smile": u(-0.15, 0.5),
        "ear": u(0.024, 0.038),
        "build": u(0.88, 1.18),
    }
    return Identity(
        id=number,
        woman=woman,
        skin=skin,
        hair=hair,
        hair_style=style,
        hat=hat,
        hat_colour=r.choice(list(COLOURS)),
        glasses=r.choice(["none", "none", "round", "square"]),
        glasses_colour=r.choice(["black", "black", "red", "blue", "white"]),
        beard=beard,
        shirt=shirt,
        striped=r.random() < 0.25,
        shirt_second=r.choice([c for c in COLOURS if c != shirt]),
        trousers=r.choice(["black", "blue", "brown", "grey", "teal", "purple"]),
        skirt=woman and r.random() < 0.4,
        iris=r.choice(IRISES),
        shape=shape,
    )


def world_of(split: str, index: int) -> str:
    """Which of the three worlds a sequence plays in."""
    if split == "road":
        return "road"
    if split == "pretrain" and index >= WEATHERS_FROM:
        return ("street", "road")[(index - WEATHERS_FROM) // len(WEATHERS) % 2]
    cycle = (
        ["street", "interior", "street", "interior", "road"]
        if split == "pretrain"
        else ["street", "interior"]
    )
    return cycle[index % len(cycle)]


def clear_number(number: int) -> tuple[int, int]:
    """Of a pretrain sequence: the one that shows its scene in clear weather, and which weather it is itself in (0: clear)."""
    nth = (number - WEATHERS_FROM) % len(WEATHERS) if number >= WEATHERS_FROM else 0
    return number - nth, nth


def plan_sequence(split: str, index: int) -> Plan:
    """The plan of sequence `index` of a split."""
    if split not in SEED_OFFSET:
        raise ValueError(f"Unknown split {split!r}: choose one of {', '.join(SEED_OFFSET)}.")
    weather, in_every = "clear", split == "pretrain" and index >= WEATHERS_FROM
    first, nth = clear_number(index) if in_every else (index, 0)
    seed = SEED_OFFSET[split] + first
    r = random.Random(seed)
    world = world_of(split, index)
    if in_every:
        weather = WEATHERS[nth]
    elif split == "pretrain" and world != "interior" and r.random() < WEATHER_SHARE:
        weather = r.choice(WEATHERS[1:])
    people: list[Identity] = []
    if world != "road":
        first, size = IDENTITY_POOL[split]
        people = [identity(first + k) for k in r.sample(range(size), 2 if r.random() < 0.6 else 1)]
    subsets: list[list[str]] = [[], []]
    if split == "validation":
        subsets = validation_subsets(index)
    elif split == "pretrain" and index >= LABELLED_FROM and people:
        subsets = [r.choice([["mid_clip_entry"], ["fast_motion"], ["fast_motion"], []]) for _ in range(SHOTS)]
    if any("mid_clip_entry" in s for s in subsets) and len(people) == 1:
        first, size = IDENTITY_POOL[split]
        people.append(identity(first + (people[0].id - first + 7) % size))
    decor = plan_decor(world, r)
    shots = [plan_shot(k, world, people, subsets[k], r) for k in range(SHOTS)]
    for shot in shots:
        if split == "train":
            # The tiny VACE leaves ghosts where the camera moves, also after somebody who walks, and an adapter learns
            # what its pairs show; at full size the face filter throws such pairs away.
            shot.camera_move = "hold"
            shot.actions = ["talk" if action == "walk" else action for action in shot.actions]
        shot.caption = caption(world, decor, people, shot, weather)
    return Plan(f"{world}_{index:05d}", split, world, seed, weather, people, decor, shots)


def validation_subsets(index: int) -> list[list[str]]:
    """Which shots of a validation sequence carry a label; every fourth sequence carries none."""
    rows = [
        [["mid_clip_entry"], []],
        [[], ["many_small"]],
        [["fast_motion"], []],
        [[], []],
        [[], ["many_small"]],
        [["fast_motion"], []],
        [["mid_clip_entry"], []],
        [[], []],
    ]
    return rows[index % len(rows)]


def plan_decor(world: str, r: random.Random) -> dict[str, str]:
    """Colours and patterns of the large things; the caption mentions some of them."""
    colour = lambda *no: r.choice([c for c in COLOURS if c not in no])  # noqa: E731
    wall = colour("black")
    decor = {
        "wall": wall,
        "wall_pattern": "plain",
        "door": colour(wall),
        "second": colour("black", wall),
        "prop": colour(),
        "car": colour(),
    }
    if world == "street":
        decor["wall_pattern"] = r.choice(["brick", "brick", "plank", "plain"])
    if world == "interior":
        decor["wall_pattern"] = r.choice(["plain", "stripe", "plank", "tile", "brick"])
        decor["floor"] = r.choice(["plank", "plank", "tile", "plain"])
        decor["sofa"] = colour(wall)
    return decor


def plan_shot(number: int, world: str, people: list[Identity], subsets: list[str], r: random.Random) -> Shot:
    """Shot size, camera move and what the people do."""
    size = r.choices(list(HEAD_FRACTION), [0.32, 0.42, 0.16, 0.10])[0]
    move = r.choice(["hold", "pan", "dolly", "orbit"])
    verbs = ["stand", "turn", "talk", "talk", "wave", "walk", "walk"]
    actions = [r.choice(verbs) for _ in people]
    subject = number % len(people) if people else 0
    if "many_small" in subsets or world == "road":
        size = "wide shot"
    if "mid_clip_entry" in subsets:
        size, move, subject = "medium close up", "hold", 0
        actions = [r.choice(["stand", "talk", "turn"]), "enter"]
    if "fast_motion" in subsets:
        size = r.choice(["medium close up", "medium shot"])
        move, actions[subject] = r.choice(
            [("whip", "turn_fast"), ("orbit_fast", "turn_fast"), ("pan", "run")]
        )
    return Shot(number * SHOT_FRAMES, size, subject, move, actions, subsets)


VERBS = {
    "stand": "stands",
    "turn": "turns",
    "talk": "talks",
    "wave": "waves",
    "walk": "walks",
    "run": "runs",
    "enter": "walks in",
    "turn_fast": "turns",
}


def caption(world: str, decor: dict[str, str], people: list[Identity], shot: Shot, weather: str) -> str:
    """One sentence with what a person sees in the shot."""
    begin, end = WEATHER_WORDS[weather], f", {shot.shot_size}"
    if world == "road":
        return (
            f"{begin}a drive along a road with {article(decor['car'])} car, {decor['wall']} and "
            f"{decor['second']} buildings and trees{end}"
        )
    who = [people[shot.subject].words() + " " + VERBS[shot.actions[shot.subject]]]
    others = [k for k in range(len(people)) if k != shot.subject]
    if others and shot.shot_size != "close up":
        verb = VERBS[shot.actions[others[0]]]
        who.append(people[others[0]].words() + " " + verb)
    wall = f"{article(decor['wall'])} {WALL_PATTERNS[decor['wall_pattern']]} wall"
    small = "many small things" if "many_small" in shot.subsets else ""
    if world == "street":
        place = f"in a street by {wall} with {article(decor['door'])} door"
        place += f" and {small}" if small else ""
    else:
        things = f"and {article(decor['sofa'])} sofa" + (f" and {small}" if small else "")
        place = f"in a room with {wall} {things}"
    return f"{begin}{' and '.join(who)} {place}{end}"
