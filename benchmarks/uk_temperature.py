"""Hourly temperature over the United Kingdom, 1 to 24 hours ahead: `python benchmarks/uk_temperature.py`.

ERA5 of March 2019, 1617 cells. Every method sees departures from one climatology, the mean and two harmonics of the
day at each cell, of the training days alone. Everything is fitted to 1-22 March and judged on all hours of 23-31
March. Settings were chosen by holding out four or five days of 1-22 March at a time; `--held-out` does so with the
last five and writes nothing. What is compared with "the strongest linear model" meets, at each lead time, the one
that did best on the test days themselves: nobody could have known which that is, and no rival is harder to beat.
Nine days of a month are few: the intervals, from blocks of a day, speak of such days and not of other weather.

The neighbours of a cell are means over patches in eight directions: of 1, 3 x 3 and 9 x 9 cells, each ring of patches
around the one before. A linear model and a network get the same patches. Seconds are those of one core's work.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PyTorch are loaded

import argparse
import json
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from stgcn_lab import datasets, graphs, models, training, verification
from stgcn_lab.windows import Batch

SEEDS = range(5)
LEADS = 24  # hours
SHOWN = (1, 2, 3, 6, 9, 12, 18, 24)  # leads with intervals
ENTERED = (1, 6, 12, 24)  # leads on the leaderboard
LAGS = 3  # hours that every linear model looks back on
RIDGE = 1e-5  # of the variance of each feature
RINGS = (1, 3, 9)
HISTORY, STRETCH = 3, 8  # hours that a network sees; forecasts that one pass gives
WIDTHS = (16, 8, 16)
NO_GRAPH, MEAN, NEAREST, THREE = "no neighbours", "mean of 8", "8 directions", "8 directions, 3 rings"
SHUFFLED = "8 directions, 3 rings, shuffled"
CHOSEN = "VAR of 3 EOFs and linear, 8 directions, 3 rings"  # best on the days held out
STRONGEST = "the strongest linear model"
EPOCHS, RATE = 8, 1e-2


def anomalies(series, train):
    """Series (time, station) minus the day's usual course, fitted to the training times; and that course."""
    angle = 2 * np.pi * series["time"].dt.hour.values[:, None] / 24 * np.array([1, 2])
    design = np.concatenate([np.ones((len(angle), 1)), np.cos(angle), np.sin(angle)], axis=1)
    usual = design @ np.linalg.lstsq(design[:train], series.values[:train], rcond=None)[0]
    return (series.values - usual).astype(np.float32), usual


def patches(rows, columns, rings, shuffle=False):
    """Sparse operators (N, N): row i holds the mean over a patch in one direction of cell i, the edge repeated."""
    number = np.arange(rows * columns).reshape(rows, columns)

    def shift(down, right):
        row = np.clip(np.arange(rows) + down, 0, rows - 1)
        column = np.clip(np.arange(columns) + right, 0, columns - 1)
        return sp.identity(number.size, format="csr")[number[row][:, column].ravel()]

    around = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    found = []
    for width in rings:
        third = width // 3  # nine points stand for the patch
        mean = sum(shift(down * third, right * third) for down, right in around) / 9
        found += [sp.csr_matrix(shift(width * d, width * r) @ mean) for d, r in around if (d, r) != (0, 0)]
    if shuffle:  # as many neighbours, in the wrong places
        order = np.random.default_rng(0).permutation(number.size)
        found = [matrix[order][:, order] for matrix in found]
    return found


def neighbourhoods(grid):
    rows, columns = grid.sizes["lat"], grid.sizes["lon"]
    mean = graphs.adjacency(graphs.grid_graph(grid["lat"].values, grid["lon"].values, weight="binary"))
    return {
        NO_GRAPH: [],
        MEAN: [sp.csr_matrix(sp.diags(1 / np.asarray(mean.sum(axis=1)).ravel()) @ mean)],
        NEAREST: patches(rows, columns, RINGS[:1]),
        THREE: patches(rows, columns, RINGS),
        SHUFFLED: patches(rows, columns, RINGS, shuffle=True),
    }


# ---- simple and linear methods: forecasts (origin, station, lead), fitted to origins whose 24 hours are in training


def truth_ahead(x):
    """(origin, station, lead): what comes; NaN behind the end."""
    padded = np.concatenate([x, np.full((LEADS, x.shape[1]), np.nan, x.dtype)])
    return np.stack([padded[lead : lead + len(x)] for lead in range(1, LEADS + 1)], axis=-1)


