"""Configuration files before they are read: what YAML passes over in silence, or never ends to unfold, is an error.

Snakemake reads the files into dictionaries, in which of two equal keys the last one has won. `check` looks at the text.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ccs.datasets.disk import nfc
from ccs.stage import CcsError

MAX_DEPTH = 40  # of blocks within blocks; the deepest that there is has 5
MAX_VALUES = 100_000  # with what aliases repeat
_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VALUES = yaml.SafeLoader("")


@dataclass
class _Block:
    """A mapping or a list that is being read. key: whose value is next, None where a key is."""

    anchor: str | None
    lines: dict[Any, int] | None  # by key, of a mapping
    key: str | None = None
    num_values: int = 1


def check(path: str | Path, source: str) -> None:
    """Raise `CcsError` with a line for each key that stands twice, and for what cannot be read or unfolded.

    Args:
        path: a file of YAML or JSON.
        source: its name for messages.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CcsError(f"{source}: expected a configuration, found none ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CcsError(f"{source}: expected YAML in UTF-8, found {error.reason}: save it as UTF-8") from None
    try:
        problems = list(_problems(text))
    except yaml.YAMLError as error:
        if _is_json(text):  # which allows tabs, for one
            return
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CcsError(f"{source}{where}: no YAML: {getattr(error, 'problem', None) or error}") from None
    if problems:
        raise CcsError("\n  ".join([f"{source} is not valid:", *problems]))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _problems(text: str) -> Iterator[str]:
    """A line for each; ends with one that makes all that follows meaningless."""
    blocks: list[_Block] = []
    sizes: dict[str, int] = {}  # of what aliases stand for
    num_documents = 0
    for event in yaml.parse(text, Loader=_EVENTS):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            if len(blocks) == MAX_DEPTH:
                yield f"line {line}: blocks within blocks, more than {MAX_DEPTH} deep"
                return
            blocks.append(_Block(event.anchor, {} if isinstance(event, yaml.MappingStartEvent) else None))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            block = blocks.pop()
            anchor, num_values = block.anchor, block.num_values
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                inside = any(block.anchor == event.anchor for block in blocks)
                yield f"line {line}: *{event.anchor} {'contains itself' if inside else 'stands for nothing'}"
                return
            anchor, num_values = None, sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            anchor, num_values = event.anchor, 1
            yield from _scalar_problems(event, blocks, line)
        else:
            num_documents += isinstance(event, yaml.DocumentStartEvent)
            if num_documents > 1:
                yield f"line {line}: a second document begins with ---; a configuration is one"
                return
            continue
        if anchor:
            sizes[anchor] = num_values
        if blocks:
            parent = blocks[-1]
            parent.num_values += num_values
            parent.key = getattr(event, "value", "?") if parent.lines is not None and parent.key is None else None
            if parent.num_values > MAX_VALUES:
                yield f"line {line}: more than {MAX_VALUES:,} values, with those that aliases repeat"
                return


def _scalar_problems(event: yaml.ScalarEvent, blocks: list[_Block], line: int) -> Iterator[str]:
    """Of a single value, which may be a key."""
    tag = event.tag or _VALUES.resolve(yaml.ScalarNode, event.value, event.implicit)
    value = event.value
    try:
        value = _VALUES.construct_object(yaml.ScalarNode(tag, event.value))
    except yaml.YAMLError:  # << and =, and tags, which are Snakemake's to read
        pass
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
        known = isinstance(error, (ValueError, OverflowError))  # others are PyYAML's own, of what a tag does not fit
        reason = str(error).split(";")[0] if known else f"no {tag.rpartition(':')[2]}"
        yield f"line {line}: {event.value[:40]!r} cannot be read ({reason}): write it in quotes if it is text"
    if not isinstance(value, Hashable):  # PyYAML would fill it later, and cannot
        yield f"line {line}: {event.value[:40]!r} cannot be read (no {tag.rpartition(':')[2]}): leave out its tag"
        return
    if not blocks or blocks[-1].lines is None or blocks[-1].key is not None:
        return
    key = ".".join([*(block.key for block in blocks if block.key is not None), event.value])
    if key == "__use_yte__":
        yield f"line {line}: {key}: no such key; Snakemake runs values as Python by it: take it out"
    if tag.endswith(":merge"):  # several of them are all taken
        return
    value = nfc(value) if isinstance(value, str) else value
    if value in blocks[-1].lines:
        first = blocks[-1].lines[value]
        yield f"line {line}: {key} is given a second time, first in line {first}: keep one of them"
    blocks[-1].lines.setdefault(value, line)
