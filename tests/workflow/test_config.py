"""The configuration: every mistake is an error that names the key; defaults are those of the stages."""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import datetime
import json
import re
import shlex
import subprocess
import sys
import time
import typing
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from ccs import cli
from ccs.config import configuration as config
from ccs.config import files, pages
from ccs.datasets.manifests import Manifest
from ccs.models import published
from ccs.provenance import NOT_COUNTED
from ccs.stage import CcsError

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = json.loads(pages.SCHEMA.read_text())
PAPER = [0.001, 0.1, 0.9, 5e-4, 20.0, [0.8, 0.7], [0.3, 0.3, 0.8], [0.5, 0.5], [1.0, 0.875, 0.75]]
QUICK = ROOT / "workflow/configs/quick.yaml"  # changes another
SMALL = {"datasets": {"mine": {"adapter": "folder", "root": "videos"}}}


def changed(path, value):
    """`SMALL` with the key at `path` set."""
    result = copy.deepcopy(SMALL)
    *blocks, key = path.split(".")
    place = result
    for block in blocks:
        place = place.setdefault(block, {})
    place[key] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("flow.bond", 20, "flow.bond: no such key: did you mean bound?"),
        ("flows", {}, "flows: no such key: did you mean flow?"),
        ("datasets.mine.shard", 3, "datasets.mine.shard: no such key: did you mean shards?"),
        ("datasets.mine.lists", "x", "datasets.mine.lists: no such key"),  # not of a folder
        ("datasets.mine.adapter", "ucf102", "datasets.mine.adapter: 'ucf102' is not one of"),
        ("datasets.a b", {"adapter": "folder", "root": "x"}, "datasets: 'a b' does not match"),
        ("datasets.other", {"adapter": "hmdb51", "root": "x"}, "datasets.other.lists: missing (directory of"),
        ("datasets.other", {"root": "x"}, "datasets.other.adapter: missing"),
        ("frames.short_side", "256px", "frames.short_side: '256px' is not of type 'integer'"),
        ("frames.size", "340*256", "frames.size: '340*256' does not match"),
        ("flow.tau", 0.5, "flow.tau: 0.5 is greater than the maximum of 0.25 (time step of the dual update)"),
        ("train.lr", "1e-3", "write 1.0e-3"),
        ("train.alphas", [0.3, 0.3], "train.alphas: [0.3, 0.3] is too short"),
        ("runs.ccs.lr_step", [3], "runs.ccs.lr_step: no such key: did you mean lr_steps?"),
        ("runs.ccs.shared", False, "runs.ccs.ranking: False was expected (the ranking losses compare the embeddings z"),
        ("tables.table1.rows", {"csc": "CCS"}, "tables.table1.rows.csc: no such run: did you mean ccs?"),
        ("tables.table3.groups", {"TSN": {"csc": "All"}}, "tables.table3.groups.TSN.csc: no such run: did you mean"),
        ("tables.table2", {}, "tables.table2.rows: missing"),
        ("tables.table1.datasets", ["yours"], "tables.table1.datasets: no data set 'yours'; there are mine"),
        ("figures.figure1", {"run": "two"}, "figures.figure1.run.two: no such run"),
        ("figures.figure6", {"classes": ["a"]}, "figures.figure6.run: missing"),
        ("runs.ccs.base", "i3", "runs.ccs.base: no such base: 'i3': did you mean i3d?"),
        ("runs.ccs.base", ["tsn"], "runs.ccs.base: no such base: ['tsn']"),
        ("runs.ccs.evaluate", [1], "runs.ccs.evaluate: [1] is not of type 'object'"),
        ("evaluate.fusion", [0, 0], "evaluate.fusion: [0, 0] does not contain"),
        ("figures.figure1", {"run": "ccs", "num_classes": 1}, "figures.figure1.num_classes: 1 is not possible here"),
        ("figures.figure5a", {"rows": {"ccs": "A", "b": "A"}}, "figures.figure5a.rows: two rows have one label"),
        ("train.backbone", "resnet19", "train.backbone: no 'resnet19': did you mean resnet"),
        ("runs.ccs.evaluate", {"crop": 1}, "runs.ccs.evaluate.crop: no such key: did you mean crops?"),
        ("bases.mine", {"lr": -1}, "bases.mine.lr: -1 is less than or equal to the minimum of 0"),
        (
            "runs.ccs",
            {"aggregation": "concat"},
            "runs.ccs.evaluate.segments: 25 is no multiple of the 3 segments that the aggregation concat is trained",
        ),
        (
            "runs.ccs",
            {"aggregation": "trn", "segments": 1},
            "runs.ccs.segments: 1 is less than the minimum of 2 (relations are between 2 segments or more",
        ),
        (
            "runs.ccs",
            {"backbone": "bninception", "weights": "charades"},
            "runs.ccs.weights: 'charades' is not possible here (bninception has imagenet and kinetics: give one of",
        ),
        (
            "runs.ccs",
            {"weights_flow": "kinetics"},
            "runs.ccs.weights_flow: 'kinetics' is not possible here (resnet101 has imagenet: give it, none or a path)",
        ),
        (
            "runs.ccs",
            {"backbone": "bninception", "weights": "kinetics", "flow_length": 10},
            "runs.ccs.flow_length: 10 is not 5 (the flow stream of bninception called kinetics takes 5",
        ),
        (
            "runs.ccs",
            {"backbone": "i3d_x0_25", "weights": "none", "weights_flow": "imagenet"},
            "runs.ccs.weights_flow: 'imagenet' is not possible here (nobody publishes weights of i3d_x0_25: give",
        ),
        ("seeds", [], "seeds: []"),
    ],
)
def test_a_mistake_is_named(path, value, message):
    with pytest.raises(CcsError) as error:
        config.complete(changed(path, value))
    assert message in str(error.value)


