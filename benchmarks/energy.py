"""Energy, one day ahead: demand in Victoria through 2014, and the wind power of Ireland.

    python benchmarks/energy.py

Writes energy.json beside this file.

Demand. At midnight all 48 half hours of the day are forecast, without any weather forecast, with an imperfect one (the
observed temperature with an error put on), and with a perfect one (the observed temperature itself, which nobody has).
Every model is fitted anew at the start of each month on all days before it. Settings are chosen on May to July; August
to December are scored once for each model reported. Time is the day, the stations are the half hours of the day.

Wind. Daily wind at twelve stations becomes capacity factors, and their mean is forecast with its uncertainty: fit and
choice within 1961-1970, test 1971-1978. Time is the day, the one station is the mean of all twelve.
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
from numpy.typing import NDArray
from torch_geometric.data import Data

from stgcn_lab import baselines, datasets, forecasting, graphs, indices, models, training, verification, windows

Array = NDArray[np.float64]
SEEDS = 5
SLOTS = 48  # half hours of a day
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
CHOICE, TEST = (5, 6, 7), (8, 9, 10, 11, 12)  # months
MEMORY = 60  # days, of the linear model
RIDGE = 0.01
RECENT = 60  # days whose errors give a linear model its quantiles
STEPS, BATCH = 160, 32  # of each training
ERROR, ERROR_HOURS = 1.5, 12.0  # degC and correlation time, of the imperfect weather forecast
WEEK = 7  # days in a block of the bootstrap
WITHIN_DAY = 0.3  # relative spread of the wind within a day
WIND_TRAIN, WIND_TEST = slice("1961", "1970"), slice("1971-01-04", "1978")
DRAWS = 200


# ---------------------------------------------------------------------------- demand: what is known at midnight


class Year:
    """The year as arrays (day, half hour), and the calendar as (day,)."""

    def __init__(self) -> None:
        record = datasets.load_electricity_demand()
        self.day = record["time"].values[::SLOTS]
        self.demand, self.temperature, workday = (
            record[name].values.reshape(-1, SLOTS).astype(float) for name in ("demand", "temperature", "workday")
        )
        self.workday = workday[:, 0]
        day = xr.DataArray(self.day, dims="time")
        self.month, self.weekday = day.dt.month.values, day.dt.dayofweek.values
        # The clock of the record is not shifted, people are: an hour earlier until 6 April and from 5 October.
        self.summer_time = ((self.day < np.datetime64("2014-04-06")) | (self.day >= np.datetime64("2014-10-05"))) * 1.0

    def imperfect(self) -> Array:
        """A made-up weather forecast: the temperature with an error that wanders over half a day or so."""
        rng, keep = np.random.default_rng(0), np.exp(-0.5 / ERROR_HOURS)
        error = rng.standard_normal(self.temperature.size)
        for i in range(1, error.size):
            error[i] = keep * error[i - 1] + np.sqrt(1 - keep**2) * error[i]
        return self.temperature + ERROR * error.reshape(self.temperature.shape)

    def series(self, values: Array) -> xr.DataArray:
        coords = {"time": self.day, "station": np.arange(SLOTS)}
        return xr.DataArray(values, coords, ("time", "station"), attrs={"units": "GW"})

    def days(self, months: tuple[int, ...]) -> NDArray[np.bool_]:
        return np.isin(self.month, months)


def before(x: Array, days: int = 1) -> Array:
    """x as it was some days before; NaN where there is no such day."""
    shifted = np.full(x.shape, np.nan)
    shifted[days:] = x[:-days]
    return shifted


def cold_and_hot(temperature: Array) -> list[Array]:
    """Degrees below 18 and above 21: what has to be heated, and what cooled."""
    return [np.maximum(18 - temperature, 0), np.maximum(temperature - 21, 0)]


def design(year: Year, weather: Array | None) -> Array:
    """(day, half hour, feature): all that a linear model may use at the midnight before the day."""
    yesterday = before(year.demand)
    daily = [year.workday, before(year.workday), year.workday * before(year.workday), year.summer_time]
    daily += [(year.weekday == k) * 1.0 for k in (0, 4, 5)]  # Monday, Friday, Saturday
    daily += [yesterday[:, -1], yesterday.mean(axis=1), *cold_and_hot(before(year.temperature).mean(axis=1))]
    if weather is not None:
        daily += cold_and_hot(weather.mean(axis=1))
    features = [yesterday, *(np.repeat(x[:, None], SLOTS, axis=1) for x in daily)]
    if weather is not None:
        last_hours = np.convolve(weather.ravel(), np.ones(6) / 6)[: weather.size].reshape(weather.shape)
        features += [*cold_and_hot(weather), *cold_and_hot(last_hours)]
    return np.stack(features, axis=-1)


# ---------------------------------------------------------------------------- demand: linear models


def regress(x: Array, y: Array, train: Array, wanted: Array, memory: float | None, ridge: float = RIDGE) -> Array:
    """A ridge regression for each half hour; older days count less, e^-1 after `memory` days."""
    age = train.max() - train
    weight = np.ones(age.size) if memory is None else np.exp(-age / memory)
    weight = weight / weight.mean()
    said = np.empty((len(wanted), SLOTS))
    for slot in range(SLOTS):
        middle, scale = np.average(x[train, slot], axis=0, weights=weight), x[train, slot].std(axis=0)
        scale[scale < 1e-9] = 1
        a, b = (x[train, slot] - middle) / scale, np.average(y[train, slot], weights=weight)
        gram = (a.T * weight) @ a + ridge * len(train) * np.eye(a.shape[1])
        coefficients = np.linalg.solve(gram, (a.T * weight) @ (y[train, slot] - b))
        said[:, slot] = (x[wanted, slot] - middle) / scale @ coefficients + b
    return said


def line(year: Year, x: Array, month: int, memory: float | None, ridge: float = RIDGE) -> tuple[Array, Array, Array]:
    """Forecasts of a month and, for training, of all days before it: (day, half hour), NaN elsewhere; train, wanted.

    The days of training are forecast by fits that leave them out, in eight blocks: their errors are those that
    new days would have.
    """
    train = np.nonzero((year.month < month) & np.isfinite(x).all(axis=(1, 2)))[0]
    wanted = np.nonzero(year.month == month)[0]
    said = np.full(year.demand.shape, np.nan)
    said[wanted] = regress(x, year.demand, train, wanted, memory, ridge)
    for block in np.array_split(train, 8):
        said[block] = regress(x, year.demand, np.setdiff1d(train, block), block, memory, ridge)
    return said, train, wanted


def error_quantiles(errors: Array) -> Array:
    """(half hour, level) quantiles of errors (day, half hour), each from its own and two half hours to either side."""
    slots = (np.arange(SLOTS)[:, None] + np.arange(-2, 3)) % SLOTS
    return np.quantile(errors[:, slots], LEVELS, axis=(0, 2)).T


def linear(year: Year, weather: Array | None, months: tuple[int, ...], memory: float | None = MEMORY,
           ridge: float = RIDGE) -> Array:  # fmt: skip
    """(day, half hour, level) quantiles: the line, and the quantiles of its latest left-out errors."""
    x, quantiles = design(year, weather), np.full((*year.demand.shape, len(LEVELS)), np.nan)
    for month in months:
        said, train, wanted = line(year, x, month, memory, ridge)
        errors = (year.demand - said)[train[-RECENT:]]
        quantiles[wanted] = said[wanted][..., None] + error_quantiles(errors)
    return quantiles


def simple(year: Year, months: tuple[int, ...]) -> dict[str, Array]:
    """Forecasts without a fit, with the quantiles of their errors in the latest days before each month."""
    same_kind = np.full(year.demand.shape, np.nan)
    usual = same_kind.copy()
    for day in range(1, len(year.day)):
        like = np.nonzero(year.workday[:day] == year.workday[day])[0]
        if len(like):
            same_kind[day] = year.demand[like[-1]]
            usual[day] = year.demand[like].mean(axis=0)
    said = {
        "usual day of its kind": usual,
        "as yesterday": before(year.demand),
        "as a week ago": before(year.demand, WEEK),
        "as the last day of its kind": same_kind,
    }
    quantiles = {}
    for name, forecast in said.items():
        quantiles[name] = np.full((*year.demand.shape, len(LEVELS)), np.nan)
        for month in months:
            first = np.nonzero(year.month == month)[0][0]
            errors = (year.demand - forecast)[first - RECENT : first]
            wanted = year.month == month
            quantiles[name][wanted] = forecast[wanted][..., None] + error_quantiles(errors)
    return quantiles


# ---------------------------------------------------------------------------- demand: boosted trees


def trees(year: Year, weather: Array | None, months: tuple[int, ...], leaves: int = 8, rounds: int = 100) -> Array:
    """(day, half hour, level) quantiles of boosted trees that learn what the line leaves over, one fit for each level.

    They see what the line sees and the line itself, and on top of that the half hour and the day of the week.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    x, quantiles = design(year, weather), np.full((*year.demand.shape, len(LEVELS)), np.nan)
    calendar = [np.broadcast_to(np.arange(SLOTS), x.shape[:2]), np.repeat(year.weekday[:, None], SLOTS, axis=1)]
    warm = [] if weather is None else [weather, np.repeat(weather.mean(axis=1)[:, None], SLOTS, axis=1)]
    for month in months:
        said, train, wanted = line(year, x, month, MEMORY)
        features = np.concatenate([x, np.stack([said, *calendar, *warm], axis=-1)], axis=-1)
        size, columns = said[train].std(), features.shape[-1]
        for k, level in enumerate(LEVELS):
            fitted = HistGradientBoostingRegressor(
                loss="quantile", quantile=level, max_iter=rounds, learning_rate=0.05, max_leaf_nodes=leaves,
                early_stopping=False, random_state=0,
            )  # fmt: skip
            fitted.fit(features[train].reshape(-1, columns), (year.demand - said)[train].ravel() / size)
            learned = fitted.predict(features[wanted].reshape(-1, columns)).reshape(-1, SLOTS)
            quantiles[wanted, :, k] = said[wanted] + size * learned
    return np.sort(quantiles, axis=-1)


