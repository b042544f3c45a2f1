"""Confusion against counting by hand, the choice of classes against all choices, and what is drawn against the CSV."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ccs.figures.figure1 import __main__ as figure1
from ccs.figures.matrices import cell_text
from ccs.provenance import modules
from ccs.scores import logits
from ccs.stage import CcsError

ROWS = {"two_stream": "TSN, streams trained separately"}
STREAMS = {"RGB": "rgb", "Flow": "flow", "RGB+Flow": "fused"}


def share(seeds, stream, true, predicted) -> float:
    """Per cent of the class `true` taken for one of `predicted` (None: quarantined), by counting."""
    count = total = 0
    for scores in seeds:
        for i in range(len(scores.video)):
            if scores.label[i] != true:
                continue
            total += 1
            row = logits(scores, stream)[i]
            best = None
            if not scores.quarantined[i]:
                best = 0
                for c in range(1, len(row)):
                    if row[c] > row[best]:
                        best = c
            count += best in predicted
    return 100 * count / total


def test_percentages_are_what_counting_gives(make_scores, draw):
    seeds = [make_scores(seed=seed, num_quarantined=4) for seed in range(3)]
    drawn = draw(figure1, seeds, ROWS, "--num-classes", "3")
    csv = drawn.csv
    names = list(dict.fromkeys(csv["true class"]))
    index = {name: seeds[0].classes.index(name) for name in names}
    rest = {*range(5), None} - set(index.values())
    assert len(csv) == 3 * 3 * 4
    for _, row in csv.iterrows():
        predicted = rest if row["predicted class"] == "other" else {index[row["predicted class"]]}
        expected = share(seeds, STREAMS[row["stream"]], index[row["true class"]], predicted)
        assert float(row["percent"]) == pytest.approx(expected, abs=1e-4)
    assert set(csv["seeds"]) == {"3"}
    assert set(csv["test videos"]) == {"6"}
    assert figure1._num_classes("0") is figure1._num_classes("all") is None
    assert "4 of 30 test videos could not be decoded" in drawn.note


def test_chosen_classes_are_the_most_confused(make_scores):
    for seed in range(20):
        seeds = [make_scores(num_classes=6, per_class=4, seed=seed)]
        rates = [figure1.confusion(seeds, stream)[:, :-1] for stream in ("rgb", "flow")]

        def confused(a, b, seeds=seeds):
            return sum(share(seeds, s, a, {b}) + share(seeds, s, b, {a}) for s in ("rgb", "flow"))

        values = {pair: round(confused(*pair), 6) for pair in itertools.combinations(range(6), 2)}
        pair = next(p for p in sorted(values) if values[p] == max(values.values()))
        chosen = list(pair)
        for _ in range(2):
            left = {c: round(sum(values[min(c, d), max(c, d)] for d in chosen), 5) for c in {*range(6)} - {*chosen}}
            chosen.append(min(c for c in left if left[c] == max(left.values())))
        assert figure1.most_confused(rates, 4) == chosen
    assert figure1.most_confused([np.zeros((4, 4))], 3) == [0, 1, 2]  # ties: the order of the classes


def test_fusing_has_no_say_and_untested_classes_are_not_chosen(make_scores, draw):
    scores = make_scores(num_classes=4, per_class=5, fusion=(1.0, 0.0), classes=("a", "b", "c", "other"))
    label = np.where(scores.label == 3, 2, scores.label)  # no test video of class "other"
    drawn = draw(figure1, [make_scores(num_classes=4, per_class=5, label=label, classes=scores.classes)], ROWS)
    assert list(dict.fromkeys(drawn.csv["true class"])) == ["a", "b", "c"]
    assert set(drawn.csv["predicted class"]) == {"a", "b", "c", "any other class"}
    assert "1 class without test videos is not shown" in drawn.note


def test_cells_of_the_drawing_are_those_of_the_csv(make_scores, draw):
    drawn = draw(figure1, [make_scores(seed=seed, num_quarantined=1) for seed in range(2)], ROWS)
    cells = [cell_text(float(percent)) for percent in drawn.csv["percent"]]
    texts = drawn.texts
    numbers = [t for t in texts if t.strip("<>").isdecimal()]
    colour_bar = ["0", "20", "40", "60", "80", "100"]
    assert sorted(numbers) == sorted(cells + colour_bar)
    for name in set(drawn.csv["predicted class"]):
        assert texts.count(name) == (3 if name == "other" else 4)
    assert [t for t in texts if t in STREAMS] == list(STREAMS)
    assert "demo, split 1: 30 test videos of 5 classes" in texts
    assert "TSN, streams trained separately, mean over 2 seeds." in drawn.note
    assert "most confused pair" in drawn.note


def test_quarantined_videos_are_other(make_scores, draw):
    perfect = make_scores(num_classes=3, per_class=4)
    right = np.eye(3, dtype=np.float32)[perfect.label] * 9
    right[[0, 3]] = np.nan  # two of class a's four
    quarantined = np.isnan(right[:, 0])
    drawn = draw(
        figure1, [make_scores(num_classes=3, per_class=4, rgb=right, flow=right, quarantined=quarantined)], ROWS
    )
    cells = drawn.csv.set_index(["stream", "true class", "predicted class"])["percent"].astype(float)
    for stream in STREAMS:
        assert cells[stream, "class 0", "other"] == 50
        assert cells[stream, "class 0", "class 0"] == 50
        assert cells[stream, "class 1", "other"] == 0


def test_all_classes_without_numbers(make_scores, draw):
    drawn = draw(figure1, [make_scores(num_classes=40, per_class=2)], ROWS, "--num-classes", "all")
    assert len(drawn.csv) == 3 * 40 * 41
    assert set(drawn.csv["classes shown"]) == {"all"}
    assert "other" not in drawn.texts  # nothing is in it
    bar = {"0", "1", "5", "10", "20", "40", "60", "80", "100"}
    assert {t for t in drawn.texts if t.isdecimal()} == bar
    assert "most confused" not in drawn.note


def test_a_row_of_matrices_for_each_data_set(make_scores, draw):
    many = [make_scores(dataset=name, num_classes=2, per_class=3) for name in "abcdefgh"]
    drawn = draw(figure1, many, ROWS)
    assert drawn.texts.count("RGB+Flow") == 6
    assert set(drawn.csv["dataset"]) == set("abcdefgh")
    assert "Not drawn, in the CSV only: g split 1, h split 1." in drawn.note


@pytest.mark.parametrize(
    ("percent", "text"), [(0, "0"), (0.3, "<1"), (0.6, "1"), (49.6, "50"), (99.4, "99"), (99.7, ">99"), (100, "100")]
)
def test_cell_text(percent, text):
    assert cell_text(percent) == text


def test_errors_say_what_to_do(make_scores, draw):
    one = make_scores()
    with pytest.raises(CcsError, match="run 'two_stream' has no row; expected one of ccs"):
        draw(figure1, [one], {"ccs": "CCS"})
    with pytest.raises(CcsError, match="expected one run, found 2"):
        draw(figure1, [one], {"two_stream": "a", "ccs": "b"})
    with pytest.raises(CcsError, match="--num-classes: expected 2 or more"):
        draw(figure1, [one], ROWS, "--num-classes", "1")
    with pytest.raises(CcsError, match="--rows: expected a JSON object of run name to row label"):
        draw(figure1, [one], "two_stream")
    with pytest.raises(CcsError, match="label"):
        draw(figure1, [make_scores(label=np.full(30, -1))], ROWS)


def test_code_of_the_network_is_not_the_figures():
    for figure in ("figure1", "figure5a", "figure5b"):
        assert not [
            m for m in modules(f"ccs.figures.{figure}") if m.startswith(("ccs.models", "ccs.train", "ccs.flow"))
        ]
