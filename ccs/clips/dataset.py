"""From a video in a training shard to the clip that the network sees: uint8 arrays of both streams.

Everything random is a function of (seed, epoch, video), so that the number of loader workers changes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import math
import mmap
import os
import signal
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ccs.clips import transforms
from ccs.clips.sampling import frame_indices, pair_indices, segment_starts
from ccs.clips.settings import ClipSettings
from ccs.datasets import bad_videos, manifests
from ccs.datasets.manifests import Manifest, Video
from ccs.models.settings import NetworkSettings
from ccs.models.snippet import Snippet
from ccs.shards.reader import ShardReader
from ccs.signals import held, ignore
from ccs.stage import CcsError, death_of_worker

SHARED_MEMORY = "/dev/shm"


def videos_digest(videos: Mapping[str, Sequence[Video]], reader: ShardReader) -> str:
    """Of the videos in use by part: their ids, labels and numbers of frames."""
    used = [
        (part, video.video, video.label, reader.num_frames[video.video]) for part in videos for video in videos[part]
    ]
    return hashlib.sha256(repr(used).encode()).hexdigest()[:16]


def usable_videos(manifest: Manifest, part: str, reader: ShardReader, quarantine: str | Path) -> list[Video]:
    """The videos of `part` (train, val or test) that are in the shards, in the manifest's order.

    Raises:
        CcsError: videos that are neither in a shard nor in the quarantine list have been lost on the way.
    """
    bad = {each.video for each in bad_videos.read(quarantine, remedy="`ccs quarantine` writes it")}
    wanted = [video for video in manifest.videos if video.split == part]
    lost = [video.video for video in wanted if video.video not in reader and video.video not in bad]
    if lost:
        raise CcsError(
            f"{len(lost)} of {len(wanted)} {part} videos of {manifest.dataset} are neither in the shards nor in "
            f"{quarantine}, for instance {', '.join(lost[:3])}. Give all shards of the data set, or make them again"
        )
    return [video for video in wanted if video.video in reader]


class _Clips(Dataset):
    """What a DataLoader asks for by `__getitems__`: an error comes through it as a value, see `loader`."""

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        try:
            return [self[key] for key in keys]
        except CcsError as error:
            return [error]


def loader(clips: _Clips, *, workers: int, **options: Any) -> DataLoader:
    """A DataLoader whose batches are for `loaded`."""
    # it draws from a generator of its own, so as not to disturb the random state of the network
    generator, pin = torch.Generator(), torch.cuda.is_available()
    options |= {"collate_fn": _collate, "worker_init_fn": _start_worker, "generator": generator, "pin_memory": pin}
    return DataLoader(clips, num_workers=workers, **options)


def _start_worker(worker: int) -> None:
    ignore()
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # of which PyTorch would print what `_broken` says


def _collate(items: list[Any]) -> Any:
    if isinstance(items[0], CcsError):
        return items[0]
    try:
        return default_collate(items)
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) in str(error):  # in a worker, which puts the batch into shared memory
            return _no_room()
        raise


def loaded(batches: DataLoader) -> Iterator[Any]:
    """Start a `loader`; what was wrong is raised here as it is, without a worker's traceback around it.

    Raises:
        CcsError: as a clip's reading raised it; a worker died, or had no room for a batch.
    """
    # a page for each semaphore of the workers' queues; PyTorch would tell in two tracebacks that there is none
    if batches.num_workers and _shared_memory()[1] < (4 * batches.num_workers + 8) * mmap.PAGESIZE:
        raise _no_room()
    _set_no_handler()
    with _broken(batches), held():
        iterator = iter(batches)
    return _checked(batches, iterator)


def _set_no_handler() -> None:
    """PyTorch's handler tells of a dead worker wherever the program just is; `next` tells of it too. It is set once, by
    the first loader that has started workers, one of which may be dead by then: so before there are any.
    """
    before = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is threading.main_thread() and before is not None:
        with suppress(AttributeError):  # a PyTorch without it: a test sees that
            torch.utils.data._utils.signal_handling._set_SIGCHLD_handler()
        signal.signal(signal.SIGCHLD, before)


def _checked(batches: DataLoader, iterator: Iterator[Any]) -> Generator[Any]:
    while True:
        with _broken(batches, iterator):
            batch = next(iterator, None)
            if isinstance(batch, CcsError):
                raise batch
        if batch is None:
            return
        yield batch


@contextmanager
def _broken(batches: DataLoader, iterator: Any = None) -> Generator[None]:
    """Within it an error ends the workers, and what PyTorch raises because one of them has died is a `CcsError`."""
    try:
        yield
    except (CcsError, RuntimeError) as error:
        iterator = batches._iterator if iterator is None else iterator
        workers = getattr(iterator, "_workers", ())
        died = [worker.exitcode for worker in workers if worker.exitcode]
        for worker in workers:  # PyTorch would wait for them, for seconds each
            worker.kill()
        if not died or isinstance(error, CcsError):
            raise
        raise (_no_room() if -signal.SIGBUS in died else death_of_worker(died[0])) from None


def _shared_memory() -> tuple[float, float]:
    """Bytes that the folder of shared memory has in all, and free."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:  # not on every system
        return math.inf, math.inf
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _no_room() -> CcsError:
    size, free = (f"{number / 2**20:.1f} MiB" for number in _shared_memory())
    return CcsError(
        f"{SHARED_MEMORY}: expected room for the clips that the loading processes pass on there, found too little "
        f"({size}, {free} free). Give it more, 1 GiB say (a container by `docker run --shm-size=1g` or what its "
        "scheduler has for it), or load without processes: `--workers 0`, in the workflow one thread: `--set-threads "
        "train=1 evaluate=1` or in a profile"
    )


