"""Many sources, one picture: does the Pacific tell Colorado's rain, and does a grid help where stations are silent?

    python benchmarks/fusion.py

(a) Rain of the next three months at Colorado's stations, forecast on the first of every month from what was known
that morning: rain before, two series of the Pacific, temperatures over North America. Early, late and graph fusion,
linear and by networks, with every source taken away in turn.
(b) The temperature of a month at stations that are silent, from those that report and from reanalysis cells.

Every setting was chosen on 1976-83 after learning from 1950-75; then all is learned anew from 1950-83, and 1984-97 is
scored once. Writes fusion.json beside this file. What is finished is kept under _build/fusion (or --cache), so that an
interrupted run goes on where it stood.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import xarray as xr
from scipy.optimize import nnls

from stgcn_lab import baselines, datasets, graphs, interpolation, models, training, verification, windows

RESULTS = Path(__file__).with_suffix(".json")
CACHE = Path(__file__).parents[1] / "_build" / "fusion"
SEEDS, CHOICE_SEEDS = range(5), range(100, 102)
RECORD = slice("1949", "1997")  # a year before the first forecast, for its past
PARTS = {  # what is learned from, what is scored
    # The last totals to learn from end before the first that is scored begins.
    "choice": (slice("1950", "1975-10"), slice("1976", "1983")),
    "test": (slice("1950", "1983-10"), slice("1984", "1997")),
}
COMPLETE = 0.9  # share of the months of 1950-97 that a rain gauge must have reported
MONTHS = 3  # of the total that is forecast
BLOCK = 24  # months, of the bootstrap: El Niño comes and goes within two years
SOURCES = ("rain", "pacific", "america")
PATTERNS = 4  # EOFs of the temperatures over North America

Field = xr.DataArray
Array = np.ndarray


# ---------------------------------------------------------------------------- (a) the data


def standard(x: Field, years: slice) -> Field:
    """Anomalies from what is usual in the calendar month, in its standard deviations; both from the years alone."""
    usual = x.sel(time=years).groupby("time.month")
    centred = x.groupby("time.month") - usual.mean()
    return (centred.groupby("time.month") / usual.std()).drop_vars("month")


def gauges() -> Field:
    """(time, station) monthly rain where it was read often enough."""
    rain = datasets.load_colorado()["precip"]
    enough = rain.sel(time=slice("1950", "1997")).notnull().mean("time") >= COMPLETE
    return rain.sel(time=RECORD).isel(station=enough.values)


def total(rain: Field) -> Field:
    """Sum of a month and the two before it; missing where one of them is."""
    return sum((rain.shift(time=lag) for lag in range(1, MONTHS)), rain)


def patterns(field: Field, years: slice) -> Field:
    """(time, pattern) leading principal components of standardised anomalies, each of variance 1 in the years."""
    weight = np.sqrt(np.cos(np.radians(field["lat"].values)))
    z = standard(field, years)
    values = z.values * weight
    inside = z["time"].isin(z.sel(time=years)["time"]).values
    _, size, vectors = np.linalg.svd(values[inside], full_matrices=False)
    parts = values @ vectors[:PATTERNS].T * np.sqrt(inside.sum()) / size[:PATTERNS]
    return xr.DataArray(parts, {"time": z["time"]}, ("time", "pattern"))


@cache
def season_data(part: str) -> xr.Dataset:
    """What is forecast and what is known, stamped by the day of the forecast, the first of the first month.

    ``target`` (time, station): root of the rain of three months, standardised. The rest (time, ..., column) holds the
    latest values that were known: of the month before, whose mean is complete on the first of this.
    """
    years = PARTS[part][0]
    rain = gauges()
    america = datasets.grid_to_nodes(datasets.load_reanalysis("north_america")["air_temperature"]).sel(time=RECORD)
    pacific = datasets.load_pacific()[["sst_nino12", "air_nino34"]].sel(time=RECORD)
    target = standard(np.sqrt(total(rain)), years).shift(time=1 - MONTHS)
    own = [standard(np.sqrt(x), years) for x in (rain, total(rain))]
    sea = [standard(pacific[name], years) for name in pacific]
    data = {
        "target": target,
        "rain": xr.concat(own, "own").shift(time=1).transpose("time", "station", "own"),
        "pacific": xr.concat(sea, "sea", coords="minimal", compat="override").shift(time=1).transpose("time", "sea"),
        "america": patterns(america, years).shift(time=1),
    }
    return (
        xr.Dataset(data)
        .sel(time=slice("1950", "1997"))
        .reset_coords(drop=True)
        .assign_coords({name: rain[name] for name in ("lat", "lon", "elevation")})
    )


# ---------------------------------------------------------------------------- (a) linear rules


def columns(data: xr.Dataset, sources: tuple[str, ...], seasonal: bool) -> Array:
    """(time, station, column) of all that the sources say; a gap counts as usual, 0."""
    like = data["target"]
    found = []
    for source in sources:
        x = data[source].values
        x = x if x.ndim == 3 else np.broadcast_to(x[:, None], (*like.shape, x.shape[-1]))
        found.append(np.nan_to_num(x))
    design = np.concatenate(found, axis=-1)
    if not seasonal:
        return design
    angle = 2 * np.pi * like["time"].dt.month.values[:, None, None] / 12
    return np.concatenate([design, design * np.cos(angle), design * np.sin(angle)], axis=-1)


def linear_rule(
    data: xr.Dataset, sources: tuple[str, ...], years: slice, ridge: float, seasonal: bool, own: float | None = None
) -> Field:
    """One rule for all stations, ``ŷ = x · w``; ``own`` allows each station to differ from it, by a ridge towards it.

    A ridge of 1 weighs as much as the data of a column of variance 1: it halves what such a column would get.
    """
    x, y = columns(data, sources, seasonal), data["target"].values
    inside = data["time"].isin(data["target"].sel(time=years)["time"]).values[:, None] & np.isfinite(y)
    eye = np.eye(x.shape[-1])
    here = x[inside]
    weights = np.linalg.solve(here.T @ here + ridge * len(here) * eye, here.T @ y[inside])
    said = x @ weights
    if own is not None:
        for i in range(y.shape[1]):
            mine = x[inside[:, i], i]
            penalty = own * len(mine) * eye
            w = np.linalg.solve(mine.T @ mine + penalty, mine.T @ y[inside[:, i], i] + penalty @ weights)
            said[:, i] = x[:, i] @ w
    return data["target"].copy(data=said)


def stacked(parts: list[Field], truth: Field) -> Array:
    """Late fusion: how much of each forecast to take, never less than nothing, by least squares."""
    there = np.isfinite(truth.values)
    return nnls(np.stack([part.values[there] for part in parts], axis=1), truth.values[there])[0]


def state(field: Field, truth: Field) -> Field:
    """Mean over the stations that report, as a series of one station."""
    mean = field.where(truth.notnull()).mean("station")
    return mean.expand_dims(station=["Colorado"], axis=1)


def scores(said: Field, truth: Field) -> dict[str, Any]:
    """RMSE at stations and of their mean, skill against climatology, differences with intervals."""
    said = said.sel(time=truth["time"])
    nothing = xr.zeros_like(truth)
    found: dict[str, Any] = {}
    for name, (mine, none, seen) in {
        "stations": (said, nothing, truth),
        "state": (state(said, truth), state(nothing, truth), state(truth, truth)),
    }.items():
        gap = verification.compare(mine, none, seen, block_length=BLOCK)
        usual = verification.mean_score(none, seen)
        found[name] = {
            "rmse": rounded(verification.mean_score(mine, seen)),
            "skill": rounded(-gap.value / usual),
            "minus_climatology": rounded(gap),
        }
    return found


def rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=float), 5).tolist()


# ---------------------------------------------------------------------------- (a) networks

Windows = windows.SourceWindows
NEAR = {"lat": slice(25, 55), "lon": slice(-130, -90)}  # cells that a network sees
FOR_EARLY = {"epochs": 3}  # of early fusion, which overfits sooner
HISTORY = {"station": 3, "america": 3, "pacific": 3}
SETTINGS: dict[str, Any] = {"channels": 8, "rounds": 1, "dropout": 0.5}
TRAINING: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "weight_decay": 1e-2}


@cache
def season_windows(part: str) -> tuple[dict[str, Windows], dict[Any, torch.Tensor]]:
    """Windows to learn from and to score, and the operators of the graph of all sources."""
    learn, score = PARTS[part]
    rain, data = gauges(), season_data(part)
    america = datasets.load_reanalysis("north_america")["air_temperature"].sel(NEAR)
    america = datasets.grid_to_nodes(america).sel(time=RECORD)
    pacific = datasets.load_pacific()[["sst_nino12", "air_nino34"]].sel(time=RECORD)
    station = xr.Dataset({"rain": standard(np.sqrt(rain), learn)})
    station["target"] = data["target"]
    station["nothing"] = xr.full_like(station["rain"], np.nan)  # in the place of the rain that is taken away
    angle = 2 * np.pi * (station["time"].dt.month + 1) / 12  # of the month that follows the last one seen
    station = station.assign(cos=np.cos(angle), sin=np.sin(angle))
    for name in ("lat", "lon", "elevation"):
        place = rain[name].astype(float)
        station[f"{name}_z"] = (place - place.mean()) / place.std()
    # What an early fusion gives to every station: the cell around it, and the ocean.
    lat, lon = (station[name].values[:, None] for name in ("lat", "lon"))
    cell = graphs.great_circle_distance(lat, lon, america["lat"].values, america["lon"].values).argmin(axis=1)
    z = standard(america, learn)
    station["cell"] = ("time", "station"), z.values[:, cell]
    sea = {name: standard(pacific[name], learn) for name in pacific}
    for name, x in sea.items():
        station[name] = x.broadcast_like(station["rain"]).transpose("time", "station")
    sources = {
        "station": station,
        "america": xr.Dataset({"temperature": z}),
        "pacific": xr.Dataset(sea),
    }
    place = {
        "station": (rain["lat"].values, rain["lon"].values),
        "america": (america["lat"].values, america["lon"].values),
    }
    operators = graphs.hetero_operators(graphs.hetero_graph({**place, "pacific": None}))
    context = ["cos", "sin", "lat_z", "lon_z", "elevation_z"]
    looks = {"graph": ["rain"], "without rain": ["nothing"], "early": ["rain", "cell", *sea]}
    found = {}
    for part_name, years in (("learn", learn), ("score", score)):
        inside = station["time"].isin(station["time"].sel(time=years))
        mine = sources | {"station": station.assign(target=station["target"].where(inside))}
        for look, names in looks.items():
            inputs = {"station": [*names, *context], "america": ["temperature"], "pacific": list(sea)}
            found[f"{part_name}, {look}"] = windows.SourceWindows(mine, inputs, "target", HISTORY, 1)
    return found, operators


def season_network(part: str, sources: tuple[str, ...], early: bool, seed: int, **settings: Any) -> dict[str, Array]:
    """Forecast (time, station) of the years that are scored, seconds and number of weights."""
    found, operators = season_windows(part)
    look = "early" if early else "graph" if "rain" in sources else "without rain"
    learn, score = found[f"learn, {look}"], found[f"score, {look}"]
    kinds = ("station", *(() if early else (source for source in sources if source != "rain")))
    settings = SETTINGS | TRAINING | (FOR_EARLY if early else {}) | settings
    options = {name: settings[name] for name in TRAINING}
    built = {name: settings[name] for name in SETTINGS}
    relations = [r for r in operators if r[0] in kinds]
    began = time.process_time()
    torch.manual_seed(seed)
    model = models.FusionSTGCN(
        {kind: len(learn.features[kind]) for kind in kinds}, 1, HISTORY, 1,
        relations=relations, context={kind: learn.context[kind] for kind in kinds}, **built,
    )  # fmt: skip
    training.fit(model, learn, None, operator=operators, seed=seed, progress=False, **options)
    said = training.predict(model, score, operator=operators)[:, 0, :, 0].numpy()
    seconds = time.process_time() - began
    times = season_data(part)["target"].sel(time=PARTS[part][1])["time"].values
    whole = np.full((len(times), said.shape[1]), np.nan)  # the last months have no target
    whole[np.isin(times, score.times[:, 0])] = said
    return {
        "said": whole,
        "seconds": np.array(seconds),
        "weights": np.array(sum(w.numel() for w in model.parameters())),
    }


# ---------------------------------------------------------------------------- (b) the data

AROUND = {"lat": slice(35, 42.5), "lon": slice(-112.5, -100)}  # cells over and around Colorado
WEIGHT = 200.0  # months that the correlation by distance counts for in the covariance
SILENT = 30  # stations
REPORTING = (0, 1, 3, 10, 30, None)  # None: all others
RIDGE = 0.03  # of a station's regression on the cells


@cache
def silence_data(part: str) -> dict[str, Any]:
    """Monthly mean of the daily maximum as anomalies z (time, station), of the cells G (time, cell), and the kriging.

    Season and scale are learned from the years of learning; so is the covariance of the anomalies, and of what the
    cells leave unexplained of them.
    """
    years = PARTS[part][0]
    series = datasets.load_colorado()["tmax"].sel(time=slice("1950", "1997"))
    series = series.isel(station=(series.notnull().mean("time") >= 0.8).values)
    grid = datasets.load_reanalysis("north_america")["air_temperature"].sel(AROUND)
    grid = datasets.grid_to_nodes(grid).sel(time=series["time"])
    anomaly, cells = (x - baselines.climatology(x.sel(time=years), x["time"]) for x in (series, grid))
    scale, cell_scale = (x.sel(time=years).std("time") for x in (anomaly, cells))
    return {
        "series": series,
        "grid": grid,
        "z": anomaly / scale,
        "cells": cells / cell_scale,
        "scale": scale.values,
        "learn": series["time"].isin(series.sel(time=years)["time"]).values,
        "score": series["time"].isin(series.sel(time=PARTS[part][1])["time"]).values,
    }


def from_cells(data: dict[str, Any], ridge: float, nearest: bool = False) -> Array:
    """(time, station) what each station's own regression makes of the cells: of all of them, or of the nearest."""
    z, g, learn = data["z"].values, data["cells"].values, data["learn"]
    lat, lon = (data["z"][name].values[:, None] for name in ("lat", "lon"))
    closest = graphs.great_circle_distance(lat, lon, data["grid"]["lat"].values, data["grid"]["lon"].values).argmin(1)
    said = np.empty_like(z)
    for i in range(z.shape[1]):
        x = g[:, [closest[i]]] if nearest else g
        rows = learn & np.isfinite(z[:, i])
        gram = x[rows].T @ x[rows] + ridge * rows.sum() * np.eye(x.shape[1])
        said[:, i] = x @ np.linalg.solve(gram, x[rows].T @ z[rows, i])
    return said


