"""Interrupted, in several processes, for many epochs: training stays what it would have been."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import SETTINGS, MadeUp, history_rows, manifest, run_train, same_weights, start_train
from torch import multiprocessing, nn
from torch.utils.data import default_collate

from ccs import checkpoint, evaluate, interruption, loop, parallel, training
from ccs.clips import TrainClips
from ccs.losses import LossSettings, ccs_loss
from ccs.models.network import CCS, Output
from ccs.sampling import BalancedBatches, Course
from ccs.stage import CcsError


def changed(**train) -> training.Settings:
    return dataclasses.replace(SETTINGS, train=dataclasses.replace(SETTINGS.train, **train))


# -- interruptions -----------------------------------------------------------------------------------------------------
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
    script = "import sys, pathlib, test_training; test_training.run_interrupted(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True
    )
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


@pytest.mark.parametrize("where", ["step", "validation", "last epoch"])
def test_a_signal_is_obeyed_after_the_batch_and_nothing_is_done_twice(tmp_path, monkeypatch, capfd, where):
    """Asked to stop in the first epoch's second step, in its validation, or when all is done but the writing."""
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = run_train(whole)
    seen = []
    owner, name, at = {  # 2 batches an epoch and 1 in validation
        "step": (loop, "_forward_backward", 2),
        "validation": (CCS, "forward", 3),
        "last epoch": (training.history, "memory", 3),
    }[where]
    real = getattr(owner, name)

    def watched(*args, **kwargs):
        seen.append(None)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, watched)
        if where == "last epoch":
            state = run_train(tmp_path)
        else:
            with pytest.raises(SystemExit) as stopped:
                run_train(tmp_path)
            assert stopped.value.code == interruption.EXIT_STATUS == 75
            assert len(seen) == at
            assert not (tmp_path / "checkpoint.pt").exists()
            assert "stopped, to go on from" in capfd.readouterr().err
            state = None
    if state is None:
        state = run_train(tmp_path)
        assert "resuming after 0 epochs and 2 steps" in capfd.readouterr().err
    assert same_weights(state, expected)
    assert history_rows(tmp_path) == history_rows(whole)


