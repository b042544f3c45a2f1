"""What a table or a figure is told to show: the shapes of their blocks in the configuration, and which ones there are.

A table is a module `ccs.tables.table...`, a figure a package `ccs.figures.figure...`. Each has a class `Shown`, one of
the shapes here with settings of its own, if any, and a text `CAPTION` for the report. Where no paper is meant, of
videos of one's own, what is not tied to it has a plain name: the table `accuracy`, and two of the figures.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated

from ccs.settings import Different, Field, Text, settings

Label = Annotated[Text, Field(min_length=1)]
Labels = Annotated[dict[Text, Label], Field(min_length=1)]


@settings
class Everywhere:
    """On which data sets."""

    datasets: Annotated[tuple[Text, ...], Field(min_length=1), Different()] | None = None
    """the data sets that it shows, without it all"""


@settings
class Rows(Everywhere):
    """Runs in rows."""

    rows: Labels | None = None
    """run name and the label of its row, in the order of the rows"""


@settings
class Groups(Everywhere):
    """Runs in rows, rows in groups."""

    groups: Annotated[dict[Text, Labels], Field(min_length=1)] = Field(kw_only=True)
    """rows by the label of their group"""


@settings
class OneRun(Everywhere):
    """One run."""

    run: Text = Field(kw_only=True)
    """name of the run"""


def tables() -> dict[str, ModuleType]:
    """The modules of the tables, by name."""
    return {"accuracy": importlib.import_module("ccs.tables.accuracy"), **_shown("ccs.tables", "table")}


def figures() -> dict[str, ModuleType]:
    """The packages of the figures, by name; two names may have one package."""
    found = _shown("ccs.figures", "figure")
    return {"confusion": found["figure1"], "activation_maps": found["figure6"], **found}


def _shown(package: str, prefix: str) -> dict[str, ModuleType]:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    names = sorted(each.name for each in found if each.name.startswith(prefix))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}
