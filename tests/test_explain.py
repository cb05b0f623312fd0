"""Explanations: they add up, they are what the mathematics says, and they find what was planted."""

import sys

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn

from stgcn_lab import plots
from stgcn_lab.baselines import fit_var
from stgcn_lab.explain import (
    METHODS,
    angle_error,
    attribute,
    by_regime,
    by_sector,
    deletion,
    edge_recovery,
    forecaster_windows,
    influence,
    influence_graph,
    lagged_correlation,
    learned_adjacency,
    learned_graph,
    of_var,
    origin,
    randomised,
    sanity_check,
    similarity,
    weight_layers,
)
from stgcn_lab.forecasting import fit_forecaster
from stgcn_lab.graphs import directional_operators, gcn_operator, knn_graph, scaled_laplacian
from stgcn_lab.models import STGCN, ArticleSTGCN, LinearSkip, MeshStep, STGCNClassifier, mesh_edges
from stgcn_lab.simulate import advected_field, delayed_influence, travelling_regimes
from stgcn_lab.training import fit
from stgcn_lab.windows import WindowDataset

ADDING = ("integrated_gradients", "gradient_input", "occlusion")
N, HISTORY = 12, 4


def network(spatial="directional", features=1, out=2, horizon=2, nodes=N, **options) -> STGCN:
    adaptive = nodes if spatial == "adaptive" else None
    return STGCN(
        features, out, HISTORY, horizon, (6, 4, 6), 1, 2, spatial, num_nodes=adaptive, norm=False, **options
    ).double()


def operator_of(graph, spatial, sparse=False):
    make = {"gcn": gcn_operator, "cheb": scaled_laplacian, "directional": directional_operators}.get(spatial)
    if make is None:
        return None
    operator = make(graph, sparse=sparse)
    return tuple(part.double() for part in operator) if isinstance(operator, tuple) else operator.double()


def windows_of(rng, count=5, nodes=N, features=1):
    return torch.from_numpy(rng.standard_normal((count, HISTORY, nodes, features)))


def linear_model(rng, lags=3, horizon=2) -> tuple[LinearSkip, np.ndarray]:
    """A linear skip over a network that says zero: coefficients (horizon, lag, target, source)."""
    coefficients = torch.from_numpy(rng.standard_normal((horizon, lags, N, N)))
    return LinearSkip(network("none"), coefficients, torch.ones(horizon, N).double()), coefficients.numpy()


class Dense(nn.Module):
    """Every station from every input: a network that can hold a weight for each edge and lag."""

    def __init__(self, nodes: int, history: int, hidden: int = 48) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(nodes * history, hidden), nn.Linear(hidden, nodes)

    def forward(self, x, operator=None):
        return self.out(torch.relu(self.inner(x.flatten(1))))[:, None, :, None]


class Blown(nn.Module):
    """Half of the station to the west while feature 1 is above 0, half of the one to the east while it is below."""

    def forward(self, x, operator=None):
        now, wind = x[:, -1, :, 0], x[:, -1, :, 1]
        west, east = now.roll(1, dims=1), now.roll(-1, dims=1)
        return torch.where(wind > 0, 0.5 * west, 0.5 * east)[:, None, :, None]


def frame(values, dims=("target", "lag", "source"), **coords) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    names = {d: np.arange(values.shape[dims.index(d)]) for d in ("target", "source") if d in dims}
    return xr.DataArray(values, dims=dims, coords=names | coords)


# ---------------------------------------------------------------------------- attributions


@pytest.mark.parametrize("baseline", [0.0, -1.5, "tensor"])
@pytest.mark.parametrize("method", ADDING)
def test_of_a_linear_model_every_method_is_coefficient_times_difference(rng, method, baseline):
    model, coefficients = linear_model(rng)
    x = windows_of(rng)
    b = torch.from_numpy(rng.standard_normal((HISTORY, N, 1))) if baseline == "tensor" else baseline
    found = attribute(model, x, station=7, lead=2, method=method, baseline=b)
    assert found.shape == x.shape and found.dtype == x.dtype
    expected = torch.zeros_like(x)
    weights = torch.from_numpy(coefficients[1, :, 7]).flip(0)[..., None]  # oldest first, as in a window
    expected[:, 1:] = weights * (x - b)[:, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_the_slope_of_a_linear_model_is_its_coefficients(rng):
    model, coefficients = linear_model(rng)
    slope = attribute(model, windows_of(rng), station=3, lead=1, method="gradient")
    np.testing.assert_allclose(slope[:, 1:, :, 0], np.tile(coefficients[0, ::-1, 3], (5, 1, 1)), rtol=1e-12)
    assert (slope[:, 0] == 0).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("spatial", ["none", "gcn", "cheb", "directional", "adaptive"])
def test_integrated_gradients_add_up(rng, graph, spatial, sparse):
    model, operator, x = network(spatial), operator_of(graph, spatial, sparse), windows_of(rng)
    b = torch.from_numpy(rng.standard_normal((1, HISTORY, N, 1)))
    found = attribute(model, x, operator, station=4, lead=2, feature=1, baseline=b, steps=256)
    with torch.no_grad():
        change = model(x, operator)[:, 1, 4, 1] - model(b, operator)[:, 1, 4, 1]
    # Where the network has a kink, the integral over some points is off a little.
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=0, atol=0.01 * float(change.abs().max()))


