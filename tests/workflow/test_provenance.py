"""The digest of a stage's code: what it covers, and what does not change it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ccs import provenance
from ccs.provenance import modules, stage_digest
from ccs.stage import CcsError

FILES = {
    "toy/__init__.py": "__version__ = '1'\n",
    "toy/stage.py": "from __future__ import annotations\nimport os.path\nfrom toy import used as u\n",
    "toy/used.py": "def f():\n    from .deep.leaf import name\n    return name\n",
    "toy/typed.py": "",
    "toy/deep/__init__.py": "from . import side\nfrom .. import up\n",
    "toy/deep/__main__.py": "import toy.other\n",
    "toy/deep/leaf.py": "name = 1\n",
    "toy/deep/side.py": "",
    "toy/up.py": "import toy.used, toy.stage\n",  # a circle
    "toy/other.py": "if TYPE_CHECKING:\n    import toy.typed\nelse:\n    import toy.untyped\n",
    "toy/untyped.py": "",
    "toy/data.csv": "1\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(root, stage="toy.stage", *data):
    """As a new process sees it."""
    for function in (stage_digest, modules, provenance._tree, provenance._imports, provenance._module_digest):
        function.cache_clear()
    return stage_digest(stage, *data, root=root)


def test_it_covers_what_is_imported_however_deep(root):
    reached = ("toy", "toy.deep", "toy.deep.leaf", "toy.deep.side", "toy.stage", "toy.up", "toy.used")
    assert modules("toy.stage", root) == reached  # not the __main__ of a package that is only imported
    assert modules("toy.deep", root) == tuple(sorted({*reached, "toy.deep.__main__", "toy.other", "toy.untyped"}))
    before = digest(root)
    for name in reached:
        file = root / f"{name.replace('.', '/')}.py"
        file = file if file.exists() else root / name.replace(".", "/") / "__init__.py"
        text = file.read_text()
        file.write_text(f"{text}more = 1\n")
        assert digest(root) != before, name
        file.write_text(text)
    assert digest(root) == before
    (root / "toy/other.py").write_text("more = 1\n")
    assert digest(root) == before


def test_modules_are_those_that_python_loads(monkeypatch):
    """The real stages, against the interpreter's own account of what importing them loaded."""
    import subprocess

    for stage in ("ccs.tables", "ccs.flow.__main__", "ccs.quarantine"):
        code = f"import sys, {stage}; print(*(n for n in sys.modules if n == 'ccs' or n.startswith('ccs.')))"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert set(loaded) - set(provenance.NOT_COUNTED) <= set(modules(stage))


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x = 1\n", "# why\nx  =  (1)  # so\n\n", True),
        ("def f(a):\n    return a\n", 'def f(\n    a,\n):\n    """What."""\n    return a\n', True),
        ("class A:\n    x: int = 1\n", 'class A:\n    """What."""\n\n    x: int = 1\n    """That."""\n', True),
        ("CAPTION = '1'\n", "CAPTION = '2'\n", True),
        ("x = 'a'\n", "x = 'b'\n", False),
        ("x = 1\n", "x = 1.0\n", False),
        ("x = 1\n", "x = True\n", False),
        ("f(a, b)\n", "f(b, a)\n", False),
        ("f(a=b)\n", "f(b=a)\n", False),
        ("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n", False),
        ("x = f'{a}'\n", "x = f'{a!r}'\n", False),
        ("def f(*, a): pass\n", "def f(a): pass\n", False),
    ],
)
def test_only_what_python_executes_counts(root, before, after, same):
    (root / "toy/used.py").write_text(before)
    first = digest(root)
    (root / "toy/used.py").write_text(after)
    assert (digest(root) == first) == same


def test_data_counts_where_it_is_named(root):
    first = digest(root, "toy.stage", "toy/*.csv")
    (root / "toy/data.csv").write_text("2\n")
    assert digest(root, "toy.stage", "toy/*.csv") != first
    with pytest.raises(CcsError, match=r"none\.csv: expected data of toy\.stage, found no such file"):
        digest(root, "toy.stage", "toy/none.csv")


def test_a_stage_that_is_missing_or_broken_is_named(root):
    with pytest.raises(CcsError, match=r"toy\.gone: no such module"):
        digest(root, "toy.gone")
    (root / "toy/used.py").write_text("def f(:\n")
    with pytest.raises(CcsError, match=r"used\.py, line 1: not valid Python"):
        digest(root)


def test_nothing_is_imported(root):
    (root / "toy/used.py").write_text("raise SystemExit('imported')\n")
    digest(root)
    assert "toy" not in sys.modules


def test_every_stage_of_the_rules_has_a_digest():
    rules = Path(provenance.ROOT / "workflow/rules").glob("*.smk")
    stages = {
        name for rule in rules for name in re.findall(r'(?:stage_digest|network_code)\("([\w.]+)"', rule.read_text())
    }
    stages |= {f"ccs.figures.{figure}" for figure in ("figure1", "figure5a", "figure5b", "figure6")}  # by a wildcard
    stages -= {"ccs.figures."}
    assert len(stages) == 17
    assert len({stage_digest(stage) for stage in stages}) == 17


def test_an_edit_of_the_network_redraws_no_table_and_no_figure_of_scores():
    for stage in ("ccs.tables", "ccs.figures.figure1", "ccs.figures.figure5a", "ccs.figures.figure5b"):
        assert not any(module.startswith(("ccs.models", "ccs.train")) for module in provenance.modules(stage))
