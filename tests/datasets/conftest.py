"""Made-up datasets: trees of small files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Iterable[str] | Mapping[str, str | bytes]], Path]:
    """A function that makes files below tmp_path, empty ones from names, others from {name: content}."""

    def make(files: Iterable[str] | Mapping[str, str | bytes]) -> Path:
        contents = files if isinstance(files, Mapping) else dict.fromkeys(files, b"")
        for folder in {(tmp_path / name).parent for name in contents}:
            folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return make
