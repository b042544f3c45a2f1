# Videos in, results/table1.csv out: snakemake --cores all
# `--directory DIR` works in DIR, with DIR/config.yaml; `--configfile FILE` replaces config.yaml, `--config KEY=VALUE`
# changes a key of it.
import os

from snakemake.exceptions import WorkflowError

if not workflow.overwrite_configfiles:

    if not os.path.exists("config.yaml"):
        raise WorkflowError(
            f"{os.getcwd()}/config.yaml: expected the configuration of this project, found none: copy one of "
            f"{workflow.basedir}/config.yaml (the demo) or {workflow.basedir}/workflow/configs/ there and edit it, or name "
            "another directory with --directory"
        )

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# They take seconds, less than a place in a cluster's queue.
localrules:
    quarantine,
    table,
    predictions,
    figure,
    curves,
    details,


rule table1:
    default_target: True
    input:
        "results/table1.csv",


# Every table and figure that the configuration asks for, and the report.
rule all:
    input:
        TABLES,
        FIGURES,
        CURVES,
        "results/report.html",


include: "workflow/rules/dataset.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
