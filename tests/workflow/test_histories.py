"""Which histories the curves of a run are drawn of, and what draws them again."""

from __future__ import annotations

import os

import pytest

from ccs.figures.histories import COLUMNS

CURVES = {run: f"results/figures/curves/{run}.svg" for run in ("two_stream", "ccs")}


def history(run, seed=0):
    return f"results/runs/mine/split1/{run}/seed{seed}/history.csv"


@pytest.fixture
def drawn(project):
    """A project whose histories are whole, though not from a training, and whose curves are drawn."""
    for run in CURVES:
        path = project.path / history(run)
        written = path.stat().st_mtime_ns
        path.write_text(f"{','.join(COLUMNS)}\n1,{','.join(['0.5'] * (len(COLUMNS) - 1))}\n")
        os.utime(path, ns=(written, written))
    project.run(*CURVES.values())
    return project


@pytest.mark.slow
def test_histories_and_their_own_code_draw_curves_again_and_nothing_else_does(drawn):
    scores = drawn.path / history("ccs").replace("history.csv", "scores.h5")
    scores.touch()
    drawn.configure({"evaluate.crops": 10, "tables.table1.rows": {"ccs": "ours", "two_stream": "theirs"}})
    with (
        open(drawn.path / "ccs/figures/bars.py", "a") as other,
        open(drawn.path / "ccs/models/losses.py", "a") as losses,
    ):
        print("EXTRA = 1", file=other)
        print("# a comment", file=losses)
    assert drawn.plan(*CURVES.values()) == {}

    path = drawn.path / history("ccs")
    path.write_text(path.read_text().replace("0.5", "0.25"))
    assert drawn.plan(*CURVES.values()) == {"curves": {CURVES["ccs"]}}
    with open(drawn.path / "ccs/figures/histories.py", "a") as code:
        print("EXTRA = 1", file=code)
    assert drawn.plan(*CURVES.values()) == {"curves": set(CURVES.values())}


def test_all_draws_every_run_that_is_shown_and_trains_nothing_for_it(project):
    """Figure 6 needs one seed of its run only; a run that nothing shows is trained when its curves are asked for."""
    rows = {"rows": {"two_stream": "Two-stream"}}
    changes = {"tables.table1": rows, "figures.figure6": {"run": "ccs"}, "runs.other": {}, "seeds": [0, 1]}
    project.configure(changes)
    plan = project.plan("all")
    assert plan["curves"] == set(CURVES.values())
    trained = {file.replace("checkpoint.pt", "history.csv") for file in plan["train"]}
    assert trained == {history("two_stream", 1)}
    trained = project.plan("results/figures/curves/other.svg")["train"]
    assert trained == {history("other", seed).replace("history.csv", "checkpoint.pt") for seed in (0, 1)}
