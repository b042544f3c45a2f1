"""Folders of frames that other tools have extracted, as videos: which files are frames, in which order, and what lacks.

Frames have a number each: img_00001.jpg (TSN, mmaction2, denseflow), image_00001.jpg, frame_000001.jpg,
frame000001.jpg, im00001.jpg or 000001.jpg, as JPEG or PNG. They begin anywhere, leave no number out and have one size.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import simplejpeg

from ccs.frames.judgement import BadVideo

# pictures of cameras (IMG_2041.JPG) are not frames of a video
_NAME = re.compile(r"((?:img|image|im|frame|rgb)[_-]?|)(\d{1,9})\.(jpe?g|png)")


class Stills(NamedTuple):
    """The frames of a folder: `pattern` with a %d for the number, from `first` on."""

    pattern: str  # a path; other percent signs are doubled, as ffmpeg and Python want them
    first: int
    num_frames: int

    @property
    def folder(self) -> str:
        return os.path.dirname(self.pattern % self.first)

    @property
    def paths(self) -> Iterator[str]:
        return (self.pattern % number for number in range(self.first, self.first + self.num_frames))


def frame_names(names: Iterable[str]) -> list[str]:
    """Those that are frames by their names."""
    return [name for name in names if _NAME.fullmatch(name)]


def find(folder: str, names: Iterable[str] | None = None) -> Stills:
    """The frames of `folder`; `names` are those of its files, where they are known already.

    Raises `BadVideo` where there are none, two of one number, none of a number between others, or several sizes;
    `OSError` where it cannot be read.
    """
    found: dict[int, re.Match[str]] = {}
    for match in filter(None, map(_NAME.fullmatch, sorted(os.listdir(folder) if names is None else names))):
        other = found.setdefault(int(match[2]), match)
        if other is not match:
            raise BadVideo(f"its frames {other[0]} and {match[0]} have the same number: remove one of them")
    if not found:
        raise BadVideo("a folder without frames: expected img_00001.jpg and following, or frame_, image_ or numbers")
    numbers = sorted(found)
    if gaps := [(before + 1, after - 1) for before, after in pairwise(numbers) if after - before > 1]:
        told = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps[:5])
        more = f" and more ({len(gaps)} gaps)" if len(gaps) > 5 else ""
        raise BadVideo(f"of its frames {numbers[0]} to {numbers[-1]} these are not there: {told}{more}")
    matches = [found[number] for number in numbers]
    # with zeros in front all have that many digits at least
    digits = next((len(match[2]) for match in matches if match[2].startswith("0")), 1)
    prefix, suffix = matches[0][1], matches[0][3]
    for number, match in zip(numbers, matches, strict=True):
        if match[0] != (usual := f"{prefix}{number:0{digits}d}.{suffix}"):
            raise BadVideo(f"its frames have names of several forms: expected {usual}, found {match[0]}")
    pattern = os.path.join(folder.replace("%", "%%"), f"{prefix}%0{digits}d.{suffix}")
    return Stills(pattern, numbers[0], len(numbers))


def check_sizes(frames: Stills) -> None:
    """Raise `BadVideo` where a frame has another size than the first, or is no picture; `OSError` as it comes."""
    first = name = ""
    for path in frames.paths:
        size = _size(path)
        first, name = (first, name) if first else (size, os.path.basename(path))
        if size != first:
            raise BadVideo(f"its frames have several sizes: {name} is {first}, {os.path.basename(path)} is {size}")


def _size(path: str) -> str:
    """Width and height of a picture, from its head, such as 320x240."""
    with open(path, "rb") as file:
        head = file.read(24)
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", head[16:].ljust(8, b"\0"))
        else:
            try:
                height, width, *_ = simplejpeg.decode_jpeg_header(head + file.read())
            except ValueError as error:
                raise BadVideo(f"its frame {os.path.basename(path)} is no JPEG or PNG: {error}") from error
    return f"{width}x{height}"
