# Prints the table, so that only its messages go to the log.
rule table1:
    input:
        scores=scores_of_table("table1"),
    output:
        table="results/table1.csv",
        markdown="results/table1.md",
    log:
        "logs/table1.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        rows=table_rows,
        code=stage_digest("ccs.tables", "ccs/published/*.csv"),
    shell:
        "python -m ccs.tables table1"
        " --scores {input.scores}"
        " --rows {params.rows}"
        " --output {output.table}"
        " --markdown {output.markdown}"
        " 2> {log}"
