"""Published weights by name: fetched once and whole from a server on the loopback, or an error that says what to do."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ccs.models import backbones, published
from ccs.models.backbones import __main__ as command
from ccs.models.backbones import bninception, i3d
from ccs.models.catalogue import OWN
from ccs.models.settings import NetworkSettings
from ccs.stage import CcsError
from ccs.train.__main__ import _weights_digests

CONTENT = bytes(range(256)) * 1000
DAMAGED = CONTENT[:-1] + b"?"


class Server(ThreadingHTTPServer):
    """Gives out `pages`, content by path; half of it, of `cut`, and nothing for now, of `silent`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.go_on = threading.Event()  # of `silent`, after half of the content

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path[1:])
        folder, _, name = self.path[1:].rpartition("/")
        if name not in self.server.pages or folder == "gone":
            self.send_error(404)
            return
        content = DAMAGED if folder == "wrong" else self.server.pages[name]
        self.send_response(200)
        self.send_header("Content-Length", "many" if folder == "odd" else str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if folder == "silent":
            self.wfile.flush()
            self.server.go_on.wait(120)
        if folder != "cut":
            self.wfile.write(content[half:])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server, and an empty torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.go_on.set()
        found.shutdown()


@pytest.fixture
def tabled(server, monkeypatch):
    """Puts files into the table, and contents on the server: `files(*folders)` of weights called (x, imagenet)."""

    def prepare(*files: published.File, content: bytes = CONTENT) -> None:
        server.pages |= {file.name: content for file in files}
        monkeypatch.setattr(published, "FILES", {("x", "imagenet"): (files, ())})

    return prepare


def file_of(server: Server, *folders: str, name: str = "weights.pt", content: bytes = CONTENT, git: bool = False):
    """A file of the table with an address in each folder of the server; `refused` is a port that nobody listens to."""
    addresses = tuple(
        f"http://127.0.0.1:{closed_port()}/{name}" if f == "refused" else server.address(f"{f}/{name}") for f in folders
    )
    if git:
        found = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return published.File(name, addresses, git=found)
    return published.File(name, addresses, sha256=hashlib.sha256(content).hexdigest()[:12])


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def there() -> list[str]:
    """What is in torch.hub's folder but the lock."""
    folder = published.folder()
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.is_dir() else []


# the table


def all_files() -> list[published.File]:
    return [file for streams in published.FILES.values() for file in itertools.chain(*streams)]


def test_the_table_has_what_the_catalogue_says_and_digests_as_they_were_published():
    """torch.hub checks the digits of a name; the others are objects of Git."""
    assert {(name, each) for name, entry in OWN.items() for each in entry.weights} == {
        *published.FILES,
        ("i3d", "imagenet"),  # torchvision's GoogLeNet
    }
    assert len({file.name for file in all_files()}) == len(all_files())
    for file in all_files():
        digits = re.search(r"-([0-9a-f]{8,})\.pth$", file.name)
        assert file.sha256 == (digits[1] if digits else "")
        assert bool(file.git) != bool(file.sha256)
        assert all(re.match(rf"https?://.*/{re.escape(file.name)}$", address) for address in file.addresses)


def test_digests_are_those_of_git_and_sha256sum(tmp_path):
    path = tmp_path / "some.pt"
    path.write_bytes(CONTENT)
    for line, file in (
        (["git", "hash-object", path], published.File("some.pt", (), git="x")),
        (["sha256sum", path], published.File("some.pt", (), sha256="x")),
    ):
        told = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[0]
        assert file.digest_of(path).split()[-1] == told
        right = file._replace(**{"git" if file.git else "sha256": told[:40]})
        assert right.is_at(path)
        assert not file.is_at(path)


def test_the_folder_is_that_of_torch(monkeypatch):
    for environment in ({}, {"XDG_CACHE_HOME": "/cache"}, {"XDG_CACHE_HOME": "/cache", "TORCH_HOME": "~/torch"}):
        for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert published.folder() == Path(torch.hub.get_dir(), "checkpoints")


# from the server into the folder


@pytest.mark.parametrize("git", [False, True])
def test_a_file_is_fetched_once_and_a_copy_by_hand_never(server, tabled, git):
    tabled(file_of(server, "good", git=git))
    path = published.fetch("x", "imagenet", flow=True)
    assert path == Path(os.environ["TORCH_HOME"], "hub/checkpoints/weights.pt")
    assert path.read_bytes() == CONTENT
    assert there() == ["weights.pt"]
    for flow in (False, True):
        assert published.fetch("x", "imagenet", flow=flow) == path
    assert server.asked == ["good/weights.pt"]
    path.unlink()
    path.write_bytes(CONTENT)
    published.fetch("x", "imagenet", flow=False)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("wrong", r"gave another file, 256,000 bytes with SHA-256 [0-9a-f]{64}"),
        ("cut", "cut short after 128,000 of 256,000 bytes"),
        ("gone", "HTTP Error 404: Not Found"),
        ("refused", r"\[Errno \d+\] Connection refused"),
        ("silent", "timed out"),
        ("odd", "invalid literal .*'many'"),
    ],
)
def test_a_failure_says_which_file_from_where_why_and_what_to_do_and_the_next_address_is_tried(
    server, tabled, monkeypatch, folder, reason
):
    monkeypatch.setattr(published, "SECONDS", 0.5)
    file = file_of(server, folder)
    tabled(file)
    with pytest.raises(CcsError) as error:
        published.fetch("x", "imagenet", flow=False)
    place = re.escape(str(published.folder()))
    told = str(error.value)
    assert told.startswith(f"weights.pt (SHA-256 {file.sha256}...): could not be fetched. {file.addresses[0]}: ")
    assert re.search(rf": {reason}\. .*put it into {place}", told)
    assert there() == []

    tabled(file_of(server, folder, "good"))
    assert published.fetch("x", "imagenet", flow=False).read_bytes() == CONTENT
    # the same weights in another file, after all addresses of the first
    (published.folder() / "weights.pt").unlink()
    tabled(file_of(server, folder, "gone"), file_of(server, "good", name="other.pt"))
    assert published.fetch("x", "imagenet", flow=False).name == "other.pt"
    assert there() == ["other.pt"]
    before = len(server.asked)
    assert published.fetch("x", "imagenet", flow=True).name == "other.pt"
    assert len(server.asked) == before


