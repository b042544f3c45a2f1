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
    except (ValueError, RecursionError) as error:
        raise CcsError(f"--rows: expected {_FLAT}, found {text!r} ({error})") from error
    if isinstance(value, dict) and value and all(isinstance(rows, dict) and rows for rows in value.values()):
        return {_label(base, text): _rows(rows, text) for base, rows in value.items()}
    return _rows(value, text)


def flat_rows(text: str) -> Rows:
    """The flag's value where there are no groups; `CcsError` where it is anything else."""
    found = parse(text)
    rows = {run: label for run, label in found.items() if isinstance(label, str)}
    if len(rows) < len(found):
        raise CcsError(f"--rows: expected {_FLAT}, found {text}")
    return rows


def grouped_rows(text: str) -> Groups:
    """The flag's value where there are groups; `CcsError` where it is anything else."""
    found = parse(text)
    groups = {base: rows for base, rows in found.items() if isinstance(rows, dict)}
    if not groups or len(groups) < len(found):
        raise CcsError(f"--rows: expected {_GROUPED}, found {text}")
    return groups


def run_labels(rows: Mapping[str, str] | Mapping[str, Mapping[str, str]]) -> Rows:
    """Run name -> label; of several groups the label also names the group."""
    flat = {run: label for run, label in rows.items() if isinstance(label, str)}
    if flat:
        return flat
    groups = {base: own for base, own in rows.items() if isinstance(own, Mapping)}
    labels: dict[str, list[str]] = {}
    for base, own in groups.items():
        for run, label in own.items():
            labels.setdefault(run, []).append(f"{base}, {label}" if len(groups) > 1 else label)
    return {run: " and ".join(found) for run, found in labels.items()}


def _rows(value: object, text: str) -> Rows:
    if not isinstance(value, dict) or not all(isinstance(label, str) and label.strip() for label in value.values()):
        raise CcsError(f"--rows: expected {_FLAT}, found {text}")
    return {name: " ".join(label.split()) for name, label in value.items()}


def _label(base: str, text: str) -> str:
    if not base.strip():
        raise CcsError(f"--rows: expected {_GROUPED}, found an empty name in {text}")
    return " ".join(base.split())
