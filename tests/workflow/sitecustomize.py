"""Stands in for the stages in the tests of the DAG: Python runs this first wherever this folder is on PYTHONPATH.

`python -m ccs.STAGE ...` then writes something new to each of its outputs instead of doing the work, and its command
line to commands.txt. All else runs as ever. So the rules and the digests of the real stages' code are under test, while
the stages' work is not done.
"""

import os
import sys

OUTPUTS = {
    "ccs.frames": ("--output", "--quarantine"),
    "ccs.quarantine": ("--output",),
    "ccs.lookalikes": ("--output",),
    "ccs.flow": ("--output",),
    "ccs.shards": ("--output",),
    "ccs.train": ("--checkpoint", "--history"),
    "ccs.evaluate": ("--output",),
    "ccs.submission": ("--output",),
    "ccs.figures.figure1": ("--svg", "--png", "--csv"),
    "ccs.tables.details": ("--html",),
    "ccs.tables": ("--output", "--markdown", "--html"),
}

arguments = sys.orig_argv
stage = arguments[arguments.index("-m") + 1] if "-m" in arguments else None
if stage in OUTPUTS:
    with open("commands.txt", "a") as commands:
        print(*arguments[arguments.index(stage) :], sep="\t", file=commands)
    if stage == os.environ.get("FAILING_STAGE"):
        sys.stderr.write("ccs: error: videos/jump/3.mp4: expected a video, found a poem\n")
        os._exit(1)
    if stage == os.environ.get("WARNING_STAGE"):
        sys.stderr.write("ccs: warning: two poems look alike\n")
    if stage == os.environ.get("WAITING_STAGE"):
        import signal
        import time

        def told(number, frame):
            with open("told.txt", "a") as file:
                print(signal.Signals(number).name, file=file)
            os._exit(75)

        signal.signal(signal.SIGTERM, told)
        sys.stderr.write("epoch 1/3: loss 2.1\nwork:  34%|###4      | 17/50 [00:12<00:24,  1.37batch/s]\n")
        with open("waiting.txt", "a") as file:
            print(os.getpid(), file=file)
        time.sleep(600)
    for flag in OUTPUTS[stage]:
        path = arguments[arguments.index(flag) + 1]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as output:
            print(stage, os.urandom(8).hex(), file=output)
    os._exit(0)
