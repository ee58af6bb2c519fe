"""One validated, frozen configuration: every size, count, step and model folder of a run.

A profile is a YAML file in rmkit/profiles/ or a path of the user's; unknown keys are refused. One that says
`extends: mini` (a shipped name or a path) holds its own name and what it changes; `settings` explains each setting.
Reads profiles; writes nothing.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from rmkit.errors import InputError
from rmkit.paths import REPOSITORY, Layout
from rmkit.settings import (  # noqa: F401 the other rooms take them from here
    WAN_NEGATIVE_PROMPT,
    WEATHERS,
    Accelerator,
    Anchors,
    Baselines,
    Clips,
    Data,
    Enhance,
    FolderName,
    Identity,
    Judge,
    MetricName,
    Models,
    Propagation,
    Settings,
    Structure,
    Train,
    Variant,
    Weather,
    require_plain,
)

PROFILES = Path(__file__).resolve().parent / "profiles"


def _named(given: Any) -> Any:
    """Without those that a profile sets to null, to be rid of one that it extends."""
    return (
        {key: name for key, name in given.items() if name is not None} if isinstance(given, dict) else given
    )


class Profile(Settings):
    """All settings of a run. `Profile.layout` is where its results go."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=100)]
    extends: str | None = Field(
        None,
        description="profile that holds all other settings, and whose run is reused where nothing changed",
    )
    seed: int = Field(0, ge=0, lt=2**32)
    data: Data
    clips: Clips
    models: Models
    anchors: Anchors = Anchors()
    structure: Structure = Structure()
    propagation: Propagation = Propagation()
    identity: Identity = Identity()
    train: Train
    enhance: Enhance = Enhance()
    weather: Weather = Weather()
    metrics: Annotated[dict[MetricName, str], BeforeValidator(_named)] = Field(
        {},
        description="the model of each metric that has one, by the metric's name: folder, file or hub name; null: none",
    )
    judge: Judge = Judge()
    baselines: Baselines = Baselines()
    carla: Data | None = Field(None, description="the data of 07_carla, in place of `data`; null: not run")
    _demo: str = PrivateAttr("")
    # Name, file, names of what it extends.
    _origin: tuple[str, Path, tuple[str, ...]] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _training_size(self) -> "Profile":
        size, clips = self.training_size, self.clips
        if size.frames > clips.frames:
            raise ValueError(f"train.frames is {size.frames} and a clip has only {clips.frames}")
        stretched = (size.width / size.height) / (clips.width / clips.height)
        if not 0.95 < stretched < 1.05:
            raise ValueError(
                f"train.height and train.width, {size.height}x{size.width}, must have the shape of the clips, "
                f"{clips.height}x{clips.width}"
            )
        return self

    @model_validator(mode="after")
    def _anchor_frames(self) -> "Profile":
        frames = self.propagation.anchor_frames or (0,)
        if list(frames) != sorted(set(frames)) or not 0 <= frames[0] <= frames[-1] < self.clips.frames:
            raise ValueError(
                f"propagation.anchor_frames must be frames of a clip, 0 to {self.clips.frames - 1}, in order"
            )
        return self

    @model_validator(mode="after")
    def _accelerated(self) -> "Profile":
        stages = {"editor": self.anchors, "vace": self.propagation, "wan": self.enhance}
        for role, stage in stages.items():
            if not (asked := getattr(self.models.accelerators, role)):
                continue
            group = type(stage).__name__.lower()
            if stage.steps != len(asked.sigmas) or getattr(stage, "shift", asked.shift) != asked.shift:
                raise ValueError(
                    f"models.accelerators.{role} was distilled to {len(asked.sigmas)} steps at shift {asked.shift:g}: "
                    f"set {group}.steps{' and ' + group + '.shift' if role != 'editor' else ''} to that"
                )
        return self

    @property
    def training_size(self) -> Clips:
        """What the adapter is trained on: `clips`, but for the sizes that `train` gives itself."""
        own = self.train.model_dump(include={"height", "width", "frames"}, exclude_none=True)
        return Clips.model_validate({**self.clips.model_dump(), **own})

    @property
    def file(self) -> Path | None:
        """The file that it was read from; None where it was made in a program, or copied under another name."""
        return self._origin[1] if self._origin and self._origin[0] == self.name else None

    @property
    def extended(self) -> tuple[str, ...]:
        """Names of the profiles that it extends, the nearest first; a copy under another name is a run of its own."""
        return self._origin[2] if self._origin and self._origin[0] == self.name else ()

    @property
    def layout(self) -> Layout:
        return Layout(REPOSITORY / "results" / self.name, self._demo)

    def demo(self, folder: str, **groups: dict[str, Any]) -> "Profile":
        """The profile of a demonstration: stages write to results/<profile>/<folder>/ and use this run's adapters.

        groups: settings of its own by group, as data={"source": "carla_loc"}; all others are this profile's. Raises
        ValidationError for a wrong one.
        """
        content = self.model_dump()
        # Nothing is trained there, and its clips may have another shape.
        content["train"] |= dict.fromkeys(("height", "width", "frames"))
        for group, changes in groups.items():
            content[group] |= changes
        made = Profile.model_validate(content)
        made._demo, made._origin = folder, self._origin
        return made


