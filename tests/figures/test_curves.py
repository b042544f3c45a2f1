"""Curves against pandas, panels that are there or not, what the lines and marks stand for, and refusals."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ccs.figures import curves, style
from ccs.figures.histories import group, read
from ccs.stage import CcsError
from ccs.train import history

LOSSES = ["loss", "loss_triplet", "loss_embedding", "loss_cross_entropy", "active_triplets"]
VALIDATION = ["val_rgb", "val_flow", "val_fused"]


def made_up(num_epochs, seed=0, *, steps=(), ranking=True, validation=True, gpu=False):
    """Numbers of a training, none of them true. steps: epochs after which the learning rate is a tenth."""
    random = np.random.default_rng([num_epochs, seed])
    rows = pd.DataFrame({"epoch": range(1, num_epochs + 1)})
    rows["lr"] = [0.03 * 0.1 ** sum(epoch > step for step in steps) for epoch in rows["epoch"]]
    for name in LOSSES:
        rows[name] = random.uniform(0.1, 1, num_epochs).round(6)
    if not ranking:
        rows[["loss_triplet", "loss_embedding", "active_triplets"]] = 0.0
        rows["loss_cross_entropy"] = rows["loss"]
    for name in ("train_rgb", "train_flow", *VALIDATION):
        rows[name] = random.uniform(0, 100, num_epochs).round(6)
    if not validation:
        rows[VALIDATION] = np.nan
    rows["clips_per_second"], rows["waiting"] = random.uniform(50, 60, num_epochs), random.uniform(0, 1, num_epochs)
    rows["memory_mb"], rows["gpu_memory_mb"] = random.uniform(1000, 2000, num_epochs), 5120.0 if gpu else np.nan
    return rows


@pytest.fixture
def write(tmp_path):
    """Write a history where training would."""

    def call(rows, dataset="demo", split=1, run="ccs", seed=0) -> Path:
        path = tmp_path / f"runs/{dataset}/split{split}/{run}/seed{seed}/history.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(path, index=False)
        return path

    return call


@pytest.fixture
def draw(tmp_path):
    """Draw histories; the texts of the SVG in the order of drawing, and the CSV."""

    def call(paths, run="ccs"):
        outputs = {kind: str(tmp_path / f"out/{run}.{kind}") for kind in ("svg", "png", "csv")}
        flags = [word for kind, path in outputs.items() for word in (f"--{kind}", path)]
        curves.main(["--run", run, "--histories", *map(str, paths), *flags])
        tree = ElementTree.parse(outputs["svg"])
        texts = ["".join(text.itertext()).strip() for text in tree.iter("{http://www.w3.org/2000/svg}text")]
        pixels = imread(outputs["png"])
        assert all((edge == 1).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))  # nothing is cut
        return texts, pd.read_csv(outputs["csv"])

    return call


def panel(figure, column, place=0):
    """The axes of the panel whose first line is this column of the histories."""
    (axes,) = [axes for axes in figure.axes if axes.get_gid() == f"{column}-{place}"]
    return axes


def lines(axes, linewidth):
    """Points of the lines so thick, without the marks that are as high as the axes."""
    return [
        line.get_xydata() for line in axes.lines if line.get_linewidth() == linewidth and line.get_linestyle() != ":"
    ]


def figure_of(paths, run="ccs"):
    tests = group(read(path, run) for path in paths)
    with style.applied():
        return curves.draw(tests, run, curves.sentences(tests))


def test_numbers_are_those_of_the_histories_and_their_means(write, draw):
    lengths = {("demo", 1): (12, 15, 14), ("demo", 2): (15,), ("hmdb51", 1): (15, 15)}
    given = {
        (*place, seed): made_up(length, seed + place[1], steps=range(1, 9), gpu=place[0] == "hmdb51")
        for place, seeds in lengths.items()
        for seed, length in enumerate(seeds)
    }
    paths = [write(rows, *place[:2], seed=place[2]) for place, rows in given.items()]
    _, table = draw(paths)
    every = pd.concat(
        [rows.assign(dataset=dataset, split=split, seed=seed) for (dataset, split, seed), rows in given.items()]
    )
    order = ["dataset", "split", "epoch"]

    seeds = table[table["seed"] != "mean"].drop(columns="run").astype({"seed": int})
    assert set(table["run"]) == {"ccs"}
    pd.testing.assert_frame_equal(
        seeds.sort_values([*order, "seed"]).reset_index(drop=True),
        every.sort_values([*order, "seed"]).reset_index(drop=True),
        check_like=True,
    )
    # only epochs that all seeds have, so that the mean never jumps where one ends
    counts = every.groupby(order)["seed"].transform("size")
    num_seeds = every.groupby(["dataset", "split"])["seed"].transform("nunique")
    means = every[counts == num_seeds].groupby(order).mean().drop(columns="seed")
    drawn = table[table["seed"] == "mean"].set_index(order).drop(columns=["run", "seed"]).sort_index()
    assert len(drawn) == 12 + 15 + 15
    pd.testing.assert_frame_equal(drawn, means, check_like=True, rtol=0, atol=1e-6)
    assert drawn["lr"].to_numpy() == pytest.approx(means["lr"].to_numpy(), rel=1e-6)


@pytest.mark.parametrize(
    ("column", "place", "factor"),
    [
        ("loss", ("loss", 0), 1),
        ("loss_embedding", ("loss_triplet", 1), 1),
        ("active_triplets", ("active_triplets", 0), 100),
        ("val_flow", ("val_flow", 0), 1),
        ("train_flow", ("val_flow", 1), 1),
        ("val_fused", ("val_fused", 0), 1),
        ("waiting", ("waiting", 0), 100),
        ("gpu_memory_mb", ("memory_mb", 1), 1 / 1024),
    ],
)
def test_lines_are_the_numbers(write, column, place, factor):
    given = [made_up(20, seed, gpu=True) for seed in range(3)]
    axes = panel(figure_of([write(rows, seed=seed) for seed, rows in enumerate(given)]), place[0])
    mean = sum(rows[column] for rows in given) / 3
    assert len(lines(axes, curves.THICK)) * 3 == len(lines(axes, curves.THIN))
    drawn = lines(axes, curves.THICK)[place[1]]
    assert drawn[:, 0] == pytest.approx(given[0]["epoch"])
    assert drawn[:, 1] == pytest.approx(factor * mean, rel=1e-5)
    for thin, rows in zip(lines(axes, curves.THIN)[3 * place[1] :], given, strict=False):
        assert thin[:, 1] == pytest.approx(factor * rows[column])
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= max(factor * rows[column].max() for rows in given)


ALWAYS = {"RGB accuracy (%)", "Flow accuracy (%)", "Learning rate", "Clips per second", "Waiting for clips (%)", "Loss"}
OF_RANKING = {"Ranking losses", "Active triplets (%)", "triplet", "embedding", "total"}
OF_VALIDATION = {"RGB+Flow accuracy (%)", "validation"}


@pytest.mark.parametrize(
    ("ranking", "validation", "gpu"), [(True, True, False), (True, False, True), (False, True, True), (False,) * 3]
)
def test_panels_are_those_that_have_values(write, draw, ranking, validation, gpu):
    rows = made_up(5, ranking=ranking, validation=validation, gpu=gpu)
    texts, _ = draw([write(rows), write(rows, dataset="other")])
    assert set(texts) >= {*ALWAYS, "Memory (GiB)", "process", "training"}
    for there, what in ((ranking, OF_RANKING), (validation, OF_VALIDATION), (gpu, {"GPU"})):
        assert what & set(texts) == (what if there else set())
    assert ("cross entropy of both streams" in texts) == (not ranking)
    assert ("There are no validation videos." in texts) == (not validation)
    assert texts.count("Loss") == 1  # once for both data sets


def test_a_data_set_without_validation_says_so_beside_one_that_has_it(write, draw):
    texts, _ = draw([write(made_up(5)), write(made_up(5, validation=False), dataset="other")])
    assert texts.count("no validation") == 1
    assert "There are no validation videos." not in texts


def test_the_learning_rate_s_steps_are_marked_in_every_panel(write, draw):
    paths = [write(made_up(9, seed, steps=(3, 6)), seed=seed) for seed in range(2)]
    texts, _ = draw(paths)
    assert "Dotted lines: the learning rate falls after epoch 3 to 0.003, after epoch 6 to 0.0003." in texts
    assert {"0.03", "0.003", "0.0003"} <= set(texts)
    for axes in figure_of(paths).axes:
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        assert marks == [3.5, 6.5]
    assert not any("Dotted" in text for text in curves.sentences(group([read(write(made_up(9)), "ccs")])))


def test_one_epoch_is_seen(write, draw):
    path = write(made_up(1, steps=(1,)))
    texts, table = draw([path])
    assert "One seed." in texts
    assert list(table["seed"]) == ["0", "mean"]
    for axes in figure_of([path]).axes:
        low, high = axes.get_xlim()
        assert low < 1 < high
        assert axes.lines
        assert all(line.get_marker() == "o" and len(line.get_xdata()) == 1 for line in axes.lines)
    assert len(panel(figure_of([path]), "val_rgb").lines) == 2


def test_six_test_splits_stand_side_by_side_and_share_axes(write, draw):
    places = [("a_data_set_whose_name_is_too_long_for_one_line", 1), *(("hmdb51", n) for n in (1, 2, 3))]
    places += [("ucf101", n) for n in (2, 1, 3)]
    paths = [write(made_up(20, split, gpu=True), dataset, split) for dataset, split in places]
    texts, table = draw(paths)
    columns = [text for text in texts if re.fullmatch(r"\S+ split \d", text)]
    assert columns == [f"{name} split {n}" for name in ("UCF-101", "HMDB-51") for n in (1, 2, 3)]
    assert texts.count("Epoch") == 6  # and no seventh column
    assert "Not drawn, in the CSV only: a_data_set_whose_name_is_too_long_for_one_line split 1." in texts
    assert len(table.groupby(["dataset", "split"])) == 7
    figure = figure_of(paths[1:])
    for column in ("loss", "val_rgb", "memory_mb"):
        assert len({panel(figure, column, place).get_ylim() for place in range(6)}) == 1
    draw(paths[:3])  # a title of two lines: that nothing is cut is looked at in there


def test_training_writes_what_is_read_here(tmp_path):
    row = {"epoch": 1, "lr": 0.03, **dict.fromkeys([*LOSSES, "train_rgb", "train_flow"], 0.5), "memory_mb": 900.0}
    path = tmp_path / "demo/split1/ccs/seed0/history.csv"
    path.parent.mkdir(parents=True)
    history.write(path, [row])
    epochs = read(path, "ccs").epochs
    assert set(epochs.columns) == {*history.COLUMNS} - {"epoch"}
    assert epochs.loc[1, "memory_mb"] == 900
    assert math.isnan(epochs.loc[1, "val_fused"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"(?s).*", "", r"expected the columns epoch, lr, .*remove it and train the run again"),
        (r"waiting,", "", r"found none called waiting; remove it"),
        (r"(?s)\n.*", "\n", r"expected a line for each epoch, found none"),
        (r"(?s)\n3,.*", "\n3,0.0", r"line 4: expected 16 values .* cut short in '3,0\.0'"),
        (r"\n$", "", r"line 4: expected 16 values and the end of the line"),
        (r"\n2,.*", "", r"line 3: expected epoch 2, found '3'"),
        (r"\n2,0\.03", "\n2,fast", r"line 3: expected for lr a number above 0, found 'fast'"),
        (r"\n2,0\.03,[\d.]+", "\n2,0.03,nan", r"line 3: expected for loss a number from 0 up, found 'nan'"),
        (r"\n2,0\.03,[\d.]+", "\n2,0.03,", r"line 3: expected for loss a number from 0 up, found ''"),
    ],
)
def test_a_history_that_is_not_whole_is_refused(write, draw, old, new, message):
    path = write(made_up(3))
    text, count = re.subn(old, new, path.read_text(), count=1)
    assert count
    path.write_text(text)
    with pytest.raises(CcsError, match=f"^{re.escape(str(path))}.*{message}"):
        draw([path])


def test_histories_of_several_runs_are_refused(write, draw, tmp_path):
    one, other = write(made_up(4)), write(made_up(4), run="two_stream")
    with pytest.raises(CcsError, match=f"{other}: expected a history of run 'ccs', found that of 'two_stream'"):
        draw([one, other])
    with pytest.raises(CcsError, match=f"{one}: {one} is of the same data set, split and seed"):
        draw([one, one])
    with pytest.raises(CcsError, match=r"seed7/history\.csv: expected the history of a training, found none \(No such"):
        draw([one, one.parent.with_name("seed7") / "history.csv"])
    elsewhere = tmp_path / "history.csv"
    elsewhere.write_bytes(one.read_bytes())
    with pytest.raises(CcsError, match=r"expected a path \.\.\./DATASET/splitN/RUN/seedN/history\.csv"):
        draw([elsewhere])
    # put into the run's folder by hand
    with pytest.raises(
        CcsError, match=r"seed1/history\.csv: expected the learning rate 0\.03 in epoch 3 .*found 0\.003"
    ):
        draw([one, write(made_up(4, 1, steps=(2,)), seed=1)])
    with pytest.raises(CcsError, match=r"seed1/history\.csv: expected ranking losses as in .*of another run"):
        draw([one, write(made_up(4, 1, ranking=False), seed=1)])
