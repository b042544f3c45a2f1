"""What all stages share: whole files or none, messages instead of tracebacks, progress in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_once_and_is_not_lost(number):
    """Its echo leaves what cleans up alone; where Python cannot raise it, it comes again; an error that it brings
    about, of an ffmpeg in the same terminal for one, is no message.
    """
    script = """
import os, signal, sys, time, weakref
from ccs.stage import CcsError, run

class Gone: pass

def main(argv):
    gone = Gone()
    reference = weakref.ref(gone, lambda _: os.kill(os.getpid(), NUMBER))
    try:
        del gone
        time.sleep(20)
    finally:
        for echo in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), echo)
        print("cleaned")
        ERROR

run(main)
"""
    for error in ("", "raise CcsError('ffmpeg was stopped')"):
        done = python(script.replace("NUMBER", str(int(number))).replace("ERROR", error))
        assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned\n", "")


def test_ctrl_c_while_it_imports_ends_the_program_quietly():
    stage = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "ccs.train"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert any("torch" in line for line in stage.stderr)
    stage.send_signal(signal.SIGINT)
    rest = stage.stderr.read()
    assert stage.wait(60) == -signal.SIGINT
    assert "Traceback" not in rest
    # in another's program it is that one's affair
    assert python("import signal, ccs; print(signal.getsignal(2) is signal.default_int_handler)").stdout == "True\n"


IMPORTING = """
import sys, time
from ccs.pool import ordered_map
from ccs.stage import run

def work(task): return task

def main(argv):
    print("up", flush=True)
    list(ordered_map(work, range(2), 2, abs))

if __name__ == "__main__":
    run(main)
time.sleep(3)  # of the workers, which import this
"""


def test_ctrl_c_while_workers_import_is_quiet(tmp_path):
    (tmp_path / "importing.py").write_text(IMPORTING)
    root = Path(__file__).resolve().parent.parent
    stage = subprocess.Popen(
        [sys.executable, tmp_path / "importing.py"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert stage.stdout.readline() == "up\n"
    time.sleep(1)
    os.killpg(stage.pid, signal.SIGINT)
    assert stage.communicate(timeout=60) == ("", "")
    assert stage.returncode == 130


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
