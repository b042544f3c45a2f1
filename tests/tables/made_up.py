"""Scores made up so that the accuracies are known, and what the outputs say, read back."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

from ccs.scores import Scores

CLASSES = ("drink", "eat", "push", "pull")
VERSIONS = {"ccs": "0.1.0", "torch": "2.11.0", "flow": "native 0.1.0, Numba 0.68.1"}


def scores_with(correct: tuple[int, int, int], num_videos=20, num_quarantined=0, **changes) -> Scores:
    """Scores whose first `correct` readable videos are right for RGB, flow and fused, the others wrong."""
    logits = np.zeros((2, num_videos, 4), np.float32)
    for i in range(num_videos):
        rgb, flow, fused = (i - num_quarantined < count for count in correct)
        assert fused or not (rgb and flow)
        logits[:, i, i % 4] = 2
        # each stream errs towards another class, so that both may be wrong and their sum right
        sure = 3 if fused else 9
        logits[0, i, (i + 1) % 4] = 0 if rgb else sure
        logits[1, i, (i + 2) % 4] = 0 if flow else sure
    logits[:, :num_quarantined] = np.nan
    fields = {
        "video": tuple(f"v{i:03d}" for i in range(num_videos)),
        "label": np.arange(num_videos) % 4,
        "rgb": logits[0],
        "flow": logits[1],
        "quarantined": np.arange(num_videos) < num_quarantined,
        "dataset": "demo",
        "split": 1,
        "run": "ccs",
        "seed": 0,
        "classes": CLASSES,
        "settings": {"network": {"weights": "none"}, "train": {"lr": 0.001}},
        "fusion": (1.0, 1.0),
        "versions": VERSIONS,
    }
    return Scores(**(fields | changes))


def random_scores(num_videos=40, num_classes=8, seed=0, skill=1.0, **changes) -> Scores:
    """Scores of a network that is right now and then, the more so the greater `skill`."""
    label = np.arange(num_videos) % num_classes
    logits = np.random.default_rng([seed, num_videos]).normal(size=(2, num_videos, num_classes)).astype(np.float32)
    logits[:, np.arange(num_videos), label] += skill
    fields = {"label": label, "rgb": logits[0], "flow": logits[1], "seed": seed, "fusion": (1.0, 1.5)}
    classes = tuple(f"class {i}" for i in range(num_classes))
    return scores_with((0, 0, 0), num_videos, **(fields | {"classes": classes} | changes))


def scores_with_hits(hits: np.ndarray, **changes) -> Scores:
    """Scores of two classes that are right where `hits` (N) is true, in both streams."""
    label = np.zeros(len(hits), np.int64)
    logits = np.stack([hits, ~hits], axis=1).astype(np.float32)
    return scores_with(
        (0, 0, 0), len(hits), **({"label": label, "rgb": logits, "flow": logits, "classes": ("a", "b")} | changes)
    )


def unescaped(markdown: str) -> str:
    """Markdown's text, its own markup apart: a backslash before punctuation is not shown."""
    return re.sub(r"\\([^\w\s]|_)", r"\1", markdown)


def parse_markdown(markdown: str, heading: str) -> list[dict[str, str]]:
    """The table below the first heading that starts with `heading`."""
    section = next(part for part in re.split(r"^#+ ", markdown, flags=re.M) if part.startswith(heading))
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[unescaped(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


class Html(HTMLParser):
    """What an HTML page holds: `text`, the cells of its tables by row, bold cells, and what it would load."""

    VOID = ("meta", "br", "hr", "img", "link", "input", "col")

    def __init__(self, page: str):
        super().__init__()
        self.text, self.rows, self.bold, self.open, self.loads, self.tags = "", [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == [], "tags left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.bold += (
                [(len(self.rows) - 1, len(self.rows[-1]) - 1)] if "bold" in dict(attrs).get("style", "") else []
            )

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data.strip("\n")

    def bold_cells(self) -> list[str]:
        return [self.rows[i][j] for i, j in self.bold]
