"""Noise2Void and its kin: what is hidden, and by what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from ssdenoise.methods import Batch
from ssdenoise.methods.n2v import N2V, neighbours, offsets, stratified, surroundings
from ssdenoise.methods.n2v2 import N2V2
from ssdenoise.methods.structn2v import StructN2V
from tests.conftest import NOISE, Identity, generator


@pytest.mark.parametrize(
    ("spatial", "percent"),
    [
        *(((64, 64), 1.5), ((64, 64), 0.198), ((20, 21), 4), ((16, 32, 32), 1.5)),
        *(((1, 64, 64), 1.5), ((2, 64, 64), 1.5), ((5, 64, 64), 0.198)),
    ],
)
def test_n2v_hides_the_share_asked_for_in_2d_and_3d(spatial: tuple[int, ...], percent: float) -> None:
    hidden = stratified(torch.Size((3, 2, *spatial)), percent, generator())
    share = 100 * hidden.shape[2] / np.prod(spatial)
    assert share == pytest.approx(percent, rel=0.15)  # boxes are whole
    assert all(len(set(voxels.tolist())) == len(voxels) for voxels in hidden.flatten(0, 1))
    assert hidden.min() >= 0
    assert hidden.max() < np.prod(spatial)


def test_n2v_hides_each_voxel_of_a_box_equally_often() -> None:
    drawn = torch.cat([stratified(torch.Size((1, 1, 8, 8)), 100 / 16, generator(i)).flatten() for i in range(4000)])
    observed = np.bincount(drawn.numpy(), minlength=64)
    assert stats.chisquare(observed).pvalue > 1e-3


@pytest.mark.parametrize("at", [(5, 5), (0, 0), (1, 10), (10, 4)])
def test_n2v_replaces_by_each_other_neighbour_equally_often_and_never_by_itself(at: tuple[int, int]) -> None:
    size, radius = 11, 2
    flat = torch.full((1, 1, 60_000), at[0] * size + at[1])
    chosen = neighbours(flat, torch.Size((size, size)), (radius, radius), generator()).flatten().numpy()
    dy, dx = chosen // size - at[0], chosen % size - at[1]
    assert np.abs(dy).max() <= radius
    assert np.abs(dx).max() <= radius
    assert not ((dy == 0) & (dx == 0)).any()
    inside = [
        (y, x)
        for y in range(max(0, at[0] - radius), min(size, at[0] + radius + 1))
        for x in range(max(0, at[1] - radius), min(size, at[1] + radius + 1))
        if (y, x) != at
    ]
    observed = [int(np.count_nonzero(chosen == y * size + x)) for y, x in inside]
    assert sum(observed) == 60_000
    assert stats.chisquare(observed).pvalue > 1e-3


@pytest.mark.parametrize("at", [(2, 3, 3), (0, 0, 5), (4, 1, 6)])
def test_n2v_draws_each_neighbour_in_3d_equally_often(at: tuple[int, int, int]) -> None:
    size, radii = (5, 9, 7), (1, 2, 2)
    flat = torch.full((1, 1, 60_000), int(np.ravel_multi_index(at, size)))
    chosen = neighbours(flat, torch.Size(size), radii, generator()).flatten().numpy()
    ranges = [range(max(0, i - r), min(n, i + r + 1)) for i, r, n in zip(at, radii, size, strict=True)]
    inside = [place for place in itertools.product(*ranges) if place != at]
    observed = np.bincount(chosen, minlength=np.prod(size))[[np.ravel_multi_index(place, size) for place in inside]]
    assert observed.sum() == 60_000
    assert stats.chisquare(observed).pvalue > 1e-3


def test_n2v_neighbours_in_3d_stay_near() -> None:
    spatial = torch.Size((5, 9, 7))
    flat = torch.arange(5 * 9 * 7).expand(1, 1, -1)
    a = np.stack(np.unravel_index(flat.flatten().numpy(), spatial))
    b = np.stack(np.unravel_index(neighbours(flat, spatial, (1, 2, 2), generator()).flatten().numpy(), spatial))
    assert (np.abs(a - b).max(axis=1) == (1, 2, 2)).all()
    assert (np.abs(a - b).max(axis=0) >= 1).all()


def test_n2v_loss_compares_hidden_voxels_with_their_own_values() -> None:
    """Through the identity, the loss is the mean squared difference of hidden voxels to their replacements."""
    noisy = torch.arange(64.0).view(1, 1, 8, 8)
    rng = generator(7)
    hidden = stratified(noisy.shape, 100 / 16, rng)
    others = neighbours(hidden, noisy.shape[2:], (1, 1), rng)
    loss = N2V(masked_percent=100 / 16, radius=1).loss(Identity(), Batch(noisy), generator(7), 0)
    assert loss.item() == pytest.approx((hidden - others).double().square().mean().item())


def test_n2v_with_centre_leaves_a_voxel_as_it_is_as_often_as_it_says() -> None:
    flat = torch.full((1, 1, 60_000), 5 * 11 + 5)
    same = (neighbours(flat, torch.Size((11, 11)), (2, 2), generator(), centre=True) == flat).sum().item()
    assert stats.binomtest(same, 60_000, 1 / 25).pvalue > 1e-3


@pytest.mark.parametrize("replacement", ["mean", "median"])
def test_n2v_replaces_by_the_mean_or_median_of_the_neighbours(replacement: str) -> None:
    noisy = torch.randn(2, 1, 9, 8, generator=generator())
    hidden = torch.tensor([[[0, 4 * 8 + 3]], [[8 * 8 + 7, 2 * 8]]])
    method = N2V(replacement=replacement, radius=(3, 2, 1))  # type: ignore[arg-type]
    masked = method.hide(noisy, hidden, generator())
    untouched = torch.ones(noisy.flatten(2).shape, dtype=torch.bool).scatter(2, hidden, False).view_as(noisy)
    assert torch.equal(masked[untouched], noisy[untouched])
    for sample in range(2):
        for position in hidden[sample, 0].tolist():
            y, x = divmod(position, 8)
            box = np.ma.array(noisy[sample, 0].numpy(), mask=False)
            box[y, x] = np.ma.masked
            around = np.sort(box[max(0, y - 2) : y + 3, max(0, x - 1) : x + 2].compressed())
            # torch takes the lower of the two middle values
            expected = around.mean() if replacement == "mean" else around[(len(around) - 1) // 2]
            assert masked[sample, 0, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_surroundings_outside_the_patch_are_marked() -> None:
    around = surroundings(torch.tensor([0, 13]), torch.Size((3, 5)), offsets((1, 1)))
    assert around[0].tolist() == [-1, -1, -1, -1, 1, -1, 5, 6]
    assert around[1].tolist() == [7, 8, 9, 12, 14, -1, -1, -1]


def test_n2v_needs_a_neighbour_in_the_plane() -> None:
    with pytest.raises(ValueError, match="no neighbours"):
        N2V(radius=(2, 0, 0))


def test_n2v2_has_no_path_around_the_network() -> None:
    net = N2V2().build(1, 2, [NOISE])
    net.unet.bottom = torch.nn.Sequential(*net.unet.bottom, Zero())  # type: ignore[operator,union-attr]
    for decode in net.unet.decoder[:-1]:  # type: ignore[union-attr,index]
        decode.append(Zero())
    a, b = (net(torch.randn(1, 1, 16, 16, generator=generator(i))) for i in range(2))
    assert torch.equal(a, b)


class Zero(torch.nn.Module):
    """Cuts a path."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


