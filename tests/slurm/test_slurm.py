"""The workflow on a SLURM of this machine: the demo's table as from a local run, with jobs killed on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from cluster import Cluster, cluster, processes_of

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ("two_stream", "ccs")
# for equal bits
THREADS = ("--set-threads", "train=1", "evaluate=1")


def checkout(path: Path) -> Path:
    """A copy of all that snakemake needs of this repository, with a small demo of two runs."""
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("ccs", "envs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, path / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", path)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["datasets"]["demo"] |= {"shards": 2, "train_per_class": 3, "test_per_class": 2, "frames": 8}
    config["flow"] |= {"warps": 1, "outer_iterations": 1}
    config["train"] |= {"input_size": 32, "epochs": 12, "lr_steps": [8]}
    config["evaluate"] |= {"segments": 2}
    config |= {"seeds": [0], "tables": {"table1": {"rows": {run: run for run in RUNS}}}, "figures": {}}
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def quicken(profile: Path) -> None:
    """Ask for the state of jobs more often than one would of a cluster."""
    settings = yaml.safe_load(profile.read_text())
    settings |= {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 5}
    profile.write_text(yaml.safe_dump(settings))


def snakemake(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """Start snakemake; what it prints goes to snakemake.out."""
    command = [Path(sys.executable).with_name("snakemake"), "--nocolor", *arguments, *THREADS]
    with open(folder / "snakemake.out", "wb") as output:
        return subprocess.Popen(
            [*command, "--", "results/table1.csv"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(process: subprocess.Popen) -> None:
    """With the stages that it runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def job_of(slurm: Cluster, run: str) -> str:
    """The number of the training of `run` that is running."""
    found = [job["JobId"] for job in slurm.jobs() if job["JobState"] == "RUNNING" and training(job) == run]
    assert len(found) == 1, found
    return found[0]


def end_by_signal(slurm: Cluster, job: str) -> None:
    """As --signal in the profile and preemption do."""
    slurm.run("scancel", "--signal=TERM", job)


def end_by_time_limit(slurm: Cluster, job: str) -> None:
    """The limit comes now; until then the training stands still, so that it is not done before."""
    slurm.run("scancel", "--signal=STOP", job)
    slurm.run("scontrol", "update", f"JobId={job}", "EndTime=now+1")


def training(job: dict[str, str]) -> str | None:
    """The run that a job trains."""
    return next((run for run in RUNS if re.match(rf"rule_train_wildcards_.*_{run}_", job["Comment"])), None)