def test_all_mistakes_are_named_at_once():
    wrong = {**changed("flow.bond", 1), "seeds": "0"}
    with pytest.raises(CcsError, match=r"(?s)flow\.bond.*seeds|seeds.*flow\.bond"):
        config.complete(wrong)


def test_an_engine_without_an_illumination_term_is_refused_one():
    wanted = changed("flow.gamma", 0.1)
    assert config.complete(wanted)["flow"]["gamma"] == 0.1
    wanted["flow"]["backend"] = "native"
    with pytest.raises(
        CcsError, match=r"flow\.backend: native has no illumination term: set it to auto, or gamma to 0"
    ):
        config.complete(wanted)


def test_two_demos_are_refused():
    with pytest.raises(CcsError, match=r"datasets\.b: only one data set can be a demo, and a is one"):
        config.complete({"datasets": {"a": {"adapter": "demo"}, "b": {"adapter": "demo"}}})


def test_runs_are_train_with_their_changes_and_rows_all_runs():
    given = {**SMALL, "train": {"lr": 0.5}, "runs": {"a": None, "b": {"lr": 0.25, "epochs": 3}}}
    before = copy.deepcopy(given)
    full = config.complete(given)
    assert given == before
    train, evaluate = full["train"], full["evaluate"]
    assert (train["lr"], train["epochs"], evaluate["segments"]) == (0.5, 400, 25)
    assert full["runs"]["a"] == {**train, "evaluate": evaluate}
    assert full["runs"]["b"] == {**train, "lr": 0.25, "epochs": 3, "evaluate": evaluate}
    assert full["tables"] == {"accuracy": {"rows": {"a": "a", "b": "b"}}}
    assert config.complete(full) == full