def covariance_of(data: dict[str, Any], z: Array, weight: float) -> Array:
    """(station, station) learned from the years of learning, in spite of gaps."""
    learn = data["learn"]
    found = interpolation.anomalies(data["series"].isel(time=learn))  # for places and distances
    return interpolation.learn_covariance(replace(found, z=z[learn]), weight)


def kriged(z: Array, covariance: Array, targets: Array) -> tuple[Array, Array]:
    """Mean and variance (time, target) given what is not NaN in z (time, station); the usual where nothing is."""
    mean = np.zeros((len(z), len(targets)))
    variance = np.tile(np.diag(covariance)[targets], (len(z), 1))
    for t, row in enumerate(z):
        known = np.flatnonzero(np.isfinite(row))
        if len(known):
            among = covariance[np.ix_(known, known)] + 1e-6 * np.eye(len(known))
            weights = np.linalg.solve(among, covariance[np.ix_(known, targets)])
            mean[t] = row[known] @ weights
            variance[t] -= (weights * covariance[np.ix_(known, targets)]).sum(axis=0)
    return mean, variance


def draw(stations: int, seed: int) -> tuple[Array, Array]:
    """Silent stations, and the others in the order in which they report."""
    order = np.random.default_rng(seed).permutation(stations)
    return np.sort(order[:SILENT]), order[SILENT:]


