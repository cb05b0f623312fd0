"""The network of the page live.html: its weights belong to its scores, and the page says what the scores say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from stgcn_lab import graphs

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("live_benchmark", ROOT / "benchmarks" / "live.py")
live = importlib.util.module_from_spec(spec)
spec.loader.exec_module(live)


@pytest.fixture(scope="module")
def stored():
    return live.stored_network()


@pytest.fixture(scope="module")
def record():
    return live.Record()


def line(results, table, model):
    (found,) = (one for one in results["scores"][table] if one["model"] == model)
    return found


def test_weights_give_the_scores_that_are_printed(stored, record):
    network, results = stored
    operator = graphs.gcn_operator(live.graph_of(record.root, results["settings"]), sparse=False)
    choice = live.score(record, record.forecast(network, operator, live.CHOICE), live.CHOICE)
    assert choice == pytest.approx(results["validation"][results["seed"]], abs=2e-5)
    assert results["seed"] == int(np.argmin(results["validation"]))  # chosen without the test years
    test = live.score(record, record.forecast(network, operator, live.TEST), live.TEST)
    assert test == pytest.approx(
        line(results, "all report", "network of this page")["seeds"][results["seed"]], abs=2e-5
    )


def test_page_says_what_the_scores_say(stored):
    """Sentences of book/live.md that would be wrong if a new training turned out otherwise."""
    _, results = stored
    text = re.sub(r"\s+", " ", (ROOT / "book" / "live.md").read_text(encoding="utf-8"))
    network = line(results, "all report", "network of this page")
    assert "the straight line wins" in text
    assert network["difference"]["low"] > 0
    assert network["score"] < line(results, "all report", "persistence")["score"]
    assert "even costs a little" in text
    assert results["graph minus none"]["all report"][1] > 0
    assert "the error of the same networks falls" in text
    assert line(results, "all report", "its edges all cut")["score"] < network["score"]
    assert "the graph is all there is" in text
    assert results["graph minus none"]["silent"][2] < 0
    assert "does better still" in text
    assert line(results, "silent", "network of this page")["difference"]["low"] > 0
    rows = {row["name"]: row["all report"] + row["silent"] for row in results["choice"]}
    assert "More edges would score a little better" in text
    assert rows["4 neighbours"] < rows["3 neighbours"] < rows["as it starts"]
    assert results["settings"] == live.SETTINGS
    assert min(live.TRIED, key=rows.__getitem__) == "as it starts"


def test_perturbations_of_training(stored, record):
    _, results = stored
    graph = live.graph_of(record.root, results["settings"])
    operator = graphs.gcn_operator(graph, sparse=False)
    seen = []

    class Listens(torch.nn.Module):
        def forward(self, x, operator):
            seen.append((x, operator))
            return x

    x = torch.randn(500, 5, 12, 1)
    perturbed = live.Perturbed(Listens(), graph, silent=0.25, thinned=0.3)
    perturbed.eval()(x, operator)
    torch.manual_seed(0)
    perturbed.train()(x, operator)
    (calm, whole), (noisy, thin) = seen
    assert torch.equal(calm[..., :1], x)
    assert calm[..., 1].min() == 1
    assert torch.equal(whole, operator)
    reports = noisy[..., 1]
    assert torch.equal(reports, reports[:, :1].expand_as(reports))  # silent for the whole window
    assert 0.70 < reports.mean() < 0.80
    assert torch.equal(noisy[..., 0], x[..., 0] * reports)
    assert torch.allclose(thin, thin.T, atol=1e-7)
    assert 0 < (thin > 0).sum() < (operator > 0).sum()
    assert torch.allclose(live.normalised(perturbed.weights), operator, atol=1e-6)


def test_forecast_of_a_silent_station_does_not_know_its_wind(stored, record):
    network, results = stored
    operator = graphs.gcn_operator(live.graph_of(record.root, results["settings"]), sparse=False)
    days = slice("1975-01-01", "1975-01-10")
    before = record.forecast_silent(network, operator, days)
    other = live.Record()
    other.anomaly[:, 3] = other.anomaly[:, 3] + 1.0
    after = other.forecast_silent(network, operator, days)
    np.testing.assert_allclose(after[:, 3], before[:, 3], atol=1e-6)
    assert abs(after - before).max() > 0.01  # others hear it
    assert np.isfinite(other.line_from_others().values[3:]).all()
    np.testing.assert_allclose(other.line_from_others()[3:, 3] - record.line_from_others()[3:, 3], 1.0, atol=1e-6)
