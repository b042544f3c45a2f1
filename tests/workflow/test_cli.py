"""The `ccs` command."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ccs import __version__, cli

ROOT = Path(__file__).resolve().parent.parent.parent


def ccs(*arguments):
    code = "import sys; from ccs.cli import main; main(); print(*sorted(sys.modules), file=sys.stderr)"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_stage_and_imports_none():
    done = ccs()
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in cli.STAGES)
    assert not {"cv2", "torch", "ccs.train"} & set(done.stderr.split())
    assert ccs("--version").stdout == f"ccs {__version__}\n"


def test_every_rule_is_a_stage():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    called = set(re.findall(r"(?:python -m|--) (ccs[\w.]*\w)[ \"]", rules)) - {"ccs.launch"}
    assert called
    assert set(re.findall(r"python -m ([\w.]+){", rules)) == {"ccs.figures."}
    # `ccs flow` is more than the stage, to which it hands on what is for it
    stages = {"ccs.flow" if name == "flow" else module for name, (module, _) in cli.STAGES.items()}
    assert called <= {module.removesuffix(".__main__") for module in stages}


@pytest.mark.parametrize("name", ["datasets", "quarantine", "tables"])
def test_a_stage_gets_the_arguments_after_its_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out


@pytest.mark.parametrize("module", [module for module, _ in cli.STAGES.values()])
def test_stages_exist(module):
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def test_an_unknown_stage_is_an_error_that_lists_them(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["trian"])
    assert stop.value.code == 1
    assert "no stage 'trian'; there are demo, datasets" in capsys.readouterr().err
