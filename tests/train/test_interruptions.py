"""Interrupted, killed, resumed, or with something in its way: training is what it would have been, or says why not."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from test_train import SETTINGS, MadeUp, changed, history_rows, in_own_process, manifest, run_train, same_weights

from ccs import signals
from ccs.device import CLAIMED_GPUS, choose_device
from ccs.evaluate import scoring as evaluate
from ccs.models import backbones
from ccs.models.network import CCS
from ccs.stage import CcsError
from ccs.train import checkpoint, history, interruption, loop, training

LONG = changed(epochs=8, batch_videos=2, lr_steps=(5,))  # 4 batches an epoch


def run_interrupted(folder: Path) -> None:
    """In a process that has imported all and computed nothing, so that it can fork: a training, torn into 20 pieces.

    Prints the moment, the signal and the status of each attempt.
    """
    training.SAVE_SECONDS, training.SAVE_SHARE = 0, 1
    choose = random.Random(0)

    def attempt(number: int, delay: float, how: signal.Signals | None) -> int:
        pid = os.fork()
        if not pid:
            os.setsid()  # a scheduler's signal goes to all processes of a job, the loader's too
            place = folder / str(number)
            place.mkdir(exist_ok=True)
            status = 1
            try:
                run_train(place, LONG, workers=(0, 2)[number % 2])
                status = 0
            except SystemExit as error:
                status = error.code
            finally:
                sys.stderr.flush()
                os._exit(status)
        if how:
            time.sleep(delay)
            os.killpg(pid, how)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    start = time.monotonic()
    attempt(0, 0, None)
    whole = time.monotonic() - start
    run, interrupted = 1, 0
    while interrupted < 20:
        how = choose.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
        delay = choose.uniform(0, 0.6) * whole
        status = attempt(run, delay, how)
        print(f"{delay / whole:.2f} of the whole, {how.name}: {status}", flush=True)
        interrupted += status != 0
        run += status == 0
    print(attempt(run, 0, None), run, flush=True)


@pytest.mark.slow
def test_interrupted_at_twenty_random_moments_training_ends_with_the_same_bits(tmp_path):
    script = "import sys, pathlib, test_interruptions; test_interruptions.run_interrupted(pathlib.Path(sys.argv[1]))"
    done = in_own_process(script, tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    *attempts, (status, last) = [line.rsplit(": ", 1)[-1].split() for line in done.stdout.splitlines()]
    assert status == "0"
    counts = {code: sum(each == [str(code)] for each in attempts) for code in (0, 75, -signal.SIGKILL)}
    assert counts[75] >= 3, done.stdout
    assert counts[-signal.SIGKILL] >= 3, done.stdout
    assert "resuming after" in done.stderr

    uninterrupted = checkpoint.read(tmp_path / "0" / "checkpoint.pt")
    videos = manifest()

    def scores(state: dict) -> torch.Tensor:
        quarantine = str(tmp_path / "0" / "quarantine.csv")
        settings = evaluate.EvaluateSettings(segments=3)
        found = evaluate.evaluate(state, videos, MadeUp(videos.videos), settings, quarantine=quarantine)
        return torch.from_numpy(found.rgb), torch.from_numpy(found.flow)

    for number in range(1, int(last) + 1):
        folder = tmp_path / str(number)
        state = checkpoint.read(folder / "checkpoint.pt")
        assert same_weights(state, uninterrupted)
        torch.testing.assert_close(state["optimizer"], uninterrupted["optimizer"], rtol=0, atol=0)
        torch.testing.assert_close(scores(state), scores(uninterrupted), rtol=0, atol=0)
        assert history_rows(folder) == history_rows(tmp_path / "0")
        assert sorted(path.name for path in folder.iterdir()) == [
            "checkpoint.pt",
            "history.csv",
            "quarantine.csv",
            "tensorboard",
        ]


@pytest.mark.parametrize(
    ("owner", "name", "at", "after"),
    [
        (loop, "_forward_backward", 2, "0 epochs and 2 steps"),  # 2 batches an epoch and 1 in validation
        (CCS, "forward", 3, "0 epochs and 2 steps"),
        (training.history, "memory", 3, "3 epochs and 0 steps"),
        (history, "write", 1, "3 epochs and 0 steps"),
    ],
    ids=["step", "validation", "end of the last epoch", "writing"],
)
def test_a_signal_is_obeyed_after_the_batch_and_nothing_is_done_twice(
    tmp_path, monkeypatch, capfd, owner, name, at, after
):
    """To the end: Snakemake removes what a job has written that it was told to end, even if that ends well."""
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = run_train(whole)
    seen = []
    real = getattr(owner, name)

    def watched(*args, **kwargs):
        seen.append(None)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, watched)
        with pytest.raises(SystemExit) as stopped:
            run_train(tmp_path)
    assert stopped.value.code == interruption.EXIT_STATUS == 75
    assert len(seen) == at
    assert "stopped, to go on from" in capfd.readouterr().err
    for output in ("checkpoint.pt", "history.csv"):
        assert (tmp_path / output).exists() == (name == "write")
        (tmp_path / output).unlink(missing_ok=True)
    state = run_train(tmp_path)
    assert f"resuming after {after}" in capfd.readouterr().err
    assert same_weights(state, expected)
    assert history_rows(tmp_path) == history_rows(whole)


def stop_in_validation(monkeypatch, folder: Path, settings: training.Settings = SETTINGS, **changes) -> None:
    """A training that is told to end after its first epoch's steps."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run_train(folder, settings, **changes)


