"""Train: fit one method to one noisy volume, from patches read straight from the store."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ssdenoise.config import TrainSpec, dump
from ssdenoise.device import Device
from ssdenoise.errors import ConfigError, FormatError, TrainingDiverged
from ssdenoise.intensity import Normalization
from ssdenoise.methods import Batch, Method, Network, TrainedMethod
from ssdenoise.model import save_tensors
from ssdenoise.noise import NoiseModel, NoiseModels, stream, thin
from ssdenoise.provenance import Clock, code_hash, digest, file_digest, record, write_json, write_text
from ssdenoise.store import Volume

log = logging.getLogger(__name__)

#: Adam's moments and the learning rate's course are those of the HQ-SSL paper; the ramp-down is longer than its 30 %,
#: as a short training has no time to average its noise out otherwise.
BETAS = (0.9, 0.99)
RAMP_UP, RAMP_DOWN = 0.1, 0.5

#: Largest norm of the gradient.
CLIP = 1.0

#: Steps between two lines of the history, and between two checkpoints.
EVERY = 50

#: Share of the volume's cells, a patch large, that no training patch touches.
HELD_OUT = 0.05

#: Probability of a photon to go to the first image of a thinned pair.
THINNING = 0.5

#: Bytes of decoded chunks that a sampler keeps.
CACHE_BYTES = 256 * 2**20


def train(
    spec: TrainSpec, noisy: Path, pair: Path | None, calibration: Path, output: Path, device: Device
) -> dict[str, Any]:
    """Train a model, or fit a baseline.

    Parameters
    ----------
    spec : TrainSpec
    noisy : Path
        Store of the noisy volume.
    pair : Path or None
        Store of the second realization, for methods that need one and do not get it by thinning.
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
    volumes = [Volume(noisy)] + ([Volume(pair)] if pair else [])
    _check(spec, volumes)
    normalization = volumes[0].intensities().normalization()
    inputs = {"noisy": volumes[0].digest, "calibration": file_digest(calibration)}
    if pair:
        inputs["pair"] = volumes[1].digest
    torch.manual_seed(_torch_seed(spec, "init"))
    method, channels = spec.method, volumes[0].shape[1]
    net = method.build(channels, spec.ndim, _noise_models(method, volumes[0], calibration).normalized(normalization))
    output.mkdir(parents=True, exist_ok=True)
    resumed = 0
    if isinstance(method, TrainedMethod):
        sampler = Sampler(spec, method, volumes, normalization)
        resumed = _optimise(
            net, method, sampler, output, digest(dump(spec), json.dumps(inputs), code, device.kind), device
        )
    else:
        method.fit(net, _sample(volumes[0], spec.ndim, normalization))
        write_text(output / "history.csv", "step,learning_rate,loss,validation_loss\n")
    result = {
        "method": method.model_dump(mode="json"),
        "channels": channels,
        "ndim": spec.ndim,
        "normalization": vars(normalization),
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
        ),
    }
    save_tensors(net.state_dict(), output / "model.safetensors")
    write_json(output / "model.json", result)
    (output / "checkpoint.safetensors").unlink(missing_ok=True)
    return result


def _check(spec: TrainSpec, volumes: Sequence[Volume]) -> None:
    method = spec.method
    if method.needs_pair and not spec.thinning and len(volumes) < 2:
        raise ConfigError(f"{spec.dataset}: {method.name} needs a pair; give --pair, or thinning of photon counts")
    if len(volumes) == 2 and volumes[0].shape != volumes[1].shape:
        raise FormatError(
            f"{volumes[1].path} has shape {volumes[1].shape}, its pair {volumes[0].path} {volumes[0].shape}; "
            "two realizations of one scene have the same"
        )
    if method.needs_pair and spec.thinning and volumes[0].array.dtype.kind != "u":
        raise FormatError(
            f"{volumes[0].path} is {volumes[0].array.dtype}; only photon counts (unsigned) can be thinned"
        )


def _noise_models(method: Method, noisy: Volume, calibration: Path) -> NoiseModels:
    """Noise parameters as the method asks for: calibrated, or those of the synthesis."""
    if not method.wants_true_noise:
        return NoiseModels.from_json(json.loads(calibration.read_text()))
    if "noise" not in noisy.record:
        raise ConfigError(
            f"{noisy.path} was measured: its noise parameters are not known; use `parameters: calibrated`"
        )
    true = NoiseModel(**noisy.record["noise"])
    return NoiseModels(true, true, true)


def _torch_seed(spec: TrainSpec, *what: str | int) -> int:
    """Seed of a torch generator, from the same keyed streams as all randomness."""
    return int(stream(spec.seed, spec.dataset, spec.noise, spec.method.name, *what).integers(2**63))


