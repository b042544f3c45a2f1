"""Claiming GPUs, with pretended ones: locks and visibility are real, devices are not."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccs.device import CLAIMED_GPUS
from ccs.launch import __main__ as launch
from ccs.launch import gpus
from ccs.stage import CcsError

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60  # seconds; only a broken launcher needs them

# tells its process and what it sees, and runs until it may end
STAGE = """
import os, sys, time
from pathlib import Path
name = sys.argv[1]
Path(f"{name}.part").write_text(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}")
os.rename(f"{name}.part", f"{name}.up")
while not Path(f"{name}.end").exists():
    time.sleep(0.01)
"""
# the same in a worker of a pool, as the flow stage has them
POOL = """
import sys
from ccs.pool import ordered_map
def nothing(index): pass
def work(name):
    sys.argv = ["", name]
    import stage
if __name__ == "__main__":
    list(ordered_map(work, sys.argv[1:], 1, nothing))
"""
# a process of several: counts them all, and ends as training does when it is interrupted
RANK = """
import os, signal, sys, time
from pathlib import Path
import torch
from torch import distributed
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(True))
distributed.init_process_group("gloo")
number = torch.ones(1)
distributed.all_reduce(number)
name = f"rank{distributed.get_rank()}"
told = [os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], int(number), os.environ["OMP_NUM_THREADS"]]
Path(f"{name}.part").write_text(" ".join(map(str, told)))
os.rename(f"{name}.part", f"{name}.up")
while not asked:
    time.sleep(0.01)
Path(f"{name}.asked").touch()
while not Path("finish").exists():
    time.sleep(0.01)
Path(f"{name}.checkpoint").touch()
os._exit(75)
"""


class Machine:
    """Starts launchers in a folder of stages, with GPUs 0 and 1 and locks of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: dict[str, subprocess.Popen] = {}
        for name, code in {"stage": STAGE, "pool": POOL, "ranks": RANK}.items():
            (folder / f"{name}.py").write_text(code)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in gpus.JOB},
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "CUDA_VISIBLE_DEVICES": "0,1",
            gpus.LOCKS: str(folder / "locks"),
        }

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen:
        with open(self.folder / f"{name}.err", "w") as errors:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-m", "ccs.launch", *arguments],
                cwd=self.folder,
                env={**self.environment, **environment},
                stderr=errors,
            )
        return self.started[name]

    def hold(self, name: str, gpus: int = 1, **environment: str) -> subprocess.Popen:
        return self.start(name, "--gpus", str(gpus), "--", "stage", name, **environment)

    def until(self, file: str, text: str = "") -> str:
        """The content of a file of the folder as soon as it is there and has the text."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            path = self.folder / file
            if path.exists() and text in (content := path.read_text()):
                return content
            time.sleep(0.01)
        errors = {path.name: path.read_text() for path in self.folder.glob("*.err")}
        raise AssertionError(f"{file} has no {text!r} after {PATIENCE} s: {errors}")

    def devices(self, name: str) -> str:
        """What a stage sees, as soon as it runs."""
        return self.until(f"{name}.up").split(" ")[1]

    def waits(self, name: str) -> bool:
        self.until(f"{name}.err", "waiting for")
        return not (self.folder / f"{name}.up").exists()

    def end(self, name: str) -> None:
        (self.folder / f"{name}.end").touch()
        assert self.started[name].wait(PATIENCE) == 0


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "PARALLEL", ("stage", "ranks"))
    made = Machine(tmp_path)
    yield made
    for up in tmp_path.glob("*.up"):  # of a pool's worker, if its test failed
        up.with_suffix(".end").touch()
    for process in made.started.values():
        process.kill()
        process.wait()


def tool(folder: Path, name: str, script: str) -> str:
    """A PATH on which this shell script is the first of its name."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return os.pathsep.join([str(path.parent), os.environ["PATH"]])


def smi(folder: Path, *lines: str) -> str:
    """With an nvidia-smi that prints these lines."""
    return tool(folder, "nvidia-smi", "\n".join(["cat <<'END'", *lines, "END"]))


LISTED = (
    "GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1111)",
    "GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2222)",
    "  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-3333)",
    "  MIG 1g.18gb     Device  1: (UUID: MIG-dddd-4444)",
    "GPU 2: NVIDIA H200 (UUID: GPU-eeee-5555)",
)


