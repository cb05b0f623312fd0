"""Drought in Colorado, one to three months ahead: what overlap, lines and networks know about the SPI of three months.

    python benchmarks/drought.py

Writes drought.json beside this file. Stations with at least 80 % of the months of 1931-97; the index is fitted on
1931-80. Settings are chosen on 1981-86 with fits on 1931-80; then everything is fitted again on 1931-86, and the test
years 1987-97 are scored once. All methods are scored on the same pairs.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import digamma, gammainc, ndtr, ndtri, polygamma

from stgcn_lab import baselines, datasets, forecasting, graphs, indices, verification

FIRST, SEEDS, NEIGHBOURS, WINDOW, LEADS = "1931", 5, 6, 3, (1, 2, 3)
REFERENCE = ("1931", "1980")
FIT, CHOICE = slice("1931", "1980"), slice("1981", "1986")
TRAIN, TEST = slice("1931", "1986"), slice("1987", "1997")
BLOCK = 6  # months, of the bootstrap
LIMIT = 3.09  # the index is clipped there, as indices.spi does
DATASET = "Colorado, SPI of three months"
KNOWN = "known months + climatology"

Forecast = xr.DataArray
Pair = tuple[Forecast, Forecast]
SPATIAL = {
    "no graph": {"spatial": "none"},
    "GCN": {"spatial": "gcn"},
    "compass": {"spatial": "directional"},
}
# The index has no season, and a surprise no linear forecast to stand on.
PLAIN: dict[str, Any] = {"lags": 0, "harmonics": 0, "history": 6, "channels": (16, 16, 16)}
ON_INDEX: dict[str, Any] = {**PLAIN, "epochs": 10, "learning_rate": 6e-3}
ON_SURPRISE: dict[str, Any] = {**PLAIN, "epochs": 5}
RIDGE = 0.3
# What was tried on the years of choice two months ahead, two seeds each; the compass graph where none is named.
TRIED: dict[str, dict[str, Any]] = {
    "compass": {},
    "history 3": {"history": 3},
    "history 12": {"history": 12},
    "twice the epochs": {},
    "32 channels": {"channels": (32, 32, 32)},
    "no graph": SPATIAL["no graph"],
    "GCN": SPATIAL["GCN"],
}
TRIED_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)


def precipitation() -> Forecast:
    """(time, station) monthly totals from 1929 on, so that every window of 1931 has its past."""
    precip = datasets.load_colorado()["precip"].sel(time=slice("1929", "1997"))
    enough = precip.sel(time=slice(FIRST, "1997")).notnull().mean("time") >= 0.8
    return precip.sel(station=enough)


def total_of(precip: Forecast, months: int) -> Forecast:
    """The sum of the last months. (A rolling sum would carry rounding errors on, and 0 would be not quite 0.)"""
    return sum((precip.shift(time=lag) for lag in range(1, months)), precip)


def gamma_parameters(total: Forecast) -> np.ndarray:
    """(3, month, station): shape, scale and share of zeros of each calendar month, by maximum likelihood."""
    reference = total.sel(time=slice(*REFERENCE))
    month, parameters = reference["time"].dt.month.values, np.empty((3, 12, total.sizes["station"]))
    for m in range(12):
        x = reference.values[month == m + 1]
        wet = np.where(x > 0, x, np.nan)
        mean = np.nanmean(wet, axis=0)
        s = np.log(mean) - np.nanmean(np.log(wet), axis=0)
        shape = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
        for _ in range(6):  # Newton steps to the exact maximum
            shape -= (np.log(shape) - digamma(shape) - s) / (1 / shape - polygamma(1, shape))
        parameters[:, m] = shape, mean / shape, (x == 0).sum(axis=0) / np.isfinite(x).sum(axis=0)
    return parameters


def to_index(total: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The index of totals (..., station) of one calendar month, with its parameters (3, station)."""
    shape, scale, zero = parameters
    return np.clip(ndtri(zero + (1 - zero) * gammainc(shape, total / scale)), -LIMIT, LIMIT)


