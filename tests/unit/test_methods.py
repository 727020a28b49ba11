"""The numerical truth of each method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ssdenoise.methods import METHODS, Batch, Method
from ssdenoise.methods.n2c import N2C
from ssdenoise.methods.n2n import N2N
from ssdenoise.methods.neighbor2neighbor import Neighbor2Neighbor, choose, subsample
from ssdenoise.noise import NoiseModel, NoiseModels
from tests.conftest import NEEDS_BM3D, NOISE, ROOT, Identity, generator

FOLDER = ROOT / "ssdenoise" / "methods"


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
    for stage in range(method.stages):
        losses = []
        for step in range(30 if method.stages == 1 else 20):
            loss = method.loss(net, batch, generator(step), (stage + 0.5) / method.stages)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


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
    rows, columns = np.arange(spatial[-2] // 2)[:, None], np.arange(spatial[-1] // 2)
    for place in (a, b):  # both from the cell that stands here
        assert (place[-2] // 2 == rows).all()
        assert (place[-1] // 2 == columns).all()


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
        chosen.append(float(getattr(net, {"gaussian": "sigma", "median": "size", "nlm": "strength"}[name])))
        better = method.denoise(net, noisy).mean
        assert (better - clean).square().mean() < (noisy - clean).square().mean() * (1.0 if sigma < 0.1 else 0.2)
    if name != "nlm":  # whose strength is in units of the noise
        assert chosen[1] > chosen[0]


def test_nlm_chooses_the_strength_with_the_least_true_error() -> None:
    """It sees the noisy image only, and finds what the clean one would have told, or the next to it."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    clean = (torch.sin(y / 9) * torch.cos(x / 7))[None, None]
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=generator())
    method = METHODS["nlm"]()
    net = method.build(1, 2, [replace(NOISE, gaussian=NoiseModel(0.0, 0.0, 0.5))])
    method.fit(net, noisy)
    strengths, errors, chosen = list(method.strengths), [], float(net.strength)  # type: ignore[attr-defined,arg-type]
    for strength in strengths:
        net.strength.fill_(strength)  # type: ignore[operator]
        errors.append((method.denoise(net, noisy).mean - clean).square().mean().item())
    assert abs(strengths.index(chosen) - int(np.argmin(errors))) <= 1
    assert max(errors) > 1.2 * min(errors)


@pytest.mark.parametrize("name", ["nlm", pytest.param("bm3d", marks=NEEDS_BM3D)])
def test_without_noise_there_is_nothing_to_remove(name: str) -> None:
    none = NoiseModel(0.0, 0.0, 0.0)
    net = METHODS[name]().build(1, 2, [NoiseModels(none, none, none, NOISE.impulse)])
    image = torch.randn(1, 1, 24, 24, generator=generator())
    torch.testing.assert_close(net(image), image)
