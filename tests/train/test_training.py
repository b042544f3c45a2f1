"""In several processes, in larger steps, for many epochs: training stays what it would have been."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import os
import signal
import socket
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import (
    SETTINGS,
    MadeUp,
    changed,
    history_rows,
    in_own_process,
    manifest,
    run_train,
    same_weights,
    start_train,
)
from torch import multiprocessing, nn
from torch.utils.data import DataLoader, default_collate
from torchvision import models

from ccs.clips.dataset import TrainClips
from ccs.clips.sampling import BalancedBatches, Course
from ccs.models.losses import LossSettings, ccs_loss
from ccs.models.network import CCS, Output, snippet_of
from ccs.models.settings import NetworkSettings
from ccs.stage import CcsError
from ccs.train import checkpoint, interruption, loop, parallel, training


# -- several processes -------------------------------------------------------------------------------------------------
def no_dropout(**train) -> training.Settings:
    return dataclasses.replace(changed(**train), network=dataclasses.replace(SETTINGS.network, dropout=(0.0, 0.0)))


def in_float64(*args, **kwargs) -> CCS:
    """A network for exact comparisons: batch norm over few positions makes 1e-4 of float32's rounding."""
    return CCS(*args, **kwargs).double()


def in_process(
    rank: int, num_processes: int, port: int, folder: Path, settings: training.Settings, stop_in: str
) -> None:
    """What `torchrun` gives a process, and the training in it; the second rank may get a signal on the way."""
    torch.set_num_threads(1)
    training.CCS = in_float64
    videos = manifest()
    if stop_in is not None:
        few = [video for video in videos.videos if video.split != "val" or video.video == "val00"]
        videos = dataclasses.replace(videos, videos=tuple(few))
    if stop_in and rank == 1:
        owner, name = {"step": (loop, "ccs_loss"), "validation": (training, "validate")}[stop_in]
        real = getattr(owner, name)
        setattr(owner, name, lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM) or real(*args, **options))
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
def first_network(settings: training.Settings) -> CCS:
    """The one that a training with seed 0 starts from."""
    torch.manual_seed(0)
    return CCS(2, settings.network, segments=settings.clips.segments)


def losses_by_hand(network: CCS, settings: training.Settings, epoch: int) -> Iterator[torch.Tensor]:
    """Of each of the epoch's two batches, at the weights that the network has when it is asked for."""
    videos = [video for video in manifest().videos if video.split == "train"]
    batches = BalancedBatches([video.label for video in videos], batch_classes=2, batch_videos=4, seed=0)
    clips = TrainClips(MadeUp(manifest().videos), videos, settings.clips, snippet=snippet_of(settings.network), seed=0)
    assert len(batches) == 2
    for batch in batches.epoch(epoch):
        rgb, flow, labels = default_collate([clips[key] for key in batch])
        yield ccs_loss(*network(rgb, flow), labels, settings.losses).total


def test_accumulated_gradients_are_the_mean_over_batches(tmp_path):
    """Against autograd by hand: one step of two batches, at the weights of the beginning."""
    settings = no_dropout(epochs=1, accumulate=2, weight_decay=0.0, clip_gradient=1e9)
    state = run_train(tmp_path, settings)
    network = first_network(settings)
    for loss in losses_by_hand(network, settings, 0):
        (loss / 2).backward()
    for parameter, kept in zip(network.parameters(), state["optimizer"]["state"].values(), strict=True):
        torch.testing.assert_close(kept["momentum_buffer"], parameter.grad)