@pytest.mark.slow
def test_resume_file_of_other_settings_code_or_rubbish_is_not_used(tmp_path, monkeypatch, capfd):
    expected = run_train(tmp_path)
    for i, rubbish in enumerate((False, True)):
        folder = tmp_path / str(i)
        folder.mkdir()
        if rubbish:
            (folder / "checkpoint.resume.pt").write_bytes(b"cut short")
        else:
            stop_in_validation(monkeypatch, folder, changed(lr=0.01), provenance="old")
            assert (folder / "checkpoint.resume.pt").exists()
        assert same_weights(expected, run_train(folder))
    assert capfd.readouterr().err.count("not resuming") == 2


@pytest.mark.slow
def test_resume_file_of_other_videos_or_weights_is_not_used(tmp_path, monkeypatch, capfd):
    """Of the same names: another file of weights in the old one's place, a video that is in quarantine since."""
    weights = tmp_path / "weights.pth"
    network = dataclasses.replace(SETTINGS.network, weights=str(weights))
    made = [backbones.build(network.backbone, weights="none").body.state_dict() for _ in range(2)]
    for change in ("weights", "videos"):
        torch.save(made[0], weights)
        folder = tmp_path / change
        folder.mkdir()
        settings = dataclasses.replace(SETTINGS, network=network)
        stop_in_validation(monkeypatch, folder, settings)
        changes = {}
        if change == "weights":
            torch.save(made[1], weights)
        else:
            changes["reader"] = MadeUp([video for video in manifest().videos if video.video != "train03"])
            changes["quarantine"] = "video,path,stage,reason\ntrain03,videos/train3.mp4,frames,cut short\n"
        state = run_train(folder, settings, **changes)
        assert "not resuming" in capfd.readouterr().err
        began_with = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        assert state["pretrained"] == {"rgb": began_with, "flow": began_with}
        (folder / "anew").mkdir()
        assert same_weights(state, run_train(folder / "anew", settings, **changes))


def test_a_change_of_how_it_is_computed_is_told(tmp_path, monkeypatch, capfd):
    AcceleratorState._reset_state()  # it is one for a process, whatever else has been trained in it
    with monkeypatch.context() as patch:
        patch.setattr(training, "_precision", lambda wanted: "bf16")
        stop_in_validation(monkeypatch, tmp_path)
    AcceleratorState._reset_state()
    run_train(tmp_path)
    told = "computed on the CPU in bf16 by 1 process, from here on it is on the CPU in float32 by 1 process"
    assert told in capfd.readouterr().err


