"""Train: fit one method to one noisy volume, from patches read straight from the store."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import Progress
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import dump
from ssdenoise.device import CPU, Device
from ssdenoise.errors import ConfigError, FormatError, TrainingDiverged
from ssdenoise.intensity import Normalization
from ssdenoise.methods import Batch, Method, Network, TrainedMethod
from ssdenoise.model import save_tensors
from ssdenoise.noise import ImpulseModel, NoiseModel, NoiseModels, noise_models, stream
from ssdenoise.provenance import Clock, code_hash, digest, file_digest, read_json, record, write_json, write_text
from ssdenoise.store import Volume
from ssdenoise.train.checkpoint import load_checkpoint, save_checkpoint
from ssdenoise.train.sampling import Sampler, central_crops

log = logging.getLogger(__name__)

#: Adam's moments and the learning rate's course are those of the HQ-SSL paper; the ramp-down is longer than its 30 %,
#: as a short training has no time to average its noise out otherwise.
BETAS = (0.9, 0.99)
RAMP_UP, RAMP_DOWN = 0.1, 0.5

#: Largest norm of the gradient.
CLIP = 1.0

#: Steps after which the log says how long the training will take.
TIMED = 3

#: Steps between two lines of the history, and between two checkpoints.
EVERY = 50


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
    clock, code = Clock(), code_hash("train", spec.method.name)
    volumes = [Volume(noisy)] + ([Volume(target)] if target else [])
    _check(spec, volumes)
    found = read_json(calibration)
    method, channels = spec.method.calibrated(found), volumes[0].shape[1]
    normalization = Normalization.of(volumes[0].intensities())
    inputs = {"noisy": volumes[0].digest, "calibration": file_digest(calibration)}
    if target:
        inputs["target"] = volumes[1].digest
    torch.manual_seed(_torch_seed(spec, "init"))
    noise = [
        models.normalized(offset, scale)
        for models, offset, scale in zip(
            _noise_models(method, volumes[0], found), normalization.offset, normalization.scale, strict=True
        )
    ]
    net = method.build(channels, spec.ndim, noise)
    output.mkdir(parents=True, exist_ok=True)
    resumed, earlier = 0, 0.0
    if isinstance(method, TrainedMethod):
        photons = _photons(spec, found)
        sampler = Sampler(spec, method, volumes, normalization, net.stride, photons)
        key = digest(dump(spec), json.dumps(inputs), code, device.kind)
        net, resumed, earlier = _optimise(net, method, sampler, output, key, device)
    else:
        method.fit(net, central_crops(volumes[0], spec.ndim, normalization))
        write_text(output / "history.csv", "step,learning_rate,loss,validation_loss\n")
    result = {
        "method": method.model_dump(mode="json"),
        "channels": channels,
        "ndim": spec.ndim,
        "normalization": asdict(normalization),
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


def _check(spec: TrainSpec, volumes: Sequence[Volume]) -> None:
    method, noisy = spec.method, volumes[0]
    if (method.target == "clean" or (method.target and spec.pairing == "volume")) and len(volumes) < 2:
        needed = {"pair": "a pair; give it as --target, or another `pairing`", "clean": "the clean volume as --target"}
        raise ConfigError(f"{spec.dataset}: {method.name} needs {needed[method.target]}")
    if len(volumes) == 2 and noisy.shape != volumes[1].shape:
        raise FormatError(
            f"{volumes[1].path} has shape {volumes[1].shape}, {noisy.path} {noisy.shape}; "
            "a noisy volume and its target have the same"
        )
    if method.target == "pair" and spec.pairing == "thinning" and spec.photon_gain == 1 and not _counts(noisy):
        raise FormatError(
            f"{noisy.path} is {noisy.array.dtype}; photon counts (unsigned) can be thinned as they are, others need "
            "`thinning=GAIN` or `thinning=calibrated`"
        )
    if method.target == "pair" and spec.pairing in ("repeats", "interleaved") and noisy.shape[0] < 2:
        raise FormatError(f"{noisy.path} has a single time point; `pair: {spec.pairing}` needs at least two")


def _counts(volume: Volume) -> bool:
    return volume.array.dtype.kind == "u"


def _photons(spec: TrainSpec, calibration: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Gain and offset of each channel, by which intensities become photons to be thinned."""
    models = noise_models(calibration)
    if spec.photon_gain != "calibrated":
        return [(spec.photon_gain, 0.0)] * len(models)
    found = [(one.poisson_gaussian.gain, one.poisson_gaussian.offset) for one in models]
    if spec.method.target == "pair" and spec.pairing == "thinning" and any(gain <= 0 for gain, _ in found):
        raise ConfigError(f"{spec.dataset}: the calibration found no photon noise (gain 0), so nothing can be thinned")
    return found


