"""Self-supervised denoising of large microscopy archives, and an honest comparison of methods.

Every stage is a module with a function of the same name: `ingest`, `synthesize`, `calibrate`, `train`, `denoise`,
`score`, `compare`, `figures`, `report`. The Snakemake workflow calls them through ``python -m ssdenoise VERB``.
"""