def test_a_run_is_its_own_changes_on_its_bases_on_train():
    given = {
        **SMALL,
        "train": {"lr": 0.5, "segments": 2},
        "evaluate": {"crops": 10},
        "bases": {"mine": {"segments": 4, "lr": 0.1, "evaluate": {"segments": 8, "fusion": [1, 2]}}},
        "runs": {
            "a": {"base": "mine", "lr": 0.2, "evaluate": {"fusion": [1, 3]}},
            "b": {"base": "i3d"},
            "c": {"base": "trn"},
        },
    }
    runs = config.complete(given)["runs"]
    assert (runs["a"]["lr"], runs["a"]["segments"]) == (0.2, 4)
    assert runs["a"]["evaluate"] == {"segments": 8, "crops": 10, "fusion": [1, 3]}
    # the bases that need no naming are the paper's (ccs.md, Inputs and Scores)
    assert (runs["b"]["backbone"], runs["b"]["flow_length"], runs["b"]["segments"]) == ("i3d", 10, 2)
    assert runs["b"]["evaluate"] == {"segments": 25, "crops": 10, "fusion": [1, 1]}
    assert (runs["c"]["aggregation"], runs["c"]["segments"]) == ("trn_multiscale", 8)
    assert runs["c"]["evaluate"] == {"segments": 8, "crops": 10, "fusion": [1, 1]}


def test_a_base_or_train_is_judged_by_what_becomes_of_it_in_a_run():
    """Combinations are of runs: `train` and bases may leave to the run what makes them whole."""
    for given in (
        {"train": {"backbone": "i3d_x0_5"}, "runs": {"a": {"weights": "none"}}},
        {"train": {"backbone": "bninception", "weights": "kinetics"}, "runs": {"a": {"base": "i3d"}}},
        {"runs": {"a": {"backbone": "bninception", "weights": "kinetics", "weights_flow": "none", "flow_length": 10}}},
        {"train": {"aggregation": "concat"}, "runs": {"a": {"evaluate": {"segments": 24}}}},
        {"bases": {"mine": {"shared": False}}, "runs": {"a": {"base": "mine", "ranking": False}}},
        {"runs": {"a": {"evaluate": None}}},
    ):
        config.complete({**SMALL, **given})


def test_weights_of_another_backbone_are_refused():
    given = {**SMALL, "train": {"backbone": "bninception", "weights": "w.pth"}, "runs": {"a": {"base": "i3d"}}}
    with pytest.raises(
        CcsError, match=r"runs\.a\.weights: w\.pth is train\.weights, for bninception, and this run has"
    ):
        config.complete(given)
    given["runs"]["a"]["weights"] = "i3d.pt"
    config.complete(given)


def test_only_runs_that_are_shown_are_checked_against_their_data(tmp_path):
    given = {**SMALL, "runs": {"a": {}, "b": {"weights": str(tmp_path / "nowhere.pt"), "patience": 5}}}
    manifest = Manifest("mine", ("x", "y"), ())
    full = config.complete({**given, "tables": {"table1": {"rows": {"a": "A"}}}})
    config.check_runs(full, manifest)
    with pytest.raises(CcsError, match=r"runs\.b: weights: no file .*nowhere\.pt"):
        config.check_runs(config.complete(given), manifest)


def test_random_weights_with_settings_for_pretrained_ones_are_told(capsys):
    """For each run that is shown, once, whatever the number of data sets; a value of one's own is one's own."""
    scratch = {"weights": "none", "lr": 0.03, "dropout": [0.2, 0.2]}
    runs = {
        "a": {"weights": "none"},
        "b": scratch,
        "c": {},
        "d": {**scratch, "lr": 0.001},
        "e": {"weights": "none", "weights_flow": "imagenet"},
        "hidden": {"weights": "none"},
    }
    given = {**SMALL, "runs": runs, "tables": {"table1": {"rows": {name: name for name in "abcde"}}}}
    given["datasets"] = {name: {"adapter": "folder", "root": name} for name in ("mine", "yours")}
    config.warn_of_scratch(config.complete(given))
    first, second = capsys.readouterr().err.splitlines()
    assert "runs.a: weights: none" in first
    assert "but lr 0.001 and dropout 0.8 0.7 (the defaults)" in first
    assert "runs.d: weights: none" in second
    assert "but lr 0.001 (the defaults)" in second


