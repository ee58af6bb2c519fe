"""A video written anew with other pictures: times, shape of pixels, colours and all other streams stay the input's (ours).

Reads the input's other streams, which are copied and not encoded again; writes mp4, mov or mkv.
"""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from rmkit.errors import InputError
from rmkit.kit import colour, footage, video
from rmkit.kit.footage import Footage

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # by the ending of the output
QUALITY = 12  # crf of the output: no loss that a person sees
MADE = "Made by the RealMaster kit"  # the comment in each file, by which it is known again
COPIED = ("language", "title", "handler_name")  # of a stream's facts; others are of the container it was in


def check(shot: Footage, target: Path) -> str:
    """What of an input's pictures and streams is left out of `target`, as a note; '' for nothing.

    Raises InputError where the output's ending is none of FORMATS or its container does not hold the input's sound.
    """
    ending = target.suffix.lower()
    if ending not in FORMATS:
        raise InputError(
            f"{target} must end in .mp4 (or {', '.join(list(FORMATS)[1:])}): nothing else is written."
        )
    with footage.opened(shot.path) as source:
        streams = [stream for stream in source.streams if stream.index != shot.stream]
        unheld = [s for s in streams if not _is_held(s, FORMATS[ending])]
        lost = [(s.type, _codec(s)) for s in unheld]
        does_mkv = all(_is_held(s, "matroska") for s in unheld if s.type == "audio")
    if sounds := [codec for kind, codec in lost if kind == "audio"]:
        mkv = "name an output that ends in .mkv, or " if does_mkv else ""
        raise InputError(
            f"{shot.path} has sound as {sounds[0]}, which {ending[1:]} does not hold: {mkv}convert the input first, as by "
            f"`ffmpeg -i {shot.path.name} -c:v copy -c:a aac {shot.path.stem}.aac.mkv`."
        )
    notes = [*shot.lost]
    if names := ", ".join(f"{kind} ({codec})" if codec else kind for kind, codec in lost):
        notes.append(f"left out, since {ending[1:]} does not hold it: {names}")
    return "; ".join(notes)


def write(path: Path, frames: Iterable[np.ndarray], shot: Footage, streams: bool = True) -> None:
    """Write as many frames as `shot` has, uint8 [H, W, 3], at its times and in its colours, by the ending of `path`.

    streams: sound and what else it holds is copied; without, it is a copy for looking at (4:2:0). A file that names no
    matrix gets the one that it was read by. Raises ValueError where there are fewer or more frames.
    """
    kind, (first, frames) = FORMATS[path.suffix.lower()], video.started(path, frames)
    colours = shot.colour
    if colours.matrix == colour.RGB:
        matrix = colour.assumed(len(first))
        colours = colour.Colour(matrix, colour.LIMITED, colours.primaries, colours.transfer)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {} if kind == "matroska" else {"movflags": "+faststart"}
    rate = max(shot.fps.limit_denominator(1001), Fraction(1, 1001))
    with (
        footage.opened(shot.path) as source,
        av.open(str(path.absolute()), "w", format=kind, options=options) as container,
    ):
        container.metadata["comment"] = MADE
        pixels = video.pixels(first, shot.subsampling if streams else "420")
        encoder = container.add_stream("libx264", rate=rate, options=video.coding(QUALITY, pixels))
        encoder.height, encoder.width = first.shape[:2]
        encoder.pix_fmt = pixels
        encoder.codec_context.thread_count = 1  # the same bytes whatever the number of cores
        encoder.codec_context.time_base = encoder.time_base = shot.base
        encoder.codec_context.sample_aspect_ratio = shot.aspect
        colour.tag(encoder, colours)
        copied = [s for s in source.streams if streams and s.index != shot.stream and _is_held(s, kind)]
        beside = _Copied(source, copied, container, shot.begins)
        begins = round(shot.begins / shot.base)
        ends = [*shot.times[1:], shot.times[-1] + shot.lasts]
        for frame, at, end in zip(frames, shot.times, ends, strict=True):
            video.require_rgb(frame)
            picture = colour.from_rgb(frame, colours, encoder.pix_fmt)
            picture.pts, picture.time_base, picture.duration = at - begins, shot.base, end - at
            container.mux(encoder.encode(picture))
            beside.up_to(at * shot.base - shot.begins)
        container.mux(encoder.encode())
        beside.up_to(None)


def is_made(path: Path) -> bool:
    """Whether a file says that the kit has written it."""
    try:
        with footage.opened(path) as container:
            facts = {key.lower(): value for key, value in container.metadata.items()}
            return facts.get("comment") == MADE
    except InputError:
        return False


class _Copied:
    """Other streams, written as the pictures go on, so that a player finds in one place what belongs together."""

    def __init__(
        self,
        source: "InputContainer",
        streams: "list[Stream]",
        container: "OutputContainer",
        begins: Fraction,
    ):
        self._made = {stream.index: _add(container, stream) for stream in streams}
        # In mkv a time before the beginning, which decoders do not play, would move all others.
        hidden = container.format.name == "matroska"
        self._packets = _packets(source, streams, hidden, begins) if streams else iter(())
        self._container, self._next = container, next(self._packets, None)

    def up_to(self, time: Fraction | None) -> None:
        """Write the packets up to a time in seconds; None: all."""
        while self._next and (time is None or self._next.dts * self._next.time_base <= time):
            self._next.stream = self._made[self._next.stream.index]
            self._container.mux(self._next)
            self._next = next(self._packets, None)


def _packets(
    source: "InputContainer", streams: "list[Stream]", hidden: bool, begins: Fraction
) -> "Iterator[Packet]":
    latest: dict[int, int] = {}
    for packet in source.demux(streams):
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            continue
        if begins:
            back = round(begins / packet.time_base)
            packet.dts, packet.pts = packet.dts - back, None if packet.pts is None else packet.pts - back
        if packet.dts <= (before := latest.get(packet.stream.index, packet.dts - 1)):
            packet.dts = before + 1  # as no container takes it otherwise
            packet.pts = max(packet.pts or 0, packet.dts)
        if not (hidden and packet.pts is not None and packet.pts < 0):
            latest[packet.stream.index] = packet.dts
            yield packet


def _add(container: "OutputContainer", stream: "Stream") -> "Stream":
    made = container.add_stream_from_template(stream)
    made.metadata.update({key: value for key, value in stream.metadata.items() if key in COPIED})
    return made


def _codec(stream: "Stream") -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else ""


def _is_held(stream: "Stream", kind: str) -> bool:
    """Whether a container holds a stream, which is found out by beginning one; in mp4, hardly a player reads raw sound."""
    if stream.type not in ("audio", "subtitle") or (kind == "mp4" and _codec(stream).startswith("pcm_")):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            _add(trial, stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