class Sampler:
    """Random patches of a noisy volume, in normalised units; a pure function of the step.

    Parameters
    ----------
    spec : TrainSpec
    method : TrainedMethod
    volumes : sequence of Volume
        The noisy volume and, where there is one, the second realization.
    normalization : Normalization
        Of the noisy volume; both realizations are normalised by it.

    Notes
    -----
    The volume is cut into cells of a patch's size. A few cells are held out for validation, and training patches
    that touch one are drawn again. Decoded chunks are kept in a bounded cache, least recently used out first.
    """

    def __init__(
        self, spec: TrainSpec, method: TrainedMethod, volumes: Sequence[Volume], normalization: Normalization
    ) -> None:
        self.spec, self.method, self.normalization = spec, method, normalization
        t, _, *self.size = volumes[0].shape
        wanted = method.patch if spec.ndim == 3 else (1, *method.patch[1:])
        self.patch = tuple(min(p, n) for p, n in zip(wanted, self.size, strict=True))
        self.readers = [_cached_reader(volume, CACHE_BYTES // len(volumes)) for volume in volumes]
        cells = list(product(range(t), *(range(n // p) for n, p in zip(self.size, self.patch, strict=True))))
        held = min(max(1, round(HELD_OUT * len(cells))), len(cells) - 1)
        order = stream(spec.seed, spec.dataset, "held out").permutation(len(cells))
        #: with a single cell nothing can be held out, and validation reuses it
        self.validation_cells = [cells[i] for i in order[: max(1, held)]]
        self.held_out = set(self.validation_cells) if held else set()
        self.frames = t

    def batch(self, step: int) -> tuple[Batch, torch.Generator]:
        """Training patches of a step, randomly turned and flipped, and the generator for the loss."""
        rng = stream(self.spec.seed, self.spec.dataset, self.spec.noise, self.method.name, "step", step)
        pairs = [self._pair(*self._place(rng), rng, augment=True) for _ in range(self.method.batch)]
        return self._collate(pairs), torch.Generator().manual_seed(int(rng.integers(2**63)))

    def validation(self) -> list[tuple[Batch, torch.Generator]]:
        """Held-out patches, the same at each call."""
        cells = self.validation_cells[: 4 * self.method.batch]
        batches = []
        for first in range(0, len(cells), self.method.batch):
            rng = stream(self.spec.seed, self.spec.dataset, "validation", first)
            chosen = cells[first : first + self.method.batch]
            pairs = [
                self._pair(cell[0], tuple(i * p for i, p in zip(cell[1:], self.patch, strict=True)), rng, augment=False)
                for cell in chosen
            ]
            batches.append((self._collate(pairs), torch.Generator().manual_seed(first)))
        return batches

    def _place(self, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
        """Frame and origin of a patch that touches no held-out cell."""
        while True:
            frame = int(rng.integers(self.frames))
            origin = tuple(int(rng.integers(n - p + 1)) for n, p in zip(self.size, self.patch, strict=True))
            touched = product(*(range(o // p, (o + p - 1) // p + 1) for o, p in zip(origin, self.patch, strict=True)))
            if not any((frame, *cell) in self.held_out for cell in touched):
                return frame, origin

    def _pair(
        self, frame: int, origin: Sequence[int], rng: np.random.Generator, *, augment: bool
    ) -> list[npt.NDArray[np.float32]]:
        """A patch of each realization, (C, [Z,] Y, X): one where the method needs no pair."""
        patches = [read(frame, origin, self.patch) for read in self.readers]
        if self.method.needs_pair and self.spec.thinning:
            patches = list(thin(patches[0], THINNING, rng))
        if self.method.needs_pair and augment and rng.integers(2):
            patches.reverse()  # either realization can be the input
        quarter, flip = (int(rng.integers(4)), int(rng.integers(2))) if augment else (0, 0)
        if self.patch[1] != self.patch[2]:
            quarter -= quarter % 2  # a quarter turn would change the shape
        out = []
        for patch in patches if self.method.needs_pair else patches[:1]:
            turned = np.rot90(self.normalization.apply(patch), quarter, (-2, -1))
            turned = turned[..., ::-1] if flip else turned
            out.append(np.ascontiguousarray(turned if self.spec.ndim == 3 else turned[:, 0]))
        return out

    @staticmethod
    def _collate(pairs: Sequence[Sequence[npt.NDArray[np.float32]]]) -> Batch:
        return Batch(*(torch.from_numpy(np.stack(patches)) for patches in zip(*pairs, strict=True)))


def _cached_reader(volume: Volume, cache_bytes: int) -> Callable[[int, Sequence[int], Sequence[int]], npt.NDArray[Any]]:
    """Function of frame, origin and size (ZYX) that returns (C, Z, Y, X), with a cache of decoded chunks."""
    _, channels, *size = volume.shape
    chunk = volume.layout.chunk[2:]
    chunk_bytes = channels * math.prod(chunk) * volume.array.dtype.itemsize

    @lru_cache(maxsize=max(8, cache_bytes // chunk_bytes))
    def decoded(frame: int, *index: int) -> npt.NDArray[Any]:
        place = (slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunk, size, strict=True))
        return np.asarray(volume.read((slice(frame, frame + 1), slice(None), *place))[0])

    def read(frame: int, origin: Sequence[int], shape: Sequence[int]) -> npt.NDArray[Any]:
        out = np.empty((channels, *shape), volume.array.dtype)
        spans = [range(o // c, (o + n - 1) // c + 1) for o, n, c in zip(origin, shape, chunk, strict=True)]
        for index in product(*spans):
            block = decoded(frame, *index)
            source, target = [], []
            for i, c, o, n in zip(index, chunk, origin, shape, strict=True):
                start, stop = max(o, i * c), min(o + n, (i + 1) * c)
                source.append(slice(start - i * c, stop - i * c))
                target.append(slice(start - o, stop - o))
            out[(slice(None), *target)] = block[(slice(None), *source)]
        return out

    return read


def learning_rate(progress: float, peak: float) -> float:
    """Cosine ramp up, plateau, squared-cosine ramp down; `progress` from 0 to 1."""
    if progress < RAMP_UP:
        return peak * 0.5 * (1 - math.cos(math.pi * progress / RAMP_UP))
    if progress > 1 - RAMP_DOWN:
        return peak * (0.5 + 0.5 * math.cos(math.pi * (progress - 1 + RAMP_DOWN) / RAMP_DOWN)) ** 2
    return peak


def _optimise(net: Network, method: TrainedMethod, sampler: Sampler, output: Path, key: str, device: Device) -> int:
    """The training loop; returns the step it resumed at, 0 for a fresh start."""
    device.place(net)
    optimiser = torch.optim.Adam(net.parameters(), betas=BETAS)
    start, history = _resume(output / "checkpoint.safetensors", key, net, optimiser)
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
            rate = learning_rate(progress, method.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate

            # forward, backward, clip, step
            batch, rng = sampler.batch(step)
            with device.autocast():
                loss = method.loss(net, device.send(batch), rng, progress)
            if not torch.isfinite(loss):
                raise TrainingDiverged(
                    f"{method.name}: loss is {loss.item()} at step {step} of {method.steps}; lower `learning_rate` "
                    f"(now {method.learning_rate:g}) or check the noise parameters"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimiser.step()
            losses.append(loss.item())
            bar.advance(task)

            # evaluate, log, save
            if (step + 1) % EVERY == 0 or step + 1 == method.steps:
                history.append((step + 1, rate, float(np.mean(losses)), _validate(net, method, validation, device)))
                losses.clear()
                log.info("step %d of %d: loss %.5f, validation %.5f", step + 1, method.steps, *history[-1][2:])
                _checkpoint(output / "checkpoint.safetensors", key, step + 1, net, optimiser, history)
    with open(output / "history.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("step", "learning_rate", "loss", "validation_loss"))
        rows.writerows(history)
    return start


@torch.no_grad()
def _validate(
    net: Network, method: TrainedMethod, validation: Sequence[tuple[Batch, torch.Generator]], device: Device
) -> float:
    net.eval()
    # a copy of each generator's state: the same voxels are hidden at each validation
    values = [
        method.loss(net, device.send(batch), rng.clone_state(), 1.0).item() * len(batch.noisy)
        for batch, rng in validation
    ]
    net.train()
    return float(sum(values) / sum(len(batch.noisy) for batch, _ in validation))


History = list[tuple[int, float, float, float]]


def _checkpoint(
    path: Path, key: str, step: int, net: Network, optimiser: torch.optim.Optimizer, history: History
) -> None:
    """All state of the loop as tensors: weights, Adam's moments, and the history."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors["history"] = torch.tensor(history, dtype=torch.float64)
    save_tensors(tensors, path, {"key": key, "step": str(step)})


def _resume(path: Path, key: str, net: Network, optimiser: torch.optim.Optimizer) -> tuple[int, History]:
    """Step and history to go on from; a checkpoint of other options, inputs or code is left alone and overwritten."""
    if not path.is_file():
        return 0, []
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("key") != key:
        return 0, []
    tensors = load_file(path)
    net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    history = [(int(row[0]), *row[1:]) for row in tensors["history"].tolist()]
    return int(metadata["step"]), history


def _sample(volume: Volume, ndim: int, normalization: Normalization) -> Tensor:
    """Central crops for baselines: 8 planes of 256x256, or one block of 16x128x128 in 3-D; (B, C, [Z,] Y, X)."""
    t, _, *size = volume.shape
    wanted = (1, 256, 256) if ndim == 2 else (16, 128, 128)
    crop = [min(w, n) for w, n in zip(wanted, size, strict=True)]
    starts = [(n - c) // 2 for n, c in zip(size, crop, strict=True)]
    planes = np.unique(np.linspace(0, size[0] - 1, 8).round().astype(int)) if ndim == 2 else [starts[0]]
    blocks = []
    for z in planes:
        place = (slice(int(s), int(s) + c) for s, c in zip((z, *starts[1:]), crop, strict=True))
        block = normalization.apply(volume.read((slice(t // 2, t // 2 + 1), slice(None), *place)))[0]
        blocks.append(block[:, 0] if ndim == 2 else block)
    return torch.from_numpy(np.stack(blocks))
