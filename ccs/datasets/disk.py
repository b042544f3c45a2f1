"""Videos on disk and videos in lists: each directory is listed once, and every listed video is found or reported.

Names that differ in nothing but their Unicode form, such as those of files copied from a Mac, are one name: classes,
ids and what lists say are compared and kept composed (NFC), paths are as they are on disk.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ccs.datasets.holdout import hold_out
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import AbsentSettings
from ccs.stage import CcsError

# What is a video and nothing else: .gif and .webp are pictures as often, .mod and .yuv cannot be told from others.
EXTENSIONS = "264 265 3g2 3gp amv asf avi divx dv f4v flv h261 h263 h264 h265 hevc ivf m1v m2p m2t m2ts m2v m4v mjpeg "
EXTENSIONS += "mjpg mk3d mkv mov mp4 mpe mpeg mpg mpv mts mxf nut obu ogm ogv qt rm rmvb ts vc1 vob vro webm wmv wtv "
EXTENSIONS += "xvid y4m"
SUFFIXES = frozenset(f".{name}" for name in EXTENSIONS.split())
# What systems put beside people's files, in lower case. Names with a dot in front, such as .Trashes, .Spotlight-V100
# and ._NAME of macOS or .snapshot and .@__thumb of file servers, are passed over as hidden.
SYSTEM = frozenset(
    (
        "lost+found",  # of Linux's file systems, one at the root of each disk
        "$recycle.bin",  # of Windows: the bin of a disk
        "system volume information",  # of Windows, on every disk that it has seen
        "thumbs.db",  # of Windows: thumbnails
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",  # of Windows: how a folder looks
        "__macosx",  # of macOS, in ZIP archives: a second tree of ._NAME files
        "icon\r",  # of macOS: a folder's icon
        "network trash folder",  # of macOS, on file servers
        "temporary items",
        "@eadir",  # of Synology: thumbnails, and small films of videos under their names
        "#recycle",  # of Synology: the bin of a share
        "#snapshot",
        "@recycle",  # of QNAP: the bin of a share
        "@recently-snapshot",
        "~snapshot",  # of NetApp
    )
)
UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8
_MARKS = {  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FEW = 5  # names in a message

Kind = TypeVar("Kind", list, dict)


class Listing(NamedTuple):
    """The names in one directory, without hidden ones and `SYSTEM`; of links that lead nowhere, also why they do."""

    videos: list[str]
    folders: list[str]
    others: list[str]
    lost: dict[str, str]


class Listed(NamedTuple):
    """A video as a split list names it; `group` is what must not be divided, `source` where the list says so."""

    video: str
    folder: str
    name: str
    label: int
    split: str
    group: str
    source: str


class Folder:
    """The files of one directory, or of several of one name, found by the names that a list gives them."""

    def __init__(self):
        self.videos: dict[str, str] = {}  # path by name
        self._others: dict[str, str] = {}
        self._by_stem: dict[str, list[str]] = {}

    def add(self, path: str, listing: Listing) -> None:
        """Add what is in the directory `path`; raises `CcsError` for a second video of one name."""
        for name in listing.videos:
            put(self.videos, nfc(name), f"{path}/{name}")
        self._others.update({nfc(name): f"{path}/{name}" for name in listing.others})

    def find(self, name: str) -> str | None:
        """The path of the file called `name`; else of the only video that differs in extension, or in case; else None.

        Raises `CcsError` where several would do.
        """
        if there := self.videos.get(name) or self._others.get(name):
            return there
        if not self._by_stem:
            for known in self.videos:
                self._by_stem.setdefault(stem(known).casefold(), []).append(known)
        candidates = self._by_stem.get(stem(name).casefold(), [])
        candidates = [known for known in candidates if stem(known) == stem(name)] or candidates
        if len(candidates) > 1:
            paths = sorted(self.videos[known] for known in candidates)
            where = os.path.commonpath([os.path.dirname(path) for path in paths])
            found = " and ".join(os.path.relpath(path, where) for path in paths)
            raise CcsError(f"{where}: the list names {name}, found {found}: keep one of them")
        return self.videos[candidates[0]] if candidates else None


def put(paths: dict[str, str], name: str, path: str) -> None:
    """Note the path of a name; raises `CcsError` where it has another one."""
    other = paths.setdefault(name, path)
    if other != path:
        raise CcsError(f"{path}: {name} is also the name of {other}{form(path, other)}: rename or remove one of them")


def nfc(name: str) -> str:
    """A name in the form in which all are compared."""
    return unicodedata.normalize("NFC", name)


def form(one: str, other: str) -> str:
    """What is to be said of two names that look alike, or ""."""
    return f" (they look alike: {one!a} and {other!a})" if one != other and nfc(one) == nfc(other) else ""


def note(dataset: str, text: str) -> None:
    """Say on standard error what is no error but should be known."""
    print(f"ccs: dataset {dataset}: {text}", file=sys.stderr)


def stem(name: str) -> str:
    """A file name without its extension, if that is a video's."""
    base, suffix = os.path.splitext(name)
    return base if suffix.lower() in SUFFIXES else name