# ---------------------------------------------------------------------------- (b) a network


class Silences:
    """Windows in which most stations are silent: what they see of those is nothing, what is asked is only those.

    How many report is drawn anew for every batch, from one to all but a few, each number of digits as likely as the
    next; and now and then, if told so, the whole grid is missing.
    """

    def __init__(self, base: windows.SourceWindows, without_grid: float = 0.0, repeats: int = 1) -> None:
        self.base, self.without_grid, self.repeats = base, without_grid, repeats

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[windows.SourceBatch]:
        for _ in range(self.repeats):
            for x, y, x_mask, y_mask in self.base.batches(batch_size, generator):
                nodes = y.shape[2]
                few = torch.exp(torch.rand(len(y), 1, generator=generator) * np.log(0.9 * nodes))
                rank = torch.rand(len(y), nodes, generator=generator).argsort(dim=1).argsort(dim=1)
                silent = rank >= few  # (B, N)
                x["station"][..., 0] = x["station"][..., 0].masked_fill(silent[:, None], torch.nan)
                gone = torch.rand(len(y), generator=generator) < self.without_grid
                x["grid"][gone] = torch.nan
                yield windows.SourceBatch(x, y, x_mask, y_mask & silent[:, None, :, None])


SILENT_SETTINGS: dict[str, Any] = {"channels": 32, "rounds": 2}
SILENT_TRAINING: dict[str, Any] = {"epochs": 30, "batch_size": 16, "learning_rate": 5e-3, "weight_decay": 1e-3}
SILENT_K = 20


