"""How the benchmarks measure: interleaved rounds, medians, work in FLOP, and a peer in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ssdenoise.networks import Network

Name = TypeVar("Name")

THREADS = len(os.sched_getaffinity(0))


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: Mapping[Name, Callable[[], float]], rounds: int, warm: bool = True) -> dict[Name, float]:
    """Medians of what calls return, one after the other in each round, after a round that does not count."""
    found: dict[Name, list[float]] = {name: [] for name in calls}
    for number in range(rounds + warm):
        for name, call in calls.items():
            value = call()
            if number >= warm:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def timed(call: Callable[[], object], rounds: int = 5) -> float:
    """Median seconds of a call, after one that does not count."""
    return interleaved({"": lambda: seconds_of(call)}, rounds)[""]


def peak_convolution() -> float:
    """GFLOP/s of the best convolution here, 96 to 96 channels: what the networks' rates are compared with."""
    layer = torch.nn.Conv2d(96, 96, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(16, 96, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = timed(lambda: layer(image))
    return 2 * 96 * 96 * 9 * 16 * 64 * 64 / seconds / 1e9


def flops(net: Network, image: torch.Tensor) -> float:
    """Floating-point operations per voxel of one pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    return counter.get_total_flops() / image.numel()


class Peer:
    """A process of the peer's environment that does what it is told, one line of JSON for each request."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).with_name("peer_speed.py")
        environment = os.environ | {"THREADS": str(THREADS)}
        self._process = subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, work: str, **options: Any) -> dict[str, Any]:
        """Have some work done; the peer waits meanwhile for the next, which takes no time of the processors."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"work": work} | options) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"the peer ended at {work!r} {options}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
