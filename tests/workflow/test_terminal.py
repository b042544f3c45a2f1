"""Lines about what runs, whatever is in the logs and however small the terminal is."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import re
import struct
import termios
import time
from types import SimpleNamespace

import pytest

from ccs.config import terminal

BARS = b"train:  10%|#   | 1/10 [00:01<00:09]\rtrain:  50%|##  | 5/10 [00:05<00:05]"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (BARS, "50 %, 00:05 left"),  # as a program writes them that takes its log for a terminal
        (b"loss 2.1\r\n" + BARS, "50 %, 00:05 left, loss 2.1"),
        (b"\x1b[31mred\x1b[0m\x1b[3A\x1b[J\n", "red"),
        (b"a\tb\x00c\x1b\n", "a b c"),
        (b"\xff\xfe\n", "\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_what_a_log_ends_with_leaves_the_terminal_alone(tmp_path, log, said):
    (tmp_path / "log").write_bytes(log)
    assert terminal._last_said(str(tmp_path / "log"), time.time()) == said


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 5), (3, 2), (0, 0)])
def test_lines_about_what_runs_fit_any_terminal(tmp_path, monkeypatch, columns, rows):
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "log").write_bytes(b"x" * 5000)
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(slave, "w") as stream:
        workflow = SimpleNamespace(dryrun=False, _localrules=set())
        follower = terminal.Follower(workflow, logging.StreamHandler(stream), whole=False)
        for number in range(30):
            follower.running[number] = terminal.Job("train", "train", [str(tmp_path / "log")], time.time())
        follower._draw()
        drawn = re.sub(r"\x1b\[\?7[lh]", "", os.read(master, 1 << 16).decode()).splitlines()
    os.close(master)
    assert 1 <= len(drawn) <= max(1, (rows or 24) - 2)
    assert max(map(len, drawn)) <= max(8, columns or 80)


def test_a_job_that_has_not_begun_its_log_waits(tmp_path):
    """As those of a cluster do, which Snakemake calls started when they are submitted."""
    follower = terminal.Follower(
        SimpleNamespace(dryrun=False, _localrules=set()), logging.StreamHandler(io.StringIO()), whole=False
    )
    now = time.time()
    for number, (name, ago) in enumerate([("new", 9), ("old", 9), ("none", 9), ("just", 0)]):
        follower.running[number] = terminal.Job(f"train {name}", "train", [str(tmp_path / name)], now - ago)
    (tmp_path / "new").write_text("epoch 1/9\n")
    (tmp_path / "old").write_text("epoch 9/9\n")  # of a call before
    os.utime(tmp_path / "old", (now - 60, now - 60))
    status, *jobs = follower._about()
    assert status.startswith("0 of 0 done, 2 running, 2 waiting in the queue, 00:00 so far")
    assert [job.strip().partition("  ")[2] for job in jobs] == ["epoch 1/9", "waits", "waits", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_that_cannot_be_printed_does_not_fail_what_is_done(monkeypatch, encoding):
    with open("/dev/full", "w", encoding=encoding) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        terminal._print("50.7 \u00b1 3.1")
