rule flow:
    input:
        frames="data/{dataset}/frames/{shard}.h5",
    output:
        flow="data/{dataset}/flow/{shard}.h5",
    log:
        "logs/{dataset}/flow/{shard}.log",
    conda:
        "../../envs/ccs.yaml"
    threads: 4
    resources:
        gpu=flow_gpus,
    params:
        settings=flags(config["flow"]),
        gpu_memory=gpu_memory,
        code=flow_code(),
        above=frames_above,
    shell:
        "exec python -m ccs.launch --gpus {resources.gpu} -- ccs.flow"
        " --frames {input.frames}"
        " --output {output.flow}"
        " --workers {threads}"
        " --gpu-memory {params.gpu_memory}"
        " {params.settings}"
        " > {log} 2>&1"
