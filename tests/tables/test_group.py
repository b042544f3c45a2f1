"""What cannot stand in one table is refused, and --rows that say nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from ccs.stage import CcsError
from ccs.tables.__main__ import main

from .made_up import scores_with

ROWS = {"two_stream": "TSN, streams trained separately", "ccs": "CCS | TSN"}
CCS = scores_with((5, 6, 6), num_quarantined=1)
OTHER = dataclasses.replace(CCS, run="two_stream")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([CCS], "row 'TSN, streams trained separately': no scores of run 'two_stream'"),
        (
            [CCS, OTHER, dataclasses.replace(CCS, run="mine")],
            r"s2\.h5: run 'mine' has no row; expected one of two_stream",
        ),
        ([CCS, OTHER, CCS], r"s2\.h5: seed 0 of run 'ccs' on 'demo' split 1 is also in .*s0\.h5"),
        (
            [CCS, dataclasses.replace(OTHER, classes=("drink", "eat", "pull", "push"))],
            "same classes for dataset 'demo'",
        ),
        (
            [CCS, dataclasses.replace(OTHER, split=2, classes=("drink", "eat", "pull", "push"))],
            "same classes for dataset 'demo', found 4 and 4, of which number 3 is 'push' and 'pull'",
        ),
        ([CCS, scores_with((5, 6, 6), 24, 1, run="two_stream")], "same test videos .* found 20 and 24"),
        ([CCS, dataclasses.replace(OTHER, label=np.zeros(20, int))], "same labels for dataset 'demo', split 1"),
        ([CCS, scores_with((5, 6, 6), run="two_stream")], "same quarantined videos .* found 1 and 0"),
        ([CCS, OTHER, dataclasses.replace(CCS, seed=1, fusion=(1.0, 1.5))], "same fusion weights .* run 'ccs'"),
        (
            [CCS, OTHER, dataclasses.replace(CCS, seed=1, settings=CCS.settings | {"train": {"lr": 0.01}})],
            "same settings .* run 'ccs', .* number 2 is 'train.lr: 0.001' and 'train.lr: 0.01'",
        ),
        ([dataclasses.replace(s, dataset="UCF-101") for s in (CCS, OTHER)], "dataset 'UCF-101': .* rename the dataset"),
    ],
)
def test_what_cannot_stand_in_one_table_is_refused(build, tmp_path, files, message):
    with pytest.raises(CcsError, match=message):
        build("table1", *files, rows=ROWS)
    assert not (tmp_path / "t.csv").exists()
    assert not (tmp_path / "t.md").exists()


def test_other_runs_are_ignored_only_if_asked(build):
    csv, *_ = build("table1", CCS, OTHER, rows={"ccs": "CCS"}, flags=["--ignore-unlisted"])
    assert csv["method"].tolist()[:2] == ["CCS", "ConvNets+LSTM [5]"]


def test_videos_without_a_label_are_refused(build, tmp_path):
    scores = dataclasses.replace(CCS, label=np.where(np.arange(20) == 7, -1, CCS.label))
    with pytest.raises(CcsError, match=r"s0\.h5: expected a label for each of 20 test videos, found 1 without one"):
        build("table2", scores, rows={"ccs": "CCS"})


@pytest.mark.parametrize("table", ["table1", "table2", "table4"])
@pytest.mark.parametrize("rows", ["{", "[]", '{"ccs": 1}', '{"ccs": " "}', '{"TSN": {"ccs": "All"}}'])
def test_rows_that_are_no_mapping_of_labels_are_refused(table, rows):
    with pytest.raises(CcsError, match="--rows: expected a JSON object of run name to row label"):
        main([table, "--scores", "x.h5", "--rows", rows, "--output", "t.csv", "--markdown", "t.md"])


@pytest.mark.parametrize(
    "rows", ['{"ccs": "All"}', "{}", '{"TSN": {}}', '{" ": {"ccs": "All"}}', '{"TSN": {"ccs": 1}}']
)
def test_rows_of_table_3_that_have_no_groups_are_refused(rows):
    with pytest.raises(CcsError, match="--rows: expected a JSON object"):
        main(["table3", "--scores", "x.h5", "--rows", rows, "--output", "t.csv", "--markdown", "t.md"])


def test_as_a_program_it_says_what_is_wrong():
    command = "table1 --scores no.h5 --rows {} --output t.csv --markdown t.md"
    done = subprocess.run([sys.executable, "-m", "ccs.tables", *command.split()], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "ccs: error: no.h5: no such scores file; `python -m ccs.evaluate` writes it\n"
