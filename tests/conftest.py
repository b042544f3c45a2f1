"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# tests run one per core; torch reads this when it is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
# where SLURM's commands are installed, its executor asks them for a cluster at each start of Snakemake: there is none
os.environ.setdefault("SLURM_CONF", os.devnull)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips, split lists and reference flow; see CCS_REAL_DATA in the README."""
    folder = Path(os.environ.get("CCS_REAL_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set CCS_REAL_DATA to their folder")
    return folder