# --- structN2V ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", ["uniform", "mean", "median"])
def test_structn2v_hides_what_the_mask_covers_and_nothing_else(replacement: str) -> None:
    """The mask's orientation: a row hides along X. Also at the patch's border, and by mean and median of the rest."""
    noisy = torch.rand(1, 1, 12, 13, generator=generator())
    method = StructN2V(mask=[[[1, 1, 1, 1, 1]]], replacement=replacement, radius=2)  # type: ignore[arg-type]
    for y, x in ((5, 6), (0, 0), (11, 12), (3, 1)):
        seen = torch.zeros(12, 13, dtype=torch.bool)
        for seed in range(40):
            masked = method.hide(noisy, torch.tensor([[[y * 13 + x]]]), generator(seed))
            seen |= (masked != noisy)[0, 0]
        expected = torch.zeros_like(seen)
        expected[y, max(0, x - 2) : x + 3] = True
        assert torch.equal(seen, expected)
        if replacement == "mean":
            rows = [r for r in range(max(0, y - 2), min(12, y + 3)) if r != y]
            rest = noisy[0, 0, rows, max(0, x - 2) : x + 3]
            assert masked[0, 0, y, x].item() == pytest.approx(rest.mean().item())


def test_structn2v_masks_are_symmetric_and_odd_and_in_3d_too() -> None:
    column = StructN2V(mask=[[[0], [0], [1]]])  # type: ignore[arg-type]
    assert sorted(column.concealed(2)) == [(-1, 0), (1, 0)]
    deep = StructN2V(mask=[[[1]], [[1]], [[1]]])  # type: ignore[arg-type]
    assert sorted(deep.concealed(3)) == [(-1, 0, 0), (1, 0, 0)]
    assert deep.concealed(2) == []
    for wrong in ([[[1, 1]]], [[[1]], [[1]]], [[[1, 1, 1], [1]]], [[[1, 2, 1]]]):
        with pytest.raises(ValueError, match="mask"):
            StructN2V(mask=wrong)  # type: ignore[arg-type]