def known_months(precip: Forecast, parameters: np.ndarray, lead: int, years: slice) -> Pair:
    """Mean and spread of the index at valid times: the months that are known, the others from each of the years.

    The valid year itself is left out of the draw, so that no forecast of the training years holds its own truth.
    """
    draws = total_of(precip, lead)
    past = total_of(precip, WINDOW - lead).shift(time=lead) if lead < WINDOW else xr.zeros_like(precip)
    year, month = precip["time"].dt.year.values, precip["time"].dt.month.values
    inside = (year >= int(years.start)) & (year <= int(years.stop))
    moments = np.full((2, *precip.shape), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN, as it should be
        for m in range(12):
            rows, drawn = np.flatnonzero(month == m + 1), np.flatnonzero((month == m + 1) & inside)
            members = to_index(past.values[rows][:, None] + draws.values[drawn], parameters[:, m])
            members[year[rows][:, None] == year[drawn]] = np.nan
            moments[:, rows] = np.nanmean(members, axis=1), np.nanstd(members, axis=1)
    return precip.copy(data=moments[0]), precip.copy(data=moments[1])


def everywhere(values: Any, like: Forecast) -> Forecast:
    """A number, or one for each station, at all times and stations of a series."""
    return like.copy(data=np.broadcast_to(np.asarray(values, float), like.shape))


def regression(columns: list[Forecast], surprise: Forecast, lead: int, years: slice) -> Pair:
    """One linear rule for all stations: the surprise from columns ``lead`` months before, each with a season."""
    angle = 2 * np.pi * surprise["time"].dt.month.values[:, None] / 12
    season = (np.ones_like(angle), np.cos(angle), np.sin(angle))
    past = [column.shift(time=lead).fillna(0).values for column in columns]
    design = np.stack([np.ones(surprise.shape), *(x * wave for x in past for wave in season)], axis=-1)
    inside = surprise["time"].isin(surprise.sel(time=years)["time"]).values[:, None] & surprise.notnull().values
    x, y = design[inside], surprise.values[inside]
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    return surprise.copy(data=design @ weights), everywhere((y - x @ weights).std(), surprise)


@dataclass(frozen=True)
class Data:
    """What every method starts from: months, the index of three months and of one, its gamma laws, the graph."""

    precip: Forecast
    parameters: np.ndarray
    index: Forecast
    month: Forecast
    graph: Any
    difference: float


def prepare() -> Data:
    precip = precipitation()
    total = total_of(precip, WINDOW)
    parameters = gamma_parameters(total)
    index = indices.spi(precip, WINDOW, REFERENCE)
    month = total["time"].dt.month.values
    mine = np.stack([to_index(x, parameters[:, m - 1]) for x, m in zip(total.values, month, strict=True)])
    difference = float(np.nanmax(np.abs(mine - index.values)))  # two ways to the same index
    if not difference < 0.01:
        raise RuntimeError(f"index: expected that of the package, found a difference of {difference}")
    graph = graphs.knn_graph(precip["lat"].values, precip["lon"].values, k=NEIGHBOURS)
    return Data(precip, parameters, index, indices.spi(precip, 1, REFERENCE), graph, difference)


def simple_methods(data: Data, lead: int, years: slice) -> dict[str, tuple[str, Pair]]:
    """name -> (kind, (mean, spread)) at all valid times, fitted on the years."""
    index = data.index
    train = index.sel(time=years)
    mean, spread = known_months(data.precip, data.parameters, lead, years)
    surprise = (index - mean) / spread
    damped = baselines.fit_damped_persistence(train)
    regional = [x.mean("station").broadcast_like(index).transpose(*index.dims) for x in (data.month, index)]
    rule = regression([data.month, index, *regional], surprise, lead, years)
    change = everywhere((train - index.shift(time=lead)).std("time"), index)
    return {
        "climatology": ("simple", (xr.zeros_like(index), everywhere(1, index))),
        "persistence": ("simple", (baselines.persistence(index, lead), change)),
        "damped persistence": ("simple", (damped.forecast(index, lead), everywhere(damped.spread(lead), index))),
        KNOWN: ("simple", (mean, spread)),
        "VAR(3) of the index, ridge": ("linear", line_of_index(data, lead, years, RIDGE)),
        "known months + regression": ("linear", (mean + spread * rule[0], spread * rule[1])),
    }


def line_of_index(data: Data, lead: int, years: slice, ridge: float) -> Pair:
    """A vector autoregression of the index; one that is missing counts as normal, 0."""
    filled = data.index.fillna(0)
    mean = baselines.fit_var(filled.sel(time=years), 3, ridge).forecast(filled, lead)
    return mean, everywhere((data.index - mean).sel(time=years).std("time"), data.index)


def network(
    data: Data, lead: int, years: slice, known: Pair | None, members: int, **options: Any
) -> tuple[list[Forecast], Pair, float, int]:
    """Each member's forecast, (mean, spread) of the ensemble, seconds and size of one member.

    With the known months the network forecasts the surprise, what they get wrong, in units of their spread; else the
    index itself. Gaps count as usual, 0, where they are looked at, and are left out of the loss.
    """
    mean, spread = known or (xr.zeros_like(data.index), xr.ones_like(data.index))
    series = ((data.index - mean) / spread).assign_attrs(units="1")
    series = series.sel(time=slice(FIRST, None))
    mean, spread = mean.sel(time=series["time"]), spread.sel(time=series["time"])
    began = time.perf_counter()
    fitted = forecasting.fit_forecaster(
        series.sel(time=years), None, data.graph, horizon=lead, members=members, **options
    )
    seconds = (time.perf_counter() - began) / members
    said = fitted.distribution(series, lead)
    each = [mean + spread * said["members"].isel(member=m, drop=True) for m in range(members)]
    size = sum(weights.numel() for weights in fitted.members[0].network.parameters())
    return each, (mean + spread * said["mean"], spread * said["spread"]), seconds, size


def choose(data: Data) -> list[dict[str, Any]]:
    """The log of what was tried, scored on the years of choice: RMSE and CRPS at each lead."""
    rows: dict[str, dict[str, Any]] = {}

    def log(name: str, pair: Pair, allowed: Forecast) -> None:
        mean, spread = (x.sel(time=CHOICE) for x in pair)
        truth = data.index.sel(time=CHOICE).where(allowed.sel(time=CHOICE))
        row = rows.setdefault(name, {"name": name, "leads": [], "rmse": [], "crps": []})
        row["leads"].append(lead)
        row["rmse"].append(rounded(verification.mean_score(mean, truth)))
        row["crps"].append(rounded(verification.mean_score((mean, spread), truth, "crps")))
        print(f"choice  lead {lead}  {name:42s} {row['rmse'][-1]:.4f} {row['crps'][-1]:.4f}", flush=True)

    for lead in LEADS:
        methods = simple_methods(data, lead, FIT)
        allowed = common(data, methods)
        for name, (_, pair) in methods.items():
            log(name, pair, allowed)
        if lead != 2:
            continue
        for ridge in TRIED_RIDGES:
            log(f"VAR(3) of the index, ridge {ridge}", line_of_index(data, lead, FIT, ridge), allowed)
        for base, known, settings in (
            ("STGCN of the index", None, ON_INDEX),
            ("known months + STGCN", methods[KNOWN][1], ON_SURPRISE),
        ):
            for name, options in TRIED.items():
                options = {**settings, **options}
                if name == "twice the epochs":
                    options["epochs"] = 2 * settings["epochs"]
                pair = network(data, lead, FIT, known, 2, **options)[1]
                log(f"{base}, {name}", pair, allowed)
    return list(rows.values())


def common(data: Data, methods: dict[str, tuple[str, Pair]]) -> Forecast:
    """Where all methods have a forecast: those that need the months before, and so all others."""
    return methods["persistence"][1][0].notnull() & methods[KNOWN][1][0].notnull() & data.index.notnull()


def test(data: Data, lead: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every method on the test years."""
    methods = simple_methods(data, lead, TRAIN)
    truth = data.index.where(common(data, methods)).sel(time=TEST)
    drought = (truth < -1).astype(float).where(truth.notnull())
    runs: dict[str, tuple[str, list[Forecast], Pair, float, int | None]] = {
        name: (kind, [pair[0]], pair, 0.0, None) for name, (kind, pair) in methods.items()
    }
    for base, known, settings, chosen in (
        ("STGCN of the index", None, ON_INDEX, ("no graph", "compass")),
        ("known months + STGCN", methods[KNOWN][1], ON_SURPRISE, tuple(SPATIAL)),
    ):
        for name, options in ((name, SPATIAL[name]) for name in chosen):
            runs[f"{base}, {name}"] = ("network", *network(data, lead, TRAIN, known, SEEDS, **settings, **options))
    said = {name: tuple(x.sel(time=TEST) for x in run[2]) for name, run in runs.items()}
    chance = {name: truth.copy(data=ndtr((-1 - mean.values) / spread.values)) for name, (mean, spread) in said.items()}
    entries, details = [], {}
    for name, (kind, members, _, seconds, size) in runs.items():
        single = [member.sel(time=TEST) for member in members]
        line = verification.entry(
            DATASET, name, single if len(single) > 1 else single[0], truth, said[KNOWN][0],
            lead=lead, units="1", seconds=seconds, kind=kind, parameters=size, block_length=BLOCK,
        )  # fmt: skip
        entries.append(line)
        mean, spread = said[name]
        row: dict[str, Any] = {
            "crps": rounded(verification.mean_score((mean, spread), truth, "crps")),
            "brier": rounded(verification.brier(chance[name], drought, ("time", "station"))),
            "outside": rounded(verification.interval_miss_rate(mean, spread, truth, dim=("time", "station"))),
        }
        for rival in ("climatology", KNOWN):
            row[f"minus {rival}"] = {
                "rmse": interval(mean, said[rival][0], truth, "rmse"),
                "crps": interval((mean, spread), said[rival], truth, "crps"),
                "brier": interval(chance[name], chance[rival], drought, "mse"),
            }
        details[name] = row
        print(f"lead {lead}  {name:36s} {line['score']:.4f} {row['crps']:.4f} {row['brier']:.4f}", flush=True)
    details["pairs"] = {"scored": int(truth.notnull().sum()), "drought": rounded(drought.mean())}
    return entries, details


def interval(a: Any, b: Any, truth: Forecast, score: str) -> list[float]:
    """Score of a minus score of b, with its 95 % interval. The Brier score is the mean square of probabilities."""
    return rounded(verification.compare(a, b, truth, score, block_length=BLOCK))


def rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=float), 5).tolist()


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    data = prepare()
    results: dict[str, Any] = {
        "stations": data.index["station"].values.tolist(),
        "difference_of_indices": float(f"{data.difference:.1g}"),
        "choice": choose(data),
        "entries": [],
        "details": {},
    }
    for lead in LEADS:
        entries, results["details"][str(lead)] = test(data, lead)
        results["entries"] += entries
    results["seconds"] = round(time.perf_counter() - began)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