def lagged(fields):
    """(time, station, LAGS x fields) of fields (time, station, fields); the first times repeat the edge."""
    first = np.repeat(fields[:1], LAGS - 1, axis=0)
    padded = np.concatenate([first, fields])
    return np.concatenate([padded[LAGS - 1 - lag : len(padded) - lag] for lag in range(LAGS)], axis=-1)


def damped(x, y, train):
    """Least squares on the value now, for each cell and lead time alone."""
    now, then = x[LAGS - 1 : train - LEADS], y[LAGS - 1 : train - LEADS]
    slope = np.einsum("tn,tnl->nl", now, then) / np.einsum("tn,tn->n", now, now)[:, None]
    return x[..., None] * slope


def autoregression(x, y, train):
    """Each cell from its own last hours, with its own coefficients."""
    features = lagged(x[..., None])
    past, then = features[LAGS - 1 : train - LEADS], y[LAGS - 1 : train - LEADS]
    gram = np.einsum("tni,tnj->nij", past, past).astype(float)
    slopes = np.linalg.solve(gram, np.einsum("tni,tnl->nil", past, then).astype(float))
    return np.einsum("tni,nil->tnl", features, slopes.astype(np.float32))


def eof_var(x, y, train, modes):
    """Leading patterns by a vector autoregression for each lead time; also what these patterns leave over."""
    mean = x[:train].mean(axis=0)
    patterns = np.linalg.svd(x[:train] - mean, full_matrices=False)[2][:modes]
    scores = (x - mean) @ patterns.T
    design = np.concatenate([lagged(scores[:, None])[:, 0], np.ones((len(x), 1), x.dtype)], axis=1)
    rows = slice(LAGS - 1, train - LEADS)
    ahead = truth_ahead(scores)  # (origin, mode, lead)
    beta = np.linalg.lstsq(design[rows], ahead[rows].reshape(train - LEADS - LAGS + 1, -1), rcond=None)[0]
    said = (design @ beta).reshape(len(x), modes, LEADS)
    large = np.einsum("tml,mn->tnl", said, patterns) + mean[:, None]
    return large, x - mean - scores @ patterns


def shared(x, y, train, operators):
    """One set of weights for all cells: the last hours of the cell and of the patches around it."""
    features = lagged(np.stack([x, *(x @ matrix.T for matrix in operators)], axis=-1).astype(np.float32))
    size = features.shape[-1]
    gram, moment = np.zeros((size, size)), np.zeros((size, LEADS))
    for t in range(LAGS - 1, train - LEADS):
        rows = features[t].astype(float)
        gram += rows.T @ rows
        moment += rows.T @ y[t]
    slopes = np.linalg.solve(gram + RIDGE * np.diag(np.diag(gram)), moment).astype(np.float32)
    return features @ slopes, slopes


def directions(x, y, operators, train):
    """Why the graph fails in other weather: the weight of each direction, all lags added up, from either period."""
    names = ("south-west", "south", "south-east", "west", "east", "north-west", "north", "north-east")
    found = {}
    for period, rows in (("1-22 March", slice(0, train)), ("23-31 March, in hindsight", slice(train, None))):
        *_, slopes = shared(x[rows], y[rows], len(x[rows]), operators)
        totals = slopes[:, 0].reshape(LAGS, -1).sum(axis=0)
        found[period] = dict(zip(("itself", *names), totals, strict=True))
    return found


# ---- networks


class Stretches:
    """Stretches of the training hours, each for several forecasts at once, as `training.fit` takes them."""

    def __init__(self, inputs, targets, last):
        self.inputs, self.targets, self.last = inputs, targets, last  # the last origin

    def batches(self, batch_size, generator):
        offset = int(torch.randint(STRETCH, (1,), generator=generator))
        starts = torch.arange(offset, self.last - HISTORY - STRETCH + 2, STRETCH)
        for start in starts[torch.randperm(len(starts), generator=generator)].tolist():
            x = self.inputs[None, start : start + HISTORY + STRETCH - 1]
            y = self.targets[None, start + HISTORY - 1 : start + HISTORY + STRETCH - 1]
            yield Batch(x, y, torch.ones_like(x, dtype=torch.bool), torch.ones_like(y, dtype=torch.bool))