@pytest.mark.parametrize("content", [DAMAGED, CONTENT[:1000], b""])
def test_what_lies_there_is_checked_and_left_to_its_owner(server, tabled, content):
    file = file_of(server, "good")
    tabled(file)
    path = published.folder() / "weights.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(CcsError, match=rf"weights\.pt: expected .* SHA-256 {file.sha256}.*{found}.*Remove it"):
        published.fetch("x", "imagenet", flow=False)
    assert path.read_bytes() == content
    assert server.asked == []


def test_a_file_that_cannot_be_read_is_told(server, tabled):
    """Such as another user's in a folder that many share; here, even for root, a process's memory from its start on."""
    tabled(file_of(server, "good"))
    path = published.folder() / "weights.pt"
    path.parent.mkdir(parents=True)
    path.symlink_to("/proc/self/mem")
    with pytest.raises(CcsError, match=r"weights\.pt: expected the published file, found one that cannot be read"):
        published.fetch("x", "imagenet", flow=False)


def test_a_folder_that_cannot_be_written_is_told(server, tabled, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    tabled(file_of(server, "good"))
    with pytest.raises(CcsError, match=r"file/hub/checkpoints: expected a folder to put weights\.pt into.*TORCH_HOME"):
        published.fetch("x", "imagenet", flow=False)


def test_processes_that_want_it_together_fetch_once_and_see_no_half(server, tabled, monkeypatch, capsys):
    """One in a process of its own, and one here that comes while the first has half of it."""
    monkeypatch.setattr(published, "SECONDS", 120.0)
    file = file_of(server, "silent")
    tabled(file)
    code = (
        "from ccs.models import published\n"
        f"published.FILES = {{('x', 'imagenet'): ((published.File{tuple(file)!r},), ())}}\n"
        "published.SECONDS = 120\n"
        "published.fetch('x', 'imagenet', flow=False)"
    )
    found, told = [], ""
    second = threading.Thread(target=lambda: found.append(published.fetch("x", "imagenet", flow=False).read_bytes()))
    with subprocess.Popen([sys.executable, "-c", code]) as first:
        while not server.asked:
            assert first.poll() is None
            time.sleep(0.02)
        second.start()
        while second.is_alive() and "waiting for another process" not in told and len(server.asked) == 1:
            told += capsys.readouterr().err
            time.sleep(0.02)
        assert not (published.folder() / "weights.pt").exists()
        server.go_on.set()
        second.join()
    assert first.returncode == 0
    assert found == [CONTENT]
    assert server.asked == ["silent/weights.pt"]
    assert there() == ["weights.pt"]


# into the networks


class OldPickler(pickle._Pickler):
    """As Python 2 and the torch of then wrote: texts as bytes, tensors without gradients."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - the base's is one, too

    def save_text(self, text: str) -> None:
        assert len(text) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode())
        self.memoize(text)

    dispatch[str] = save_text

    def reducer_override(self, value):
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        arguments = value._typed_storage(), value.storage_offset(), tuple(value.size()), value.stride()
        return torch._utils._rebuild_tensor, arguments


def old_file(path: Path, state: object) -> bytes:
    def dump(value: object, file, protocol: int) -> None:
        OldPickler(file, protocol).dump(value)

    old = SimpleNamespace(__name__="old", Pickler=OldPickler, dump=dump)
    torch.save(state, path, pickle_module=old, pickle_protocol=2, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def published_state(body: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of other numbers, in the form of the old files: batch norm as (1, n), and no count of batches."""
    state = {key: torch.rand(value.shape) for key, value in body.state_dict().items() if value.ndim}
    return {key: value[None] if "_bn." in key else value for key, value in state.items()}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> dict[tuple[str, str], tuple[dict[str, torch.Tensor], bytes]]:
    """BN-Inception's and I3D's tensors by backbone and stream, and a file of them."""
    torch.manual_seed(0)
    path, made = tmp_path_factory.mktemp("made") / "weights.pt", {}
    for name, kind, flow_channels in (("bninception", bninception.BNInception, 10), ("i3d", i3d.I3D, 2)):
        for stream, channels in (("rgb", 3), ("flow", flow_channels)):
            state = published_state(kind(channels))
            saved = {"state_dict": state} if name == "bninception" else state | {"logits.conv3d.bias": torch.rand(400)}
            made[name, stream] = state, old_file(path, saved)
    return made


@pytest.fixture
def kinetics(made_up, server, monkeypatch):
    """The made-up files on the server and in the table; the tensors by backbone and stream."""
    table = {}
    for name in ("bninception", "i3d"):
        contents = {f"{name}_{stream}.pt": made_up[name, stream][1] for stream in ("rgb", "flow")}
        server.pages |= contents
        table[name, "kinetics"] = tuple(
            (file_of(server, "good", name=file, content=content, git=name == "i3d"),)
            for file, content in contents.items()
        )
    monkeypatch.setattr(published, "FILES", table)
    return {key: state for key, (state, _) in made_up.items()}


@pytest.mark.parametrize("name", ["bninception", "i3d"])
def test_each_stream_has_its_own_file_of_kinetics_to_the_last_tensor(kinetics, name):
    for stream, flow_length in (("rgb", None), ("flow", 5)):
        loaded = backbones.build(name, weights="kinetics", flow_length=flow_length).body.state_dict()
        expected = kinetics[name, stream]
        assert {key for key, value in loaded.items() if value.ndim} == expected.keys()
        for key, value in expected.items():
            assert torch.equal(loaded[key], value[0] if "_bn." in key else value), key


def test_i3d_of_kinetics_has_black_around_its_videos_as_it_was_trained(kinetics):
    """Unlike what was inflated; a network that a checkpoint will fill, too."""
    still = torch.rand(1, 3, 1, 16, 16).expand(-1, -1, 8, -1, -1)
    for load_weights in (True, False):
        unit = backbones.build("i3d", weights="kinetics", load_weights=load_weights).body.eval().Conv3d_1a_7x7
        with torch.no_grad():
            found = unit(still)[0, :, 0] - unit(still)[0, :, 2]
        assert found.abs().max() > 0.01


def test_a_training_notes_which_files_it_began_with(kinetics, server):
    noted = _weights_digests(NetworkSettings(backbone="bninception", weights="kinetics"))
    assert noted == {
        stream: hashlib.sha256(server.pages[f"bninception_{stream}.pt"]).hexdigest()[:16] for stream in ("rgb", "flow")
    }
    own = str(published.folder() / "i3d_flow.pt")
    published.fetch("i3d", "kinetics", flow=True)
    settings = NetworkSettings(backbone="i3d", weights="none", weights_flow=own)
    assert _weights_digests(settings) == {"flow": hashlib.sha256(server.pages["i3d_flow.pt"]).hexdigest()[:16]}


def test_the_command_fetches_both_files_and_tells_one_that_does_not_fit(kinetics, server, capsys):
    command.main(["bninception", "kinetics"])
    assert server.asked == ["good/bninception_rgb.pt", "good/bninception_flow.pt"]
    assert there() == ["bninception_flow.pt", "bninception_rgb.pt"]
    assert str(published.folder()) in capsys.readouterr().out
    published.FILES["i3d", "kinetics"] = published.FILES["bninception", "kinetics"]
    with pytest.raises(CcsError, match=r"kinetics does not fit i3d\. Missing: Conv3d_1a_7x7\.conv3d\.weight"):
        command.main(["i3d", "kinetics"])
    for backbone, message in (
        ("i3d_x0_5", "nobody publishes weights of i3d_x0_5: .*take i3d"),
        ("resnet18", "resnet18 has imagen"),
    ):
        with pytest.raises(CcsError, match=message):
            command.main([backbone, "kinetics"])


def test_the_command_lists_every_file_with_its_digest_and_addresses(capsys):
    command.main([])
    lines = capsys.readouterr().out.splitlines()
    for file in all_files():
        assert any(file.name in line and (file.sha256 or file.git) in line for line in lines)
        assert {f"    {address}" for address in file.addresses} <= set(lines)
