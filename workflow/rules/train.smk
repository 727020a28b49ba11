rule train:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        target=target,
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
    output:
        f"{MODEL}/model.safetensors",
        f"{MODEL}/model.json",
        f"{MODEL}/history.csv",
    log:
        f"{MODEL}/logs/train.log",
    benchmark:
        f"{MODEL}/logs/train.tsv"
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
        target=option("target"),
        folder=folder,
    shell:
        "python -m ssdenoise train --spec {params.spec:q} --noisy {input.noisy} {params.target}"
        " --calibration {input.calibration} --output {params.folder}"
        " --gpu {resources.gpu} --threads {threads} 2> {log}"