def test_published_weights_of_runs_that_are_left_are_fetched_once_before_the_first_job(monkeypatch, capsys):
    asked = []

    def fetch(*names, flow):
        asked.append((*names, flow))
        if names[0] == "i3d":
            raise CcsError("rgb_imagenet.pt: could not be fetched")

    monkeypatch.setattr(published, "fetch", fetch)
    runs = {
        "a": {"weights": "kinetics"},
        "again": {"weights": "kinetics", "lr": 0.1},
        "both": {"weights": "imagenet"},  # flow begins with the file of RGB
        "flow": {"base": "i3d", "weights": "none", "weights_flow": "kinetics"},
        "torchvision": {"backbone": "resnet18", "weights": "imagenet"},
        "trained": {"base": "i3d", "weights": "charades"},
    }
    given = {**SMALL, "train": {"backbone": "bninception", "weights": "none"}, "runs": runs}
    config.fetch_weights(config.complete(given), [name for name in runs if name != "trained"])
    assert asked == [
        ("bninception", "kinetics", False),
        ("bninception", "kinetics", True),
        ("bninception", "imagenet", False),
        ("i3d", "kinetics", True),
    ]
    told = capsys.readouterr().err
    assert told == "ccs: warning: runs.flow: weights_flow kinetics: rgb_imagenet.pt: could not be fetched\n"


def test_a_class_that_no_data_set_has_is_refused():
    full = config.complete({**SMALL, "figures": {"figure6": {"run": "ccs", "classes": ["jumo"]}}})
    with pytest.raises(CcsError, match=r"figures\.figure6\.classes: no class 'jumo': did you mean jump\?"):
        config.check_classes(full, {"mine": ("jump", "wave")})


def test_backbones_are_those_that_there_are():
    from ccs.models.backbones import bninception, i3d, torchvision

    named = SCHEMA["properties"]["train"]["properties"]["backbone"]["enum"]
    assert bninception
    assert sorted(named) == sorted(["bninception", *i3d.WIDTHS, *torchvision.names()])


def test_defaults_are_the_papers():
    """arXiv 1908.10136, sec. 3.3, 4.1 and 4.2, and TSN's where it says nothing (ccs.md, Training and Scores)."""
    found = config.complete(SMALL)
    train, evaluate = found["train"], found["evaluate"]
    assert [train[name] for name in ("lr", "lr_gamma", "momentum", "weight_decay", "clip_gradient")] == PAPER[:5]
    assert [train[name] for name in ("dropout", "alphas", "lambdas", "scales")] == PAPER[5:]
    assert (train["segments"], train["flow_length"], train["input_size"]) == (3, 5, 224)
    assert (evaluate["segments"], evaluate["crops"], evaluate["fusion"]) == (25, 1, [1.0, 1.5])


def test_the_engines_of_the_settings_are_those_that_there_are():
    from ccs.flow.engines import BACKENDS
    from ccs.flow.settings import ENGINES

    assert list(ENGINES) == list(BACKENDS)


def test_one_mistake_is_one_line():
    for path, value in {"seeds": [-1], "train.scales": [0], "runs": None, "datasets.mine": None}.items():
        with pytest.raises(CcsError) as error:
            config.complete(changed(path, value))
        assert len(str(error.value).splitlines()) == 2, error.value


def test_a_whole_number_is_one_however_it_is_written():
    found = config.complete({**SMALL, "train": {"epochs": 5.0}, "gpu_memory": 4.0e9})
    assert (found["train"]["epochs"], found["gpu_memory"]) == (5, 4_000_000_000)
    assert type(found["train"]["epochs"]) is int
    with pytest.raises(CcsError, match=r"train\.epochs: 5\.5 is not of type 'integer'"):
        config.complete({**SMALL, "train": {"epochs": 5.5}})


