"""Values in, settings or sentences out: every problem of a block of the configuration, by its full key."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ccs.settings import MANY, Setting, nearest, settings_of

Key = tuple[str | int, ...]  # e.g. ("train", "dropout", 0)

_TYPES = {
    "bool": "boolean",
    "dataclass": "object",
    "dict": "object",
    "float": "number",
    "int": "integer",
    "list": "array",
    "string": "string",
    "tuple": "array",
}
_LIMITS = {
    "greater_than": ("gt", "less than or equal to the minimum of"),
    "greater_than_equal": ("ge", "less than the minimum of"),
    "less_than": ("lt", "greater than or equal to the maximum of"),
    "less_than_equal": ("le", "greater than the maximum of"),
    "multiple_of": ("multiple_of", "not a multiple of"),
}


class Checker:
    """Checks block after block and keeps what is wrong.

    Args:
        as_text: keys whose values came as text whatever was meant, as those of `--config` do; they are read as YAML
            where the setting is no text.

    Attributes:
        problems: a line for each.
    """

    def __init__(self, as_text: Collection[Key] = ()) -> None:
        self.as_text = frozenset(as_text)
        self.problems: list[str] = []

    def say(self, key: str | Key, text: str) -> None:
        """Note a problem of a key."""
        self.problems.append(f"{dotted(key) or 'it'}: {text}")

    def block(self, kind: type, values: object, key: Key = (), *, given_only: bool = False) -> dict[str, Any] | None:
        """The block at `key` with its defaults, by the configuration's names, or None where something is wrong with it.

        kind: its class. given_only: without the defaults, as of a run that changes a few settings.
        """
        values, known = copy.deepcopy(self.read(values, key)), settings_of(kind)
        if isinstance(values, dict):
            for name in [name for name in values if name not in known]:
                self.say((*key, name), f"no such key{nearest(name, known)}")
                del values[name]
        adapter = _adapter(kind)
        try:
            found = adapter.validate_python(values)
        except ValidationError as error:
            if self._reread(values, error, key):
                return self.block(kind, values, key, given_only=given_only)
            self.problems += _sentences(kind, error, key)
            return None
        whole = adapter.dump_python(found, mode="json", by_alias=True)
        return {name: whole[name] for name in values} if given_only and isinstance(values, Mapping) else whole

    def read(self, value: object, key: Key) -> object:
        """A value that is to be a block: what came as text is read as YAML, such as null."""
        return _scalar(value) if isinstance(value, str) and key in self.as_text else value

    def _reread(self, values: Any, error: ValidationError, key: Key) -> bool:
        """Read wrong values anew, in place: text of `--config` as YAML, and 5.0 as 5, which it is in JSON.

        Returns whether any is another value then.
        """
        changed = False
        for each in error.errors(include_url=False):
            place, loc, found = values, each["loc"], each["input"]
            if loc and isinstance(found, str) and (*key, *loc) in self.as_text:
                value = _scalar(found)
            elif loc and each["type"] == "int_type" and isinstance(found, float) and found.is_integer():
                value = int(found)
            else:
                continue
            for step in loc[:-1]:
                place = place[step]
            place[loc[-1]] = value
            changed |= type(value) is not type(found)
        return changed


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def _scalar(text: str) -> object:
    """What a person who typed this will have meant: a number, true, false, null, or text."""
    value = text
    with suppress(yaml.YAMLError):
        value = yaml.safe_load(text)
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-3 as text
    return value


def leaves(values: object, key: Key = ()) -> Iterator[Key]:
    """The keys of all values within mappings and lists that are neither."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from leaves(value, (*key, name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from leaves(value, (*key, number))
    else:
        yield key


def texts(values: object, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """Every text within mappings and lists, keys of mappings too, with its key."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from texts(name, key)
            yield from texts(value, (*key, name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from texts(value, (*key, number))
    elif isinstance(values, str):
        yield key, values


def dotted(key: str | Key) -> str:
    """E.g. train.dropout.0."""
    return key if isinstance(key, str) else ".".join(map(str, key))


def _sentences(kind: type, error: ValidationError, key: Key) -> Iterator[str]:
    """One line for each thing that is wrong."""
    known = settings_of(kind)
    errors = error.errors(include_url=False)
    for each in errors:
        loc = tuple(step for step in each["loc"] if step != "[key]")
        setting = known.get(str(loc[0])) if loc else None
        where = dotted((*key, *loc))
        if each["type"] == "too_short" and any(
            other["loc"][:-1] == each["loc"] for other in errors if other is not each
        ):
            continue  # what is there is wrong, and was not counted
        if each["type"] == "missing" and len(loc) == 1:
            yield f"{where}: missing{_told(setting)}"
        elif each["type"] == "missing":  # of so many values
            yield f"{dotted((*key, *loc[:-1]))}: {each['input']!r} is too short{_told(setting)}"
        elif each["type"] == "value_error" and not loc:  # it names the setting itself
            yield f"{dotted(key)}{'.' if key else ''}{each['ctx']['error']}"
        else:
            told = _told(setting) if loc else f" ({' '.join(str(kind.__doc__).split()).rstrip('.')})"
            yield f"{where or 'it'}: {_sentence(each, setting)}{told}{_hint(each)}"


def _told(setting: Setting | None) -> str:
    return f" ({setting.help})" if setting and setting.help else ""


def _sentence(error: Any, setting: Setting | None) -> str:
    kind, found, more = error["type"], error["input"], error.get("ctx", {})
    shown = repr(list(found) if isinstance(found, tuple) else found)
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        limit = more[name]
        return f"{shown} is {text} {limit if isinstance(limit, int) else f'{limit:g}'}"
    if kind == "literal_error" and setting:
        choices = setting.shape.choices or (setting.shape.item or setting.shape).choices
        return (
            f"no {shown}{nearest(found, choices)}" if len(choices) > MANY else f"{shown} is not one of {list(choices)}"
        )
    if kind == "string_pattern_mismatch":
        return f"{shown} does not match {more['pattern']!r}"
    if kind in ("too_short", "string_too_short"):
        return f"{shown} {'is too short' if found else 'should be non-empty'}"
    if kind == "too_long":
        return f"{shown} is too long"
    if kind == "value_error":
        return str(more["error"])
    if kind == "finite_number":
        return f"{shown} is not a finite number"
    base = kind.removesuffix("_exact_type").removesuffix("_type").removesuffix("_from_float")
    return f"{shown} is not of type {_TYPES[base]!r}" if base in _TYPES else error["msg"]


def _hint(error: Any) -> str:
    found = error["input"]
    if isinstance(found, str) and error["type"] in ("float_type", "int_type"):
        try:
            float(found)
        except ValueError:
            return ""
        return "; YAML reads 1e-3 as text, write 1.0e-3 or 0.001"
    meant = error["type"] == "string_type" or (isinstance(found, bool) and error["type"] == "literal_error")
    return not_text(found) if meant else ""


def not_text(found: object) -> str:
    """What to do about a value that was meant as text."""
    if isinstance(found, bool):
        return "; YAML reads no, off, yes and on as false and true: write such a text in quotes"
    if isinstance(found, int | float):
        return "; YAML reads it as a number: write it in quotes to have a text"
    if isinstance(found, datetime.date):
        return "; YAML reads it as a date: write it in quotes to have a text"
    return ""
