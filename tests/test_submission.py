"""The file for the benchmark's server."""

from __future__ import annotations

import numpy as np
import pytest

from ccs import scores, submission
from ccs.stage import CcsError


def made_up(path, num_classes=7):
    rng = np.random.default_rng(0)
    rgb, flow = rng.normal(size=(2, 4, num_classes)).astype(np.float32)
    rgb[2] = flow[2] = np.nan
    rgb[3] = flow[3] = 0  # all equal
    result = scores.Scores(
        video=("12", "7", "8", "9"),
        label=np.full(4, -1),
        rgb=rgb,
        flow=flow,
        quarantined=np.array([False, False, True, False]),
        dataset="something_v2",
        split=1,
        run="trn",
        seed=0,
        classes=tuple(f"class {c}" for c in range(num_classes)),
        settings={},
        fusion=(1.0, 2.0),
        versions={},
    )
    scores.write(path, result)
    return rgb + 2 * flow


def test_a_line_has_the_five_best_labels_best_first(tmp_path):
    fused = made_up(tmp_path / "unlabelled.h5")
    submission.main(["--scores", str(tmp_path / "unlabelled.h5"), "--output", str(tmp_path / "predictions.csv")])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    for line, video, row in zip(lines[:2], ("12", "7"), fused[:2], strict=True):
        ranked = sorted(range(7), key=lambda label: -row[label])
        assert line == ";".join([video, *map(str, ranked[:5])])
    assert lines[2:] == ["8;0;1;2;3;4", "9;0;1;2;3;4"]


def test_fewer_classes_than_are_asked_for_are_refused(tmp_path):
    made_up(tmp_path / "unlabelled.h5", num_classes=4)
    with pytest.raises(CcsError, match="expected 5 classes or more, found 4"):
        submission.main(["--scores", str(tmp_path / "unlabelled.h5"), "--output", str(tmp_path / "predictions.csv")])
