"""The same code on a processor and on a graphics card: every layer, every network, training and forecasts.

No card is needed: tests/card.py stands in for one, and where there is a real one, it is tried, too.
"""

from __future__ import annotations

import inspect
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from card import CARD, OnCard, card
from torch import nn

from stgcn_lab import forecasting, graphs, layers, models, regimes, regions, training
from stgcn_lab.windows import WindowDataset

NODES, STEPS = 9, 8
_rng = np.random.default_rng(0)
PLACES = _rng.uniform(51.5, 55.5, NODES), _rng.uniform(-10.5, -5.5, NODES)
GRAPH = graphs.knn_graph(*PLACES, k=3)
KINDS = {"station": PLACES, "grid": (PLACES[0][:5], PLACES[1][:5] + 1)}
BETWEEN = graphs.hetero_operators(graphs.hetero_graph(KINDS))
GCN, SECTORS = graphs.gcn_operator(GRAPH), graphs.directional_operators(GRAPH)
LAPLACIAN = graphs.scaled_laplacian(GRAPH)
OPERATORS = {"gcn": GCN, "cheb": LAPLACIAN, "directional": SECTORS, "none": None}


def series(features: int = 2, steps: int = STEPS) -> torch.Tensor:
    return torch.randn(2, steps, NODES, features)


def gaps() -> torch.Tensor:
    """Features of a cell as the imputers read them: the second says what is known."""
    x = series(7)
    x[..., 1] = (torch.rand(x.shape[:-1]) > 0.3).float()
    return x


def stgcn(spatial: str = "gcn", **options) -> nn.Module:
    return models.STGCN(2, 1, STEPS, 2, channels=(4, 3, 4), kernel_size=2, blocks=1, spatial=spatial, **options)


def skip() -> nn.Module:
    network = models.STGCN(1, 2, STEPS, 2, channels=(4, 3, 4), kernel_size=2, blocks=1, spatial="gcn")
    return models.LinearSkip(network, torch.randn(2, 3, NODES, NODES), torch.randn(2, NODES))


def fusion() -> nn.Module:
    features, history = {"station": 2, "grid": 1}, {"station": 3, "grid": 2}
    return models.FusionSTGCN(features, 1, history, 2, channels=4, relations=list(BETWEEN))


def fusion_x() -> dict[str, torch.Tensor]:
    x = {"station": torch.randn(2, 3, NODES, 2), "grid": torch.randn(2, 2, 5, 1)}
    x["station"][0, 0, 0] = torch.nan
    return x


