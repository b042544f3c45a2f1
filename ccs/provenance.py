"""What code a stage consists of, as one digest: an edit that can change its results changes the digest, others do not.

Each rule carries `stage_digest("ccs.<stage>")` as a param, so that Snakemake reruns a stage, and what hangs on it, when
its module or any `ccs` module that it imports, however deep, has changed. Comments, docstrings, formatting and the
modules in `NOT_COUNTED` do not count. Nothing is imported: the digest costs milliseconds wherever the Snakefile is
parsed.

Seen are import statements anywhere in a module, also inside functions, but for those that only type checkers read
(`if TYPE_CHECKING:`). A module that is loaded by its name is not: name
it to `stage_digest`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ccs.stage import CcsError

ROOT = Path(__file__).resolve().parent.parent  # of `ccs`

_VALUES = "types, ranges, defaults and help of settings; the values are params of the rules"
# An edit of these is taken to change no result. Whoever puts into one of them what does takes it off the list.
NOT_COUNTED = {
    "ccs": "the version, and Ctrl-C while a stage is being imported",
    "ccs.stage": "messages, progress, files that are whole or absent",
    "ccs.signals": "how a stage ends when it is told to",
    "ccs.settings": "flags into values; the values are params of the rules",
    "ccs.frames.settings": _VALUES,
    "ccs.flow.settings": _VALUES,
    "ccs.models.settings": _VALUES,
    "ccs.models.catalogue": "names and hints; the rules count the module of a run's own backbone",
    "ccs.models.published": "where published weights are fetched; a training notes which it had",
    "ccs.clips.settings": _VALUES,
    "ccs.train.settings": _VALUES,
    "ccs.datasets.settings": _VALUES,
    "ccs.train.history": "what training tells of itself; no accuracy in a table comes from it",
    "ccs.train.interruption": "when training stops; it goes on to the same bits",
}


@cache
def stage_digest(
    stage: str, *data: str, also: tuple[str, ...] = (), without: tuple[str, ...] = (), root: Path = ROOT
) -> str:
    """The digest (16 hex digits) of the code that `python -m STAGE` runs.

    Args:
        stage: a module such as `ccs.quarantine`, or a package such as `ccs.flow` (its `__main__` included).
        data: data files that count as code, as patterns relative to `root`, e.g. `ccs/published/*.csv`.
        also: modules that it loads by their names, such as the backbone of a run.
        without: modules that it imports and does not use, such as other engines of the flow.
        root: the directory that holds the package.

    Raises:
        CcsError: the module is missing or not valid Python, or a pattern matches no file.
    """
    digest = hashlib.sha256()
    for module in modules(stage, root, also=also, without=without):
        digest.update(f"{module}\0{_module_digest(root, module)}\n".encode())
    for pattern in data:
        files = sorted(root.glob(pattern))
        if not files:
            raise CcsError(f"{root / pattern}: expected data of {stage}, found no such file: is the checkout complete?")
        for file in files:
            digest.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


@cache
def modules(
    stage: str, root: Path = ROOT, *, also: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The names, sorted, of the stage's module and of every module of its package that it imports, however deep.

    Those that do not count are left out, and what only they import.
    """
    if not _path(root, stage):
        raise CcsError(f"{stage}: no such module under {root}: is the checkout complete?")
    main = f"{stage}.__main__"
    found: set[str] = set()
    waiting = [stage, *also, *([main] if _path(root, main) else [])]
    while waiting:
        module = waiting.pop()
        if module in found or module in without or module in NOT_COUNTED or not _path(root, module):
            continue
        found.add(module)
        waiting += _imports(root, module)
        waiting += _parents(module)  # Python runs them first
    return tuple(sorted(found))


def _path(root: Path, module: str) -> Path | None:
    """The file of a module or of a package's `__init__`; None where there is none."""
    base = root.joinpath(*module.split("."))
    return next((file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


def _file(root: Path, module: str) -> Path:
    path = _path(root, module)
    if path is None:
        raise CcsError(f"{module}: no such module below {root}")
    return path


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


@cache
def _tree(root: Path, module: str) -> ast.Module:
    path = _file(root, module)
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise CcsError(f"{path}, line {error.lineno}: not valid Python ({error.msg})") from None


@cache
def _imports(root: Path, module: str) -> frozenset[str]:
    """Names that the module's import statements may load from its own top-level package, modules or not."""
    is_package = _file(root, module).name == "__init__.py"
    package = module.split(".") if is_package else module.split(".")[:-1]
    names = set()
    for node in _executed(_tree(root, module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, node.module] if node.module else above)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
    top = module.split(".")[0]
    return frozenset(name for name in names if name.split(".")[0] == top)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree but for what is below `if TYPE_CHECKING:`, which is never run."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        yield from _executed(child)


@cache
def _module_digest(root: Path, module: str) -> str:
    return hashlib.sha256(_canonical(_tree(root, module)).encode()).hexdigest()


def _canonical(node: object) -> str:
    """A syntax tree as text, without positions, empty fields and what `_is_ignored`.

    `ast.dump` would do, but prints the same tree differently under different versions of Python.
    """
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={_canonical(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(_canonical(each) for each in node if not _is_ignored(each))}]"
    return repr(node)


def _is_ignored(node: object) -> bool:
    """Docstrings and other bare strings; what the report says of a table or figure."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "CAPTION"
