"""profiles/slurm, dry: what the paper's configuration would submit. Needs no SLURM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import dag  # noqa: E402


def dry_run(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """What snakemake prints of each job, by rule. No SLURM can be found: its configuration is empty."""
    command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", folder]
    command += [
        "--workflow-profile",
        ROOT / "profiles" / "slurm",
        "--cores",
        "64",
        "--nocolor",
        "--dry-run",
        "-p",
        *arguments,
    ]
    environment = {**os.environ, "SLURM_CONF": os.devnull}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = defaultdict(list)
    for rule, text in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", done.stdout, re.MULTILINE):
        jobs[rule].append(text)
    return dict(jobs)


def values(jobs: list[str], name: str) -> set[str]:
    """The values of a resource, or of threads, of those jobs."""
    found = [re.search(rf"\b{name}(?:=|: )([^,\n]*)", text) for text in jobs]
    return {match[1] if match else "" for match in found}


def test_every_rule_of_the_paper_is_submitted_with_what_it_needs(tmp_path):
    dag.make_ucf101(tmp_path, 2525)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/bn_inception-9f5701afb96c8044.pth").touch()
    paper = yaml.safe_load((ROOT / "workflow/configs/paper.yaml").read_text())
    # one of its two data sets, with few videos
    paper["datasets"] = {"ucf101": {**paper["datasets"]["ucf101"], "root": "videos", "lists": "lists", "shards": 4}}
    for block in (*paper["tables"].values(), *paper["figures"].values()):
        block.pop("datasets", None)
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(paper))
    jobs = dry_run(tmp_path, "--configfile", str(tmp_path / "paper.yaml"), "--", "all")
    shown = {"frames": 4, "flow": 4, "shards": 4, "train": 3 * 19, "evaluate": 3 * 19, "table": 3, "figure": 3}
    assert {rule: len(jobs[rule]) for rule in shown} == shown
    assert {"quarantine", "activation_maps", "details", "report", "all"} <= jobs.keys()
    assert [values(jobs["train"], name) for name in ("gpu", "threads", "mem_mb", "runtime")] == [
        {"1"},
        {"8"},
        {"24000"},
        {"1440"},
    ]
    assert values(jobs["train"], "slurm_extra") == {"--signal=TERM@120"}
    assert values(jobs["evaluate"], "gpu") == {"1"}
    assert values(jobs["flow"], "mem_mb") == {"4000"}
    assert values(jobs["shards"], "mem_mb") == {"2000"}
    assert values(jobs["shards"], "runtime") == {"60"}
    assert values(jobs["evaluate"], "slurm_extra") == {""}  # evaluation cannot go on where it stopped


def test_all_options_of_the_default_profile_are_repeated():
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text()) for name in ("default", "slurm")
    )
    options = {name: value for name, value in default.items() if not name.startswith("__")}  # those are the template's
    assert options.items() <= slurm.items()