def test_integrated_gradients_add_up_along_the_edges_of_a_mesh(rng, graph):
    model = MeshStep(2, 1, HISTORY, channels=8).double()
    index, features = mesh_edges(graph)
    x = windows_of(rng, features=2)
    found = attribute(model, x, (index, features.double()), station=0)
    change = model(x, (index, features.double())) - model(0 * x, (index, features.double()))
    torch.testing.assert_close(found.sum((1, 2, 3)), change[:, 0, 0, 0].detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_are_what_their_definition_says(rng, graph, method):
    model, operator, x, b = network(), operator_of(graph, "directional"), windows_of(rng, 2), 0.3
    found = attribute(model, x, operator, station=2, method=method, baseline=b, steps=64)

    def f(windows):
        return model(windows, operator)[:, 0, 2, 0]

    def slope(windows):
        windows = windows.clone().requires_grad_()
        return torch.autograd.grad(f(windows).sum(), windows)[0]

    if method == "gradient":
        expected = slope(x)
    elif method == "gradient_input":
        expected = slope(x) * (x - b)
    elif method == "occlusion":
        expected = torch.zeros_like(x)
        for t, i in np.ndindex(HISTORY, N):
            without = x.clone()
            without[:, t, i] = b
            expected[:, t, i, 0] = (f(x) - f(without)).detach()
    else:
        points = (torch.arange(4000) + 0.5) / 4000  # a plain midpoint rule
        expected = (x - b) * sum(slope(b + s * (x - b)) for s in points[::10]) / 400
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * float(expected.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_sparse_operators_and_small_batches_change_nothing(rng, graph, method):
    model, x = network(), windows_of(rng, 7)
    dense, sparse = (operator_of(graph, "directional", s) for s in (False, True))
    options = {"station": 5, "feature": 1, "method": method, "steps": 8}
    whole = attribute(model, x, dense, **options)
    torch.testing.assert_close(attribute(model, x, sparse, **options), whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(attribute(model, x, dense, batch_size=3, **options), whole, rtol=1e-9, atol=1e-12)
    alone = torch.cat([attribute(model, x[[w]], dense, **options) for w in range(7)])
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_used_without_dropout_and_left_as_it_was(rng, graph, method):
    model, operator, x = network(dropout=0.5), operator_of(graph, "directional"), windows_of(rng, 3)
    model.train()
    model.out.eval()  # a part that somebody has frozen
    modes = [part.training for part in model.modules()]
    before, kept, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():  # as in a function that only forecasts
        first, again = (attribute(model, x, operator, station=1, method=method) for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad and first.abs().max() > 0
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(x, before) and not x.requires_grad and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_mode_is_restored_after_an_error(rng):
    class Broken(Dense):
        def forward(self, x, operator=None):
            if x.requires_grad:
                raise RuntimeError("broken")
            return super().forward(x)

    model = Broken(N, HISTORY).double().train()
    with pytest.raises(RuntimeError, match="broken"):
        attribute(model, windows_of(rng), station=0)
    assert model.training


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_single_precision_stays_single_and_nobody_complains(rng, graph, method):
    model, x = network().float(), windows_of(rng, 2).float()
    operator = directional_operators(graph)
    assert attribute(model, x, operator, station=0, method=method).dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", ["graph", "node"])
def test_classes_are_explained_too(rng, graph, level, method):
    model = STGCNClassifier(2, 3, level, channels=(4,), kernel_size=3).double()
    operator, x = operator_of(graph, "directional"), windows_of(rng, 3, features=2)
    station = None if level == "graph" else 6
    found = attribute(model, x, operator, station=station, feature=2, method=method, steps=200)
    assert found.shape == x.shape
    if method == "integrated_gradients":
        change = (model(x, operator) - model(0 * x, operator)).detach()[..., 2]
        change = change if station is None else change[:, station]
        torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=0.05, atol=0.02)  # relu: kinks in the path
    result = influence(model, x, operator, feature=2, method=method, steps=4)
    assert result["size"].dims == ("target", "lag", "source", "feature")
    assert result["size"].shape == ((1 if level == "graph" else N), HISTORY, N, 2)
    assert result["lag"].values.tolist() == [0, 1, 2, 3]
    assert level == "node" or result["target"].values.tolist() == ["all"]


class Threefold(nn.Module):
    def forward(self, x, operator=None):
        return x.sum()


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"model": lambda x: x}, TypeError, ["model", "Module", "function"]),
        ({"model": Threefold()}, ValueError, ["model", "(batch, class)", "()"]),
        ({"x": np.zeros((2, 4, 12, 1))}, TypeError, ["x", "tensor", "ndarray"]),
        ({"x": torch.zeros(2, 4, 12, 1, dtype=torch.int64)}, TypeError, ["x", "int64"]),
        ({"x": torch.zeros(4, 12, 1).double()}, ValueError, ["x", "batch", "(4, 12, 1)"]),
        ({"x": torch.zeros(0, 4, 12, 1).double()}, ValueError, ["x", "(0, 4, 12, 1)"]),
        ({"x": torch.full((2, 4, 12, 1), torch.nan).double()}, ValueError, ["x", "finite", "NaN"]),
        ({"operator": "graph"}, TypeError, ["operator", "str"]),
        ({"station": 12}, ValueError, ["station", "0 to 11", "12"]),
        ({"station": -1}, ValueError, ["station", "-1"]),
        ({"station": 1.0}, ValueError, ["station", "1.0"]),
        ({"station": None}, ValueError, ["station", "None"]),
        ({"lead": 0}, ValueError, ["lead", "at least 1", "0"]),
        ({"lead": 3}, ValueError, ["lead", "horizon of 2", "3"]),
        ({"feature": 2}, ValueError, ["feature", "0 to 1", "2"]),
        ({"method": "admiration"}, ValueError, ["method", "occlusion", "admiration"]),
        ({"baseline": "usual"}, TypeError, ["baseline", "str"]),
        ({"baseline": True}, TypeError, ["baseline", "bool"]),
        ({"baseline": torch.zeros(3)}, ValueError, ["baseline", "broadcasts", "(3,)"]),
        ({"baseline": float("nan")}, ValueError, ["baseline", "finite"]),
        ({"steps": 0}, ValueError, ["steps", "at least 1"]),
        ({"batch_size": 0}, ValueError, ["batch_size", "at least 1"]),
    ],
)
def test_attribute_refuses_what_does_not_fit(graph, change, error, parts):
    arguments = {"model": network(), "x": torch.zeros(2, 4, 12, 1).double(), "station": 0}
    arguments |= {"operator": operator_of(graph, "directional")} | change
    with pytest.raises(error) as raised:
        attribute(**arguments)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_a_model_of_classes_has_one_output_and_one_lead(rng, graph):
    model, operator = STGCNClassifier(1, 2, channels=(4,)).double(), operator_of(graph, "directional")
    for options, part in (({"station": 3}, "station"), ({"lead": 2}, "lead")):
        with pytest.raises(ValueError, match=f"{part}: expected"):
            attribute(model, windows_of(rng), operator, **options)