@cache
def silence_windows(part: str, k: int) -> tuple[dict[str, Any], dict[Any, torch.Tensor], list[str]]:
    """The two sources, the operators, and the context of a station."""
    data = silence_data(part)
    z, cells = (data[name].astype(np.float32) for name in ("z", "cells"))
    by_cells = z.copy(data=from_cells(data, RIDGE).astype(np.float32))
    station = xr.Dataset({"value": z, "target": z, "left": z - by_cells})
    angle = 2 * np.pi * station["time"].dt.month / 12
    station = station.assign(cos=np.cos(angle), sin=np.sin(angle))
    for name in ("lat", "lon", "elevation"):
        place = z[name].astype(float)
        station[f"{name}_z"] = (place - place.mean()) / place.std()
    place = {kind: (x["lat"].values, x["lon"].values) for kind, x in (("station", z), ("grid", cells))}
    operators = graphs.hetero_operators(graphs.hetero_graph(place, k=k))
    return (
        {"station": station, "grid": xr.Dataset({"value": cells})},
        operators,
        ["cos", "sin", "lat_z", "lon_z", "elevation_z"],
    )


def silent_network(
    part: str, kinds: tuple[str, ...], seed: int, left: bool = False, without_grid: float = 0.0, **settings: Any
) -> tuple[Any, dict[Any, torch.Tensor], Any, float]:
    settings = SILENT_SETTINGS | SILENT_TRAINING | {"k": SILENT_K} | settings
    sources, operators, context = silence_windows(part, settings["k"])
    data = silence_data(part)
    value = "left" if left else "value"
    inputs = {"station": [value, *context], "grid": ["value"]}
    cut = {name: {**sources, "station": sources["station"].isel(time=data[name])} for name in ("learn", "score")}
    learn, score = (
        windows.SourceWindows(cut[name], inputs, "left" if left else "target", 1, 1, estimate=True)
        for name in ("learn", "score")
    )
    began = time.process_time()
    torch.manual_seed(seed)
    model = models.FusionSTGCN(
        {kind: len(learn.features[kind]) for kind in kinds}, 1, learn.history, 1,
        relations=[r for r in operators if r[0] in kinds],
        context={kind: learn.context[kind] for kind in kinds},
        **{name: settings[name] for name in SILENT_SETTINGS},
    )  # fmt: skip
    options = {name: settings[name] for name in SILENT_TRAINING}
    training.fit(model, Silences(learn, without_grid), None, operator=operators, seed=seed, progress=False, **options)  # type: ignore[arg-type]
    return model, operators, score, time.process_time() - began


