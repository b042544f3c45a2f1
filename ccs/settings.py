"""Settings: what a stage can be told, each with its type, range, default and help in one place, a typed class.

    @settings
    class FramesSettings:
        quality: Annotated[Integer, Ge(1), Le(100)] = 95
        \"\"\"of the JPEGs\"\"\"

The text below a setting is its help. From such classes come the check of the configuration (`ccs.config`), its schema,
its page in docs/, and the flags of the stages (`add_settings`, `settings_from`). They stand in the modules `settings`
of the packages, which import nothing slow and compute nothing.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, dataclass_transform

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from ccs.stage import CcsError

__all__ = [
    "Boolean",
    "Different",
    "Field",
    "Ge",
    "Gt",
    "Integer",
    "Le",
    "Lt",
    "MultipleOf",
    "NoBoolean",
    "NotAllZero",
    "Number",
    "OneOf",
    "Text",
    "settings",
]

T = TypeVar("T")


def _whole(value: Any) -> Any:
    """NumPy's whole numbers are whole numbers."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise PydanticCustomError("literal_error", "a boolean is no number")
    return value


# Text is no number and true is no 1: what YAML reads is what was meant.
Integer = Annotated[int, BeforeValidator(_whole), Strict()]
Number = Annotated[float, Strict()]
Text = Annotated[str, Strict()]
Boolean = Annotated[bool, Strict()]
NoBoolean = BeforeValidator(_no_boolean)  # an annotation of a choice among numbers

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    # lambda_ avoids a keyword of Python, and is called lambda everywhere else
    alias_generator=lambda name: name.rstrip("_"),
    validate_by_name=True,
    validate_by_alias=True,
)
MANY = 12  # names: more are not listed in a help or a message


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass of settings, which raises `CcsError` where a value has another type or range."""
    made = cast("type[T]", dataclass(frozen=True, config=CONFIG)(cls))  # pydantic's types forget which class it was
    validate = made.__init__

    def init(self: T, *args: object, **values: object) -> None:
        try:
            validate(self, *args, **values)
        except ValidationError as error:
            fields = (setting.field for setting in settings_of(made).values())
            given = dict(zip(fields, args, strict=False)) | values
            raise CcsError("\n  ".join(_refusals(made, error, given))) from None

    made.__init__ = init
    return made


@dataclasses.dataclass(frozen=True)
class OneOf:
    """An annotation of `Text`: one of many names."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.literal_schema(list(self.names))


@dataclasses.dataclass(frozen=True)
class Different:
    """An annotation of several values: none of them twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> Any:
        return handler(schema) | {"uniqueItems": True}

    @staticmethod
    def _check(values: tuple) -> tuple:
        if len(set(values)) < len(values):
            raise ValueError(f"{list(values)!r} has non-unique elements")
        return values


@dataclasses.dataclass(frozen=True)
class NotAllZero:
    """An annotation of several numbers: one of them at least is not 0."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    @staticmethod
    def _check(values: tuple) -> tuple:
        if not any(values):
            raise ValueError(f"[{', '.join(f'{value:g}' for value in values)}] does not contain any but 0")
        return values


class Setting(NamedTuple):
    """One setting of a class: what it is called (lambda), its field in Python (lambda_), and what it may be."""

    name: str
    field: str
    shape: Shape
    default: Any  # `dataclasses.MISSING` where it must be given
    help: str


