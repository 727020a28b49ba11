"""The numerical truth of each method."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ssdenoise.methods import METHODS, Batch, Method
from ssdenoise.methods.n2c import N2C
from ssdenoise.methods.n2n import N2N
from ssdenoise.methods.n2v import N2V, neighbours, offsets, stratified, surroundings
from ssdenoise.methods.n2v2 import N2V2
from ssdenoise.methods.neighbor2neighbor import Neighbor2Neighbor, choose, subsample
from ssdenoise.methods.structn2v import StructN2V
from ssdenoise.noise import NoiseModel
from tests.conftest import NOISE, ROOT

FOLDER = ROOT / "ssdenoise" / "methods"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_folder_scan_finds_one_method_per_file() -> None:
    assert set(METHODS) == {path.stem for path in FOLDER.glob("[a-z]*.py")} - {"base"}
    assert all(cls.model_fields["name"].default == name for name, cls in METHODS.items())


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.trainable])
def test_the_loss_falls_when_trained(name: str, ndim: int) -> None:
    method: Method = METHODS[name]().calibrated({"channels": [{"correlation": {"offsets": [[0, 0, 1]]}}]})
    torch.manual_seed(0)
    net = method.build(1, ndim, [NOISE])
    shape = (2, 1, 4, 16, 16)[:2] + (4, 16, 16)[-ndim:]
    clean = torch.sin(torch.arange(16) / 3.0).expand(shape)
    batch = Batch(clean + 0.5 * torch.randn(shape), clean + 0.5 * torch.randn(shape))
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    losses = []
    for step in range(30):
        loss = method.loss(net, batch, generator(step), 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


class Identity(torch.nn.Module):
    """Stands for a network: returns fixed outputs, or its input."""

    halo, stride = (0, 0), (1, 1)

    def __init__(self, output: torch.Tensor | None = None) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.output is None else self.output


def test_n2n_is_the_squared_difference() -> None:
    a, b = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    assert N2N().loss(Identity(), Batch(a, b), generator(), 0) == pytest.approx(((a - b) ** 2).mean().item())
    assert N2N(criterion="l1").loss(Identity(), Batch(a, b), generator(), 0) == pytest.approx(
        (a - b).abs().mean().item()
    )


@pytest.mark.parametrize(("progress", "power"), [(0.0, 2.0), (0.5, 1.0), (0.9, 0.5), (1.0, 0.5)])
def test_n2n_l0_is_annealed(progress: float, power: float) -> None:
    a, b = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    loss = N2N(criterion="l0").loss(Identity(), Batch(a, b), generator(), progress)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(((a - b).abs() ** power).mean().item(), rel=1e-4)


def test_n2n_criteria_find_the_mean_the_median_and_the_mode() -> None:
    """A constant fitted to values of which 45 % are 0 and the others between 0 and 2."""
    rng = generator()
    values = torch.cat([torch.zeros(4500), 2 * torch.rand(5500, generator=rng)]).view(1, 1, 100, 100)
    found = {}
    for criterion in ("l2", "l1", "l0"):
        constant = torch.nn.Parameter(torch.tensor(0.3))
        optimiser = torch.optim.Adam([constant], 0.02)
        for step in range(400):
            optimiser.zero_grad()
            output = Identity(constant.expand(values.shape))
            N2N(criterion=criterion).loss(output, Batch(values, values), rng, step / 400).backward()  # type: ignore[arg-type]
            optimiser.step()
        found[criterion] = constant.item()
    assert found["l2"] == pytest.approx(values.mean().item(), abs=0.03)
    assert found["l1"] == pytest.approx(values.median().item(), abs=0.03)
    assert found["l0"] == pytest.approx(0, abs=0.03)
    assert found["l1"] > 0.1


# --- N2V ---------------------------------------------------------------------------------------------------------


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
    assert sorted(column._offsets(2)) == [(-1, 0), (1, 0)]
    deep = StructN2V(mask=[[[1]], [[1]], [[1]]])  # type: ignore[arg-type]
    assert sorted(deep._offsets(3)) == [(-1, 0, 0), (1, 0, 0)]
    assert deep._offsets(2) == []
    for wrong in ([[[1, 1]]], [[[1]], [[1]]], [[[1, 1, 1], [1]]], [[[1, 2, 1]]]):
        with pytest.raises(ValueError, match="mask"):
            StructN2V(mask=wrong)  # type: ignore[arg-type]


# --- Neighbor2Neighbor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [(8, 10), (3, 8, 6)])
def test_neighbor2neighbor_draws_adjacent_voxels_of_one_cell_alike_for_channels(spatial: tuple[int, ...]) -> None:
    image = torch.arange(float(np.prod(spatial))).view(1, 1, *spatial).repeat(2, 3, *[1] * len(spatial))
    first, second = subsample(image, choose(image.shape, generator()))
    assert first.shape == (2, 3, *spatial[:-2], spatial[-2] // 2, spatial[-1] // 2)
    assert torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first[0], first[1])
    a, b = (np.stack(np.unravel_index(part[:, 0].long().numpy(), spatial)) for part in (first, second))
    assert (np.abs(a - b).sum(axis=0) == 1).all()
    assert (a[-2:] // 2 == b[-2:] // 2).all()
    assert (a[-1] // 2 == np.arange(spatial[-1] // 2)).all()


def test_neighbor2neighbor_draws_its_eight_pairs_equally_often() -> None:
    drawn = choose(torch.Size((1, 1, 400, 400)), generator())
    observed = np.bincount((4 * drawn[0] + drawn[1]).flatten().numpy(), minlength=16)
    allowed = [1, 2, 4, 7, 8, 11, 13, 14]
    assert observed[allowed].sum() == 200 * 200
    assert stats.chisquare(observed[allowed]).pvalue > 1e-3


def test_neighbor2neighbor_loss_is_that_of_the_paper() -> None:
    """With f = 2 the identity, on a draw made again by hand."""

    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    y = torch.randn(2, 1, 8, 8, generator=generator())
    g1, g2 = subsample(y, choose(y.shape, generator(3)))
    expected = ((2 * g1 - g2) ** 2).mean() + 2.0 * 0.25 * ((2 * g1 - g2 - (2 * g1 - 2 * g2)) ** 2).mean()
    loss = Neighbor2Neighbor().loss(Double(), Batch(y), generator(3), 0.25)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected.item())


def test_n2c_does_not_average_the_clean_image_in() -> None:
    assert N2N(both_directions=True).averages_pair
    with pytest.raises(ValueError, match="`both_directions` is for pairs"):
        METHODS["n2c"](both_directions=True)  # type: ignore[call-arg]


def test_n2c_learns_the_target_it_is_given() -> None:
    a, b = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    assert N2C().loss(Identity(), Batch(a, b), generator(), 0) == pytest.approx(((a - b) ** 2).mean().item())


# --- baselines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "median", "nlm"])
def test_baselines_choose_stronger_smoothing_for_stronger_noise(name: str) -> None:
    method = METHODS[name]()
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    clean = (torch.sin(y / 9) * torch.cos(x / 7))[None, None]
    chosen = []
    for sigma in (0.05, 0.8):
        noise = replace(NOISE, gaussian=NoiseModel(0.0, 0.0, sigma))
        net = method.build(1, 2, [noise])
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator())
        method.fit(net, noisy)
        # the strength of nlm is in units of the noise
        chosen.append(
            (sigma if name == "nlm" else 1)
            * float(getattr(net, {"gaussian": "sigma", "median": "size", "nlm": "strength"}[name]))
        )
        better = method.denoise(net, noisy).mean
        assert (better - clean).square().mean() < (noisy - clean).square().mean() * (1.0 if sigma < 0.1 else 0.2)
    assert chosen[1] > chosen[0]