@torch.no_grad()
def at_silent(model: Any, operators: Any, score: Any, reporting: Array, grid: bool = True) -> Array:
    """(time, station) estimates where only some stations report."""
    x = score.batch(range(len(score))).x
    told = torch.full_like(x["station"][..., 0], torch.nan)
    told[..., torch.from_numpy(reporting)] = x["station"][..., torch.from_numpy(reporting), 0]
    x["station"][..., 0] = told
    if not grid:
        x["grid"][:] = torch.nan
    model.eval()
    return model(x, operators)[:, 0, :, 0].numpy().astype(float)


def silent_errors(part: str, way: str, seed: int, **settings: Any) -> dict[str, Array]:
    """Estimates (times, silent stations), standardised, of the networks: for each number of reporting stations."""
    kinds = ("station",) if way == "stations" else ("station", "grid")
    left = way == "what the cells leave"
    model, operators, score, seconds = silent_network(
        part, kinds, seed, left, 0.2 if way == "both, grid may fail" else 0.0, **settings
    )
    data = silence_data(part)
    base = from_cells(data, RIDGE)[data["score"]] if left else 0.0
    silent, order = draw(data["z"].shape[1], seed)
    found = {"seconds": np.array(seconds), "weights": np.array(sum(w.numel() for w in model.parameters()))}
    for number in REPORTING:
        for grid in (True, False) if "grid" in kinds and not left else (True,):
            said = base + at_silent(model, operators, score, order[:number], grid)
            found[f"{number}{'' if grid else ', no grid'}"] = said[:, silent]
    return found


def silent_linear(part: str, seed: int, ridge: float, weight: float) -> dict[str, Array]:
    """The same of every linear way. Late fusion weighs both estimates by their precision.

    The precision of kriging is what it says of itself; that of the cells is learned from the years of learning, each
    fourth of them estimated by a regression on the others.
    """
    data = silence_data(part)
    z, learn, score = data["z"].values, data["learn"], data["score"]
    cells, closest = from_cells(data, ridge), from_cells(data, 0.0, nearest=True)
    apart = np.full_like(cells, np.nan)
    for fold in np.array_split(np.flatnonzero(learn), 4):
        others = learn.copy()
        others[fold] = False
        apart[fold] = from_cells(data | {"learn": others}, ridge)[fold]
    cell_variance = np.nanmean((z - apart)[learn] ** 2, axis=0)
    covariance, covariance_left = (covariance_of(data, x, weight) for x in (z, z - cells))
    silent, order = draw(z.shape[1], seed)
    g, found = cells[score][:, silent], {"truth": z[score][:, silent], "scale": data["scale"][silent]}
    for number in REPORTING:
        seen = np.full_like(z[score], np.nan)
        seen[:, order[:number]] = z[score][:, order[:number]]
        stations, variance = kriged(seen, covariance, silent)
        share = cell_variance[silent] / (cell_variance[silent] + variance)
        found |= {
            f"usual, {number}": np.zeros_like(g),
            f"nearest cell, {number}": closest[score][:, silent],
            f"cells, {number}": g,
            f"kriging, {number}": stations,
            f"late, {number}": share * stations + (1 - share) * g,
            f"early, {number}": g + kriged(seen - cells[score], covariance_left, silent)[0],
            # The grid fails, and somebody puts a zero there: as usual.
            f"early, zeros for the grid, {number}": kriged(seen, covariance_left, silent)[0],
        }
    return found


