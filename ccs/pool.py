"""Worker processes whose results come back in order, and which never outlive or hang their parent.

`multiprocessing.Pool` waits for ever for a worker that was killed; `concurrent.futures` waits for running tasks before
it lets an interrupted program end. A task here may take many seconds and gigabytes, so both happen.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar, cast

from ccs.signals import held, ignore
from ccs.stage import CcsError, death_of_worker

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_AHEAD = 4  # per worker, begun or done but not yet yielded: bounds memory where one task is slow


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    set_up: Callable[[int], None],
    at_once: int = 1,
) -> Generator[Result]:
    """Yield `function(task)` for each task, in order, computed in `num_workers` fresh processes.

    Args:
        function, set_up: picklable by name; a worker calls `set_up(index)` once, before its first task.
        tasks: read lazily, a few ahead of what has been yielded.
        num_workers: processes, >= 1.
        at_once: tasks that a worker computes at the same time, each in a thread, >= 1.

    Raises:
        CcsError: as `function` raised it, or because a worker died.
        RuntimeError: `function` raised anything else; the message holds the worker's traceback.

    Close the generator (`contextlib.closing`) to kill the workers early; an exception in it does so too.
    """
    # spawn: a fork would copy the parent's threads and locks (HDF5, OpenCV, tqdm), and CUDA does not survive one
    context = multiprocessing.get_context("spawn")
    keep_memory()
    processes: dict[Connection, BaseProcess] = {}
    try:
        resource_tracker.ensure_running()  # its own start, with the first process, would let signals through
        with held():  # a worker imports for seconds before it can ignore them
            for index in range(num_workers):
                connection, far_end = context.Pipe()
                process = context.Process(target=_serve, args=(far_end, function, set_up, index, at_once), daemon=True)
                process.start()
                far_end.close()  # so that the worker's death is the end of the pipe
                processes[connection] = process
        yield from _dispatch(tasks, processes, at_once)
    finally:
        for process in processes.values():
            process.kill()
        for connection, process in processes.items():
            process.join()
            connection.close()


def _dispatch(tasks: Iterable[Task], processes: dict[Connection, BaseProcess], at_once: int) -> Generator[Result]:
    numbered = enumerate(tasks)
    # each as often as it has room; the worker that was started first is ready first
    idle = [connection for _ in range(at_once) for connection in list(processes)[::-1]]
    most = max(TASKS_AHEAD, 2 * at_once) * len(processes)
    busy: dict[int, Connection] = {}
    done, following, exhausted = {}, 0, False
    while True:
        while idle and not exhausted and len(busy) + len(done) < most:
            number, task = next(numbered, (None, None))
            exhausted = number is None
            if number is not None:
                connection = idle.pop()
                busy[number] = connection
                with suppress(BrokenPipeError, ConnectionResetError):  # a dead worker is reported below
                    connection.send((number, task))
        if following in done:
            yield done.pop(following)
            following += 1
            continue  # with room for another task
        if not busy:
            return
        # typeshed names all that may be waited for, not what is
        for connection in cast("list[Connection]", wait(set(busy.values()))):
            number, result = _receive(connection, processes[connection])
            done[number] = result
            del busy[number]
            idle.append(connection)


def _receive(connection: Connection, process: BaseProcess) -> tuple[int, Result]:
    try:
        number, result, error = _received(connection)
    except (EOFError, OSError):  # before it has sent anything, or in the middle of it
        process.join()
        raise death_of_worker(process.exitcode) from None
    if error is not None:
        raise error
    return number, result


def _send(connection: Connection, outcome: object) -> None:
    """As `Connection.send`, but arrays, which are most of it, are sent from where they are."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    connection.send((data, [len(array) for array in arrays]))
    for array in arrays:
        connection.send_bytes(array)


def _received(connection: Connection) -> tuple:
    import numpy as np  # who only looks up what there is to do imports this module too

    data, sizes = connection.recv()
    arrays = [np.empty(size, np.uint8) for size in sizes]
    for array in arrays:
        if array.size:
            connection.recv_bytes_into(array.data)
        else:
            connection.recv_bytes()
    return pickle.loads(data, buffers=arrays)


def _serve(connection: Connection, function: Callable, set_up: Callable[[int], None], index: int, at_once: int) -> None:
    ignore()
    keep_memory(threads=at_once)
    set_up(index)
    sending = threading.Lock()

    def compute(number: int, task: object) -> None:
        try:
            outcome = number, function(task), None
        except CcsError as error:
            outcome = number, None, error
        except Exception:
            outcome = number, None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        with suppress(BrokenPipeError, ConnectionResetError), sending:
            _send(connection, outcome)

    def compute_or_end(number: int, task: object) -> None:
        try:
            compute(number, task)
        except BaseException:  # in a thread it would be lost, and the parent wait for ever
            traceback.print_exc()
            os._exit(1)

    with suppress(EOFError, ConnectionResetError):  # the parent is gone
        if at_once == 1:  # in this very thread, as signals and CUDA's contexts like it best
            while True:
                compute(*connection.recv())
        with ThreadPoolExecutor(at_once) as threads:
            while True:
                threads.submit(compute_or_end, *connection.recv())


def keep_memory(threads: int = 1) -> None:
    """Let glibc keep freed memory: what a step or a task frees the next one asks for again, and would get page by page.

    Where several threads make arrays, they share one arena: each by itself would come and go as they do.
    Measured by `benchmarks/train.py` with and without `--give-back`. Elsewhere than on glibc it does nothing.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-1, 2**31 - 1), (-2, 64 << 20), (-3, 32 << 20)):  # M_TRIM_, TOP_PAD, M_MMAP_THRESHOLD
            mallopt(parameter, value)
        if threads > 1:
            mallopt(-8, 1)  # M_ARENA_MAX
