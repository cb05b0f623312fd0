"""Cold and hot months in three regions, one month ahead: what a rate, a line and a graph network know of them.

    python benchmarks/cold_and_heat.py

Writes cold_and_heat.json beside this file. A month is cold at a cell if its mean temperature is below the 10th
percentile of this calendar month in 1951-1980, hot if it is above the 90th. Settings are chosen on 1991-2000 after a
fit on 1948-1990; then all is fitted on 1948-2000 and the months of 2001-2025 are scored once. Probabilities come from
Gaussian forecasts but for the rates, the persistence and the logistic regression.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import expit, ndtr

from stgcn_lab import baselines, datasets, graphs, models, training, verification, windows
from stgcn_lab.forecasting import running_correction

REGIONS = ("europe", "east_asia", "north_america")
REFERENCE = slice("1951", "1980")
FIT, CHOICE = slice("1948", "1990"), slice("1991", "2000")
REFIT, TEST = slice("1948", "2000"), slice("2001", "2025")
SEEDS, BLOCK = 5, 12  # months in a block of the bootstrap
YEARS, ALONE, MEMORY, PENALTY = 15, 24, 60, 1.0  # chosen, see the log "choice"; ALONE is without an AR(1)
NETWORK: dict[str, Any] = {"spatial": "directional", "dropout": 0.5, "epochs": 5}
HISTORY, CHANNELS = 3, (16, 16, 16)
NAMES = {"cold": "Cold months, three regions", "hot": "Hot months, three regions"}

Field = xr.DataArray
Said = dict[str, Field]  # event -> probability (time, station)


class Region:
    """The record of a region up to the last month that may be known, its events, and its season from the fit."""

    def __init__(self, name: str, fit: slice, last: str) -> None:
        grid = datasets.load_reanalysis(name)["air_temperature"]
        self.grid_graph = graphs.grid_graph(grid["lat"].values, grid["lon"].values, neighbours=4)
        self.x = datasets.grid_to_nodes(grid).sel(time=slice(None, last))
        month = self.x["time"].dt.month
        by_month = self.x.sel(time=REFERENCE).groupby("time.month").quantile([0.1, 0.9], dim="time")
        self.low, self.high = (
            by_month.sel(quantile=q, month=month).drop_vars(["quantile", "month"]) for q in (0.1, 0.9)
        )
        self.events = {"cold": (self.x < self.low).astype(float), "hot": (self.x > self.high).astype(float)}
        self.weights = verification.area_weights(self.x).values
        self.fit = fit
        self.season = baselines.climatology(self.x.sel(time=fit), self.x["time"])

    def usual(self, memory: float | None) -> Field:
        """The season, or the season that follows the trend: less the running mean of its own errors."""
        return self.season if memory is None else running_correction(self.season, self.x, memory=memory)

    def spread(self, error: Field) -> Field:
        """Standard deviation by the time of year, from the years of the fit."""
        return np.sqrt(baselines.climatology(error.sel(time=self.fit) ** 2, self.x["time"], harmonics=1).clip(min=1e-3))

    def exceed(self, mean: Field, spread: Field) -> Said:
        """Probability of both events of a Gaussian forecast."""
        return {
            "cold": mean.copy(data=ndtr((self.low.values - mean.values) / spread.values)),
            "hot": mean.copy(data=ndtr((mean.values - self.high.values) / spread.values)),
        }


# ---------------------------------------------------------------------------- simple methods


def fixed_rate(region: Region) -> Said:
    return {name: xr.full_like(event, 0.1) for name, event in region.events.items()}


def recent_rate(region: Region, years: int = YEARS) -> Said:
    """How often it happened at the cell in the last so many years."""
    return {
        name: event.rolling(time=12 * years, min_periods=12).mean().shift(time=1)
        for name, event in region.events.items()
    }


def persistence(region: Region) -> Said:
    return {name: event.shift(time=1) for name, event in region.events.items()}


def fitted_persistence(region: Region) -> Said:
    """How often an event followed an event, and how often none, in the whole region."""
    said = {}
    for name, event in region.events.items():
        train = event.sel(time=region.fit).values
        after = [train[1:][train[:-1] == state].mean() for state in (0, 1)]
        before = event.shift(time=1)
        said[name] = xr.where(before == 1, after[1], after[0]).where(before.notnull())
    return said


def usual_spread(region: Region, memory: float | None) -> Said:
    """The season alone, with the spread of its errors."""
    usual = region.usual(memory)
    return region.exceed(usual, region.spread(region.x - usual))


def autoregression(region: Region, memory: float | None = MEMORY) -> Said:
    """Season that follows the trend, and the memory of each cell for its last month."""
    usual = region.usual(memory)
    rest = region.x - usual
    scale = region.spread(rest)
    z = rest / scale
    mean = usual + scale * baselines.fit_ar(z.sel(time=region.fit), 1).forecast(z)
    return region.exceed(mean, region.spread(region.x - mean))


def logistic(region: Region, penalty: float = PENALTY) -> Said:
    """At each cell: last month's anomaly, the running mean of anomalies and the time of year."""
    usual = region.usual(MEMORY)
    scale = region.spread(region.x - usual)
    last = ((region.x - region.season) / scale).shift(time=1).values
    trend = ((usual - region.season) / scale).values
    angle = 2 * np.pi * region.x["time"].dt.month.values / 12
    rows = slice(1, region.x.sel(time=region.fit).sizes["time"])
    said = {name: np.full(region.x.shape, np.nan) for name in region.events}
    for i in range(region.x.sizes["station"]):
        design = np.stack([np.ones(len(angle)), last[:, i], trend[:, i], np.cos(angle), np.sin(angle)], axis=1)
        for name, event in region.events.items():
            b = newton(design[rows], event.values[rows, i], penalty)
            said[name][:, i] = expit(design @ b)
    return {name: region.x.copy(data=values) for name, values in said.items()}


