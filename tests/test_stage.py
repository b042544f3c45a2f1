"""What all stages share: whole files or none, messages instead of tracebacks, progress in a log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ccs.stage import CcsError, atomic, run


def python(code: str, *args: str) -> subprocess.CompletedProcess:
    root = Path(__file__).resolve().parent.parent
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=root, timeout=120)


@pytest.mark.parametrize("death", ["raise ValueError", "os.kill(os.getpid(), 9)"])
def test_a_file_that_exists_is_whole(tmp_path, death):
    target = tmp_path / "out.csv"
    code = f"import os, sys; from ccs.stage import atomic\nwith atomic(sys.argv[1]) as p: p.write_text('half'); {death}"
    for before in (None, "old"):
        if before:
            target.write_text(before)
        assert python(code, str(target)).returncode != 0
        assert target.exists() is bool(before)
        assert not before or target.read_text() == before
    with atomic(target) as part:
        part.write_text("whole")
        assert target.read_text() == "old"
        assert part.suffix == ".csv"
    assert target.read_text() == "whole"
    with atomic(tmp_path / "new" / "folder" / "x") as part:
        part.touch()
    assert (tmp_path / "new" / "folder" / "x").exists()


def test_an_output_that_cannot_be_made_is_a_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CcsError, match="file/folder/out"), atomic(tmp_path / "file" / "folder" / "out.csv"):
        pass


def test_bad_input_is_a_message_and_a_bug_is_a_traceback(capsys):
    def bad(argv):
        raise CcsError("videos/a.mp4: expected a video, found a text file; remove it")

    with pytest.raises(SystemExit) as exit_:
        run(bad, [])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "ccs: error: videos/a.mp4: expected a video, found a text file; remove it\n"

    def bug(argv):
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(bug, [])


def test_progress_in_a_log_is_whole_lines_with_rate_and_time_left():
    code = (
        "import time; from ccs.stage import progress\n"
        "bar = progress(total=4, desc='flow', unit='pair'); bar.mininterval = bar.maxinterval = 0\n"
        "for _ in range(4): time.sleep(0.02); bar.update()\n"
        "bar.close()\n"
    )
    log = python(code).stderr
    assert "\r" not in log
    assert "\x1b" not in log
    lines = log.splitlines()
    assert all(line.startswith("flow:") and "pair" in line and "<" in line for line in lines)
    assert "4/4" in lines[-1]
    assert len(lines) >= 4
