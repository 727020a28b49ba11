rule fetch:
    output:
        "results/downloads/{file}",
    log:
        "results/downloads/logs/{file}.log",
    benchmark:
        "results/downloads/logs/{file}.tsv"
    retries: 3
    # of a cluster, the machine that submits may be the only one to reach the network
    localrule: True
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        downloads=1,
        mem_mb=500,
        runtime=30,
    params:
        spec=fetch_spec,
    shell:
        "python -m ssdenoise fetch --spec {params.spec:q} --output {output} 2> {log}"


rule ingest_truth:
    input:
        source=source,
        like=like,
    output:
        f"results/{RUN}/{{dataset}}/{{role}}.ome.zarr/zarr.json",
    log:
        f"results/{RUN}/{{dataset}}/logs/{{role}}.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/logs/{{role}}.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("ingest")),
        runtime=asked("minutes", stage_needs("ingest")),
    params:
        spec=ingest_spec,
        code=code("ingest"),
        like=option("like"),
    shell:
        "python -m ssdenoise ingest --spec {params.spec:q} {params.like} --output {output}"
        " --threads {threads} 2> {log}"


use rule ingest_truth as ingest_noisy with:
    output:
        f"results/{RUN}/{{dataset}}/{MEASURED}/noisy-{{realization}}.ome.zarr/zarr.json",
    log:
        f"results/{RUN}/{{dataset}}/{MEASURED}/logs/noisy-{{realization}}.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/{MEASURED}/logs/noisy-{{realization}}.tsv"
    wildcard_constraints:
        realization="[01]",
    conda:
        "../envs/ssdenoise.yaml"


rule synthesize:
    input:
        f"results/{RUN}/{{dataset}}/clean.ome.zarr/zarr.json",
    output:
        f"results/{RUN}/{{dataset}}/{{noise}}/noisy-{{realization}}.ome.zarr/zarr.json",
    log:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/noisy-{{realization}}.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/noisy-{{realization}}.tsv"
    wildcard_constraints:
        noise=one_of(PROJECT.config.noise),
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("synthesize")),
        runtime=asked("minutes", stage_needs("synthesize")),
    params:
        spec=synthesize_spec,
        code=code("synthesize"),
    shell:
        "python -m ssdenoise synthesize --spec {params.spec:q} --clean {input} --output {output} 2> {log}"


rule calibrate:
    input:
        f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
    output:
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
        figure=report(
            f"results/{RUN}/{{dataset}}/{{noise}}/calibration.png",
            caption="../report/calibration.rst",
            category="Noise",
            labels={"dataset": "{dataset}", "noise": "{noise}"},
        ),
        vector=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.pdf",
    log:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/calibrate.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/calibrate.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("calibrate")),
        runtime=asked("minutes", stage_needs("calibrate")),
    params:
        spec=calibrate_spec,
        code=code("calibrate"),
    shell:
        "python -m ssdenoise calibrate --spec {params.spec:q} --noisy {input} --output {output.calibration}"
        " --figure {output.figure} 2> {log}"
