rule table:
    input:
        scores=shown_scores,
        lookalikes=shown_lookalikes,
    output:
        csv="results/{table}.csv",
        markdown="results/{table}.md",
        html=report(
            "results/{table}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/{table}.log",
    wildcard_constraints:
        table="|".join(catalogue.tables()),
    conda:
        "../../envs/ccs.yaml"
    params:
        rows=shown_rows,
        caption=caption,
        code=table_code,
        above=shown_above,
    shell:
        "python -m ccs.tables {wildcards.table}"
        " --scores {input.scores}"
        " --rows {params.rows}"
        " --output {output.csv}"
        " --markdown {output.markdown}"
        " --html {output.html}"
        " > {log} 2>&1"


# Of one run on one test split, beside its seeds; made when it is asked for, and of what `confusion` shows.
rule mistakes:
    input:
        scores=scores_of_seeds,
        shards=shard_files("shards", ".h5"),
    output:
        html=report(
            "results/runs/{dataset}/split{split}/{run}/mistakes.html",
            caption="../report/mistakes.rst",
            category="Mistakes",
            labels={"data": "{dataset}", "split": "{split}", "run": "{run}"},
        ),
    log:
        "logs/{dataset}/split{split}/{run}/mistakes.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        code=stage_digest("ccs.mistakes"),
        above=scores_above,
    shell:
        "python -m ccs.mistakes"
        " --scores {input.scores}"
        " --shards {input.shards}"
        " --html {output.html}"
        " > {log} 2>&1"


# Labels of something-something-v2's test videos are not public: what its server asks for.
rule predictions:
    input:
        scores="results/runs/{dataset}/split{split}/{run}/seed{seed}/unlabelled.h5",
    output:
        predictions="results/runs/{dataset}/split{split}/{run}/seed{seed}/predictions.csv",
    log:
        "logs/{dataset}/split{split}/{run}/seed{seed}/predictions.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        code=stage_digest("ccs.submission"),
        above=scores_above,
    shell:
        "python -m ccs.submission" " --scores {input.scores}" " --output {output.predictions}" " > {log} 2>&1"
