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
