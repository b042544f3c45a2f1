"""Worker processes whose results come back in order, and which never outlive or hang their parent.

`multiprocessing.Pool` waits for ever for a worker that was killed; `concurrent.futures` waits for running tasks before
it lets an interrupted program end. A task here may take many seconds and gigabytes, so both happen.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Generator, Iterable
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


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int, set_up: Callable[[int], None]
) -> Generator[Result]:
    """Yield `function(task)` for each task, in order, computed in `num_workers` fresh processes.

    Args:
        function, set_up: picklable by name; a worker calls `set_up(index)` once, before its first task.
        tasks: read lazily, a few ahead of what has been yielded.
        num_workers: processes, >= 1.

    Raises:
        CcsError: as `function` raised it, or because a worker died.
        RuntimeError: `function` raised anything else; the message holds the worker's traceback.

    Close the generator (`contextlib.closing`) to kill the workers early; an exception in it does so too.
    """
    # spawn: a fork would copy the parent's threads and locks (HDF5, OpenCV, tqdm), and CUDA does not survive one
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}
    try:
        resource_tracker.ensure_running()  # its own start, with the first process, would let signals through
        with held():  # a worker imports for seconds before it can ignore them
            for index in range(num_workers):
                connection, far_end = context.Pipe()
                process = context.Process(target=_serve, args=(far_end, function, set_up, index), daemon=True)
                process.start()
                far_end.close()  # so that the worker's death is the end of the pipe
                processes[connection] = process
        yield from _dispatch(tasks, processes)
    finally:
        for process in processes.values():
            process.kill()
        for connection, process in processes.items():
            process.join()
            connection.close()


def _dispatch(tasks: Iterable[Task], processes: dict[Connection, BaseProcess]) -> Generator[Result]:
    numbered = enumerate(tasks)
    # the worker that was started first is ready first
    idle, busy, done, following, exhausted = list(processes)[::-1], {}, {}, 0, False
    while True:
        while idle and not exhausted and len(busy) + len(done) < TASKS_AHEAD * len(processes):
            number, task = next(numbered, (None, None))
            exhausted = number is None
            if not exhausted:
                connection = idle.pop()
                busy[connection] = number
                with suppress(BrokenPipeError, ConnectionResetError):  # a dead worker is reported below
                    connection.send(task)
        if following in done:
            yield done.pop(following)
            following += 1
            continue  # with room for another task
        if not busy:
            return
        # typeshed names all that may be waited for, not what is
        for connection in cast("list[Connection]", wait(list(busy))):
            done[busy.pop(connection)] = _receive(connection, processes[connection])
            idle.append(connection)


def _receive(connection: Connection, process: BaseProcess) -> Result:
    try:
        result, error = connection.recv()
    except (EOFError, OSError):  # before it has sent anything, or in the middle of it
        process.join()
        raise death_of_worker(process.exitcode) from None
    if error is not None:
        raise error
    return result


def _serve(connection: Connection, function: Callable, set_up: Callable[[int], None], index: int) -> None:
    ignore()
    set_up(index)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        while True:
            task = connection.recv()
            try:
                outcome = function(task), None
            except CcsError as error:
                outcome = None, error
            except Exception:
                outcome = None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
            connection.send(outcome)
