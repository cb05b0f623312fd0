"""Filling gaps: every method of the package, scikit-learn's and pypots', on records with values withheld.

    python benchmarks/imputation.py

Irish wind (square root, daily, twelve stations) and Colorado's maximum temperature (monthly, with the gaps that it
has by nature). Values are withheld at random, in blocks, or as whole stations; a method sees what is left of one
period, nothing of another, and is scored on what was withheld. Every setting, and which graph network stands for all
in the comparisons, was chosen on the development period; the test period is scored once. Then two questions of use:
does a better filling make a better forecast, and does it find planted regimes better?

Writes imputation.json beside this file. What is finished is kept under _build/imputation, so that an interrupted run
goes on where it stood; it counts only as long as the code that made it is the same. Without pypots (the optional
extra "reference") the stored rows of SAITS and BRITS stay as they are.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import xarray as xr
from sklearn.metrics import adjusted_rand_score

import stgcn_lab
from stgcn_lab import baselines, classes, datasets, forecasting, graphs, imputation, regimes, simulate, verification
from stgcn_lab.interpolation import anomalies

RESULTS = Path(__file__).with_suffix(".json")
CACHE = Path(__file__).parents[1] / "_build" / "imputation"
SEEDS, TWO_SEEDS, ONE_SEED, CHOICE_SEEDS = range(5), range(2), range(1), range(100, 101)
SHARES, MIDDLE = (0.1, 0.5, 0.9), 0.5
PATTERNS = ("random", "blocks", "stations")
RESAMPLES = 2000

Series = xr.DataArray
Losses = dict[str, np.ndarray]

# Of each record: the two periods, the gaps withheld in blocks, and the blocks of the bootstrap, longer than any gap.
RECORDS: dict[str, dict[str, Any]] = {
    "Irish wind": {
        "variable": "square root of wind speed",
        "units": "m0.5 s-0.5",
        "development": ("1961", "1969"),
        "test": ("1970", "1978"),
        "length": (7, 56),  # days
        "block": 60,
    },
    "Colorado": {
        "variable": "monthly mean of the daily maximum temperature",
        "units": "degC",
        "development": ("1931", "1960"),
        "test": ("1961", "1990"),
        "length": (3, 18),  # months
        "block": 24,
    },
}
LEAST_VALUES = 60  # a station of Colorado counts in a period with as many


@cache
def record(name: str, part: str) -> Series:
    """(time, station) of one period."""
    years = slice(*RECORDS[name][part])
    if name == "Irish wind":
        wind = datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"]).sel(time=years)
        return np.sqrt(wind).assign_attrs(units="m0.5 s-0.5")
    series = datasets.load_colorado()["tmax"].sel(time=years)
    return series.isel(station=(series.notnull().sum("time") >= LEAST_VALUES).values)


@cache
def graph_of(name: str, part: str) -> Any:
    place = record(name, part)
    lat, lon = place["lat"].values, place["lon"].values
    if name == "Irish wind":
        return graphs.knn_graph(lat, lon, k=5)
    return classes.elevation_graph(lat, lon, place["elevation"].values, k=8)


# ---------------------------------------------------------------------------- methods from outside

# Tried on the development period, half of the values withheld in blocks or at random.
# SAITS: width 64 and 128, one layer and two, 30, 40 and 60 epochs, steps of 0.001 and 0.002, windows of 16, 32 and 64
# days (12, 24 and 36 months), absolute and squared errors.
# BRITS: 32, 64 and 128 hidden units, steps of 0.001, 0.003 and 0.005, 10 to 60 epochs, batches of 32, 64 and 128, two
# lengths of windows, absolute and squared errors.
# Iterative imputer: Bayesian and plain ridge, 10 and 30 rounds, with and without the steps before and after, with and
# without bounds.
SAITS = {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_k": 16, "d_v": 16, "d_ffn": 128, "dropout": 0.1}
OUTSIDE: dict[str, dict[str, Any]] = {
    "SAITS": {"Irish wind": {"window": 32, "epochs": 40}, "Colorado": {"window": 24, "epochs": 40}},
    "BRITS": {
        "Irish wind": {"window": 16, "epochs": 40, "batch_size": 64, "learning_rate": 5e-3},
        "Colorado": {"window": 24, "epochs": 20, "learning_rate": 3e-3},
    },
    "iterative imputer": {"Irish wind": {"nearest": None}, "Colorado": {"nearest": 20}},
}


def pypots_missing() -> str:
    """Why SAITS and BRITS can't be run, or nothing."""
    try:
        _pypots()
    except Exception as error:  # noqa: BLE001  it loads some thirty packages, any of which may fail
        return f"{type(error).__name__}: {error}"
    return ""


