"""U-Nets in the two published forms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast

from torch import Tensor, nn

from ssdenoise.networks.layers import BlurPool, Chain, Conv, Interval, Network, Pool, halo_of


def _union(a: Interval, b: Interval) -> Interval:
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


class UNet(nn.Module):
    """U-Net in one of two published forms.

    `skips="pooled"`: constant width, each skip is the input of its scale and the top skip the image itself; no
    normalisation (Lehtinen et al. 2018, appendix A.1). `skips="features"`: two convolutions per scale, width doubling
    with depth, each skip is the output of its scale, batch normalisation (Krull et al. 2019, after csbdeep).

    Parameters
    ----------
    ndim : {2, 3}
    inputs : int
        Channels of the image.
    width : int
        Channels at full resolution.
    depth : int
        Number of poolings; the stride is 2**depth in Y and X.
    head : sequence of int
        Channels of the 3x3 convolutions at full resolution after the last skip.
    skips : {"pooled", "features"}
    up : int or None
        With `skips="pooled"`, channels on the way up below full resolution; the default, as published, is twice
        `width`.
    causal : int or None
        Spatial axis of a half-space network: its output sees, along that axis, only the own row and those before.
    batch_norm : bool
        Normalise over the batch after each convolution.
    flat : bool
        In 3-D every second convolution looks within the plane only: half the work, and half the reach along Z, where
        patches are short.
    alias_free : bool
        N2V2's two changes against checkerboards (Höck et al. 2022), for `skips="features"`: blurred pooling, and no
        skip at full resolution.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        *,
        width: int,
        depth: int,
        head: Sequence[int],
        skips: Literal["pooled", "features"],
        up: int | None = None,
        causal: int | None = None,
        batch_norm: bool = False,
        flat: bool = False,
        alias_free: bool = False,
    ) -> None:
        super().__init__()
        slope = 0.1 if skips == "pooled" else 0.0

        def chain(*channels: int) -> Chain:
            return Chain(
                *(
                    Conv(ndim, a, b, slope=slope, causal=causal, batch_norm=batch_norm, flat=flat and i % 2 == 1)
                    for i, (a, b) in enumerate(pairwise(channels))
                )
            )

        self.ndim, self.depth, self.pooled = ndim, depth, skips == "pooled"
        self.top_skip = not alias_free
        self.pool = BlurPool(ndim) if alias_free else Pool(ndim, causal)
        if self.pooled:
            w, up = width, up or 2 * width
            self.encoder = nn.ModuleList([chain(inputs, w, w), *(chain(w, w) for _ in range(depth - 1))])
            self.bottom = chain(w, w)
            self.decoder = nn.ModuleList(
                [chain((up if scale < depth - 1 else w) + w, up, up) for scale in range(depth - 1, 0, -1)]
                + [chain((up if depth > 1 else w) + inputs, *head)]
            )
            self.decoder[-1][0].expects(upsampled=up if depth > 1 else w)  # type: ignore[index]
        else:
            widths = [width * 2**scale for scale in range(depth + 1)]
            self.encoder = nn.ModuleList(
                [
                    chain(inputs if scale == 0 else widths[scale - 1], widths[scale], widths[scale])
                    for scale in range(depth)
                ]
            )
            self.bottom = chain(widths[depth - 1], widths[depth], widths[depth - 1])
            self.decoder = nn.ModuleList(
                [chain(2 * widths[scale], widths[scale], widths[scale - 1]) for scale in range(depth - 1, 0, -1)]
                + [chain((1 + self.top_skip) * widths[0], *head)]
            )
        self.outputs = head[-1]

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for encode in self.encoder:
            if self.pooled:
                skips.append(x)
                x = encode(x)
            else:
                x = encode(x)
                skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for scale, decode in zip(reversed(range(self.depth)), self.decoder, strict=True):
            first, *others = cast("Iterable[Conv]", decode)
            x = first.of_upsampled(x, skips.pop(), self.pool.up) if scale or self.top_skip else first(self.pool.up(x))
            for layer in others:
                x = layer(x)  # one by one, which lets go of what comes before: the peak of memory is here
        return x

    def reach(self, need: Interval) -> Interval:
        skips = []
        for decode in reversed(self.decoder):
            need = decode.reach(need)  # type: ignore[operator]
            skips.append(need)
            need = self.pool.reach_up(need)
        need = self.bottom.reach(need)
        for scale, encode in zip(reversed(range(self.depth)), reversed(self.encoder), strict=True):
            need, skip = self.pool.reach(need), skips.pop()
            if self.pooled:
                need = _union(encode.reach(need), skip)  # type: ignore[operator]
            else:
                need = encode.reach(_union(need, skip) if scale or self.top_skip else need)  # type: ignore[operator]
        return need


class Plain(Network):
    """A U-Net, 1x1 convolutions of `mix` channels, and a last one without rectifier: sees the centre too."""

    def __init__(self, unet: UNet, outputs: int, *, last_kernel: int = 1, mix: Sequence[int] = ()) -> None:
        super().__init__()
        self.unet = unet
        channels = [unet.outputs, *mix]
        self.last = Chain(
            *(Conv(unet.ndim, a, b, kernel=1) for a, b in pairwise(channels)),
            Conv(unet.ndim, channels[-1], outputs, kernel=last_kernel, slope=None),
        )
        self.stride = tuple(f**unet.depth for f in unet.pool.factor)
        self.halo = halo_of(self.reach(tuple((0, s - 1) for s in self.stride)), self.stride)

    def reach(self, need: Interval) -> Interval:
        return self.unet.reach(self.last.reach(need))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.unet(x))  # type: ignore[no-any-return]