@pytest.mark.parametrize(
    ("typed", "path", "value"),
    [
        ({"seeds": ["0", "1"]}, "seeds", [0, 1]),
        ({"train": {"epochs": "1", "lr": "1e-3", "dropout": ["0.5", "0"]}}, "train.lr", 0.001),
        ({"train": {"shared": "false", "ranking": "False"}}, "train.shared", False),
        ({"train": {"precision": "no"}}, "train.precision", "no"),
        ({"frames": {"size": "null"}}, "frames.size", None),
        ({"evaluate": {"crops": "10"}}, "evaluate.crops", 10),
        ({"runs": {"a": {"epochs": "2", "evaluate": {"segments": "4"}}}}, "runs.a.evaluate.segments", 4),
        ({"datasets": {"mine": {"shards": "7"}}}, "datasets.mine.shards", 7),
        ({"runs": {"ccs": "null"}}, "runs.ccs.epochs", 400),
        ({"tables": {"table1": {"rows": {"ccs": "5"}}}}, "tables.table1.rows.ccs", "5"),  # a label is text
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_typed_at_the_command_line_is_read_as_the_setting_is(typed, path, value):
    given = copy.deepcopy(SMALL)
    update_config(given, typed)
    found = config.complete(given, overrides=typed)
    for step in path.split("."):
        found = found[step]
    assert found == value
    assert type(found) is type(value)


def test_typed_nonsense_is_told_as_such_and_text_in_a_file_is_not_read_twice():
    typed = {"train": {"epochs": "many"}, "seeds": ["-1"]}
    with pytest.raises(
        CcsError, match=r"(?s)seeds\.0: -1 is less than the minimum of 0.*epochs: 'many' is not of type"
    ):
        config.complete({**SMALL, **typed}, overrides=typed)
    with pytest.raises(CcsError, match=r"train\.epochs: '3' is not of type 'integer'"):
        config.complete({**SMALL, "train": {"epochs": "3"}}, overrides={"train": {"lr": "0.1"}})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("frames.short_side", None, "frames.short_side: expected pixels, as size is not given either"),
        ("frames.quality", 101, "frames.quality: 101 is greater than the maximum of 100 (of the JPEGs)"),
        ("train.scales", [], "train.scales: [] should be non-empty"),
        ("train.dropout", [0.5, 1], "train.dropout.1: 1 is greater than or equal to the maximum of 1 (of RGB's and of"),
        ("train.alphas", [1, 1, 1, 1], "train.alphas: [1, 1, 1, 1] is too long"),
        ("train.lr", float("nan"), "train.lr: nan is not a finite number (learning rate of SGD)"),
        ("train.precision", False, "train.precision: False is not one of ['auto', 'no', 'bf16', 'fp16'] (auto takes"),
        ("train.precision", False, "YAML reads no, off, yes and on as false and true: write such a text in quotes"),
        ("train", None, "train: None is not of type 'object' (All settings of a run"),
        ("runs", None, "runs: None is not of type 'object' (experiments by name"),
        ("train", {5: 1}, "train.5: no such key; there are backbone"),
        ("flow.lambda_", 0.3, "flow.lambda_: no such key: did you mean lambda?"),
        ("seeds", [2**32], "seeds.0: 4294967296 is greater than the maximum of 4294967295 (every run"),
        ("datasets.mine.adapter", ["a"], "datasets.mine.adapter: ['a'] is not one of ['demo', 'diving48'"),
        (
            "datasets.mine.adapter",
            None,
            "datasets.mine.adapter: missing (how the videos and their lists are laid out: demo",
        ),
        ("evaluate.crops", True, "evaluate.crops: True is not one of [1, 10] (1 (centre)"),
        ("flow.median_filtering", True, "flow.median_filtering: True is not one of [1, 3, 5]"),
        ("evaluate", {"segments": 0, "fusion": [0, 0]}, "evaluate.fusion: [0, 0] does not contain any but 0 (weights"),
        ("seeds", [1, 1], "seeds: [1, 1] has non-unique elements"),
        ("datasets.mine", 5, "datasets.mine: 5 is not of type 'object'"),
        ("datasets.mine.shards", True, "datasets.mine.shards: True is not of type 'integer'"),
        ("tables.table1.rows", {"ccs": ""}, "tables.table1.rows.ccs: '' should be non-empty"),
        ("tables.table5", {}, "tables.table5: no such key: did you mean table"),
        ("datasets", {False: {"adapter": "folder", "root": "x"}}, "datasets: False does not match"),
        ("datasets", {False: {"adapter": "folder", "root": "x"}}, "YAML reads no, off, yes and on as false and true"),
        ("datasets.mine\n", {"adapter": "folder", "root": "x"}, r"datasets: 'mine\n' does not match"),
        ("runs", {True: {}}, "runs: True does not match"),
        ("bases", {1: {}}, "YAML reads it as a number: write it in quotes to have a text"),
        ("tables.table1.rows", {"ccs": False}, "YAML reads no, off, yes and on as false and true"),
        ("tables.table1.rows", {True: "CCS"}, "YAML reads no, off, yes and on as false and true"),
        ("tables.table1.rows", {"ccs": datetime.date(2020, 1, 2)}, "YAML reads it as a date: write it in quotes"),
        ("tables.table1.rows", {"ccs": 1908.10136}, "YAML reads it as a number: write it in quotes to have a text"),
        ("tables.table3.groups", {False: {"ccs": "All"}}, "YAML reads no, off, yes and on as false and true"),
        ("figures.figure6", {"run": "ccs", "classes": [True]}, "YAML reads no, off, yes and on as false and true"),
        (
            "figures.figure6",
            {"run": "ccs", "classes": ["é", "e\u0301"]},
            "figures.figure6.classes: ['é', 'é'] has non-",
        ),
        ("figures.figure5a", {"rows": {"ccs": "é", "b": "e\u0301"}}, "figures.figure5a.rows: two rows have one label"),
        ("datasets.mine.root", "a\0b", r"datasets.mine.root: 'a\x00b' has a character that no file name"),
        ("frames.short_side", 10**9, "frames.short_side: 1000000000 is greater than the maximum of 9999"),
        ("train.input_size", 10**9, "train.input_size: 1000000000 is greater than the maximum of 9999"),
        ("train.embedding", 10**12, "train.embedding: 1000000000000 is greater than the maximum of 65536"),
        ("runs", {}, "runs: {} should be non-empty (experiments by name"),
    ],
)
def test_more_mistakes_are_named(path, value, message):
    with pytest.raises(CcsError) as error:
        config.complete(changed(path, value))
    assert message in str(error.value)


