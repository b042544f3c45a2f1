"""The paper's configurations, dry: data sets of the true sizes, made up of empty files under published names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import dag  # noqa: E402


def dry_run(folder: Path, name: str, *targets: str) -> dict[str, int]:
    """Jobs by rule of a configuration whose videos and lists are where it says, in `folder`."""
    snakemake = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", folder, "--nocolor"]
    command = [
        *snakemake,
        "--cores",
        "2",
        "--configfile",
        ROOT / f"workflow/configs/{name}.yaml",
        "--dry-run",
        "--quiet",
        "rules",
    ]
    done = subprocess.run([*command, "--", *targets], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}


def runs_shown(name: str) -> list[tuple[str, str]]:
    """(data set, run) of every table and figure, from the YAML alone."""
    config = yaml.safe_load((ROOT / f"workflow/configs/{name}.yaml").read_text())
    found = set()
    for block in [*config["tables"].values(), *config.get("figures", {}).values()]:
        groups = block.get("groups", {"": block.get("rows", {block.get("run"): ""})})
        runs = {run for rows in groups.values() for run in rows}
        found |= {(dataset, run) for dataset in block.get("datasets", config["datasets"]) for run in runs}
    return sorted(found)


@pytest.mark.slow
def test_every_run_of_the_paper_trains_once(tmp_path):
    for dataset, lists, num_videos in (
        ("ucf101", "ucfTrainTestlist", 13320),
        ("hmdb51", "testTrainMulti_7030_splits", 6766),
    ):
        made = tmp_path / f"made_{dataset}"
        made.mkdir()
        {"ucf101": dag.make_ucf101, "hmdb51": dag.make_hmdb51}[dataset](made, num_videos)
        (tmp_path / "videos").mkdir(exist_ok=True)
        (made / "videos").rename(tmp_path / "videos" / dataset)
        (made / "lists").rename(tmp_path / "videos" / lists)
    jobs = dry_run(tmp_path, "paper", "all")
    shown = runs_shown("paper")
    assert len([run for dataset, run in shown if dataset == "ucf101"]) == 8 + 4 + 4  # Tables 1, 3 and 4, Figure 5b
    assert len([run for dataset, run in shown if dataset == "hmdb51"]) == 8 + 3  # Tables 1 and 3, Figure 5a
    assert jobs["train"] == jobs["evaluate"] == 3 * len(shown)  # 3 seeds, however many tables show a run
    assert jobs["frames"] == jobs["flow"] == jobs["shards"] == 128 + 64
    assert (jobs["table"], jobs["figure"], jobs["activation_maps"], jobs["report"]) == (3, 3, 1, 1)


@pytest.mark.slow
def test_something_something_v2(tmp_path):
    dag.make_something_v2(tmp_path, 220847)
    (tmp_path / "videos").rename(tmp_path / "something-something-v2")
    (tmp_path / "lists").rename(tmp_path / "something-something-v2-lists")
    (tmp_path / "videos").mkdir()
    for name in ("something-something-v2", "something-something-v2-lists"):
        (tmp_path / name).rename(tmp_path / "videos" / name)
    predictions = "results/runs/something_v2/split1/trn_ccs/seed0/predictions.csv"
    jobs = dry_run(tmp_path, "something_v2", "results/table2.csv", predictions)
    assert jobs["frames"] == jobs["flow"] == jobs["shards"] == 256
    assert jobs["train"] == jobs["evaluate"] == 3
    assert (jobs["evaluate_unlabelled"], jobs["predictions"], jobs["table"]) == (1, 1, 1)
