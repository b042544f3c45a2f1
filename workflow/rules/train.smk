rule train:
    input:
        quarantine="data/{dataset}/quarantine.csv",
        shards=shard_files("shards", ".h5"),
    output:
        checkpoint="results/runs/{dataset}/split{split}/{run}/seed{seed}/checkpoint.pt",
        history="results/runs/{dataset}/split{split}/{run}/seed{seed}/history.csv",
    log:
        "logs/{dataset}/split{split}/{run}/seed{seed}/train.log",
    conda:
        "../../envs/ccs.yaml"
    threads: gpu_threads
    resources:
        gpu=num_gpus,
    params:
        manifest="data/{dataset}/manifest.csv",
        videos=split_digest,
        settings=run_settings,
        evaluation=evaluation,
        weights=weights_files,
        provenance=provenance,
        workers=loader_workers,
        code=train_code,
    shell:
        "exec python -m ccs.launch --gpus {resources.gpu} -- ccs.train"
        " --manifest {params.manifest}"
        " --split {wildcards.split}"
        " --shards {input.shards}"
        " --quarantine {input.quarantine}"
        " --run {wildcards.run}"
        " --seed {wildcards.seed}"
        " --workers {params.workers}"
        " --provenance {params.provenance}"
        " --checkpoint {output.checkpoint}"
        " --history {output.history}"
        " {params.settings}"
        " {params.evaluation}"
        " > {log} 2>&1"
