# data/DATASET/manifest.csv is no rule's output. Snakemake 9.27 would rerun all shards of a data set with its manifest,
# or, with the manifest as ancient(), not even the shard whose videos have changed (its issue 4166). Instead the
# manifests are written before the first job, and what depends on their content has a digest of it as a param.
onstart:
    check_slurm()
    start_project()
    write_manifests()
    configuration.fetch_weights(config, runs_to_train())
    running.end_stages_when_told(local=workflow.local_exec)


onsuccess:
    terminal.end(workflow, configuration.runs_of(next(iter(SHOWN.values()), {})))


# No job of it where no data set renders itself: its list of outputs is empty then.
rule demo:
    output:
        videos=rendered_videos(),
    log:
        "logs/demo.log",
    conda:
        "../../envs/ccs.yaml"
    threads: 4
    params:
        directory=directory_of_videos,
        settings=demo_settings,
        code=stage_digest("ccs.datasets.demo"),
    shell:
        "python -m ccs.datasets.demo"
        " --output-dir {params.directory}"
        " --workers {threads}"
        " {params.settings}"
        " > {log} 2>&1"
