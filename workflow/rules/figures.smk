rule figure:
    input:
        scores=shown_scores,
    output:
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png="results/figures/{figure}.png",
        csv="results/figures/{figure}.csv",
    log:
        "logs/{figure}.log",
    wildcard_constraints:
        figure="|".join(OF_SCORES),
    conda:
        "../../envs/ccs.yaml"
    params:
        rows=shown_rows,
        settings=figure_settings,
        caption=caption,
        module=figure_module,
        code=figure_code,
        above=shown_above,
    shell:
        "python -m {params.module}"
        " --scores {input.scores}"
        " --rows {params.rows}"
        " --svg {output.svg}"
        " --png {output.png}"
        " --csv {output.csv}"
        " {params.settings}"
        " > {log} 2>&1"


# Drawn from networks, not from scores alone.
rule activation_maps:
    input:
        checkpoints=shown_checkpoints,
        scores=shown_scores,
        quarantines=cam_quarantines,
        shards=cam_shards,
    output:
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png="results/figures/{figure}.png",
        csv="results/figures/{figure}.csv",
    log:
        "logs/{figure}.log",
    wildcard_constraints:
        figure="|".join(OF_NETWORKS),
    conda:
        "../../envs/ccs.yaml"
    params:
        manifests=cam_manifests,
        settings=figure_settings,
        caption=caption,
        module=figure_module,
        code=figure_code,
        above=shown_above,
    shell:
        "exec python -m ccs.launch --gpus 0 -- {params.module}"
        " --checkpoints {input.checkpoints}"
        " --scores {input.scores}"
        " --manifests {params.manifests}"
        " --quarantines {input.quarantines}"
        " --shards {input.shards}"
        " --svg {output.svg}"
        " --png {output.png}"
        " --csv {output.csv}"
        " {params.settings}"
        " > {log} 2>&1"


# How each run that is shown was trained, from all of its trainings.
rule curves:
    input:
        histories=run_histories,
    output:
        svg=report(
            "results/figures/curves/{run}.svg",
            caption="../report/curves.rst",
            category="Training",
            labels={"run": "{run}"},
        ),
        png="results/figures/curves/{run}.png",
        csv="results/figures/curves/{run}.csv",
    log:
        "logs/curves/{run}.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        code=stage_digest("ccs.figures.curves"),
        above=trainings_above,
    shell:
        "python -m ccs.figures.curves"
        " --run {wildcards.run}"
        " --histories {input.histories}"
        " --svg {output.svg}"
        " --png {output.png}"
        " --csv {output.csv}"
        " > {log} 2>&1"


# What a figure was made with, as the tables say it of themselves.
rule details:
    input:
        scores=shown_scores,
    output:
        html=report(
            "results/figures/{figure}.details.html",
            caption="../report/details.rst",
            category="Figures",
            labels={"figure": "{figure}: settings and versions"},
        ),
    log:
        "logs/{figure}.details.log",
    wildcard_constraints:
        figure="|".join(catalogue.figures()),
    conda:
        "../../envs/ccs.yaml"
    params:
        rows=shown_rows,
        code=stage_digest("ccs.tables.details"),
        above=shown_above,
    shell:
        "python -m ccs.tables.details"
        " --scores {input.scores}"
        " --rows {params.rows}"
        " --title {wildcards.figure}"
        " --html {output.html}"
        " > {log} 2>&1"


# Snakemake makes reports of finished jobs, so this calls it again, with the configuration that it was called with.
rule report:
    input:
        TABLES,
        FIGURES,
        DETAILS,
        CURVES,
        MISTAKES,
    output:
        report="results/report.html",
    log:
        "logs/report.log",
    localrule: True
    conda:
        "../../envs/ccs.yaml"
    params:
        snakefile=snakefile,
        config=whole_config,
        style=report_style,
        captions=report_captions,
    shell:
        "printf '%s' {params.config:q} > {log}.json"
        " && snakemake --snakefile {params.snakefile:q} --configfile {log}.json --nolock --quiet"
        " --report {output.report} --report-stylesheet {params.style:q} -- {input} > {log} 2>&1"
