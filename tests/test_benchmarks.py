"""Benchmarks are not run here, but what they ask of the project is there. flow/test_trial.py runs the trial kit."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = [*sorted(BENCHMARKS.glob("*.py")), *sorted((BENCHMARKS / "gpu").glob("*.py")), BENCHMARKS / "gpu/pack"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ccs":
            module = importlib.import_module(node.module)
            for each in node.names:
                assert hasattr(module, each.name) or find_spec(f"{node.module}.{each.name}"), ast.unparse(node)
