"""From raw videos to the results of a two-stream action recognition network.

One module per rule of the workflow, named as the rule; each also runs alone: ``ccs <stage> --help``.
None of them is imported here, so that a stage loads (and depends on) only what it uses.
"""

import signal
import sys
import threading

__version__ = "0.2.0"

# Where this is the program, and no library of another's, Ctrl-C while it is being imported ends it without a traceback:
# by the system's own action, until `ccs.stage.run` takes over. Where it is ignored, as in the background, it stays so.
# Another thread cannot say what is done on a signal.
_started = sys.argv[0] if sys.argv else ""
if (
    threading.current_thread() is threading.main_thread()
    and (_started.endswith("/ccs") or (_started == "-m" and any(each.split(".")[0] == "ccs" for each in sys.orig_argv)))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
