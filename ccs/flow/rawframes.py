"""Lists of what `ccs flow --format jpg` has written, as mmaction2 and TSN read them: `VIDEO num_frames label`.

The files have the names and numbers that mmaction2's documentation has for "rawframes": CLASS/VIDEO/img_00001.jpg,
flow_x_00001.jpg, flow_y_00001.jpg (its tools/data/build_file_list.py counts them for these lists, of frames and of
pairs apart). Labels are whole numbers from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ccs.flow.formats import has_frames, read_record
from ccs.flow.jobs import Job
from ccs.flow.sources import Source
from ccs.stage import CcsError, atomic

RGB, FLOW, CLASSES = "rgb_list.txt", "flow_list.txt", "classes.txt"


class Labels(NamedTuple):
    """The label of each output, by its name, and the classes that they count, where a list does not number them."""

    numbers: dict[str, int]
    classes: list[str]


def labels(sources: Sequence[Source]) -> Labels:
    """The labels of a list, or else those of the classes: labels that are names, or the folders that videos are in.

    Raises `CcsError` where an output has no class, or a name that such a list cannot hold.
    """
    if blank := next((source for source in sources if re.search(r"\s", source.name)), None):
        raise CcsError(
            f"--lists: {blank.path}: its output {blank.name!r} has a blank in its name, and these lists part what they "
            "say by blanks: rename it, or leave out --lists"
        )
    if all(source.label and source.label.isdecimal() for source in sources):
        return Labels({source.name: int(source.label or 0) for source in sources}, [])
    classes = {source.name: source.label or os.path.basename(os.path.dirname(source.name)) for source in sources}
    if none := next((source for source in sources if not classes[source.name]), None):
        raise CcsError(
            f"--lists: {none.path}: expected a class, which is its label in a list or the folder that it is in, found "
            "none: give a list with labels, or a directory CLASS/VIDEO above it (--root)"
        )
    names = sorted(set(classes.values()))
    return Labels({name: names.index(label) for name, label in classes.items()}, names)


def write_lists(jobs: Sequence[Job], output: Path, labels: Labels) -> None:
    """Write the lists of these outputs, which are whole, into the directory `output`."""
    found = ((job.source.name, read_record(job.path)) for job in jobs)
    records = [(name, record) for name, record in found if record]
    flow = [f"{name} {record['num_pairs']} {labels.numbers[name]}" for name, record in records]
    rgb = [f"{name} {record['num_frames']} {labels.numbers[name]}" for name, record in records if has_frames(record)]
    for file, lines in ((FLOW, flow), (RGB, rgb), (CLASSES, labels.classes)):
        if lines:
            with atomic(output / file) as part:
                part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