@cache
def settings_of(kind: type) -> dict[str, Setting]:
    """The settings of a class by name, in their order."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), _texts(kind)
    found = {}
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = each.name.rstrip("_")
        field = kind.__pydantic_fields__[each.name]  # type: ignore[attr-defined]
        default = dataclasses.MISSING if field.is_required() else field.get_default(call_default_factory=True)
        found[name] = Setting(name, each.name, shape(hints[each.name]), default, texts[each.name])
    return found


def _texts(kind: type) -> dict[str, str]:
    """What is written below each setting, by field."""
    texts: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        body = _bodies(cls.__module__).get(cls.__name__, [])
        for node, below in pairwise([*body, None]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                below = below.value if isinstance(below, ast.Expr) else None
                texts[node.target.id] = " ".join(str(below.value).split()) if isinstance(below, ast.Constant) else ""
    return texts


@cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of each class of a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # built in
        return {}
    return {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


# -- what a setting may be ---------------------------------------------------------------------------------------------
class Shape(NamedTuple):
    """A type hint, taken apart.

    base: int, float, str, bool or tuple. choices: the only values, if they are listed. limits: its range. items: of a
    tuple of so many values; item: of one of any number.
    """

    base: type
    choices: tuple = ()
    limits: tuple[Ge | Gt | Le | Lt | MultipleOf, ...] = ()
    optional: bool = False
    items: tuple[Shape, ...] = ()
    item: Shape | None = None


def shape(hint: Any) -> Shape:
    """Take a type hint apart."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner = shape(args[0])
        limits = tuple(each for each in args[1:] if isinstance(each, Ge | Gt | Le | Lt | MultipleOf))
        names = [each.names for each in args[1:] if isinstance(each, OneOf)]
        return inner._replace(limits=inner.limits + limits, choices=names[0] if names else inner.choices)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (shape(each) for each in args if each is not type(None))
        return inner._replace(optional=True)
    if origin is Literal:
        return Shape(type(args[0]), choices=args)
    if origin is tuple and args[-1] is Ellipsis:
        return Shape(tuple, item=shape(args[0]))
    if origin is tuple:
        return Shape(tuple, items=tuple(map(shape, args)))
    return Shape(origin or hint)


def expected(found: Shape, nothing: str = "none") -> str:
    """What a setting may be, in words: "a number in (0, 0.25]", "1, 3 or 5". nothing: what no value is called."""
    if len(found.choices) > MANY:
        text = "one of the names that there are"
    elif found.choices:
        *others, last = map(word, found.choices)
        text = f"{', '.join(others)} or {last}" if others else last
    elif found.items:
        text = f"{len(found.items)} values, each {expected(found.items[0])}"
    elif found.item:
        text = f"values, each {expected(found.item)}"
    else:
        nouns = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        text = f"{nouns.get(found.base, 'a block')} {_range(found.limits)}".strip()
    return f"{text}, or {nothing}" if found.optional else text


def word(value: object) -> str:
    """A value as YAML and flags have it; those of a tuple one after the other."""
    if isinstance(value, tuple | list):
        return " ".join(map(word, value))
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(limits: tuple[Any, ...]) -> str:
    bounds = {type(each): next(getattr(each, name) for name in each.__slots__) for each in limits}
    low, high = bounds.get(Ge, bounds.get(Gt)), bounds.get(Le, bounds.get(Lt))
    multiple = f", a multiple of {bounds[MultipleOf]}" if MultipleOf in bounds else ""
    if low is None:
        return multiple
    if high is None:
        return (f"of {_digits(low)} or more" if Ge in bounds else f"above {_digits(low)}") + multiple
    return f"in {'[' if Ge in bounds else '('}{_digits(low)}, {_digits(high)}{']' if Le in bounds else ')'}{multiple}"


