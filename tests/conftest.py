"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

# tests run one per core; torch reads this when it is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
# where SLURM's commands are installed, its executor asks them for a cluster at each start of Snakemake: there is none
os.environ.setdefault("SLURM_CONF", os.devnull)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips, split lists and reference flow; see CONTRIBUTING.md."""
    folder = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set CCS_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def on_own_disk(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs a command line in an empty tmpfs of so many MiB, which no other process sees."""

    def run(command: Sequence[str | Path], size: int, **options) -> subprocess.CompletedProcess:
        if not shutil.which("unshare"):
            pytest.skip("a full disk is a mount of its own: no `unshare` here")
        own = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-r", "-m"]
        script = f'mount -t tmpfs -o size={size}m tmpfs "$0" && cd "$0" && echo mounted >&2 && exec "$@"'
        line = [*own, "sh", "-c", script, str(tmp_path_factory.mktemp("disk")), *map(str, command)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, **options)
        mounted, _, done.stderr = done.stderr.partition("mounted\n")
        if done.returncode and mounted:
            pytest.skip(f"a full disk is a mount of its own: {mounted.strip()}")
        return done

    return run
