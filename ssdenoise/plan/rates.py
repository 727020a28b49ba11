"""How fast a method trains and denoises here: measured on random images, in seconds."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from ssdenoise.device import Device
from ssdenoise.errors import ConfigError, FormatError, MissingInputError
from ssdenoise.grid import ceil_to
from ssdenoise.methods import Method, Network, TrainedMethod
from ssdenoise.model import placeholder_noise
from ssdenoise.needs import CALIBRATION, batch_of
from ssdenoise.provenance import canonical, digest, listed, read_json, write_json
from ssdenoise.train.loop import adam

#: Repetitions of what is timed, after one that is not.
ROUNDS = 3

#: Images that inference is timed on, in voxels ZYX, and how many planes of them: large enough to be as fast as on large
#: ones, which on a GPU takes as many voxels as pieces have there.
TIMED = {"cpu": (16, 256, 256), "cuda": (32, 256, 256)}
PLANES = {"cpu": 1, "cuda": 32}


@dataclass(frozen=True)
class Rate:
    """Speed of a method on a device.

    Attributes
    ----------
    kind : {"cpu", "cuda"}
        Of the device.
    step_seconds : float
        Of one training step; 0 for methods that do not train.
    voxels_per_second : float
        Of inference, halos counted, all channels of a voxel together.
    """

    kind: str
    step_seconds: float
    voxels_per_second: float


#: By device, and by the digest of method, dimensions and channels.
TABLE = TypeAdapter(dict[str, dict[str, Rate]])


class Rates:
    """Rates of methods on one device, measured when they are asked for, or read from a table.

    Parameters
    ----------
    device : Device
        What is measured.
    table : Path, optional
        JSON file to take rates from, and to write those to that it lacks.
    elsewhere : str, optional
        Part of the name of another device, all of whose rates the table has; then none are measured.

    Attributes
    ----------
    name : str
        Of the device.

    Raises
    ------
    ConfigError
        If the table has no such device, or several.
    FormatError
        If the file is no table of rates.
    MissingInputError
        If another device is asked for, and there is no file.
    """

    def __init__(self, device: Device, table: Path | None = None, elsewhere: str | None = None) -> None:
        self._device, self._table, self._elsewhere = device, table, elsewhere is not None
        if table and elsewhere and not table.exists():
            raise MissingInputError(
                f"no table of rates {table}; `plan --rates {table}` without --device, on the machine with the device, "
                "writes it"
            )
        self._known = _read(table) if table and table.exists() else {}
        self.name = device.name if device.kind == "cuda" else f"{device.name} of {_processor()}"
        if elsewhere is not None:
            fits = [name for name in self._known if elsewhere in name]
            if len(fits) != 1:
                raise ConfigError(
                    f"--device {elsewhere!r} fits {len(fits)} of the devices in {table}; needed is part of the name of "
                    f"one: {listed(map(repr, self._known)) or 'it has none'}"
                )
            self.name = fits[0]

    def of(self, method: Method, ndim: int, channels: int) -> Rate:
        """Rate of a method on images of so many dimensions and channels."""
        known = self._known.setdefault(self.name, {})
        key = digest(canonical([method.model_dump(mode="json"), ndim, channels]))
        if key not in known:
            if self._elsewhere:
                raise ConfigError(
                    f"{self._table} has no rate of {method.name} with these options for {ndim} dimensions and "
                    f"{channels} channels on {self.name}; run the same plan there, with --rates and without --device"
                )
            known[key] = measured(method, ndim, channels, self._device)
            if self._table:
                write_json(self._table, TABLE.dump_python(self._known, mode="json"))
        return known[key]


def _read(table: Path) -> dict[str, dict[str, Rate]]:
    """A table of rates."""
    try:
        return TABLE.validate_python(read_json(table))
    except (ValidationError, UnicodeDecodeError):
        raise FormatError(f"{table} is no table of rates; delete it, or give --rates another file to write") from None


def _processor() -> str:
    """Model of the processor."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1]
    return platform.machine()


def measured(method: Method, ndim: int, channels: int, device: Device) -> Rate:
    """Time a training step and inference of a method on random images."""
    method = method.calibrated(json.loads(json.dumps(CALIBRATION)))
    net = method.build(channels, ndim, [placeholder_noise()] * channels)
    step_seconds = _training(method, net, ndim, channels, device) if isinstance(method, TrainedMethod) else 0.0
    net.eval()
    device.place_for_inference(net)
    size = [ceil_to(n, s) for n, s in zip(TIMED[device.kind][3 - ndim :], net.stride, strict=True)]
    images = PLANES[device.kind] if ndim == 2 else 1
    noisy = device.send_for_inference(torch.randn(images, channels, *size))
    with torch.no_grad():
        seconds = _timed(lambda: method.estimate(net, noisy), device)
    return Rate(device.kind, step_seconds, images * math.prod(size) / seconds)


def _training(method: TrainedMethod, net: Network, ndim: int, channels: int, device: Device) -> float:
    """Seconds of a training step."""
    device.place(net)
    net.train()
    batch, rng = batch_of(method, ndim, channels, net.stride), torch.Generator().manual_seed(0)
    optimiser = adam(net, device)

    def step() -> None:
        with device.autocast():
            loss = method.loss(net, device.send(batch), rng, 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return _timed(step, device)


def _timed(call: Callable[[], object], device: Device) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        call()
        device.wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
