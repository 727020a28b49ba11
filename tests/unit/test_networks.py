"""What networks see, by autograd: the blind spot, and the halo that each declares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssdenoise.grid import ceil_to
from ssdenoise.methods import METHODS
from ssdenoise.networks import BlindSpot, BlockMean, Network, Plain, Planes, UNet
from ssdenoise.networks.layers import BlurPool, Conv, Pool
from tests.conftest import CPU, NOISE

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
    pytest.param(lambda: plain(3, 1, "features"), (28, 40, 40), id="features-3d-1"),
    pytest.param(lambda: plain(3, 1, "features", alias_free=True), (28, 40, 40), id="alias-free-3d-1"),
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
    compare_halo(make(), size)  # type: ignore[operator]


BUILT = [
    # the blind network sees furthest, and `NETS` has a smaller one in 3-D
    pytest.param(name, ndim, options, id=f"{name}-{id}", marks=[pytest.mark.slow] * (name == "hqssl" and ndim == 3))
    for name, cls in METHODS.items()
    for id, ndim, options in (("joint", 2, {}), ("independent", 2, {"channels": "independent"}), ("3d", 3, {}))
    if cls.trainable
]


@pytest.mark.parametrize(("name", "ndim", "options"), BUILT)
def test_every_method_s_network_declares_the_halo_that_autograd_sees(
    name: str, ndim: int, options: dict[str, str]
) -> None:
    method = METHODS[name](**options).calibrated({"channels": [{"correlation": {"offsets": [[0, 0, 2]]}}]})
    net = positive(method.build(1, ndim, [NOISE]))
    compare_halo(net, tuple(2 * h + 3 * s for h, s in zip(net.halo, net.stride, strict=True)))


def compare_halo(net: Network, size: tuple[int, ...]) -> None:
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


@pytest.mark.parametrize("at", [(0, 0), (9, 6), (12, 16)])
@pytest.mark.parametrize("name", ["hqssl", "sasl"])
def test_the_blind_spot_of_each_method_holds_for_every_channel_and_in_odd_sizes(name: str, at: tuple[int, int]) -> None:
    method = METHODS[name]().calibrated({"channels": [{"correlation": {"offsets": []}}]})
    net = positive(method.build(3, 2, [NOISE] * 3))
    blind: Network = net.blind if name == "sasl" else net  # type: ignore[assignment]
    seen = gradient(blind, (1, 3, 13, 17), tuple(slice(i, i + 1) for i in at))[0]
    y, x = torch.meshgrid(torch.arange(13), torch.arange(17), indexing="ij")
    away = torch.maximum((y - at[0]).abs(), (x - at[1]).abs())
    hidden = away <= (1 if name == "sasl" else 0)
    assert (seen[:, hidden] == 0).all()
    assert (seen[:, ~hidden & (away <= 4)] > 0).all()


def test_the_blind_spot_s_branches_give_in_one_batch_what_they_give_one_by_one() -> None:
    net, image = blind(2, 2), torch.rand(2, 1, 16, 16, dtype=torch.double)
    torch.testing.assert_close(net.train()(image), net.eval()(image))


@pytest.mark.parametrize("shape", [(8, 12), (3, 8, 12)])
def test_blurred_pooling_is_a_maximum_and_a_binomial_filter(shape: tuple[int, ...]) -> None:
    """Maxima of 2x2 at each pixel, [1 2 1] along Y and X, and every second of it; never along Z."""
    image = torch.rand(shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    found = BlurPool(len(shape))(image[None, None])[0, 0].numpy()
    # row i of the maxima covers rows i - 1 and i; beyond the end there is nothing brighter
    padded = np.pad(image.numpy(), [(0, 0)] * (len(shape) - 2) + [(1, 1)] * 2)
    largest = np.max(
        [padded[..., y : y + shape[-2] + 1, x : x + shape[-1] + 1] for y in (0, 1) for x in (0, 1)], axis=0
    )
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for y, x in np.ndindex(shape[-2] // 2, shape[-1] // 2):
        window = largest[..., 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
        np.testing.assert_allclose(found[..., y, x], (window * kernel).sum(axis=(-2, -1)))


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

    Of the others no figure is published; these are their published layers, counted by hand: the U-Net of Noise2Noise,
    and with two 1x1 layers in place of its last, which is Neighbor2Neighbor's but for the upsampling.
    """
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


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("ndim", "causal"), [(2, None), (2, 0), (2, 1), (3, None), (3, 0), (3, 1), (3, 2)])
def test_at_the_coarse_resolution_a_convolution_gives_the_same(ndim: int, causal: int | None, flat: bool) -> None:
    """Of an upsampled image beside a finer one: values and gradients, in training and fused."""
    conv, pool = Conv(ndim, 10, 5, causal=causal, flat=flat), Pool(ndim)
    torch.nn.init.normal_(conv.conv.bias)  # type: ignore[arg-type]
    conv.expects(upsampled=9)
    assert conv.upsampled == 9
    z = (3,) * (ndim - 2)
    inputs = [torch.randn(2, 9, *z, 4, 5, requires_grad=True), torch.randn(2, 1, *z, 8, 10, requires_grad=True)]

    def answers() -> list[torch.Tensor]:
        found = conv.of_upsampled(*inputs, pool.up)
        weights = torch.arange(found.numel()).view_as(found).sin()
        return [found, *torch.autograd.grad((weights * found).sum(), [*inputs, *conv.parameters()])]

    conv.eval()
    expected = answers()
    conv.train()
    for a, b in zip(answers(), expected, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.std()
    conv.eval()
    CPU.place_for_inference(conv)
    for batch in (2, 1):
        with torch.no_grad():
            fused = conv.of_upsampled(*(CPU.send_for_inference(x[:batch]) for x in inputs), pool.up)
        assert (fused - expected[0][:batch]).abs().max() < 1e-4 * expected[0].std()
