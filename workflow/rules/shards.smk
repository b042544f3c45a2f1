rule shards:
    input:
        frames="data/{dataset}/frames/{shard}.h5",
        flow="data/{dataset}/flow/{shard}.h5",
    output:
        shard="data/{dataset}/shards/{shard}.h5",
    log:
        "logs/{dataset}/shards/{shard}.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        code=stage_digest("ccs.shards"),
        above=flow_above,
    shell:
        "python -m ccs.shards"
        " --frames {input.frames}"
        " --flow {input.flow}"
        " --output {output.shard}"
        " > {log} 2>&1"


# For people, on the terminal and in a table: no result depends on it. Runs before training, where both are ready, and
# by training's shards, so that another division needs no frames, which may have been deleted.
rule lookalikes:
    input:
        shards=shard_files("shards", ".h5"),
    output:
        table="data/{dataset}/lookalikes.csv",
    log:
        "logs/{dataset}/lookalikes.log",
    priority: 1
    conda:
        "../../envs/ccs.yaml"
    params:
        manifest="data/{dataset}/manifest.csv",
        splits=split_numbers,
        divisions=all_split_digests,
        code=stage_digest("ccs.lookalikes"),
        above=shards_above,
    shell:
        "python -m ccs.lookalikes"
        " --manifest {params.manifest}"
        " --splits {params.splits}"
        " --shards {input.shards}"
        " --output {output.table}"
        " > {log} 2>&1"