@pytest.mark.parametrize("spares", [True, False])
def test_a_step_is_the_written_out_sgd_with_momentum_decay_and_clipping(tmp_path, monkeypatch, spares):
    """v = momentum v + (g + decay w), w -= lr v, with g made no longer than the limit: four steps at two rates.

    Spared of the decay, or not, are norms' weights and biases; the rate is another where no weights are given.
    """
    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "weights.pth")
    settings = no_dropout(
        epochs=2, lr=0.04, lr_steps=(1,), lr_gamma=0.25, momentum=0.6, weight_decay=0.1, clip_gradient=0.5
    )
    settings = dataclasses.replace(
        settings,
        network=dataclasses.replace(
            settings.network, weights=str(tmp_path / "weights.pth"), weights_flow="none", partial_bn=False
        ),
        train=dataclasses.replace(settings.train, lr_new=3.0, decay_norms=not spares),
    )
    monkeypatch.setattr(training, "CCS", in_float64)
    state = run_train(tmp_path, settings)
    network = first_network(settings).double()
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    spared = {n for n, _ in network.named_parameters() if n.endswith("bias") or n.removesuffix(".weight") in norms}
    assert "connection.out_rgb.1.weight" in spared  # gamma
    velocity = {name: torch.zeros_like(w) for name, w in network.named_parameters()}
    for epoch, lr in enumerate((0.04, 0.01)):
        for loss in losses_by_hand(network, settings, epoch):
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            norm = sum(g.square().sum() for g in gradients).sqrt()
            assert norm > 2 * 0.5
            with torch.no_grad():
                for (name, w), g in zip(network.named_parameters(), gradients, strict=True):
                    decay = 0.0 if spares and name in spared else 0.1
                    velocity[name] = 0.6 * velocity[name] + (g * 0.5 / norm + decay * w)
                    w -= lr * (1 if name.startswith("rgb.") else 3) * velocity[name]
    assert [float(row["lr"]) for row in history_rows(tmp_path)] == pytest.approx([0.04, 0.01])
    trained = {name: state["model"][name] for name in velocity}
    torch.testing.assert_close(trained, dict(network.named_parameters()), rtol=1e-4, atol=1e-6)


def test_ranking_losses_warm_up_evenly_over_the_first_epochs(tmp_path, monkeypatch):
    """By what is optimised, and when training was interrupted on the way: two steps an epoch, two epochs of three."""
    settings = dataclasses.replace(SETTINGS, losses=LossSettings(lambdas=(0.5, 0.25), ranking_warmup=2))
    seen = []

    def losses(*args, **options):
        found = ccs_loss(*args, **options)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        ranking = 0.5 * found.triplet + 0.25 * found.embedding
        seen.append(float((found.total.detach() - found.cross_entropy) / ranking))
        return found

    monkeypatch.setattr(loop, "ccs_loss", losses)
    with pytest.raises(SystemExit):
        run_train(tmp_path, settings)
    run_train(tmp_path, settings)
    assert seen == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1], abs=1e-5)


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights_under_the_same_names(tmp_path, monkeypatch):
    """torch.compile with a backend that compiles nothing: what is captured of the network must be all of it."""
    compile_with = CCS.compile
    monkeypatch.setattr(CCS, "compile", lambda self: compile_with(self, backend="eager"))
    for name, settings in (("plain", SETTINGS), ("compiled", changed(compile=True))):
        (tmp_path / name).mkdir()
        run_train(tmp_path / name, settings)
    assert same_weights(*(checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("plain", "compiled")))


class Classifiers(nn.Module):
    """A linear layer a stream, of clips that are one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.flow = nn.Linear(1, 2), nn.Linear(1, 2)

    def forward(self, rgb, flow):
        return Output(self.rgb(rgb), self.flow(flow), None, None)

    def trained_together(self) -> list[list[nn.Parameter]]:
        return [list(self.parameters())]


def train_on(clips: Iterable[loop.Clips], model: nn.Module, accelerator: training.Accelerator) -> dict:
    """An epoch of four batches; the row of its history."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = loop.Steps(num_batches=4, accumulate=1, clip_gradient=1)
    bar = SimpleNamespace(update=lambda: None)
    progress = loop.Progress()
    return loop.train_one_epoch(model, iter(clips), optimizer, accelerator, steps, LossSettings(), progress, bar)


@pytest.mark.parametrize(("apart", "same"), [(True, True), (False, False)])
def test_streams_that_share_nothing_are_trained_as_if_alone(apart, same):
    """Steps of RGB are the same bits whatever flow shows, clipping (to 1) and dropout included; else they are not."""
    settings = NetworkSettings(
        backbone="shufflenet_v2_x0_5",
        weights="none",
        flow_length=2,
        dropout=(0.5, 0.5),
        connection="none" if apart else "nonlocal",
        shared=False,
    )
    weights = []
    for seed in (1, 2):  # of flow
        torch.manual_seed(0)
        model = CCS(2, settings, segments=1)
        for norm in (module for module in model.connection.modules() if isinstance(module, torch.nn.BatchNorm1d)):
            torch.nn.init.ones_(norm.weight)
        rgb = torch.randint(0, 256, (4, 4, 1, 1, 3, 32, 32), dtype=torch.uint8)
        generator = torch.Generator().manual_seed(seed)
        flow = torch.randint(0, 256, (4, 4, 1, 2, 2, 32, 32), dtype=torch.uint8, generator=generator)
        train_on(zip(rgb, flow, torch.tensor([[0, 1, 0, 1]] * 4), strict=True), model, training.Accelerator(cpu=True))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.rgb.parameters()]))
    assert torch.equal(*weights) == same
    assert len(model.trained_together()) == (2 if apart else 1)
    assert {p for part in model.trained_together() for p in part} == set(model.parameters())