# ---------------------------------------------------------------------------- demand: the network over the clock


def clock(reach: int = 2) -> Data:
    """The half hours of the day as a ring: each is joined with the nearest ones before and after it."""
    here = np.arange(SLOTS)
    steps = [s for s in range(-reach, reach + 1) if s]
    source = np.concatenate([(here + s) % SLOTS for s in steps])
    weight = np.repeat([np.exp(-0.5 * s**2) for s in steps], SLOTS)
    return Data(
        edge_index=torch.from_numpy(np.stack([source, np.tile(here, len(steps))])),
        edge_weight=torch.from_numpy(weight).float(),
        num_nodes=SLOTS,
    )


def network_inputs(year: Year, weather: Array | None, said: Array, train: Array) -> tuple[dict[str, Array], Array]:
    """Standardised inputs (day, half hour) by name, and the scale of the errors; what belongs to the next day is moved
    back by one, so that the last row of a window holds all that is known of the day to be forecast."""

    def scaled(values: Array) -> Array:
        return (values - values[train].mean()) / values[train].std()

    def scaled_by_slot(values: Array) -> Array:
        return (values - values[train].mean(axis=0)) / values[train].std(axis=0)

    def all_day(values: Array) -> Array:
        return np.repeat(values[:, None], SLOTS, axis=1)

    def next_day(values: Array) -> Array:
        return np.concatenate([values[1:], np.full((1, SLOTS), np.nan)])

    error = year.demand - said
    scale = error[train].std(axis=0)
    inputs = {
        "demand": scaled_by_slot(year.demand),
        "temperature": scaled(year.temperature),
        "workday": all_day(year.workday),
        "error": error / scale,
        "next workday": next_day(all_day(year.workday)),
        "next saturday": next_day(all_day((year.weekday == 5) * 1.0)),
        "next line": next_day(scaled_by_slot(said)),
    }
    if weather is not None:
        inputs["next temperature"] = next_day(scaled(weather))
        inputs["next mean"] = next_day(all_day(scaled(weather).mean(axis=1)))
    angle = 2 * np.pi * np.arange(SLOTS) / SLOTS
    for k in (1, 2):
        for name, wave in (("sin", np.sin), ("cos", np.cos)):
            inputs[f"{name} {k}"] = np.repeat(wave(k * angle)[None], len(year.day), axis=0)
    return inputs, scale


