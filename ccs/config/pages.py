"""The settings for editors and for people: the JSON schema of the configuration, and the page of all settings.

    python -m ccs.config     writes workflow/schemas/config.schema.json and docs/settings.md

Both are made from the classes of the settings; a test compares the files with what this would write.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ccs.config.configuration import A_NAME, ADAPTER, BASES, BLOCKS, NAME, RUNS, SECTIONS, GeneralSettings
from ccs.datasets.adapters import ADAPTERS
from ccs.settings import Setting, expected, settings_of
from ccs.tables.shown import figures, tables
from ccs.train.settings import EvaluateSettings, RunSettings

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"
PAGE = ROOT / "docs" / "settings.md"


# -- for editors -------------------------------------------------------------------------------------------------------
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration file. It says nothing of combinations of settings."""
    general = _block(GeneralSettings)["properties"]
    scored = {"type": ["object", "null"], "additionalProperties": False, "properties": _changes(EvaluateSettings)}
    base = {"description": "the base that it starts from", "type": "string", "default": "tsn"}
    run = {"base": base, **_changes(RunSettings), "evaluate": scored}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of ccs",
        "description": "Written by `python -m ccs.config` from the settings of the stages; do not edit.",
        "type": "object",
        "additionalProperties": False,
        "required": ["datasets"],
        "properties": {
            "datasets": _names("datasets", {"$ref": "#/$defs/dataset"}, minProperties=1),
            **general,
            **{name: _block(kind) | {"description": SECTIONS[name]} for name, kind in BLOCKS.items()},
            "bases": _names(
                "bases", {"allOf": [{"$ref": "#/$defs/run"}, {"not": {"type": "object", "required": ["base"]}}]}
            ),
            "runs": _names("runs", {"$ref": "#/$defs/run"}, minProperties=1) | {"default": RUNS},
            "tables": _shown("tables", tables()),
            "figures": _shown("figures", figures()),
        },
        "$defs": {
            "name": {"description": A_NAME, "type": "string", "pattern": NAME},
            "dataset": {"type": "object", "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ADAPTERS]},
            **{name: _dataset(name) for name in ADAPTERS},
            "run": {"type": ["object", "null"], "additionalProperties": False, "properties": run},
        },
    }


def _changes(kind: type) -> dict[str, Any]:
    """The settings of a class without their defaults, which are another's."""
    properties = _block(kind)["properties"].items()
    return {name: {key: value for key, value in each.items() if key != "default"} for name, each in properties}


def _names(section: str, block: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    head = {"description": SECTIONS[section], "type": "object", "propertyNames": {"$ref": "#/$defs/name"}}
    return {**head, "additionalProperties": block, **more}


def _block(kind: type) -> dict[str, Any]:
    """A class as a schema, each setting with its help."""
    found = TypeAdapter(kind).json_schema(by_alias=True)
    text = found.pop("description", "")
    properties = {}
    for name, setting in settings_of(kind).items():
        told = {"description": setting.help} if setting.help else {}
        properties[name] = told | {key: value for key, value in found["properties"][name].items() if key != "title"}
    head = {"description": text.split("\n")[0]} if text else {}
    required = {"required": found["required"]} if "required" in found else {}
    return {**head, "type": "object", "additionalProperties": False, **required, "properties": properties}


def _dataset(adapter: str) -> dict[str, Any]:
    block = _block(ADAPTERS[adapter].Settings)
    key = {"adapter": {"description": ADAPTER, "const": adapter}}
    return block | {"required": ["adapter", *block.get("required", [])], "properties": {**key, **block["properties"]}}


def _shown(section: str, modules: Mapping[str, Any]) -> dict[str, Any]:
    blocks = {name: _block(module.Shown) for name, module in modules.items()}
    return {"description": SECTIONS[section], "type": "object", "additionalProperties": False, "properties": blocks}


# -- for people --------------------------------------------------------------------------------------------------------
def page() -> str:
    """All settings as Markdown: key, values, default, help."""
    lines = [
        "# Every setting",
        "",
        "Written by `python -m ccs.config` from the code; do not edit. [config.yaml](../config.yaml) shows the keys at",
        "work. Values of `--config`, such as `--config 'seeds=[0]' 'train={epochs: 5}'`, are read as YAML too.",
        "",
        "## The whole workflow",
        "",
        *_table(GeneralSettings),
    ]
    for name, kind in BLOCKS.items():
        lines += ["", f"## {name}", "", f"{_sentence(SECTIONS[name])}", "", *_table(kind)]
    lines += ["", "## datasets", "", f"{_sentence(SECTIONS['datasets'])} The key `adapter` says {ADAPTER}."]
    for name, module in ADAPTERS.items():
        lines += ["", f"### adapter: {name}", "", _first(module.Settings), "", *_table(module.Settings)]
    lines += ["", "## runs", "", _sentence(SECTIONS["runs"]), "", "## bases", "", _sentence(SECTIONS["bases"]), ""]
    lines += [f"- `{name}`: `{json.dumps(changes)}`" for name, changes in BASES.items()]
    for section, modules in (("tables", tables()), ("figures", figures())):
        lines += ["", f"## {section}", "", _sentence(SECTIONS[section])]
        for name, module in modules.items():
            lines += ["", f"### {name}", "", _first(module.Shown), "", *_table(module.Shown)]
    return "\n".join(lines) + "\n"


def _table(kind: type) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for setting in settings_of(kind).values():
        yield f"| `{setting.name}` | {expected(setting.shape, 'null')} | {_default(setting)} | {setting.help} |"


def _default(setting: Setting) -> str:
    if setting.default is dataclasses.MISSING:
        return "must be given"
    text = json.dumps(setting.default).replace('"', "")
    return f"`{text}`"


def _first(kind: type) -> str:
    return _sentence((kind.__doc__ or "").split("\n\n")[0])


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
