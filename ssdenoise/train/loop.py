"""The training loop."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ssdenoise.device import Device
from ssdenoise.errors import TrainingDiverged
from ssdenoise.interrupt import postponed
from ssdenoise.methods import Batch, Network, TrainedMethod
from ssdenoise.provenance import Clock
from ssdenoise.train.checkpoint import load_checkpoint, save_checkpoint
from ssdenoise.train.sampling import Sampler

log = logging.getLogger(__name__)

Tensors = tuple[Tensor, ...] | list[Tensor]

#: Adam's moments and the learning rate's course are those of the HQ-SSL paper, but for the ramp-down's default: longer
#: than its 30 %, as a short training has no time to average its noise out otherwise.
BETAS = (0.9, 0.99)
RAMP_UP = 0.1

#: Largest norm of the gradient.
CLIP = 1.0

#: Step after which the log says how long the training will take; the first, which sets up more than it trains, does not
#: count.
TIMED = 10

#: Steps between two lines of the history, and between two checkpoints.
EVERY = 50


def learning_rate(progress: float, peak: float, ramp_down: float) -> float:
    """Cosine ramp up, plateau, squared-cosine ramp down over the last share; `progress` from 0 to 1."""
    if progress < RAMP_UP:
        return peak * 0.5 * (1 - math.cos(math.pi * progress / RAMP_UP))
    if progress > 1 - ramp_down:
        return peak * (0.5 + 0.5 * math.cos(math.pi * (progress - 1 + ramp_down) / ramp_down)) ** 2
    return peak


def adam(net: nn.Module, device: Device) -> torch.optim.Adam:
    """The optimiser; a GPU's time would go into launching many small kernels, did not one update all weights."""
    return torch.optim.Adam(net.parameters(), betas=BETAS, fused=device.kind == "cuda")


def exponential(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Update of an exponential moving average; its decay grows up to `decay`, which forgets the first weights."""

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, number: Tensor | int) -> None:
        new = 1 - min(decay, (1 + int(number)) / (10 + int(number)))
        if averages[0].is_floating_point():  # all are of one dtype
            torch._foreach_lerp_(averages, values, new)
        else:
            torch._foreach_copy_(averages, values)

    return update


def optimise(
    net: Network, method: TrainedMethod, sampler: Sampler, output: Path, key: str, device: Device
) -> tuple[Network, int, float]:
    """Run the training loop.

    Returns the trained network, the step it resumed at, 0 for a fresh start, and the seconds up to there.
    """
    clock, checkpoint = Clock(), output / "checkpoint.safetensors"
    device.place(net)
    optimiser = adam(net, device)
    state: dict[str, nn.Module] = {"net": net}
    final = net
    if method.weight_average:
        average = AveragedModel(net, multi_avg_fn=exponential(method.weight_average), use_buffers=True)
        state["average"], final = average, cast("Network", average.module)
    start, earlier, history, losses = load_checkpoint(checkpoint, key, state, optimiser)
    if start:
        log.info("resuming at step %d of %d", start, method.steps)
    validation, following = sampler.validation(), sampler.batch(start)
    net.train()
    with Progress(disable=not device.interactive) as bar, postponed() as ending:
        task = bar.add_task(method.name, total=method.steps, completed=start)
        for step in range(start, method.steps):
            # learning rate
            progress = (step + 0.5) / method.steps
            stage, within = method.stage(progress)
            rate = learning_rate(within, method.learning_rate, method.ramp_down)
            for group in optimiser.param_groups:
                group["lr"] = rate

            # forward, backward, clip, step
            batch, rng = following
            with device.autocast():
                loss = method.loss(net, device.send(batch), rng, progress)
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimiser.step()
            if method.weight_average:
                average.update_parameters(net)
            if step + 1 < method.steps:
                following = sampler.batch(step + 1)  # a GPU is still at work
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise TrainingDiverged(
                    f"{method.name}: loss {loss.item()} and gradient {norm.item()} at step {step} of {method.steps}; "
                    f"lower `learning_rate` (now {method.learning_rate:g}) or check the noise parameters"
                )
            losses.append(loss.item())
            bar.advance(task)
            if step == start:
                warm = clock.seconds()
            if step + 1 - start == TIMED:
                seconds = (clock.seconds() - warm) / (TIMED - 1)
                log.info("%.2g s a step, about %.0f min to go", seconds, seconds * (method.steps - step - 1) / 60)

            # evaluate, log, save
            if (step + 1) % EVERY == 0 or step + 1 == method.steps:
                end = (stage + 1) / method.stages
                validated = _validate(final, method, validation, device, end)
                history.append((step + 1, rate, float(np.mean(losses)), validated))
                losses.clear()
                log.info("step %d of %d: loss %.5f, validation %.5f", step + 1, method.steps, *history[-1][2:])
            if not losses or ending():
                seconds = earlier + clock.seconds()
                save_checkpoint(checkpoint, key, step + 1, seconds, state, optimiser, history, losses)
            if ending():
                log.info("told to end; a new start goes on after step %d of %d", step + 1, method.steps)
                break
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