def _pypots() -> Any:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # a banner
        import pypots.imputation
        import pypots.optim
    return pypots


def with_outside(name: str, options: dict[str, Any], gappy: Series, seed: int) -> Series:
    """Filled by a method that knows neither season nor place: it is given the anomalies that all others work on.

    A station without any value is a column of which it can learn nothing: there the season stands.
    """
    found = anomalies(gappy)
    reports = np.isfinite(found.z).any(axis=0)
    filled = np.zeros_like(found.z)
    method = _iterative if name == "iterative imputer" else _windowed
    filled[:, reports] = method(name, found.z[:, reports], seed, **options)
    values = np.where(np.isfinite(found.z), gappy.values, found.season + found.scale * filled)
    return gappy.copy(data=values)


def _windowed(
    name: str,
    z: np.ndarray,
    seed: int,
    window: int,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
) -> np.ndarray:
    """SAITS or BRITS, trained on windows that overlap; in the end each value is said by two of them."""
    library = _pypots()
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what pypots draws from
    common = {"n_steps": window, "n_features": z.shape[1], "batch_size": batch_size, "epochs": epochs, "device": "cpu"}
    common |= {"verbose": False, "model_saving_strategy": None, "optimizer": library.optim.Adam(lr=learning_rate)}
    if name == "SAITS":
        model = library.imputation.SAITS(**common, **SAITS)
    else:
        model = library.imputation.BRITS(**common, rnn_hidden_size=64)
    short = window // 4 if z.shape[1] < 50 else window // 12  # days or months: about as many windows either way
    windows = _cut(z, window, short)[1]
    model.fit({"X": windows[np.isfinite(windows).any(axis=(1, 2))]})
    starts, windows = _cut(z, window, window // 2)
    said = np.asarray(model.predict({"X": windows})["imputation"]).reshape(windows.shape)
    middle = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1))[:, None]  # the edges count less
    total, weight = np.zeros_like(z), np.zeros((len(z), 1))
    for start, values in zip(starts, said, strict=True):
        total[start : start + window] += middle * values
        weight[start : start + window] += middle
    return total / weight