def test_resume_file_of_other_settings_code_or_rubbish_is_not_used(tmp_path, monkeypatch, capfd):
    expected = run_train(tmp_path)
    for i, rubbish in enumerate((False, True)):
        folder = tmp_path / str(i)
        folder.mkdir()
        if rubbish:
            (folder / "checkpoint.resume.pt").write_bytes(b"cut short")
        else:
            with monkeypatch.context() as patch:
                patch.setattr(training, "validate", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
                with pytest.raises(SystemExit):
                    run_train(folder, changed(lr=0.01), provenance="old")
            assert (folder / "checkpoint.resume.pt").exists()
        assert same_weights(expected, run_train(folder))
    assert capfd.readouterr().err.count("not resuming") == 2


def test_handlers_are_given_back_and_a_second_ctrl_c_is_obeyed(monkeypatch):
    """The first one is not, though SIGTERM came before; nor may it fail where standard error is being written."""
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    monkeypatch.setattr(sys, "stderr", None)
    with interruption.Interruption() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_a_signal_at_a_worker_s_start_is_not_obeyed():
    """Between the fork and `ignore` a worker would die of it."""
    with interruption.held():
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
            interruption.ignore()
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(interruption.SIGNALS)


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


# -- several processes -------------------------------------------------------------------------------------------------
def no_dropout(**train) -> training.Settings:
    return dataclasses.replace(changed(**train), network=dataclasses.replace(SETTINGS.network, dropout=(0.0, 0.0)))


def in_process(
    rank: int, num_processes: int, port: int, folder: Path, settings: training.Settings, stop_in: str
) -> None:
    """What `torchrun` gives a process, and the training in it; the second rank may get a signal on the way.

    The network computes in float64: batch norm over few positions makes 1e-4 of float32's rounding.
    """
    torch.set_num_threads(1)
    training.CCS = lambda *args, **kwargs: CCS(*args, **kwargs).double()
    videos = manifest()
    if stop_in is not None:
        few = [video for video in videos.videos if video.split != "val" or video.video == "val00"]
        videos = dataclasses.replace(videos, videos=tuple(few))
    if stop_in and rank == 1:
        owner, name = {"step": (loop, "ccs_loss"), "validation": (training, "validate")}[stop_in]
        real = getattr(owner, name)
        setattr(owner, name, lambda *args: os.kill(os.getpid(), signal.SIGTERM) or real(*args))
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_processes),
        LOCAL_WORLD_SIZE=str(num_processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    start_train(folder, settings, videos)


def train_in(num_processes: int, folder: Path, settings: training.Settings, stop_in: str | None = None) -> dict:
    """The checkpoint. `stop_in`: step, validation or "", of a training with one validation video."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(in_process, (num_processes, port, folder, settings, stop_in), nprocs=num_processes)
    return checkpoint.read(folder / "checkpoint.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("losses", "train"),
    [
        (LossSettings(), {"batch_videos": 8}),
        (LossSettings(triplet="all", reduction="sum"), {"batch_videos": 4, "accumulate": 2}),
    ],
    ids=["hardest", "all, sum, accumulated"],
)
def test_two_processes_compute_what_one_does(tmp_path, losses, train):
    """One step: momentum then holds the gradient, batch norm statistics of the whole batch, the history its losses."""
    settings = no_dropout(epochs=1, weight_decay=0.0, clip_gradient=1e9, **train)
    settings = dataclasses.replace(settings, losses=losses)
    one, two = (train_in(n, tmp_path / str(n), settings) for n in (1, 2))
    gradients = [[each["momentum_buffer"] for each in state["optimizer"]["state"].values()] for state in (one, two)]
    assert max(gradient.abs().max() for gradient in gradients[0]) > 0.1
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for name, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][name], rtol=1e-5, atol=1e-5)
    (a,), (b,) = history_rows(tmp_path / "1"), history_rows(tmp_path / "2")
    assert float(a["loss_triplet"]) > 0
    for name, value in a.items():
        assert math.isclose(float(value), float(b[name]), rel_tol=1e-5, abs_tol=2e-6), name


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path):
    """With dropout of their own, fewer validation videos than processes, and a signal to only one of them."""
    settings = changed(epochs=2, batch_videos=2, accumulate=3, patience=5)  # 4 batches an epoch: steps of 3 and of 1
    expected = train_in(2, tmp_path / "whole", settings, "")
    for stop_in in ("step", "validation"):
        with pytest.raises(multiprocessing.ProcessExitedException) as ended:
            train_in(2, tmp_path / "torn", settings, stop_in)
        assert ended.value.exit_code == interruption.EXIT_STATUS
        assert not (tmp_path / "torn" / "checkpoint.pt").exists()
    found = train_in(2, tmp_path / "torn", settings, "")
    assert same_weights(found, expected)
    torch.testing.assert_close(found["optimizer"], expected["optimizer"], rtol=0, atol=0)
    assert history_rows(tmp_path / "torn") == history_rows(tmp_path / "whole")
    assert history_rows(tmp_path / "torn")[1]["val_fused"]


def test_processes_that_see_different_resume_files_do_not_go_on(tmp_path, monkeypatch):
    real = parallel.gather_objects
    monkeypatch.setattr(parallel, "gather_objects", lambda value: [value, (3, 1)] if value is None else real(value))
    with pytest.raises(CcsError, match=r"resume\.pt.*all nodes"):
        run_train(tmp_path)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (6, 5, 4, 3)])
def test_batch_norm_of_our_own_is_torchs(shape, tmp_path):
    """In one process, where torch's serves as the reference; over two it is in the test of training above."""
    ours, theirs = nn.BatchNorm1d(5), nn.BatchNorm1d(5) if len(shape) < 4 else nn.BatchNorm2d(5)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 2
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        ours = parallel._SyncBatchNorm.like(ours).double()
        theirs = theirs.double()
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(each) for norm, each in zip((ours, theirs), inputs, strict=True)]
        for output in outputs:
            (output**3).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_ranks_share_out_every_batch_and_go_on_where_they_were():
    batches = BalancedBatches([0, 0, 1, 1, 2, 2, 3, 3] * 5, batch_classes=4, batch_videos=3, seed=3)
    whole = [batch for epoch in range(5) for batch in batches.epoch(epoch)]
    for first in (0, 1, len(batches), 2 * len(batches) + 3):
        parts = [list(Course(batches, epochs=5, first=first, rank=rank, num_ranks=3)) for rank in range(3)]
        assert [list(itertools.chain(*part)) for part in zip(*parts, strict=True)] == whole[first:]
    with pytest.raises(CcsError, match=r"5 processes.*4 x 3"):
        Course(batches, epochs=5, num_ranks=5)