def test_parts_that_a_killed_training_left_are_removed_and_those_of_a_live_one_kept(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [tmp_path / f".checkpoint{kind}.{gone.pid}.part.pt" for kind in ("", ".resume")]
    kept = [
        tmp_path / f".checkpoint{kind}.part.pt"
        for kind in (f".{os.getppid()}", f".2.{gone.pid}", f".resume.2.{gone.pid}")
    ]
    for path in left + kept:
        path.touch()
    run_train(tmp_path)
    assert [path.exists() for path in left + kept] == [False] * 2 + [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", ["train", "val"])
def test_what_is_wrong_with_a_shard_is_said_as_it_is(tmp_path, workers, part):
    class Broken(MadeUp):
        def frames(self, video, indices):
            if video.startswith(part):
                raise CcsError(f"0001.h5: {video} cannot be read: delete the shard")
            return super().frames(video, indices)

    with pytest.raises(CcsError, match=rf"\A0001\.h5: {part}\d+ cannot be read: delete the shard\Z"):
        run_train(tmp_path, reader=Broken(manifest().videos), workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "number", "message"),
    [
        ("val", signal.SIGKILL, "a worker process was killed before its task was done. Most often memory ran out"),
        ("train", signal.SIGBUS, "/dev/shm: expected room for the clips"),
        ("test", signal.SIGSEGV, "a worker process died of SIGSEGV before its task was done"),
    ],
)
def test_a_worker_that_is_killed_is_a_message(tmp_path, capfd, part, number, message):
    """What the program was doing is not torn by the news."""

    class Deadly(MadeUp):
        def frames(self, video, indices):
            if video.startswith(part):
                os.kill(os.getpid(), number)
            return super().frames(video, indices)

    before = signal.getsignal(signal.SIGCHLD)
    reader = Deadly(manifest().videos)
    if part == "test":
        run_train(tmp_path)
        state, settings = checkpoint.read(tmp_path / "checkpoint.pt"), evaluate.EvaluateSettings(segments=3)
        quarantine = str(tmp_path / "quarantine.csv")
        with pytest.raises(CcsError, match=rf"\A{message}"):
            evaluate.evaluate(state, manifest(), reader, settings, quarantine=quarantine, workers=2)
    else:
        with pytest.raises(CcsError, match=rf"\A{message}"):
            run_train(tmp_path, reader=reader, workers=2)
    assert signal.getsignal(signal.SIGCHLD) is before
    assert ("ERROR" in capfd.readouterr().err) is (
        number == signal.SIGSEGV
    )  # PyTorch's; of the others it is the message


SMALL = """
import sys
from pathlib import Path
from test_train import run_train
from ccs.stage import run
run(lambda argv: run_train(Path(sys.argv[1]), workers=2))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small /dev/shm, which needs root")
@pytest.mark.parametrize("size", ["8k", "64k"])  # for the semaphores of the workers' queues, and for the clips
def test_a_small_shared_memory_is_a_message_that_says_what_to_do(tmp_path, size):
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount of its own is not allowed here")
    done = in_own_process(SMALL, tmp_path, mount, capture_output=True, timeout=120)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("ccs: error:")]
    assert "/dev/shm" in message
    assert "--shm-size" in message
    assert "--workers 0" in message
    assert "Traceback" not in done.stderr


OUT_OF_MEMORY = """
import sys
from pathlib import Path
from test_train import run_train
from ccs import stage
from ccs.train import loop

def out_of_memory(*args, **kwargs):
    raise RuntimeError("out of memories")

loop.ccs_loss = out_of_memory
stage.run(lambda argv: run_train(Path(sys.argv[1]), workers=2))
"""


@pytest.mark.slow
def test_it_ends_on_an_error_though_its_workers_ignore_signals(tmp_path):
    """Python would wait for them for ever."""
    done = in_own_process(OUT_OF_MEMORY, tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 1
    assert "\nRuntimeError: out of memories\n" in done.stderr


@pytest.mark.parametrize("name", ["tensorboard", "checkpoint.resume.pt"])
def test_what_is_in_the_way_is_an_error_before_training(tmp_path, name):
    if name == "tensorboard":
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(CcsError, match=rf"{name}: expected .* remove it"):
        run_train(tmp_path)


def test_claimed_gpus_that_torch_cannot_use_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv(CLAIMED_GPUS, "0,GPU-7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CcsError, match=r"^GPU 0, GPU-7: expected PyTorch .* found (1 of them|none \(.+\))\. Install"):
        run_train(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().type == "cuda"


def test_handlers_are_given_back_and_a_second_ctrl_c_is_obeyed(monkeypatch):
    """The first one is not, though SIGTERM came before, nor its echo; nor may it fail where stderr is being written."""
    now = [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    monkeypatch.setattr(sys, "stderr", None)
    with interruption.Interruption() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        for now[0] in (5.0, 5.5, 6.5):
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.asked
        now[0] = 7.5
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_a_signal_at_a_worker_s_start_is_not_obeyed():
    """Between the fork and `ignore` a worker would die of it."""
    with signals.held():
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
            signals.ignore()
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(signals.SIGNALS)


def test_signals_are_held_where_other_threads_take_them_too():
    """A thread's mask is its own: the system gives a signal to any other, and Python its handler to the main one."""
    end, seen = threading.Event(), []
    other = threading.Thread(target=end.wait)
    other.start()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with signals.held():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
            assert not seen
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
        end.set()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_gradient_scaler_resumes_as_it_was(rank):
    """Under fp16, on GPUs, a scaler goes along, the same in all processes, also in one that was not there before."""
    used, fresh = (
        SimpleNamespace(
            device=torch.device("cpu"), scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10), process_index=rank
        )
        for _ in range(2)
    )
    used.scaler.scale(torch.ones(1))
    used.scaler.update(512.0)
    checkpoint.set_random_state([checkpoint.random_state(used)], fresh)
    assert fresh.scaler.state_dict() == used.scaler.state_dict()
    assert fresh.scaler.get_scale() == 512
