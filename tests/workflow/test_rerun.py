"""What runs again after a change, and what does not: exact sets of rules and of their outputs."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest

from ccs.provenance import NOT_COUNTED

TRAINING = {
    "train": {f"results/runs/mine/split1/{run}/seed0/checkpoint.pt" for run in ("two_stream", "ccs")},
    "evaluate": {f"results/runs/mine/split1/{run}/seed0/scores.h5" for run in ("two_stream", "ccs")},
    "table": {"results/table1.csv"},
}
LOOKALIKES = {"lookalikes": {"data/mine/lookalikes.csv"}}


def every(project, folder):
    """The shards of the project that have videos, as files of `folder`."""
    return {f"data/mine/{folder}/{path.stem}.h5" for path in (project.path / "data/mine/shards").glob("*.h5")}


def flow_and_below(project):
    return {"flow": every(project, "flow"), "shards": every(project, "shards"), **LOOKALIKES, **TRAINING}


def frames_and_below(project):
    frames = {"frames": every(project, "frames"), "quarantine": {"data/mine/quarantine.csv"}}
    return {**frames, **flow_and_below(project)}


def test_a_first_run_makes_everything_and_a_second_nothing(finished, record_property):
    commands = [line.split("\t")[0] for line in (finished.path / "commands.txt").read_text().splitlines()]
    shards = len(every(finished, "shards"))
    assert shards > 1
    assert {name: commands.count(name) for name in set(commands)} == {
        "ccs.frames": shards,
        "ccs.quarantine": 1,
        "ccs.lookalikes": 1,
        "ccs.flow": shards,
        "ccs.shards": shards,
        "ccs.train": 2,
        "ccs.evaluate": 2,
        "ccs.tables": 1,
    }
    start = time.perf_counter()
    assert "Nothing to be done" in finished.run()
    seconds = time.perf_counter() - start
    record_property("seconds", seconds)
    print(f"a run with nothing to do took {seconds:.1f} s")


@pytest.mark.slow
def test_an_added_video_reruns_its_shard_and_what_trains_on_it(project):
    before = {path: path.stat().st_mtime_ns for path in project.path.glob("data/mine/*/*.h5")}
    project.add_video("wave/new.mp4")
    plan = project.plan()
    (frames,) = plan["frames"]
    shard = Path(frames).stem
    assert f"data/mine/shards/{shard}.h5" in every(project, "shards")  # else it would have been a new one
    expected = {
        "frames": {f"data/mine/frames/{shard}.h5"},
        "quarantine": {"data/mine/quarantine.csv"},
        "flow": {f"data/mine/flow/{shard}.h5"},
        "shards": {f"data/mine/shards/{shard}.h5"},
        **LOOKALIKES,
        **TRAINING,
    }
    assert plan == expected

    # in one call, although every shard reads the manifest, which is written anew
    project.run()
    assert "wave/new" in (project.path / "data/mine/manifest.csv").read_text()
    touched = {path for path, written in before.items() if path.stat().st_mtime_ns != written}
    assert {path.stem for path in touched} == {shard}
    assert project.plan() == {}


@pytest.mark.slow
def test_a_changed_and_a_removed_video(project):
    video = project.path / "videos/wave/2.mp4"
    manifest = (project.path / "data/mine/manifest.csv").read_text()
    shard = next(line for line in manifest.splitlines() if "wave/2" in line).split(",")[4]

    video.write_text("the same clip, encoded again")
    below = {name: {f"data/mine/{name}/{shard}.h5"} for name in ("frames", "flow", "shards")}
    changed = {**below, "quarantine": {"data/mine/quarantine.csv"}, **LOOKALIKES, **TRAINING}
    assert project.plan() == changed
    video.unlink()
    assert project.plan() == changed


@pytest.mark.slow
def test_moved_videos_rerun_nothing_and_are_found(project):
    (project.path / "videos").rename(project.path / "elsewhere")
    project.configure({"datasets.mine.root": "elsewhere"})
    assert project.plan() == {}
    project.run("--forcerun", "table1")
    assert "elsewhere/" in (project.path / "data/mine/manifest.csv").read_text()


def test_another_split_reruns_training_but_no_frames(project):
    """Which may have been deleted to save room."""
    for folder in ("frames", "flow"):
        shutil.rmtree(project.path / "data/mine" / folder)
    project.configure({"datasets.mine.test_fraction": 0.5})
    assert project.plan() == {**LOOKALIKES, **TRAINING}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"frames.quality": 90}, frames_and_below),
        ({"flow.bound": 15}, flow_and_below),
        ({"flow.tau": 0.15, "flow.lambda": 0.25}, flow_and_below),  # the same values, changed about
        ({"train.lr": 0.01}, lambda project: TRAINING),
        ({"runs.ccs": {"lr": 0.01}}, lambda project: {**_of_run("ccs"), "table": TRAINING["table"]}),
        ({"evaluate.crops": 10}, lambda project: {name: TRAINING[name] for name in ("evaluate", "table")}),
        (
            {"tables.table1.rows": {"ccs": "CCS", "two_stream": "Two-stream"}},
            lambda project: {"table": TRAINING["table"]},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_reruns_the_stages_that_use_it(project, changes, expected):
    project.configure(changes)
    assert project.plan() == expected(project)


def test_another_fusion_trains_again_where_early_stopping_watches_it(project):
    watched = {"runs.ccs": {"patience": 3}, "datasets.mine.val_fraction": 0.5}
    project.configure(watched)
    project.run()
    project.configure({**watched, "evaluate.fusion": [1, 3]})
    assert project.plan() == {**TRAINING, "train": _of_run("ccs")["train"]}
    printed = project.run("--dry-run", "-p", "--forcerun", "train")
    jobs = [job for job in printed.split("rule ") if " -- ccs.train " in job]
    assert len(jobs) == 2
    for job in jobs:  # all that the checkpoint is to note is told, whatever Snakemake makes of its changes
        for flag in ("--evaluate-fusion 1 3", "--evaluate-segments 25", "--evaluate-crops 1"):
            assert job.count(flag) == 1


@pytest.mark.slow
def test_another_file_of_pretrained_weights_under_the_same_name_trains_again(project):
    (project.path / "weights.pt").write_bytes(b"these")
    project.configure({"runs.ccs": {"weights": "weights.pt"}})
    project.run()
    assert project.plan() == {}
    (project.path / "weights.pt").write_bytes(b"others")
    assert project.plan() == {**_of_run("ccs"), "table": TRAINING["table"]}


def _of_run(run):
    return {name: {file for file in TRAINING[name] if f"/{run}/" in file} for name in ("train", "evaluate")}


def test_after_a_failure_the_same_command_makes_what_is_out_of_date(project):
    """Although what failed, or was not reached, is an intermediate that may be missing, and has left no notes."""
    train = {"epochs": 7, "weights": "none"}
    project.configure({"train": train})
    assert project.snakemake(failing="ccs.train").returncode == 1
    assert project.plan() == TRAINING
    project.configure({"train": train, "flow.bound": 15})
    assert project.snakemake(failing="ccs.flow").returncode == 1
    assert project.plan() == flow_and_below(project)
    for shard in every(project, "flow"):
        (project.path / shard).unlink(missing_ok=True)
    for run in ("two_stream", "ccs"):
        (project.path / f"results/runs/mine/split1/{run}/seed0/checkpoint.pt").unlink(missing_ok=True)
    assert project.plan() == flow_and_below(project)


def test_what_changes_no_result_reruns_nothing(project):
    project.configure(
        {
            "train": {"flip": True, "dropout": [0.8, 0.70], "weights": "none"},  # defaults that were not written out
            "flow.bound": 20.0,  # instead of 20
            "max_bad_fraction": 0.5,
            "ffmpeg": "/opt/ffmpeg",
        }
    )
    resources = ("--cores", "8", "--set-threads", "train=3", "frames=1", "--set-resources", "train:gpu=1")
    assert project.plan(*resources) == {}


@pytest.mark.slow
def test_code_reruns_the_stages_that_contain_it(project):
    for module in sorted((project.path / "ccs").rglob("*.py")):
        module.write_text(f"# a comment\n{module.read_text()}\n\n# another\n")
    project.edit("ccs/models/losses.py", '"""The losses of CCS', '"""Losses, the ones of CCS')
    project.edit("ccs/__init__.py", '__version__ = "', '__version__ = "9.')
    assert project.plan() == {}

    with open(project.path / "ccs/models/losses.py", "a") as losses:
        losses.write("\nEXTRA = 1\n")
    assert project.plan() == TRAINING

    with open(project.path / "ccs/flow/native.py", "a") as flow:
        flow.write("\nEXTRA = 1\n")
    assert project.plan() == flow_and_below(project)


def test_code_that_changes_no_result_reruns_nothing(project):
    """What is on the list, and engines and backbones that are not in use."""
    modules = (module.replace(".", "/") for module in NOT_COUNTED)
    files = [f"{each}/__init__.py" if (project.path / each).is_dir() else f"{each}.py" for each in modules]
    engines = [f"ccs/flow/{name}.py" for name in ("gpu", "gpu_engine", "gpu_device", "opencv")]
    backbones = [f"ccs/models/backbones/{name}.py" for name in ("bninception", "i3d")]
    for file in (*files, *engines, *backbones):
        assert (project.path / file).is_file(), file
        with open(project.path / file, "a") as code:
            code.write("\nEXTRA = 1\n")
    assert project.plan() == {}


def test_a_backbone_that_is_in_use_reruns_its_runs_and_a_caption_reruns_nothing(project):
    project.configure({"runs.ccs": {"backbone": "bninception"}})
    project.run()
    project.edit("ccs/tables/table1.py", "CAPTION = (", 'CAPTION = ("Look: "')
    assert project.plan() == {}
    with open(project.path / "ccs/models/backbones/bninception.py", "a") as code:
        code.write("\nEXTRA = 1\n")
    assert project.plan() == {**_of_run("ccs"), "table": TRAINING["table"]}


@pytest.mark.parametrize(
    ("flow", "used", "unused"),
    [
        ({"backend": "native-cuda"}, "gpu_engine.py", "native.py"),
        ({"backend": "native-cuda"}, "tvl1.cu", "opencv.py"),
        ({"backend": "native-cuda"}, "pyramid.py", "opencv.py"),
        ({"backend": "opencv"}, "opencv.py", "native.py"),
        ({"backend": "native"}, "native.py", "tvl1.cu"),
        ({"gamma": 0.1}, "opencv.py", "native.py"),  # auto: the one with an illumination term
    ],
)
def test_an_engine_that_is_asked_for_reruns_the_flow_and_no_other_does(project, flow, used, unused):
    project.configure({"flow": flow})
    project.run()
    with open(project.path / "ccs/flow" / unused, "a") as code:
        code.write("\nEXTRA = 1\n")
    assert project.plan() == {}
    with open(project.path / "ccs/flow" / used, "a") as code:
        code.write("\nEXTRA = 1\n")
    assert project.plan() == flow_and_below(project)


FILMS = {"adapter": "demo", "shards": 1, "train_per_class": 1, "test_per_class": 1}


def provenances(project):
    """By data set, what its training is told of its provenance."""
    targets = [f"results/runs/{dataset}/split1/ccs/seed0/checkpoint.pt" for dataset in ("mine", "films")]
    told = {}
    for command in project.commands("--forcerun", "train", "--", *targets):
        if "ccs.train" in command:
            dataset = Path(command[command.index("--manifest") + 1]).parent.name
            told[dataset] = command[command.index("--provenance") + 1]
    assert set(told) == {"mine", "films"}
    return told


@pytest.mark.slow
def test_training_is_told_another_provenance_where_its_shards_or_its_code_are_others(project):
    """Interrupted training goes on only under the same. One data set is made of videos here, one is rendered."""
    settings = {"datasets.films": FILMS}

    def change(changes, *modules):
        settings.update(changes)
        project.configure(settings)
        for module in modules:
            with open(project.path / "ccs" / module, "a") as code:
                code.write("\nEXTRA = 1\n")

    change({})
    told = [provenances(project)]
    rows = {"ccs": "ours", "two_stream": "theirs"}
    change({"tables.table1.rows": rows, "evaluate.crops": 10}, "evaluate/__main__.py", "datasets/demo_scene.py")
    told.append(provenances(project))
    assert told[1]["mine"] == told[0]["mine"]  # of all this, only what renders it is training's, and only that of films
    assert told[1]["films"] != told[0]["films"]
    project.add_video("wave/new.mp4")
    change({"datasets.films": {**FILMS, "seed": 1}})
    told.append(provenances(project))
    for setting in ({"frames.quality": 90}, {"flow.bound": 15}):
        change(setting)
        told.append(provenances(project))
    for stage in ("frames", "flow", "shards", "train"):
        change({}, f"{stage}/__main__.py")
        told.append(provenances(project))
    for before, after in itertools.pairwise(told[1:]):
        assert before["mine"] != after["mine"]
        assert before["films"] != after["films"]


FIGURE1 = {"run": "two_stream"}
TARGETS = ("results/table1.csv", "results/figures/figure1.svg", "results/figures/figure1.details.html")


@pytest.mark.slow
def test_figures_and_evaluations_rerun_for_their_own_settings(project):
    project.configure({"figures.figure1": FIGURE1})
    assert project.plan(*TARGETS) == {"figure": {TARGETS[1]}, "details": {TARGETS[2]}}  # of a run that is there
    project.run(*TARGETS)
    project.configure({"figures.figure1": {**FIGURE1, "num_classes": 0}})
    assert project.plan(*TARGETS) == {"figure": {TARGETS[1]}}
    project.configure({"figures.figure1": FIGURE1, "runs.ccs": {"evaluate": {"crops": 10}}})
    assert project.plan(*TARGETS) == {"evaluate": _of_run("ccs")["evaluate"], "table": TRAINING["table"]}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/table2.csv", "tables.table2: not in the configuration: say there which runs table2 is to show"),
        ("results/table5.csv", "No rule to produce results/table5.csv"),
        ("results/figures/figure2.details.html", "No rule to produce results/figures/figure2.details.html"),
        ("results/runs/mine/split1/ccs/seed0/predictions.csv", "dataset mine has no videos without labels"),
    ],
)
def test_what_cannot_be_made_says_why(project, target, message):
    done = project.snakemake("--dry-run", target)
    assert done.returncode
    assert message in done.stdout


def test_published_numbers_rerun_their_table(project):
    with open(project.path / "ccs/published/table2.csv", "a") as published:
        published.write("\n")
    assert project.plan() == {}
    with open(project.path / "ccs/published/table1.csv", "a") as published:
        published.write("\n")
    assert project.plan() == {"table": TRAINING["table"]}


@pytest.mark.slow
def test_captions_rerun_the_report_alone(project):
    """What the report shows is made up here, and taken as done."""
    report = "results/report.html"
    curves = [f"figures/curves/{run}.{kind}" for run in ("two_stream", "ccs") for kind in ("svg", "png", "csv")]
    for name in ("report.html", *curves):
        path = project.path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    project.run("--touch", report)
    assert project.plan(report) == {}
    with open(project.path / "workflow/report/table.rst", "a") as caption:
        caption.write("More words.")
    assert project.plan(report) == {"report": {report}}
    project.run("--touch", report)
    project.run("--forcerun", "report", "--touch", report)
    project.edit("ccs/tables/table1.py", "CAPTION = (", 'CAPTION = ("Look: "')
    assert project.plan(report) == {"report": {report}}


@pytest.mark.slow
def test_code_of_evaluation_scores_videos_without_labels_again(project):
    """Of something-something-v2: its official test videos."""
    lists = {
        "labels": {"Opening something": "0"},
        "train": [{"id": "1", "template": "Opening [something]"}],
        "validation": [{"id": "2", "template": "Opening [something]"}],
        "test": [{"id": "3"}],
    }
    (project.path / "lists").mkdir()
    for name, content in lists.items():
        (project.path / f"lists/{name}.json").write_text(json.dumps(content))
    for video in ("1", "2", "3"):
        (project.path / f"videos/{video}.webm").write_text(video)
    published = {"adapter": "something_v2", "root": "videos", "lists": "lists", "shards": 1, "val_fraction": 0}
    project.configure({"datasets.published": published})
    scores = "results/runs/published/split1/ccs/seed0/unlabelled.h5"
    predictions = scores.replace("unlabelled.h5", "predictions.csv")
    project.run(predictions)
    assert project.plan(predictions) == {}
    with open(project.path / "ccs/evaluate/__main__.py", "a") as code:
        code.write("\nEXTRA = 1\n")
    assert project.plan(predictions) == {"evaluate_unlabelled": {scores}, "predictions": {predictions}}


def test_the_page_of_mistakes_is_made_of_all_seeds_and_shards_when_it_is_asked_for(project):
    page = "results/runs/mine/split1/ccs/mistakes.html"
    (command,) = project.commands(page)  # nothing else is to do, and this was not done by the first run
    assert command[command.index("--html") + 1] == page
    assert command[command.index("--scores") + 1] == "results/runs/mine/split1/ccs/seed0/scores.h5"
    assert len([word for word in command if word.startswith("data/mine/shards/")]) == 4