# -- steps -------------------------------------------------------------------------------------------------------------
def test_accumulated_gradients_are_the_mean_over_batches(tmp_path):
    """Against autograd by hand: one step of two batches, at the weights of the beginning."""
    settings = no_dropout(epochs=1, accumulate=2, weight_decay=0.0, clip_gradient=1e9)
    state = run_train(tmp_path, settings)
    torch.manual_seed(0)
    network = CCS(2, settings.network, segments=settings.clips.segments)
    videos = [video for video in manifest().videos if video.split == "train"]
    batches = BalancedBatches([video.label for video in videos], batch_classes=2, batch_videos=4, seed=0)
    clips = TrainClips(MadeUp(manifest().videos), videos, settings.clips, snippet=settings.network.snippet, seed=0)
    assert len(batches) == 2
    for batch in batches.epoch(0):
        rgb, flow, labels = default_collate([clips[key] for key in batch])
        (ccs_loss(*network(rgb, flow), labels, settings.losses).total / 2).backward()
    for parameter, kept in zip(network.parameters(), state["optimizer"]["state"].values(), strict=True):
        torch.testing.assert_close(kept["momentum_buffer"], parameter.grad)


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights_under_the_same_names(tmp_path, monkeypatch):
    """torch.compile with a backend that compiles nothing: what is captured of the network must be all of it."""
    compile_with = CCS.compile
    monkeypatch.setattr(CCS, "compile", lambda self: compile_with(self, backend="eager"))
    for name, settings in (("plain", SETTINGS), ("compiled", changed(compile=True))):
        (tmp_path / name).mkdir()
        run_train(tmp_path / name, settings)
    assert same_weights(*(checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("plain", "compiled")))


def test_rates_are_of_clips_and_of_waiting(monkeypatch):
    """By a clock of its own: 3 s for each batch of 8 clips to come, 1 s for the step."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def clips():
        for _ in range(4):
            now[0] += 3
            yield torch.zeros(8, 1), torch.zeros(8, 1), torch.arange(8) % 2

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 2)

        def forward(self, rgb, flow):
            now[0] += 1
            return Output(self.linear(rgb), self.linear(flow), None, None)

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = loop.Steps(num_batches=4, accumulate=1, clip_gradient=1, losses=LossSettings())
    accelerator = training.Accelerator(cpu=True)
    row = loop.train_one_epoch(
        model, clips(), optimizer, accelerator, steps, loop.Progress(), SimpleNamespace(update=lambda: None)
    )
    assert row["clips_per_second"] == 8 / 4
    assert row["waiting"] == 0.75


# -- what it tells of itself -------------------------------------------------------------------------------------------
def test_tensorboard_shows_the_history_once_whatever_was_interrupted(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", lambda *args: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(SystemExit):
            run_train(tmp_path)
    run_train(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(file)).Reload()
    rows = history_rows(tmp_path)
    assert {"training/lr", "training/clips_per_second", "training/memory_mb"} <= set(events.Tags()["scalars"])
    for tag, column in (
        ("loss/loss", "loss"),
        ("accuracy/val_fused", "val_fused"),
        ("loss/loss_triplet", "loss_triplet"),
    ):
        shown = [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
        assert shown == [(int(row["epoch"]), pytest.approx(float(row[column]))) for row in rows]


@pytest.mark.slow
def test_memory_stays_flat_over_200_epochs(tmp_path):
    """With loader processes and validation; the bound is what a batch kept in each epoch would add up to."""
    videos = manifest()
    few = [video for video in videos.videos if video.video in ("train00", "train01", "train02", "train03", "val00")]
    settings = changed(epochs=200, batch_videos=2)
    start_train(tmp_path, settings, workers=2, videos=dataclasses.replace(videos, videos=tuple(few)))
    with open(tmp_path / "history.csv", newline="") as file:
        memory = [float(row["memory_mb"]) for row in csv.DictReader(file)]
    print([statistics.median(memory[i : i + 20]) for i in range(0, 200, 20)])
    assert statistics.median(memory[-40:]) - statistics.median(memory[20:60]) < 8
