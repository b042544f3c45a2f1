# Videos in, results/table1.csv (of videos of your own, results/accuracy.csv) out: snakemake --cores all
# `--directory DIR` works in DIR, with DIR/config.yaml; `--configfile FILE` replaces config.yaml, `--config KEY=VALUE`
# changes a key of it.
import os
import sys

from snakemake.exceptions import WorkflowError

# The stages' `python` and `ccs` are those of this checkout, wherever the working directory and however it was called.
sys.path.insert(0, workflow.basedir)
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
    PYTHONPATH=os.pathsep.join(filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")])),
)

from ccs.config import files
from ccs.stage import CcsError

for place in (os.getcwd(), str(workflow.basedir)):
    if "{" in place or "}" in place:
        raise WorkflowError(
            f"{place}: expected a path without braces, in which Snakemake would see wildcards of its own: rename the "
            "directory. Those of videos, lists and weights may have them"
        )

if not workflow.overwrite_configfiles:

    if not os.path.exists("config.yaml"):
        raise WorkflowError(
            f"{os.getcwd()}/config.yaml: expected the configuration of this project, found none: copy one of "
            f"{workflow.basedir}/config.yaml (the demo) or {workflow.basedir}/workflow/configs/ there and edit it, or name "
            "another directory with --directory"
        )

# Files of --configfile have been read by now, and those with __use_yte__ run; nothing else was done with their content.
if not workflow.remote_exec:
    try:
        for file in workflow.overwrite_configfiles or ["config.yaml"]:
            files.check(file, os.path.relpath(file))
    except CcsError as error:
        raise WorkflowError(str(error)) from None

if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# They take seconds, less than a place in a cluster's queue.
localrules:
    quarantine,
    table,
    predictions,
    mistakes,
    figure,
    curves,
    details,


# Called as its table: table1, or accuracy for videos of one's own.
rule:
    name:
        MAIN_TABLE
    default_target: True
    input:
        f"results/{MAIN_TABLE}.csv",


# Every table and figure that the configuration asks for, and the report.
rule all:
    input:
        TABLES,
        FIGURES,
        CURVES,
        MISTAKES,
        "results/report.html",


include: "workflow/rules/dataset.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