class OnStretches(torch.nn.Module):
    """A network that is trained on all forecasts of a stretch, (B, S, lead, N, 1)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, operator):
        return self.network.forecast_series(x, operator)


def network(x, usual, y, skip, train, matrices, hours, seed):
    """An STGCN learns what a simpler forecast leaves over; forecasts (origin, station, lead), its size and seconds."""
    began = time.process_time()
    scale, change = x[:train].std(), np.diff(x, axis=0, prepend=x[:1])
    # The difference to the neighbours, not their mean: they are so alike that the news is in what differs.
    identity = sp.identity(x.shape[1], format="csr")
    differences = [matrix - identity for matrix in matrices]
    operators = tuple(graphs.to_operator(d * (scale / (x[:train] @ d.T).std())) for d in differences)
    operator = operators[0] if len(operators) == 1 else operators or None
    course = np.ptp(usual[:24], axis=0)  # large on land, small at sea
    angle = 2 * np.pi * hours / 24
    fields = [x / scale, change / change[:train].std(), np.cos(angle)[:, None], np.sin(angle)[:, None]]
    fields += [((course - course.mean()) / course.std())[None]]
    inputs = torch.from_numpy(np.stack([np.broadcast_to(f, x.shape) for f in fields], -1).astype(np.float32))
    left = y - skip
    error = np.sqrt(np.square(left[LAGS - 1 : train - LEADS]).mean(axis=(0, 1)))  # (lead,)
    targets = torch.from_numpy((left / error).astype(np.float32)).movedim(-1, 1)[..., None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spatial = {0: "none", 1: "gcn"}.get(len(matrices), "directional")
        inner = models.STGCN(
            len(fields), 1, HISTORY, LEADS, WIDTHS, 1, 2, spatial, order=len(matrices) or None, norm=False
        )
    for parameter in inner.out.parameters():  # it begins as the skip
        torch.nn.init.zeros_(parameter)
    model = OnStretches(inner)
    parts = Stretches(inputs, targets, train - LEADS - 1)
    options = {"operator": operator, "epochs": EPOCHS, "batch_size": 1, "learning_rate": RATE, "seed": seed}
    training.fit(model, parts, None, **options, progress=False)
    seconds = time.process_time() - began
    with torch.no_grad():
        said = inner.forecast_series(inputs[None], operator)[0, ..., 0]  # (origin, lead, N)
    forecast = skip.copy()
    forecast[HISTORY - 1 :] += said.movedim(1, -1).numpy() * error
    return forecast, sum(p.numel() for p in inner.parameters()), seconds


# ---- scores


def at_valid_times(forecast, first, last):
    """(lead, valid time, station) of the hours first ... last - 1."""
    leads = range(1, LEADS + 1)
    return np.stack([forecast[first - lead : last - lead, :, lead - 1] for lead in leads]).astype(np.float64)


def skill(runs, reference, observed, weights):
    """One minus the score of runs (run, time, station), their mean, over that of the reference, with its interval."""
    squares = np.square(runs - observed.values).swapaxes(0, 1)

    def relative(mine, other):
        return 1 - (np.sqrt(mine) @ weights).mean(axis=1) / (np.sqrt(other) @ weights)

    other = np.square(reference - observed.values)
    found = verification.block_bootstrap(relative, squares, other, block_length=24, of_means=True)
    return {key: round(value, 4) for key, value in found._asdict().items()}


def judge(name, kind, runs, known, strongest, observed, weights, seconds, parameters):
    """Curves over the lead time of one model, runs (run, lead, time, station), and its lines for the leaderboard."""
    field = [[observed.copy(data=values) for values in run] for run in runs]
    scores = np.array([[verification.mean_score(f, observed, weights=weights) for f in run] for run in field])
    result = {"kind": kind, "rmse": scores.mean(axis=0), "seconds": seconds, "parameters": parameters}
    mean = np.mean(runs, axis=0)
    if len(runs) > 1:
        whole = [observed.copy(data=values) for values in mean]
        result["spread"] = scores.std(axis=0, ddof=1)
        result["ensemble"] = np.array([verification.mean_score(f, observed, weights=weights) for f in whole])
    for other in known:
        found = {"leads": list(SHOWN)}
        for key, group in {"single": runs, "ensemble": mean[None]}.items():
            if key == "single" or len(runs) > 1:
                found[key] = [skill(group[:, h - 1], known[other][h - 1], observed, weights.values) for h in SHOWN]
        if name != other:
            result[f"skill over {other}"] = found
    entries = [
        verification.entry(
            "ERA5 temperature, United Kingdom, hourly", name, [run[lead - 1] for run in field], observed,
            None if name == strongest[lead - 1] else observed.copy(data=known[STRONGEST][lead - 1]),
            lead=lead, units="degC", seconds=seconds, parameters=parameters, kind=kind, block_length=24,
        )
        for lead in ENTERED
    ]  # fmt: skip
    shown = " ".join(f"{lead}: {scores[:, lead - 1].mean():.4f}" for lead in SHOWN)
    ensemble = f" | ensemble +6 h: {result['ensemble'][5]:.4f}" if len(runs) > 1 else ""
    print(f"{name:58s} {seconds:6.1f} s  {shown}{ensemble}", flush=True)
    return result, entries


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-out", action="store_true", help="judge on 18-22 March, after 1-17 March; write nothing")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        grid = datasets.load_era5_uk()
    except (ImportError, OSError, ValueError) as error:
        print(f"skipped, the results of last time stay: {error}")
        raise SystemExit(75) from None  # the Makefile goes on with the next benchmark
    series = datasets.grid_to_nodes(grid["air_temperature"])
    train, last = (17 * 24, 22 * 24) if arguments.held_out else (22 * 24, len(series))
    observed, weights = series[train:last], verification.area_weights(series)
    x, usual = anomalies(series, train)
    y, hours, near = truth_ahead(x), series["time"].dt.hour.values, neighbourhoods(grid)
    cells = x.shape[1]
    course = np.stack([usual[train:last]] * LEADS)
    known, results, entries, simple = {}, {}, [], []

    def valid(run):
        return at_valid_times(run, train, last) + course

    def add(name, kind, runs, seconds, parameters=None):
        results[name], lines = judge(name, kind, runs, known, strongest, observed, weights, seconds, parameters)
        entries.extend(lines)

    def wait(name, kind, run, seconds, parameters=None):  # until it is known which is the strongest
        simple.append((name, kind, valid(run)[None], seconds, parameters))

    def timed(method, *args):
        start = time.process_time()
        return method(*args), time.process_time() - start

    now = np.repeat(x[..., None], LEADS, axis=-1)
    wait("climatology of the hour", "simple", np.zeros_like(now), 0, 5 * cells)
    wait("persistence", "simple", now, 0)
    wait("the value of 24 hours before", "simple", np.stack([np.roll(x, 24 - h, axis=0) for h in range(1, 25)], -1), 0)
    said, seconds = timed(damped, x, y, train)
    wait("damped persistence", "simple", said, seconds, LEADS * cells)
    said, seconds = timed(autoregression, x, y, train)
    wait("autoregression of each cell", "linear", said, seconds, LEADS * LAGS * cells)
    (large, left), seconds = timed(eof_var, x, y, train, 4)
    wait("VAR of 4 EOFs", "linear", large + damped(left, truth_ahead(left), train), seconds)
    for name, matrices in near.items():
        (said, _), seconds = timed(shared, x, y, train, matrices)
        wait(f"linear, {name}", "linear", said, seconds, LEADS * LAGS * (1 + len(matrices)))
    (large, left), first = timed(eof_var, x, y, train, 3)
    (said, _), second = timed(shared, left, y - large, train, near[THREE])
    chosen = large + said
    wait(CHOSEN, "linear", chosen, first + second)
    strongest, fields = [], []
    for lead in range(LEADS):
        linear = {
            name: (verification.mean_score(observed.copy(data=runs[0, lead]), observed), runs[0, lead])
            for name, kind, runs, *_ in simple
            if kind == "linear"
        }
        strongest.append(min(linear, key=lambda name: linear[name][0]))
        fields.append(linear[strongest[-1]][1])
    known |= {"persistence": simple[1][2][0], STRONGEST: np.stack(fields)}
    for line in simple:
        add(*line)
    for name, skip, graph in (
        *((f"STGCN from persistence, {graph}", now, graph) for graph in near),
        *((f"STGCN from the chosen linear, {graph}", chosen, graph) for graph in (NO_GRAPH, NEAREST, THREE)),
    ):
        runs, seconds = [], []
        for seed in range(arguments.seeds):
            said, parameters, spent = network(x, usual, y, skip, train, near[graph], hours, seed)
            runs.append(valid(said))
            seconds.append(spent)
        add(name, "network", np.stack(runs), float(np.mean(seconds)), parameters)
    if arguments.held_out:
        return
    result = {
        "data": "ERA5 temperature at 2 m, hourly, March 2019, 33 x 49 cells; 1-22 March for fitting, 23-31 for tests",
        "credit": grid.attrs["license"],
        "score": "mean over cells, by area, of each cell's RMSE in degC; leads 1 to 24 h; mean of the seeds' scores",
        "chosen": CHOSEN,
        "strongest linear by lead": strongest,
        "weights of the directions, +1 h": directions(x, y, near[NEAREST], train),
        "seeds": list(SEEDS),
        "models": results,
        "entries": entries,
        "seconds": round(time.perf_counter() - began),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(rounded(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {result['seconds']} s")


def rounded(value):
    if isinstance(value, dict):
        return {key: item if key == "entries" else rounded(item) for key, item in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [rounded(item) for item in value]
    return round(float(value), 4) if isinstance(value, (float, np.floating)) else value


if __name__ == "__main__":
    main()
