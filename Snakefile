from snakemake.utils import min_version

min_version("9.20")


# a --configfile takes the demo's place: merging key by key would mix the two
if not workflow.configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


# the first of all rules, hence what is made by default, also of a Snakefile that uses these rules
rule all:
    input:
        f"results/{RUN}/comparison.csv",
        collect(f"results/{RUN}/{{products}}/zarr.json", products=PRODUCTS),
        f"results/{RUN}/report.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/denoise.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


onerror:
    report_what_there_is()
