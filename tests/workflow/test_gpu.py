"""GPUs in real runs of snakemake: who gets which, how many at once, and what a stage is told. The devices are made up.

Training here says that it runs, and on which device, and goes on until it is released: nothing depends on how long a
stage takes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 120  # seconds; only a broken workflow needs them

# before that of the other tests, which writes the outputs
STUB = """
import os, runpy, sys, time
from pathlib import Path
shared = Path(os.environ["SHARED"])
if "ccs.train" in sys.orig_argv[:3]:
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    holder = shared / f"gpu{device}.running"
    try:
        os.close(os.open(holder, os.O_CREAT | os.O_EXCL))  # fails where another runs on the device
    except FileExistsError:
        (shared / "clash").touch()
    running = len(list(shared.glob("*.running")))
    with open(shared / "starts", "a") as starts:
        print(device, running, os.getppid(), file=starts)
    while not (shared / "release").exists():
        time.sleep(0.01)
    holder.unlink(missing_ok=True)
runpy.run_path(os.environ["OUTPUTS_STUB"])
"""


@pytest.fixture
def machine(project, tmp_path, monkeypatch):
    """A project whose four trainings have to run again, on a machine with two GPUs."""
    project.configure({"seeds": [0, 1]})
    shared = tmp_path / "shared"
    (shared / "stub").mkdir(parents=True)
    (shared / "stub/sitecustomize.py").write_text(STUB)
    tool = shared / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: made up (UUID: GPU-a)'; echo 'GPU 1: made up (UUID: GPU-b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CCS_GPU_LOCKS", str(shared / "locks"))
    monkeypatch.setenv("SHARED", str(shared))
    monkeypatch.setenv("PYTHONPATH", str(shared / "stub"))
    monkeypatch.setenv("OUTPUTS_STUB", str(Path(__file__).with_name("sitecustomize.py")))
    running = []

    def start(*arguments):
        command = [Path(sys.executable).with_name("snakemake"), "--nocolor", *arguments]
        with open(shared / f"snakemake{len(running)}.log", "w") as log:
            running.append(subprocess.Popen(command, cwd=project.path, stdout=log, stderr=subprocess.STDOUT))
        return running[-1]

    project.start, project.shared = start, shared
    yield project
    (shared / "release").touch()
    for process in running:
        process.kill()
        process.wait()


def until(condition, project):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, [path.read_text() for path in project.shared.glob("*.log")]
        time.sleep(0.02)
    return value


def starts(project):
    """Device, how many ran then, and the parent process of each training that was started."""
    file = project.shared / "starts"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def trainings(*runs):
    return [f"results/runs/mine/split1/{run}/seed{seed}/checkpoint.pt" for run in runs for seed in (0, 1)]


def waiting(project, run):
    """How many trainings of the run wait for a GPU that another has."""
    logs = [project.path / f"logs/mine/split1/{run}/seed{seed}/train.log" for seed in (0, 1)]
    return sum("waiting for 1 of the GPUs 0, 1" in log.read_text() for log in logs if log.exists())


def test_as_many_jobs_run_at_once_as_there_are_gpus_each_on_its_own(machine):
    """Without being told how many: threads would allow all four."""
    arguments = ("--cores", "4", "--set-threads", "train=1", "--forcerun", "train", "--")
    snakemake = machine.start(*arguments, *trainings("two_stream", "ccs"))
    until(lambda: len(starts(machine)) == 2, machine)
    (machine.shared / "release").touch()
    assert snakemake.wait(PATIENCE) == 0
    devices, running, parents = zip(*starts(machine), strict=True)
    assert len(devices) == 4
    assert set(devices[:2]) == {"0", "1"}
    assert max(map(int, running)) == 2
    assert not (machine.shared / "clash").exists()
    # it was snakemake that kept the others back, and not a lock: they took no cores meanwhile
    assert waiting(machine, "two_stream") + waiting(machine, "ccs") == 0
    # `exec`: what snakemake waits for, and a scheduler signals, is the stage itself and no shell above it
    assert set(parents) == {str(snakemake.pid)}


@pytest.mark.slow
def test_two_calls_of_snakemake_share_the_gpus_out(machine):
    arguments = ("--cores", "4", "--resources", "gpu=2", "--set-threads", "train=1", "--nolock", "--forcerun", "train")
    first = machine.start(*arguments, "--", *trainings("two_stream"))
    until(lambda: len(starts(machine)) == 2, machine)
    second = machine.start(*arguments, "--", *trainings("ccs"))
    until(lambda: waiting(machine, "ccs") == 2, machine)
    assert len(starts(machine)) == 2
    (machine.shared / "release").touch()
    assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (0, 0)
    assert {parent for *_, parent in starts(machine)} == {str(first.pid), str(second.pid)}
    assert max(int(running) for _, running, _ in starts(machine)) == 2
    assert not (machine.shared / "clash").exists()


def test_more_gpus_than_there_are_is_an_error(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    done = project.snakemake("--dry-run", "--set-resources", "train:gpu=3")
    assert done.returncode == 1
    assert "--set-resources train:gpu=3: this machine has 2 GPUs" in done.stdout


@pytest.mark.parametrize(
    ("visible", "arguments", "gpus", "threads", "workers"),
    [
        ("0", (), 1, 32, 32),
        ("0,1", ("--cores", "20", "--resources", "gpu=1"), 1, 20, 20),
        ("0,1", ("--cores", "12"), 1, 8, 8),
        ("0,1,2,3", ("--set-resources", "train:gpu=4"), 4, 64, 16),
        ("0,1,2,3", ("--set-resources", "train:gpu=4", "train:nodes=2"), 4, 32, 16),
        ("0,1,2,3", ("--set-resources", "train:gpu=2", "--set-threads", "train=6"), 2, 6, 3),
        ("0,1", ("--set-resources", "train:gpu=0"), 0, 1, 0),
        ("", ("--set-threads", "train=4"), 0, 4, 4),
    ],
)
def test_a_job_has_its_gpus_share_of_the_cores_at_least_eight_a_gpu_and_a_process_its_share_of_them(
    project, monkeypatch, visible, arguments, gpus, threads, workers
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    target = "results/runs/mine/split1/ccs/seed0/checkpoint.pt"
    printed = project.run("--dry-run", "-p", "--cores", "64", "--forcerun", "train", *arguments, "--", target)
    job = printed[printed.index("rule train:") :]
    assert f"python -m ccs.launch --gpus {gpus} -- ccs.train " in job
    assert f" --workers {workers} " in job
    assert re.search(r"\n    threads: (\d+)", job + "\n    threads: 1")[1] == str(threads)
