"""Write the schema of the configuration and the page of all settings: `python -m ccs.config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ccs.config.pages import PAGE, SCHEMA, page, schema
from ccs.settings import Flags
from ccs.stage import atomic, run


def main(argv: Sequence[str] | None = None) -> None:
    """Write both files of this checkout."""
    Flags(prog="python -m ccs.config", description=__doc__.split(":")[0]).parse_args(argv)
    for path, text in ((SCHEMA, json.dumps(schema(), indent=2) + "\n"), (PAGE, page())):
        with atomic(path) as part:
            part.write_text(text, encoding="utf-8")
        print(f"ccs: wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