def until(condition: Callable[[], bool], process: subprocess.Popen, printed: Path, seconds: float = 300) -> None:
    """Wait for a condition; not longer than the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, printed.read_text()
        assert time.monotonic() < end, printed.read_text()
        time.sleep(0.1)


def log_of(folder: Path, run: str) -> str:
    path = folder / f"logs/demo/split1/{run}/seed0/train.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_a_table_of_jobs_that_were_killed_is_that_of_a_local_run(slurm, tmp_path):
    local, remote = checkout(tmp_path / "local"), checkout(tmp_path / "remote")
    quicken(remote / "profiles" / "slurm" / "profile.yaml")
    alone = snakemake(local, "--cores", "1")
    jobs = snakemake(remote, "--workflow-profile", "profiles/slurm", environment=slurm.environment)
    first_logs = {}
    try:
        ends = {"two_stream": end_by_signal, "ccs": end_by_time_limit}
        while ends:
            until(lambda: any("epoch 1/" in log_of(remote, run) for run in ends), jobs, remote / "snakemake.out")
            run = next(run for run in ends if "epoch 1/" in log_of(remote, run))
            first_logs[run] = log_of(remote, run)
            ends.pop(run)(slurm, job_of(slurm, run))
        assert jobs.wait(timeout=400) == 0, (remote / "snakemake.out").read_text()
        assert alone.wait(timeout=400) == 0, (local / "snakemake.out").read_text()
    finally:
        for process in (jobs, alone):
            kill(process)

    by_rule = check_states(slurm.jobs())
    check_devices(by_rule, remote, first_logs)
    for run in RUNS:
        assert "resuming after" in log_of(remote, run)
        checkpoint = f"results/runs/demo/split1/{run}/seed0/checkpoint.pt"
        expected, found = (torch.load(folder / checkpoint)["model"] for folder in (local, remote))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (remote / "results/table1.csv").read_bytes() == (local / "results/table1.csv").read_bytes()


def check_states(jobs: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """SLURM's own records: every rule in jobs of its own, both trainings in two. Returns jobs by rule."""
    by_rule: dict[str, list[dict[str, str]]] = {}
    for job in jobs:
        by_rule.setdefault(re.match(r"rule_([a-z]+)", job["Comment"])[1], []).append(job)
    numbers = {rule: len(by_rule[rule]) for rule in ("demo", "frames", "flow", "shards", "train", "evaluate")}
    assert numbers == {"demo": 1, "frames": 2, "flow": 2, "shards": 2, "train": 4, "evaluate": 2}
    states = {run: [job["JobState"] for job in by_rule["train"] if training(job) == run] for run in RUNS}
    assert states == {"two_stream": ["FAILED", "COMPLETED"], "ccs": ["TIMEOUT", "COMPLETED"]}
    assert {job["JobState"] for rule in by_rule if rule != "train" for job in by_rule[rule]} == {"COMPLETED"}
    memory = [re.search(r"mem=([^,]+)", job["TRES"])[1] for job in by_rule["train"] if training(job) == "ccs"]
    assert memory == ["24000M", "48000M"]  # a second attempt asks for more
    return by_rule


def check_devices(by_rule: dict[str, list[dict[str, str]]], folder: Path, first_logs: dict[str, str]) -> None:
    """Trainings that ran at the same time had different GPUs, each the one that its launcher took."""
    devices = {run: re.search(r"GPU (\d)$", log, re.MULTILINE)[1] for run, log in first_logs.items()}
    (start, end), (other_start, other_end) = (
        next((job["StartTime"], job["EndTime"]) for job in by_rule["train"] if training(job) == run) for run in RUNS
    )
    assert max(start, other_start) < min(end, other_end)
    assert set(devices.values()) == {"0", "1"}
    for run in RUNS:  # held, and not seen by torch: /dev/null computes nothing
        assert "on a CPU" in log_of(folder, run)


@pytest.mark.slow
def test_waiting_for_ever_for_an_accounting_that_is_not_kept_is_refused(slurm, tmp_path):
    folder = checkout(tmp_path)
    arguments = ("--workflow-profile", "profiles/slurm", "--slurm-status-command", "sacct")
    process = snakemake(folder, *arguments, environment=slurm.environment)
    try:
        assert process.wait(timeout=300) == 1
    finally:
        kill(process)
    assert "keeps no accounting" in (folder / "snakemake.out").read_text()
    assert slurm.jobs() == []


@pytest.mark.slow
def test_nothing_is_left_when_a_test_fails(slurm):
    with pytest.raises(ZeroDivisionError):
        fail_with_a_running_job(folders := [])
    assert processes_of(folders[0]) == []
    assert not folders[0].exists()
    assert slurm.jobs() == []  # of the other cluster
    assert not os.path.exists("/etc/slurm/slurm.conf")


def fail_with_a_running_job(folders: list[Path]) -> None:
    with cluster() as other:
        folders.append(other.folder)
        other.run("sbatch", "--gpus=1", "--output=/dev/null", "--wrap", "sleep 600")
        while not any("sleep 600" in process for process in processes_of(other.folder)):
            time.sleep(0.1)
        assert [job["JobState"] for job in other.jobs()] == ["RUNNING"]
        raise ZeroDivisionError
