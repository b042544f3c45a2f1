"""What `ccs flow`, `ccs features` and `ccs predict` are asked to work on: files, directories and lists in, videos out.

A video is a file, or a folder of frames (`ccs.frames.stills`). An output is named by the path of its video below the
directory that was given, without the suffix; a single file by its own name; a line of a list by its path below the
directory that relative paths start at. `--root` names another directory for all. What is taken for no video below a
directory is counted on standard error, and taken where it is named itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ccs.datasets import lists
from ccs.datasets.disk import EXTENSIONS, decoded, extensions, form, nfc, read_text, scan, stem
from ccs.flow.formats import RECORD
from ccs.frames.stills import frame_names
from ccs.stage import CcsError

INPUTS = "VIDEO|DIR|LIST.txt|-"  # what commands are asked to work on
LISTS = (".txt", ".lst", ".list", *lists.TABLES)
OTHERS = (".json", ".jsonl", ".xls", ".xlsx", ".ods")  # tables that are not read
PICTURES = (".jpg", ".jpeg", ".png")


class Source(NamedTuple):
    """A video, the name of its output, such as `biking/v_01`, and its label where a list has one."""

    path: str
    name: str
    label: str | None = None


def find(inputs: Sequence[str], root: str | None, output: str, command: str = "flow") -> list[Source]:
    """The videos of all inputs, directories in the order of names.

    Left out is what is below `output`, and, where that is among the inputs, what earlier calls have written there.

    What is left out is said in the name of `command`.

    Raises `CcsError` for inputs that are absent or without videos, and for two with the same output.
    """
    found = [source for text in inputs for source in _of_input(text, root, os.path.realpath(output), command)]
    by_name: dict[str, Source] = {}
    for source in found:
        other = by_name.setdefault(nfc(source.name), source)
        if os.path.realpath(other.path) != os.path.realpath(source.path):
            raise CcsError(
                f"{other.path} and {source.path} would both be written as {source.name}"
                f"{form(other.path, source.path)}: rename or leave out one"
                + (
                    ", or name a directory above both with --root"
                    if command != "predict" and _differ(other, source)
                    else ""
                )
            )
        if other.label != source.label:
            raise CcsError(
                f"{source.path}: expected one label, found {other.label} and {source.label}, as it is named twice: "
                "leave out one of the two"
            )
    return list(by_name.values())


def _of_input(text: str, root: str | None, output: str, command: str) -> Iterator[Source]:
    suffix = os.path.splitext(text)[1].lower()
    if text == "-" or (suffix in LISTS and os.path.isfile(text)):
        yield from _of_list(text, root, command)
    elif os.path.isdir(text):
        others: list[str] = []
        paths = list(_walk(text, output, (), others, command))
        if others:
            _say(
                command,
                f"{text}: {len(others)} files are left out, whose extensions are not those of videos: "
                f"{extensions(others)}. A video among them is taken when it is named itself",
            )
        if not paths:
            raise CcsError(
                f"{text}: no video in this directory or below: expected files such as *.mp4 ({EXTENSIONS}), or folders "
                "with frames such as img_00001.jpg"
            )
        # frames in the directory itself: it is the video
        above = os.path.dirname(os.path.abspath(text))
        yield from (_named(path, root or (above if path == text else text), text) for path in paths)
    elif suffix in OTHERS and os.path.isfile(text):
        raise CcsError(
            f"{text}: expected a video, a directory or a list ({', '.join(LISTS)}), found a {suffix} file: write the "
            f"paths of the videos into a list, one a line, or pipe them into `ccs {command} -`"
        )
    elif suffix in PICTURES and os.path.isfile(text):
        raise CcsError(
            f"{text}: expected a video, a directory or a list ({', '.join(LISTS)}), found a picture: name the folder "
            "with all frames of its video"
        )
    elif os.path.exists(text):
        yield _named(text, root or os.path.dirname(text), text)
    else:
        raise CcsError(
            f"{text}: expected a video, a directory of videos or a list of videos ({', '.join(LISTS)}), found nothing "
            f"there: correct the path (relative ones start at {os.getcwd()})"
        )


def _of_list(text: str, root: str | None, command: str) -> Iterator[Source]:
    content = decoded(sys.stdin.buffer.read(), "standard input") if text == "-" else read_text(text, "a list of videos")
    source = "standard input" if text == "-" else text
    base, rows = ".", lists.parse(content, source)
    if root and not any(_is_there(row.path) for row in rows):
        base, rows = root, lists.parse(content, source, root)
    paths = [os.path.join(base, row.path) if base != "." else row.path for row in rows]
    if absent := [f"{path} ({row.where})" for path, row in zip(paths, rows, strict=True) if not _is_there(path)]:
        first = "; ".join(absent[:5])
        raise CcsError(
            f"{len(absent)} of {len(rows)} listed videos are not there: {first}: correct the list (relative paths "
            f"start at {os.getcwd()}, or all of them at --root)"
        )
    if clips := {"start", "end"} & {name for row in rows for name, cell in row.columns.items() if cell}:
        part = ", or the part of --start and --end" if command == "flow" else ""
        _say(command, f"{source}: its column {min(clips)} is not used: whole videos are read{part}")
    for path, row in zip(paths, rows, strict=True):
        yield _named(path, root or ".", row.where)._replace(label=row.label)


def _differ(one: Source, other: Source) -> bool:
    """Whether the directories of two videos can tell their outputs apart."""
    above = [os.path.realpath(os.path.dirname(os.path.abspath(source.path))) for source in (one, other)]
    return above[0] != above[1]


def _is_there(path: str) -> bool:
    # a link that leads nowhere will be told as bad, as below a directory
    return os.path.lexists(path)


def _walk(directory: str, output: str, above: tuple[str, ...], others: list[str], command: str) -> Iterator[str]:
    """The videos of a directory and those below it, itself if it has frames; names of other files go to `others`."""
    real = os.path.realpath(directory)
    if real in above:
        _say(command, f"{directory}: is a link to a directory above it, and is not followed")
        return
    if above and real == output:
        return
    inside = scan(directory)
    # what an earlier call has written beside the videos
    is_output = output in above and RECORD in inside.others
    if not inside.videos and frame_names(inside.others) and not is_output:
        yield directory
    elif not is_output:
        others += inside.others
    # links to nothing are not passed over: those named as videos will be told as bad
    lost = [name for name in inside.lost if stem(name) != name]
    for name in sorted(inside.lost.keys() - lost):
        _say(command, f"{os.path.join(directory, name)}: is {inside.lost[name]}, and is left out")
    yield from (os.path.join(directory, name) for name in sorted([*inside.videos, *lost]))
    for name in sorted(inside.folders):
        yield from _walk(os.path.join(directory, name), output, (*above, real), others, command)


def _say(command: str, text: str) -> None:
    print(f"ccs: {command}: {text}", file=sys.stderr)


def _named(path: str, root: str, given: str) -> Source:
    below = os.path.relpath(path, root or ".")
    if below.split(os.sep)[0] == os.pardir:
        raise CcsError(
            f"{path} ({given}): expected a path below {os.path.abspath(root or '.')}, which outputs are named by: name "
            "a directory above all videos with --root"
        )
    return Source(path, below if os.path.isdir(path) else stem(below))