def _cut(z: np.ndarray, window: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    starts = np.unique([*range(0, len(z) - window, step), len(z) - window])
    return starts, np.stack([z[start : start + window] for start in starts]).astype(np.float32)


def _iterative(name: str, z: np.ndarray, seed: int, nearest: int | None) -> np.ndarray:
    """Every station from the others by a Bayesian ridge regression, in rounds."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rounds that did not settle
        bounds = {"min_value": -5, "max_value": 5}  # standard deviations: without them a few values run away
        return IterativeImputer(n_nearest_features=nearest, random_state=seed, **bounds).fit_transform(z)


# ---------------------------------------------------------------------------- all methods

SIMPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "climatology": ("climatology", {}),
    "inverse distance": ("idw", {}),
    "kriging": ("kriging", {}),
    "kriging in space and time": ("kriging", {"memory": True}),
    "EOF": ("eof", {}),
}
# What was chosen for each record on its development period.
MONTHLY = {"window": 36, "batch_size": 4, "steps": 100}
NETWORKS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "ST-GCN": ("stgcn", {"Irish wind": {}, "Colorado": MONTHLY}),
    "attention": ("attention", {"Irish wind": {}, "Colorado": MONTHLY | {"reach": 0}}),
    "GRIN": ("grin", {"Irish wind": {"batch_size": 16, "steps": 100}, "Colorado": MONTHLY}),
}
# Joint completion was tried on Irish wind only.
JOINT: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {"joint": ("joint", {"Irish wind": {}})}
GRAPH_METHODS = (*NETWORKS, *JOINT)
KINDS = dict.fromkeys(SIMPLE, "simple") | dict.fromkeys(NETWORKS, "graph network") | {"joint": "joint"}
KINDS |= dict.fromkeys(OUTSIDE, "outside")
RIVALS = ("linear", "kriging", "kriging in space and time", "EOF", "SAITS", "BRITS", "iterative imputer")


def options_of(method: str, name: str) -> dict[str, Any]:
    if method in SIMPLE:
        return SIMPLE[method][1]
    return OUTSIDE[method][name] if method in OUTSIDE else (NETWORKS | JOINT)[method][1][name]


def runs(method: str, name: str) -> bool:
    return method not in JOINT or name in JOINT[method][1]


def fill(method: str, name: str, part: str, gappy: Series, seed: int) -> Series:
    options = options_of(method, name)
    if method in OUTSIDE:
        return with_outside(method, options, gappy, seed)
    own_name = (SIMPLE | NETWORKS | JOINT)[method][0]
    return imputation.impute(gappy, graph_of(name, part), own_name, seed=seed, **options)


# ---------------------------------------------------------------------------- what is kept of finished work


def fingerprint(module: str) -> str:
    """Of code without its comments and docstrings, so that a better sentence does not cost an hour."""
    tree = ast.parse((Path(stgcn_lab.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False):
            node.body[0] = ast.Pass()
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


# Taken when this program starts, like the code itself.
FINGERPRINTS = {module: fingerprint(module) for module in stgcn_lab.__all__}


def kept(made_by: Callable[..., Losses], modules: tuple[str, ...], *arguments: Any, settings: Any = None) -> Losses:
    """What the function returns, from its file if the same was computed before."""
    key = json.dumps([inspect.getsource(made_by), [FINGERPRINTS[m] for m in sorted(modules)], arguments, settings])
    path = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if path.exists():
        with np.load(path) as stored:
            return dict(stored)
    result = made_by(*arguments)
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(unfinished, **result)
    unfinished.replace(path)
    return result


def settings_of(method: str, name: str) -> list[Any]:
    """All that a filling depends on beside the package."""
    own = (with_outside, _windowed, _iterative, _cut) if method in OUTSIDE else ()
    return [options_of(method, name), SAITS if own else None, *map(inspect.getsource, own)]


def modules_of(method: str) -> tuple[str, ...]:
    common = ("interpolation", "simulate", "datasets")
    if method in OUTSIDE:
        return common
    if method in SIMPLE:
        return (*common, "imputation")
    return (*common, "imputation", "graphs", "layers", "models", "training", "regimes")


# ---------------------------------------------------------------------------- filling


def cell(name: str, part: str, pattern: str, share: float, seed: int, method: str) -> Losses:
    """Errors of one method on one draw of gaps, summed over time and over stations; CPU seconds."""
    series = record(name, part)
    gappy = simulate.withhold(series, share, pattern, length=RECORDS[name]["length"], seed=seed)
    hidden = gappy.isnull() & series.notnull()
    began = time.process_time()
    filled = fill(method, name, part, gappy, seed)
    seconds = time.process_time() - began
    if not np.isfinite(filled.values).all() or not np.array_equal(
        filled.values[~hidden.values & series.notnull().values], series.values[~hidden.values & series.notnull().values]
    ):
        raise AssertionError(f"{method}: gaps left, or observed values changed")
    error = (filled - series).where(hidden).values
    result = {
        "squares_by_time": np.nansum(error**2, axis=1),
        "count_by_time": hidden.sum("station").values,
        "squares_by_station": np.nansum(error**2, axis=0),
        "count_by_station": hidden.sum("time").values,
        "rmse": np.sqrt(np.nanmean(error**2)),
        "mae": np.nanmean(np.abs(error)),
        "seconds": np.array(seconds),
    }
    if "spread" in filled.coords:
        spread, plain = filled["spread"].where(hidden), filled.drop_vars("spread")
        result["crps"] = verification.crps_gaussian(plain, spread, series.where(hidden), ("time", "station")).values
        result["inside"] = (np.abs(error) < 1.6449 * spread.values)[hidden.values].mean()  # should be 0.9
    return result


def scored(job: tuple[str, str, str, float, int, str]) -> Losses:
    name, _, _, _, _, method = job
    return kept(cell, modules_of(method), *job, settings=settings_of(method, name))


def seeds_of(name: str, share: float, method: str) -> range:
    """Five draws at the middle share; at the others, and for what takes a minute a fit, few must do."""
    if not runs(method, name):
        return range(0)
    if share == MIDDLE:
        return TWO_SEEDS if (name, method) == ("Colorado", "GRIN") else SEEDS
    quick = name == "Irish wind" and method in (*SIMPLE, *JOINT, "iterative imputer")
    return SEEDS if quick else ONE_SEED


def in_words(values: Iterable[float]) -> dict[str, Any]:
    values = np.array(list(values))
    return {"mean": values.mean(), "sd": values.std(ddof=1) if len(values) > 1 else None, "by_seed": values}


def row(name: str, pattern: str, share: float, method: str, cells: list[Losses]) -> dict[str, Any]:
    found: dict[str, Any] = {"data": name, "pattern": pattern, "share": share, "method": method, "kind": KINDS[method]}
    for score in ("rmse", "mae", "crps", "inside"):
        found[score.replace("inside", "coverage_90")] = in_words(c[score] for c in cells) if score in cells[0] else None
    return found | {"seconds": np.mean([c["seconds"] for c in cells])}


def difference(name: str, pattern: str, first: list[Losses], second: list[Losses]) -> dict[str, Any]:
    """RMSE of the first less that of the second, mean over the seeds they share, with its 95 % interval.

    The interval draws blocks of time; for whole stations, whose errors last, it draws stations, each with all draws
    in which it was withheld.
    """
    axis = "station" if pattern == "stations" else "time"
    pairs = list(zip(first, second, strict=False))  # the same seeds first
    squares = [np.stack([pair[k][f"squares_by_{axis}"] for pair in pairs], axis=1) for k in (0, 1)]
    count = np.stack([pair[0][f"count_by_{axis}"] for pair in pairs], axis=1).astype(float)
    if axis == "time":

        def of(mine: np.ndarray, other: np.ndarray, number: np.ndarray) -> np.ndarray:
            return (np.sqrt(mine / number) - np.sqrt(other / number)).mean(axis=1)

        block, options = RECORDS[name]["block"], {"resamples": RESAMPLES, "of_means": True}
        value, low, high = verification.block_bootstrap(of, *squares, count, block_length=block, **options)
    else:
        withheld = count.sum(axis=1) > 0
        drawn = np.random.default_rng(0).multinomial(
            withheld.sum(), np.full(withheld.sum(), 1 / withheld.sum()), RESAMPLES
        )
        drawn = np.concatenate([np.ones((1, withheld.sum())), drawn])
        number = drawn @ count[withheld].sum(axis=1)
        mine, other = (np.sqrt(drawn @ part[withheld].sum(axis=1) / number) for part in squares)
        value, low, high = (mine - other)[0], *np.quantile((mine - other)[1:], (0.025, 0.975))
    base = np.mean([pair[1]["rmse"] for pair in pairs])
    return {"value": value, "low": low, "high": high, "relative": value / base, "seeds": len(pairs)}


# ---------------------------------------------------------------------------- use 1: a forecast learned from it

LAGS, RIDGE, HARMONICS = 3, 0.03, 1  # of the ridge line in irish_wind.py
FILLINGS = ("linear", "climatology", "kriging", "kriging in space and time", "SAITS")  # and the best graph network


def forecast_cell(pattern: str, seed: int, learned_from: str, method: str) -> Losses:
    """One-day forecasts of complete years by what was learned from 1961-1969 with half of the values withheld."""
    whole, test = record("Irish wind", "development"), record("Irish wind", "test")
    length = RECORDS["Irish wind"]["length"]
    train = whole if method == "complete" else simulate.withhold(whole, MIDDLE, pattern, length=length, seed=seed)
    gaps = train.isnull()
    if method not in ("complete", "gaps left in"):
        train = fill(method, "Irish wind", "development", train, seed).reset_coords(drop=True)
        train = train.assign_coords(station=whole["station"], lat=whole["lat"], lon=whole["lon"])
    try:
        said = LEARNERS[learned_from](train, gaps, test, seed)
    except ValueError:  # what is left can't be learned from
        return {"squares_by_time": np.full(test.sizes["time"], np.nan), "rmse": np.array(np.nan)}
    squares = ((said - test) ** 2).isel(time=slice(LAGS, None)).values
    return {"squares_by_time": squares.mean(axis=1), "rmse": np.sqrt(squares.mean())}


def _with_season(train: Series, test: Series, fit: Callable[[Series], Any]) -> Series:
    season = baselines.climatology(train, test["time"], HARMONICS)
    model = fit(train - baselines.climatology(train, train["time"], HARMONICS))
    return season + model.forecast(test - season)


def ridge_line(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    """Of a record with gaps it takes the steps that are complete at all stations and lags: rows are dropped."""
    return _with_season(train, test, lambda anomaly: baselines.fit_var(anomaly, LAGS, RIDGE))


def autoregression(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    """Each station alone, which passes over its own gaps only."""
    return _with_season(train, test, lambda anomaly: baselines.fit_ar(anomaly, LAGS))


def pairwise_covariances(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    return _with_season(train, test, lambda anomaly: baselines.fit_kriging(anomaly, LAGS))


def pairwise_ridge(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    """The ridge line from covariances, each over the steps that its two columns share.

    Such covariances need not fit together: what would be a negative variance is set to 0.
    """

    def fit(anomaly: Series) -> baselines.VAR:
        x = (anomaly - anomaly.mean("time")).values
        stations, scale = x.shape[1], np.nanstd(x, axis=0)
        columns = np.concatenate([x[LAGS - p : len(x) - p] / scale for p in range(LAGS + 1)], axis=1)
        there = np.isfinite(columns).astype(float)
        covariance = np.nan_to_num(columns).T @ np.nan_to_num(columns) / (there.T @ there)
        values, vectors = np.linalg.eigh(covariance)
        covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        penalty = RIDGE * np.diag(np.repeat(np.arange(1, LAGS + 1) ** 2, stations))
        b = np.linalg.solve(covariance[stations:, stations:] + penalty, covariance[stations:, :stations])
        lags = (b.T * scale[:, None]).reshape(stations, LAGS, stations).transpose(1, 0, 2) / scale
        mean = anomaly.mean("time").values
        return baselines.VAR(anomaly["station"].values, mean - lags.sum(axis=0) @ mean, lags)

    return _with_season(train, test, fit)


def observed_targets(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    """The ridge line on filled predictors, but each station learns only from days on which it was observed."""

    def fit(anomaly: Series) -> baselines.VAR:
        x, there = anomaly.values, ~gaps.values[LAGS:]
        past = np.concatenate([x[LAGS - p : len(x) - p] for p in range(1, LAGS + 1)], axis=1)
        weights = np.repeat(np.arange(1, LAGS + 1), x.shape[1])
        intercept, coefficients = np.empty(x.shape[1]), np.empty((x.shape[1], past.shape[1]))
        for i in range(x.shape[1]):
            rows, y = past[there[:, i]], x[LAGS:][there[:, i], i]
            scale = rows.std(axis=0) * weights
            z = (rows - rows.mean(axis=0)) / scale
            penalty = RIDGE * len(z) * np.eye(len(weights))
            coefficients[i] = np.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean())) / scale
            intercept[i] = y.mean() - coefficients[i] @ rows.mean(axis=0)
        lags = coefficients.reshape(x.shape[1], LAGS, x.shape[1]).transpose(1, 0, 2)
        return baselines.VAR(anomaly["station"].values, intercept, lags)

    return _with_season(train, test, fit)


def network(train: Series, gaps: Series, test: Series, seed: int) -> Series:
    """The forecaster without its linear part, which needs a complete record: a gap counts as usual for the season in
    what it sees, and not at all in its loss."""
    graph = graph_of("Irish wind", "development")
    fitted = forecasting.fit_forecaster(train, None, graph, lags=0, harmonics=HARMONICS, members=1, seed=seed)
    return fitted.forecast(test)


LEARNERS: dict[str, Callable[[Series, Series, Series, int], Series]] = {
    "ridge line": ridge_line,
    "ridge line, observed targets": observed_targets,
    "network": network,
    "autoregression": autoregression,
    "pairwise covariances": pairwise_covariances,
    "ridge line, pairwise covariances": pairwise_ridge,
}


def forecast_jobs(best: str) -> list[tuple[str, str]]:
    """(learner, what it learns from)."""
    jobs = [("ridge line", method) for method in ("complete", "gaps left in", *FILLINGS, best)]
    jobs += [("ridge line, observed targets", "kriging in space and time")]
    jobs += [(learner, "gaps left in") for learner in LEARNERS if not learner.startswith("ridge line, obs")]
    return list(dict.fromkeys(jobs)) + [("network", method) for method in ("complete", "kriging in space and time")]


def forecast_scored(job: tuple[str, int, str, str]) -> Losses:
    settings = None if job[3] in ("complete", "gaps left in") else settings_of(job[3], "Irish wind")
    modules = ("baselines", "forecasting", "layers", "models", "training", "datasets", "simulate", "windows")
    if settings is not None:
        modules = tuple(sorted({*modules, *modules_of(job[3])}))
    return kept(forecast_cell, modules, *job, settings=settings)


def forecast_rows(jobs: list[tuple[str, str]], found: dict[tuple, Losses]) -> list[dict[str, Any]]:
    """Scores, and the difference from the ridge line learned from the complete record, drawn by blocks of time."""

    def of(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (np.sqrt(mine) - np.sqrt(other)).mean(axis=1)

    rows = []
    for pattern in ("random", "blocks"):

        def squares(learner: str, method: str, pattern: str = pattern) -> np.ndarray:
            return np.stack([found[pattern, s, learner, method]["squares_by_time"] for s in SEEDS], axis=1)

        reference = squares("ridge line", "complete")
        for learner, method in jobs:
            errors = [float(found[pattern, s, learner, method]["rmse"]) for s in SEEDS]
            entry: dict[str, Any] = {"pattern": pattern, "learner": learner, "learned_from": method}
            if np.isfinite(errors).all():
                gap = verification.block_bootstrap(
                    of, squares(learner, method), reference, block_length=30, resamples=RESAMPLES, of_means=True
                )
                entry["rmse"] = in_words(errors)
                entry["less_complete"] = dict(zip(("value", "low", "high"), gap, strict=True))
            else:  # no complete step is left, or the covariances do not fit together
                entry |= {"rmse": None, "less_complete": None}
            rows.append(entry)
    return rows


# ---------------------------------------------------------------------------- use 2: regimes found in it

PLANTED = {"num_nodes": 40, "num_steps": 2000, "num_regimes": 4}
PLANTED_LENGTH = (7, 56)
REGIME_FILLINGS = ("complete", "linear", "kriging", "kriging in space and time", "joint")


def regime_cell(pattern: str, seed: int, method: str) -> Losses:
    """Planted regimes with half of the values withheld: agreement of what is found, and error of the filling."""
    series, truth = simulate.travelling_regimes(seed=seed, **PLANTED)
    graph = graphs.knn_graph(series["lat"].values, series["lon"].values, k=8)
    gappy = simulate.withhold(series, MIDDLE, pattern, length=PLANTED_LENGTH, seed=seed)
    began = time.process_time()
    if method == "joint":
        filled, found = regimes.complete_regimes(gappy, graph, PLANTED["num_regimes"], seed)
    else:
        filled = (
            series if method == "complete" else imputation.impute(gappy, graph, SIMPLE[method][0], **SIMPLE[method][1])
        )
        plain = filled.drop_vars("spread", errors="ignore")
        found = regimes.discover_regimes(plain, graph, PLANTED["num_regimes"], seed, check=False)
    seconds = time.process_time() - began
    error = (filled - series).values[gappy.isnull().values]
    return {
        "agreement": np.array(adjusted_rand_score(truth.values, found.labels.values)),
        "rmse": np.sqrt(np.mean(error**2)),
        "seconds": np.array(seconds),
    }


def regime_scored(job: tuple[str, int, str]) -> Losses:
    modules = tuple(sorted({*modules_of("kriging"), "graphs", "regimes"}))
    return kept(regime_cell, modules, *job, settings=SIMPLE.get(job[2]))


# ---------------------------------------------------------------------------- the whole


def nature(name: str) -> dict[str, Any]:
    """What is missing without anybody withholding it."""
    found: dict[str, Any] = {}
    for part in ("development", "test"):
        series = record(name, part)
        found[part] = {
            "years": RECORDS[name][part],
            "stations": series.sizes["station"],
            "steps": series.sizes["time"],
            "missing": series.isnull().mean(),
        }
    whole = datasets.load_irish_wind()["wind_speed"] if name == "Irish wind" else datasets.load_colorado()["tmax"]
    found["whole_record"] = {
        "stations": whole.sizes["station"],
        "steps": whole.sizes["time"],
        "missing": whole.isnull().mean(),
    }
    found["gap_lengths"] = gap_lengths(whole)
    return found | {key: RECORDS[name][key] for key in ("variable", "units", "length", "block")}


def gap_lengths(series: Series) -> dict[str, Any] | None:
    """Steps between the first and the last value of a station at which it is silent, run by run."""
    runs = []
    for column in series.values.T:
        runs.append(np.diff(np.flatnonzero(np.isfinite(column))) - 1)
    lengths = np.concatenate(runs)
    lengths = lengths[lengths > 0]
    if not lengths.size:
        return None
    quantiles = dict(zip(("q10", "q50", "q90"), np.quantile(lengths, (0.1, 0.5, 0.9)), strict=True))
    return {
        "gaps": lengths.size,
        **quantiles,
        "longest": lengths.max(),
        "in_gaps_of_a_year": lengths[lengths >= 12].sum() / lengths.sum(),
    }


def rounded(value: Any) -> Any:
    """Plain numbers for JSON, None for NaN."""
    if isinstance(value, dict):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [rounded(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic, xr.DataArray)):
        return rounded(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def single_thread() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse CSR")


class Pool:
    """Runs jobs side by side and tells how far it is."""

    def __init__(self, processes: int) -> None:
        self.executor, self.began = ProcessPoolExecutor(processes, initializer=single_thread), time.perf_counter()

    def __call__(self, what: str, function: Callable, jobs: list[Any]) -> dict[Any, Losses]:
        found = {}
        for number, (job, result) in enumerate(zip(jobs, self.executor.map(function, jobs), strict=True), start=1):
            found[job] = result
            if number % 50 == 0 or number == len(jobs):
                print(f"{what}: {number} of {len(jobs)}, {time.perf_counter() - self.began:.0f} s", flush=True)
        return found


def choose(pool: Pool) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """RMSE with half of the development period's values withheld, and the best graph method of each record.

    Best is the smallest RMSE as a share of that of kriging in space and time, mean of the three patterns.
    """
    jobs = [
        (name, "development", pattern, MIDDLE, seed, method)
        for method in (*GRAPH_METHODS, *SIMPLE) for name in RECORDS if runs(method, name)
        for pattern in PATTERNS for seed in CHOICE_SEEDS
    ]  # fmt: skip
    found = pool("choice", scored, jobs)
    rows, best = [], {}
    for name in RECORDS:
        error: dict[str, np.ndarray] = {}
        for method in (*SIMPLE, *GRAPH_METHODS):
            if runs(method, name):
                parts = [
                    [found[name, "development", p, MIDDLE, s, method]["rmse"] for s in CHOICE_SEEDS] for p in PATTERNS
                ]
                error[method] = np.mean(parts, axis=1)
        relative = {method: np.mean(e / error["kriging in space and time"]) for method, e in error.items()}
        for method, e in error.items():
            by_pattern = dict(zip(PATTERNS, e, strict=True))
            rows.append({"data": name, "method": method, "rmse": by_pattern, "relative": relative[method]})
            print(f"choice {name:11s} {method:26s} {np.round(e, 4)} {relative[method]:.4f}", flush=True)
        best[name] = min((method for method in GRAPH_METHODS if method in error), key=relative.__getitem__)
    return best, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    pool = Pool(parser.parse_args().processes)
    single_thread()
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    missing = pypots_missing()
    if missing:
        print(f"pypots can't be loaded ({missing}): the stored rows of SAITS and BRITS stay as they are")
    absent = {"SAITS", "BRITS"} if missing else set()
    methods = [method for method in KINDS if method not in absent]
    best, choice = choose(pool)

    settings = [(name, pattern, share) for name in RECORDS for pattern in PATTERNS for share in SHARES]
    jobs = [
        (name, "test", pattern, share, seed, method)
        for method in methods for name, pattern, share in settings
        for seed in seeds_of(name, share, method)
    ]  # fmt: skip
    jobs.sort(key=lambda job: (job[3] != MIDDLE, KINDS[job[5]] == "simple"))  # what matters and what lasts first
    found = pool("test", scored, jobs)
    seconds = sum(float(c["seconds"]) for c in found.values())
    by_method = {m: sum(float(c["seconds"]) for job, c in found.items() if job[5] == m) for m in methods}
    rows, differences = [], []
    for name, pattern, share in settings:
        cells = {}
        for method in methods:
            if seeds := seeds_of(name, share, method):
                cells[method] = [found[name, "test", pattern, share, seed, method] for seed in seeds]
        rows += [row(name, pattern, share, method, cells[method]) for method in cells]
        pairs = [(best[name], rival) for rival in RIVALS if rival in cells and best[name] in cells]
        pairs += [
            (method, "kriging in space and time")
            for method in GRAPH_METHODS
            if method in cells and method != best[name]
        ]
        for first, second in pairs:
            gap = difference(name, pattern, cells[first], cells[second])
            differences.append(
                {"data": name, "pattern": pattern, "share": share, "first": first, "second": second} | gap
            )

    wind = best["Irish wind"]
    pairs = [pair for pair in forecast_jobs(wind) if pair[1] not in absent]
    jobs = [(pattern, seed, *pair) for pair in pairs for pattern in ("random", "blocks") for seed in SEEDS]
    forecasts = forecast_rows(pairs, pool("forecast", forecast_scored, jobs))
    jobs = [(pattern, seed, method) for method in REGIME_FILLINGS for pattern in ("random", "blocks") for seed in SEEDS]
    found = pool("regimes", regime_scored, jobs)
    planted = [
        {"pattern": pattern, "method": method}
        | {key: in_words(found[pattern, s, method][key] for s in SEEDS) for key in ("agreement", "rmse", "seconds")}
        for pattern in ("random", "blocks") for method in REGIME_FILLINGS
    ]  # fmt: skip

    results = {
        "data": {name: nature(name) for name in RECORDS},
        "seeds": SEEDS,
        "shares": SHARES,
        "settings": {m: {name: options_of(m, name) for name in RECORDS if runs(m, name)} for m in KINDS},
        "notes": [
            "joint: Irish wind only",
            "SAITS, BRITS, EOF, iterative imputer: a station withheld wholly has the season, all that is known of it",
            f"shares other than {MIDDLE}: one draw for Colorado, and for networks, SAITS, BRITS; GRIN, Colorado: two",
        ],
        "best_graph_method": best,
        "choice": choice,
        "scores": with_stored(rows, stored.get("scores", []), absent, ("method",)),
        "differences": with_stored(differences, stored.get("differences", []), absent, ("first", "second")),
        "forecast": with_stored(forecasts, stored.get("forecast", []), absent, ("learned_from",)),
        "regimes": {"field": PLANTED, "length": PLANTED_LENGTH, "rows": planted},
        "seconds": {"test": seconds, "by_method": by_method},
    }
    RESULTS.write_text(json.dumps(rounded(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{RESULTS.name}: {time.perf_counter() - pool.began:.0f} s")


def with_stored(
    rows: list[dict[str, Any]], stored: list[dict[str, Any]], absent: set[str], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The rows of this run, and those stored before of methods that could not be run."""
    return rows + [row for row in stored if any(row[key] in absent for key in keys)]


if __name__ == "__main__":
    main()