def test_without_captum_the_error_names_the_extra(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"stgcn-lab\[explain\]"):
        attribute(Dense(N, HISTORY).double(), windows_of(rng), station=0)


# ---------------------------------------------------------------------------- influence


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_of_a_linear_model_are_its_coefficients(rng, method):
    model, coefficients = linear_model(rng)
    names = [f"S{i}" for i in range(N)]
    found = influence(model, windows_of(rng, 20), lead=2, method=method, stations=names)
    assert found["weight"].dims == ("target", "lag", "source")
    assert found["lag"].values.tolist() == [2, 3, 4, 5]  # the latest step is two before the time that is forecast
    assert found["target"].values.tolist() == names == found["source"].values.tolist()
    expected = coefficients[1].transpose(1, 0, 2)  # (lag, target, source) -> (target, lag, source)
    np.testing.assert_allclose(found["weight"][:, :3], expected, rtol=1e-6)
    np.testing.assert_allclose(found["weight"][:, 3], 0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_influence_is_the_mean_of_attributions(rng, graph, method):
    model, operator, x = network(features=2), operator_of(graph, "directional"), windows_of(rng, 9, features=2)
    mask = torch.from_numpy(rng.random(x.shape) > 0.3)
    options = {"lead": 2, "feature": 1, "method": method, "baseline": 0.2, "steps": 8}
    found = influence(model, x, operator, targets=[8, 3], mask=mask, batch_size=32, **options)
    assert found["mean"].dims == ("target", "lag", "source", "feature") and found["target"].values.tolist() == [8, 3]
    for target in (8, 3):
        a = attribute(model, x, operator, station=target, **options).flip(1).numpy()
        seen, d = mask.flip(1).numpy(), (x - 0.2).flip(1).numpy()
        d = np.ones_like(d) if method == "gradient" else d
        mine = found.sel(target=target)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(mine["mean"], (a * seen).sum(0) / seen.sum(0), rtol=1e-6)
            np.testing.assert_allclose(mine["size"], (abs(a) * seen).sum(0) / seen.sum(0), rtol=1e-6)
            line = (a * d * seen).sum(0) / (d**2 * seen).sum(0)
        np.testing.assert_allclose(mine["weight"], line, rtol=1e-6, atol=1e-9)


def test_the_mean_adds_up_to_the_mean_change_and_the_size_does_not_vanish(rng, graph):
    model, operator, x = network(), operator_of(graph, "directional"), windows_of(rng, 300)
    found = influence(model, x, operator, targets=[0])
    change = (model(x, operator) - model(0 * x, operator))[:, 0, 0, 0].mean().item()
    assert float(found["mean"].sum()) == pytest.approx(change, abs=1e-4)
    assert abs(found["mean"]).sum() < 0.3 * found["size"].sum()  # anomalies: up and down cancel


def test_a_place_that_was_never_seen_has_no_influence_that_could_be_told(rng, graph):
    model, operator, x = network(), operator_of(graph, "directional"), windows_of(rng)
    mask = torch.ones(x.shape, dtype=torch.bool)
    mask[:, :, 4] = False
    found = influence(model, torch.where(mask, x, 0), operator, targets=[0], mask=mask)
    assert found["size"].sel(source=4).isnull().all() and found["size"].drop_sel(source=4).notnull().all()


def test_regimes_are_told_apart_with_the_truth_known(rng):
    x = windows_of(rng, 40, features=2)
    x[..., 1] = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0)[:, None, None]  # west wind in even windows
    found = by_regime(Blown(), x, np.arange(40) % 2, method="gradient_input")
    assert found["weight"].dims == ("regime", "target", "lag", "source", "feature")
    value = found["weight"].isel(feature=0)
    west, east = (0.5 * np.eye(N)[np.roll(np.arange(N), s)] for s in (1, -1))
    np.testing.assert_allclose(value.sel(lag=1), [west, east], atol=1e-12)
    assert (value.sel(lag=[2, 3, 4]) == 0).all()
    mixed = influence(Blown(), x, method="gradient_input")["weight"].isel(feature=0).sel(lag=1)
    assert (mixed.values[west + east > 0] < 0.45).all()  # without regimes the two blur


