"""The surest mistakes of a run as one HTML page: what a video shows, how it moves, and what was made of it.

    ccs results results/runs/demo/split1/ccs --mistakes mistakes.html
    ccs mistakes --scores results/runs/demo/split1/ccs/seed*/scores.h5 --shards data/demo/shards/*.h5 --html page.html

A mistake is a test video of which RGB+Flow says another class than its label; the surer, the higher the probability of
that class. Each video stands there once, by the verdicts of the seed that is surest of its mistake. Pictures are frames
and flow from the training shards. The page is one file and loads nothing.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from ccs import scores
from ccs.flow.pictures import MIN_SCALE, colours
from ccs.flow.quantise import dequantise
from ccs.scores import STREAMS, Scores, Stream
from ccs.settings import Flags
from ccs.shards.reader import ShardReader
from ccs.stage import CcsError, atomic, run

NUMBER = 24  # of mistakes on a page
PICTURES = 6  # of a video, evenly over its length
HEIGHT = 132  # of a picture at most, in pixels
QUALITY = 85  # of its JPEG
TITLES: dict[Stream, str] = {"rgb": "RGB", "flow": "Flow", "fused": "RGB+Flow"}

_CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: #fff; color: #222;
  font: 15px/1.5 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .5rem; }
.intro { display: flex; gap: 1.5rem; align-items: flex-start; }
.intro p { margin: 0; max-width: 52rem; }
.intro img { width: 88px; flex: none; }
section { border-top: 1px solid #ddd; margin-top: 1.25rem; padding-top: 1rem; display: grid;
  grid-template-columns: 19rem 1fr; gap: 1.5rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.wrong { color: #b3261e; } .right { color: #1b6e3c; }
.video { color: #555; font-size: .87rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: #555; } td, th { padding: .15rem .5rem .15rem 0; vertical-align: top; }
td { overflow-wrap: anywhere; } td:last-child, th:last-child { padding-right: 0; }
td.share, th.share { text-align: right; white-space: nowrap; }
.strip { display: grid; grid-template-columns: repeat(6, 1fr); gap: 3px; align-self: start; }
.strip img { width: 100%; display: block; border-radius: 2px; outline: 1px solid #eee; outline-offset: -1px; }
@media (max-width: 60rem) { section { grid-template-columns: 1fr; gap: .75rem; } }
"""


class Mistake(NamedTuple):
    """A test video (its row in the scores) and the scores of the seed that is surest of its mistake."""

    row: int
    seed: Scores
    num_wrong: int  # of the seeds

    def verdict(self, stream: Stream) -> tuple[int, float, float]:
        """The best class by this stream, its probability and that of the label."""
        probability = scores.softmax(scores.logits(self.seed, stream)[self.row])
        best = int(np.argmax(scores.logits(self.seed, stream)[self.row]))
        return best, float(probability[best]), float(probability[self.seed.label[self.row]])


def surest(found: Sequence[Scores], number: int) -> tuple[list[Mistake], int]:
    """The `number` surest mistakes of a run's seeds, surest first, and how many videos some seed mistakes.

    Where a seed could not decode a video, it said nothing of it. Equal ones are in the order of the scores.

    Raises:
        CcsError: there are no labels, or seeds have other videos.
    """
    scores.check_same_videos(found)
    wrong_SN = np.stack([~scores.hits(each, "fused") & ~each.quarantined for each in found])
    sure_SN = np.stack([scores.softmax(scores.fuse(each)).max(axis=1) for each in found])
    sure_SN = np.where(wrong_SN, sure_SN, -1.0)
    order = np.argsort(-sure_SN.max(axis=0), kind="stable")
    rows = [int(row) for row in order if wrong_SN[:, row].any()]
    mistakes = [
        Mistake(row, found[int(sure_SN[:, row].argmax())], int(wrong_SN[:, row].sum())) for row in rows[:number]
    ]
    return mistakes, len(rows)


def page(found: Sequence[Scores], reader: ShardReader, number: int = NUMBER) -> str:
    """The page of a run's seeds; raises `CcsError` as `surest`, and where a video is not in the shards."""
    mistakes, num_all = surest(found, number)
    first = found[0]
    title = f"{first.run} on {first.dataset}, split {first.split}: its surest mistakes"
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_CSS}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", f"<h1>{escape(title)}</h1>"]
    lines += [f'<div class="intro"><p>{_introduction(found, len(mistakes), num_all)}</p>{_wheel()}</div>']
    lines += [_section(mistake, reader, len(found)) for mistake in mistakes]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _introduction(found: Sequence[Scores], num_shown: int, num_all: int) -> str:
    first, num_seeds = found[0], len(found)
    by = "" if num_seeds == 1 else f" by at least one of {num_seeds} seeds"
    accuracy = np.mean([scores.accuracy(each, "fused") for each in found])
    weights = " : ".join(f"{weight:g}" for weight in first.fusion)
    told = [
        f"{num_all:,} of {len(first.video):,} test videos are mistaken{by} (RGB+Flow, {weights}; accuracy "
        f"{accuracy:.1f} %)."
    ]
    if num_shown:
        told.append(
            ("Here they are" if num_shown == num_all else f"Here are {num_shown} of them")
            + ", the one whose wrong class has the highest probability first"
            + (", each with the verdicts of the seed that is surest of it." if num_seeds > 1 else ".")
        )
        told.append(
            "Above, frames from the beginning to the end; below each, its flow to the next frame: the hue is the "
            "direction, as in the wheel, and full colour the video's fastest motion."
        )
    if num_bad := int(np.all([each.quarantined for each in found], axis=0).sum()):
        told.append(f"{num_bad:,} more could not be decoded; they count as errors, and are not shown.")
    return " ".join(told)


