"""What `ccs flow videos/ ...` is asked to work on: files, directories and lists in, videos and output names out.

An output is named by the path of its video below the directory that was given, without the suffix; a single file by
its own name; a line of a list by its path below the current directory. `--root` names another directory for all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ccs.datasets.disk import EXTENSIONS, lines, scan, stem
from ccs.stage import CcsError


class Source(NamedTuple):
    """A video and the name of its output, such as `biking/v_01`."""

    path: str
    name: str


def find(inputs: Sequence[str], root: str | None, output: str) -> list[Source]:
    """The videos of all inputs, directories in the order of names; what is below `output` is left out.

    Raises `CcsError` for inputs that are absent or without videos, and for two with the same output.
    """
    found = [source for text in inputs for source in _of_input(text, root, os.path.realpath(output))]
    by_name: dict[str, Source] = {}
    for source in found:
        other = by_name.setdefault(source.name, source)
        if os.path.realpath(other.path) != os.path.realpath(source.path):
            raise CcsError(
                f"{other.path} and {source.path} would both be written as {source.name}: rename or leave out one, or "
                "name a directory above both with --root"
            )
    return list(by_name.values())


def _of_input(text: str, root: str | None, output: str) -> Iterator[Source]:
    if text == "-" or (text.lower().endswith(".txt") and os.path.isfile(text)):
        yield from _of_list(text, root)
    elif os.path.isdir(text):
        paths = list(_walk(text, output, ()))
        if not paths:
            raise CcsError(f"{text}: no video in this directory or below: expected files such as *.mp4 ({EXTENSIONS})")
        yield from (_named(path, root or text, text) for path in paths)
    elif os.path.exists(text):
        yield _named(text, root or os.path.dirname(text), text)
    else:
        raise CcsError(
            f"{text}: expected a video, a directory of videos or a list of videos (.txt), found nothing there: correct "
            f"the path (relative ones start at {os.getcwd()})"
        )


def _of_list(text: str, root: str | None) -> Iterator[Source]:
    listed = list(_stdin() if text == "-" else lines(text, "a list of videos"))
    if not listed:
        raise CcsError(f"{'standard input' if text == '-' else text}: expected the path of a video a line, found none")
    absent = [f"{path} ({where})" for where, path in listed if not os.path.isfile(path)]
    if absent:
        first = "; ".join(absent[:5])
        raise CcsError(
            f"{len(absent)} of {len(listed)} listed videos are not there: {first}: correct the list (relative paths "
            f"start at {os.getcwd()})"
        )
    for where, path in listed:
        yield _named(path, root or ".", where)


def _stdin() -> Iterator[tuple[str, str]]:
    text = sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if path := line.strip():
            yield f"standard input, line {number}", path


def _walk(directory: str, output: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(directory)
    if real in above or (above and real == output):  # a link to a directory above would never end
        return
    inside = scan(directory)
    with os.scandir(directory) as entries:  # links to nothing are not passed over: their videos will be named as bad
        lost = [entry.name for entry in entries if entry.is_symlink() and stem(entry.name) != entry.name]
    lost = [name for name in lost if not os.path.exists(os.path.join(directory, name))]
    yield from (os.path.join(directory, name) for name in sorted({*inside.videos, *lost}))
    for name in sorted(inside.folders):
        yield from _walk(os.path.join(directory, name), output, (*above, real))


def _named(path: str, root: str, given: str) -> Source:
    below = os.path.relpath(path, root or ".")
    if below.split(os.sep)[0] == os.pardir:
        raise CcsError(
            f"{path} ({given}): expected a path below {os.path.abspath(root or '.')}, which outputs are named by: name "
            "a directory above all videos with --root"
        )
    return Source(path, stem(below))