def test_regimes_are_sums_over_windows_counted_by_probability(rng, graph):
    model, operator, x = network(), operator_of(graph, "directional"), windows_of(rng, 10)
    options = {"targets": [1], "method": "gradient_input"}
    hard = by_regime(model, x, np.repeat([0, 2], 5), operator, **options)
    assert hard.sizes["regime"] == 3 and hard["size"].sel(regime=1).isnull().all()
    xr.testing.assert_allclose(hard.isel(regime=2, drop=True), influence(model, x[5:], operator, **options), rtol=1e-9)
    p = rng.dirichlet([1.0, 1.0], 10)
    soft = by_regime(model, x, xr.DataArray(p, dims=("time", "regime")), operator, batch_size=4, **options)
    a = attribute(model, x, operator, station=1, method="gradient_input").flip(1)[..., 0].numpy()
    expected = np.einsum("wk,wtn->ktn", p, abs(a)) / p.sum(0)[:, None, None]
    np.testing.assert_allclose(soft["size"].isel(target=0), expected, rtol=1e-9)
    half = by_regime(model, x, np.full((10, 2), 0.5), operator, **options)
    for k in range(2):
        xr.testing.assert_allclose(half.isel(regime=k), influence(model, x, operator, **options), rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda m, x: influence(m, x, targets=[]), ["station", "at least one"]),
        (lambda m, x: influence(m, x, targets=[12]), ["station", "0 to 11"]),
        (lambda m, x: influence(m, x, mask=torch.ones(5, 4, 12, 1)), ["mask", "torch.bool", "float32"]),
        (lambda m, x: influence(m, x, mask=torch.ones(5, 4, 12) > 0), ["mask", "(5, 4, 12, 1)", "(5, 4, 12)"]),
        (lambda m, x: influence(m, x, stations=["a"]), ["stations", "12", "(1,)"]),
        (lambda m, x: by_regime(m, x, np.ones((4, 2))), ["probabilities", "(5, regimes)", "(4, 2)"]),
        (lambda m, x: by_regime(m, x, np.ones((5, 0))), ["probabilities", "(5, 0)"]),
        (lambda m, x: by_regime(m, x, np.ones(5)), ["probabilities", "whole numbers", "float64"]),
        (lambda m, x: by_regime(m, x, np.full(5, -1)), ["probabilities", "int64"]),
        (lambda m, x: by_regime(m, x, np.full((5, 2), np.nan)), ["probabilities", "finite"]),
        (lambda m, x: by_regime(m, x, np.full((5, 2), -0.5)), ["probabilities", "at least 0"]),
    ],
)
def test_influence_refuses_what_does_not_fit(rng, call, parts):
    with pytest.raises(ValueError) as raised:
        call(Dense(N, HISTORY).double(), windows_of(rng))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_a_model_without_gradients_is_left_to_occlusion(rng):
    class Detached(Dense):
        def forward(self, x, operator=None):
            return super().forward(x.detach(), operator).detach()

    torch.manual_seed(0)
    model, x = Detached(N, HISTORY).double(), windows_of(rng)
    assert attribute(model, x, station=0, method="occlusion").abs().sum() > 0
    for method in ("integrated_gradients", "gradient_input", "gradient"):
        with pytest.raises(ValueError, match="method: expected 'occlusion'.*without gradients"):
            attribute(model, x, station=0, method=method)


def test_one_target_is_a_list_of_one(rng):
    with pytest.raises(TypeError, match="targets.*list.*int"):
        influence(Dense(N, HISTORY).double(), windows_of(rng), targets=2)


def small_forecaster(spatial="directional", **options):
    series, _ = advected_field(8, 160, seed=2)
    series = (15 + 3 * series).assign_attrs(units="degC")
    graph = knn_graph(series.lat.values, series.lon.values, k=3)
    settings = {"horizon": 2, "members": 2, "epochs": 1, "channels": (4, 4, 4), "harmonics": 0} | options
    return series, fit_forecaster(series[:120], None, graph, spatial=spatial, **settings)


def test_windows_of_a_forecaster_are_what_its_members_see():
    series, forecaster = small_forecaster()
    series[5, 3] = np.nan
    x, operator, times = forecaster_windows(forecaster, series)
    assert x.shape == (158, 3, 8, 1) and x.dtype == torch.float32
    np.testing.assert_array_equal(times, series.time[2:])
    with torch.no_grad():
        said = forecaster.members[1](x, operator)[:-2, 1, :, 0].numpy()  # two steps ahead
    members = forecaster.distribution(series, 2)["members"][1, 4:]
    scale, season = forecaster._scale.values, forecaster._train.mean("time").values
    np.testing.assert_allclose(members, said * scale + season, rtol=1e-4)
    np.testing.assert_allclose(x[5, 0, 3, 0], 0)  # a gap counts as usual


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s, f: forecaster_windows(f.members[0], s), TypeError, ["forecaster", "LinearSkip"]),
        (lambda s, f: forecaster_windows(f, s.values), TypeError, ["series", "ndarray"]),
        (lambda s, f: forecaster_windows(f, s[:, 1:]), ValueError, ["stations"]),
        (lambda s, f: forecaster_windows(f, s[:2]), ValueError, ["series", "at least the 3 steps", "2"]),
    ],
)
def test_windows_of_a_forecaster_need_its_series(call, error, parts):
    with pytest.raises(error) as raised:
        call(*small_forecaster())
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_coefficients_and_correlations_are_influences_without_a_network(rng):
    series, truth = delayed_influence(6, 400, seed=1, longest=2)
    model = fit_var(series, 2)
    weights = of_var(model)
    assert weights.dims == ("target", "lag", "source") and weights["lag"].values.tolist() == [1, 2]
    assert float(weights.isel(target=4, source=1).sel(lag=2)) == model.coefficients[1, 4, 1]
    series[rng.random(400) < 0.2, 2] = np.nan
    found = lagged_correlation(series, 3)
    assert found.dims == ("target", "lag", "source") and found.shape == (6, 3, 6)
    for i, j, p in ((0, 5, 1), (2, 1, 3), (3, 2, 2), (2, 2, 1)):
        pair = np.stack([series.values[p:, i], series.values[:-p, j]])
        pair = pair[:, np.isfinite(pair).all(0)]
        assert float(found.isel(target=i, source=j).sel(lag=p)) == pytest.approx(np.corrcoef(pair)[0, 1])
    for units in (1e-6, 1e6):  # moisture in kg/kg, heat in J: a correlation has no units
        xr.testing.assert_allclose(lagged_correlation(series * units + 1e5 * units, 3), found, atol=1e-9)
    series[:, 0] = 273.15
    assert lagged_correlation(series, 1)[0].isnull().all()
    for call, error, part in (
        (lambda: of_var(series), TypeError, "model"),
        (lambda: lagged_correlation(series.values, 2), TypeError, "series"),
        (lambda: lagged_correlation(series[:4], 2), ValueError, "at least 5 steps"),
        (lambda: lagged_correlation(series, 0), ValueError, "longest"),
    ):
        with pytest.raises(error, match=part):
            call()


