"""Lists of videos as people have them, read in one way for `ccs flow`, `ccs predict` and the adapters.

A list is a text in one of these forms, the same in all of its lines; blank lines count for nothing:

| form | of |
|---|---|
| `path` | what `find` and `ls` print |
| `path label` | TSN's, mmaction2's and SlowFast's lists of videos, UCF-101's |
| `path num_frames label` | TSN's, TSM's and mmaction2's lists of folders of frames ("rawframes"), both numbers |
| a table with a header | CSV, TSV, or with semicolons: a column `path` (or another of `PATHS`), and others |

Blanks part what stands in a line, and occur in paths. What is there, seen from the directory `root`, decides: a line
that as a whole names something is a path. So does a video's extension, behind which a label begins. A path in quotation
marks is taken whole. A line that can still be read in two ways is read as the others are, or is an error.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ccs.datasets.disk import SUFFIXES, decoded, nfc, numbered
from ccs.stage import CcsError

PATHS = ("path", "video_path", "filename", "file", "video")  # columns with the video's path, the first wins
TABLES = (".csv", ".tsv")
_PATH, _LABEL, _FRAMES = _FORMS = ("path", "path label", "path num_frames label")
_NUMBER = re.compile(r"\d{1,18}")
_INTEGER = re.compile(r"-?\d{1,18}")
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:\s+(.*))?""")


class Row(NamedTuple):
    """A line of a list."""

    where: str  # "list.txt, line 3"
    path: str  # as written
    label: str | None
    num_frames: int | None
    columns: dict[str, str]  # of a table: all of its cells, by the column's name in lower case


class _Line(NamedTuple):
    """A line of text with the forms that it can have, the likeliest first; one where it is certain."""

    where: str
    text: str
    readings: dict[str, Row]
    likeliest: str | None  # None: nothing speaks for any of them


def read(path: str, root: str = ".") -> list[Row]:
    """The rows of the list `path`; relative paths in it start at `root`.

    Raises `CcsError` where it cannot be read, holds nothing, or has lines that are of no form, of another form than
    others, or ambiguous.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CcsError(f"{path}: expected a list of videos, found none ({error.strerror}): correct the path") from error
    return parse(decoded(content, path), path, root)


def parse(text: str, source: str, root: str = ".") -> list[Row]:
    """The same of a text; `source` is what messages call it."""
    names_something = _seen_from(root)
    header = _cells(text)
    # a header of one cell might be a path itself
    if set(PATHS) & set(header) and not (len(header) == 1 and names_something(_first(text))):
        rows = list(_of_table(text, source, header))
    elif os.path.splitext(source)[1].lower() in TABLES and len(header) > 1:
        raise CcsError(
            f"{source}: expected a header with a column {PATHS[0]} (or {', '.join(PATHS[1:])}), found the first line "
            f"{', '.join(header)}: name the columns there, such as path,label"
        )
    else:
        rows = _of_lines([_line(where, line, names_something) for where, line in numbered(text, source)])
    if not rows:
        raise CcsError(f"{source}: expected the path of a video a line, found none")
    return rows


def table(text: str, source: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE, line N", cells by the column's name in lower case) of each row of a table with a header.

    Raises `CcsError` where one of `columns` is missing, a name occurs twice, or a row has too few or too many cells.
    """
    delimiter = _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            where = f"{source}, line {rows.line_num}"
            if not header:
                header = [name.lower() for name in cells]
                _check_header(where, header, columns)
                continue
            # programs end lines with empty cells
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise CcsError(
                    f"{where}: expected {len(header)} cells as in the header ({', '.join(header)}), found "
                    f"{len(cells)}: {delimiter.join(row)[:200]!r}: correct the line, or put cells that contain "
                    f"{delimiter!r} in quotation marks"
                )
            yield where, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise CcsError(f"{source}, line {rows.line_num}: expected a table ({error}): save it again as CSV") from error


# -- tables ------------------------------------------------------------------------------------------------------------
def _first(text: str) -> str:
    """The first line that is not blank."""
    return next((line for line in text.split("\n") if line.strip()), "").strip()


def _delimiter(text: str) -> str:
    """What parts the cells of the first line: of comma, tab and semicolon the most frequent."""
    return max(",\t;", key=_first(text).count)


def _cells(text: str) -> list[str]:
    """Those of the first line, in lower case."""
    cells = next(csv.reader([_first(text)], delimiter=_delimiter(text), skipinitialspace=True), [])
    return [cell.strip().lower() for cell in cells]


def _of_table(text: str, source: str, header: list[str]) -> Iterator[Row]:
    column = next(name for name in PATHS if name in header)
    if column != PATHS[0]:
        print(
            f"ccs: {source}: has no column {PATHS[0]}, so the paths are those of the column {column}", file=sys.stderr
        )
    for where, cells in table(text, source, (column,)):
        if not cells[column]:
            raise CcsError(f"{where}: expected a path in the column {column}, found nothing: fill it in, or remove it")
        number = cells.get("num_frames", "")
        if number and not _NUMBER.fullmatch(number):
            raise CcsError(f"{where}: num_frames: expected a whole number of frames, found {number!r}: correct it")
        yield Row(where, cells[column], cells.get("label") or None, int(number) if number else None, cells)