MESH = models.mesh_edges(GRAPH)
# how to make each, and what to call it with
CASES = {
    "GraphConv": (lambda: layers.GraphConv(2, 3), lambda: (series(), GCN)),
    "ChebConv": (lambda: layers.ChebConv(2, 3, 3), lambda: (series(), LAPLACIAN)),
    "DirectionalGraphConv": (lambda: layers.DirectionalGraphConv(2, 3, 4), lambda: (series(), SECTORS)),
    "AdaptiveAdjacency": (lambda: layers.AdaptiveAdjacency(NODES, 3), lambda: ()),
    "TemporalConv": (lambda: layers.TemporalConv(2, 3, 3), lambda: (series(),)),
    "STConvBlock": (lambda: layers.STConvBlock(2, (4, 3, 4), 2), lambda: (series(), GCN)),
    "ArticleSTGCN": (
        lambda: models.ArticleSTGCN(NODES, 2, STEPS, 3),
        lambda: (torch.randn(NODES, STEPS, 2), GRAPH.edge_index, GRAPH.edge_weight),
    ),
    **{
        f"STGCN, {spatial}": (lambda spatial=spatial: stgcn(spatial), lambda operator=operator: (series(), operator))
        for spatial, operator in OPERATORS.items()
    },
    "STGCN, adaptive": (lambda: stgcn("adaptive", num_nodes=NODES), lambda: (series(),)),
    "STGCN, dropout": (lambda: stgcn(dropout=0.5), lambda: (series(), GCN)),
    "LinearSkip": (skip, lambda: (series(1), GCN)),
    **{
        f"STGCNClassifier, {level}": (
            lambda level=level: models.STGCNClassifier(2, 3, level, channels=(4,), kernel_size=3),
            lambda: (series(), SECTORS),
        )
        for level in ("graph", "node")
    },
    "MeshStep": (lambda: models.MeshStep(2, history=3, channels=4), lambda: (series(steps=3), MESH)),
    "Rollout": (lambda: models.Rollout(models.MeshStep(2, channels=4), 3), lambda: (series(steps=1), MESH)),
    "FusionSTGCN": (fusion, lambda: (fusion_x(), BETWEEN)),
    "STGCNImputer": (lambda: models.STGCNImputer(7, channels=4, blocks=1), lambda: (gaps(), GCN)),
    "AttentionImputer": (lambda: models.AttentionImputer(7, 3, channels=4, heads=2), lambda: (gaps(), MESH)),
    "RecurrentImputer": (lambda: models.RecurrentImputer(7, 4), lambda: (gaps(), GCN)),
    "GatedExpert": (
        lambda: regimes.GatedExpert(3, 4, channels=4),
        lambda: (torch.randn(1, STEPS, NODES, 1), SECTORS),
    ),
    "RegionAutoencoder": (lambda: regions.RegionAutoencoder(4), lambda: (torch.randn(NODES, 4), LAPLACIAN, GCN)),
}


