"""Irish gales, one day ahead: the probability that tomorrow's mean wind at a station is among its strongest 2 %.

    python benchmarks/gales.py

Writes gales.json beside this file. Twelve stations, leap days dropped. A gale is a daily mean above the station's
98th percentile of 1961-1970. Two years hold few gales, so settings, calibrations and warning levels come from
cross-validation within 1961-1970: two years are left out at a time, five times, and each is forecast by models that
never saw it. Then everything is fitted again to all ten years, and 1971-1978 are scored once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from stgcn_lab import baselines, datasets, events, forecasting, graphs, verification

SEEDS = 5
QUANTILE = 0.98
NEIGHBOURS = 4
TRAIN, TEST = slice("1961", "1970"), slice("1971", "1978")
YEARS_OUT = 2  # at a time
RATIOS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # cost of acting / loss avoided
BINS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1)
LEVELS = np.arange(0.02, 0.6, 0.01)  # of a warning
RESAMPLES = 1000
BLOCK = 15  # days
SEASON, LINEAR, RUNNING = "seasonal rate", "ridge VAR, Gaussian", ", running corrections"

Series = xr.DataArray
# (train, its events, the series to forecast) -> probabilities (time, station) of the series, one for each seed
Make = Callable[[Series, Series, Series], list[Series]]


def gales() -> tuple[Series, Series, Series]:
    """(time, station) square root of the wind, the event, and (station,) the square root of its threshold."""
    wind = datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"])
    root = np.sqrt(wind).assign_attrs(units="m0.5 s-0.5")
    threshold = root.sel(time=TRAIN).quantile(QUANTILE, "time").drop_vars("quantile")
    return root, (root > threshold).astype(float), threshold.assign_attrs(root.attrs)


ROOT, EVENT, THRESHOLD = gales()
GRAPH = graphs.knn_graph(ROOT["lat"].values, ROOT["lon"].values, k=NEIGHBOURS)


FITTED: dict[Any, forecasting.Forecaster] = {}  # the corrected forecasters are the plain ones, fitted once


def rate(harmonics: int) -> Make:
    return lambda train, event, series: [baselines.event_rate(event, series["time"], harmonics)]


def after_a_gale(train: Series, event: Series, series: Series) -> list[Series]:
    """Persistence of the event: how often in the training years a gale followed a gale, and how often none."""
    follows = [float(event.where(baselines.persistence(event) == today).mean()) for today in (0, 1)]
    today = baselines.persistence((series > THRESHOLD).astype(float))
    return [follows[0] + (follows[1] - follows[0]) * today]


def logistic(**options: Any) -> Make:
    return lambda train, event, series: [baselines.fit_logistic(train, event, **options).probability(series)]


def linear(ridge: float = 0.03, running: bool = False) -> Make:
    def make(train: Series, event: Series, series: Series) -> list[Series]:
        season = baselines.climatology(train, series["time"], 1)
        model = baselines.fit_var(train - baselines.climatology(train, train["time"], 1), 3, ridge)
        mean = (season + model.forecast(series - season)).assign_attrs(series.attrs)
        return [exceedance(mean, 0 * series + model.spread(1), series, running)]

    return make


def network(members: int = SEEDS, running: bool = False) -> Make:
    """The forecaster of chapter 9, turned into probabilities; each member with its own spread."""

    def make(train: Series, event: Series, series: Series) -> list[Series]:
        key = (train["time"].values.tobytes(), members)
        if key not in FITTED:
            FITTED[key] = forecasting.fit_forecaster(train, None, GRAPH, members=members)
        said = [replace(FITTED[key], members=(member,)).distribution(series) for member in FITTED[key].members]
        return [exceedance(part["mean"], part["spread"], series, running) for part in said]

    return make


def exceedance(mean: Series, spread: Series, observed: Series, running: bool) -> Series:
    if running:
        mean = forecasting.running_correction(mean, observed, memory=90)
        spread = forecasting.running_spread(mean, spread, observed)
    return events.exceedance_probability(mean, spread, THRESHOLD)


def event_network(members: int = SEEDS, **options: Any) -> Make:
    def make(train: Series, event: Series, series: Series) -> list[Series]:
        fitted = events.fit_event_network(train, event, None, None, GRAPH, members=members, **options)
        each = fitted.each(series)
        return [each.isel(member=m, drop=True) for m in range(members)]

    return make


def left_out() -> list[np.ndarray]:
    """For each fold which days of the training years are left out."""
    years = ROOT.sel(time=TRAIN)["time"].dt.year.values
    first = years.min()
    return [(years - first) // YEARS_OUT == fold for fold in range((years.max() - first) // YEARS_OUT + 1)]


def cross_validated(make: Make) -> list[Series]:
    """What the model says of every day of 1961-1970, fitted to the years around it, one for each seed."""
    series, event, parts = ROOT.sel(time=TRAIN), EVENT.sel(time=TRAIN), []
    for out in left_out():
        said = make(series.isel(time=~out), event.isel(time=~out), series)
        parts.append([one.isel(time=out) for one in said])
    return [xr.concat(seed, "time", combine_attrs="override") for seed in zip(*parts, strict=True)]


def mean_of(members: list[Series]) -> Series:
    return sum(members[1:], members[0]) / len(members)


def calibrated_fold_by_fold(probability: Series, method: str) -> Series:
    """Calibrated with the other folds, so that the score of a calibration is as honest as that of the forecast."""
    event, parts = EVENT.sel(time=TRAIN), []
    for out in left_out():
        fitted = events.fit_calibration(probability.isel(time=~out), event.isel(time=~out), method)
        parts.append(fitted.apply(probability.isel(time=out)))
    return xr.concat(parts, "time")


def skill(probability: Series, reference: Series, event: Series, resamples: int = 2) -> list[float]:
    """Brier skill with its paired interval, over the pairs that both have."""
    losses = [((p - event) ** 2).where((probability + reference).notnull()).values for p in (probability, reference)]

    def of(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        return 1 - mine.mean(axis=1) / other.mean(axis=1)

    return rounded(verification.block_bootstrap(of, *losses, block_length=BLOCK, resamples=resamples, of_means=True))


def choose() -> list[dict[str, Any]]:
    """The log of what was tried: Brier skill over the seasonal rate, cross-validated, as said and as calibrated.

    Two seeds for each network, the mean of both.
    """
    tried: dict[str, Make] = {f"season of {h} harmonics": rate(h) for h in (0, 1, 2)}
    tried["persistence of gales"] = after_a_gale
    tried |= {f"logistic regression, ridge {r}": logistic(ridge=r) for r in (0.0003, 0.001, 0.003, 0.01)}
    tried["logistic regression, 1 lag"] = logistic(lags=1)
    tried |= {f"VAR, Gaussian, ridge {r}": linear(r) for r in (0.01, 0.03, 0.1)}
    tried["VAR, Gaussian, ridge 0.03" + RUNNING] = linear(running=True)
    tried["forecaster, Gaussian"] = network(2)
    tried["forecaster, Gaussian" + RUNNING] = network(2, running=True)
    options: dict[str, dict[str, Any]] = {
        "5 epochs": {},
        "10 epochs": {"epochs": 10},
        "dropout 0.5": {"dropout": 0.5},
        "no graph": {"spatial": "none"},
        "weight 7": {"event_weight": 7.0},
        "weight 49": {"event_weight": 49.0},
        "focus 1": {"focusing": 1.0},
        "focus 2": {"focusing": 2.0},
    }
    tried |= {f"event network, {name}": event_network(2, **chosen) for name, chosen in options.items()}
    reference, event = cross_validated(rate(1))[0], EVENT.sel(time=TRAIN)
    rows = []
    for name, make in tried.items():
        said = mean_of(cross_validated(make))
        row: dict[str, Any] = {"name": name, "skill": skill(said, reference, event)[0]}
        if not name.startswith(("season", "persistence")):
            for method in ("platt", "isotonic"):
                row[method] = skill(calibrated_fold_by_fold(said, method), reference, event)[0]
        rows.append(row)
        print("choice ", row, flush=True)
    return rows


def models() -> dict[str, tuple[str, Make, bool]]:
    """name -> (kind, how it is made, whether it is calibrated too): what the choice led to."""
    return {
        "plain rate": ("simple", rate(0), False),
        SEASON: ("simple", rate(1), False),
        "persistence of gales": ("simple", after_a_gale, False),
        "logistic regression": ("linear", logistic(), True),
        LINEAR: ("linear", linear(), True),
        LINEAR + RUNNING: ("linear", linear(running=True), False),
        "forecaster, Gaussian": ("network", network(), True),
        "forecaster, Gaussian" + RUNNING: ("network", network(running=True), False),
        "event network": ("network", event_network(), True),
        "event network, weight 7": ("network", event_network(event_weight=7.0), True),
        "event network, focus 1": ("network", event_network(focusing=1.0), True),
    }


def warning_level(probability: Series) -> float:
    """The level whose warnings had the best critical success index in 1961-1970, cross-validated."""
    event = EVENT.sel(time=TRAIN)
    known = probability.notnull()
    scores = []
    for level in LEVELS:
        table = verification.contingency(
            (probability >= level).where(known).astype(float), event, dim=("time", "station")
        )
        scores.append(float(table["critical_success_index"].fillna(0)))
    return float(LEVELS[int(np.argmax(scores))])


def warnings_at(level: float, probability: Series, event: Series) -> dict[str, Any]:
    daily = verification.contingency((probability >= level).astype(float), event, dim="station")
    counts = [daily[name].values for name in ("hits", "misses", "false_alarms")]

    def rates(hits: np.ndarray, misses: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.stack([hits / (hits + misses), alarms / (hits + alarms), hits / (hits + misses + alarms)], axis=1)

    names = ("probability_of_detection", "false_alarm_ratio", "critical_success_index")
    found: dict[str, Any] = {"level": rounded(level)}
    found |= dict(zip(("hits", "misses", "false_alarms"), (int(c.sum()) for c in counts), strict=True))
    if not counts[0].sum() + counts[2].sum():
        return found | {names[0]: [0.0, 0.0, 0.0]}  # never a warning
    interval = verification.block_bootstrap(rates, *counts, block_length=BLOCK, resamples=RESAMPLES, of_means=True)
    return found | {name: rounded([part[i] for part in interval]) for i, name in enumerate(names)}


def detail(probability: Series, level: float, references: dict[str, Series], curve: bool) -> dict[str, Any]:
    """What the chapter shows of a forecast of the test years, intervals as [value, low, high]."""
    event = EVENT.sel(time=TEST)
    sampling = {"resamples": RESAMPLES, "block_length": BLOCK}
    roc = verification.roc(probability, event, **sampling)
    table = verification.reliability(probability, event, BINS, **sampling)
    value = verification.economic_value(probability, event, RATIOS, **sampling)
    found: dict[str, Any] = {
        "brier": rounded(verification.mean_score(probability, event, "brier"), 7),
        "mean_probability": rounded(probability.mean()),
        "skill": {name: skill(probability, other, event, RESAMPLES) for name, other in references.items()},
        "area": rounded([roc["area"], roc["area_low"], roc["area_high"]]),
        "warning": warnings_at(level, probability, event),
        "value": {"value": rounded(value), "low": rounded(value["low"]), "high": rounded(value["high"])},
        "reliability": {
            name: rounded(table[name])
            for name in ("lower", "upper", "probability", "frequency", "low", "high", "count")
        },
    }
    if curve:
        kept = verification.roc(probability, event, np.unique(np.quantile(probability, np.linspace(0, 1, 200))))
        names = ("false_alarm_rate", "probability_of_detection")
        found["roc"] = {"threshold": rounded(kept["threshold"]), **{name: rounded(kept[name]) for name in names}}
    return found


def score() -> dict[str, Any]:
    """Every model once on the test years, as said and as calibrated."""
    train, event, test = ROOT.sel(time=TRAIN), EVENT.sel(time=TRAIN), EVENT.sel(time=TEST)
    made, details, entries, parameters = {}, {}, [], {}
    for name, (kind, make, calibrated) in models().items():
        began = time.process_time()
        said = [one.sel(time=TEST) for one in make(train, event, ROOT)]
        seconds = (time.process_time() - began) / len(said)
        plain = name.removesuffix(RUNNING)
        if kind == "network" and plain != name:
            seconds += made[plain][3]  # the same fit
        before = cross_validated(make)
        made[name] = (kind, said, before, seconds)
        for method in ("platt", "isotonic") if calibrated else ():
            # Each seed with the calibration of its own cross-validated forecasts.
            fitted = [events.fit_calibration(one, event, method) for one in before]
            after = [[f.apply(one) for f, one in zip(fitted, part, strict=True)] for part in (said, before)]
            made[f"{name} + {method}"] = (kind, *after, seconds)
            if method == "platt":
                parameters[name] = rounded([f.values for f in fitted])
        print("made   ", name, round(seconds, 1), flush=True)
    references = {name: made[name][1][0] for name in ("plain rate", SEASON, "logistic regression", LINEAR)}
    for name, (kind, said, before, seconds) in made.items():
        entries.append(
            verification.entry(
                "Irish gales", name, said if len(said) > 1 else said[0], test, references[LINEAR],
                lead=1, units="1", seconds=seconds, kind=kind, block_length=BLOCK, score="brier",
            )
        )  # fmt: skip
        level = warning_level(mean_of(before))
        details[name] = {"kind": kind} | detail(mean_of(said), level, references, curve="+" not in name)
        shown = details[name]
        print(f"{name:52s} {shown['skill'][SEASON]} {shown['area']} {shown['warning']}", flush=True)
    return {"entries": entries, "details": details, "platt": parameters}


def rounded(values: Any, digits: int = 5) -> Any:
    """Plain numbers for JSON, None for NaN."""
    values = np.round(np.asarray(values, dtype=float), digits)
    return np.where(np.isfinite(values), values, None).tolist()


def main() -> None:
    torch.set_num_threads(1)
    began = time.process_time()
    choice = choose()
    scored = score()
    test = EVENT.sel(time=TEST)
    gales: dict[str, Any] = {
        "stations": ROOT["station"].values.tolist(),
        "threshold": rounded(THRESHOLD**2, 3),  # m/s
        "rate": {"train": rounded(EVENT.sel(time=TRAIN).mean()), "test": rounded(test.mean())},
        "days_with_a_gale": {"train": days(EVENT.sel(time=TRAIN)), "test": days(test)},
        "gales_by_year": {str(y): int(n) for y, n in EVENT.groupby("time.year").sum(...).to_series().items()},
        "ratios": RATIOS,
        "seeds": SEEDS,
        "choice": choice,
        "platt": scored["platt"],
        "details": scored["details"],
        "seconds": round(time.process_time() - began),
    }
    text = json.dumps({"entries": scored["entries"], "gales": gales}, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def days(event: Series) -> int:
    return int((event == 1).any("station").sum())


if __name__ == "__main__":
    main()
