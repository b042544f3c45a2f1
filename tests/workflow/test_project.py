"""A project is a directory: everything is in it, and what is in it is not replaced by another project's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from itertools import pairwise

import yaml

from ccs.config import configuration

OTHER = {"datasets": {"yours": {"adapter": "folder", "root": "videos", "shards": 1}}, "seeds": [3]}


def test_a_directory_of_its_own_has_configuration_data_and_results(project, tmp_path):
    """Called from the checkout, as the README says; the checkout's own results stay as they are."""
    before = {path: path.stat().st_mtime_ns for path in project.path.rglob("*") if ".snakemake" not in path.parts}
    mine = tmp_path / "mine"
    shutil.copytree(project.path / "videos", mine / "videos")
    done = project.snakemake("--directory", str(mine))
    assert done.returncode == 1
    assert f"{mine}/config.yaml: expected the configuration of this project, found none: copy" in done.stdout
    (mine / "config.yaml").write_text(yaml.safe_dump(OTHER))
    done = project.snakemake("--directory", str(mine))
    assert done.returncode == 0, done.stdout
    assert (mine / "results/accuracy.csv").is_file()
    assert (mine / "data/yours/manifest.csv").is_file()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_results_of_another_configuration_file_are_not_replaced(project):
    table = (project.path / "results/table1.csv").read_text()
    (project.path / "other.yaml").write_text(yaml.safe_dump(OTHER))
    told = "were made with config.yaml and its data set mine; other.yaml has no such data set and would replace"
    planned = project.snakemake("--dry-run", "--configfile", "other.yaml")
    assert planned.returncode == 0
    assert told in planned.stdout
    done = project.snakemake("--configfile", "other.yaml")
    assert done.returncode == 1
    assert told in done.stdout
    assert "snakemake --directory DIR" in done.stdout
    assert (project.path / "results/table1.csv").read_text() == table
    assert not (project.path / "data/yours").exists()


def test_a_preset_with_other_settings_of_a_data_set_replaces_nothing_but_more_of_the_same_is_welcome(project):
    config = project.configure()
    (project.path / "preset.yaml").write_text(yaml.safe_dump({"datasets": {"mine": {"shards": 1}}}))
    done = project.snakemake("--configfile", "config.yaml", "preset.yaml")
    assert done.returncode == 1
    assert "data set mine; config.yaml preset.yaml has other settings of it" in done.stdout
    # the same data sets under another name, or one's own file edited
    (project.path / "copy.yaml").write_text(yaml.safe_dump({**config, "seeds": [0, 1]}))
    project.run("--configfile", "copy.yaml")
    project.configure({"datasets.mine.shards": 2})
    project.run("--dry-run")


def test_data_alone_are_not_replaced_and_what_only_looks_is_let_in(project):
    shutil.rmtree(project.path / "results")  # frames and flow of days, and no training yet
    (project.path / "preset.yaml").write_text(yaml.safe_dump({"datasets": {"mine": {"shards": 1}}}))
    files = ("--configfile", "config.yaml", "preset.yaml")
    assert project.snakemake(*files).returncode == 1
    for looking in ("--unlock", "--summary", "--list-rules"):
        done = project.snakemake(looking, *files)
        assert done.returncode == 0, done.stdout


def test_results_whose_notes_are_gone_are_not_taken_for_current(project):
    shutil.rmtree(project.path / ".snakemake")
    project.configure({"train.lr": 0.5})
    done = project.snakemake()
    assert done.returncode == 1
    assert "there are results, but .snakemake/metadata is empty" in done.stdout
    (project.path / "data/datasets.json").unlink()  # as the message says
    assert "Nothing to be done" in project.run()


def test_the_report_is_asked_for_with_the_configuration_as_it_was_understood(project):
    """It calls Snakemake anew, with a file: what was typed as text must be numbers there."""
    printed = project.run("--dry-run", "--printshellcmds", "--config", "seeds=[7]", "train={lr: 1e-2}", "--", "all")
    (command,) = {line for line in printed.splitlines() if "--report results/report.html" in line}
    given = json.loads(shlex.split(command.partition("printf ")[2])[1])
    assert given["seeds"] == [7]
    assert configuration.complete(given) == given


