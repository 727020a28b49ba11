"""Train: fit one method to one noisy volume, from patches read straight from the store."""

from __future__ import annotations

import json
import logging
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
from ssdenoise.provenance import Clock, code_hash, digest, file_digest, read_json, record, write_json, write_text
from ssdenoise.store import Volume, claim
from ssdenoise.train.inputs import check, noise_of, photon_scales, warn, warn_of_small_patches
from ssdenoise.train.loop import optimise
from ssdenoise.train.sampling import Sampler, central_crops

log = logging.getLogger(__name__)


def train(
    spec: TrainSpec, noisy: Path, target: Path | None, calibration: Path, output: Path, device: Device = CPU
) -> dict[str, Any]:
    """Train a model, or fit a baseline.

    Parameters
    ----------
    spec : TrainSpec
    noisy : Path
        Store of the noisy volume.
    target : Path or None
        Store of the second realization or, for methods that need it, of the clean volume; None for methods without
        target, and for pairs that the noisy volume itself offers.
    calibration : Path
        Noise parameters of the noisy volume.
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
        If the volumes do not offer what the method needs.
    """
    with claim(output / "train.lock"):
        return _train(spec, noisy, target, calibration, output, device)


def _train(
    spec: TrainSpec, noisy: Path, target: Path | None, calibration: Path, output: Path, device: Device
) -> dict[str, Any]:
    clock, code = Clock(), code_hash("train", spec.method.name)
    volumes = [Volume(noisy)] + ([Volume(target)] if target else [])
    check(spec, volumes)
    found = read_json(calibration)
    method, channels = spec.method.calibrated(found), volumes[0].shape[1]
    warn(method, found, spec.ndim)
    normalization = Normalization.of(volumes[0].intensities())
    inputs = {"noisy": volumes[0].digest, "calibration": file_digest(calibration)}
    if target:
        inputs["target"] = volumes[1].digest
    torch.manual_seed(_torch_seed(spec, "init"))
    noise = [
        models.normalized(offset, scale)
        for models, offset, scale in zip(
            noise_of(method, volumes[0], found), normalization.offset, normalization.scale, strict=True
        )
    ]
    net = method.build(channels, spec.ndim, noise)
    output.mkdir(parents=True, exist_ok=True)
    resumed, earlier, fitted = 0, 0.0, {}
    if isinstance(method, TrainedMethod):
        photons = photon_scales(spec, found)
        sampler = Sampler(spec, method, volumes, normalization, net.stride, photons)
        warn_of_small_patches(method, net.halo, sampler.patch, volumes[0].shape)
        key = digest(dump(spec), json.dumps(inputs), code, device.kind)
        net, resumed, earlier = optimise(net, method, sampler, output, key, device)
    else:
        method.fit(net, central_crops(volumes[0], spec.ndim, normalization))
        fitted = {name: value.tolist() for name, value in net.named_buffers()}
        log.info("chosen, in normalised units where it is an intensity: %s", fitted)
        write_text(output / "history.csv", "step,learning_rate,loss,validation_loss\n")
    result = {
        "method": method.model_dump(mode="json"),
        "channels": channels,
        "ndim": spec.ndim,
        "normalization": asdict(normalization),
        "fitted": fitted,
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
