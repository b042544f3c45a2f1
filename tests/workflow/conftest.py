"""A copy of the workflow in a temporary directory, with made-up videos and stages that only write their outputs."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

CONFIG = {
    "datasets": {"mine": {"adapter": "folder", "root": "videos", "shards": 4, "test_fraction": 0.25}},
    "train": {"weights": "none"},
    "seeds": [0],
    "runs": {"two_stream": {"connection": "none", "shared": False, "ranking": False}, "ccs": None},
    "tables": {"table1": {"rows": {"two_stream": "Two-stream", "ccs": "CCS"}}},
}


@dataclass
class Project:
    """A checkout with a configuration and videos, in which snakemake can be run."""

    path: Path

    def snakemake(self, *arguments: str, failing: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess:
        """Run snakemake on two cores; stages only write their outputs, but `failing` fails."""
        process = self.start(*arguments, cwd=cwd, FAILING_STAGE=failing)
        printed, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def start(
        self, *arguments: str, cwd: Path | None = None, stdout: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen:
        """Start snakemake so; the stage that `WAITING_STAGE` names waits for a signal, and writes down which, and
        that of `WARNING_STAGE` warns of something.
        """
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [Path(sys.executable).with_name("snakemake"), "--cores", "2", "--nocolor", *arguments],
            cwd=cwd or self.path,
            # locks of its own: a test does not wait for a GPU that somebody uses
            env={"CCS_GPU_LOCKS": str(self.path / "locks"), **os.environ, "PYTHONPATH": path, **environment},
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            # where the tests run in the background, Ctrl-C is ignored and would be inherited so
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *arguments: str) -> str:
        """What snakemake prints; it must succeed."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def plan(self, *arguments: str) -> dict[str, set[str]]:
        """What a run would do: the first output of each job, by rule."""
        jobs = defaultdict(set)
        printed = self.run("--dry-run", "-p", *arguments)
        for block in re.split(r"^(?:local)?rule ", printed, flags=re.MULTILINE)[1:]:
            output = re.search(r"^    output: ([^,\n]+)", block, flags=re.MULTILINE)
            if output:
                jobs[block.split(":")[0]].add(output[1])
        assert jobs or "Nothing to be done" in printed, printed
        return dict(jobs)

    def commands(self, *arguments: str) -> list[list[str]]:
        """The command lines of the stages that a run would start, in words."""
        printed = self.run("--dry-run", "--printshellcmds", *arguments)
        return [shlex.split(line) for line in printed.splitlines() if "python -m ccs." in line]

    def configure(self, changes: dict | None = None) -> dict:
        """Write config.yaml: `CONFIG` with each of `changes` (`{"flow.bound": 10}`) made; return it."""
        config = copy.deepcopy(CONFIG)
        for name, value in (changes or {}).items():
            *blocks, key = name.split(".")
            place = config
            for block in blocks:
                place = place.setdefault(block, {})
            place[key] = value
        (self.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return config

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the one occurrence of `old` in a file of the project."""
        text = (self.path / file).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        (self.path / file).write_text(text.replace(old, new))

    def add_video(self, name: str) -> None:
        """Make up a video, `CLASS/NAME.mp4`."""
        video = self.path / "videos" / name
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_text(name)


def checkout(path: Path) -> Project:
    """A copy of all that snakemake needs of this repository."""
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    path.mkdir(parents=True, exist_ok=True)
    for name in ("ccs", "envs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, path / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", path)
    return Project(path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first run. Not to be changed: see `project`."""
    project = checkout(tmp_path_factory.mktemp("finished") / "project")
    project.configure()
    for action in ("jump", "run", "wave"):
        for number in range(4):
            project.add_video(f"{action}/{number}.mp4")
    project.run()
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished project to change."""
    return Project(Path(shutil.copytree(finished.path, tmp_path / "project", symlinks=True)))