# ---------------------------------------------------------------------------- what is kept of finished work

CODE = Path(__file__).read_text(encoding="utf-8").split("# --- summary")[0]


def kept(function: Callable[..., dict[str, Array]], *arguments: Any, **settings: Any) -> dict[str, Array]:
    """What the function returns, from its file if the same code computed it before."""
    key = json.dumps([CODE, function.__name__, arguments, settings])
    path = CACHE / f"{function.__name__}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"
    if path.exists():
        with np.load(path) as stored:
            return dict(stored)
    result = function(*arguments, **settings)
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(unfinished, **result)
    unfinished.replace(path)
    return result


# --- summary


SUBSETS = (
    ("rain",), ("pacific",), ("america",), ("pacific", "america"), ("rain", "america"), ("rain", "pacific"), SOURCES,
)  # fmt: skip
LINE: dict[str, Any] = {"ridge": 1.0, "seasonal": False}
LINES = [
    {"ridge": ridge, "seasonal": seasonal, "own": own}
    for seasonal in (False, True) for own in (None, 3.0) for ridge in (0.1, 0.3, 1.0, 3.0)
]  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "as chosen": {},
    "half the epochs": {"epochs": 3},
    "twice the epochs": {"epochs": 12},
    "no dropout": {"dropout": 0.0},
    "two rounds": {"rounds": 2},
    "32 channels": {"channels": 32},
    "a third of the learning rate": {"learning_rate": 1e-3},
}
SILENT_NETWORKS: dict[str, dict[str, Any]] = {
    "as chosen": {},
    "8 neighbours": {"k": 8},
    "40 neighbours": {"k": 40},
    "one round": {"rounds": 1},
    "a third of the epochs": {"epochs": 10},
}
# A total that begins in the last two months of the years of choice would end in those of the test.
SCORED = {"choice": slice("1976", "1983-10"), "test": PARTS["test"][1]}
SILENT_WAYS = ("stations", "both", "both, grid may fail", "what the cells leave")


def name_of(sources: tuple[str, ...]) -> str:
    return " + ".join(sources)


def truth_of(part: str) -> Field:
    return season_data(part)["target"].sel(time=SCORED[part])


def lines(part: str) -> dict[str, Field]:
    """Early fusion of each set of sources, and late fusion of the three."""
    learn, score = PARTS[part][0], SCORED[part]
    data = season_data(part)
    found = {name_of(s): linear_rule(data, s, learn, **LINE).sel(time=score) for s in SUBSETS}
    if part == "test":
        singles = [linear_rule(season_data("choice"), (s,), PARTS["choice"][0], **LINE) for s in SOURCES]
        weights = stacked([x.sel(time=SCORED["choice"]) for x in singles], truth_of("choice"))
        found["late"] = sum(w * found[s] for w, s in zip(weights, SOURCES, strict=True))
        found["late"].attrs["weights"] = weights
    return found


def of_networks(part: str, sources: tuple[str, ...], early: bool = False, **settings: Any) -> dict[str, Any]:
    """Each seed's forecast, their mean, seconds and number of weights."""
    seeds = CHOICE_SEEDS if settings else SEEDS
    runs = [kept(season_network, part, sources, early, seed, **settings) for seed in seeds]
    all_years = season_data(part)["target"].sel(time=PARTS[part][1])
    each = [all_years.copy(data=run["said"]).sel(time=SCORED[part]) for run in runs]
    seconds = float(np.mean([run["seconds"] for run in runs]))
    return {"each": each, "mean": sum(each) / len(each), "seconds": seconds, "weights": int(runs[0]["weights"])}


def row(part: str, kind: str, name: str, said: Field, single: list[Field] | None = None, **more: Any) -> dict[str, Any]:
    truth = truth_of(part).where(said.notnull())
    found = {"kind": kind, "name": name, **scores(said, truth), **more}
    if single is not None:
        skills = [scores(x, truth)["stations"]["skill"] for x in single]
        found["members"] = {"skill": skills, "mean": rounded(np.mean(skills)), "sd": rounded(np.std(skills, ddof=1))}
    print(
        f"{part:6s} {kind:8s} {name:32s} {found['stations']['skill']:+.4f} {found['state']['skill']:+.4f}", flush=True
    )
    return found