def directory(dataset: str, key: str, path: str, holds: str) -> str:
    """The directory that the setting `key` names; raises `CcsError` where it is not there."""
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing there"
        raise CcsError(
            f"{path}: expected the directory of {holds} ({key} of dataset {dataset}), found {found}: "
            f"correct {key} in the configuration (relative paths start at {os.getcwd()}) or put the files there"
        )
    return path


def scan(path: str) -> Listing:
    """List one directory; a file is a video by its extension."""
    found = Listing([], [], [], {})
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM:
                    _sort_in(entry, found)
    except OSError as error:
        raise CcsError(f"{path}: cannot list this directory ({error.strerror}): check that it may be read") from error
    return found


def _sort_in(entry: os.DirEntry, found: Listing) -> None:
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
        if not is_folder and not is_file and entry.is_symlink() and not os.path.exists(entry.path):
            found.lost[entry.name] = f"a link to {os.readlink(entry.path)!r}, where nothing is"
            return
    except OSError as error:
        circle = error.errno == errno.ELOOP
        found.lost[entry.name] = "a link that leads back to itself" if circle else f"a link: {error.strerror}"
        return
    if is_file and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
        found.videos.append(entry.name)
    else:
        (found.folders if is_folder else found.others).append(entry.name)


def listing(dataset: str, path: str) -> Listing:
    """What a manifest can hold of one directory; says what it cannot, and links that lead nowhere."""
    found = scan(path)
    why = "its name has a control character or is not UTF-8, which tables cannot hold: rename it"
    names = (*found.videos, *found.folders, *found.others)
    left_out = {**found.lost, **dict.fromkeys(filter(UNSAFE.search, names), why)}
    if left_out:
        first = "; ".join(f"{name!r} ({why})" for name, why in sorted(left_out.items())[:_FEW])
        note(dataset, f"left out in {path}: {first}{_more(len(left_out))}")
    videos, folders, others = ([name for name in each if name not in left_out] for each in found[:3])
    return Listing(videos, folders, others, found.lost)


def extensions(names: Iterable[str]) -> str:
    """How many files there are of each extension, such as "3 .txt, 1 .gif", the most frequent first."""
    counts = Counter(os.path.splitext(name)[1].lower() or "without extension" for name in names).most_common()
    return ", ".join(f"{count} {kind}" for kind, count in counts[: 2 * _FEW]) + _more(len(counts), 2 * _FEW)


def _more(count: int, told: int = _FEW) -> str:
    return f" and {count - told} more" if count > told else ""


def read_text(path: str, holds: str) -> str:
    """The text of a list, see `decoded`; raises `CcsError` where there is none."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CcsError(
            f"{path}: expected {holds}, found none ({error.strerror}): "
            "put the published lists there or correct `lists` in the configuration"
        ) from error
    return decoded(content, path)


def read_json(path: str, kind: type[Kind], holds: str) -> Kind:
    """The list or object in a JSON file; raises `CcsError` where there is none."""
    try:
        content = json.loads(read_text(path, holds))
    except (ValueError, RecursionError) as error:
        raise CcsError(f"{path}: not JSON ({error}): download it again") from error
    if not isinstance(content, kind):
        raise CcsError(f"{path}: expected a JSON {kind.__name__}, found a {type(content).__name__}: download it again")
    return content


def decoded(content: bytes, source: str) -> str:
    """Text in UTF-8, or what its byte order mark says, with line ends as \\n; single bytes that are not UTF-8 are kept.

    Raises `CcsError` where it is no text.
    """
    codec = next((codec for mark, codec in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(codec, "surrogateescape" if codec.startswith("utf-8") else "strict")
    except UnicodeError as error:
        raise CcsError(f"{source}: expected text in {codec.upper()}, as its first bytes say: {error}") from None
    if "\0" in text:
        raise CcsError(
            f"{source}: expected lines of text in UTF-8, found zero bytes, as in UTF-16 without a byte order mark, in "
            "binary files or after `find -print0`: save it as UTF-8, a line for each entry"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(path: str, holds: str) -> Iterator[tuple[str, str]]:
    """("FILE, line N", text) of each line that is not blank, without line ends and blanks around."""
    return numbered(read_text(path, holds), path)


def numbered(text: str, source: str) -> Iterator[tuple[str, str]]:
    """The same of a text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if entry := line.strip():
            yield f"{source}, line {number}", entry


def class_folders(dataset: str, root: str) -> dict[str, Folder]:
    """`root/CLASS/*`: the files of every directory below `root`, by the directory's name."""
    folders: dict[str, Folder] = {}
    for name in sorted(listing(dataset, root).folders):
        path = os.path.join(root, name)
        folders.setdefault(nfc(name), Folder()).add(path, listing(dataset, path))
    return folders


