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
    conda:
        "../envs/ssdenoise.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=240,
    params:
        spec=train_spec,
        code=code("train"),
        noisy=option("noisy"),
        target=option("target"),
        calibration=option("calibration"),
        folder=parent,
    shell:
        "python -m ssdenoise train --spec {params.spec:q} {params.noisy} {params.target}"
        " {params.calibration} --output {params.folder}"
        " --gpu {resources.gpu} --threads {threads} 2> {log}"
