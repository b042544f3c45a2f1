# Videos in, results/table1.csv out: snakemake --cores all
# `--configfile FILE` replaces config.yaml, `--config KEY=VALUE` changes a key of it.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        "results/table1.csv",


include: "workflow/rules/dataset.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
