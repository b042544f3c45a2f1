# The manifest is ancient in all rules: what depends on its content has a digest of that content as a param, so that
# writing it anew reruns no shard but those whose videos have changed.
rule frames:
    input:
        manifest=ancient("data/{dataset}/manifest.csv"),
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
        videos=shard_digest,
        settings=frames_settings,
        ffmpeg=ffmpeg,
        max_bad=max_bad,
        code=stage_digest("ccs.frames"),
    shell:
        "python -m ccs.frames"
        " --manifest {input.manifest}"
        " --shard {wildcards.shard}"
        " --output {output.frames}"
        " --quarantine {output.quarantine}"
        " --workers {threads}"
        " --ffmpeg {params.ffmpeg}"
        " --max-bad {params.max_bad}"
        " {params.settings}"
        " > {log} 2>&1"


rule quarantine:
    input:
        manifest=ancient("data/{dataset}/manifest.csv"),
        parts=shard_files("frames", ".quarantine.csv"),
    output:
        quarantine="data/{dataset}/quarantine.csv",
    log:
        "logs/{dataset}/quarantine.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        max_bad_fraction=config["max_bad_fraction"],
        code=stage_digest("ccs.quarantine"),
    shell:
        "python -m ccs.quarantine"
        " --manifest {input.manifest}"
        " --parts {input.parts}"
        " --max-bad-fraction {params.max_bad_fraction}"
        " --output {output.quarantine}"
        " > {log} 2>&1"