# ---------------------------------------------------------------------------- the learned graph


def test_the_learned_graph_is_read_off_and_drawn(places):
    model = network("adaptive")
    with torch.no_grad():  # embeddings that say: each station listens to the next but one, around a ring
        model.adjacency.target.zero_(), model.adjacency.source.zero_()
        angle = 2 * torch.pi * torch.arange(N) / N
        circle = 4 * torch.stack([angle.cos(), angle.sin()], dim=1).double()
        model.adjacency.target[:, :2], model.adjacency.source[:, :2] = circle.roll(-2, dims=0), circle
    skip = LinearSkip(model, torch.zeros(2, 1, N, N).double(), torch.zeros(2, N).double())
    names = [f"S{i}" for i in range(N)]
    found = learned_adjacency(skip, names)
    assert found.dims == ("target", "source") and found["source"].values.tolist() == names
    np.testing.assert_allclose(found, model.adjacency().detach(), rtol=1e-12)
    np.testing.assert_allclose(found.sum("source"), 1)
    drawn = learned_graph(skip, *places, k=1)
    assert drawn.num_nodes == N and drawn.edge_index.shape == (2, N)
    np.testing.assert_array_equal(drawn.edge_index[0], (np.arange(N) + 2) % N)  # row 0 the source
    np.testing.assert_array_equal(drawn.edge_index[1], np.arange(N))
    np.testing.assert_allclose(drawn.edge_weight, found.values[np.arange(N), (np.arange(N) + 2) % N], rtol=1e-6)
    np.testing.assert_allclose(drawn.pos, np.stack([places[1], places[0]], axis=1), rtol=1e-6)
    assert len(plots.graph_map(drawn).collections) > 0


def test_a_forecaster_shows_the_mean_graph_of_its_members():
    series, forecaster = small_forecaster("adaptive")
    found = learned_adjacency(forecaster)
    each = [learned_adjacency(member).values for member in forecaster.members]
    assert not np.allclose(*each)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-12)
    assert found["target"].values.tolist() == series["station"].values.tolist()
    for call, error, part in (
        (lambda: learned_adjacency(network("none")), ValueError, "model: expected one learned graph"),
        (lambda: learned_adjacency(series), TypeError, "model"),
        (lambda: learned_adjacency(forecaster, ["a"]), ValueError, "stations: expected 8"),
        (lambda: learned_graph(forecaster, [1.0], [2.0]), ValueError, "lat, lon: expected 8"),
    ):
        with pytest.raises(error, match=part):
            call()


def test_the_strongest_influences_make_a_graph():
    weight = frame(np.zeros((3, 2, 3)), lag=[1, 2])
    weight[0, 1, 2], weight[0, 0, 1], weight[0, 0, 0] = -0.9, 0.5, 5.0  # the station itself is no edge
    weight[2, 0, 0] = 0.1
    graph = influence_graph(weight, [50, 51, 52], [0, 1, 2], k=2)
    assert graph.edge_index.T.tolist() == [[2, 0], [1, 0], [0, 2]]
    np.testing.assert_allclose(graph.edge_weight, [0.9, 0.5, 0.1])
    part = influence_graph(weight.isel(target=[2]), [50, 51, 52], [0, 1, 2], k=5)
    assert part.edge_index.T.tolist() == [[0, 2]] and part.num_nodes == 3


# ---------------------------------------------------------------------------- is it true?


@given(st.floats(0, 359), st.floats(20, 300), st.integers(1, 4))
def test_origin_is_the_displacement_of_what_the_weights_carry(direction, km, lag):
    """Three stations for each of three targets, one right where the value comes from."""
    phi = np.deg2rad(direction)
    lat0, lon0 = np.array([0.0, 0.5, -0.5]), np.array([10.0, 11.0, 9.0])
    lat = np.concatenate([lat0, lat0 - km / 111.195 * np.sin(phi)])
    lon = np.concatenate([lon0, lon0 - km / 111.195 * np.cos(phi)])
    values = np.zeros((3, 4, 6))
    values[np.arange(3), lag - 1, 3 + np.arange(3)] = 0.8
    found = origin(frame(values, lag=np.arange(1, 5)), lat, lon)
    assert float(angle_error(found["bearing"], (270 - direction) % 360)) < 1.0
    assert float(found["distance"]) == pytest.approx(km, rel=1e-2)
    assert float(found["lag"]) == pytest.approx(lag)
    assert float(found["speed"]) == pytest.approx(km / lag, rel=1e-2)
    assert found["speed"].attrs["units"] == "km per step"


def test_noise_of_both_signs_cancels_in_the_origin_and_sizes_are_drawn_to_the_middle(rng):
    """The matrix of the advected field itself, with and without noise on its entries."""
    lengths = []
    for seed in range(3):
        series, truth = advected_field(40, 10, seed=seed, direction=60.0)
        lat, lon = series.lat.values, series.lon.values
        exact = frame(truth.carry[60.0], dims=("target", "source"))
        found = origin(exact, lat, lon)
        assert angle_error(found["bearing"], 210) < 8 and 40 < found["distance"] < 80  # nothing lies beyond the edge
        assert "lag" not in found
        noisy = exact + 0.03 * rng.standard_normal(exact.shape)
        assert angle_error(origin(noisy, lat, lon)["bearing"], 210) < 20
        lengths.append([float(origin(abs(part), lat, lon)["distance"]) for part in (exact, noisy)])
    assert (np.array(lengths)[:, 1] < 0.8 * np.array(lengths)[:, 0]).all()