def newton(design: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Maximum likelihood of a logistic regression with a penalty, by Newton's method."""
    hold = penalty * np.r_[0.01, np.ones(design.shape[1] - 1)]
    b = np.zeros(design.shape[1])
    for _ in range(12):
        p = expit(design @ b)
        curvature = (design.T * (p * (1 - p))) @ design + np.diag(hold)
        b = b + np.linalg.solve(curvature, design.T @ (y - p) - hold * b)
    return b


# ---------------------------------------------------------------------------- network


def network(region: Region, seeds: range, spatial: str, dropout: float, epochs: int) -> tuple[list[Said], float, int]:
    """On top of the autoregression of each cell: forecasts of single seeds, seconds of one, trained numbers."""
    usual = region.usual(MEMORY)
    rest = region.x - usual
    scale = region.spread(rest)
    z = (rest / scale).drop_vars(["lat", "lon"])
    line = baselines.fit_ar(z.sel(time=region.fit), 1)
    start = [torch.tensor(part, dtype=torch.float32)[None] for part in (line.coefficients, line.intercept)]
    operator = graphs.directional_operators(region.grid_graph) if spatial == "directional" else None

    def sample(part: Field) -> windows.WindowDataset:
        return windows.WindowDataset(part.to_dataset(name="z"), "z", "z", HISTORY, 1)

    runs = []
    began = time.perf_counter()
    for seed in seeds:
        torch.manual_seed(seed)
        inner = models.STGCN(1, 2, HISTORY, 1, CHANNELS, 1, 2, spatial, dropout=dropout, norm=False)
        model = models.LinearSkip(inner, *(part.clone() for part in start))
        training.fit(
            model, sample(z.sel(time=region.fit)), None, operator=operator, loss=training.gaussian_crps, epochs=epochs,
            batch_size=16, learning_rate=2e-3, weight_decay=1e-2, seed=seed, progress=False,
        )  # fmt: skip
        said = training.predict(model, sample(z), operator=operator)[:, 0].double().numpy()
        mean, spread = np.full((2, *z.shape), np.nan)
        mean[HISTORY:], spread[HISTORY:] = said[..., 0], np.exp(said[..., 1])
        runs.append(region.exceed(usual + scale * mean, scale * spread))
    return runs, (time.perf_counter() - began) / len(runs), sum(p.numel() for p in inner.parameters())


# ---------------------------------------------------------------------------- scores


def area_brier(region: Region, said: Said, years: slice) -> dict[str, float]:
    """Brier score of both events, each cell by its area."""
    return {
        name: verification.mean_score(said[name].sel(time=years), event.sel(time=years), "brier", region.weights)
        for name, event in region.events.items()
    }


def choose() -> list[dict[str, Any]]:
    """The log of what was tried on 1991-2000: mean Brier score of the three regions for cold and hot months."""
    known = [Region(name, FIT, "2000") for name in REGIONS]
    rows = []

    def log(name: str, make: Callable[[Region], Said]) -> None:
        scores = [area_brier(region, make(region), CHOICE) for region in known]
        row = {event: rounded(np.mean([score[event] for score in scores])) for event in NAMES}
        rows.append({"name": name, **row, "mean": rounded(np.mean(list(row.values())))})
        print("choice", *rows[-1].values(), flush=True)

    log("fixed rate", fixed_rate)
    for years in (5, 10, 15, 20, 30):
        log(f"rate of the last {years} years", lambda region, years=years: recent_rate(region, years))
    log("persistence", persistence)
    log("persistence, as a rate", fitted_persistence)
    for memory in (None, 24, 60, 120, 240):
        label = "fixed normal" if memory is None else f"running normal, memory {memory} months"
        log(label, lambda region, memory=memory: usual_spread(region, memory))
        log(f"{label}, and AR(1)", lambda region, memory=memory: autoregression(region, memory))
    for penalty in (1.0, 3.0, 10.0):
        log(f"logistic regression, penalty {penalty:g}", lambda region, penalty=penalty: logistic(region, penalty))
    tried = {
        "as reported": {},
        "no graph": {"spatial": "none"},
        "dropout 0.3, 10 epochs": {"dropout": 0.3, "epochs": 10},
    }
    for label, options in tried.items():
        settings = {**NETWORK, **options}
        log(f"network, {label}", lambda region, settings=settings: network(region, range(1), **settings)[0][0])
    return rows


def test() -> dict[str, Any]:
    """Everything fitted again on 1948-2000, and 2001-2025 scored once."""
    known = [Region(name, REFIT, "2025") for name in REGIONS]
    simple: dict[str, tuple[str, Callable[[Region], Said]]] = {
        "fixed rate": ("simple", fixed_rate),
        "rate of recent years": ("simple", recent_rate),
        "persistence": ("simple", persistence),
        "persistence, as a rate": ("simple", fitted_persistence),
        "fixed normal": ("simple", lambda region: usual_spread(region, None)),
        "running normal": ("simple", lambda region: usual_spread(region, ALONE)),
        "running normal and AR(1)": ("linear", autoregression),
        "logistic regression": ("linear", logistic),
    }
    runs: dict[str, list[list[Said]]] = {}  # model -> region -> seed
    about: dict[str, tuple[str, float, int | None]] = {}
    for name, (kind, make) in simple.items():
        began = time.perf_counter()
        runs[name] = [[make(region)] for region in known]
        about[name] = (kind, time.perf_counter() - began, None)
    for name, options in {"STGCN on AR(1), compass": {}, "STGCN on AR(1), no graph": {"spatial": "none"}}.items():
        made = [network(region, range(SEEDS), **{**NETWORK, **options}) for region in known]
        runs[name] = [part[0] for part in made]
        about[name] = ("network", sum(part[1] for part in made), 3 * made[0][2])
    entries, details = [], {}
    for event, dataset in NAMES.items():
        truth = together([region.events[event] for region in known])
        weights = np.concatenate([region.weights for region in known]) / len(known)
        said = {
            name: [together([each[seed][event] for each in by_region]) for seed in range(len(by_region[0]))]
            for name, by_region in runs.items()
        }
        line = said["running normal and AR(1)"][0]
        for name, members in said.items():
            kind, seconds, parameters = about[name]
            entries.append(
                verification.entry(
                    dataset, name, members, truth, None if members[0] is line else line, lead=1, units="1",
                    seconds=seconds, parameters=parameters, kind=kind, block_length=BLOCK, score="brier",
                )
            )  # fmt: skip
        losses = {
            name: verification.brier(sum(members) / len(members), truth, dim=()).values  # type: ignore[arg-type]
            for name, members in said.items()
        }
        details[event] = {
            area: {
                name: {"brier": rounded((loss * share).sum(axis=1).mean())}
                | {f"skill over {other}": skill(loss, losses[other], share) for other in REFERENCES if other != name}
                for name, loss in losses.items()
            }
            for area, share in shares(weights).items()
        }
        for name, row in details[event]["all"].items():
            print(event, name, row, flush=True)
    return {"entries": entries, "details": details}


REFERENCES = ("fixed rate", "running normal", "running normal and AR(1)")


def together(fields: list[Field]) -> Field:
    """The test months of all regions beside each other, with numbers of their own for the cells."""
    values = np.concatenate([field.sel(time=TEST).values for field in fields], axis=1)
    times = fields[0].sel(time=TEST)["time"]
    return xr.DataArray(values, dims=("time", "station"), coords={"time": times, "station": range(values.shape[1])})


def shares(weights: np.ndarray) -> dict[str, np.ndarray]:
    """Area weights of all cells, and of each region alone."""
    cells = len(weights) // len(REGIONS)
    own = {name: np.where(np.arange(len(weights)) // cells == k, 3 * weights, 0) for k, name in enumerate(REGIONS)}
    return {"all": weights, **own}


def skill(loss: np.ndarray, other: np.ndarray, share: np.ndarray) -> dict[str, float]:
    """Brier skill over another forecast, with its interval from blocks of months."""
    sums = ((part * share).sum(axis=1) for part in (loss, other))
    found = verification.block_bootstrap(lambda a, b: 1 - a / b, *sums, block_length=BLOCK, of_means=True)
    return {key: rounded(value) for key, value in found._asdict().items()}


def rounded(value: Any) -> float:
    return round(float(value), 5)


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    choice = choose()
    results = {"seeds": SEEDS, "years": YEARS, "memory": MEMORY, "memory_alone": ALONE, "choice": choice, **test()}
    results["seconds"] = round(time.perf_counter() - began)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
