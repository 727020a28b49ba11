"""What networks see, by autograd: the blind spot, and the halo that each declares."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ssdenoise.grid import ceil_to
from ssdenoise.methods import METHODS
from ssdenoise.networks import BlindSpot, BlockMean, Network, Plain, Planes, UNet

#: Channels: how far a network sees does not depend on them, how long the tests take does.
WIDTH = {2: 4, 3: 1}


def positive(net: Network) -> Network:
    """All weights positive: no path through the network cancels or is cut by a rectifier."""
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    return net.double().eval()


def gradient(net: Network, shape: tuple[int, ...], core: tuple[slice, ...]) -> torch.Tensor:
    """Absolute derivative of the output over `core` with respect to each voxel of the input."""
    torch.manual_seed(0)
    image = torch.rand(shape, dtype=torch.double, requires_grad=True)
    stride = net.stride
    pad = [p for n, s in zip(reversed(shape[2:]), reversed(stride), strict=True) for p in (0, -n % s)]
    net(functional.pad(image, pad))[(..., *core)].sum().backward()  # padded as the denoise stage pads
    assert image.grad is not None
    return image.grad.abs()


def blind(ndim: int, depth: int, channels: int = 1) -> Network:
    w = WIDTH[ndim]
    return positive(BlindSpot(ndim, channels, 2 * channels, width=w, depth=depth, head=(w, w), mix=(w,)))


def plain(ndim: int, depth: int, skips: str, alias_free: bool = False) -> Network:
    w = WIDTH[ndim]
    unet = UNet(ndim, 1, width=w, depth=depth, head=(w, w), skips=skips, alias_free=alias_free)  # type: ignore[arg-type]
    return positive(Plain(unet, 1, last_kernel=3))


def beside(depth: int) -> Network:
    """Of three planes, the outer ones need not be hidden."""
    return BlindSpot(2, 3, 2, width=4, depth=depth, head=(4, 4), mix=(4,), beside=(0, 2))


NETS = [
    pytest.param(lambda: plain(2, 2, "pooled"), (112, 112), id="plain-2d-2"),
    pytest.param(lambda: plain(2, 3, "pooled"), (176, 176), id="plain-2d-3"),
    pytest.param(lambda: plain(2, 2, "features"), (112, 112), id="features-2d-2"),
    pytest.param(lambda: plain(2, 3, "features"), (208, 208), id="features-2d-3"),
    pytest.param(lambda: plain(2, 2, "features", alias_free=True), (112, 112), id="alias-free-2d-2"),
    pytest.param(lambda: plain(2, 3, "features", alias_free=True), (240, 240), id="alias-free-2d-3"),
    pytest.param(lambda: plain(3, 2, "features", alias_free=True), (35, 80, 80), id="alias-free-3d-2"),
    pytest.param(lambda: plain(3, 2, "pooled"), (34, 64, 64), id="plain-3d-2"),
    pytest.param(lambda: plain(3, 2, "features"), (35, 80, 80), id="features-3d-2"),
    pytest.param(lambda: blind(2, 2), (112, 112), id="blind-2d-2"),
    pytest.param(lambda: blind(2, 3), (208, 208), id="blind-2d-3"),
    pytest.param(lambda: plain(3, 3, "pooled"), (28, 80, 80), id="plain-3d-3"),
    pytest.param(lambda: blind(3, 1), (25, 40, 40), id="blind-3d-1"),
    pytest.param(lambda: blind(3, 2), (38, 80, 80), id="blind-3d-2"),
    pytest.param(lambda: positive(Planes(beside(2), 3)), (6, 112, 112), id="planes-beside"),
    pytest.param(lambda: positive(BlockMean(plain(2, 2, "pooled"))), (256, 256), id="block-mean"),
]


@pytest.mark.parametrize(("make", "size"), NETS)
def test_the_declared_halo_is_what_autograd_sees(make: object, size: tuple[int, ...]) -> None:
    net = make()  # type: ignore[operator]
    start = [n // 2 // s * s for n, s in zip(size, net.stride, strict=True)]
    core = tuple(slice(a, a + s) for a, s in zip(start, net.stride, strict=True))
    seen = gradient(net, (1, 1, *size), core)[0, 0]
    for axis, (halo, stride) in enumerate(zip(net.halo, net.stride, strict=True)):
        others = [other for other in range(seen.ndim) if other != axis]
        touched = seen.amax(dim=others).nonzero().flatten()
        before, after = start[axis] - int(touched[0]), int(touched[-1]) - (core[axis].stop - 1)
        assert touched[0] > 0, "the test's image is too small to see the whole field"
        assert halo == ceil_to(max(before, after), stride)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (13, 21), (7, 9)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_blind_spot_is_exactly_blind_and_nothing_else_is(size: tuple[int, int], depth: int) -> None:
    net = blind(2, depth)
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2), (size[0] // 2 + 1, 3)):
        seen = gradient(net, (1, 1, *size), (slice(y, y + 1), slice(x, x + 1)))[0, 0]
        assert seen[y, x] == 0
        field = tuple(slice(max(0, at - 2**depth), at + 2**depth + 1) for at in (y, x))
        assert (seen[field] > 0).sum() == seen[field].numel() - 1


def test_the_blind_spot_holds_for_every_channel() -> None:
    seen = gradient(blind(2, 2, channels=3), (1, 3, 16, 16), (slice(9, 10), slice(6, 7)))[0]
    assert (seen[:, 9, 6] == 0).all()
    assert (seen[:, 8, 6] > 0).all()


@pytest.mark.parametrize(("size", "depth"), [((5, 16, 16), 1), ((8, 16, 24), 2), ((5, 13, 15), 2)])
def test_the_blind_spot_in_3d_sees_the_column_through_the_voxel(size: tuple[int, int, int], depth: int) -> None:
    z, y, x = size[0] // 2, 7, 9
    core = (slice(z, z + 1), slice(y, y + 1), slice(x, x + 1))
    seen = gradient(blind(3, depth), (1, 1, *size), core)[0, 0]
    assert seen[z, y, x] == 0
    near = seen[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
    assert (near > 0).sum() == 26


def test_paper_networks_have_the_published_sizes() -> None:
    """Parameters of the 2-D networks: the authors' HQ-SSL network has 1,265,858, csbdeep's U-Net of N2V 333,729.

    The U-Net that HQ-SSL compares with, which is Neighbor2Neighbor's but for the upsampling, has 1,099,585.
    """
    from tests.conftest import NOISE

    names = ("hqssl", "n2v", "n2n", "neighbor2neighbor")
    nets = {name: METHODS[name](network="paper").build(1, 2, [NOISE]) for name in names}
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert sizes["hqssl"] == 1_265_858
    assert sizes["n2v"] == 333_729
    assert sizes["n2n"] == 988_609
    assert sizes["neighbor2neighbor"] == 1_099_585
    assert nets["n2n"].halo == (128, 128)
    assert nets["neighbor2neighbor"].halo == (128, 128)
    assert nets["hqssl"].halo == (288, 288)