def _check_header(where: str, header: list[str], columns: tuple[str, ...]) -> None:
    if missing := [name for name in columns if name not in header]:
        raise CcsError(
            f"{where}: expected a header with the column {missing[0]}, found {', '.join(header)}: name it there"
        )
    if len(twice := [name for name in header if name]) > len(set(twice)):
        raise CcsError(f"{where}: expected each column once, found {', '.join(header)}: rename or remove one")


# -- lines of text -----------------------------------------------------------------------------------------------------
def _seen_from(root: str) -> Callable[[str], bool]:
    """A function that says whether a path names something; each directory is listed once, links are not followed."""

    @cache
    def names(directory: str) -> frozenset[str]:
        try:
            return frozenset(map(nfc, os.listdir(directory)))
        except (OSError, ValueError):
            return frozenset()

    def names_something(path: str) -> bool:
        directory, name = os.path.split(os.path.join(root, path.rstrip("/")))
        return nfc(name) in names(directory or ".")

    return names_something


def _line(where: str, text: str, names_something: Callable[[str], bool]) -> _Line:
    """What a line can mean."""
    if match := _QUOTED.fullmatch(text):
        if names_something(text):
            return _certain(where, text, text, "")
        return _certain(where, text, match[2], match[3] or "")
    ends = [*(match.start() for match in re.finditer(r"\s+", text)), len(text)]
    paths = [text[:end] for end in ends]
    suffixed = [path for path in paths if os.path.splitext(path)[1].lower() in SUFFIXES]
    if len(paths) == 1 or names_something(text) or suffixed[-1:] == [text]:
        _check_commas(where, text, names_something)
        return _certain(where, text, text, "")
    there = suffixed[-1:] or [path for path in paths if names_something(path)]
    if len(there) == 1:
        return _certain(where, text, there[0], text[len(there[0]) :].strip())
    before, last = paths[-2], text[ends[-2] :].strip()
    readings = {_LABEL: Row(where, before, last, None, {}), _PATH: Row(where, text, None, None, {})}
    likeliest = _LABEL if len(paths) == 2 else None
    if len(paths) > 2 and _NUMBER.fullmatch(number := before[ends[-3] :].strip()) and _INTEGER.fullmatch(last):
        readings[_FRAMES] = Row(where, paths[-3], last, int(number), {})
        likeliest = _FRAMES if len(paths) == 3 else None
    return _Line(where, text, readings, None if there else likeliest)


def _certain(where: str, text: str, path: str, rest: str) -> _Line:
    """A line whose path is known, with what stands behind it."""
    if not rest:
        return _Line(where, text, {_PATH: Row(where, path, None, None, {})}, _PATH)
    parts = rest.split()
    if all(map(_INTEGER.fullmatch, parts)) and len(parts) > 1:
        if len(parts) > 2 or not _NUMBER.fullmatch(parts[0]):
            raise CcsError(
                f"{where}: expected {' or '.join(map(repr, _FORMS))}, found {len(parts)} numbers behind the path "
                f"{path!r}: a video has one label here"
            )
        return _Line(where, text, {_FRAMES: Row(where, path, parts[1], int(parts[0]), {})}, _FRAMES)
    quoted = _QUOTED.fullmatch(rest)
    label = quoted[2] if quoted and quoted[3] is None else rest
    return _Line(where, text, {_LABEL: Row(where, path, label, None, {})}, _LABEL)


def _check_commas(where: str, text: str, names_something: Callable[[str], bool]) -> None:
    """Raise `CcsError` for `path,label`, which would be a path that is not there."""
    first = re.split("[,;]", text)[0]
    if first != text and os.path.splitext(first)[1].lower() in SUFFIXES and not names_something(text):
        raise CcsError(
            f"{where}: expected one of {', '.join(map(repr, _FORMS))}, found {text!r}: begin a table with a header, "
            "such as path,label, or put the path in quotation marks"
        )


def _of_lines(listed: list[_Line]) -> list[Row]:
    """The rows of lines that all have one form."""
    certain = [line for line in listed if len(line.readings) == 1] or [line for line in listed if line.likeliest]
    rows = []
    for line in listed:
        form = certain[0].likeliest if certain else None
        if form is None:
            raise CcsError(
                f"{line.where}: cannot tell where the path ends in {line.text!r}: put it in quotation marks, as in "
                """'"a path" label', or write a table with the header path,label"""
            )
        if form not in line.readings:
            raise CcsError(
                f"{line.where}: expected '{form}' as in {certain[0].where} ({certain[0].text!r}), found "
                f"{line.text!r}, which reads as '{line.likeliest or next(iter(line.readings))}': give all lines one "
                "form, or put paths in quotation marks"
            )
        rows.append(line.readings[form])
    return rows
