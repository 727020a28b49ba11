"""Verbs of the stages that make denoised volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdenoise.verbs import Model, Spec, Store, Threads, no_file, stage


@stage()
def denoise(
    noisy: Store,
    model: Model,
    output: Annotated[
        Path, typer.Option(help="Folder to write into: stores that `commit` finishes, and slabs.", callback=no_file)
    ],
    spec: Spec = "{}",
    pair: Annotated[
        Path | None,
        typer.Option(help="Store of the second realization, for n2n with `both_directions`, which denoises both."),
    ] = None,
    slab: Annotated[int, typer.Option(min=0, help="Which share of the volume to denoise, counted from 0.")] = 0,
    slabs: Annotated[int, typer.Option(min=1, help="Into how many shares the volume is divided.")] = 1,
    gpu: Annotated[int, typer.Option(min=0, help="GPUs to use; 0: the CPU.")] = 0,
    threads: Threads = 1,
    memory_mb: Annotated[float, typer.Option(min=1, help="Memory, in MB, that all workers together may take.")] = 4000,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the threads; at least one for each GPU.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, whose workers, started in this folder, do the work instead.",
            envvar="DASK_SCHEDULER_ADDRESS",
        ),
    ] = None,
) -> None:
    """Denoise a volume, or one slab of it; `commit` then finishes the store."""
    from ssdenoise.config.specs import DenoiseSpec, parse_spec
    from ssdenoise.denoise import denoise
    from ssdenoise.device import Device

    denoise(
        parse_spec(DenoiseSpec, spec),
        noisy,
        model,
        output,
        Device.elsewhere(gpu) if scheduler else Device.granted(gpu, threads),
        pair=pair,
        slab=slab,
        slabs=slabs,
        memory_mb=memory_mb,
        workers=max(workers, gpu),
        scheduler=scheduler,
    )


@stage()
def commit(
    noisy: Store,
    output: Annotated[Path, typer.Option(help="Folder that `denoise` wrote into.", callback=no_file)],
    product: Annotated[str, typer.Option(help="`denoised` or, of methods that have it, `uncertainty`.")],
    slabs: Annotated[list[Path], typer.Argument(help="Records of all slabs: slabs/*-of-*.json in that folder.")],
    threads: Threads = 1,
) -> None:
    """Finish a denoised volume once all its slabs are written: its pyramid and digests."""
    from ssdenoise.commit import commit

    commit(noisy, slabs, product, output, threads)
