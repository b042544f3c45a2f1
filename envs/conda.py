"""Write envs/ccs.yaml, the conda environment for `snakemake --sdm conda`, from the lock: the same exact packages.

Conda gives the interpreter, pip the packages: the versions in envs/requirements.lock that pyproject.toml asks for.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def conda_environment() -> str:
    """The text of envs/ccs.yaml."""
    lock = (ROOT / "envs" / "requirements.lock").read_text()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.match(r"[A-Za-z0-9_.-]+", requirement).group() for requirement in asked]
    lines = [
        "# For `snakemake --sdm conda`. Written from requirements.lock by `make lock`; do not edit.",
        "name: ccs",
        "channels: [conda-forge, nodefaults]",
        "dependencies:",
        "  - python=3.12",
        "  - pip",
        "  - pip:",
        *(f"      - {name}=={_version(lock, name)}" for name in names),
    ]
    return "\n".join(lines) + "\n"


def _version(lock: str, name: str) -> str:
    # of a package locked twice, for older and newer Pythons, the later line is for 3.12 and newer
    return re.findall(rf"^{re.escape(name)}==([^ \\;]+)", lock, re.MULTILINE)[-1]


if __name__ == "__main__":
    (ROOT / "envs" / "ccs.yaml").write_text(conda_environment())
