"""One table, the paper's with our numbers in it or ours alone, as CSV, Markdown and HTML: `python -m ccs.tables`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ccs.settings import Flags
from ccs.stage import atomic, run
from ccs.tables import shown
from ccs.tables.details import details
from ccs.tables.measurements import group
from ccs.tables.render import markdown, page_html, panels_html
from ccs.tables.rows import flat_rows, grouped_rows, run_labels


def main(argv: Sequence[str] | None = None) -> None:
    """Write one table as CSV, Markdown and HTML, and print the Markdown on standard output."""
    parser = Flags(prog="python -m ccs.tables", description=(__doc__ or "").split(":")[0] + ".")
    tables = shown.tables()
    parser.add_argument("table", choices=tables, help="which table; accuracy is Table 1 without the paper's rows")
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores files written by evaluate")
    parser.add_argument(
        "--rows",
        required=True,
        metavar="JSON",
        help="run name -> row label, in the order of the rows; for table3 base model -> run name -> row label, the "
        "baseline first",
    )
    parser.add_argument("--ignore-unlisted", action="store_true", help="skip scores of runs that have no row")
    parser.add_argument("--output", required=True, metavar="CSV", help="output: the table for programs")
    parser.add_argument("--markdown", required=True, metavar="MD", help="output: the table for reading")
    parser.add_argument("--html", metavar="HTML", help="output: the table as a web page, with settings and versions")
    args = parser.parse_args(argv)

    module = tables[args.table]
    rows = grouped_rows(args.rows) if issubclass(module.Shown, shown.Groups) else flat_rows(args.rows)
    tests = group(args.scores, run_labels(rows), ignore_unlisted=args.ignore_unlisted)
    csv, page = module.table(tests, rows)
    text = markdown(page)
    with atomic(args.output) as part:
        csv.to_csv(part, index=False, lineterminator="\n")
    with atomic(args.markdown) as part:
        part.write_text(text, encoding="utf-8")
    written = [args.output, args.markdown]
    if args.html:
        blocks = [*panels_html(page), *([details(tests, run_labels(rows))] if tests else [])]
        with atomic(args.html) as part:
            part.write_text(page_html(page.title, *blocks), encoding="utf-8")
        written.append(args.html)
    print(text, end="")
    print(f"ccs: wrote {', '.join(written[:-1])} and {written[-1]}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
