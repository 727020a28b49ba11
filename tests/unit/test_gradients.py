"""Gradients of each loss, by what the network has learned, against numeric ones in float64; HQ-SSL's: test_hqssl.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdenoise.methods import METHODS, Batch
from tests.conftest import generator


class OneConvolution(nn.Module):
    """Stands for a network. With `held_at` a width, images so wide pass another convolution, which is not learned."""

    def __init__(self, held_at: int | None = None) -> None:
        super().__init__()
        self.learned, self.held = (nn.Conv2d(1, 1, 3, padding=1, dtype=torch.double) for _ in range(2))
        self.held_at = held_at

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.held if x.shape[-1] == self.held_at else self.learned)(x)
        return out


class Parts(nn.Module):
    """Stands for SASL's three networks."""

    def __init__(self, learned: str) -> None:
        super().__init__()
        self.learned, self.held = OneConvolution(), OneConvolution()
        self.part = learned

    def forward(self, x: Tensor, part: str = "plain") -> Tensor:
        out: Tensor = (self.learned if part == self.part else self.held)(x)
        return out


class Loss(nn.Module):
    """A loss as a function of the learned weights."""

    def __init__(self, net: nn.Module, name: str, options: dict[str, Any], progress: float) -> None:
        super().__init__()
        self.net, self.method, self.progress = net, METHODS[name](**options), progress

    def forward(self, noisy: Tensor, target: Tensor) -> Tensor:
        return self.method.loss(self.net, Batch(noisy, target), generator(7), self.progress)  # type: ignore[arg-type]


ROW = (((1, 1, 1),),)
CASES = {
    **{f"n2n {criterion}": ("n2n", {"criterion": criterion}, 0.6, None) for criterion in ("l2", "l1", "l0")},
    "n2c": ("n2c", {}, 0.5, None),
    **{f"n2v {how}": ("n2v", {"replacement": how}, 0.5, None) for how in ("uniform", "uniform_with_centre", "mean")},
    "n2v2": ("n2v2", {}, 0.5, None),
    **{f"structn2v {how}": ("structn2v", {"mask": ROW, "replacement": how}, 0.5, None) for how in ("uniform", "mean")},
    # the whole image's estimate is held fixed, by the paper; what is learned is seen through the halves
    "neighbor2neighbor": ("neighbor2neighbor", {}, 0.7, 16),
}


@pytest.mark.parametrize(("name", "options", "progress", "held_at"), CASES.values(), ids=CASES.keys())
def test_gradients_are_right(name: str, options: dict[str, Any], progress: float, held_at: int | None) -> None:
    torch.manual_seed(0)
    _check(Loss(OneConvolution(held_at), name, options, progress), "net.learned.weight")


@pytest.mark.parametrize(("part", "progress"), [("blind", 0.2), ("near", 0.5), ("plain", 0.9)])
def test_gradients_of_sasl_are_right_and_each_stage_teaches_one_network(part: str, progress: float) -> None:
    torch.manual_seed(0)
    loss = Loss(Parts(part), "sasl", {"radius": 1}, progress)
    _check(loss, "net.learned.learned.weight")
    noisy = torch.randn(2, 1, 16, 16, dtype=torch.double, generator=generator())
    loss(noisy, noisy).backward()
    assert all(p.grad is None for p in loss.net.held.parameters())  # type: ignore[union-attr]


def _check(loss: Loss, weight: str) -> None:
    noisy, target = torch.randn(2, 2, 1, 16, 16, dtype=torch.double, generator=generator())

    def of_weight(values: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {weight: values}, (noisy, target))

    start = loss.get_parameter(weight).detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of_weight(start), start)
    assert gradient.abs().max() > 1e-4, "the loss does not depend on what is learned"
    assert torch.autograd.gradcheck(of_weight, start)
