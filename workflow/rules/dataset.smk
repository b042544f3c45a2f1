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


rule dataset:
    output:
        manifest="data/{dataset}/manifest.csv",
    log:
        "logs/{dataset}/dataset.log",
    conda:
        "../../envs/ccs.yaml"
    params:
        settings=dataset_settings,
        digest=manifest_digest,
        code=stage_digest("ccs.datasets"),
    shell:
        "python -m ccs.datasets"
        " --dataset {wildcards.dataset}"
        " --settings {params.settings}"
        " --output {output.manifest}"
        " > {log} 2>&1"
