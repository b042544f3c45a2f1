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
from ccs.tables import shown

ROOT = Path(__file__).resolve().parent.parent.parent


def ccs(*arguments):
    code = "import sys; from ccs.cli import main; main(); print(*sorted(sys.modules), file=sys.stderr)"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_imports_none():
    done = ccs()
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert not {"cv2", "torch", "ccs.train"} & set(done.stderr.split())
    tools, stages = done.stdout.split("Stages of the workflow")
    assert "  flow " in tools
    assert "  train " in stages


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--help"]])
def test_help_in_every_spelling(words):
    assert ccs(*words).stdout == ccs().stdout


@pytest.mark.parametrize("words", [["version"], ["-v"], ["-V"], ["--version"]])
def test_version_in_every_spelling(words):
    assert ccs(*words).stdout == f"ccs {__version__}\n"


@pytest.mark.parametrize("words", [["help", "quarantine"], ["quarantine", "-h"], ["--help", "quarantine"]])
def test_help_of_a_command(words):
    assert "usage: ccs quarantine" in ccs(*words).stdout


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "ccs", "version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ccs {__version__}\n"


def test_every_rule_is_a_stage():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    called = set(re.findall(r"(?:python -m|--) (ccs[\w.]*\w)[ \"]", rules)) - {"ccs.launch"}
    assert called
    assert set(re.findall(r"(?:python -m|--) {([\w.]+)}\"", rules)) == {"params.module"}  # of the figures
    called |= {figure.__name__ for figure in shown.figures().values()}
    # `ccs flow` is more than the stage, to which it hands on what is for it
    stages = {"ccs.flow" if name == "flow" else module for name, (module, _) in cli.COMMANDS.items()}
    assert called <= {module.removesuffix(".__main__") for module in stages}


@pytest.mark.parametrize("name", ["datasets", "quarantine", "tables"])
def test_a_stage_gets_the_arguments_after_its_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out


@pytest.mark.parametrize("module", [module for module, _ in cli.COMMANDS.values()])
def test_stages_exist(module):
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["trian"], "ccs: error: no command 'trian': did you mean train?", 1),
        (["help", "flo"], "no command 'flo': did you mean flow?", 1),
        (["zebra"], "no command 'zebra'; there are flow, features, predict, export, results, weights, datasets,", 1),
        (["flow", "a.mp4", "--output", "b", "--formt", "jpg"], "--formt: did you mean --format?", 2),
        (["predict", "a.mp4", "--checkpont=b"], "--checkpoint", 2),
        (["demo", "--output-dir", "a", "--zebra"], "unrecognized arguments: --zebra", 2),
    ],
)
def test_what_is_not_known_is_told_with_what_may_be_meant(words, message, status):
    done = ccs(*words)
    assert done.returncode == status
    assert message in done.stderr


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    hide = "import sys; sys.modules['torch'] = None; from ccs import cli; cli.main(['predict', '--help'])"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install '.[train]' in a checkout" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_is_snakemake_on_the_workflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ccs", "run", "--directory", str(tmp_path), "--list-rules"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "expected the configuration of this project, found none" in done.stderr
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "ccs", "run", "--directory", str(tmp_path), "--list-rules"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"train", "table1", "flow"} <= set(done.stdout.split())
