rule evaluate:
    input:
        checkpoint="results/runs/{dataset}/split{split}/{run}/seed{seed}/checkpoint.pt",
        quarantine="data/{dataset}/quarantine.csv",
        shards=shard_files("shards", ".h5"),
    output:
        scores="results/runs/{dataset}/split{split}/{run}/seed{seed}/scores.h5",
    log:
        "logs/{dataset}/split{split}/{run}/seed{seed}/evaluate.log",
    conda:
        "../../envs/ccs.yaml"
    threads: train_threads
    resources:
        gpu=num_gpus,
    params:
        manifest="data/{dataset}/manifest.csv",
        settings=flags(config["evaluate"]),
        workers=loader_workers,
        code=stage_digest("ccs.evaluate"),
    shell:
        "python -m ccs.evaluate"
        " --checkpoint {input.checkpoint}"
        " --manifest {params.manifest}"
        " --split {wildcards.split}"
        " --shards {input.shards}"
        " --quarantine {input.quarantine}"
        " --output {output.scores}"
        " --workers {params.workers}"
        " {params.settings}"
        " > {log} 2>&1"
