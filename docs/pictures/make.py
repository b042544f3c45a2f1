"""Make the pictures of README.md and docs/ from a finished run of the demo: `python docs/pictures/make.py PROJECT`.

PROJECT is a directory in which `python benchmarks/demo.py --folder PROJECT --seeds 5 --target results/table3.csv` has
run. The picture of the report is that of PROJECT/results/report.html, where that is there and Chromium is installed;
else it stays as it is, which a line says. (The one here was made after tables 2 and 4, figures 5a and 5b and their runs
had been taken out of PROJECT/config.yaml and `num_classes: 0` of figure 1 put in, so that nothing had to be trained.)

It takes some minutes of a core, and on one machine gives the same bytes twice. The other modules: `videos` has frames,
flow and what a verdict relies on; `plots` what is counted; `house` how all is built; `files` how pictures are written.
"""

from __future__ import annotations

from pathlib import Path

import house
import plots
import report
import videos

from ccs.figures import style
from ccs.settings import Flags
from ccs.stage import CcsError, run


def main(argv: list[str] | None = None) -> None:
    """Write all pictures."""
    parser = Flags(prog="python docs/pictures/make.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("project", type=Path, help="directory of a finished run of the demo")
    project = parser.parse_args(argv).project
    runs = [f"results/runs/demo/split1/{name}/seed4/scores.h5" for name in ("two_stream", "cb", "cs", "ccs")]
    missing = [name for name in ["results/table3.csv", *runs] if not (project / name).is_file()]
    if missing:
        raise CcsError(
            f"{project}: expected a finished run of the demo with 5 seeds, found no {missing[0]}; make it with "
            f"python benchmarks/demo.py --folder {project} --seeds 5 --target results/table3.csv"
        )
    with style.applied():
        house.draw()
        plots.draw_curves(project)
        plots.draw_table(project)
        videos.draw_classes(project)
        videos.draw_overview(project)
        videos.draw_film(project)
    report.draw(project)


if __name__ == "__main__":
    run(main)
