"""Regions: every method on planted regions, and on European temperature.

    python benchmarks/regions.py

Writes regions.json beside this file. The settings of the package were chosen on seeds 0 to 7; the seeds here
are others. All methods get the same series, the same graph and the true number of regions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from stgcn_lab import datasets, graphs, regions, simulate

SEEDS = range(100, 110)
HALVINGS = 10  # random halves of the years
NEIGHBOURS = 8
COMPONENTS = 10

Labels = np.ndarray


def standardised(series: xr.DataArray) -> np.ndarray:
    return ((series - series.mean("time")) / series.std("time")).values


def k_means(features: np.ndarray, k: int) -> Labels:
    return KMeans(k, n_init=20, random_state=0).fit_predict(features)


def loadings(series: xr.DataArray, graph: Any, k: int) -> Labels:
    """k-means on what each station has of the leading principal components."""
    z = standardised(series)
    _, s, v = np.linalg.svd(z, full_matrices=False)
    n = min(COMPONENTS, len(s))
    return k_means(v[:n].T * s[:n] / np.sqrt(len(z)), k)


def profile(series: xr.DataArray, graph: Any, k: int) -> Labels:
    return k_means(np.corrcoef(standardised(series).T), k)


def ward(series: xr.DataArray, graph: Any, k: int) -> Labels:
    return regions.ward_regions(standardised(series).T, graph, k)


def leading_excess(series: xr.DataArray, graph: Any, k: int) -> np.ndarray:
    excess = regions.excess_correlation(series, graph)
    patterns = np.linalg.eigh(excess)[1][:, -2 * k :]
    return excess @ patterns


def drift(series: xr.DataArray, graph: Any) -> np.ndarray:
    u = regions.drift(series, graph, lags=2).values
    return u.reshape(len(u), -1)


def discovered(**options: Any) -> Callable[[xr.DataArray, Any, int], Labels]:
    return lambda series, graph, k: regions.discover_regions(series, graph, k, **options).values


COMMON = {
    "principal components, k-means": loadings,
    "correlation profile, k-means": profile,
    "series, Ward on the graph": ward,
}
SIGNALS = {
    **COMMON,
    "excess correlation, k-means": lambda s, g, k: k_means(leading_excess(s, g, k), k),
    "excess correlation, Ward": lambda s, g, k: regions.ward_regions(leading_excess(s, g, k), g, k),
    "graph autoencoder + DEC": discovered(),
    "graph autoencoder + DEC, contiguous": discovered(contiguous=True),
}
MOTION = {
    **COMMON,
    "drift, k-means": lambda s, g, k: k_means(drift(s, g), k),
    "drift, Ward": lambda s, g, k: regions.ward_regions(drift(s, g), g, k),
    "graph autoencoder + DEC": discovered(view="motion"),
    "graph autoencoder + DEC, contiguous": discovered(view="motion", contiguous=True),
}


ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without training": {"epochs": 0},
    "no graph in the encoder": {"spatial": False},
    "no neighbours in the target": {"neighbours": 0.0},
}


def summary(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "sd": round(float(np.std(values, ddof=min(1, len(values) - 1))), 4),
        "min": round(float(np.min(values)), 4),
        "max": round(float(np.max(values)), 4),
    }


def planted(kind: str, methods: dict[str, Any], **settings: Any) -> dict[str, Any]:
    scores: dict[str, list[float]] = {"a compact map drawn blindly": [], **{name: [] for name in methods}}
    against: list[float] = []  # discovered minus the best of the common methods, seed by seed
    for seed in SEEDS:
        series, truth = simulate.planted_regions(seed=seed, kind=kind, **settings)
        graph = graphs.knn_graph(series.lat, series.lon, k=NEIGHBOURS)
        k = settings["num_regions"]
        places = np.stack([series.lon, series.lat], axis=1)
        centres = np.random.default_rng(seed + 1000).choice(len(places), k, replace=False)
        blind = ((places[:, None] - places[centres]) ** 2).sum(-1).argmin(1)
        scores["a compact map drawn blindly"].append(adjusted_rand_score(truth, blind))
        for name, method in methods.items():
            scores[name].append(adjusted_rand_score(truth, method(series, graph, k)))
        against.append(scores["graph autoencoder + DEC"][-1] - max(scores[name][-1] for name in COMMON))
    return {
        "kind": kind,
        **settings,
        "ari": {name: summary(values) for name, values in scores.items()},
        "ahead_of_the_best_common": summary(against),
    }


def stability(series: xr.DataArray, graph: Any, k: int, methods: dict[str, Any], halves: list[Any]) -> dict[str, Any]:
    """ARI between the maps of two halves, and how much of the other half's variance the regions' means explain."""
    same: dict[str, list[float]] = {name: [] for name in methods}
    explained: dict[str, list[float]] = {name: [] for name in methods}
    for first, second in halves:
        for name, method in methods.items():
            maps = [method(series.isel(time=half), graph, k) for half in (first, second)]
            same[name].append(adjusted_rand_score(*maps))
            for labels, other in ((maps[0], second), (maps[1], first)):
                z = standardised(series.isel(time=other))
                means = np.stack([z[:, labels == r].mean(1) for r in range(k)], axis=1)
                explained[name].append(1 - float(((z - means[:, labels]) ** 2).mean()))
    return {
        "ari_between_halves": {name: summary(values) for name, values in same.items()},
        "explained_in_other_half": {name: summary(values) for name, values in explained.items()},
    }


def europe() -> tuple[xr.DataArray, Any]:
    """Monthly anomalies of the reanalysis without their linear trend."""
    grid = datasets.load_reanalysis("europe").air_temperature
    series = datasets.grid_to_nodes(grid)
    months = series.groupby("time.month")
    series = (months - months.mean("time")).drop_vars("month")
    t = np.arange(series.sizes["time"]) - (series.sizes["time"] - 1) / 2
    slope = (series.values * t[:, None]).sum(0) / (t**2).sum()
    return series.copy(data=series.values - t[:, None] * slope), graphs.grid_graph(grid.lat, grid.lon)


def random_halves(series: xr.DataArray) -> list[Any]:
    years = series["time.year"].values
    unique = np.unique(years)
    halves = []
    for number in range(HALVINGS):
        chosen = np.isin(years, np.random.default_rng(number).permutation(unique)[: len(unique) // 2])
        halves.append((np.flatnonzero(chosen), np.flatnonzero(~chosen)))
    return halves


def without_regions(series: xr.DataArray, graph: Any, seed: int) -> xr.DataArray:
    """A surrogate that knows distances and no regions: Gaussian months, correlated as distance explains."""
    z = standardised(series)
    usual = z.T @ z / len(z) - regions.excess_correlation(series, graph)
    value, vector = np.linalg.eigh(usual)
    root = vector * np.sqrt(np.maximum(value, 0))
    return series.copy(data=np.random.default_rng(seed).standard_normal(z.shape) @ root.T)


def main() -> None:
    start = time.perf_counter()
    results: dict[str, Any] = {"seeds": [SEEDS.start, SEEDS.stop - 1], "halvings": HALVINGS, "planted": []}
    base = {"num_nodes": 100, "num_steps": 1000, "num_regions": 4}
    surface = [{"num_nodes": 40}, {"num_nodes": 300}, {"num_regions": 3}, {"num_regions": 6}, {"num_steps": 250}]
    for settings in [{"signal": s} for s in (0.2, 0.3, 0.5, 1.0)] + [{"signal": 0.5, **change} for change in surface]:
        results["planted"].append(planted("signals", SIGNALS, **(base | settings)))
        print(settings, {n: v["mean"] for n, v in results["planted"][-1]["ari"].items()}, flush=True)
    surface = [{"num_nodes": 40}, {"num_nodes": 250}, {"num_regions": 3}, {"num_regions": 6}, {"num_steps": 250}]
    for settings in [{"signal": s} for s in (0.5, 1.0, 2.0)] + [{"signal": 1.0, **change} for change in surface]:
        results["planted"].append(planted("motion", MOTION, **(base | settings)))
        print(settings, {n: v["mean"] for n, v in results["planted"][-1]["ari"].items()}, flush=True)

    results["ablation"] = []
    for kind, signal, nodes in (("signals", 0.3, 100), ("motion", 1.0, 100), ("motion", 1.0, 250)):
        scores: dict[str, list[float]] = {name: [] for name in ABLATIONS}
        for seed in SEEDS:
            series, truth = simulate.planted_regions(nodes, 1000, 4, seed=seed, signal=signal, kind=kind)
            graph = graphs.knn_graph(series.lat, series.lon, k=NEIGHBOURS)
            for name, options in ABLATIONS.items():
                labels = discovered(view=kind, **options)(series, graph, 4)
                scores[name].append(adjusted_rand_score(truth, labels))
        ari = {name: summary(values) for name, values in scores.items()}
        results["ablation"].append({"kind": kind, "signal": signal, "num_nodes": nodes, "ari": ari})
        print(kind, signal, nodes, {name: value["mean"] for name, value in ari.items()}, flush=True)

    series, graph = europe()
    halves = random_halves(series)
    results["europe"], results["europe_without_regions"] = {}, {}
    for k in (4, 6, 8):
        results["europe"][str(k)] = stability(series, graph, k, SIGNALS, halves)
        nothing = [
            stability(without_regions(series, graph, number), graph, k, SIGNALS, [pair])["ari_between_halves"]
            for number, pair in enumerate(halves)
        ]
        results["europe_without_regions"][str(k)] = {
            name: summary([one[name]["mean"] for one in nothing]) for name in SIGNALS
        }
        print("europe", k, {n: v["mean"] for n, v in results["europe"][str(k)]["ari_between_halves"].items()})

    results["seconds_of_one_call"] = {}
    for nodes, steps in ((100, 1000), (100, 4000), (600, 4000)):
        series, _ = simulate.planted_regions(nodes, steps, 4, seed=100)
        graph = graphs.knn_graph(series.lat, series.lon, k=NEIGHBOURS)
        for view in regions.VIEWS:
            begin = time.perf_counter()
            regions.discover_regions(series, graph, 4, view=view)
            results["seconds_of_one_call"][f"{view}, {nodes} stations, {steps} steps"] = round(
                time.perf_counter() - begin, 1
            )
    results["seconds"] = round(time.perf_counter() - start)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
