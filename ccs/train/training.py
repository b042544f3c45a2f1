"""One training: its settings, its network and optimizer, how far it has come, and the resume file it goes on from."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ccs.clips.settings import ClipSettings
from ccs.device import choose_device
from ccs.models.network import CCS
from ccs.models.settings import LossSettings, NetworkSettings
from ccs.pool import keep_memory
from ccs.stage import CcsError
from ccs.stage import progress as progress_bar
from ccs.train import checkpoint, history, parallel
from ccs.train.interruption import EXIT_STATUS, Interruption
from ccs.train.loop import Clips, Progress, Steps, check_finite, train_one_epoch, validate
from ccs.train.settings import EvaluateSettings, TrainSettings, conflicts

SAVE_SECONDS = 20.0  # between resume files, at least
SAVE_SHARE = 0.02  # of the time goes into writing them, at most
TOLERATED = 1.1  # times the cross entropy of guessing, which dropout brings about at the beginning
AGREE_EVERY = 8  # batches, about, after which several processes ask each other whether to stop


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    network: NetworkSettings
    clips: ClipSettings
    losses: LossSettings
    train: TrainSettings

    def __post_init__(self) -> None:
        for name, text in conflicts(self.network, self.clips, self.losses):
            raise CcsError(f"train.{name}: {text}")


class Training:
    """A network, its optimizer and how far they have come; made anew, or from the resume file if that fits.

    Args:
        settings: of the run.
        evaluation: how it is evaluated: the checkpoint says so, and early stopping watches the same RGB+Flow.
        identity: what else the checkpoint says of itself, settings included.
        provenance: what else it came from, such as digests of its input; a resume file of another is not used.
        resume_path: where it is.
        num_batches: of an epoch.
        interruption: tells when to stop.
    """

    def __init__(
        self,
        settings: Settings,
        evaluation: EvaluateSettings,
        identity: dict[str, Any],
        provenance: Mapping[str, str],
        resume_path: Path,
        num_batches: int,
        interruption: Interruption,
    ) -> None:
        self.settings, self.evaluation, self.identity = settings, evaluation, identity
        self.resume_path, self.interruption = resume_path, interruption
        self._fingerprint = {**identity, "provenance": dict(provenance)}
        self.accelerator = Accelerator(
            mixed_precision=_precision(settings.train.precision), cpu=choose_device().type == "cpu"
        )
        self.rank, self.is_main = self.accelerator.process_index, self.accelerator.is_main_process
        if self.accelerator.device.type == "cpu":
            keep_memory()
        set_seed(identity["seed"])
        torch.use_deterministic_algorithms(settings.train.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not settings.train.deterministic
        # NaN in what is about to be overwritten only finds faults of torch's own operators, and takes time each step
        # pyrefly: ignore [missing-attribute] - torch makes it when it is asked for
        torch.utils.deterministic.fill_uninitialized_memory = False
        network = CCS(len(identity["classes"]), settings.network, segments=settings.clips.segments)
        self._remedies = ["lower train.lr"]  # of a training that learns nothing
        self._remedies += ["set train.partial_bn to false"] * any(network.partial_bn)
        self._remedies += ["give other train.weights"] * any(network.pretrained)
        self.network = parallel.synchronise_batch_norm(network)
        if self.rank:  # all start with the same weights, and drop out other features
            torch.manual_seed(int(np.random.SeedSequence([identity["seed"], self.rank]).generate_state(1)[0]))
        if settings.train.compile:
            self.network.compile()
        optimizer = torch.optim.SGD(
            parameter_groups(network, settings.train), lr=settings.train.lr, momentum=settings.train.momentum
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimizer, list(settings.train.lr_steps), gamma=settings.train.lr_gamma
        )
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.steps = Steps(num_batches, settings.train.accumulate, settings.train.clip_gradient)
        self.progress = Progress()
        state = checkpoint.resume(resume_path, self._fingerprint)
        found = parallel.gather_objects(state and (state["epoch"], state["step"]))
        if len(set(found)) > 1:
            raise CcsError(
                f"{resume_path}: expected the same file for all processes, found (epochs, steps) {found}: put the "
                "run's folder where all nodes see it"
            )
        if state:
            self._load(state)
        self._saved, self._cost = time.monotonic(), 0.0

    @property
    def where(self) -> str:
        """The device, for people."""
        name = torch.cuda.get_device_name() if self.accelerator.device.type == "cuda" else "a CPU"
        return name if parallel.num_processes() == 1 else f"{parallel.num_processes()} x {name}"

    def say(self, message: str) -> None:
        """One line in the log, from one process."""
        if self.is_main:
            print(message, file=sys.stderr, flush=True)

    def run(self, clips: Iterator[Clips], val_loader: DataLoader | None, folder: Path) -> None:
        """The epochs that are left, told to TensorBoard in `folder`."""
        train, progress = self.settings.train, self.progress
        board = history.TensorBoard(folder, progress.history) if self.is_main else None
        total = train.epochs * self.steps.num_batches
        bar = progress_bar(total=total, desc="train", unit="batch") if self.is_main else tqdm(disable=True)
        with bar:
            self._epochs(clips, val_loader, board, bar)
        if board:
            board.close()

    def _epochs(
        self,
        clips: Iterator[Clips],
        val_loader: DataLoader | None,
        board: history.TensorBoard | None,
        bar: tqdm,
    ) -> None:
        train, progress = self.settings.train, self.progress
        bar.update(progress.epoch * self.steps.num_batches + self.steps.batches_before(progress.step))
        while progress.epoch < train.epochs:
            best = progress.best["epoch"]
            if train.patience and best >= 0 and progress.epoch - 1 - best >= train.patience:
                self.say(f"no better validation accuracy since epoch {best + 1}: stopping")
                break
            row = {"epoch": progress.epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
            row |= train_one_epoch(
                self.model,
                clips,
                self.optimizer,
                self.accelerator,
                self.steps,
                self.settings.losses,
                progress,
                bar,
                self.pause,
            )
            if val_loader is not None:
                asked = (self.accelerator, self.evaluation.fusion, lambda: self.interruption.asked)
                scores = validate(self.network, val_loader, *asked)
                if scores is None:
                    self._stop()
                row |= scores
            row |= history.memory()
            with warnings.catch_warnings():  # of no step before it, where an epoch is resumed after its last one
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.schedule.step()
            self.say(_summary(row, train.epochs))
            self._tell_of_guessing(row)
            watched = train.patience and progress.epoch >= watched_from(train)
            if watched and row["val_fused"] > progress.best["accuracy"]:
                weights = {key: value.cpu().clone() for key, value in self.network.state_dict().items()}
                progress.best = {"accuracy": row["val_fused"], "epoch": progress.epoch, "model": weights}
            progress.next_epoch(row)
            if board:
                board.add(row)

    def _tell_of_guessing(self, row: dict[str, float]) -> None:
        """After an epoch, not the first, that was worse than guessing; once where several are, one after the other."""
        before, guessing = self.progress.history, math.log(len(self.identity["classes"]))

        def worse(epoch: dict[str, float]) -> bool:
            return epoch["loss_cross_entropy"] / 2 > TOLERATED * guessing  # of two streams

        if not before or not worse(row) or (len(before) > 1 and worse(before[-1])):
            return
        self.say(
            f"worse than guessing: the cross entropy is {row['loss_cross_entropy'] / 2:.2f} a stream, where each of "
            f"{len(self.identity['classes'])} classes being as probable has {guessing:.2f}. If it stays so, "
            f"{', or '.join(self._remedies)}"
        )

    def pause(self) -> None:
        """After each step: write the resume file if it is time to, and stop if that was asked for."""
        asked = self.interruption.asked
        due = time.monotonic() - self._saved >= max(SAVE_SECONDS, self._cost / SAVE_SHARE)
        if parallel.num_processes() > 1:
            every = max(AGREE_EVERY // self.steps.accumulate, 1)
            if self.progress.step % every and self.progress.step < len(self.steps):
                return
            asked, due = parallel.any_rank((asked, due), self.accelerator.device)
        if asked:
            self._stop()
        if due:
            self._save()

    def stop_if_asked(self) -> None:
        """After the last epoch: who asked may take the whole job for failed, and remove what it wrote."""
        if any(parallel.any_rank((self.interruption.asked,), self.accelerator.device)):
            self._stop()

    def _stop(self) -> NoReturn:
        self._save()
        parallel.wait_for_all()
        self.say(f"stopped, to go on from {self.resume_path} when started again")
        sys.exit(EXIT_STATUS)

    def _save(self) -> None:
        start = time.monotonic()
        check_finite(self.progress)
        state = self._state()
        if self.is_main:
            checkpoint.write(self.resume_path, {**state, "fingerprint": self._fingerprint, **vars(self.progress)})
        self._saved = time.monotonic()
        self._cost = self._saved - start

    def result(self) -> dict[str, Any]:
        """What the checkpoint holds: the last epoch, or with `patience` the best of those that are watched."""
        state = self._state()
        if self.settings.train.patience:
            state |= {"model": self.progress.best["model"], "epoch": self.progress.best["epoch"] + 1}
        return state

    def _state(self) -> dict[str, Any]:
        return {
            **self.identity,
            "evaluate": dataclasses.asdict(self.evaluation),
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.progress.epoch,
            "random": parallel.gather_objects(checkpoint.random_state(self.accelerator)),
            "computed": self._computed,
        }

    @property
    def _computed(self) -> str:
        """How: what another way would give other bits than."""
        device, precision = self.accelerator.device.type.upper(), self.accelerator.mixed_precision
        precision = "float32" if precision == "no" else precision
        number = parallel.num_processes()
        return f"on the {device} in {precision} by {number} process{'es' * (number > 1)}"

    def _load(self, state: dict[str, Any]) -> None:
        self.progress = Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
        device = self.accelerator.device
        self.progress.sums = {name: torch.as_tensor(value).to(device) for name, value in self.progress.sums.items()}
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.say(f"resuming after {self.progress.epoch} epochs and {self.progress.step} steps from {self.resume_path}")
        checkpoint.set_random_state(state["random"], self.accelerator)
        if state["computed"] != self._computed:
            self.say(
                f"it was computed {state['computed']}, from here on it is {self._computed}: the result will not be "
                "that of an uninterrupted run to the bit"
            )


def watched_from(settings: TrainSettings) -> int:
    """The first epoch, from 0, with the last learning rate.

    Before it accuracy stands still at a rate that is too high, and single epochs are good by chance.
    """
    return max((step for step in settings.lr_steps if step < settings.epochs), default=0)


def parameter_groups(network: CCS, settings: TrainSettings) -> list[dict[str, Any]]:
    """What is trained, in the network's order, by learning rate and weight decay.

    A vector is a norm's weight or a bias. The RGB backbone's first layer comes first, and the history has its rate.
    """
    pretrained = set(network.pretrained_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            lr = settings.lr if parameter in pretrained else settings.lr * settings.lr_new
            decay = settings.weight_decay if parameter.dim() > 1 or settings.decay_norms else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def _summary(row: dict, epochs: int) -> str:
    text = (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, active triplets {row['active_triplets']:.0%}, "
        f"train RGB {row['train_rgb']:.1f} % flow {row['train_flow']:.1f} %"
    )
    if "val_rgb" in row:
        text += f", val RGB {row['val_rgb']:.1f} % flow {row['val_flow']:.1f} % RGB+Flow {row['val_fused']:.1f} %"
    if "clips_per_second" in row:
        text += f", {row['clips_per_second']:.1f} clips/s, {row['waiting']:.0%} waiting"
    return text


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
