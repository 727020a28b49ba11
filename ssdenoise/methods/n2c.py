"""Training on clean targets: the upper bound of what the others can reach."""

from __future__ import annotations

from typing import ClassVar, Literal

from ssdenoise.methods.n2n import WithTarget


class N2C(WithTarget):
    """Supervised training, "noise to clean", with the network and the loss of Noise2Noise.

    Notes
    -----
    The target is the clean image itself, which only benchmarks have. What separates a self-supervised method from this
    one in the same table is what the missing clean images cost; what separates this one from the clean image is
    the network, its training, and what the noise has destroyed.

    References
    ----------
    .. [1] J. Lehtinen et al., "Noise2Noise: Learning Image Restoration without Clean Data", ICML 2018,
       arXiv:1803.04189; its table sets the two beside each other.
    """

    target: ClassVar[Literal["pair", "clean"] | None] = "clean"

    name: Literal["n2c"] = "n2c"
