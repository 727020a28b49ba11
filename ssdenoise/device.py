"""The processor that torch runs on: CPU threads, or the GPU that the profile granted."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from ssdenoise.errors import ConfigError
from ssdenoise.methods import Batch
from ssdenoise.networks import Conv

log = logging.getLogger(__name__)

#: Orders of memory in which the channels of a voxel lie side by side, by the number of a tensor's axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Device:
    """Where networks and batches go.

    Attributes
    ----------
    kind : {"cpu", "cuda"}
    name : str
        For the provenance: model of the GPU, or number of threads.
    threads : int
        Of the processor.
    index : int
        Of the GPU, among those that the process sees.
    """

    kind: str
    name: str
    threads: int = 1
    index: int = 0

    @classmethod
    def granted(cls, gpu: int, threads: int, worker: int = 0) -> Device:
        """The device for a job that was granted `gpu` GPUs and `threads` threads, of which a worker takes one GPU.

        Raises
        ------
        ConfigError
            If a GPU was granted and torch sees none: running on the CPU instead would hide a broken installation.
        """
        torch.set_num_threads(threads)
        if gpu == 0:
            log.info("no GPU granted: running on %d CPU threads", threads)
            return cls("cpu", f"cpu, {threads} threads", threads)
        if not torch.cuda.is_available():
            raise ConfigError(
                f"the profile grants {gpu} GPU, torch {torch.__version__} sees none; install a CUDA build and driver, "
                "or run with a profile that sets gpu: 0"
            )
        # same inputs, same machine, same bits; and float32 means float32 where tiles must equal the whole
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        index = worker % torch.cuda.device_count()
        return cls("cuda", torch.cuda.get_device_name(index), threads, index)

    @classmethod
    def elsewhere(cls, gpu: int) -> Device:
        """The devices of a Dask scheduler's workers, each a GPU if `gpu` is above 0."""
        return cls("cuda" if gpu else "cpu", "workers of a Dask scheduler")

    @property
    def where(self) -> str:
        """For torch."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def interactive(self) -> bool:
        """Whether somebody watches: progress bars are for terminals."""
        return sys.stderr.isatty()

    @property
    def networks(self) -> int:
        """Networks that run at once: on a CPU one, which takes all threads; on a GPU one computes while one copies."""
        return 1 if self.kind == "cpu" else 2

    def enter(self) -> None:
        """Make a thread ready to run a network here; of a new one torch takes it that it has fewer threads."""
        torch.set_num_threads(self.threads)
        if self.kind == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(self.where))

    def place(self, net: nn.Module) -> None:
        """Move a network here, its 2-D weights channels last: up to 1.5 times as fast in training (3-D: no faster)."""
        net.to(self.where)
        _reorder(net, 4)

    def place_for_inference(self, net: nn.Module) -> None:
        """Move a network here, in the fastest form measured: layers fused; on CPUs, weights channels last.

        On a GPU that order is for tensor cores, which float32 does without: an H100 took up to three times as long.
        """
        fuse(net)
        net.to(self.where)
        if self.kind == "cpu":
            _reorder(net, *CHANNELS_LAST)
        self.wait()  # it may run in other streams

    def send_for_inference(self, noisy: Tensor) -> Tensor:
        """Move a batch of noisy images here, in the order that the weights are in."""
        if self.kind == "cpu":
            return noisy.contiguous(memory_format=CHANNELS_LAST[noisy.ndim])
        return noisy.to(self.where)

    def send_intensities(self, values: npt.NDArray[Any]) -> Tensor:
        """Copy intensities here, as float32; they travel as they are, which is half as much of 16-bit ones."""
        return torch.from_numpy(values).to(self.where).to(torch.float32)

    def wait(self) -> None:
        """Until all that was sent here is done."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.where)

    def release(self) -> None:
        """Give memory back that torch keeps for later."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()

    def send(self, batch: Batch) -> Batch:
        """Move a batch here."""
        if self.kind == "cpu":
            return batch
        moved = [
            None if tensor is None else tensor.pin_memory().to(self.where, non_blocking=True)
            for tensor in (batch.noisy, batch.target)
        ]
        assert moved[0] is not None
        return Batch(moved[0], moved[1])

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Half-precision arithmetic in training on a GPU; on CPUs it is slower than single precision."""
        if self.kind == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=torch.bfloat16)


def _reorder(net: nn.Module, *ndims: int) -> None:
    """Put weights of so many axes into channels-last order."""
    for parameter in net.parameters():
        if parameter.ndim in ndims:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.ndim])


#: The CPU with as many threads as torch takes by itself; for use outside the workflow.
CPU = Device("cpu", f"cpu, {torch.get_num_threads()} threads", torch.get_num_threads())


def fuse(net: nn.Module) -> None:
    """Let layers of a network do what follows them in place, which training must not."""
    for module in net.modules():
        if isinstance(module, Conv):
            module.fuse()
