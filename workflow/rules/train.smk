rule train:
    input:
        noisy=members("noisy-0.ome.zarr/zarr.json"),
        target=targets,
        calibration=members("calibration.json"),
    output:
        f"{TRAINED}/model.safetensors",
        f"{TRAINED}/model.json",
        f"{TRAINED}/history.csv",
    log:
        f"{TRAINED}/logs/train.log",
    benchmark:
        f"{TRAINED}/logs/train.tsv"
    wildcard_constraints:
        entry=one_of(FITTED),
    conda:
        "../envs/ssdenoise.yaml"
    threads: 1
    resources:
        gpu=0,
        devices=granted_gpus,
        mem_mb=asked("memory_mb", train_needs),
        runtime=asked("minutes", train_needs),
    params:
        spec=train_spec,
        code=code("train"),
        noisy=option("noisy"),
        target=option("target"),
        calibration=option("calibration"),
        folder=parent,
    # no shell in between: a signal would end it at once, and Slurm then ends what a job's first process leaves behind
    shell:
        "exec python -m ssdenoise train --spec {params.spec:q} {params.noisy} {params.target}"
        " {params.calibration} --output {params.folder}"
        " --gpu {resources.devices} --threads {threads} 2> {log}"


rule choose:
    input:
        candidate_files,
    output:
        f"{MODEL}/model.safetensors",
        f"{MODEL}/model.json",
        f"{MODEL}/choice.json",
        f"{MODEL}/probe.parquet",
    log:
        f"{MODEL}/logs/choose.log",
    benchmark:
        f"{MODEL}/logs/choose.tsv"
    wildcard_constraints:
        entry=one_of(CHOSEN),
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("choose")),
        runtime=asked("minutes", stage_needs("choose")),
    params:
        spec=choose_spec,
        code=lambda _: PROJECT.code("choose"),
        candidates=candidate_names,
        folder=parent,
    shell:
        "python -m ssdenoise choose --spec {params.spec:q} --output {params.folder} {params.candidates:q} 2> {log}"
