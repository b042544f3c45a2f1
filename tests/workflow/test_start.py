"""How a run starts and stops: errors before any work, what a failed stage shows, signals, kills, targets, GPUs, large
data sets.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow.bond": 15}, "config.yaml is not valid:\n  flow.bond: no such key: did you mean bound?"),
        ({"datasets.mine.root": "nowhere"}, "nowhere: expected the directory of the videos"),
        ({"train.weights": "nowhere.pt"}, "weights: no file nowhere.pt"),
        ({"train.patience": 3, "datasets.mine.val_fraction": 0}, "patience is 3, but mine has no validation videos"),
        ({"seeds": [2**32]}, "seeds.0: 4294967296"),
    ],
)
def test_an_error_of_the_user_stops_before_any_work(project, changes, message):
    commands = (project.path / "commands.txt").read_text()
    project.configure(changes)
    done = project.snakemake("--forceall")
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert (project.path / "commands.txt").read_text() == commands


@pytest.mark.slow
def test_published_weights_are_looked_after_before_the_first_job_until_their_runs_are_trained(project, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(project.path / "torch"))
    damaged = project.path / "torch/hub/checkpoints/bninception_rgb_kinetics_init-d4ee618d3399.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half of it")
    project.configure({"runs.ccs": {"backbone": "bninception", "weights": "kinetics", "weights_flow": "none"}})
    told = f"ccs: warning: runs.ccs: weights kinetics: {damaged}: expected the published file"
    printed = project.run()
    assert printed.index(told) < printed.index("starts: train")
    assert told not in project.run("--forcerun", "table")


@pytest.mark.slow
def test_a_failed_stage_says_why_at_the_very_end_with_its_log_and_what_was_done_stays(project):
    project.configure({"frames.quality": 90})
    done = project.snakemake(failing="ccs.quarantine")
    assert done.returncode == 1
    failure = ["failed: quarantine mine", "ccs: error: videos/jump/3.mp4: expected a video, found a poem"]
    *_, name, message, log, _, advice = done.stdout.splitlines()
    assert [name, message] == failure
    assert log == "(log: logs/mine/quarantine.log)"
    assert (project.path / "logs/mine/quarantine.log").read_text().splitlines() == failure[1:]
    assert advice.endswith("the same command goes on")
    assert done.stdout.count(message) == 1
    assert "frames" not in project.plan()


@pytest.mark.slow
def test_what_will_be_done_is_a_line_a_stage_and_what_was_done_a_line_a_job(project):
    """Beside what Snakemake itself says with -p."""
    project.configure({"frames.quality": 90})
    plan = project.plan()
    planned = project.run("--dry-run").splitlines()
    assert len(planned) < 24
    rows = dict(re.findall(r"^(\w+) +(\d+)(?:  .*)?$", "\n".join(planned), re.MULTILINE))
    assert rows == {
        **{stage: str(len(jobs)) for stage, jobs in plan.items()},
        "total": str(sum(map(len, plan.values()))),
    }
    assert any(re.fullmatch("frames +4  params have changed since last execution", line) for line in planned)
    assert any("results/table1.csv results/report.html" in line for line in planned)  # what there is

    process = project.start(WARNING_STAGE="ccs.lookalikes")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    told = re.findall(r"(\d+) of (\d+) done: (\w+) ", printed)
    assert [(int(count), int(of)) for count, of, _ in told] == [(i + 1, int(rows["total"])) for i in range(len(told))]
    assert {stage: [each for *_, each in told].count(stage) for stage in plan} == {k: len(v) for k, v in plan.items()}
    assert printed.count("\nccs: warning: two poems look alike\n") == 1
    table = (project.path / "results/table1.md").read_text()
    assert table in printed
    assert printed.index(table) < printed.index("  results/table1.html\n")
    assert "--checkpoint results/runs/mine/split1/ccs/seed0/checkpoint.pt" in printed

    again, _ = project.start(MAKELEVEL="1").communicate()  # as make calls it, whose PATH is gone afterwards
    assert again.index("Nothing to be done") < again.index(table) < again.index("  results/table1.html\n")
    (enter,) = re.findall("classify a video: source (.*)/bin/activate; ccs predict VIDEO", again)
    assert (project.path / enter).resolve() == Path(sys.prefix).resolve()
    assert table not in project.run("--no-hooks")


@pytest.mark.slow
def test_a_terminal_shows_what_runs_and_how_far_it_is(project, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    (project.path / "waiting.txt").touch()
    master, terminal = os.openpty()
    call = project.start("--forcerun", "train", stdout=terminal, WAITING_STAGE="ccs.train")
    os.close(terminal)
    printed = b""
    try:
        wait_for_stages(project, 2)
        end = time.monotonic() + 60
        while not re.search(
            rb"train mine split 1 ccs seed 0, 00:\d\d  34 %, 00:24 left, epoch 1/3: loss 2.1\r", printed
        ):
            assert time.monotonic() < end, printed
            printed += os.read(master, 1 << 16)
        # lines about what runs, in the place of those before: up by as many, and clear what is below
        assert re.search(
            rb"0 of 5 done, 2 running, 00:\d\d so far\r\n(  train .*\r\n){2}\x1b\[\?7h\x1b\[3A\x1b\[J", printed
        )
    finally:
        call.terminate()
        while True:
            try:
                printed += os.read(master, 1 << 16) or b""
            except OSError:  # nobody has it open any longer
                break
        os.close(master)
        call.wait(60)
    assert call.returncode == 1


@pytest.mark.parametrize("option", [("--configfile", "config.yaml"), ("--config", "seeds=[0]"), ("-C", "seeds=[0]")])
def test_a_target_without_its_dashes_is_told_apart_from_a_configuration(project, option):
    done = project.snakemake("--dry-run", *option, "all")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    meant = shlex.split(done.stdout.rpartition(": ")[2])
    assert meant == ["snakemake", "--cores", "2", "--nocolor", "--dry-run", *option, "--", "all"]
    assert project.plan(*meant[4:])["report"]


def test_a_target_that_there_is_not_is_told_with_those_that_there_are(project):
    done = project.snakemake("--dry-run", "results/tabel1.csv")
    assert done.returncode == 1
    told = (
        "Did you mean results/table1.csv? The targets of this configuration:\n  all results/table1.csv results/report"
    )
    assert told in done.stdout


def wait_for_stages(project, number: int) -> list[int]:
    """The processes of the first `number` stages that wait for a signal."""
    end = time.monotonic() + 60
    while len(found := (project.path / "waiting.txt").read_text().split()) < number:
        assert time.monotonic() < end
        time.sleep(0.1)
    return [int(each) for each in found]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_tells_snakemake_to_end_tells_its_stages(project, number):
    """As a service manager or `kill` does, which signal it alone; and the same command goes on."""
    (project.path / "waiting.txt").touch()
    call = project.start("--forcerun", "shards", WAITING_STAGE="ccs.shards")
    try:
        stages = wait_for_stages(project, 2)
        call.send_signal(number)
        printed, _ = call.communicate(timeout=60)
    finally:
        call.kill()
    assert call.returncode == 1
    assert "Traceback" not in printed
    assert printed.count("stopped: shards mine shard ") == 2
    assert printed.endswith("The same command goes on\n")
    assert (project.path / "told.txt").read_text().split() == ["SIGTERM"] * 2
    assert not [stage for stage in stages if Path(f"/proc/{stage}").exists()]
    project.run("--rerun-incomplete")


@pytest.mark.slow
def test_after_a_kill_the_same_command_goes_on_and_beside_a_living_call_it_does_not(project):
    (project.path / "waiting.txt").touch()
    command = ("--rerun-incomplete", "--forcerun", "shards")
    call = project.start(*command, WAITING_STAGE="ccs.shards")
    stages = []
    try:
        stages = wait_for_stages(project, 2)
        beside = project.snakemake(*command)
        assert beside.returncode == 1
        assert "ccs: another call of Snakemake is at work in this folder" in beside.stdout
        call.kill()
        call.wait()  # not for the end of what it prints: its stages live on
        calls = project.path / ".snakemake/ccs.calls"
        ours = calls.read_text()
        calls.write_text("elsewhere 0000\n")  # of a machine whose locks might not be seen here
        unknown = project.snakemake(*command)
        assert unknown.returncode == 1
        assert "a call of Snakemake on elsewhere has left its lock here" in unknown.stdout
        assert "call this once with --unlock" in unknown.stdout
        calls.write_text(ours)
        held = project.path / ".snakemake/locks"
        other = subprocess.Popen(  # a Snakemake that does not know of our locks
            ["sh", "-c", ": ; sleep 600", "snakemake"], cwd=project.path, preexec_fn=os.setsid
        )
        beside = project.snakemake(*command)
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
        assert beside.returncode == 1
        assert f"ccs: another Snakemake is at work in this folder (processes {other.pid})" in beside.stdout
        assert list(held.glob("*.lock"))
        printed = project.run(*command)
    finally:
        call.kill()
        for stage in stages:
            with suppress(ProcessLookupError):
                os.kill(stage, signal.SIGKILL)
    assert "ccs: the last call of Snakemake here was killed, its lock is removed" in printed
    # before anything else was done: their outputs would be of the configuration that there was then
    told = re.search(r"what it had started is told to end \(processes (.*)\)", unknown.stdout)[1]
    assert sorted(map(int, told.split(", "))) == sorted(stages)
    assert (project.path / "told.txt").read_text().split() == ["SIGTERM"] * 2
    assert project.plan() == {}


def test_a_call_of_another_user_is_seen_by_its_lock(tmp_path):
    """Whose file of calls can only be read."""
    if os.getuid():
        pytest.skip("two users: needs root")
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    script = "import os, sys, datetime, psutil; from ccs.config import running; "
    script += "os.chdir(sys.argv[2]); os.setuid(int(sys.argv[1])); "
    hold = f"{script}running.begin(); print('begun', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, "0", tmp_path]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert owner.stdout.readline() == b"begun\n"
        calls = tmp_path / ".snakemake/ccs.calls"
        assert calls.stat().st_mode & 0o666 == 0o666
        calls.chmod(0o644)
        (tmp_path / ".snakemake").chmod(0o777)
        (tmp_path / ".snakemake/locks").mkdir(mode=0o777)
        lock = tmp_path / ".snakemake/locks/0.input.lock"
        lock.touch()
        command = [sys.executable, "-c", f"{script}running.begin()", "12345", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "ccs: another call of Snakemake is at work in this folder\n")
        assert lock.exists()
    finally:
        owner.communicate(b"")


def test_another_configuration_replaces_the_default_one(project):
    (project.path / "other").mkdir()
    (project.path / "videos").rename(project.path / "other/videos")
    other = {"datasets": {"yours": {"adapter": "folder", "root": "other/videos", "shards": 1}}, "seeds": [3]}
    (project.path / "other.yaml").write_text(yaml.safe_dump(other))
    plan = project.plan("--configfile", "other.yaml")
    assert plan["frames"] == {"data/yours/frames/0000.h5"}
    assert plan["evaluate"] == {"results/runs/yours/split1/ccs/seed3/scores.h5"}


def test_a_target_that_no_data_set_has_is_an_error(project):
    for target in ("data/mine/frames/0009.h5", "results/runs/mine/split2/ccs/seed0/checkpoint.pt"):
        done = project.snakemake("--dry-run", target)
        assert done.returncode == 1
        assert re.search("has no video in a shard 0009|not configured to have a split 2", done.stdout)


@pytest.mark.slow
def test_training_asks_for_a_gpu_and_its_share_of_the_cores_where_there_is_one(project, monkeypatch):
    """And says the same of threads and GPUs to the stage as to the scheduler; none of it reruns anything."""
    tool = project.path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: made up'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert project.plan("--cores", "16") == {}
    with_gpu = project.run("--dry-run", "-p", "--forcerun", "train", "--cores", "16")
    assert re.search(r"rule train:(\n    .*)*\n    threads: 16\n    resources: .*gpu=1", with_gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    without = project.run("--dry-run", "-p", "--forcerun", "train", "--cores", "16")
    assert re.search(r"rule train:(\n    .*)*\n    resources: .*gpu=0", without)
    assert "threads: 16" not in without


@pytest.mark.slow
@pytest.mark.parametrize("num_videos", [13320, 220847])
def test_a_large_data_set_is_few_jobs(num_videos):
    """Seconds are for people (see the benchmark's own output); here only that it works and that jobs stay few."""
    command = [sys.executable, ROOT / "benchmarks/dag.py", "--videos", str(num_videos)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    _, num_shards, jobs, *_ = done.stdout.splitlines()[-1].split()
    splits = 3 if num_videos == 13320 else 1
    # frames, flow and pack of each shard; quarantine; train and evaluate for 3 seeds; table1, all
    assert int(num_shards) == -(-num_videos // 1000)
    assert int(jobs) == 3 * int(num_shards) + 1 + 2 * 3 * splits + 2


def test_rules_are_linted_and_formatted():
    snakemake, snakefmt = (str(Path(sys.executable).with_name(name)) for name in ("snakemake", "snakefmt"))
    rules = [str(ROOT / "Snakefile"), str(ROOT / "workflow")]
    for command in ([snakemake, "--lint", "-s", rules[0], "-d", str(ROOT)], [snakefmt, "--check", *rules]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