class TrainClips(_Clips):
    """Random clips, indexed by the (video index, epoch, draw) of `BalancedBatches`.

    An item is (rgb (K, F, 3, S, S), flow (K, L, 2, S, S), label): uint8 tensors and an int.
    """

    def __init__(
        self, reader: ShardReader, videos: Sequence[Video], settings: ClipSettings, *, snippet: Snippet, seed: int
    ) -> None:
        self.reader, self.videos, self.settings = reader, videos, settings
        self.snippet, self.seed = snippet, seed

    def __getitem__(self, index: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        number, epoch, draw = index
        video = self.videos[number]
        name = int.from_bytes(hashlib.sha256(video.video.encode()).digest()[:8], "little")
        rng = np.random.default_rng([self.seed, epoch, draw, name])
        starts = segment_starts(
            self.reader.num_frames[video.video],
            segments=self.settings.segments,
            snippet=self.snippet,
            rng=rng,
        )
        snippets = _read(self.reader, video.video, starts, self.snippet)
        height, width = snippets.frames.shape[1:3]
        crop = transforms.random_crop(height, width, scales=self.settings.scales, flip=self.settings.flip, rng=rng)
        rgb, flow = _crop(snippets, crop, self.settings.input_size)
        return torch.from_numpy(rgb), torch.from_numpy(flow), video.label


class Reader(Protocol):
    """What clips are cut from: a `ShardReader`, or what has its frames and flow by the same names."""

    num_frames: dict[str, int]

    def frames(self, video: str, indices: Sequence[int]) -> np.ndarray: ...

    def flow(self, video: str, indices: Sequence[int]) -> np.ndarray: ...


class TestClips(_Clips):
    """The clips of every video at `segments` segment centres, with 1 or 10 crops; 10 are 5 where `flip` is false.

    An item is (rgb (crops, segments, F, 3, S, S), flow (crops, segments, L, 2, S, S), label): uint8 tensors, an int.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        reader: Reader,
        videos: Sequence[Video],
        settings: ClipSettings,
        *,
        snippet: Snippet,
        segments: int,
        crops: int,
    ) -> None:
        self.reader, self.videos, self.settings = reader, videos, settings
        self.snippet, self.segments, self.crops = snippet, segments, crops

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        video = self.videos[index]
        starts = segment_starts(self.reader.num_frames[video.video], segments=self.segments, snippet=self.snippet)
        snippets = _read(self.reader, video.video, starts, self.snippet)
        height, width = snippets.frames.shape[1:3]
        crops = transforms.test_crops(height, width, self.settings, crops=self.crops)
        rgb, flow = zip(*(_crop(snippets, crop, self.settings.input_size) for crop in crops), strict=True)
        return torch.from_numpy(np.stack(rgb)), torch.from_numpy(np.stack(flow)), video.label


class Clips(Dataset):
    """Clips of a data set's videos from training shards, for a training loop of one's own and any `DataLoader`.

    An item is (rgb, flow, label): uint8 (K, F, 3, S, S), R, G, B in 0..255; uint8 (K, L, 2, S, S), x and y, 128 = no
    motion, with 127 steps for `bound` pixels; and the class's number. That is what `ccs.CCS` takes; other networks may
    want their own normalisation.

    Args:
        shards: the folder of the training shards, or their files.
        manifest: manifest.csv of the data set.
        part: which videos: "train", "val" or "test".
        split: of the manifest.
        quarantine: the list of bad videos, which have no clips; None: quarantine.csv beside the manifest.
        augment: random segments, crops and flips, other ones in each epoch (see `set_epoch`); else the centres of the
            segments, and the centre crop. None: for the part "train" alone.
        flow_length: L, pairs of flow in a snippet.
        all_frames: F is L, a frame for each pair, as networks that convolve over time see; else 1, in the middle.
        seed: of what is random, which is a function of it, of the epoch and of the video.
        settings: fields of `ccs.clips.settings.ClipSettings`: segments (K, 3), input_size (S, 224), scales, test_scale,
            flip.

    Attributes:
        classes: names, by label. videos: ids, in the order of the items. labels: one for each item. bound: pixels.

    Raises:
        CcsError: a file is missing or damaged, also later, when an item is read; settings out of range; no video in
            this part; videos that are neither in the shards nor in the list of bad ones.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        manifest: str | os.PathLike[str],
        *,
        part: Literal["train", "val", "test"] = "train",
        split: int = 1,
        quarantine: str | os.PathLike[str] | None = None,
        augment: bool | None = None,
        flow_length: int = 5,
        all_frames: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        found, bad = manifests.read(manifest, split), quarantine or Path(manifest).with_name("quarantine.csv")
        reader = ShardReader(_shards(shards))
        videos = usable_videos(found, part, reader, Path(bad))
        if not videos:
            raise CcsError(f"{manifest}: expected {part} videos in split {split}, found none; give another part")
        self.classes, self.bound = found.classes, reader.bound
        self.videos, self.labels = [video.video for video in videos], [video.label for video in videos]
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise CcsError(f"seed: expected a whole number of 0 or more, found {seed!r}")
        length = NetworkSettings(flow_length=flow_length).flow_length  # of the same range
        snippet, clips = Snippet(length, all_frames=all_frames), ClipSettings(**settings)
        self._random = TrainClips(reader, videos, clips, snippet=snippet, seed=seed)
        self._central = TestClips(reader, videos, clips, snippet=snippet, segments=clips.segments, crops=1)
        self._augment = part == "train" if augment is None else augment
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Draw the random clips of this epoch from now on; to be called before each pass over the clips."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")  # which also ends a loop over the items
        if self._augment:
            return self._random[index, int(self._epoch), 0]
        rgb, flow, label = self._central[index]
        return rgb[0], flow[0], label