def test_origin_keeps_what_it_is_told_to(places):
    values = frame(
        np.random.default_rng(0).random((2, N, 3, N)), dims=("regime", "target", "lag", "source"), lag=[1, 2, 3]
    )
    whole = origin(values, *places)
    assert whole["bearing"].dims == ("regime",)
    each = origin(values, *places, keep=("target", "lag"))
    assert set(each["distance"].dims) == {"regime", "target", "lag"} and "speed" not in each
    assert set(origin(values, *places, keep="target")["speed"].dims) == {"regime", "target"}
    part = origin(values.isel(target=[5]), *places)
    np.testing.assert_allclose(part["distance"], origin(values, *places, keep="target")["distance"].isel(target=5))
    assert origin(-values, *places)["bearing"].isnull().all()  # no centre of mass


def test_the_angle_between_bearings_goes_the_shorter_way():
    assert angle_error(350, 10) == 20 and angle_error(10, 350) == 20 and angle_error(90, 270) == 180
    np.testing.assert_allclose(angle_error(np.array([0.0, 359.0]), 1.0), [1, 2])


def test_sectors_sum_the_influence_by_where_it_lies():
    lat, lon = [50.0, 51, 50, 49, 50], [0.0, 0, 1, 0, -1]  # a cross: middle, north, east, south, west
    values = frame(np.arange(1.0, 26).reshape(5, 1, 5), lag=[1])
    found = by_sector(values, lat, lon)
    assert found["sector"].values.tolist() == ["self", "0°", "90°", "180°", "270°"]
    np.testing.assert_allclose(found.isel(target=0).squeeze(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(found.sum("sector"), values.sum("source"))
    assert by_sector(values, lat, lon, sectors=1).sizes["sector"] == 2


@given(st.integers(0, 10_000))
def test_recovery_counts_as_others_count(seed):
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(3, 8))
    delay = frame(rng.integers(1, 4, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.4), ("target", "source"))
    delay[0, 1], delay[1, 0] = 2, 0  # one of each kind at least
    found = frame(rng.integers(-5, 6, (nodes, 3, nodes)), lag=[1, 2, 3])
    result = edge_recovery(found, delay)
    others = ~np.eye(nodes, dtype=bool)
    edge, score = delay.values[others] > 0, abs(found).max("lag").values[others]
    assert result["auc"] == pytest.approx(roc_auc_score(edge, score))
    assert result["chance"] == pytest.approx(edge.mean())
    late = abs(found).idxmax("lag").values[others][edge]
    assert result["delays"] == pytest.approx((late == delay.values[others][edge]).mean())
    assert result["delay_error"] == pytest.approx(abs(late - delay.values[others][edge]).mean())


def test_what_is_planted_is_recovered_in_full_by_the_truth_itself():
    _, truth = delayed_influence(7, 10, seed=3, sources=2, longest=3)
    perfect = xr.concat([truth["weight"].where(truth["delay"] == d, 0.0) for d in (1, 2, 3)], dim="lag")
    result = edge_recovery(perfect.assign_coords(lag=[1, 2, 3]), truth["delay"])
    assert result["auc"] == result["precision"] == result["delays"] == 1 and result["delay_error"] == 0
    assert set(edge_recovery(abs(truth["weight"]), truth["delay"])) == {"auc", "precision", "chance"}
    upside_down = edge_recovery(1 - abs(truth["weight"]), truth["delay"])
    assert upside_down["auc"] == upside_down["precision"] == 0


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda v, d: edge_recovery(v.values, d), TypeError, ["influence", "ndarray"]),
        (lambda v, d: edge_recovery(v, d.values), TypeError, ["delay", "ndarray"]),
        (lambda v, d: edge_recovery(v, d.rename(source="from")), TypeError, ["delay", "from"]),
        (lambda v, d: edge_recovery(v, d.isel(target=[0])), ValueError, ["delay", "targets"]),
        (lambda v, d: edge_recovery(v, 0 * d), ValueError, ["delay", "only one kind"]),
        (lambda v, d: edge_recovery(v, 0 * d + 1), ValueError, ["delay", "only one kind"]),
        (lambda v, d: edge_recovery(v.expand_dims("regime"), d), ValueError, ["influence", "regime"]),
        (lambda v, d: edge_recovery(v * np.nan, d), ValueError, ["influence", "NaN"]),
        (lambda v, d: origin(v.rename(source="from"), [1, 2, 3], [1, 2, 3]), ValueError, ["influence", "source"]),
        (lambda v, d: origin(v.drop_vars("source"), [1, 2, 3], [1, 2, 3]), ValueError, ["influence", "labels"]),
        (lambda v, d: origin(v.assign_coords(target=[7, 8, 9]), [1, 2, 3], [1, 2, 3]), ValueError, ["among"]),
        (lambda v, d: origin(v, [1, 2], [1, 2]), ValueError, ["lat, lon", "3", "2"]),
        (lambda v, d: origin(v, [1, 2, 300], [1, 2, 3]), ValueError, ["lat", "300"]),
        (lambda v, d: origin(v, [1, 2, 3], [1, 2, 3], keep="source"), ValueError, ["keep", "source"]),
        (lambda v, d: by_sector(v, [1, 2, 3], [1, 2, 3], 0), ValueError, ["sectors"]),
        (lambda v, d: influence_graph(v, [1, 2, 3], [1, 2, 3], k=0), ValueError, ["k", "at least 1"]),
    ],
)
def test_truth_refuses_what_does_not_fit(call, error, parts):
    delay = frame([[0, 1, 0], [0, 0, 2], [0, 0, 0]], dims=("target", "source"))
    with pytest.raises(error) as raised:
        call(frame(np.ones((3, 2, 3)), lag=[1, 2]), delay)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- can it be trusted?


