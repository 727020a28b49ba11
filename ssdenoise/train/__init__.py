"""Train: fit one method to one noisy volume or to several alike, from patches read straight from their stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import dump
from ssdenoise.device import CPU, Device
from ssdenoise.intensity import Normalization
from ssdenoise.methods import TrainedMethod
from ssdenoise.model import save_tensors
from ssdenoise.noise import stream
from ssdenoise.provenance import Clock, code_hash, digest, read_json, record, write_json, write_text
from ssdenoise.store import claim
from ssdenoise.train.inputs import (
    Scene,
    check,
    input_digests,
    noise_of,
    photon_scales,
    pooled,
    typical_noise,
    warn,
    warn_of_small_patches,
)
from ssdenoise.train.loop import optimise
from ssdenoise.train.sampling import Sampler, central_crops

__all__ = ["Scene", "train"]

log = logging.getLogger(__name__)


def train(spec: TrainSpec, scenes: Sequence[Scene], output: Path, device: Device = CPU) -> dict[str, Any]:
    """Train a model, or fit a baseline.

    Parameters
    ----------
    spec : TrainSpec
    scenes : sequence of Scene
        Stores and calibrations of one volume, or of several that are alike: as many channels, the same noise.
    output : Path
        Folder for `model.safetensors`, `model.json` and `history.csv`; a checkpoint found there is continued if it
        was made from the same options, inputs and code.
    device : Device

    Returns
    -------
    dict
        Content of `model.json`.

    Raises
    ------
    TrainingDiverged
        If the loss is not finite.
    ConfigError, FormatError
        If the volumes do not offer what the method needs, or are not alike.

    Notes
    -----
    Several volumes are normalised by the intensities of all together. Of their calibrations the one is taken whose
    noise is neither strong nor weak among them.
    """
    with claim(output / "train.lock"):
        return _train(spec, scenes, output, device)


def _train(spec: TrainSpec, scenes: Sequence[Scene], output: Path, device: Device) -> dict[str, Any]:
    clock, code = Clock(), code_hash("train", spec.method.name)
    volumes = [scene.volumes() for scene in scenes]
    check(spec, volumes)
    normalization = Normalization.of(pooled([noisy for noisy, *_ in volumes]))
    calibrations = [read_json(scene.calibration) for scene in scenes]
    typical = typical_noise(scenes, calibrations, normalization)
    noisy, found = volumes[typical][0], calibrations[typical]
    method, channels = spec.method.calibrated(found), noisy.shape[1]
    warn(method, found, spec.ndim)
    inputs = input_digests(scenes, volumes)
    torch.manual_seed(_torch_seed(spec, "init"))
    noise = [
        models.normalized(offset, scale)
        for models, offset, scale in zip(
            noise_of(method, [noisy for noisy, *_ in volumes], found),
            normalization.offset,
            normalization.scale,
            strict=True,
        )
    ]
    net = method.build(channels, spec.ndim, noise)
    output.mkdir(parents=True, exist_ok=True)
    resumed, earlier, fitted = 0, 0.0, {}
    if isinstance(method, TrainedMethod):
        photons = [photon_scales(spec, calibration) for calibration in calibrations]
        sampler = Sampler(spec, method, volumes, normalization, net.stride, photons)
        warn_of_small_patches(method, net.halo, sampler.patch, noisy.shape)
        key = digest(dump(spec), json.dumps(inputs), code, device.kind)
        net, resumed, earlier = optimise(net, method, sampler, output, key, device)
    else:
        method.fit(net, central_crops(noisy, spec.ndim, normalization))
        fitted = {name: value.tolist() for name, value in net.named_buffers()}
        log.info("chosen, in normalised units where it is an intensity: %s", fitted)
        write_text(output / "history.csv", "step,learning_rate,loss,validation_loss\n")
    result = {
        "method": method.model_dump(mode="json"),
        "channels": channels,
        "ndim": spec.ndim,
        "normalization": asdict(normalization),
        "fitted": fitted,
        "trained_on": {
            "dataset": spec.dataset,  # or a group
            "noise": spec.noise,
            "volumes": [noisy.metadata.name for noisy, *_ in volumes],
        },
        "parameters": sum(p.numel() for p in net.parameters()),
        "provenance": record(
            "train",
            spec=spec.model_dump(mode="json"),
            inputs=inputs,
            code=code,
            clock=clock,
            seed=spec.seed,
            device=device.name,
            resumed_at_step=resumed,
            seconds_before_resume=earlier,
        ),
    }
    save_tensors(net.state_dict(), output / "model.safetensors")
    write_json(output / "model.json", result)
    (output / "checkpoint.safetensors").unlink(missing_ok=True)
    return result


def _torch_seed(spec: TrainSpec, *what: str | int) -> int:
    """Seed of a torch generator, from the same keyed streams as all randomness."""
    return int(stream(spec.seed, spec.dataset, spec.noise, spec.method.name, *what).integers(2**63))
