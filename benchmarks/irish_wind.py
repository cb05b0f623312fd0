"""Irish wind, one day ahead: every method of the package under two protocols, never mixed.

    python benchmarks/irish_wind.py

Writes irish_wind.json beside this file. Protocol (a) is the published one to the letter, with its calendar-day trend;
protocol (b) has the same stations, test days and score, and a smooth season for each station. Settings are chosen
within 1961-1970 alone, by three rolling splits; the test years 1971-1978 are scored once for each model reported.
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

from stgcn_lab import baselines, datasets, forecasting, graphs, verification

SEEDS = 5
NEIGHBOURS = 4
MEMORY = 90  # days, of the running correction
RIDGE = 0.03
FOLDS = (("1964", "1965", "1966"), ("1966", "1967", "1968"), ("1968", "1969", "1970"))
TRAIN, TEST = slice("1961", "1970"), slice("1971-01-04", "1978")  # the first three test days are not scored
UNITS = "sqrt(m/s)"

Forecast = xr.DataArray
SPATIAL = {
    "no graph": {"spatial": "none"},
    "GCN": {"spatial": "gcn"},
    "compass": {"spatial": "directional"},
    "learned graph": {"spatial": "adaptive"},
}
# What was tried around the default settings of fit_forecaster, all with the compass graph.
TRIED: dict[str, dict[str, Any]] = {
    "as reported": {},
    "dropout 0.1": {"dropout": 0.1},
    "dropout 0.5, 20 epochs": {"dropout": 0.5, "epochs": 20},
    "5 epochs": {"epochs": 5},
    "20 epochs": {"epochs": 20},
    "16 channels": {"channels": (16, 16, 16)},
    "64 channels, dropout 0.5": {"channels": (64, 64, 64), "dropout": 0.5},
    "history 5, two blocks": {"history": 5, "blocks": 2},
    "ridge 0.01": {"ridge": 0.01},
    "ridge 0.06": {"ridge": 0.06},
    "7 neighbours": {"neighbours": 7},
    "season of two harmonics": {"harmonics": 2},
}
NO_SKIP = {"lags": 0, "history": 9, "blocks": 2, "kernel_size": 3, "epochs": 30}


def square_root_of_wind() -> Forecast:
    """(time, station) sqrt of m/s at the eleven stations of the benchmark, without leap days."""
    wind = datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"]).drop_sel(station="ROS")
    return np.sqrt(wind).assign_attrs(units=UNITS)


def published_trend(wind: Forecast) -> Forecast:
    """What the published forecasts subtract: a calendar-day mean over all stations, then each station's mean."""
    train = wind.sel(time=TRAIN)
    everywhere = wind.mean("station").expand_dims(station=wind["station"]).transpose("time", "station")
    season = baselines.climatology(everywhere.sel(time=TRAIN), wind["time"])
    return season + (train - season.sel(time=TRAIN)).mean("time")


def graph_of(wind: Forecast, neighbours: int = NEIGHBOURS, shuffled: bool = False) -> Any:
    lat, lon = wind["lat"].values, wind["lon"].values
    if shuffled:
        order = np.random.default_rng(0).permutation(len(lat))
        lat, lon = lat[order], lon[order]
    return graphs.knn_graph(lat, lon, k=neighbours)


def corrected(forecast: Forecast, observed: Forecast, memory: float = MEMORY) -> Forecast:
    return forecasting.running_correction(forecast, observed, memory=memory)


def choose(wind: Forecast) -> list[dict[str, Any]]:
    """The log of what was tried, scored on years of choice: two seeds for each network, ensemble, corrected."""
    wind = wind.sel(time=TRAIN)
    rows = []

    def log(name: str, make: Callable[[Forecast, Forecast], Forecast], memory: float = MEMORY) -> None:
        plain, after = [], []
        for last, first, end in FOLDS:
            known, years = wind.sel(time=slice(None, end)), slice(first, end)
            forecast = make(wind.sel(time=slice(None, last)), known)
            plain.append(verification.mean_score(forecast.sel(time=years), known.sel(time=years)))
            after.append(
                verification.mean_score(corrected(forecast, known, memory).sel(time=years), known.sel(time=years))
            )
        rows.append({"name": name, "plain": rounded(plain), "corrected": rounded(after)})
        print(f"choice  {name:28s} {np.mean(plain):.4f} {np.mean(after):.4f}", flush=True)

    for order in (1, 2, 3, 4):
        log(f"VAR({order})", lambda train, known, order=order: linear(train, known, order))
    for ridge in (0.01, 0.03, 0.06):
        log(f"VAR(3), ridge {ridge}", lambda train, known, ridge=ridge: linear(train, known, 3, ridge))
    for memory in (30, 60, 180, 365):
        log(f"VAR(3), ridge {RIDGE}, memory {memory} days", lambda train, known: linear(train, known, 3, RIDGE), memory)
    log(f"VAR(3), ridge {RIDGE}, products of pairs", with_products)
    for name, options in {**TRIED, **{f"graph: {name}": options for name, options in SPATIAL.items()}}.items():

        def network(train: Forecast, known: Forecast, options: dict[str, Any] = options) -> Forecast:
            options = {"neighbours": NEIGHBOURS, **options}
            graph = graph_of(wind, options.pop("neighbours"))
            fitted = forecasting.fit_forecaster(train, None, graph, members=2, **options)
            return fitted.forecast(known)

        log(f"network, {name}", network)
    return rows


