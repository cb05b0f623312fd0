"""Small fixtures shared by the unit tests. Everything runs offline, on one thread, with fixed seeds."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch_geometric.data import Data

from stgcn_lab.graphs import knn_graph

# The same examples on every machine, and no time limit for a single one: a slow machine is not a defect.
settings.register_profile(
    "book",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("book")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def places(rng) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of 12 stations scattered over Ireland."""
    return rng.uniform(51.5, 55.5, 12), rng.uniform(-10.5, -5.5, 12)


@pytest.fixture
def graph(places) -> Data:
    """An undirected, irregular graph of 12 stations with weights that differ."""
    return knn_graph(*places, k=3)


@pytest.fixture
def directed() -> Data:
    """Seven nodes: directed edges with weights, node 5 only sends, node 6 is isolated."""
    edges = [(0, 1), (1, 2), (2, 0), (3, 1), (1, 3), (4, 3), (5, 4), (0, 4)]  # (source, target)
    return Data(
        edge_index=torch.tensor(edges).T.contiguous(),
        edge_weight=torch.tensor([0.5, 1.0, 2.0, 0.25, 0.75, 1.5, 3.0, 0.1]),
        pos=torch.tensor([[0.0, 50.0], [1, 50], [1, 51], [2, 52], [0, 52], [3, 50], [9, 50]]),
        num_nodes=7,
    )
