"""Pages as Markdown (through pandas) and as one self-contained HTML file (through great_tables).

The HTML loads nothing: no fonts, scripts or pictures from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import pandas as pd
from great_tables import GT, html, loc, style

from ccs.tables.layout import Cell, Column, Page, PageTable, plain

_FONTS = ["-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MIN_WIDTH = 560
_NOTE = re.compile(r"\\(?P<plain>[^\w\s]|_)|\*\*(?P<bold>(?:\\.|[^\\])+?)\*\*|`(?P<code>[^`]+)`|[^\\*`]+|.")
_CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: #fff; color: #222;
  font: 15px/1.5 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .5rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 1.5rem 0 .5rem; }
ul { padding-left: 1.2rem; max-width: 60rem; }
li { margin: .25rem 0; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; }
summary { cursor: pointer; font-weight: 600; margin-top: 1.5rem; }
details dl { columns: 20rem; column-gap: 2rem; margin: .5rem 0; font-size: .87rem; }
details dl div { break-inside: avoid; display: flex; justify-content: space-between; gap: 1rem;
  border-bottom: 1px solid #eee; padding: .1rem 0; }
dt { color: #555; } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
td.gt_row { font-variant-numeric: tabular-nums; }
"""


def markdown(page: Page) -> str:
    """The page as Markdown, with a line end."""
    parts = [f"# {page.title}", *map(_markdown_panel, page.measured)]
    if page.measured:
        parts.append("How to read it:\n\n" + _bullets(page.reading))
    parts += [_markdown_panel(page.paper)] if page.paper else []
    return "\n\n".join(parts) + "\n"


def page_html(title: str, *body: str) -> str:
    """A whole HTML document with the page's style around fragments."""
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_CSS}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>"]
    return "\n".join([*lines, f"<h1>{escape(title)}</h1>", *body, "</body>", "</html>"]) + "\n"


def panels_html(page: Page) -> list[str]:
    """The page's tables and how to read them, as HTML fragments; the first page of the report takes `.measured`."""
    parts = []
    if page.measured:
        panels = [_html_panel(panel, f"measured{place}") for place, panel in enumerate(page.measured)]
        parts.append("\n".join(['<section class="measured">', *panels, "</section>"]))
        items = "".join(f"<li>{_rich(line)}</li>" for line in page.reading)
        parts.append(f"<h2>How to read it</h2>\n<ul>{items}</ul>")
    return [*parts, _html_panel(page.paper, "paper")] if page.paper else parts


def table_html(
    columns: Sequence[Column],
    groups: dict[str, list[list[str]]],
    *,
    name: str,
    even: bool = True,
    heading: str = "",
    notes: Sequence[str] = (),
    bold: Sequence[tuple[int, int]] = (),
) -> str:
    """A table by great_tables as an HTML fragment.

    groups: texts of cells, by row and name of the group. notes: HTML. bold: (row, column), rows counted over all
    groups. name: unlike that of any other table of the document. even: all columns of numbers have the same width.
    """
    keys = [f"c{j}" for j in range(len(columns))]
    rows = [row for lines in groups.values() for row in lines]
    frame = pd.DataFrame(rows, columns=keys, dtype=object)
    grouped = any(groups)
    if grouped:
        frame["group"] = [group for group, lines in groups.items() for _ in lines]
    table = GT(frame, id=name, groupname_col="group" if grouped else None)
    table = table.cols_label({key: html(escape(column.title)) for key, column in zip(keys, columns, strict=True)})
    words = [key for key, column in zip(keys, columns, strict=True) if column.words]
    table = table.cols_align("right").cols_align("left", words)
    for spanner in dict.fromkeys(column.spanner for column in columns if column.spanner):
        own = [key for key, column in zip(keys, columns, strict=True) if column.spanner == spanner]
        table = table.tab_spanner(html(escape(spanner)), own, id=f"{name}-{own[0]}")
    if even:
        table = table.cols_width(dict(zip(keys, _widths(columns, rows), strict=True)))
    if heading:
        table = table.tab_header(html(f"<strong>{escape(heading)}</strong>"))
    for j, key in enumerate(keys):
        best = [i for i, column in bold if column == j]
        if best:
            table = table.tab_style(style.text(weight="bold"), loc.body(key, best))
    for note in notes:
        table = table.tab_source_note(html(note))
    options = {
        "container_padding_x": "0px",
        "table_margin_left": "0px",
        "table_font_size": "14px",
        "heading_align": "left",
        "heading_title_font_size": "16px",
        "table_font_names": _FONTS,
        "column_labels_font_weight": "600",
        "row_group_font_weight": "600",
        "row_group_background_color": "#f4f4f4",
        "source_notes_font_size": "13px",
        "data_row_padding": "5px",
        "table_border_top_style": "none",
    }
    return table.tab_options(**options).as_raw_html()


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Widths that fit the longest text at the page's font size; words wrap where there are too many."""
    fitting = [9 * max(map(len, (column.title, *own))) + 14 for column, *own in zip(columns, *rows, strict=True)]
    sizes = [min(max(90, fit), 250) if column.words else 0 for column, fit in zip(columns, fitting, strict=True)]
    numbers = [fit for column, fit in zip(columns, fitting, strict=True) if not column.words]
    # no table narrower than its heading and notes can be read
    number = max(*numbers, (_MIN_WIDTH - sum(sizes)) // len(numbers))
    return [f"{size or number}px" for size in sizes]


def _html_panel(panel: PageTable, name: str) -> str:
    groups = {group: [[cell.text for cell in row] for row in rows] for group, rows in panel.groups.items()}
    bold, start = [], 0
    for rows in panel.groups.values():
        bold += [(start + i, j) for i, j in sorted(panel.best(rows))]
        start += len(rows)
    legend = [panel.legend] if panel.legend and panel.notes else []
    notes = [_rich(note) for note in [*legend, *panel.notes]]
    return table_html(panel.columns, groups, name=name, heading=panel.heading, notes=notes, bold=bold)


def _markdown_panel(panel: PageTable) -> str:
    parts = [f"## {plain(panel.heading)}"]
    for group, rows in panel.groups.items():
        parts += [f"### {plain(group)}"] if group else []
        parts.append(_markdown_table(panel.columns, rows, panel.best(rows)))
    if panel.notes:
        parts += [panel.legend] if panel.legend else []
        parts.append(_bullets(panel.notes))
    return "\n\n".join(parts)


def _markdown_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], bold: set[tuple[int, int]]) -> str:
    titles = [column.title for column in columns]
    # a spanner is told only where the title alone would not do
    names = [f"{c.spanner} {c.title}".strip() if titles.count(c.title) > 1 else c.title for c in columns]
    cells = [
        [f"**{plain(cell.text)}**" if (i, j) in bold else plain(cell.text) for j, cell in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    align = ["left" if column.words else "right" for column in columns]
    frame = pd.DataFrame(cells, columns=list(map(plain, names)))
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _rich(text: str) -> str:
    """A note as HTML: its **bold** and `code`, all else as it is."""
    return _NOTE.sub(_rich_part, text)


def _rich_part(found: re.Match[str]) -> str:
    if found["bold"]:
        return f"<strong>{_rich(found['bold'])}</strong>"
    if found["code"]:
        return f"<code>{escape(found['code'], quote=False)}</code>"
    return escape(found["plain"] or found[0], quote=False)