def linear(train: Forecast, known: Forecast, order: int, ridge: float = 0.0) -> Forecast:
    season = baselines.climatology(train, known["time"], 1)
    model = baselines.fit_var(train - season.sel(time=train["time"]), order, ridge)
    return season + model.forecast(known - season)


def with_products(train: Forecast, known: Forecast) -> Forecast:
    """The ridge line with the products of any two stations' anomalies of yesterday, penalised like its third lag."""
    season = baselines.climatology(train, known["time"], 1)
    rest, steps = (known - season).values, train.sizes["time"]
    z = rest / rest[:steps].std(axis=0)
    past = [np.roll(z, lag, axis=0) for lag in (1, 2, 3)]
    i, j = np.triu_indices(z.shape[1])
    columns = np.concatenate([*past, past[0][:, i] * past[0][:, j]], axis=1)
    columns = (columns - columns[3:steps].mean(axis=0)) / columns[3:steps].std(axis=0)
    penalty = RIDGE * (steps - 3) * np.repeat([1, 4, 9, 9], [*[z.shape[1]] * 3, i.size])
    x, y = columns[3:steps], rest[3:steps]
    weights = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ (y - y.mean(axis=0)))
    forecast = season + columns @ weights + y.mean(axis=0)
    return forecast.where(np.arange(len(z))[:, None] >= 3)  # the first rows have no past


def simple_methods(wind: Forecast, season: Forecast, graph: Any) -> dict[str, tuple[str, Callable[[], Any]]]:
    """name -> (kind, function that returns the forecast of all times, and the spread of a station where it has one)."""
    anomaly = wind - season
    train = anomaly.sel(time=TRAIN)

    def of(model: Any) -> tuple[Forecast, Forecast]:
        return season + model.forecast(anomaly), model.spread(1)

    # The season alone is a forecast too, with the spread of what it leaves over.
    return {
        "climatology": ("simple", lambda: (season, train.std("time"))),
        "persistence": ("simple", lambda: (season + baselines.persistence(anomaly), train.diff("time").std("time"))),
        "damped persistence": ("simple", lambda: of(baselines.fit_damped_persistence(train))),
        "AR(3) at each station": ("linear", lambda: of(baselines.fit_ar(train, 3))),
        "VAR(1)": ("linear", lambda: of(baselines.fit_var(train, 1))),
        "VAR(2)": ("linear", lambda: of(baselines.fit_var(train, 2))),
        "VAR(3)": ("linear", lambda: of(baselines.fit_var(train, 3))),
        "VAR(3), ridge": ("linear", lambda: of(baselines.fit_var(train, 3, RIDGE))),
        "simple kriging": ("linear", lambda: of(baselines.fit_kriging(train, 3))),
        "boosted trees": ("trees", lambda: (season + baselines.fit_trees(train, graph).forecast(anomaly), None)),
    }


def networks(graph: Any, shuffled: Any) -> dict[str, dict[str, Any]]:
    chosen = {f"linear skip + STGCN, {name}": {"graph": graph, **options} for name, options in SPATIAL.items()}
    chosen["linear skip + STGCN, compass shuffled"] = {"graph": shuffled, "spatial": "directional"}
    chosen["STGCN without skip, compass"] = {"graph": graph, "spatial": "directional", **NO_SKIP}
    return chosen