def test_a_randomised_copy_forgets_and_the_network_does_not(rng, graph):
    model, operator, x = network(), operator_of(graph, "directional"), windows_of(rng)
    kept, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    names = weight_layers(model)
    assert names[0] == "out" and names[1].startswith("collect") and names[-1].startswith("blocks.0")
    one, two, again = (randomised(model, seed) for seed in (0, 1, 0))
    assert all(torch.equal(value, kept[k]) for k, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    said = [m(x, operator) for m in (model, one, two, again)]
    assert torch.equal(said[1], said[3]) and not torch.allclose(said[1], said[2])
    assert not torch.allclose(said[0], said[1])
    assert all(value.dtype == torch.float64 for value in one.state_dict().values())


def test_only_the_layers_nearest_the_output_are_drawn_anew():
    model = network("adaptive")
    for layers in range(len(weight_layers(model)) + 1):
        copy = randomised(model, 3, layers)
        drawn = weight_layers(model)[:layers]
        for name, value in model.state_dict().items():
            same = torch.equal(copy.state_dict()[name], value)
            if name.rpartition(".")[0] not in drawn:
                assert same, name
            elif value.numel() > 1 and not name.endswith("bias"):  # biases may be drawn as the zeros that they were
                assert not same, name


def test_the_linear_part_and_weights_without_a_recipe_are_drawn_with_their_size(rng):
    model, coefficients = linear_model(rng)
    assert weight_layers(model)[-1] == ""
    network_only, all_of_it = randomised(model, 0, len(weight_layers(model)) - 1), randomised(model, 0)
    assert torch.equal(network_only.coefficients, model.coefficients)
    assert not torch.allclose(all_of_it.coefficients, model.coefficients)
    assert float(all_of_it.coefficients.std()) == pytest.approx(coefficients.std(), rel=0.1)
    # a network that keeps a sparse operator, which PyTorch cannot copy
    assert isinstance(randomised(ArticleSTGCN(4, 2, 5, 3)), ArticleSTGCN)


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        (lambda: randomised("network"), TypeError, "model: expected a torch.nn.Module, found str"),
        (lambda: randomised(nn.ReLU()), ValueError, "model: expected a network with weights"),
        (lambda: randomised(network("none"), layers=99), ValueError, "layers: expected at most"),
        (lambda: randomised(network("none"), layers=-1), ValueError, "layers: expected a whole number of at least 0"),
        (lambda: randomised(network("none"), seed=-1), ValueError, "seed: expected a whole number of at least 0"),
        (lambda: similarity([1.0, 2, 3], [1.0, 2]), ValueError, "a, b: expected one shape"),
        (lambda: similarity([1.0, 2, np.nan], [1.0, 2, 3]), ValueError, "at least 3 pairs"),
    ],
)
def test_checks_refuse_what_does_not_fit(call, error, part):
    with pytest.raises(error, match=part):
        call()


def test_similarity_is_the_rank_correlation(rng):
    a, b = rng.integers(0, 6, (2, 40)).astype(float)  # with ties
    assert similarity(a.reshape(5, 8), b.reshape(5, 8)) == pytest.approx(spearmanr(a, b).statistic)
    b[3] = np.nan
    assert similarity(a, b) == pytest.approx(spearmanr(np.delete(a, 3), np.delete(b, 3)).statistic)
    assert similarity(a, np.exp(a)) == pytest.approx(1) and similarity(a, -a) == pytest.approx(-1)
    assert similarity(a, np.zeros(40)) == 0


@pytest.fixture(scope="module")
def blown():
    """A mesh step that has learned a field carried by a steady wind towards 130 degrees, and its windows."""
    torch.manual_seed(0)
    series, truth = advected_field(25, 900, seed=3, direction=130.0)
    graph = knn_graph(series.lat.values, series.lon.values, k=6)
    model, edges = MeshStep(1, history=2), mesh_edges(graph)
    train, test = (
        WindowDataset(series[part].to_dataset(name="v"), "v", "v", 2, 1) for part in (slice(700), slice(700, None))
    )
    fit(model, train, None, operator=edges, epochs=10, batch_size=16, learning_rate=1e-2, progress=False)
    return model, edges, test.batch(range(0, len(test), 5)).x, series, truth


@pytest.mark.parametrize("method", ADDING)
def test_the_wind_is_found_in_a_trained_network(blown, method):
    model, edges, x, series, truth = blown
    found = influence(model, x, edges, method=method, steps=8, stations=series["station"].values)
    lat, lon = series.lat.values, series.lon.values
    where = origin(found["weight"], lat, lon)
    planted = origin(
        xr.DataArray(
            truth.carry[130.0],
            dims=("target", "source"),
            coords={"target": series["station"].values, "source": series["station"].values},
        ),
        lat,
        lon,
    )
    assert float(angle_error(where["bearing"], (270 - 130) % 360)) < 15
    assert float(where["distance"]) == pytest.approx(float(planted["distance"]), rel=0.4)
    assert float(where["lag"]) < 1.3  # the latest step tells nearly all
    if method == "gradient_input":  # a network without any knowledge shows no wind
        for seed in range(3):
            nothing = origin(influence(randomised(model, seed), x, edges, method=method)["weight"], lat, lon)
            assert not nothing["distance"] > 0.25 * planted["distance"]


