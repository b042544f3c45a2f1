"""What all stages share: whole files or none, messages instead of tracebacks, progress in a log."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccs import stage
from ccs.stage import CcsError, atomic, run, writing


def python(code: str, *args: str) -> subprocess.CompletedProcess:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, preexec_fn=as_in_a_terminal)


def as_in_a_terminal() -> None:
    """Where the tests run in the background or under nohup, signals are ignored, and would be so by what they start."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


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


def part_names(path: Path, word: str = "") -> Path:
    with atomic(path) as part:
        part.write_text(word)
    return part


@pytest.mark.parametrize(
    "name", ["out.h5", "out", "a (1).b.h5", ".hidden", "x" * 252 + ".h5", "é" * 127, "y." + "z" * 253]
)
def test_what_a_killed_process_left_of_an_output_goes_when_it_is_written_again(tmp_path, name):
    """By the process's number in its name, which is all that tells it; what is of another output stays."""
    path = tmp_path / name
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    part = part_names(path, "new")
    assert path.read_text() == "new"
    assert len(os.fsencode(part.name)) <= 255
    assert part.name.count(str(os.getpid())) == 1
    before, after = part.name.split(str(os.getpid()))

    def named(between: object) -> Path:
        return tmp_path / f"{before}{between}{after}"

    left, old = named(gone.pid), named(f"{gone.pid}.old")
    alive, other, no_number = named(os.getppid()), named(f"2.{gone.pid}"), named("9" * 20)
    for each in (left, alive, other, no_number):
        each.write_text("part")
    old.mkdir()
    (old / "file").touch()
    stage._parts_in.cache_clear()  # as in another process, which has not looked there yet
    with pytest.raises(ValueError, match="later"), atomic(path):
        raise ValueError("later")
    kept = [each.exists() for each in (left, old, alive, other, no_number)]
    assert kept == [False, False, True, True, True]
    assert path.read_text() == "new"


def test_a_name_that_is_too_long_is_a_message_before_any_work(tmp_path):
    with pytest.raises(CcsError, match=r"its name has 256 bytes, and 255 are allowed"), atomic(tmp_path / ("x" * 256)):
        pytest.fail("the work was begun")


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