def _shards(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    if not isinstance(given, str | os.PathLike):
        return [Path(each) for each in given]
    folder = Path(given)
    found = sorted(folder.glob("*.h5")) if folder.is_dir() else [folder]
    if not found:
        raise CcsError(f"{folder}: expected training shards (*.h5) in this folder, found none; run the stage `shards`")
    return found


class _Snippets(NamedTuple):
    """What a clip's snippets show, each frame and pair once: those of a short video overlap."""

    frames: np.ndarray  # uint8 (n, H, W, 3)
    flow: np.ndarray  # uint8 (m, 2, H, W)
    frame_rows: np.ndarray  # int64 (K, F): which of `frames`
    pair_rows: np.ndarray  # int64 (K, L): which of `flow`


def _read(reader: Reader, video: str, starts: np.ndarray, snippet: Snippet) -> _Snippets:
    num_frames = reader.num_frames[video]
    pairs, pair_rows = _distinct(pair_indices(starts, snippet=snippet, num_frames=num_frames))
    frames, frame_rows = _distinct(frame_indices(starts, snippet=snippet, num_frames=num_frames))
    return _Snippets(reader.frames(video, frames), reader.flow(video, pairs), frame_rows, pair_rows)


def _distinct(indices: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The distinct indices, ascending, and for each of `indices` its row among them."""
    flat = indices.ravel().tolist()
    distinct = sorted(set(flat))
    row = {index: row for row, index in enumerate(distinct)}
    return distinct, np.array([row[index] for index in flat]).reshape(indices.shape)


def _crop(snippets: _Snippets, crop: transforms.Crop, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip: rgb (K, F, 3, S, S) and flow (K, L, 2, S, S)."""
    rgb = transforms.apply_rgb(snippets.frames, crop, size)
    flow = transforms.apply_flow(snippets.flow, crop, size, flow_length=snippets.pair_rows.shape[1])
    return _arranged(rgb, snippets.frame_rows), _arranged(flow, snippets.pair_rows)


def _arranged(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if rows.size == len(images):  # each once, in their order
        return images.reshape(*rows.shape, *images.shape[1:])
    return images[rows]