def test_videos_of_ones_own_have_targets_of_plain_names(project):
    """The configuration that their owners copy: nothing of it is called a table or a figure of the paper."""
    own = yaml.safe_load((project.path / "workflow/configs/folder.yaml").read_text())
    project.configure({name: own[name] for name in ("tables", "figures")})
    page = "results/runs/mine/split1/ccs/mistakes.html"
    assert project.plan()["table"] == {"results/accuracy.csv"}
    jobs = project.plan("all")
    assert jobs["table"] == {"results/accuracy.csv"}
    assert jobs["figure"] == {"results/figures/confusion.svg"}
    assert jobs["activation_maps"] == {"results/figures/activation_maps.svg"}
    assert jobs["mistakes"] == {page}
    assert not [output for outputs in jobs.values() for output in outputs if re.search(r"table\d|figure\d", output)]
    (figure,) = (line for line in project.commands("all") if "results/figures/confusion.png" in line)
    assert "ccs.figures.figure1" in figure


def test_text_of_the_user_is_text_to_the_last_command(project, tmp_path):
    """No template of Snakemake's, no word of the shell's and no flag: labels, classes, and paths of all kinds."""
    hostile = "$\\alpha_{inter}$ {x} {params.rows} {{ % 'q' \"d\" $HOME `id` \\n # ;"
    mine = tmp_path / "project 'q' \"d\" $HOME `id` % \\n # ;"
    mine.mkdir()
    root, weights, labels = f"videos {hostile}", f"-w {hostile}.pt", {"two_stream": hostile, "ccs": f"a\n{hostile}"}
    (project.path / "videos").rename(mine / root)
    (mine / root / "jump").rename(mine / root / "-other")
    (mine / weights).touch()
    changes = {
        "datasets.mine.root": root,
        "train.weights": weights,
        "ffmpeg": f"-ffmpeg {hostile}",
        "tables.table1.rows": labels,
        "figures.figure6": {"run": "ccs", "classes": ["-other", "wave"]},
    }
    config = project.configure(changes)
    (project.path / "config.yaml").rename(mine / "config.yaml")

    planned = project.run("--directory", str(mine), "--dry-run", "--printshellcmds", "--", "all")
    (report,) = {line for line in planned.splitlines() if "--report results/report.html" in line}
    given = json.loads(shlex.split(report.partition("printf ")[2])[1])
    assert given["tables"]["table1"]["rows"] == labels
    (figure,) = {line for line in planned.splitlines() if "ccs.figures.figure6" in line}
    assert {"--classes=-other", "--classes=wave"} <= {*shlex.split(figure)}

    project.run("--directory", str(mine))
    words = {line.split("\t")[0]: line.split("\t") for line in (mine / "commands.txt").read_text().splitlines()}
    assert f"--weights={weights}" in words["ccs.train"]
    assert f"--ffmpeg={config['ffmpeg']}" in words["ccs.frames"]
    assert json.loads(words["ccs.tables"][words["ccs.tables"].index("--rows") + 1]) == labels


def test_a_project_whose_path_snakemake_would_take_for_a_pattern_is_refused(project, tmp_path):
    (tmp_path / "{x}").mkdir()
    done = project.snakemake("--directory", str(tmp_path / "{x}"), "--configfile", "config.yaml")
    assert done.returncode == 1
    assert "{x}: expected a path without braces, in which Snakemake would see wildcards of its own" in done.stdout
    assert list((tmp_path / "{x}").glob("[!.]*")) == []


def test_a_configuration_that_yaml_reads_otherwise_than_it_looks_stops_before_any_work(project):
    text = (project.path / "config.yaml").read_text()
    commands = (project.path / "commands.txt").read_text()
    bomb = "a: &a {x: 1}\n" + "".join(
        f"{after}: &{after} {{{', '.join(f'k{n}: *{each}' for n in range(10))}}}\n"
        for each, after in pairwise("abcdefgh")
    )
    for name, more, message, flags in (
        ("config.yaml", bomb, "config.yaml is not valid:\n  line", ()),
        ("other.yaml", "seeds: [1]\n", "seeds is given a second time, first in line", ("--configfile", "other.yaml")),
    ):
        (project.path / name).write_text(text + more)
        done = project.snakemake("--forceall", *flags)
        assert done.returncode == 1
        assert message in done.stdout
        assert "Traceback" not in done.stdout
    assert (project.path / "commands.txt").read_text() == commands


def test_values_of_config_are_what_the_setting_is(project):
    project.run("--config", "seeds=[7]", "train={epochs: 3, lr: 1e-2, shared: false, ranking: false}")
    (line,) = {
        line
        for line in (project.path / "commands.txt").read_text().splitlines()
        if "\t--run\tccs\t" in line and "seed7" in line and line.startswith("ccs.train\t")
    }
    words = line.split("\t")
    for flag, value in {"--epochs": "3", "--lr": "0.01", "--shared": "false", "--seed": "7"}.items():
        assert words[words.index(flag) + 1] == value
