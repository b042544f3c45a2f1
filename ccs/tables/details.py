r"""What a table or a figure was made with: settings, versions, seeds and fusion weights of its runs, as HTML.

    python -m ccs.tables.details --scores results/runs/demo/split1/*/seed*/scores.h5 \
        --rows '{"two_stream": "TSN", "ccs": "CCS + TSN"}' --title figure5a --html figure5a.details.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ccs.scores import Scores
from ccs.settings import Flags
from ccs.stage import atomic, run
from ccs.tables.layout import Column, fusion_weights
from ccs.tables.measurements import TestSplit, flat, group
from ccs.tables.render import page_html, table_html
from ccs.tables.rows import parse, run_labels


def details(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> str:
    """The settings and versions of every run on every test split as a block that opens on a click."""
    return f"<details>\n<summary>Settings and versions</summary>\n{fragment(tests, rows)}\n</details>"


def fragment(tests: Sequence[TestSplit], rows: Mapping[str, str]) -> str:
    """What all runs share, once, then a row for each run with what differs. rows: run name -> row label."""
    runs = [(test, name, seeds) for test in tests for name, seeds in test.runs.items()]
    settings = [_settings(seeds[0]) for _, _, seeds in runs]
    versions = [_versions(seeds) for _, _, seeds in runs]
    same_settings, own_settings = _shared(settings)
    same_versions, own_versions = _shared(versions)
    lines = []
    for (test, name, seeds), *own in zip(runs, own_settings, own_versions, strict=True):
        differing = "; ".join(f"{key}: {value}" for part in own for key, value in part.items())
        listed = ", ".join(str(scores.seed) for scores in seeds)
        lines.append([test.column, rows[name], name, listed, fusion_weights(seeds[0]), differing or "nothing"])
    titles = ("Data", "Method", "Run", "Seeds", "RGB : flow", "What differs between runs")
    return "\n".join(
        [
            _list("Versions", same_versions),
            "<h2>Runs</h2>",
            table_html([Column(title, words=True) for title in titles], {"": lines}, name="runs", even=False),
            _list("Settings of all runs", same_settings),
        ]
    )


def _settings(scores: Scores) -> dict[str, str]:
    """Each setting as text; of files of weights the name: where they lie is nobody's concern."""
    found = {}
    for name, value in flat(scores.settings):
        text = _text(value)
        found[name] = Path(text).name if name.split(".")[-1].startswith("weights") else text
    return found


def _versions(seeds: Sequence[Scores]) -> dict[str, str]:
    """The versions behind a run; where its seeds have different ones, all of them."""
    names = sorted({name for scores in seeds for name in scores.versions})
    return {
        name: " / ".join(dict.fromkeys(scores.versions[name] for scores in seeds if name in scores.versions))
        for name in names
    }


def _shared(each: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What all have alike, and what each has besides."""
    same = {name: value for name, value in each[0].items() if all(one.get(name) == value for one in each)}
    return same, [{name: value for name, value in one.items() if name not in same} for one in each]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _list(title: str, pairs: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items())
    return f"<h2>{title}</h2>\n<dl>{items}</dl>" if items else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the settings and versions of runs as an HTML page."""
    parser = Flags(prog="python -m ccs.tables.details", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores files written by evaluate")
    parser.add_argument("--rows", required=True, metavar="JSON", help="run name -> label, in groups or not")
    parser.add_argument("--title", required=True, help="what was made with them, e.g. figure5a")
    parser.add_argument("--html", required=True, help="output: the page")
    args = parser.parse_args(argv)

    rows = run_labels(parse(args.rows))
    title = f"{args.title}: settings and versions"
    with atomic(args.html) as part:
        part.write_text(page_html(title, fragment(group(args.scores, rows), rows)), encoding="utf-8")
    print(f"ccs: wrote {args.html}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
