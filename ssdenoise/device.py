"""The processor that torch runs on: CPU threads, or the GPU that the profile granted."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssdenoise.errors import ConfigError
from ssdenoise.methods import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """Where networks and batches go.

    Attributes
    ----------
    kind : {"cpu", "cuda"}
    name : str
        For the provenance: model of the GPU, or number of threads.
    """

    kind: str
    name: str

    @classmethod
    def granted(cls, gpu: int, threads: int) -> Device:
        """The device for a job that was granted `gpu` GPUs and `threads` threads.

        Raises
        ------
        ConfigError
            If a GPU was granted and torch sees none: running on the CPU instead would hide a broken installation.
        """
        torch.set_num_threads(threads)
        if gpu == 0:
            log.info("no GPU granted: running on %d CPU threads", threads)
            return cls("cpu", f"cpu, {threads} threads")
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
        return cls("cuda", torch.cuda.get_device_name())

    @property
    def interactive(self) -> bool:
        """Whether somebody watches: progress bars are for terminals."""
        return sys.stderr.isatty()

    def place(self, net: nn.Module) -> None:
        """Move a network here."""
        net.to(self.kind)

    def place_for_inference(self, net: nn.Module, ndim: int) -> None:
        """Move a network here, with 2-D weights in channels-last order: up to twice as fast forward, not backward."""
        self.place(net)
        if ndim == 2:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def send_for_inference(self, noisy: Tensor) -> Tensor:
        """Move a batch of noisy images here, in the order that the weights are in."""
        return noisy.to(self.kind, memory_format=torch.channels_last if noisy.ndim == 4 else torch.contiguous_format)

    def send(self, batch: Batch) -> Batch:
        """Move a batch here."""
        if self.kind == "cpu":
            return batch
        moved = [
            None if tensor is None else tensor.pin_memory().to(self.kind, non_blocking=True)
            for tensor in (batch.noisy, batch.target)
        ]
        assert moved[0] is not None
        return Batch(moved[0], moved[1])

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Half-precision arithmetic in training on a GPU; on CPUs it is slower than single precision."""
        if self.kind == "cpu":
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=torch.bfloat16)


#: The CPU with as many threads as torch takes by itself; for use outside the workflow.
CPU = Device("cpu", f"cpu, {torch.get_num_threads()} threads")