def load(name: str | Path) -> Profile:
    """Read a profile by name (a file in rmkit/profiles/) or by path, with what it extends.

    Raises InputError naming the file, the key and what was expected; for a circle of profiles; and for a name whose run
    folder is another profile's.
    """
    file = _file(name)
    content, extended = _content(file, ())
    try:
        found = Profile.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{file.name}: {first_mistake(error)}") from None
    found._origin = (found.name, file, extended)
    _require_own(found)
    return found


def text(profile: Profile) -> str:
    """All settings as YAML, which `load` reads as the same profile, also where it lacks a metric's model that it extends."""
    content = profile.model_dump(mode="json")
    if profile.extends:
        content["metrics"] = dict.fromkeys(load(profile.extends).metrics) | content["metrics"]
    return yaml.safe_dump(content, sort_keys=False)


def _file(name: str | Path, base: Path = Path()) -> Path:
    """The file of a name, or of a path, which counts from `base`."""
    if str(name).lower().endswith((".yaml", ".yml")):
        file = (base / Path(name).expanduser()).resolve()
    else:
        file = PROFILES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
        own = (base / f"{name}.yaml").resolve()
        hint = (
            f" Yours is given by its path, {own}."
            if own.is_file()
            else " One of your own is given by the path of its .yaml file."
        )
        raise InputError(f"unknown profile '{name}': there is no file {file}; known are {known}.{hint}")
    return file


def _content(file: Path, before: tuple[Path, ...]) -> tuple[Any, tuple[str, ...]]:
    """What a file says, on top of what it extends, and the names of those; before: the files that led to it."""
    content = read_yaml(file)
    if not isinstance(content, dict) or content.get("extends") is None:
        return content, ()
    chain, asked = (*before, file), content["extends"]
    if not isinstance(asked, str):
        raise InputError(f"{file.name}: 'extends' must be the name of a profile or the path of one.")
    try:
        base = _file(asked, file.parent)
    except InputError as error:
        raise InputError(f"{file.name}: 'extends': {error}") from None
    if base in chain:
        circle = " -> ".join(path.name for path in (*chain[chain.index(base) :], base))
        raise InputError(f"{file.name}: 'extends' goes in a circle: {circle}.")
    under, extended = _content(base, chain)
    if not isinstance(under, dict):
        raise InputError(f"{base.name}: 'profile' must be a mapping of settings.")
    extended = (str(under.get("name")), *extended)
    if content.get("name") in (None, *extended):
        raise InputError(
            f"{file.name}: 'name': a profile that extends another has a name of its own, as its results do."
        )
    given = asked if base.parent == PROFILES else str(base)
    return _merged(under, content | {"extends": given}), extended


def _merged(under: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes: groups are gone into, anything else takes the place of what was there."""
    made = dict(under)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(under.get(key), dict)
        made[key] = _merged(under[key], value) if both else value
    return made


class _Twice(yaml.YAMLError):
    """A key that stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which would take the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise _Twice(f"'{key.value}' stands twice, in lines {lines[key.value]} and {line}: keep one")
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Any:
    """What a YAML file holds; raises InputError for one that is none, or has a key twice."""
    try:
        return yaml.load(file.read_bytes(), _Loader)
    except _Twice as error:
        raise InputError(f"{file.name}: {error}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not valid YAML: {error}") from None


def _require_own(profile: Profile) -> None:
    """Raise InputError where the name, and with it the run folder, is that of another file."""
    name, file, layout = profile.name, profile.file, profile.layout
    shipped = PROFILES / f"{name}.yaml"
    # What notebooks are told, and what `verify` compares, are the run's own.
    if file in (shipped, layout.settings.resolve(), (layout.reference / "profile.yaml").resolve()):
        return
    if shipped.is_file():
        raise InputError(
            f"{file}: the name '{name}' is a shipped profile's, and {layout.run} that one's results: give yours another name "
            f"(with `extends: {name}` it needs to hold only what it changes)."
        )
    owner = layout.owner
    if owner and owner != file and owner.is_file():  # a file that is gone was moved or renamed
        raise InputError(
            f"{file}: the results in {layout.run} are those of another profile of that name, {owner}: give yours another "
            "name, or delete that folder."
        )


def first_mistake(error: ValidationError, group: str = "") -> str:
    """The first thing that is wrong, as "'key': what."; `group`: the dotted key of what was validated."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in (group, *first["loc"]) if part not in ("", "[key]")) or "profile"
    said = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
    return f"'{key}': {said.removeprefix('Value error, ')}."


def ours(settings: Settings, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Every setting the paper leaves open: (dotted key after `prefix`, value, description), for the report."""
    rows = []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, Settings):
            rows += ours(value, f"{prefix}{key}.")
        elif "(ours)" in (field.description or ""):
            rows.append((f"{prefix}{key}", value, field.description))
    return rows
