rule frames:
    input:
        rendered=rendered_videos_of_shard,
    output:
        frames="data/{dataset}/frames/{shard}.h5",
        quarantine="data/{dataset}/frames/{shard}.quarantine.csv",
    log:
        "logs/{dataset}/frames/{shard}.log",
    conda:
        "../../envs/ccs.yaml"
    threads: 4
    params:
        manifest="data/{dataset}/manifest.csv",
        videos=shard_digest,
        settings=frames_settings,
        ffmpeg=ffmpeg,
        max_bad=max_bad,
        code=stage_digest("ccs.frames"),
        above=videos_rendered,
    shell:
        "python -m ccs.frames"
        " --manifest {params.manifest}"
        " --shard {wildcards.shard}"
        " --output {output.frames}"
        " --quarantine {output.quarantine}"
        " --workers {threads}"
        " --ffmpeg={params.ffmpeg}"
        " --max-bad {params.max_bad}"
        " {params.settings}"
        " > {log} 2>&1"


rule quarantine:
    input:
        parts=shard_files("frames", ".quarantine.csv"),
    output:
        quarantine="data/{dataset}/quarantine.csv",
    log:
        "logs/{dataset}/quarantine.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        manifest="data/{dataset}/manifest.csv",
        max_bad_fraction=max_bad_fraction,
        code=stage_digest("ccs.quarantine"),
        above=frames_above,
    shell:
        "python -m ccs.quarantine"
        " --manifest {params.manifest}"
        " --parts {input.parts}"
        " --max-bad-fraction {params.max_bad_fraction}"
        " --output {output.quarantine}"
        " > {log} 2>&1"