def network(year: Year, weather: Array | None, months: tuple[int, ...], seed: int, spatial: str = "gcn",
            history: int = WEEK, memory: float | None = MEMORY, skip: bool = True, steps: int = STEPS,
            channels: tuple[int, int, int] = (16, 16, 16)) -> tuple[Array, int]:  # fmt: skip
    """(day, half hour, level) quantiles of a network that learns what the line leaves over, and its number of weights.

    Without the skip it learns the demand itself (the line is then no input either).
    """
    x, quantiles, size = design(year, weather), np.full((*year.demand.shape, len(LEVELS)), np.nan), 0
    operator = graphs.gcn_operator(clock()) if spatial == "gcn" else None
    for month in months:
        said, train, wanted = line(year, x, month, memory)
        inputs, scale = network_inputs(year, weather, said, train)
        middle = said
        if not skip:
            middle = np.broadcast_to(year.demand[train].mean(axis=0), said.shape)
            scale = year.demand[train].std(axis=0)
            inputs = {name: values for name, values in inputs.items() if name not in ("error", "next line")}
        target = (year.demand - middle) / scale
        rows = {name: year.series(values) for name, values in inputs.items()}
        every = xr.Dataset({**rows, "target": year.series(target)})
        learn = windows.WindowDataset(
            every.isel(time=slice(train[0], train[-1] + 1)), list(inputs), "target", history, 1
        )
        ahead = windows.WindowDataset(
            every.isel(time=slice(wanted[0] - history, wanted[-1] + 1)), list(inputs), "target", history, 1
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = models.STGCN(len(inputs), len(LEVELS), history, 1, channels, 1, 3, spatial, dropout=0.2, norm=False)
        torch.nn.init.zeros_(model.out.weight)  # it begins as the line with the quantiles of its errors
        with torch.no_grad():
            model.out.bias.copy_(torch.from_numpy(np.quantile(target[train], LEVELS)))
        # As many steps for a long past as for a short one.
        training.fit(
            model, learn, None, operator=operator, loss=training.pinball_loss(LEVELS), seed=seed, progress=False,
            epochs=max(1, round(steps * BATCH / len(learn))), batch_size=BATCH, learning_rate=4e-3, weight_decay=1e-2,
        )  # fmt: skip
        learned = np.sort(training.predict(model, ahead, operator=operator).numpy()[:, 0].astype(float), axis=-1)
        quantiles[wanted] = middle[wanted][..., None] + learned * scale[:, None]
        size = sum(weights.numel() for weights in model.parameters())
    return quantiles, size


# ---------------------------------------------------------------------------- demand: scores


def pinball(quantiles: Array, demand: Array) -> Array:
    """(day, half hour, level) the pinball loss of each."""
    error, level = demand[..., None] - quantiles, np.array(LEVELS)
    return np.maximum(level * error, (level - 1) * error)


def daily_losses(quantiles: Array, demand: Array) -> dict[str, Array]:
    """(day,) what is averaged over the days: losses of the quantiles, of the middle one, and of the daily peak."""
    middle = quantiles[..., LEVELS.index(0.5)]
    losses = pinball(quantiles, demand)
    peak, hour = demand.max(axis=1), demand.argmax(axis=1) / 2
    return {
        "mape": 100 * np.abs(middle / demand - 1).mean(axis=1),
        "square": ((middle - demand) ** 2).mean(axis=1),
        "pinball": losses.mean(axis=(1, 2)),
        "pinball 75 %": losses[..., LEVELS.index(0.75)].mean(axis=1),
        "pinball 90 %": losses[..., LEVELS.index(0.9)].mean(axis=1),
        "inside": ((demand >= quantiles[..., 0]) & (demand <= quantiles[..., -1])).mean(axis=1),
        "width": (quantiles[..., -1] - quantiles[..., 0]).mean(axis=1),
        "peak": 100 * np.abs(middle.max(axis=1) / peak - 1),
        "peak bias": 100 * (middle.max(axis=1) / peak - 1),
        "peak hours": np.abs(middle.argmax(axis=1) / 2 - hour),
        "peak hit": (np.abs(middle.argmax(axis=1) / 2 - hour) <= 1) * 1.0,
    }


def mean_losses(runs: list[Array], demand: Array) -> dict[str, Any]:
    """The mean over days of each loss: of all runs on average, with its standard deviation over them, and RMSE."""
    table = [{name: loss.mean() for name, loss in daily_losses(run, demand).items()} for run in runs]
    for row in table:
        row["rmse"] = np.sqrt(row.pop("square"))
    result = {name: rounded(np.mean([row[name] for row in table])) for name in table[0]}
    if len(runs) > 1:
        result["spread"] = {name: rounded(np.std([row[name] for row in table], ddof=1)) for name in table[0]}
    return result


def demand_choice(year: Year) -> list[dict[str, Any]]:
    """What was tried on May to July; two seeds for each network."""
    chosen, rows = year.days(CHOICE), []
    truth = year.demand[chosen]

    def log(weather: str, name: str, runs: list[Array]) -> None:
        scores = mean_losses([run[chosen] for run in runs], truth)
        rows.append({"weather": weather, "name": name} | {key: scores[key] for key in ("mape", "rmse", "pinball")})
        print(f"choice  {weather:18s} {name:34s} {scores['mape']:.3f} {scores['pinball']:.5f}", flush=True)

    for label, weather in {"no weather": None, "perfect weather": year.temperature}.items():
        for memory in (None, 120, 60, 30):
            log(label, f"line, memory {memory or 'of all days'}", [linear(year, weather, CHOICE, memory)])
        for ridge in (0.003, 0.03):
            log(label, f"line, ridge {ridge}", [linear(year, weather, CHOICE, ridge=ridge)])
        for leaves, rounds in ((8, 100), (16, 200), (31, 200)):
            name = f"trees, {leaves} leaves, {rounds} rounds"
            log(label, name, [trees(year, weather, CHOICE, leaves, rounds)])
        tried: dict[str, dict[str, Any]] = {
            "as reported": {},
            "no graph": {"spatial": "none"},
            "half the steps": {"steps": STEPS // 2},
            "14 days": {"history": 14},
            "32 channels": {"channels": (32, 32, 32)},
            "on a line that forgets nothing": {"memory": None},
            "without a line": {"skip": False},
        }
        for name, options in tried.items():
            log(label, f"network, {name}", [network(year, weather, CHOICE, s, **options)[0] for s in range(2)])
    return rows


def demand_test(year: Year) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every model on August to December: entries of the leaderboard (MAPE), and all the other scores."""
    test = year.days(TEST)
    truth = year.demand[test]
    entries: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    observed = year.series(year.demand).isel(time=test)
    middle = LEVELS.index(0.5)
    imperfect = year.imperfect()
    ring, none, alone = {"spatial": "gcn"}, {"spatial": "none"}, {"skip": False}
    weathers: dict[str, tuple[Array | None, dict[str, dict[str, Any]]]] = {
        "no weather": (None, {"line + STGCN over the clock": ring, "line + STGCN, no graph": none}),
        "imperfect weather": (imperfect, {"line + STGCN over the clock": ring}),
        "perfect weather": (
            year.temperature,
            {
                "line + STGCN over the clock": ring,
                "line + STGCN, no graph": none,
                "STGCN over the clock, no line": alone,
            },
        ),
    }
    for label, (weather, networks) in weathers.items():
        quantiles: dict[str, tuple[str, list[Array], float, int | None]] = {}
        for name, said in simple(year, TEST).items():
            quantiles[name] = ("simple", [said], 0.0, None)
        for name, memory in (("all days alike", None), ("memory 60 days", MEMORY), ("memory 30 days", 30)):
            began = time.perf_counter()
            lined = linear(year, weather, TEST, memory)
            quantiles[f"line, {name}"] = ("linear", [lined], time.perf_counter() - began, None)
        # The network stands on a line that forgets and is itself trained on all days alike: the mean of two lines
        # has as much of both.
        forgetting, lasting = (quantiles[f"line, {name}"] for name in ("memory 60 days", "all days alike"))
        both = (forgetting[1][0] + lasting[1][0]) / 2
        quantiles["mean of two lines, 60 and all days"] = ("linear", [both], forgetting[2] + lasting[2], None)
        began = time.perf_counter()
        boosted = trees(year, weather, TEST)
        quantiles["line + boosted trees"] = ("trees", [boosted], time.perf_counter() - began, None)
        for name, options in networks.items():
            began = time.perf_counter()
            runs, size = zip(*(network(year, weather, TEST, s, **options) for s in range(SEEDS)), strict=True)
            quantiles[name] = ("network", list(runs), (time.perf_counter() - began) / SEEDS, size[0])
        reference = quantiles["line, memory 60 days"][1][0][test]
        mine: dict[str, Any] = {}
        for name, (kind, every, seconds, size) in quantiles.items():
            runs = [run[test] for run in every]
            said = [year.series(run[..., middle]).isel(time=test) for run in every]
            entries.append(
                verification.entry(
                    f"Victoria demand ({label})", name, said if len(said) > 1 else said[0], observed,
                    year.series(np.where(test[:, None], quantiles["line, memory 60 days"][1][0][..., middle], np.nan))
                    .isel(time=test),
                    lead=1, units="%", seconds=seconds, kind=kind, parameters=size, block_length=WEEK, score="mape",
                )
            )  # fmt: skip
            mine[name] = mean_losses(runs, truth)
            mine[name]["against the line"] = against(runs, reference, truth)
            if len(runs) > 1:
                ensemble = np.mean(runs, axis=0)
                mine[name]["ensemble"] = mean_losses([ensemble], truth)
                mine[name]["ensemble against the line"] = against([ensemble], reference, truth)
            print(f"test  {label:18s} {name:34s} {mine[name]['mape']:.3f} {mine[name]['pinball']:.5f}", flush=True)
        for rival in ("line + boosted trees", "mean of two lines, 60 and all days"):
            ring_runs = [run[test] for run in quantiles["line + STGCN over the clock"][1]]
            table = mine["line + STGCN over the clock"]
            table[f"against {rival}"] = against(ring_runs, quantiles[rival][1][0][test], truth)
            table[f"ensemble against {rival}"] = against(
                [np.mean(ring_runs, axis=0)], quantiles[rival][1][0][test], truth
            )
        if "line + STGCN, no graph" in quantiles:
            ring_runs, bare = ([run[test] for run in quantiles[f"line + STGCN{end}"][1]] for end in
                               (" over the clock", ", no graph"))  # fmt: skip
            mine["line + STGCN over the clock"]["against no graph"] = against(ring_runs, bare, truth)
        details[label] = mine
    return entries, details


def against(runs: list[Array], reference: Array | list[Array], truth: Array) -> dict[str, list[float]]:
    """Loss minus that of the reference, with the 95 % interval of a block bootstrap over days, means over the runs."""
    references = reference if isinstance(reference, list) else [reference]

    def of(some: list[Array]) -> dict[str, Array]:
        losses = [daily_losses(run, truth) for run in some]
        return {name: np.mean([loss[name] for loss in losses], axis=0) for name in losses[0]}

    mine, others = of(runs), of(references)
    table = {}
    for name in ("mape", "pinball", "pinball 75 %", "pinball 90 %", "peak", "peak hours"):
        difference = (mine[name] - others[name])[:, None]
        table[name] = rounded(
            verification.block_bootstrap(lambda m: m[:, 0], difference, block_length=WEEK, of_means=True)
        )
    return table


# ---------------------------------------------------------------------------- wind power


def power_table(wind: xr.DataArray) -> tuple[Array, Array]:
    """Daily mean wind in m/s, and the capacity factor that it gives: the power curve that draws are read from."""
    speed = np.arange(0, 40, 0.05)
    ramp = wind.isel(time=slice(0, speed.size), station=[0]).copy(data=speed[:, None])
    return speed, indices.wind_power(ramp, within_day_spread=WITHIN_DAY).values[:, 0]


def region_draws(mean: Array, spread: Array, correlation: Array, table: tuple[Array, Array], seed: int = 0) -> Array:
    """(draw, day) capacity factor of the region: stations drawn together, each through its power curve, averaged."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(correlation)
    draws = np.empty((DRAWS, len(mean)))
    for draw in draws:
        roots = mean + spread * (rng.standard_normal(mean.shape) @ root.T)
        draw[:] = np.interp(np.maximum(roots, 0) ** 2, *table).mean(axis=1)
    return draws


def wind_methods(root: xr.DataArray) -> dict[str, tuple[str, list[xr.DataArray], xr.DataArray, xr.DataArray, float]]:
    """name -> kind, forecasts of the root of the wind (one for each seed), spread, training errors, seconds."""
    train = root.sel(time=WIND_TRAIN)
    season = baselines.climatology(train, root["time"], 1)
    rest = root - season
    result = {}

    def add(name: str, kind: str, forecasts: list[xr.DataArray], spread: xr.DataArray, seconds: float) -> None:
        errors = (sum(forecasts) / len(forecasts) - root).sel(time=WIND_TRAIN).dropna("time")
        if spread.dims == ("station",):
            spread = spread.expand_dims(time=root["time"]).transpose("time", "station")
        result[name] = (kind, forecasts, spread, errors, seconds)

    add("climatology", "simple", [season], rest.sel(time=WIND_TRAIN).std("time"), 0.0)
    same = season + baselines.persistence(rest)
    add("persistence", "simple", [same], (root - same).sel(time=WIND_TRAIN).std("time"), 0.0)
    began = time.perf_counter()
    var = baselines.fit_var(rest.sel(time=WIND_TRAIN), 3, 0.03)
    add("VAR(3), ridge", "linear", [season + var.forecast(rest)], var.spread(1), time.perf_counter() - began)
    graph = graphs.knn_graph(root["lat"], root["lon"], k=4)
    for name, spatial in (("linear skip + STGCN, compass", "directional"), ("linear skip + STGCN, no graph", "none")):
        began = time.perf_counter()
        fitted = forecasting.fit_forecaster(train, None, graph, spatial=spatial, members=SEEDS)
        seconds = (time.perf_counter() - began) / SEEDS
        said = fitted.distribution(root)
        members = [said["members"].isel(member=m, drop=True) for m in range(SEEDS)]
        add(name, "network", members, said["spread"], seconds)
    return result


def wind_power() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Regional capacity factor, one day ahead: every method with the stations' errors together, and apart."""
    wind = datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"])
    root, table = np.sqrt(wind).assign_attrs(units="sqrt(m/s)"), power_table(wind)
    factor = np.interp(wind.values, *table)
    region = xr.DataArray(factor.mean(axis=1)[:, None], {"time": wind["time"], "station": ["Ireland"]},
                          ("time", "station"), attrs={"units": "1"})  # fmt: skip
    truth = region.sel(time=WIND_TEST)
    observed = truth.values[:, 0]
    entries: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    said: dict[str, tuple[str, list[Array], float]] = {}
    apart: dict[str, Array] = {}
    for name, (kind, forecasts, spread, errors, seconds) in wind_methods(root).items():
        together = np.corrcoef(errors.values.T)
        sigma = spread.sel(time=WIND_TEST).values
        means = [forecast.sel(time=WIND_TEST).values for forecast in forecasts]
        said[name] = (kind, [region_draws(mean, sigma, together, table) for mean in means], seconds)
        apart[name] = region_draws(np.mean(means, axis=0), sigma, np.eye(len(together)), table)
        details[name] = {"correlation": rounded(together[np.triu_indices(len(together), 1)].mean())}
    # The island as one series: its own last three days, and the errors of the training years as they came.
    rest = region - baselines.climatology(region.sel(time=WIND_TRAIN), region["time"], 1)
    own = baselines.fit_ar(rest.sel(time=WIND_TRAIN), 3).forecast(rest) + (region - rest)
    errors = (region - own).sel(time=WIND_TRAIN).dropna("time").values[:, 0]
    chosen = np.quantile(errors, (np.arange(DRAWS) + 0.5) / DRAWS)
    as_one = np.clip(own.sel(time=WIND_TEST).values[:, 0] + chosen[:, None], 0, 1)
    said["AR(3) of the island's mean"] = ("linear", [as_one], 0.0)
    reference = said["VAR(3), ridge"][1][0]

    def series(values: Array) -> xr.DataArray:
        return truth.copy(data=values[:, None])

    for name, (kind, runs, seconds) in said.items():
        forecasts = [series(run.mean(axis=0)) for run in runs]
        entries.append(
            verification.entry(
                "Irish wind power, mean of 12 stations", name, forecasts if len(forecasts) > 1 else forecasts[0], truth,
                series(reference.mean(axis=0)), lead=1, units="capacity factor", seconds=seconds, kind=kind,
            )
        )  # fmt: skip
        row = details.setdefault(name, {})
        row["together"] = interval_scores(runs, observed)
        if name in apart:
            row["apart"] = interval_scores([apart[name]], observed)
        difference = np.mean([crps(run, observed) for run in runs], axis=0) - crps(reference, observed)
        row["crps against VAR"] = rounded(
            verification.block_bootstrap(lambda m: m[:, 0], difference[:, None], block_length=15, of_means=True)
        )
        if name in apart:
            gap = (crps(apart[name], observed) - np.mean([crps(run, observed) for run in runs], axis=0))[:, None]
            row["apart minus together"] = rounded(
                verification.block_bootstrap(lambda m: m[:, 0], gap, block_length=15, of_means=True)
            )
        print(f"wind  {name:34s} {row['together']}", flush=True)
    return entries, details


def crps(draws: Array, observed: Array) -> Array:
    """(day,) continuous ranked probability score of an ensemble (draw, day)."""
    coords = {"time": np.arange(observed.size), "station": ["region"]}
    truth = xr.DataArray(observed[:, None], coords, ("time", "station"))
    members = truth.expand_dims(member=len(draws)).copy(data=draws[:, :, None])
    return verification.crps_ensemble(members, truth, dim=()).values[:, 0]


def interval_scores(runs: list[Array], observed: Array) -> dict[str, Any]:
    """RMSE of the mean, CRPS, share of days inside the 90 % interval and its mean width; means over the runs."""
    rows = []
    for run in runs:
        low, high = np.quantile(run, [0.05, 0.95], axis=0)
        rmse = np.sqrt(((run.mean(axis=0) - observed) ** 2).mean())
        inside = ((observed >= low) & (observed <= high)).mean()
        rows.append((rmse, crps(run, observed).mean(), inside, (high - low).mean()))
    return dict(zip(("rmse", "crps", "inside", "width"), rounded(np.mean(rows, axis=0)), strict=True))


# ---------------------------------------------------------------------------- all


def rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=float), 5).tolist()


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    year = Year()
    results: dict[str, Any] = {
        "seeds": SEEDS, "levels": LEVELS, "memory": MEMORY, "ridge": RIDGE, "test_days": int(year.days(TEST).sum()),
        "within_day": WITHIN_DAY, "weather_error": ERROR,
    }  # fmt: skip
    parts: dict[str, Callable[[], tuple[list[dict[str, Any]], dict[str, Any]]]] = {
        "wind": wind_power,
        "demand": lambda: demand_test(year),
    }
    results["choice"] = demand_choice(year)
    entries: list[dict[str, Any]] = []
    for name, part in parts.items():
        lines, results[name] = part()
        entries = lines + entries
    results["entries"] = entries
    results["seconds"] = round(time.perf_counter() - began)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