def check_split(dataset: str, split: int, of: str, number: int = 1) -> None:
    """Raise `CcsError` unless the split is one of 1 to `number`; of: what it would be a split of."""
    if not 1 <= split <= number:
        there = f"1 to {number} do" if number > 1 else "only 1 does"
        raise CcsError(f"dataset {dataset}: split {split} of {of} does not exist: {there}")


def assemble(
    dataset: str,
    settings: AbsentSettings,
    root: str,
    classes: Sequence[str],
    listed: Sequence[Listed],
    folders: Mapping[str, Folder],
) -> Manifest:
    """The manifest of the listed videos that are in `folders`, with `val` taken from `train` by group.

    Raises `CcsError` for a video listed twice, for absent videos beyond `max_absent_fraction`, and for no videos.
    """
    found = locate(dataset, settings, root, listed, folders)
    val = hold_out(
        ((item.group, item.label) for item, _ in found if item.split == "train"),
        settings.val_fraction,
        settings.seed,
    )
    videos = [
        video._replace(split="val") if video.split == "train" and item.group in val else video
        for (item, _), video in zip(found, videos_of(found, classes), strict=True)
    ]
    return finish(dataset, classes, videos, absent_of(listed, found))


def videos_of(found: Sequence[tuple[Listed, str]], classes: Sequence[str]) -> list[Video]:
    """The videos that `locate` has found, each in its listed part."""
    return [
        Video(item.video, path, item.label, classes[item.label] if item.label >= 0 else "", item.split)
        for item, path in found
    ]


def locate(
    dataset: str, settings: AbsentSettings, root: str, listed: Sequence[Listed], folders: Mapping[str, Folder]
) -> list[tuple[Listed, str]]:
    """The listed videos that are in `folders`, by `Listed.folder`, each with its path. Raises as `assemble`."""
    _check_unique(listed)
    found = _find(listed, folders)
    _check_absent(dataset, settings, root, listed, found)
    paths = {path for _, path in found}
    extra = sum(path not in paths for folder in folders.values() for path in folder.videos.values())
    if extra:
        note(
            dataset,
            f"{extra} videos in the listed folders of {root} are in none of the lists of this split, and left out",
        )
    return found


def finish(dataset: str, classes: Sequence[str], videos: list[Video], absent: Sequence[str] = ()) -> Manifest:
    """The manifest, sorted; says so where there is nothing to train on or to test on."""
    parts = {video.split for video in videos}
    for part in ("train", "test"):
        if part not in parts:
            note(dataset, f"no video is in {part}")
    return Manifest(dataset, tuple(classes), tuple(sorted(videos)), absent=tuple(absent))


def absent_of(listed: Sequence[Listed], found: Sequence[tuple[Listed, str]]) -> list[str]:
    """The listed videos that were not found, as "PATH (LIST, line N)"."""
    there = {item.video for item, _ in found}
    absent = [item for item in listed if item.video not in there]
    return [f"{os.path.join(item.folder, item.name)} ({item.source})" for item in absent]


def _check_unique(listed: Sequence[Listed]) -> None:
    seen: dict[str, Listed] = {}
    for item in listed:
        other = seen.setdefault(item.video, item)
        if other is item:
            continue
        if other.split != item.split:
            found = f"in {other.split} ({other.source}) and in {item.split}"
            raise CcsError(f"{item.source}: {item.video} is listed both {found}: keep one of the two lines")
        raise CcsError(f"{item.source}: {item.video} is listed a second time, first in {other.source}: keep one")


def _find(listed: Sequence[Listed], folders: Mapping[str, Folder]) -> list[tuple[Listed, str]]:
    """Each listed video that is on disk, with its path."""
    by_case = {name.casefold(): folder for name, folder in folders.items()}
    found, takers = [], {}
    for item in listed:
        folder = folders.get(item.folder) or by_case.get(item.folder.casefold())
        if folder is None or (path := folder.find(item.name)) is None:
            continue
        other = takers.setdefault(path, item)
        if (other.folder, other.name) != (item.folder, item.name):  # else clips of one file
            raise CcsError(
                f"{path}: two listed videos fit this file, {other.name} ({other.source}) and {item.name} "
                f"({item.source}): rename the files as the lists have them"
            )
        found.append((item, path))
    return found


def _check_absent(dataset: str, settings: AbsentSettings, root: str, listed: Sequence[Listed], found: Sequence) -> None:
    num_absent = len(listed) - len(found)
    if not num_absent and listed:
        return
    allowed = settings.max_absent_fraction
    absent = absent_of(listed, found)
    first = "; ".join(absent[:_FEW])
    text = f"{num_absent} of {len(listed)} listed videos are absent"
    if listed and num_absent > allowed * len(listed):
        raise CcsError(
            f"{root}: {text}, allowed is a share of {allowed}. The first: {first}. "
            f"Put them there, correct `root` of dataset {dataset}, or raise its max_absent_fraction"
        )
    if not found:
        raise CcsError(f"{root}: no videos at all: {text}. The first: {first}. Correct `root` of dataset {dataset}")
    note(dataset, f"{text} and are left out, the first {absent[0]}")
