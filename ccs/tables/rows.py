"""The flag --rows: which runs a table or a figure shows, under which labels and in which groups, if any."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ccs.stage import CcsError

_FLAT = """a JSON object of run name to row label, e.g. '{"ccs": "CCS + TSN"}'"""
_GROUPED = """a JSON object of group to its rows, e.g. '{"TSN": {"tsn": "Baseline", "tsn_cb": "CB"}}'"""

Rows = dict[str, str]  # run name -> label
Groups = dict[str, Rows]  # group, in Table 3 the base model -> rows


def parse(text: str) -> Rows | Groups:
    """The flag's value, rows or groups of them; `CcsError` where it is neither. Runs of blanks in labels become one."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CcsError(f"--rows: expected {_FLAT}, found {text!r} ({error})") from error
    if isinstance(value, dict) and value and all(isinstance(rows, dict) and rows for rows in value.values()):
        return {_label(base, text): _rows(rows, text) for base, rows in value.items()}
    return _rows(value, text)


def flat_rows(text: str) -> Rows:
    """The flag's value where there are no groups; `CcsError` where it is anything else."""
    found = parse(text)
    if any(isinstance(value, dict) for value in found.values()):
        raise CcsError(f"--rows: expected {_FLAT}, found {text}")
    return found


def grouped_rows(text: str) -> Groups:
    """The flag's value where there are groups; `CcsError` where it is anything else."""
    found = parse(text)
    if not found or not all(isinstance(value, dict) for value in found.values()):
        raise CcsError(f"--rows: expected {_GROUPED}, found {text}")
    return found


def run_labels(rows: Rows | Groups) -> Rows:
    """Run name -> label; of several groups the label also names the group."""
    if not all(isinstance(value, Mapping) for value in rows.values()):
        return dict(rows)
    labels: dict[str, list[str]] = {}
    for base, own in rows.items():
        for run, label in own.items():
            labels.setdefault(run, []).append(f"{base}, {label}" if len(rows) > 1 else label)
    return {run: " and ".join(found) for run, found in labels.items()}


def _rows(value: object, text: str) -> Rows:
    if not isinstance(value, dict) or not all(isinstance(label, str) and label.strip() for label in value.values()):
        raise CcsError(f"--rows: expected {_FLAT}, found {text}")
    return {name: " ".join(label.split()) for name, label in value.items()}


def _label(base: str, text: str) -> str:
    if not base.strip():
        raise CcsError(f"--rows: expected {_GROUPED}, found an empty name in {text}")
    return " ".join(base.split())