def _section(mistake: Mistake, reader: ShardReader, num_seeds: int) -> str:
    seed, video = mistake.seed, mistake.seed.video[mistake.row]
    label, verdict = int(seed.label[mistake.row]), mistake.verdict("fused")[0]
    several = f"; wrong in {mistake.num_wrong} of {num_seeds} seeds, this is seed {seed.seed}" if num_seeds > 1 else ""
    rows = []
    for stream in STREAMS:
        best, share, of_label = mistake.verdict(stream)
        rows.append(
            f'<tr><th>{TITLES[stream]}</th><td class="{"right" if best == label else "wrong"}">'
            f'{escape(seed.classes[best])}</td><td class="share">{_percent(share)}</td>'
            f'<td class="share">{_percent(of_label)}</td></tr>'
        )
    return "\n".join(
        [
            "<section><div>",
            f'<h2><span class="right">{escape(seed.classes[label])}</span>, taken for '
            f'<span class="wrong">{escape(seed.classes[verdict])}</span></h2>',
            f'<p class="video">{escape(video)}{several}</p>',
            '<table><tr><th></th><th>says</th><th class="share">with</th><th class="share">to label</th></tr>',
            *rows,
            "</table></div>",
            '<div class="strip">',
            *_strip(video, reader),
            "</div></section>",
        ]
    )


def _strip(video: str, reader: ShardReader) -> Iterator[str]:
    """Frames of a video, then the flow from each of them to the next frame."""
    if video not in reader:
        raise CcsError(
            f"{video}: expected this test video in the training shards from {reader.paths[0]} on, found none of this "
            "id: give the shards of the data set that the scores are of, or evaluate the run again"
        )
    num_pairs = reader.num_frames[video] - 1
    places = np.rint(np.linspace(0, max(num_pairs - 1, 0), PICTURES)).astype(int).tolist()
    for place, frame in zip(places, reader.frames(video, places), strict=True):
        yield _image(frame, f"frame {place} of {num_pairs + 1}")
    flow = dequantise(reader.flow(video, places), reader.bound)
    for place, picture in zip(places, _flow_pictures(flow), strict=True):
        yield _image(picture, f"flow from frame {place} to frame {place + 1}")


def _flow_pictures(flow: np.ndarray) -> np.ndarray:
    """Colours, uint8 (n, H, W, 3), of flow (n, 2, H, W) in pixels; one scale, as films of flow have it."""
    speed = np.hypot(flow[:, 0], flow[:, 1])
    scale = max(float(np.percentile(speed, 99)), MIN_SCALE)
    # the square root lets slow motion show beside fast one
    length = np.sqrt(np.minimum(speed / scale, 1))
    return colours(flow * (length / np.maximum(speed, 1e-6))[:, None])


def _wheel() -> str:
    """A picture of the hues of all directions."""
    y, x = np.mgrid[-1:1:176j, -1:1:176j]
    motion = np.stack([x, y])[None] * (np.hypot(x, y) <= 1)
    return _image(colours(motion)[0], "the colours of directions", height=176)


def _image(picture: np.ndarray, what: str, height: int = HEIGHT) -> str:
    """An element that holds a picture, uint8 RGB (H, W, 3), made smaller where it is higher."""
    if picture.shape[0] > height:
        width = max(1, round(picture.shape[1] * height / picture.shape[0]))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), QUALITY, "RGB", "444")
    return f'<img alt="{what}" title="{what}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page of one run; raises `CcsError`."""
    parser = Flags(prog="ccs mistakes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scores", nargs="+", required=True, metavar="H5", help="scores.h5 of a run, one of each seed")
    parser.add_argument("--shards", nargs="+", required=True, metavar="H5", help="training shards of the data set")
    parser.add_argument(
        "--number", type=int, default=NUMBER, metavar="N", help="how many mistakes (default: %(default)s)"
    )
    parser.add_argument("--html", required=True, metavar="HTML", help="output: the page")
    args = parser.parse_args(argv)
    write(args.html, [scores.read(path) for path in args.scores], ShardReader(args.shards), args.number)


def write(path: str, found: Sequence[Scores], reader: ShardReader, number: int = NUMBER) -> None:
    """Write the page as one file, and say so; raises `CcsError`."""
    if number < 1:
        raise CcsError(f"--number: expected 1 or more, found {number}")
    text = page(found, reader, number)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    print(f"ccs: wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