@pytest.mark.parametrize(
    ("visible", "entries", "identities"),
    [
        (None, "0 MIG-cccc-3333 MIG-dddd-4444 2", "GPU-aaaa-1111 MIG-cccc-3333 MIG-dddd-4444 GPU-eeee-5555"),
        ("2, 0", "2 0", "GPU-eeee-5555 GPU-aaaa-1111"),
        ("GPU-eeee,MIG-dddd-4444", "GPU-eeee MIG-dddd-4444", "GPU-eeee-5555 MIG-dddd-4444"),
        ("2,-1,0", "2", "GPU-eeee-5555"),
        ("7", "7", "7"),
        ("", "", ""),
        ("NoDevFiles", "", ""),
    ],
)
def test_which_gpus_there_are(tmp_path, monkeypatch, visible, entries, identities):
    monkeypatch.setenv("PATH", smi(tmp_path, *LISTED))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = gpus.visible_gpus()
    assert " ".join(gpu.entry for gpu in found) == entries
    assert " ".join(gpu.unique_name for gpu in found) == identities


def test_two_take_different_gpus_and_a_third_waits_for_one_that_is_killed(machine):
    """A third by its UUID, as another scheduler or person may name the same device."""
    path = smi(machine.folder, LISTED[0], LISTED[1])
    first, second = machine.hold("first", PATH=path), machine.hold("second", PATH=path)
    assert {machine.devices("first"), machine.devices("second")} == {"0", "1"}
    # the stage is the very process that was started, so that signals reach it
    assert machine.until("first.up").startswith(f"{first.pid} ")
    machine.hold("third", PATH=path, CUDA_VISIBLE_DEVICES="GPU-aaaa-1111")
    assert machine.waits("third")
    {machine.devices("first"): first, machine.devices("second"): second}["0"].kill()
    assert machine.devices("third") == "GPU-aaaa-1111"
    machine.end("third")
    errors = machine.until("third.err").splitlines()
    assert errors[0].startswith("waiting for 1 of the GPUs GPU-aaaa-1111: others use them")
    assert errors[1:] == ["stage: GPU GPU-aaaa-1111"]  # it said so once


def test_who_waits_for_two_keeps_none_from_others(machine):
    machine.start("first", "--gpus", "1", "--", "stage", "first")
    assert machine.devices("first") == "0"
    # what N > 1 becomes imports torch, which is not the point here
    code = (
        "import os\n"
        "from ccs.launch import __main__ as launch\nfrom ccs.launch import gpus\n"
        "claimed = gpus.wait_for(2, gpus.visible_gpus())\n"
        "os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(gpu.entry for gpu in claimed)\n"
        "launch._become(['-m', 'stage', 'both'])\n"
    )
    with open(machine.folder / "both.err", "w") as errors:
        machine.started["both"] = subprocess.Popen(
            [sys.executable, "-c", code], cwd=machine.folder, env=machine.environment, stderr=errors
        )
    assert machine.waits("both")
    machine.hold("second")
    assert machine.devices("second") == "1"
    machine.end("second")
    assert machine.waits("both")
    machine.end("first")
    assert machine.devices("both") == "0,1"
    machine.hold("third")
    assert machine.waits("third")
    machine.end("both")
    assert machine.devices("third") == "0"


def test_a_killed_stage_frees_its_gpu_though_a_worker_of_its_runs_on(machine):
    holder = machine.start("holder", "--gpus", "1", "--", "pool", "worker", CUDA_VISIBLE_DEVICES="0")
    worker = int(machine.until("worker.up").split()[0])
    assert worker != holder.pid
    holder.kill()
    machine.hold("next", CUDA_VISIBLE_DEVICES="0")
    assert machine.devices("next") == "0"
    os.kill(worker, 0)  # it is still there
    (machine.folder / "worker.end").touch()