def choose_rain() -> list[dict[str, Any]]:
    learn, score = PARTS["choice"][0], SCORED["choice"]
    data = season_data("choice")
    rows = [
        row("choice", "linear", json.dumps(options), linear_rule(data, SOURCES, learn, **options).sel(time=score))
        for options in LINES
    ]
    for name, options in NETWORKS.items():
        for early in (False, True):
            given = options or {"channels": SETTINGS["channels"]}
            if early and "epochs" in given:
                given = {"epochs": given["epochs"] // 2}
            run = of_networks("choice", SOURCES, early, **given)
            rows.append(row("choice", "network", f"{'early' if early else 'graph'}, {name}", run["mean"], run["each"]))
    return rows


def test_rain() -> dict[str, Any]:
    truth, found = truth_of("test"), lines("test")
    said: dict[str, Field] = {}
    rows = []
    for name, line in found.items():
        more = {"weights_of_sources": rounded(line.attrs["weights"])} if name == "late" else {}
        rows.append(row("test", "linear", name, line, **more))
        said[f"linear, {name}"] = line
    singles = {part: [of_networks(part, (s,)) for s in SOURCES] for part in PARTS}
    chosen = truth_of("choice")
    last = [run["mean"].where(chosen.notnull()) for run in singles["choice"]]
    weights = stacked(last, chosen.where(last[0].notnull()))
    runs = {name_of(s): of_networks("test", s) for s in SUBSETS} | {"early": of_networks("test", SOURCES, True)}
    for name, run in runs.items():
        rows.append(
            row("test", "network", name, run["mean"], run["each"], seconds=rounded(run["seconds"]), size=run["weights"])
        )
        said[f"network, {name}"] = run["mean"]
    late = sum(w * run["mean"] for w, run in zip(weights, singles["test"], strict=True))
    rows.append(row("test", "network", "late", late, weights_of_sources=rounded(weights)))
    said["network, late"] = late
    whole = name_of(SOURCES)
    common = truth.where(said[f"network, {whole}"].notnull())
    pairs = [(f"linear, {whole}", f"linear, {name_of(s)}") for s in SUBSETS[3:6]]
    pairs += [(f"network, {whole}", f"network, {name_of(s)}") for s in SUBSETS[3:6]]
    pairs += [(f"network, {whole}", f"linear, {whole}"), (f"network, {whole}", "network, early")]
    pairs += [(f"network, {whole}", "network, late"), (f"linear, {whole}", "linear, late")]
    differences = [
        {"first": a, "second": b, "rmse": rounded(verification.compare(said[a], said[b], common, block_length=BLOCK))}
        for a, b in pairs
    ]
    return {"rows": rows, "differences": differences, "by_month": by_month(said, truth), "shifts": shifts()}


def skill_by_month(said: Field, truth: Field) -> Array:
    """(13,) of forecasts that begin in each month of the year, and of all: share of the squared error taken away."""
    error, usual = ((x - truth).values ** 2 for x in (said, xr.zeros_like(truth)))
    month = truth["time"].dt.month.values
    return np.array(
        [1 - np.nansum(error[here]) / np.nansum(np.where(np.isfinite(error), usual, 0)[here])
         for here in (*(month == m for m in range(1, 13)), month > 0)]
    )  # fmt: skip


def by_month(said: dict[str, Field], truth: Field) -> dict[str, Any]:
    whole = name_of(SOURCES)
    wanted = ("linear, pacific", f"linear, {whole}", "network, pacific", f"network, {whole}")
    return {name: rounded(skill_by_month(said[name], truth)) for name in wanted}


def shifts() -> dict[str, Any]:
    """The same line with the Pacific of other years, learned anew: the skill that is luck."""
    learn, score = PARTS["test"]
    data, truth = season_data("test"), truth_of("test")
    years = data.sizes["time"] // 12
    found: dict[str, Any] = {"years": years}
    for name, sources in (("pacific", ("pacific",)), ("all", SOURCES)):
        skill = []
        for k in range(years):
            moved = data.assign(pacific=data["pacific"].fillna(0).roll(time=12 * k, roll_coords=False))
            skill.append(skill_by_month(linear_rule(moved, sources, learn, **LINE).sel(time=score), truth))
        found[name] = rounded(skill)  # (shift, 13), the first one is the truth
    return found


# ---------------------------------------------------------------------------- (b)


def rmse_of(said: Array, truth: Array, scale: Array) -> float:
    return float(np.sqrt(np.nanmean(((said - truth) * scale) ** 2)))


def silent_rows(part: str, seeds: range) -> dict[str, Any]:
    """RMSE in degrees Celsius by way and number of reporting stations, for each draw; differences with intervals."""
    linear = {seed: kept(silent_linear, part, seed, RIDGE, WEIGHT) for seed in seeds}
    errors: dict[str, dict[str, list[Array]]] = {}

    def add(way: str, number: str, seed: int, said: Array) -> None:
        truth, scale = linear[seed]["truth"], linear[seed]["scale"]
        errors.setdefault(way, {}).setdefault(number, []).append((said - truth) * scale)

    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        for name, said in linear[seed].items():
            if name not in ("truth", "scale"):
                add(*name.rsplit(", ", 1), seed, said)
        for way in SILENT_WAYS:
            run = kept(silent_errors, part, way, seed)
            seconds.setdefault(way, []).append(float(run["seconds"]))
            for number in map(str, REPORTING):
                add(f"network, {way}", number, seed, run[number])
                if f"{number}, no grid" in run:
                    add(f"network, {way}, no grid", number, seed, run[f"{number}, no grid"])
    rows = []
    for way, numbers in errors.items():
        for number, each in numbers.items():
            rmse = [float(np.sqrt(np.nanmean(e**2))) for e in each]
            rows.append({"way": way, "reporting": number, "rmse": rounded(np.mean(rmse)),
                         "sd": rounded(np.std(rmse, ddof=1)), "by_draw": rounded(rmse)})  # fmt: skip
        print(f"{part:6s} {way:36s}", *(f"{r['rmse']:.3f}" for r in rows[-len(numbers) :]), flush=True)
    pairs = [("early", "kriging"), ("early", "late"), ("late", "kriging"), ("network, both", "early"),
             ("network, what the cells leave", "early"), ("network, both", "network, stations")]  # fmt: skip
    differences = [
        {"first": a, "second": b, "reporting": number, "rmse": gap_of(errors[a][number], errors[b][number])}
        for a, b in pairs for number in map(str, REPORTING)
    ]  # fmt: skip
    return {"rows": rows, "differences": differences, "seconds": {w: rounded(np.mean(s)) for w, s in seconds.items()}}


def gap_of(first: list[Array], second: list[Array]) -> list[float]:
    """Mean over the draws of the difference of RMSE, with an interval from blocks of months."""
    squares = [np.stack([np.nansum(e**2, axis=1) for e in each], axis=1) for each in (first, second)]
    count = np.stack([np.isfinite(e).sum(axis=1) for e in first], axis=1).astype(float)

    def of(a: Array, b: Array, n: Array) -> Array:
        return (np.sqrt(a / n) - np.sqrt(b / n)).mean(axis=1)

    return rounded(verification.block_bootstrap(of, *squares, count, block_length=BLOCK, of_means=True))


def choose_silent() -> list[dict[str, Any]]:
    rows = []

    def log(name: str, found: dict[str, Array], truth: dict[str, Array], prefix: str) -> None:
        rmse = [rmse_of(found[f"{prefix}{n}"], truth["truth"], truth["scale"]) for n in REPORTING]
        rows.append({"name": name, "rmse": rounded(rmse)})
        print(f"choice {name:40s}", *(f"{x:.3f}" for x in rmse), flush=True)

    seed = CHOICE_SEEDS[0]
    base = kept(silent_linear, "choice", seed, RIDGE, WEIGHT)
    for ridge in (0.003, 0.1, 1.0):
        log(f"cells, ridge {ridge}", kept(silent_linear, "choice", seed, ridge, WEIGHT), base, "cells, ")
    for weight in (50.0, WEIGHT, 1000.0):
        found = kept(silent_linear, "choice", seed, RIDGE, weight)
        for way in ("kriging", "early", "late"):
            log(f"{way}, weight {weight:.0f}", found, base, f"{way}, ")
    for name, options in SILENT_NETWORKS.items():
        log(f"network, {name}", kept(silent_errors, "choice", "both", seed, **options), base, "")
    return rows


def main() -> None:
    global CACHE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is finished")
    parser.add_argument("--choose", action="store_true", help="the years of choice alone")
    given = parser.parse_args()
    CACHE = given.cache
    torch.set_num_threads(1)
    began = time.process_time()
    results: dict[str, Any] = {"choice": {"rain": choose_rain(), "silence": choose_silent()}}
    if given.choose:
        return
    results["stations"] = {"rain": truth_of("test").sizes["station"], "silence": silence_data("test")["z"].shape[1]}
    results["rain"], results["silence"] = test_rain(), silent_rows("test", SEEDS)
    results["cpu_seconds_of_the_last_run"] = round(time.process_time() - began)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