HEAD = "datasets:\n  mine: {adapter: folder, root: videos}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{each}'] * 10)}]\n" for each, after in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\nseeds: [1]\n", "line 4: seeds is given a second time, first in line 3: keep one of them"),
        ("train:\n  lr: 1\n  epochs: 3\n  'lr': 2\n", "line 6: train.lr is given a second time, first in line 4"),
        ("runs: {ccs: {lr: 0.1, lr: 0.2}}\n", "line 3: runs.ccs.lr is given a second time, first in line 3"),
        ("x:\n- {a: 1}\n- {a: 1, b: {c: 1, c: 2}}\n", "line 5: x.b.c is given a second time"),
        ("no: 1\noff: 2\n", "line 4: off is given a second time, first in line 3"),
        ("é: 1\ne\u0301: 2\n", "is given a second time, first in line 3"),
        (BOMB, "more than 100,000 values, with those that aliases repeat"),
        (BOMB.replace("[", "{k: [").replace("]", "]}"), "more than 100,000 values, with those that aliases repeat"),
        ("runs: &r {ccs: *r}\n", "line 3: *r contains itself"),
        ("seeds: &s [*s]\n", "line 3: *s contains itself"),
        ("seeds: *s\n", "line 3: *s stands for nothing"),
        ("seeds: " + "[" * 100_000, "line 3: blocks within blocks, more than 40 deep"),
        (f"seeds: [{'1' * 5000}]\n", "line 3: '1111111111111111111111111111111111111111' cannot be read"),
        ("seeds: 2020-13-45\n", "line 3: '2020-13-45' cannot be read (month must be in 1..12)"),
        ("---\nseeds: [1]\n", "line 3: a second document begins with ---"),
        ("train:\n\tlr: 1\n", "line 4: no YAML: found character that cannot start any token"),
        ("__use_yte__: true\n", "line 3: __use_yte__: no such key"),
        ("x: !!bool maybe\n", "line 3: 'maybe' cannot be read (no bool)"),
        ("x: !!int ''\n", "line 3: '' cannot be read (no int)"),
        ("x: !!timestamp foo\n", "line 3: 'foo' cannot be read (no timestamp)"),
        ("!!map x: 1\n", "line 3: 'x' cannot be read (no map)"),
    ],
    ids=range(21),
)
def test_what_yaml_would_pass_over_or_never_end_to_unfold_is_told_at_once(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(CcsError, match=rf"(?s)my\.yaml.*{re.escape(message)}"):
        files.check(path, "my.yaml")
    assert time.monotonic() - start < 2


def test_files_that_are_as_they_should_be_are_passed(tmp_path):
    """Aliases and merges of some use, texts that look like others, JSON with its tabs."""
    good = "x: &x {lr: 0.1}\ny: &y {epochs: 1}\nruns: {a: {<<: *x, <<: *y, lr: 0.2}, b: *x}\n"
    good += "z: [1, '1', =, no, 2020-01-02]\n1: a\n'1': b\n"
    for text in (
        HEAD + good,
        json.dumps({"a": {"b": 1}, "c": {"b": 1}}, indent="\t").replace("/", "\\/"),
        "",
        "\ufeffa: 1",
    ):
        (tmp_path / "good.yaml").write_text(text, encoding="utf-8")
        files.check(tmp_path / "good.yaml", "good.yaml")
    (tmp_path / "good.yaml").write_text("a: 1\n", encoding="utf-16")
    with pytest.raises(CcsError, match=r"my\.yaml: expected YAML in UTF-8, found .*: save it as UTF-8"):
        files.check(tmp_path / "good.yaml", "my.yaml")


def test_no_value_is_taken_for_a_flag():
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", nargs="+", action="extend", default=[])
    parser.add_argument("--weights")
    parser.add_argument("--num", type=int)
    for classes in (["-other", "--weights", "a b"], ["eat", "-1"], ["-"], ["eat", "$HOME 'x' {y}"]):
        values = {"weights": "-w {x} $HOME.pt", "num": 5, "classes": classes}
        assert vars(parser.parse_args(shlex.split(config.flags(values)))) == values


@pytest.mark.parametrize(("path", "made"), [(pages.SCHEMA, lambda: pages.schema()), (pages.PAGE, lambda: pages.page())])
def test_schema_and_page_are_what_the_settings_say(path, made):
    """Else: `python -m ccs.config` writes them anew."""
    text = path.read_text()
    assert (json.loads(text) if path.suffix == ".json" else text) == made()


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))], ids=str)
def test_the_schema_for_editors_agrees(path):
    """An independent judge of the files that come along, and of mistakes that `complete` names."""
    judge = jsonschema.Draft202012Validator(SCHEMA)
    given = yaml.safe_load(path.read_text())
    if path == QUICK:
        whole = yaml.safe_load((ROOT / "config.yaml").read_text())
        update_config(whole, given)
        given = whole
    assert list(judge.iter_errors(given)) == []
    for section, key, wrong in (
        ("train", "lr", 0),
        ("flow", "bond", 1),
        ("frames", "quality", "95"),
        ("runs", "a b", {}),
    ):
        mistaken = copy.deepcopy(given)
        mistaken.setdefault(section, {})[key] = wrong
        assert list(judge.iter_errors(mistaken)), key


