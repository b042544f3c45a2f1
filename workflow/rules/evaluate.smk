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
    threads: gpu_threads
    resources:
        gpu=num_gpus,
    params:
        manifest="data/{dataset}/manifest.csv",
        settings=evaluate_settings,
        part="test",
        workers=loader_workers,
        code=evaluate_code,
        above=training_above,
    shell:
        "exec python -m ccs.launch --gpus {resources.gpu} -- ccs.evaluate"
        " --checkpoint {input.checkpoint}"
        " --manifest {params.manifest}"
        " --split {wildcards.split}"
        " --shards {input.shards}"
        " --quarantine {input.quarantine}"
        " --part {params.part}"
        " --output {output.scores}"
        " --workers {params.workers}"
        " {params.settings}"
        " > {log} 2>&1"


# Of videos whose labels are not public.
use rule evaluate as evaluate_unlabelled with:
    output:
        scores="results/runs/{dataset}/split{split}/{run}/seed{seed}/unlabelled.h5",
    log:
        "logs/{dataset}/split{split}/{run}/seed{seed}/unlabelled.log",
    params:
        part=unlabelled,  # the others are those of evaluate