def test_rates_are_of_clips_and_of_waiting(monkeypatch):
    """By a clock of its own: 3 s for each batch of 8 clips to come, 1 s for the step."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def clips():
        for _ in range(4):
            now[0] += 3
            yield torch.zeros(8, 1), torch.zeros(8, 1), torch.arange(8) % 2

    class Model(Classifiers):
        def forward(self, rgb, flow):
            now[0] += 1
            return super().forward(rgb, flow)

    row = train_on(clips(), Model(), training.Accelerator(cpu=True))
    assert row["clips_per_second"] == 8 / 4
    assert row["waiting"] == 0.75


# -- precision ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def types():
    """(training or not, type of the result) of every linear layer that computes; accelerate's precision may be any."""
    seen = set()

    def note(module: nn.Module, _, result: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen.add((module.training, result.dtype))

    AcceleratorState._reset_state()  # it is one for a process, whatever else has been trained in it
    with nn.modules.module.register_module_forward_hook(note):
        yield seen
    AcceleratorState._reset_state()


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_train_and_are_validated_in_the_precision_that_is_set(tmp_path, types, precision, dtype):
    run_train(tmp_path, changed(epochs=1, precision=precision))
    assert types == {(True, dtype), (False, dtype)}


def test_the_loop_itself_computes_in_the_accelerators_precision(types):
    """With a network that is not prepared: `accelerator.prepare` would see to it, too."""
    model, accelerator = Classifiers(), training.Accelerator(mixed_precision="bf16", cpu=True)
    labels = torch.arange(8) % 2
    train_on([(torch.zeros(8, 1), torch.zeros(8, 1), labels)] * 4, model, accelerator)
    assert types == {(True, torch.bfloat16)}
    clips = torch.zeros(8, 1, 1)
    loop.validate(model, DataLoader([(clips, clips, labels)], batch_size=None), accelerator, (1.0, 1.0))
    assert types == {(True, torch.bfloat16), (False, torch.bfloat16)}


# -- validation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("fusion", "fused"), [((1.0, 1.0), 75.0), ((1.0, 4.0), 50.0), ((6.0, 1.0), 25.0)])
def test_validation_scores_each_stream_and_the_weighted_sum_of_their_logits(fusion, fused):
    """Over two batches of different sizes, with a network that hands logits through: 1, 2 and 3 of 4 videos right."""
    rgb = torch.tensor([[10, 0, 9.9], [0, 1, 0], [0, 0, 5], [4, 3, 0]])
    flow = torch.tensor([[0, 3, -20.0], [2, 0, 0], [4, 0, 0], [0, 5, 0]])  # the first is not right by probabilities
    labels = torch.tensor([0, 0, 1, 1])
    batches = [tuple(x[part] for x in (rgb[:, None], flow[:, None], labels)) for part in (slice(3), slice(3, 4))]

    class Given(nn.Module):
        def forward(self, rgb, flow):
            return Output(rgb, flow, None, None)

    loader, accelerator = DataLoader(batches, batch_size=None), training.Accelerator(cpu=True)
    found = loop.validate(Given(), loader, accelerator, fusion)
    assert found == {"val_rgb": 25.0, "val_flow": 50.0, "val_fused": fused}


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


LONG = """
import dataclasses, sys
from pathlib import Path
from test_train import SETTINGS, changed, manifest, start_train

videos = manifest()
few = [video for video in videos.videos if video.video in ("train00", "train01", "train02", "train03", "val00")]
settings = changed(epochs=200, batch_videos=2)
settings = dataclasses.replace(settings, clips=dataclasses.replace(settings.clips, segments=3, input_size=64))
start_train(Path(sys.argv[1]), settings, workers=2, videos=dataclasses.replace(videos, videos=tuple(few)))
"""


@pytest.mark.slow
def test_memory_stays_flat_over_200_epochs(tmp_path):
    """With loader processes and validation; a batch kept in each epoch would add 46 MiB, the kernel gives or takes 10.

    In a process of its own, as workers take over by and by what another test has left.
    """
    in_own_process(LONG, tmp_path).check_returncode()
    with open(tmp_path / "history.csv", newline="") as file:
        memory = [float(row["memory_mb"]) for row in csv.DictReader(file)]
    print([statistics.median(memory[i : i + 20]) for i in range(0, 200, 20)])
    assert statistics.median(memory[-40:]) - statistics.median(memory[20:60]) < 20