def _digits(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def nearest(name: object, known: Iterable[object]) -> str:
    """What may have been meant by a name that is not known, or which there are."""
    names = [str(each) for each in known]
    if close := difflib.get_close_matches(str(name), names, n=1):
        return f": did you mean {close[0]}?"
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"; there are {', '.join(names[:MANY])}{more}"


def _refusals(kind: type, error: ValidationError, given: Mapping[str, object]) -> Iterator[str]:
    """A line for each value that a class refuses; given: by field."""
    known = settings_of(kind)
    for each in error.errors(include_url=False):
        field = str(each["loc"][0]) if each["loc"] else ""
        setting = known.get(field.rstrip("_"))
        told = f" ({setting.help})" if setting and setting.help else ""
        if each["type"] == "value_error":
            yield (f"setting {setting.name}: " if setting else "") + f"{each['ctx']['error']}{told}"
        elif setting is None:
            yield f"no setting {field!r}; there are {', '.join(known)}"
        elif each["type"] == "missing" and len(each["loc"]) == 1:
            yield f"{setting.name} is not set: expected the {setting.help}"
        else:
            found = given.get(field, given.get(setting.name))
            close = nearest(found, setting.shape.choices) if len(setting.shape.choices) > MANY else ""
            yield f"setting {setting.name}: expected {expected(setting.shape)}, found {found!r}{close}{told}"


# -- as a dictionary ---------------------------------------------------------------------------------------------------
def by_name(values: object) -> dict[str, Any]:
    """Settings by the names that the configuration has, with tuples as lists."""
    return TypeAdapter(type(values)).dump_python(values, mode="json", by_alias=True)


def from_names(kind: type[T], values: Mapping[str, Any]) -> T:
    """Settings of a class from values by name, or by field; the others have their defaults.

    Raises `CcsError` as the class does.
    """
    return kind(**values)


# -- flags -------------------------------------------------------------------------------------------------------------
class Flags(argparse.ArgumentParser):
    """The parser of every command: it says which flag may have been meant by one that it does not know."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            told = [each.partition("=")[0] for each in unknown if each.startswith("--")]
            close = [f"{each}{nearest(each, flags)}" for each in told if difflib.get_close_matches(each, flags, n=1)]
            self.error("; ".join(close) or f"unrecognized arguments: {' '.join(unknown)}")
        return found


def check_counts(args: Any, *names: str) -> None:
    """Raise `CcsError` where one of these flags was given as less than 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise CcsError(f"--{name}: expected 1 or more, found {value}")


def add_settings(parser: Any, kind: type, *, prefix: str = "") -> None:
    """Add one flag per setting to an `argparse` parser or a group of one.

    A boolean is --flag true|false, nothing is none, and several values follow their flag. With a `prefix`, such as
    evaluate-, a flag has no default, and `given_settings` tells which were given.
    """
    for setting in settings_of(kind).values():
        several = setting.shape.base is tuple
        one = (setting.shape.item or setting.shape.items[0]) if several else setting.shape
        needed = setting.default is dataclasses.MISSING and not prefix
        text = setting.help if needed or prefix else f"{setting.help} (default: {word(setting.default)})"
        parser.add_argument(
            f"--{prefix}{setting.name.replace('_', '-')}",
            dest=f"{prefix}{setting.field}",
            type=_converter(one),
            nargs="*" if several else None,
            choices=one.choices if 0 < len(one.choices) <= MANY else None,
            default=None if needed or prefix else setting.default,
            required=needed,
            metavar=None if 0 < len(one.choices) <= MANY else setting.name.upper(),
            help=text.replace("%", "%%"),
        )


def settings_from(args: argparse.Namespace, kind: type[T]) -> T:
    """The settings from parsed flags; `CcsError` for values out of range."""
    values = {setting.field: getattr(args, setting.field) for setting in settings_of(kind).values()}
    return kind(**values)


def given_settings(args: argparse.Namespace, kind: type, *, prefix: str) -> dict[str, Any]:
    """Those of the settings whose flag with this prefix was given, by field."""
    values = {setting.field: getattr(args, f"{prefix}{setting.field}") for setting in settings_of(kind).values()}
    return {field: value for field, value in values.items() if value is not None}


def _converter(found: Shape) -> Callable[[str], object]:
    """From a flag's text to its type, whatever the range."""

    def convert(text: str) -> object:
        if found.optional and text.lower() in ("none", "null"):
            return None
        if found.base is bool:
            return {"true": True, "false": False}[text.lower()]
        return found.base(text)

    def converted(text: str) -> object:
        try:
            return convert(text)
        except (KeyError, ValueError):
            raise argparse.ArgumentTypeError(f"expected {expected(found)}, found {text!r}") from None

    return converted