def test_memory_that_runs_out_is_a_message(capsys):
    import torch

    def on_a_gpu(argv):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity ...")

    def in_a_process_that_loads(argv):
        raise RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\n  File x\n"
            "RuntimeError: [..] DefaultCPUAllocator: can't allocate memory"
        )

    def in_a_worker(argv):
        raise RuntimeError(
            "in a worker process:\nTraceback\n  File x\nnumpy._ArrayMemoryError: Unable to allocate 1.00 PiB"
        )

    def in_fork(argv):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    asks_for_a_petabyte = (lambda argv, empty=empty: empty(1 << 50) for empty in (np.empty, torch.empty))
    for main in (on_a_gpu, in_a_process_that_loads, in_a_worker, in_fork, *asks_for_a_petabyte):
        with pytest.raises(SystemExit) as exit_:
            run(main, [])
        assert exit_.value.code == 1
        message = capsys.readouterr().err
        where = " of the GPU" if main is on_a_gpu else ""
        assert re.fullmatch(rf"ccs: error: (the )?memory{where} ran out \(.+\)\. .* take less at once: .*\n", message)
        assert "process" not in message

    def in_a_folder(argv):
        raise RuntimeError("videos/out of memory/a.mp4: a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(in_a_folder, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_a_closed_terminal_ends_nothing_under_nohup():
    for code in (
        "from ccs.stage import run; run(lambda argv: os.kill(os.getpid(), signal.SIGHUP))",
        "from ccs.train.interruption import Interruption\n"
        "with Interruption() as it: os.kill(os.getpid(), signal.SIGHUP); assert not it.asked",
    ):
        done = python(f"import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {code}; print('done')")
        assert (done.stdout, done.stderr) == ("done\n", "")


def test_who_imports_the_package_keeps_processes_and_threads_of_its_own():
    """They are not ended as a stage's workers are; and only the main thread may say what is done on a signal."""
    done = python(
        "import multiprocessing, time, ccs.stage\n"
        "wait = lambda: (time.sleep(0.5), print('done', flush=True))\n"
        "multiprocessing.get_context('fork').Process(target=wait).start()"
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
    done = python(
        "import sys, threading; sys.argv, sys.orig_argv = ['-m'], ['python', '-m', 'ccs.flow']\n"
        "thread = threading.Thread(target=__import__, args=['ccs']); thread.start(); thread.join()"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_without_standard_output_or_error_a_stage_works(closed):
    for name, status in (("--version", 0), ("no-such-stage", 1)):
        command = ["sh", "-c", f'"$0" -m ccs.cli {name} {closed}', sys.executable]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        assert ("ccs: error: no command" in done.stderr) is (status == 1 and "2" not in closed)


SHARING = """
import sys, threading
import numpy as np
from ccs.pool import ordered_map

met = threading.Barrier(2)

def work(task):
    if task == "end":
        sys.exit(3)  # what no result can be sent of
    met.wait(timeout=20)
    return {"values": np.full((task, 3), task), "none": np.empty((0, 2))}

def set_up(index): pass

if __name__ == "__main__":
    for task, result in enumerate(ordered_map(work, iter(range(6)), 1, set_up, 2)):
        assert result["values"].shape == (task, 3) and (result["values"] == task).all()
        assert result["none"].shape == (0, 2)
    print("right", flush=True)
    list(ordered_map(work, iter(["end", "end"]), 1, set_up, 2))
"""


def test_tasks_of_one_worker_run_side_by_side_and_none_is_lost(tmp_path):
    (tmp_path / "sharing.py").write_text(SHARING)
    root = Path(__file__).resolve().parent.parent
    line = [sys.executable, tmp_path / "sharing.py"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "right\n"
    assert "a worker process ended with status 1" in done.stderr


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


def test_in_a_log_the_first_of_the_work_is_a_line_at_once():
    code = (
        "import sys; from ccs.stage import progress\n"
        "bar = progress(total=9, desc='flow', unit='pair')\n"
        "for _ in range(3): bar.update(2); print('then', file=sys.stderr)\n"
    )
    _, first, *others = python(code).stderr.splitlines()
    assert "2/9" in first
    assert others[:3] == ["then"] * 3


# -- full disks --------------------------------------------------------------------------------------------------------
# each writes whatever it writes to `folder`, the first of its files last where there are several
def _text(folder: Path) -> None:
    with atomic(folder / "out.json") as part:
        part.write_text("x" * 50_000)


def _rows(folder: Path) -> None:
    with atomic(folder / "out.csv") as part, open(part, "w", newline="") as file:
        csv.writer(file).writerows([[number, "a" * 50] for number in range(2_000)])


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, count, dtype=np.uint8)


def _frames_shard(folder: Path) -> None:
    from ccs import hdf5
    from ccs.frames.__main__ import write_shard
    from ccs.frames.decode import DecodedVideo
    from ccs.frames.judgement import Moments

    unknown = Moments(np.full(9, np.nan), np.nan, 0, 0)
    video = DecodedVideo(_noise(9_000), np.arange(0, 9_001, 1_000), 8, 8, 25.0, unknown, "")
    with atomic(folder / "out.h5") as part, hdf5.created(part) as file:
        write_shard(file, ((f"{number}" * 40, video) for number in range(12)))


def _flow_shard(folder: Path) -> None:
    from ccs.flow import shard

    found = [shard.VideoFrames(f"{number:06d}", f"v{number}", 9, 24, 32) for number in range(8)]
    pairs = [[shard.Pairs(video, 0, _noise(8 * 2 * 24 * 32).reshape(video.shape), 0.0)] for video in found]
    with atomic(folder / "out.h5") as part:
        shard.write(part, found, pairs, {"backend": "b"}, lambda number: None)


def _flow_of_one_video(folder: Path) -> None:
    from ccs.flow import formats

    path = folder / "out.h5"
    with writing(path), atomic(path) as part:
        output = formats.Hdf5(part, "v", formats.Encoding(20, None, None))
        try:
            for first in range(0, 32, 8):
                output.write(first, _noise(8 * 2 * 24 * 32).reshape(8, 2, 24, 32))
            output.finish({"clipped": 0.5, "settings": {"bound": 20}, "long": "x" * 9_000})
        finally:
            output.close()


def _training_shard(folder: Path) -> None:
    """Laid out as `ccs.shards` does: in version 1.10 of the format, of fixed and compressed datasets."""
    import hdf5plugin

    from ccs import hdf5

    with atomic(folder / "out.h5") as part, hdf5.created(part, libver=("v110", "v110")) as file:
        file.attrs.update({f"flow.{number}": "x" * 200 for number in range(20)})
        file.create_dataset("jpeg", (60_000,), np.uint8)[:] = _noise(60_000)
        pairs = file.create_dataset("flow/24x32", (40, 2, 24, 32), np.uint8, chunks=(1, 2, 24, 32), **hdf5plugin.LZ4())
        for first in range(0, 40, 8):
            pairs[first : first + 8] = _noise(8 * 2 * 24 * 32).reshape(8, 2, 24, 32)


def _scores(folder: Path) -> None:
    from ccs import scores

    logits = _noise(400 * 20).reshape(400, 20).astype(np.float32)
    found = scores.Scores(
        video=tuple(map(str, range(400))),
        label=np.zeros(400, np.int64),
        rgb=logits,
        flow=logits,
        quarantined=np.zeros(400, bool),
        dataset="d",
        split=1,
        run="r",
        seed=0,
        classes=tuple(map(str, range(20))),
        settings={},
        fusion=(1, 1),
        versions={},
    )
    scores.write(folder / "out.h5", found)


def _checkpoint(folder: Path) -> None:
    import torch

    from ccs.train import checkpoint

    checkpoint.write(folder / "out.pt", {"model": {str(key): torch.zeros(9_000) for key in range(9)}})


def _tensorboard(folder: Path) -> None:
    from ccs.train.history import TensorBoard

    board = TensorBoard(folder, [])
    for epoch in range(500):
        board.add({"epoch": epoch, "loss": 0.5, "val_fused": 3.0})
    board.close()


def _figure(folder: Path) -> None:
    from matplotlib.figure import Figure

    from ccs.figures import style

    figure = Figure(figsize=(8, 8))
    figure.add_subplot().imshow(_noise(10_000).reshape(100, 100), interpolation="nearest")
    style.save(figure, folder / "out.svg", folder / "out.png", title="noise")


def _demo_video(folder: Path) -> None:
    from ccs.datasets import demo

    demo.encode(_noise(8 * 96 * 96 * 3).reshape(8, 96, 96, 3), folder / "out.mp4", 12, demo.find_ffmpeg())


def _film(folder: Path) -> None:
    from ccs.frames.film import check_ffmpeg, find_ffmpeg
    from ccs.frames.film_writer import FilmWriter

    with atomic(folder / "out.mp4") as part:
        film = FilmWriter(part, 96, 96, 25, check_ffmpeg(find_ffmpeg()))
        try:
            film.write(np.concatenate([_noise(8 * 96 * 96 * 3).reshape(8, 96, 96, 3)] * 8), np.arange(64) / 25)
            film.finish()
        finally:
            film.close()


WRITERS: list[Callable[[Path], None]] = [
    _text,
    _rows,
    _frames_shard,
    _flow_shard,
    _flow_of_one_video,
    _training_shard,
    _scores,
    _checkpoint,
    _tensorboard,
    _figure,
    _demo_video,
    _film,
]
FREE = (0, 4, 16, 20, 60, 90)  # KiB


def on_full_disks(mount: str) -> None:
    """On standard output, as JSON: what each writer leaves and says with so many KiB free. Run on a disk of its own."""
    folder, outcomes = Path(mount, "out").absolute(), {}
    for writer in WRITERS:
        folder.mkdir()
        writer(folder)  # with room; and what it imports the forks need not
        outcomes[writer.__name__] = _digests(folder)
        shutil.rmtree(folder)
        for free in FREE:
            folder.mkdir()
            with open(Path(mount, "ballast"), "wb") as file:
                file.write(bytes(os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize - 1024 * free))
            status, said = _in_a_fork(writer, folder)
            left = [path.name for path in folder.iterdir()]
            Path(mount, "ballast").unlink()
            again = _in_a_fork(writer, folder)[0] if status else 0
            outcomes[f"{writer.__name__} {free}"] = status, said, left, again, _digests(folder)
            shutil.rmtree(folder)
    json.dump(outcomes, sys.stdout)


def _digests(folder: Path) -> dict[str, str]:
    found = {path.suffix: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("out.*")}
    # the name of TensorBoard's file has the time and the process in it, and so have its rows
    return found | dict.fromkeys((path.name.split(".")[0] for path in folder.glob("events.*")), "")


def _in_a_fork(writer: Callable[[Path], None], folder: Path) -> tuple[int, str]:
    """How it ends, to the last of what Python does at its end; a process of its own, as HDF5 used to crash."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(write, 2)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
        sys.stdout = io.StringIO()
        status = 0
        try:
            run(lambda argv: writer(folder), [])
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            status = traceback.print_exc() or 2
        if "torch" in sys.modules:  # with which Python's end takes a second; the writers of HDF5 come before
            os._exit(status)
        sys.exit(status)
    os.close(write)
    with open(read, errors="replace") as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said


@pytest.fixture(scope="module")
def full_disks(on_own_disk) -> dict[str, list]:
    """The outcomes by writer, and by writer and KiB."""
    tests = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(tests.parent), str(tests)])
    line = [sys.executable, "-c", "import test_stage; test_stage.on_full_disks('.')"]
    done = on_own_disk(line, 3, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_a_message_and_leaves_nothing(full_disks, writer):
    failed = 0
    for free in FREE:
        status, said, left, again, digests = full_disks[f"{writer.__name__} {free}"]
        assert status in (0, 1), said
        if status:
            failed += 1
            assert said.startswith("ccs: error: "), said
            assert said.count("\n") == 1, said
            assert "cannot be written: No space left on device; " in said
            assert " KiB left on its disk" in said
            assert not [name for name in left if "part" in name]
            assert len(left) < len(digests), "what failed is there"
        assert again == 0
        assert digests == full_disks[writer.__name__]
    assert failed >= 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_ends_no_work_and_a_result_that_cannot_is_told():
    code = (
        "import sys; from ccs.stage import progress, run\n"
        "def main(argv):\n"
        "    for n in progress(range(3), desc='x', unit='y'): print('log', n, file=sys.stderr)\n"
        "    print('result')\n"
        "run(main, [])"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parent.parent
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True, cwd=root)
        assert (done.returncode, done.stdout) == (0, "result\n")
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=root)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith(("log", "x:"))]
    assert said.startswith("ccs: error: standard output")
    assert "No space left on device" in said
