"""Settings: classes that refuse what they should, flags that become them, words that say what they may be."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Annotated, Literal

import pytest

from ccs.settings import (
    Boolean,
    Ge,
    Gt,
    Integer,
    Le,
    Number,
    OneOf,
    Text,
    add_settings,
    by_name,
    expected,
    settings,
    settings_from,
    settings_of,
)
from ccs.stage import CcsError


@settings
class Example:
    size: Annotated[Integer, Ge(0)] = 3
    share: Number = 0.5
    name: Literal["a", "b"] = "a"
    """which, 100 %"""
    on: Boolean = True
    path: Text | None = None
    steps: tuple[Integer, ...] = (1, 2)


@settings
class More(Example):
    lambda_: Annotated[Number, Gt(0), Le(0.25)] = 0.1
    """weight of the data term"""
    pair: tuple[Annotated[Number, Ge(0)], Annotated[Number, Ge(0)]] = (1.0, 2.0)
    network: Annotated[Text, OneOf(tuple(f"net{n}" for n in range(20)))] = "net3"


def test_settings_as_flags():
    parser = argparse.ArgumentParser()
    add_settings(parser, Example)
    assert settings_from(parser.parse_args([]), Example) == Example()
    flags = ["--size=7", "--share=1e-3", "--name=b", "--on=false", "--path=some/file", "--steps", "5", "6", "7"]
    assert settings_from(parser.parse_args(flags), Example) == Example(7, 1e-3, "b", False, "some/file", (5, 6, 7))
    assert settings_from(parser.parse_args(["--path", "none", "--steps"]), Example) == Example(steps=())
    assert "100 %" in parser.format_help()
    for wrong in (["--size", "x"], ["--on", "yes"], ["--name", "c"], ["--steps", "1.5"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    with pytest.raises(CcsError):
        settings_from(parser.parse_args(["--size=-1"]), Example)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": -1}, "setting size: expected a whole number of 0 or more, found -1"),
        ({"size": True}, "setting size: expected a whole number of 0 or more, found True"),
        ({"size": "3"}, "setting size: .*found '3'"),
        ({"share": float("nan")}, "setting share: expected a number, found nan"),
        ({"on": 1}, "setting on: expected true or false, found 1"),
        ({"name": "c"}, "setting name: expected a or b, found 'c'"),
        ({"path": 5}, "setting path: expected text, or none, found 5"),
        ({"lambda_": 0.5}, r"setting lambda: expected a number in \(0, 0\.25\], found 0\.5"),
        ({"pair": (1.0,)}, r"setting pair: expected 2 values, each a number of 0 or more, found \(1\.0,\)"),
        ({"network": "net99"}, "setting network: expected one of the names that there are, found 'net99'"),
        ({"sice": 3}, "no setting 'sice'; there are size, share"),
        ({"size": -1, "name": "c"}, "(?s)size: expected.*name: expected"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(wrong, message):
    with pytest.raises(CcsError, match=message):
        More(**wrong)
    with pytest.raises(CcsError, match=message):
        dataclasses.replace(More(), **wrong) if "sice" not in wrong else More(**wrong)


def test_what_is_whole_and_what_stands_once():
    assert by_name(More(lambda_=0.2, pair=(1, 2))) == {
        "size": 3,
        "share": 0.5,
        "name": "a",
        "on": True,
        "path": None,
        "steps": [1, 2],
        "lambda": 0.2,
        "pair": [1.0, 2.0],
        "network": "net3",
    }
    known = settings_of(More)
    assert known["lambda"].help == "weight of the data term"
    assert known["name"].help == "which, 100 %"  # of the class above
    assert known["size"].help == ""
    assert expected(known["path"].shape, "null") == "text, or null"
    with pytest.raises(dataclasses.FrozenInstanceError):
        More().size = 4
