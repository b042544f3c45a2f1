"""From raw videos to the results of a two-stream action recognition network.

One module per rule of the workflow, named as the rule; each also runs alone: ``ccs <stage> --help``.
None of them is imported here, so that a stage loads (and depends on) only what it uses.

As a library, see docs/python.md: `ccs.flow.estimate`, `ccs.Clips`, `ccs.load`, `ccs.predict`, `ccs.CCS`, and the errors
that they raise, `ccs.CcsError`; each is loaded when it is first asked for. All but the first and the last need PyTorch.
"""

import importlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccs import flow as flow
    from ccs.clips.dataset import Clips as Clips
    from ccs.models.network import CCS as CCS
    from ccs.prediction import load as load
    from ccs.prediction import predict as predict
    from ccs.stage import CcsError as CcsError

__version__ = "0.2.0"

_MODULES = {
    "flow": "ccs.flow",
    "Clips": "ccs.clips.dataset",
    "CCS": "ccs.models.network",
    "load": "ccs.prediction",
    "predict": "ccs.prediction",
    "CcsError": "ccs.stage",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'ccs' has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return module if name == "flow" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


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
