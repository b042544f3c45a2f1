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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    asked = [*project["dependencies"], *(each for each in extras if not each.startswith(project["name"]))]
    lines = [
        "# For `snakemake --sdm conda`. Written from requirements.lock by `make lock`; do not edit.",
        "name: ccs",
        "channels: [conda-forge, nodefaults]",
        "dependencies:",
        "  - python=3.12",
        "  - pip",
        "  - pip:",
        *(f"      - {_exact(lock, requirement)}" for requirement in asked),
    ]
    return "\n".join(lines) + "\n"


def _exact(lock: str, requirement: str) -> str:
    # `name[extra]>=1; marker` to `name[extra]==1.2.3; marker`
    name, extra, marker = re.match(r"([\w.-]+)(\[[^]]*\])?[^;]*(;.*)?", requirement).groups(default="")
    return f"{name}{extra}=={_version(lock, name)}{marker}"


def _version(lock: str, name: str) -> str:
    # of a package locked twice, for older and newer Pythons, the later line is for 3.12 and newer
    return re.findall(rf"^{re.escape(name)}==([^ \\;]+)", lock, re.MULTILINE)[-1]


if __name__ == "__main__":
    (ROOT / "envs" / "ccs.yaml").write_text(conda_environment())