def _noise_models(method: Method, noisy: Volume, calibration: Mapping[str, Any]) -> list[NoiseModels]:
    """Noise parameters of each channel as the method asks for: calibrated, or those of the synthesis."""
    calibrated = noise_models(calibration)
    if method.true_noise is None:
        return calibrated
    if "noise" not in noisy.record:
        raise ConfigError(
            f"{noisy.path} was measured: its noise parameters are not known; use `parameters: calibrated`"
        )
    true = noisy.record["noise"]
    fits = {
        "impulse": "share" in true,
        "gaussian": true.get("gain") == 0,
        "poisson": true.get("read_noise") == 0,
        "poisson_gaussian": "gain" in true,
    }
    if not fits[method.true_noise]:
        raise ConfigError(
            f"{noisy.path} was drawn with {true}, which `likelihood: {method.true_noise}` cannot describe; use "
            f"`{'impulse' if fits['impulse'] else 'poisson_gaussian'}`"
        )
    if fits["impulse"]:
        return [replace(one, impulse=ImpulseModel(**true)) for one in calibrated]
    model = NoiseModel(**true)
    return [NoiseModels(model, model, model, one.impulse) for one in calibrated]


def _torch_seed(spec: TrainSpec, *what: str | int) -> int:
    """Seed of a torch generator, from the same keyed streams as all randomness."""
    return int(stream(spec.seed, spec.dataset, spec.noise, spec.method.name, *what).integers(2**63))


def learning_rate(progress: float, peak: float) -> float:
    """Cosine ramp up, plateau, squared-cosine ramp down; `progress` from 0 to 1."""
    if progress < RAMP_UP:
        return peak * 0.5 * (1 - math.cos(math.pi * progress / RAMP_UP))
    if progress > 1 - RAMP_DOWN:
        return peak * (0.5 + 0.5 * math.cos(math.pi * (progress - 1 + RAMP_DOWN) / RAMP_DOWN)) ** 2
    return peak


def _optimise(
    net: Network, method: TrainedMethod, sampler: Sampler, output: Path, key: str, device: Device
) -> tuple[Network, int, float]:
    """Run the training loop.

    Returns the trained network, the step it resumed at, 0 for a fresh start, and the seconds up to there.
    """
    clock, checkpoint = Clock(), output / "checkpoint.safetensors"
    device.place(net)
    optimiser = torch.optim.Adam(net.parameters(), betas=BETAS)
    state: dict[str, nn.Module] = {"net": net}
    final = net
    if method.weight_average:
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(method.weight_average), use_buffers=True)
        state["average"], final = average, cast("Network", average.module)
    start, earlier, history = load_checkpoint(checkpoint, key, state, optimiser)
    if start:
        log.info("resuming at step %d of %d", start, method.steps)
    validation = sampler.validation()
    losses: list[float] = []
    net.train()
    with Progress(disable=not device.interactive) as bar:
        task = bar.add_task(method.name, total=method.steps, completed=start)
        for step in range(start, method.steps):
            # learning rate
            progress = (step + 0.5) / method.steps
            stage, within = method.stage(progress)
            rate = learning_rate(within, method.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate

            # forward, backward, clip, step
            batch, rng = sampler.batch(step)
            with device.autocast():
                loss = method.loss(net, device.send(batch), rng, progress)
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise TrainingDiverged(
                    f"{method.name}: loss {loss.item()} and gradient {norm.item()} at step {step} of {method.steps}; "
                    f"lower `learning_rate` (now {method.learning_rate:g}) or check the noise parameters"
                )
            optimiser.step()
            if method.weight_average:
                average.update_parameters(net)
            losses.append(loss.item())
            bar.advance(task)
            if step + 1 - start == TIMED:
                seconds = clock.seconds() / TIMED
                log.info("%.2g s a step, about %.0f min to go", seconds, seconds * (method.steps - step - 1) / 60)

            # evaluate, log, save
            if (step + 1) % EVERY == 0 or step + 1 == method.steps:
                end = (stage + 1) / method.stages
                validated = _validate(final, method, validation, device, end)
                history.append((step + 1, rate, float(np.mean(losses)), validated))
                losses.clear()
                log.info("step %d of %d: loss %.5f, validation %.5f", step + 1, method.steps, *history[-1][2:])
                seconds = earlier + clock.seconds()
                save_checkpoint(checkpoint, key, step + 1, seconds, state, optimiser, history)
    with open(output / "history.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("step", "learning_rate", "loss", "validation_loss"))
        rows.writerows(history)
    return final, start, earlier


@torch.no_grad()
def _validate(
    net: Network,
    method: TrainedMethod,
    validation: Sequence[tuple[Batch, torch.Generator]],
    device: Device,
    progress: float,
) -> float:
    net.eval()
    # a copy of each generator's state: the same voxels are hidden at each validation
    values = [
        method.loss(net, device.send(batch), rng.clone_state(), progress).item() * len(batch.noisy)
        for batch, rng in validation
    ]
    net.train()
    return float(sum(values) / sum(len(batch.noisy) for batch, _ in validation))