def test_nothing_slow_is_imported_where_the_snakefile_is_parsed():
    code = "import sys, ccs.config.configuration as c; c.complete({'datasets': {'d': {'adapter': 'demo'}}})"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"cv2", "great_tables", "matplotlib", "numba", "scipy", "torch", "torchvision"}
    assert not slow & set(done.stdout.split())


@pytest.mark.parametrize("module", [name for name in NOT_COUNTED if name.endswith("settings")])
def test_what_does_not_count_as_code_computes_nothing(module):
    """Modules of settings are not part of what a result depends on, so they may hold classes of values and no more."""
    if module == "ccs.settings":  # the flags themselves
        return
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    functions = {
        node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.Lambda)
    }
    assert functions <= {"__post_init__", "conflicts", "from_names", "to_names"}  # checks, and other names of the same


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))], ids=str)
def test_configurations_that_come_along_are_valid(path):
    given = yaml.safe_load(path.read_text())
    if path == QUICK:
        whole = yaml.safe_load((ROOT / "config.yaml").read_text())
        update_config(whole, given)
        given = whole
    config.complete(given)


def test_the_demo_shows_every_key():
    """config.yaml is where a user looks keys up."""
    text = (ROOT / "config.yaml").read_text()
    given = yaml.safe_load(text)
    for block in ("frames", "flow", "evaluate", "train"):
        assert list(given[block]) == list(SCHEMA["properties"][block]["properties"])
    assert set(given) == set(SCHEMA["properties"])
    for adapter in ("demo", "folder", "ucf101"):
        for key in SCHEMA["$defs"][adapter]["properties"]:
            assert f"{key}:" in text, key


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_defaults_are_those_of_the_stages():
    """A stage that is run alone does what the workflow does."""
    from ccs.datasets import demo
    from ccs.flow.settings import Parameters
    from ccs.train.__main__ import Settings
    from ccs.train.settings import EvaluateSettings

    train = {}
    for kind in typing.get_type_hints(Settings).values():
        train |= _defaults(kind)
    full = config.complete(SMALL)
    assert _normal(full["train"]) == _normal(train)
    assert _normal(full["evaluate"]) == _normal(_defaults(EvaluateSettings))
    flow = {name.rstrip("_"): value for name, value in _defaults(Parameters).items()}
    assert _normal(full["flow"]) == _normal({"backend": "auto", "bound": 20, **flow})
    shown = config.complete({"datasets": {"d": {"adapter": "demo"}}})["datasets"]["d"]
    assert {name: shown[name] for name in _defaults(demo.Settings)} == _defaults(demo.Settings)