def protocol(name: str, wind: Forecast, season: Forecast, harmonics: int) -> dict[str, Any]:
    """Every model, plain and with the running correction, on the test years."""
    dataset, graph, shuffled = f"Irish wind ({name})", graph_of(wind), graph_of(wind, shuffled=True)
    test = wind.sel(time=TEST)
    entries, details = [], {}
    # A network that takes off its own season gets the series; one under the published trend gets what that leaves.
    given, offset = (wind, 0.0) if harmonics else (wind - season, season)
    methods = simple_methods(wind, season, graph)
    reference = methods["VAR(3)"][1]()[0].sel(time=TEST)
    # What a network must beat to have earned its place, and what the graph must beat: the ensemble without one.
    rivals = {"best linear": corrected(methods["VAR(3), ridge"][1]()[0], wind)}

    def report(
        label: str, kind: str, members: list[Forecast], spread: Forecast | None, seconds: float, size: Any
    ) -> None:
        mean = sum(members) / len(members)
        if spread is not None and spread.dims == ("station",):
            spread = spread.expand_dims(time=wind["time"]).transpose("time", "station")
        for suffix, change in (("", lambda f: f), (" + running correction", lambda f: corrected(f, wind))):
            said = [change(member).sel(time=TEST) for member in members]
            line = verification.entry(
                dataset, label + suffix, said if len(said) > 1 else said[0], test, reference,
                lead=1, units=UNITS, seconds=seconds, kind=kind, parameters=size,
            )  # fmt: skip
            entries.append(line)
            ensemble = change(mean)
            details[label + suffix] = detail(ensemble, spread, wind, running=bool(suffix))
            if kind == "network" and suffix:
                rivals.setdefault("no graph", ensemble)  # the first of the networks
                details[label + suffix]["against"] = {
                    rival: rounded(verification.compare(ensemble.sel(time=TEST), other.sel(time=TEST), test))
                    for rival, other in rivals.items()
                }
            print(f"{name}  {label + suffix:58s} {line['score']:.4f} {line['ensemble'] or 0:.4f}", flush=True)

    for label, (kind, run) in methods.items():
        began = time.perf_counter()
        forecast, spread = run()
        report(label, kind, [forecast], spread, time.perf_counter() - began, None)
    for label, options in networks(graph, shuffled).items():
        began = time.perf_counter()
        fitted = forecasting.fit_forecaster(given.sel(time=TRAIN), harmonics=harmonics, members=SEEDS, **options)
        seconds = (time.perf_counter() - began) / SEEDS
        said = fitted.distribution(given)
        members = [offset + said["members"].isel(member=m, drop=True) for m in range(SEEDS)]
        size = sum(weights.numel() for weights in fitted.members[0].parameters())
        report(label, "network", members, said["spread"], seconds, size)
    return {"entries": entries, "details": details}


def detail(mean: Forecast, spread: Forecast | None, wind: Forecast, running: bool) -> dict[str, Any]:
    """Mean absolute error, CRPS and share outside the 95 % interval of the ensemble, and its error at each station.

    With the running correction of the mean goes the running correction of the spread.
    """
    test, said = wind.sel(time=TEST), mean.sel(time=TEST)
    result = {
        "mae": rounded(verification.mean_score(said, test, "mae")),
        "stations": rounded(verification.rmse(said, test).values),
    }
    if spread is not None:
        if running:
            spread = forecasting.running_spread(mean, spread, wind)
        spread = spread.sel(time=TEST)
        result["crps"] = rounded(verification.mean_score((said, spread), test, "crps"))
        result["outside"] = rounded(verification.interval_miss_rate(said, spread, test).mean())
    return result


def learning_curve(wind: Forecast) -> list[dict[str, Any]]:
    """Score on 1969-70 against the number of training years before it, with the running correction."""
    rows = []
    years = slice("1969", "1970")
    for count in (1, 2, 4, 6, 8):
        known = wind.sel(time=slice(str(1969 - count), "1970"))
        train = known.sel(time=slice(None, "1968"))
        row = {"years": count}
        for name, forecast in {
            "VAR(3)": linear(train, known, 3),
            "VAR(3), ridge": linear(train, known, 3, RIDGE),
            "linear skip + STGCN": forecasting.fit_forecaster(train, None, graph_of(wind), members=3).forecast(known),
        }.items():
            said = corrected(forecast, known).sel(time=years)
            row[name] = rounded(verification.mean_score(said, known.sel(time=years)))
        rows.append(row)
    return rows


def rounded(values: Any) -> Any:
    values = np.round(np.asarray(values, dtype=float), 5)
    return values.tolist()


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    wind = square_root_of_wind()
    results: dict[str, Any] = {"stations": wind["station"].values.tolist(), "memory": MEMORY, "seeds": SEEDS}
    results["choice"] = choose(wind)
    results["learning_curve"] = learning_curve(wind)
    season = baselines.climatology(wind.sel(time=TRAIN), wind["time"], 1)
    calendar = protocol("a: published trend", wind, published_trend(wind), harmonics=0)
    smooth = protocol("b: smooth season", wind, season, harmonics=1)
    results["details"] = {"a": calendar["details"], "b": smooth["details"]}
    results["entries"] = calendar["entries"] + smooth["entries"]
    results["seconds"] = round(time.perf_counter() - began)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