def test_drawing_the_weights_anew_destroys_the_explanation(blown):
    model, edges, x, *_ = blown
    found = sanity_check(model, x[:8], edges, targets=[3, 11], steps=8, seeds=2)
    assert found["signed"].dims == ("layer", "seed") and found["layer"].values[0] == "trained"
    assert found.sizes["layer"] == 1 + len(weight_layers(model))
    np.testing.assert_allclose(found.isel(layer=0).to_dataarray(), 1)
    last = abs(found["signed"].isel(layer=-1).mean())
    assert last < 0.4
    # the input is a factor of the attribution, and shines through in its size
    assert found["size"].isel(layer=-1).mean() > last


def test_a_check_of_the_network_alone_would_miss_the_linear_part(rng):
    model, _ = linear_model(rng)
    found = sanity_check(model, windows_of(rng), targets=[0, 4], method="gradient_input", seeds=2)
    assert found["layer"].values[-1] == "linear part"
    assert found["signed"].isel(layer=-2).mean() > 0.8 and abs(found["signed"].isel(layer=-1).mean()) < 0.3


def test_deletion_of_a_linear_model_is_known(rng):
    model, _ = linear_model(rng)
    x = windows_of(rng, 30)
    a = attribute(model, x, station=2)
    found = deletion(model, x, a, station=2, shares=(0, 0.25, 0.5, 1))
    assert set(found.data_vars) == {"important", "random", "least"}
    np.testing.assert_array_equal(found["share"], [0, 0.25, 0.5, 1])
    flat = a.flatten(1)
    order = flat.abs().argsort(dim=1, descending=True)
    for share, value in zip(found["share"].values, found["important"].values, strict=True):
        taken = flat.gather(1, order[:, : round(share * flat.shape[1])]).sum(1)
        assert value == pytest.approx(float(taken.abs().mean()), abs=1e-6)
    for curve in found.data_vars.values():
        assert float(curve[0]) == 0
        assert float(curve[-1]) == pytest.approx(float(a.sum((1, 2, 3)).abs().mean()))
    assert found["important"][1] > found["random"][1] > found["least"][1]


def test_what_is_called_important_matters_to_a_trained_network(blown):
    model, edges, x, *_ = blown
    for method in ADDING:
        a = attribute(model, x, edges, station=6, method=method, steps=8)
        found = deletion(model, x, a, edges, station=6, shares=(0.02, 0.05, 0.1))
        assert (found["important"] > 2 * found["random"]).all() and (found["random"] > found["least"]).all()
    again = deletion(model, x, a, edges, station=6, shares=(0.02, 0.05, 0.1), batch_size=7)
    xr.testing.assert_allclose(again, found, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"attributions": torch.zeros(5, 4, 12)}, ["attributions", "(5, 4, 12, 1)", "(5, 4, 12)"]),
        ({"attributions": torch.full((5, 4, 12, 1), torch.nan)}, ["attributions", "finite"]),
        ({"attributions": np.zeros((5, 4, 12, 1))}, ["attributions", "ndarray"]),
        ({"shares": (0.5, 0.2)}, ["shares", "rising"]),
        ({"shares": (0.5, 1.2)}, ["shares", "1.2"]),
        ({"shares": ()}, ["shares"]),
        ({"draws": 0}, ["draws"]),
        ({"station": 12}, ["station"]),
    ],
)
def test_deletion_refuses_what_does_not_fit(rng, change, parts):
    arguments = {"attributions": torch.zeros(5, 4, 12, 1).double(), "station": 0} | change
    with pytest.raises(ValueError) as raised:
        deletion(Dense(N, HISTORY).double(), windows_of(rng), **arguments)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- planted influence


@pytest.mark.parametrize("kind", ["linear", "magnitude"])
def test_planted_edges_and_delays_are_found_in_a_trained_network(kind):
    series, truth = delayed_influence(8, 4000, seed=1, sources=1, longest=2, strength=0.5, kind=kind)
    torch.manual_seed(0)
    model = Dense(8, 3, hidden=96)
    windows = WindowDataset(series.to_dataset(name="v"), "v", "v", 3, 1)
    fit(model, windows, None, epochs=12, batch_size=64, learning_rate=5e-3, weight_decay=0.1, progress=False)
    x = windows.batch(range(0, len(windows), 10)).x
    for method in ADDING:
        found = influence(model, x, method=method, steps=8, stations=series["station"].values)
        result = edge_recovery(found["size"], truth["delay"])
        assert result["auc"] > 0.9 and result["precision"] >= 6 / 8 and result["delays"] >= 6 / 8, (method, result)
    linear = edge_recovery(of_var(fit_var(series, 3)), truth["delay"])["auc"]
    assert linear == 1 if kind == "linear" else linear < 0.75  # the network sees what no linear model can


def test_regimes_show_in_the_influence_of_a_trained_network():
    """Waves that go east in one regime and west in the other: what comes from upstream counts more, and it turns."""
    series, regime = travelling_regimes(25, 2000, 2, seed=0, signal=3.0)
    lat, lon = series.lat.values, series.lon.values
    edges = mesh_edges(knn_graph(lat, lon, k=4))
    torch.manual_seed(0)
    model = MeshStep(1, history=3)
    windows = WindowDataset(series.to_dataset(name="v"), "v", "v", 3, 1)
    fit(model, windows, None, operator=edges, epochs=6, batch_size=16, learning_rate=1e-2, progress=False)
    chosen = torch.arange(0, len(windows), 5)
    label = regime.values[windows.starts[chosen].numpy() + 2]
    found = by_regime(model, windows.batch(chosen).x, label, edges, method="gradient_input")
    latest = by_sector(found["weight"].sel(lag=1), lat, lon).mean("target")
    upstream = latest.sel(sector="270°") - latest.sel(sector="90°")  # west less east
    assert upstream.sel(regime=0) > 0.01 and upstream.sel(regime=1) < -0.01