def test_stages_are_given_the_documented_defaults(finished):
    """Of what the configuration does not name, in the commands that a run would start."""
    commands = finished.commands("--forceall")
    for flag, value in (
        ("--quality", "95"),
        ("--short-side", "256"),
        ("--max-bad-fraction", "0.01"),
        ("--gpu-memory", "4294967296"),  # 4 GiB
    ):
        assert {command[command.index(flag) + 1] for command in commands if flag in command} == {value}


@pytest.mark.parametrize(
    ("stage", "defaults"),
    [
        (["frames"], {"quality": "95", "short-side": "256"}),
        (["quarantine"], {"max-bad-fraction": "0.01"}),
        (["flow"], {"quality": "95", "gpu-memory": "4294967296"}),
        (["flow", "--frames", "x"], {"gpu-memory": "4294967296"}),
    ],
    ids=" ".join,
)
def test_help_tells_the_documented_defaults(stage, defaults, capsys):
    with pytest.raises(SystemExit):
        cli.main([*stage, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag, value in defaults.items():
        assert re.search(rf"--{flag} [A-Z_]+ [^(]*\(default: ([^)]*)\)", text)[1] == value


def _defaults(kind: type) -> dict:
    return {field.name: field.default for field in dataclasses.fields(kind)}


def _normal(settings: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
