rule score:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        denoised=f"{MODEL}/denoised.ome.zarr/zarr.json",
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
        model=description,
        truth=truth,
        pair=other,
        uncertainty=uncertainty,
        sibling=sibling,
    output:
        f"{MODEL}/scores.parquet",
    log:
        f"{MODEL}/logs/score.log",
    benchmark:
        f"{MODEL}/logs/score.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("score")),
        runtime=asked("minutes", stage_needs("score")),
    params:
        spec=score_spec,
        code=code("score"),
        truth=option("truth"),
        pair=option("pair"),
        uncertainty=option("uncertainty"),
        sibling=option("sibling"),
        model=model_folder,
    shell:
        "python -m ssdenoise score --spec {params.spec:q} --noisy {input.noisy} --denoised {input.denoised}"
        " --calibration {input.calibration} --model {params.model} {params.truth}"
        " {params.pair} {params.uncertainty} {params.sibling} --output {output} --threads {threads} 2> {log}"


rule score_noisy:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
        truth=truth,
        pair=other,
    output:
        f"results/{RUN}/{{dataset}}/{{noise}}/noisy-scores.parquet",
    log:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/score.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/score.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("score")),
        runtime=asked("minutes", stage_needs("score")),
    params:
        spec=score_spec,
        code=code("score"),
        truth=option("truth"),
        pair=option("pair"),
    shell:
        "python -m ssdenoise score --spec {params.spec:q} --noisy {input.noisy} --denoised {input.noisy}"
        " --calibration {input.calibration} {params.truth} {params.pair} --output {output}"
        " --threads {threads} 2> {log}"


rule probe:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
        model=model,
        description=description,
        repeat=repeat,
    output:
        f"{MODEL}/probe.parquet",
    log:
        f"{MODEL}/logs/probe.log",
    benchmark:
        f"{MODEL}/logs/probe.tsv"
    wildcard_constraints:
        entry=one_of(FITTED),
    conda:
        "../envs/ssdenoise.yaml"
    threads: 1
    resources:
        gpu=0,
        devices=granted_gpus,
        mem_mb=asked("memory_mb", probe_needs),
        runtime=asked("minutes", probe_needs),
    params:
        spec=probe_spec,
        code=code("probe"),
        model=model_folder,
        repeat=option("repeat"),
    shell:
        "python -m ssdenoise probe --spec {params.spec:q} --noisy {input.noisy} --calibration {input.calibration}"
        " --model {params.model} {params.repeat} --output {output} --gpu {resources.devices} --threads {threads}"
        " 2> {log}"


rule compare:
    input:
        scores=scores,
        probe=probes,
    output:
        report(
            f"results/{RUN}/comparison.csv",
            caption="../report/comparison.rst",
            category="Comparison",
        ),
        report(
            f"results/{RUN}/comparison.html",
            caption="../report/summary.rst",
            category="Comparison",
        ),
        [
            report(
                f"results/{RUN}/{name}.png",
                caption=f"../report/{name}.rst",
                category="Comparison",
            )
            for name in OF_THE_RUN
        ],
        collect(f"results/{RUN}/{{name}}.pdf", name=OF_THE_RUN),
        multiext(f"results/{RUN}/comparison", ".md", ".tex", ".json", ".parquet"),
        multiext(f"results/{RUN}/summary", ".csv", ".parquet"),
        f"results/{RUN}/comparison.zarr/zarr.json",
        f"results/{RUN}/criteria.csv",
        f"results/{RUN}/scores.parquet",
    log:
        f"results/{RUN}/logs/compare.log",
    benchmark:
        f"results/{RUN}/logs/compare.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("compare")),
        runtime=asked("minutes", stage_needs("compare")),
    params:
        spec=dump(PROJECT.compare()),
        folder=parent,
        code=code("compare"),
    shell:
        "python -m ssdenoise compare --spec {params.spec:q} --output {params.folder} 2> {log}"
