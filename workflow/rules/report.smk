rule figures:
    input:
        noisy=f"results/{RUN}/{{dataset}}/{{noise}}/noisy-0.ome.zarr/zarr.json",
        stores=shown_stores,
        truth=truth,
        calibration=f"results/{RUN}/{{dataset}}/{{noise}}/calibration.json",
        scores=shown_scores,
    output:
        *drawn(*ALWAYS),
    log:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/figures.log",
    benchmark:
        f"results/{RUN}/{{dataset}}/{{noise}}/logs/figures.tsv"
    wildcard_constraints:
        dataset=one_of([name for name in PROJECT.datasets if name not in UNCERTAIN]),
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("figures")),
        runtime=asked("minutes", stage_needs("figures")),
    params:
        code=code("figures"),
        truth=option("truth"),
        entries=shown_folders,
        folder=parent,
        fitted=fitted,
    shell:
        "python -m ssdenoise figures --title {wildcards.dataset}/{wildcards.noise} --noisy {input.noisy}"
        " --calibration {input.calibration} {params.truth} {params.fitted}"
        " --output {params.folder} {params.entries:q} 2> {log}"


use rule figures as figures_uncertain with:
    output:
        *drawn(*ALWAYS, "uncertainty"),
    wildcard_constraints:
        dataset=one_of(UNCERTAIN),
    conda:
        "../envs/ssdenoise.yaml"


rule report:
    input:
        comparison=f"results/{RUN}/comparison.csv",
        figures=figure_files,
        stores=first_stores,
        calibration=collect(f"results/{RUN}/{{scene}}/calibration.json", scene=FIGURES),
    output:
        report(
            f"results/{RUN}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"results/{RUN}/logs/report.log",
    benchmark:
        f"results/{RUN}/logs/report.tsv"
    conda:
        "../envs/ssdenoise.yaml"
    resources:
        mem_mb=asked("memory_mb", stage_needs("report")),
        runtime=asked("minutes", stage_needs("report")),
    params:
        spec=report_spec,
        code=code("report"),
        folder=parent,
    shell:
        "python -m ssdenoise report --spec {params.spec:q} --run {params.folder} --output {output} 2> {log}"