def moved(value, device):
    """Tensors, or whatever holds them, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(one, device) for key, one in value.items()}
    return tuple(moved(one, device) for one in value) if isinstance(value, tuple | list) else value


def total(output) -> torch.Tensor:
    parts = output if isinstance(output, tuple) else (output,)
    return sum(part.square().sum() for part in parts)


def forward_and_backward(model, inputs):
    torch.manual_seed(1)  # of the dropout
    value = total(model(*inputs))
    value.backward()
    return value, {name: weight.grad for name, weight in model.named_parameters()}


def fresh(make):
    torch.manual_seed(0)
    model = make()
    for weight in model.parameters():  # those that start at zero, too
        nn.init.normal_(weight, std=0.3)
    return model


def test_every_layer_and_network_is_tried():
    written = {
        name
        for module in (layers, models, regimes, regions)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, nn.Module) and kind.__module__ == module.__name__ and not name.startswith("_")
    }
    assert written == {name.split(",")[0] for name in CASES}


def test_the_stand_in_refuses_to_mix_devices():
    with card():
        there = torch.randn(3, device=CARD)
        assert isinstance(there, OnCard) and there.device == CARD
        assert (there * 2 + torch.tensor(1.0)).device == CARD
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        layer = nn.Linear(3, 2).to(CARD)
        assert layer(there).device == CARD
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.randn(3))
        hidden = torch.arange(3.0)  # as a buffer would be that was never registered
        with pytest.raises(RuntimeError, match="same device"):
            layer(there) @ hidden[:2]
    assert there.kept.shape == (3,)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_stay_on_the_card(name):
    make, inputs = CASES[name]
    model, given = fresh(make), inputs()
    value, gradients = forward_and_backward(deepcopy(model), given)
    with card():
        model.to(CARD)
        assert all(tensor.device == CARD for tensor in model.state_dict().values())
        there, theirs = forward_and_backward(model, moved(given, CARD))
        assert there.device == CARD
        torch.testing.assert_close(there.cpu(), value.detach())
        for key, gradient in gradients.items():
            assert (theirs[key] is None) == (gradient is None), key
            if gradient is not None:
                assert theirs[key].device == CARD, key
                torch.testing.assert_close(theirs[key].cpu(), gradient)


def stored_series(days: int = 60) -> xr.DataArray:
    time = pd.date_range("2001-01-01", periods=days)
    values = np.random.default_rng(1).normal(size=(days, NODES)).cumsum(axis=0)
    coords = {"time": time, "station": [f"s{i}" for i in range(NODES)]}
    return xr.DataArray(values, coords, ("time", "station"), name="wind", attrs={"units": "m s-1"})


def windows() -> WindowDataset:
    return WindowDataset(stored_series().to_dataset(), history=STEPS, horizon=2, inputs="wind", targets="wind")


def trained(device) -> tuple[training.History, float, torch.Tensor, nn.Module]:
    torch.manual_seed(0)
    model = models.STGCN(1, 1, STEPS, 2, channels=(4, 3, 4), kernel_size=2, blocks=1, dropout=0.2).to(device)
    data = windows()
    # the windows and the graph stay where they are: the training fetches them
    history = training.fit(model, data, data, operator=GCN, epochs=2, batch_size=16, progress=False)
    loss = training.evaluate(model, data, operator=GCN)
    return history, loss, training.predict(model, data, operator=GCN), model


def test_training_brings_data_and_graph_to_the_weights():
    history, loss, said, _ = trained("cpu")
    with card():
        there, there_loss, there_said, model = trained(CARD)
        assert all(weight.device == CARD for weight in model.parameters())
    assert there_said.device.type == "cpu"
    assert there.train_loss == pytest.approx(history.train_loss)
    assert there.validation_loss == pytest.approx(history.validation_loss)
    assert there_loss == pytest.approx(loss)
    torch.testing.assert_close(there_said, said)


LOSSES = {
    "masked_mse": (training.masked_mse, 1),
    "huber": (training.huber(0.5), 1),
    "gaussian_crps": (training.gaussian_crps, 2),
    "gaussian_nll": (training.gaussian_nll, 2),
    "student_t": (training.student_t(4.0), 2),
    "pinball_loss": (training.pinball_loss([0.1, 0.5, 0.9]), 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_on_the_card(name):
    loss, width = LOSSES[name]
    prediction, target = torch.randn(2, 3, NODES, width), torch.randn(2, 3, NODES, 1)
    mask = torch.rand(target.shape) > 0.3
    expected = loss(prediction, target, mask)
    with card():
        there = loss(*moved((prediction, target, mask), CARD))
        assert there.device == CARD
        assert there.item() == pytest.approx(expected.item())


def forecaster() -> forecasting.Forecaster:
    return forecasting.fit_forecaster(
        stored_series(), graph=GRAPH, history=3, lags=2, channels=(4, 3, 4), members=1, epochs=1, harmonics=0
    )


def test_a_forecaster_works_where_its_members_were_moved():
    fitted, wind = forecaster(), stored_series()
    expected = fitted.distribution(wind)
    with card():
        for member in fitted.members:
            member.to(CARD)
        there = fitted.distribution(wind)
    xr.testing.assert_allclose(there, expected)


# ---- where there is a real card ----

real = pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card that PyTorch can use")


@real
@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_on_a_real_card(name):
    make, inputs = CASES[name]
    model, given = fresh(make).eval(), inputs()  # the card draws other numbers for the dropout
    value, gradients = forward_and_backward(deepcopy(model), given)
    there, theirs = forward_and_backward(model.cuda(), moved(given, "cuda"))
    torch.testing.assert_close(there.cpu(), value, rtol=1e-3, atol=1e-3)
    for key, gradient in gradients.items():
        if gradient is not None:
            torch.testing.assert_close(theirs[key].cpu(), gradient, rtol=1e-2, atol=1e-2)


@real
def test_training_and_forecast_on_a_real_card():
    history, loss, _, model = trained("cuda")
    assert all(weight.is_cuda for weight in model.parameters())
    assert history.train_loss[-1] < history.train_loss[0] and np.isfinite(loss)
    fitted, wind = forecaster(), stored_series()
    expected = fitted.distribution(wind)
    for member in fitted.members:
        member.cuda()
    xr.testing.assert_allclose(fitted.distribution(wind), expected, rtol=1e-3, atol=1e-3)