def test_jobs_of_a_scheduler_have_locks_of_their_own(machine):
    """Each knows its GPU as 0; within a job GPUs are shared out all the same."""
    machine.hold("first", SLURM_JOB_ID="11", CUDA_VISIBLE_DEVICES="0")
    machine.hold("second", SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0")
    assert machine.devices("first") == machine.devices("second") == "0"
    machine.hold("third", SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0")
    assert machine.waits("third")
    machine.end("second")
    assert machine.devices("third") == "0"


def test_without_a_gpu_the_stage_sees_none(machine):
    machine.hold("stage", 0)
    assert machine.devices("stage") == ""
    assert not (machine.folder / "locks").exists()


@pytest.mark.parametrize(
    ("visible", "number", "module", "message"),
    [
        ("0,1", 3, "stage", r"asked for 3 GPUs, CUDA_VISIBLE_DEVICES has 2 \(0, 1\).*--set-resources RULE:gpu=2"),
        ("", 1, "stage", r"asked for 1 GPU, CUDA_VISIBLE_DEVICES has none.*--set-resources RULE:gpu=0"),
        ("0,1", 2, "ccs.evaluate", "ccs.evaluate can use one GPU, asked for are 2.*evaluate:gpu=2"),
        ("0,1", -1, "stage", "--gpus: expected 0 or more, found -1"),
    ],
)
def test_what_cannot_be_is_an_error(machine, monkeypatch, visible, number, module, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv(gpus.LOCKS, str(machine.folder / "locks"))
    with pytest.raises(CcsError, match=message):
        launch.main(["--gpus", str(number), "--", module, "name"])


def test_a_link_in_place_of_a_lock_is_refused(machine, monkeypatch):
    """In a folder that all users may write to anyone could make one."""
    precious = machine.folder / "precious"
    (machine.folder / "locks").mkdir()
    (machine.folder / "locks/0.lock").symlink_to(precious)
    monkeypatch.setenv(gpus.LOCKS, str(machine.folder / "locks"))
    for name in gpus.JOB:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CcsError, match=r"0\.lock: expected a file to lock"):
        gpus.wait_for(1, [gpus.Gpu("0", "0")])
    assert not precious.exists()


def test_a_file_system_without_locks_is_told_and_how_to_do_without_it(machine, monkeypatch):
    def no_locks(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setenv(gpus.LOCKS, str(machine.folder / "locks"))
    monkeypatch.setattr(gpus.fcntl, "flock", no_locks)
    with pytest.raises(CcsError, match=rf"\.lock: .* file system without locks .* local disk.* in {gpus.LOCKS}"):
        gpus.wait_for(1, [gpus.Gpu("0", "0")])


@pytest.mark.parametrize("given", [True, False])
def test_a_folder_of_locks_that_cannot_be_is_an_error(machine, monkeypatch, given):
    (machine.folder / "file").touch()
    folder = str(machine.folder / "file" / "locks")
    monkeypatch.setattr(gpus, "FOLDER", folder)
    monkeypatch.setenv(gpus.LOCKS, folder if given else "")
    with pytest.raises(CcsError, match=rf"{folder}\S*: expected a folder .* name another in {gpus.LOCKS}"):
        gpus.wait_for(1, [gpus.Gpu("0", "0")])


@pytest.mark.parametrize("pretended", ["", "1"])
def test_the_stage_is_told_which_gpus_it_must_be_able_to_use(machine, pretended):
    (machine.folder / "told.py").write_text(f"import os\nprint(repr(os.environ[{CLAIMED_GPUS!r}]))\n")
    command = [sys.executable, "-m", "ccs.launch", "--gpus", "1", "--", "told"]
    environment = {**machine.environment, launch.PRETENDED: pretended}
    done = subprocess.run(command, cwd=machine.folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ("''\n" if pretended else "'0'\n")


def test_a_process_whose_parent_is_gone_before_it_can_see_to_it_ends(machine):
    """The locks of its GPUs are gone with the parent."""
    command = [sys.executable, "-m", "ccs.launch", "--rank", "--", "stage", "orphan"]
    environment = {**machine.environment, launch.SUPERVISOR: "1"}
    assert subprocess.run(command, cwd=machine.folder, env=environment, check=False).returncode == -signal.SIGKILL
    assert not (machine.folder / "orphan.up").exists()


def test_every_user_may_lock_in_the_shared_folder_and_a_bad_one_is_passed_by(tmp_path, monkeypatch):
    monkeypatch.delenv(gpus.LOCKS, raising=False)
    monkeypatch.setattr(gpus, "FOLDER", str(tmp_path / "ccs-gpus"))
    before = os.umask(0o077)
    try:
        folder = gpus._lock_folder()
        os.close(gpus._lock(folder / "0.lock", lasting=True))
    finally:
        os.umask(before)
    assert folder == tmp_path / "ccs-gpus"
    assert oct(folder.stat().st_mode)[-4:] == "1777"
    assert oct((folder / "0.lock").stat().st_mode)[-3:] == "666"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert gpus._lock_folder() == tmp_path / f"ccs-gpus-{os.getuid()}"


def test_several_nodes_start_a_launcher_on_each(tmp_path, monkeypatch):
    """With what Snakemake's executor leaves of a job's environment, and with all of it."""
    scontrol = """
    case "$2 $3" in
    "job 77") echo "JobId=77 NumNodes=2 NumCPUs=64 NodeList=n[1-2] BatchHost=n1" ;;
    "hostnames n[1-2]") echo n1; echo n2 ;;
    *) echo "Invalid job id specified" >&2; exit 1 ;;
    esac
    """
    monkeypatch.setenv("PATH", tool(tmp_path, "scontrol", scontrol))
    environment = {"SLURM_JOB_ID": "77", "OMP_NUM_THREADS": "32"}
    command = ["ccs.train", "--seed", "0"]
    nodes = launch._nodes(environment, command)
    assert nodes.endpoint.startswith("n1:")
    assert launch._nodes(environment | {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}, command) == nodes
    assert (
        launch._nodes({"SLURM_JOB_ID": "78", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n1"}, command) is None
    )
    assert launch._nodes({}, command) is None
    with pytest.raises(CcsError, match=r"scontrol show job 79 --oneliner: expected .* found: .*Invalid job id"):
        launch._nodes({"SLURM_JOB_ID": "79"}, command)
    line = launch.across_nodes(nodes, 8, command, environment)
    step, inner = line[: line.index(sys.executable)], line[line.index(sys.executable) + 1 :]
    assert step[0] == "srun"
    # inside the step that Snakemake's executor made already
    assert {"--overlap", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=4"} <= set(step)
    assert "--cpus-per-task=32" in step
    args, rest = launch._arguments(inner[inner.index("--gpus") :])
    assert (args.gpus, rest) == (4, command)
    assert launch.Nodes(int(args.node[0]), *args.node[1:]) == nodes
    # other trainings in the job meet elsewhere
    assert launch._nodes(environment, ["ccs.train", "--seed", "1"]).endpoint != nodes.endpoint
    with pytest.raises(CcsError, match="asked for 3 GPUs on 2 nodes"):
        launch.across_nodes(nodes, 3, command, environment)


@pytest.mark.slow
def test_processes_on_two_nodes_find_each_other_and_are_told_to_stop(machine):
    """Two launchers as `srun` would start them, both on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--node", "2", f"127.0.0.1:{free.getsockname()[1]}", "a job"]
    arguments = ("--gpus", "1", *place, "--", "ranks")
    launchers = [
        machine.start(f"node{n}", *arguments, OMP_NUM_THREADS="6", CUDA_VISIBLE_DEVICES=str(n)) for n in range(2)
    ]
    told = [machine.until(f"rank{rank}.up").split()[1:] for rank in range(2)]
    assert sorted(told) == [["0", "2", "6"], ["1", "2", "6"]]
    for each in launchers:
        each.send_signal(signal.SIGUSR1)
    for rank in range(2):
        machine.until(f"rank{rank}.asked")
    for each in launchers:  # as a scheduler does that has no more patience, but still a little
        each.send_signal(signal.SIGTERM)
    (machine.folder / "finish").touch()
    assert [each.wait(PATIENCE) for each in launchers] == [75, 75]
    assert all((machine.folder / f"rank{rank}.checkpoint").exists() for rank in range(2))
    assert "Traceback" not in "".join(machine.until(f"node{n}.err") for n in range(2))


@pytest.mark.slow
def test_several_processes_share_the_cores_and_die_with_what_holds_their_gpus(machine):
    threads = launch._fewer_threads({"OMP_NUM_THREADS": "6"}, 2)
    process = machine.start("both", *launch.several_processes(2, None, ["ranks"])[2:], **threads)
    pids = []
    for rank in range(2):
        pid, devices, number, threads = machine.until(f"rank{rank}.up").split()
        assert (devices, number, threads) == ("0,1", "2", "3")
        pids.append(int(pid))
    process.kill()
    process.wait()
    end = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
