rule denoise:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        model=model,
        description=description,
        pair=pair,
    output:
        f"{MODEL}/slabs/{{slab}}-of-{{slabs}}.json",
    log:
        f"{MODEL}/logs/denoise-{{slab}}-of-{{slabs}}.log",
    benchmark:
        f"{MODEL}/logs/denoise-{{slab}}-of-{{slabs}}.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    threads: 1
    resources:
        gpu=0,
        devices=granted_gpus,
        mem_mb=asked("memory_mb", denoise_needs),
        runtime=asked("minutes", denoise_needs),
        workers=1,
    params:
        spec=denoise_spec,
        code=code("denoise"),
        pair=option("pair"),
        model=model_folder,
        folder=folder,
    # no shell in between: a signal would end it at once, and Slurm then ends what a job's first process leaves behind
    shell:
        "exec python -m ssdenoise denoise --spec {params.spec:q} --noisy {input.noisy} {params.pair} --model {params.model}"
        " --output {params.folder} --slab {wildcards.slab} --slabs {wildcards.slabs}"
        " --gpu {resources.devices} --threads {threads} --memory-mb {resources.mem_mb} --workers {resources.workers}"
        " 2> {log}"


rule commit:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        slabs=slabs,
    output:
        f"{MODEL}/{{product}}.ome.zarr/zarr.json",
    log:
        f"{MODEL}/logs/commit-{{product}}.log",
    benchmark:
        f"{MODEL}/logs/commit-{{product}}.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("commit")),
        runtime=asked("minutes", stage_needs("commit")),
    params:
        code=code("commit"),
        folder=folder,
    shell:
        "python -m ssdenoise commit --noisy {input.noisy} --output {params.folder}"
        " --product {wildcards.product} --threads {threads} {input.slabs} 2> {log}"
