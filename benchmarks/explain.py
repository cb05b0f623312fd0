"""Explanations against what was planted, and how stable they are on real weather: writes benchmarks/explain.json.

    python benchmarks/explain.py [--cache FOLDER]

Made-up worlds whose truth is known: a steady wind (is its direction found?), delayed influences (are the edges and
delays found?), travelling regimes and a wind that turns (does the influence turn with them?); and the network that
forecasts Irish wind, whose truth nobody knows: there the explanations are held against each other, between methods,
between five seeds, and against networks with redrawn weights, which agree in what needs no knowledge. Beside every
network stands the simplest method that answers the same question: the coefficients of a vector autoregression, and
lagged correlation. Nothing is chosen by looking at the truth. With a cache an interrupted run goes on.
"""

import argparse
import json
import os
import time
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import xarray as xr
from sklearn.metrics import adjusted_rand_score
from torch import nn

from stgcn_lab import baselines, datasets, explain, forecasting, graphs, models, regimes, simulate, training, windows

SEEDS = 5
METHODS = {
    "integrated gradients": "integrated_gradients",
    "gradient x input": "gradient_input",
    "occlusion": "occlusion",
}
SLOPE = {"gradient": "gradient"}
NODES, TRAIN, VALIDATION, NOISE = 30, 900, 300, (0.0, 0.5)
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
RIDGES = (0.0, 0.01, 0.03, 0.1)
DELAYED = {"num_nodes": 12, "num_steps": 7000, "sources": 2, "longest": 4, "strength": 0.5}
KNOWN = 6000  # steps of the delayed influences that are trained on; the rest decides when to stop
IRISH_TRAIN, IRISH_TEST = slice("1961", "1970"), slice("1971", "1978")


class Dense(nn.Module):
    """Every station from every input through one hidden layer: room for a weight of each edge at each lag."""

    def __init__(self, nodes, history, hidden=128):
        super().__init__()
        self.inner, self.out = nn.Linear(nodes * history, hidden), nn.Linear(hidden, nodes)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, operator=None):
        return self.out(self.dropout(torch.relu(self.inner(x.flatten(1)))))[:, None, :, None]


def trained(model, series, known, history, operator=None, **options):
    """Fit on the first steps, stop on the others; the error there, its windows, all that is explained."""
    parts = (series.isel(time=slice(known)), series.isel(time=slice(known, None)))
    train, judge = (windows.WindowDataset(p.to_dataset(name="v"), "v", "v", history, 1) for p in parts)
    settings = {"epochs": 12, "batch_size": 16, "learning_rate": 1e-2, "patience": 6} | options
    history = training.fit(model, train, judge, operator=operator, progress=False, **settings)
    return min(history.validation_loss), judge


def linear(series, known, order):
    """A vector autoregression, its penalty chosen on the validation steps: the model and its error there."""
    train, judge = series[:known], series[known:]
    tried = [baselines.fit_var(train, order, ridge) for ridge in RIDGES]
    errors = [float(((model.forecast(judge) - judge) ** 2).mean()) for model in tried]
    best = int(np.argmin(errors))
    return tried[best], errors[best]


def named(values, stations, dims=("target", "source")):
    return xr.DataArray(values, dims=dims, coords={"target": stations, "source": stations})


# ---------------------------------------------------------------------------- a steady wind


def wind_runs(seed):
    """All fields of one seed: where each method says that the wind comes from, and the errors of the networks."""
    rows = []
    for turn in (0, 1):
        direction = float((40 + 72 * seed + 180 * turn) % 360)  # ten winds all round the compass
        field, truth = simulate.advected_field(NODES, TRAIN + VALIDATION, 100 * turn + seed, direction=direction)
        stations, lat, lon = (field[name].values for name in ("station", "lat", "lon"))
        graph = graphs.knn_graph(lat, lon, k=6)
        exact = explain.origin(named(truth.carry[direction], stations), lat, lon)

        def say(noise, network, method, of, influence, error, lat=lat, lon=lon, direction=direction, exact=exact):
            found = explain.origin(influence, lat, lon)
            angle = float(explain.angle_error(found["bearing"], (270 - direction) % 360))
            ratio = float(found["distance"] / exact["distance"])
            rows.append(
                {"noise": noise, "network": network, "method": method, "of": of, "angle": angle, "ratio": ratio}
                | {"distance": float(found["distance"]), "error": error}
            )

        say(0.0, "none", "truth", "weight", named(truth.carry[direction], stations), None)
        for noise in NOISE:
            rng = np.random.default_rng(1000 + seed)
            series = field + noise * rng.standard_normal(field.shape)
            var, of_linear = linear(series, TRAIN, 2)
            for of, change in (("weight", lambda v: v), ("size", abs)):
                say(noise, "none", "VAR", of, change(explain.of_var(var)), 1.0)
                say(
                    noise, "none", "lagged correlation", of, change(explain.lagged_correlation(series[:TRAIN], 2)), None
                )
            for network in ("mesh step", "STGCN, compass", "STGCN, learned graph"):
                if (noise or turn) and network != "mesh step":
                    continue
                torch.manual_seed(seed)
                if network == "mesh step":
                    model, operator = models.MeshStep(1, history=2), models.mesh_edges(graph)
                else:
                    learned = network.endswith("learned graph")
                    operator = None if learned else graphs.directional_operators(graph, 4)
                    model = models.STGCN(
                        1, 1, 4, 1, (16, 8, 16), 1, 2, "adaptive" if learned else "directional", norm=False,
                        num_nodes=NODES if learned else None,
                    )  # fmt: skip
                rate = 1e-2 if network == "mesh step" else 5e-3
                error, judge = trained(model, series, TRAIN, model.history, operator, seed=seed, learning_rate=rate)
                x = judge.batch(range(0, len(judge), 15)).x
                for method, key in METHODS.items():
                    found = explain.influence(model, x, operator, method=key, steps=8, stations=stations)
                    for of in ("weight", "size"):
                        say(noise, network, method, of, found[of], error / of_linear)
                if network.endswith("learned graph"):
                    adjacency = explain.learned_adjacency(model, stations)
                    say(noise, network, "learned adjacency", "size", adjacency, error / of_linear)
                if network == "mesh step":
                    nothing = explain.randomised(model, seed)
                    found = explain.influence(nothing, x, operator, method="gradient_input", stations=stations)
                    for of in ("weight", "size"):
                        say(noise, network, "randomised", of, found[of], None)
                if network == "mesh step" and noise == 0 and turn == 0:
                    checks = {"sanity": sanity(model, x[:10], operator, [3, 12, 20])}
                    checks["deletion"] = deletions(model, x, operator, [3, 12, 20])
    return {"rows": rows, **checks}


def sanity(model, x, operator, targets):
    """(method -> signed and size, each (layer, draw))"""
    out = {"layers": ["trained", *(name or "linear part" for name in explain.weight_layers(model))]}
    for method, key in (METHODS | SLOPE).items():
        found = explain.sanity_check(model, x, operator, targets=targets, method=key, steps=8, seeds=2)
        out[method] = {of: found[of].values.tolist() for of in ("signed", "size")}
    return out


def deletions(model, x, operator, targets):
    """(method -> important, random, least), as shares of the change when everything is taken away."""
    out = {}
    for method, key in METHODS.items():
        curves = []
        for station in targets:
            a = explain.attribute(model, x, operator, station=station, method=key, steps=16)
            found = explain.deletion(model, x, a, operator, station=station, shares=SHARES)
            curves.append(found / float(found["random"][-1]))
        mean = xr.concat(curves, dim="curve").mean("curve")
        out[method] = {name: mean[name].values.tolist() for name in mean.data_vars}
    return out


def wind_table(runs):
    """Runs of all seeds -> one row for each noise, network, method and kind of influence."""
    rows = [run["rows"] for run in runs]
    keys = dict.fromkeys((r["noise"], r["network"], r["method"], r["of"]) for r in rows[0])
    table, errors = [], {}
    for noise, network, method, of in keys:
        mine = [[r for r in seed if (r["noise"], r["network"], r["method"], r["of"]) == (noise, network, method, of)]
                for seed in rows]  # fmt: skip
        angle, ratio = (np.array([[r[key] for r in seed] for seed in mine]) for key in ("angle", "ratio"))
        # how far the arrow found ends from the true one, in lengths of the true one: 1 for an arrow of no length
        miss = np.sqrt(1 + ratio**2 - 2 * ratio * np.cos(np.radians(angle)))
        table.append(
            {"noise": noise, "network": network, "method": method, "of": of, "angle": angle.ravel().tolist()}
            | {"angle_mean": angle.mean(), "angle_spread": angle.mean(1).std(ddof=1), "within_20": (angle < 20).mean()}
            | {"ratio": ratio.mean(), "miss": miss.mean(), "miss_spread": miss.mean(1).std(ddof=1)}
        )
        if mine[0][0]["error"] is not None and network != "none":
            errors.setdefault(network, {})[str(noise)] = np.mean([[r["error"] for r in seed] for seed in mine])
    true = [r["distance"] for seed in rows for r in seed if r["method"] == "truth"]
    winds = [(40 + 72 * seed + 180 * turn) % 360 for seed in range(SEEDS) for turn in (0, 1)]
    return {"winds": winds, "noise": list(NOISE), "truth_distance": np.mean(true), "rows": table, "error": errors}


def checks_table(runs):
    """Mean and spread over the networks (and redraws) of sanity checks and deletion curves."""
    methods = [key for key in runs[0]["sanity"] if key != "layers"]
    stacked = {m: {of: np.concatenate([np.array(run["sanity"][m][of]) for run in runs], axis=1)
                   for of in ("signed", "size")} for m in methods}  # fmt: skip
    check = {
        m: {of: values.mean(1).tolist() for of, values in both.items()}
        # a last layer of the other sign turns the whole explanation over, which is no new one
        | {"turned": np.abs(both["signed"]).mean(1).tolist(), "spread": both["signed"].std(1, ddof=1).tolist()}
        for m, both in stacked.items()
    }
    curves = {
        m: {name: np.mean([run["deletion"][m][name] for run in runs], axis=0).tolist() for name in curve}
        for m, curve in runs[0]["deletion"].items()
    }
    return {"layers": runs[0]["sanity"]["layers"], "methods": check}, {"shares": list(SHARES), "methods": curves}


# ---------------------------------------------------------------------------- delayed influence


def delay_runs(seed):
    rows = []
    for kind in ("linear", "magnitude"):
        series, truth = simulate.delayed_influence(seed=seed, kind=kind, **DELAYED)
        stations, history = series["station"].values, DELAYED["longest"]

        def say(network, method, influence, error, kind=kind, truth=truth):
            found = explain.edge_recovery(influence, truth["delay"])
            rows.append({"kind": kind, "network": network, "method": method, "error": error} | found)

        var, of_linear = linear(series, KNOWN, history)
        say("none", "VAR", explain.of_var(var), 1.0)
        say("none", "lagged correlation", explain.lagged_correlation(series[:KNOWN], history), None)
        for network in ("dense", "STGCN, learned graph"):
            if kind == "magnitude" and network != "dense":
                continue
            torch.manual_seed(seed)
            if network == "dense":
                model = Dense(len(stations), history)
                options = {"epochs": 25, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.1}
            else:
                model = models.STGCN(
                    1, 1, history, 1, (16, 16, 16), 1, 2, "adaptive", norm=False, num_nodes=len(stations)
                )
                options = {"epochs": 4, "batch_size": 32}
            error, judge = trained(model, series, KNOWN, history, seed=seed, **options)
            x = judge.batch(range(0, len(judge), 10)).x
            for method, key in METHODS.items():
                found = explain.influence(model, x, method=key, steps=8, stations=stations)
                say(network, method, found["size"], error / of_linear)
            if network != "dense":
                say(network, "learned adjacency", explain.learned_adjacency(model, stations), error / of_linear)
            else:
                nothing = explain.randomised(model, seed)
                found = explain.influence(nothing, x, method="gradient_input", stations=stations)
                say(network, "randomised", found["size"], None)
    return {"rows": rows}


def delay_table(runs):
    table, errors = [], {}
    for row, *others in zip(*(run["rows"] for run in runs), strict=True):
        line = {key: row[key] for key in ("kind", "network", "method")}
        for score in ("auc", "precision", "delays"):
            values = [one.get(score) for one in (row, *others)]
            line[score] = None if values[0] is None else values
            line[f"{score}_mean"] = None if values[0] is None else np.mean(values)
        table.append(line)
        if row["error"] is not None and row["network"] != "none":
            errors.setdefault(row["kind"], {})[row["network"]] = np.mean([one["error"] for one in (row, *others)])
    return {"rows": table, "chance": runs[0]["rows"][0]["chance"], "error": errors}


# ---------------------------------------------------------------------------- regimes


def upstream(influence, lat, lon):
    """(regime,) bearing from which the influence comes: the sectors' weights added as arrows, over all lags."""
    sectors = explain.by_sector(influence, lat, lon, sectors=8).mean("target").sum("lag")
    return arrow(sectors.isel(sector=slice(1, None)).values)


def arrow(sectors):
    theta = 2 * np.pi * np.arange(sectors.shape[-1]) / sectors.shape[-1]
    return np.degrees(np.arctan2((sectors * np.sin(theta)).sum(-1), (sectors * np.cos(theta)).sum(-1))) % 360


def regime_runs(seed):
    """Waves that travel in four directions: does the influence in each regime come from upstream?"""
    kinds, history = 4, 3
    series, truth = simulate.travelling_regimes(25, 3000, kinds, seed, signal=3.0)
    lat, lon = series["lat"].values, series["lon"].values
    graph = graphs.knn_graph(lat, lon, k=6)
    true = (270 - 360 * np.arange(kinds) / kinds) % 360
    found = regimes.discover_regimes(series, graph, kinds, seed, history=2, check=False, restarts=3)
    both = found.labels.values * kinds + truth.values
    overlap = np.bincount(both, minlength=kinds**2).reshape(kinds, kinds)  # (found, planted) steps
    match = overlap.argmax(1)  # the planted regime that each found one is mostly made of
    weights = found.weights.isel(source=slice(1, None))
    torch.manual_seed(seed)
    edges = models.mesh_edges(graph)
    model = models.MeshStep(1, history=history)
    _, _ = trained(model, series, 2400, history, edges, seed=seed, epochs=10, batch_size=32)
    every = windows.WindowDataset(series.to_dataset(name="v"), "v", "v", history, 1)
    chosen = torch.arange(0, len(every), 10)
    last = every.starts[chosen].numpy() + history - 1
    x, out = every.batch(chosen).x, {}
    for name, probabilities, of in (
        ("network, planted regimes", np.eye(kinds)[truth.values[last]], np.arange(kinds)),
        ("network, regimes found", found.probabilities.values[last], match),
    ):
        seen = explain.by_regime(model, x, probabilities, edges, method="gradient_input")["weight"]
        for lags, part in ((", lag 1", seen.sel(lag=[1])), (", all lags", seen)):
            out[name + lags] = explain.angle_error(upstream(part, lat, lon), true[of]).tolist()
    # Two lags share the work between them: one alone may say the opposite of what both say together.
    for lags, part in ((", lag 1", weights.sel(lag=1)), (", all lags", weights.sum("lag"))):
        out["experts of the regimes" + lags] = explain.angle_error(arrow(part.values), true[match]).tolist()
    return {"angle": out, "ari": adjusted_rand_score(truth.values, found.labels.values)}


def regime_table(runs):
    rows = []
    for source in runs[0]["angle"]:
        angle = np.array([run["angle"][source] for run in runs])
        rows.append(
            {"source": source, "angle": angle.ravel().tolist(), "angle_mean": angle.mean()}
            | {"within_45": (angle < 45).mean()}
        )
    return {"rows": rows, "ari": [run["ari"] for run in runs]}


def turning_runs(seed):
    """A wind that turns: does the influence turn with it? A network that is told the wind, and a line a quarter."""
    sky, truth = simulate.advected_field(25, 2000, seed, turn=25)
    lat, lon = sky["lat"].values, sky["lon"].values
    towards = np.deg2rad(truth.wind) * xr.ones_like(sky)
    world = xr.Dataset({"value": sky, "east": np.cos(towards), "north": np.sin(towards)})
    train, judge = (
        windows.WindowDataset(world.isel(time=part), list(world), ["value"], 1, 1)
        for part in (slice(1500), slice(1500, None))
    )
    edges = models.mesh_edges(graphs.knn_graph(lat, lon, k=6))
    torch.manual_seed(seed)
    model = models.MeshStep(3, 1)
    options = {"epochs": 30, "patience": 30, "batch_size": 16, "learning_rate": 1e-2, "seed": seed}
    record = training.fit(model, train, judge, operator=edges, progress=False, **options)
    var = baselines.fit_var(sky[:1500], 1, 0.03)
    of_linear, best = (float(((m.forecast(sky) - sky)[1501:] ** 2).mean()) for m in (var, truth))
    blowing = truth.wind.values[1500:-1:2]
    then, now = (((270 - wind) % 360 + 45) // 90 % 4 for wind in (truth.wind.values[:1499], blowing))
    x = judge.batch(range(0, len(judge), 2)).x
    seen = explain.by_regime(model, x, now.astype(int), edges, method="gradient_input")["weight"][:, :, 0, :, 0]
    angle = {"network": [], "line of each quarter": []}
    for q in range(4):
        row = np.flatnonzero(then == q)
        past, after = sky.values[row], sky.values[row + 1]
        ridge = 0.03 * len(row) * np.diag(past.var(axis=0))
        line = np.linalg.solve(past.T @ past + ridge, past.T @ after).T
        # each is held against the winds of its own days
        for name, matrix, winds in (
            ("network", seen[q].values, blowing[now == q]),
            ("line of each quarter", line, truth.wind.values[row]),
        ):
            true = np.mean([truth.carry[float(wind)] for wind in winds], axis=0)
            found, exact = (explain.origin(named(m, np.arange(len(lat))), lat, lon)["bearing"] for m in (matrix, true))
            angle[name].append(float(explain.angle_error(found, exact)))
    return {"angle": angle, "error": min(record.validation_loss) / of_linear, "best": best / of_linear}


def turning_table(runs):
    rows = []
    for source in runs[0]["angle"]:
        angle = np.array([run["angle"][source] for run in runs]).mean(1)
        rows.append({"source": source, "angle": angle.tolist(), "angle_mean": angle.mean()})
        rows[-1]["angle_spread"] = angle.std(ddof=1)
    return {"rows": rows, "error": [run["error"] for run in runs], "best": [run["best"] for run in runs]}


# ---------------------------------------------------------------------------- Irish wind


def irish_data():
    wind = datasets.drop_leap_days(datasets.load_irish_wind()["wind_speed"]).drop_sel(station="ROS")
    return np.sqrt(wind).assign_attrs(units="sqrt(m/s)")


def irish_runs(seed):
    """One member with the compass graph and one with a learned one, as in irish_wind.py, protocol (b), explained."""
    wind = irish_data()
    lat, lon, stations = (wind[name].values for name in ("lat", "lon", "station"))
    graph, train = graphs.knn_graph(lat, lon, k=4), wind.sel(time=IRISH_TRAIN)
    fitted = forecasting.fit_forecaster(train, None, graph, spatial="directional", members=1, seed=seed)
    x, operator, _ = explain.forecaster_windows(fitted, wind.sel(time=IRISH_TEST))
    x = x[::40]  # every fortieth day of eight years
    member = fitted.members[0]
    out = {"windows": len(x), "size": {}, "weight": {}, "sector": {}}
    for part, model in (("whole forecast", member), ("network part", member.network)):
        out["size"][part] = {}
        for method, key in METHODS.items():
            found = explain.influence(model, x, operator, method=key, steps=8, stations=stations)
            out["size"][part][method] = found["size"].values.tolist()
            if method == "integrated gradients":
                out["weight"][part] = found["weight"].values.tolist()
        sectors = explain.by_sector(found["size"].sum("lag"), lat, lon).sum("target")
        out["sector"][part] = (sectors / sectors.sum()).values.tolist()
    # What agrees without any training is no knowledge: the same network with redrawn weights.
    nothing = explain.randomised(member.network, seed)
    found = explain.influence(nothing, x, operator, steps=8, stations=stations)
    out["redrawn"] = {of: found[of].values.tolist() for of in ("size", "weight")}
    out["sanity"] = sanity(member, x[:10], operator, [0, 3, 7])
    out["deletion"] = deletions(member, x, operator, [0, 3, 7])
    learned = forecasting.fit_forecaster(train, None, None, spatial="adaptive", members=1, seed=seed)
    out["adjacency"] = explain.learned_adjacency(learned).values.tolist()
    if seed == 0:
        anomaly = (train - baselines.climatology(train, train["time"], 1)) / fitted._scale
        var = explain.of_var(baselines.fit_var(anomaly, 3, 0.03))
        out["var"] = abs(var).values.tolist()
        sectors = explain.by_sector(abs(var).sum("lag"), lat, lon).sum("target")
        out["sector"]["VAR"] = (sectors / sectors.sum()).values.tolist()
    return out


def irish_table(runs):
    wind, var = irish_data(), np.array(runs[0]["var"])
    parts, main = ("whole forecast", "network part"), "integrated gradients"
    size = {p: {m: np.array([run["size"][p][m] for run in runs]) for m in METHODS} for p in parts}  # (seed, i, lag, j)
    adjacency = np.array([run["adjacency"] for run in runs])
    weight = {p: np.array([run["weight"][p] for run in runs]) for p in parts}
    redrawn = {of: np.array([run["redrawn"][of] for run in runs]) for of in ("size", "weight")}
    shown = {p: size[p][main].mean(0) for p in parts} | {"VAR": var}
    others = ~np.eye(len(var), dtype=bool)

    def between(values):
        """Mean rank correlation of every pair of seeds."""
        return np.mean([explain.similarity(a, b) for a, b in combinations(values, 2)])

    def edges(values):
        """Influence of other stations alone, over the lags: what is to be drawn."""
        return values.sum(-2)[..., others] if values.ndim > 2 else values[..., others]

    def across(values, others):
        """The same of every pair of a trained network and a redrawn one."""
        return np.mean([explain.similarity(a, b) for a in values for b in others])

    agreement = {
        "seeds, weight": {p: between(weight[p]) for p in parts},
        "network part, redrawn": {
            of: {"pairs": between(redrawn[of]), "with the trained": across(trained_ones, redrawn[of])}
            for of, trained_ones in (("size", size["network part"][main]), ("weight", weight["network part"]))
        },
        "seeds": {p: {m: between(size[p][m]) for m in METHODS} for p in parts}
        | {"learned adjacency": between(adjacency[:, others])},
        "seeds, other stations alone": {
            p: {m: between([edges(v) for v in size[p][m]]) for m in METHODS} for p in parts
        },
        "methods": {
            p: {
                f"{a} / {b}": np.mean([explain.similarity(*pair) for pair in zip(size[p][a], size[p][b], strict=True)])
                for a, b in combinations(METHODS, 2)
            }
            for p in parts
        },
        "with_var": {p: np.mean([explain.similarity(edges(v), edges(var)) for v in size[p][main]]) for p in parts}
        | {"learned adjacency": np.mean([explain.similarity(a[others], edges(var)) for a in adjacency])},
    }
    return {
        "stations": wind["station"].values.tolist(),
        "lat": wind["lat"].values.tolist(),
        "lon": wind["lon"].values.tolist(),
        "windows": runs[0]["windows"],
        "lags": [1, 2, 3],
        "by_lag": {p: (v.sum((0, 2)) / v.sum()).tolist() for p, v in shown.items()},
        "own": {p: float(v.sum(1).trace() / v.sum()) for p, v in shown.items()},
        "sector": {
            p: np.mean([run["sector"][p] for run in runs if p in run["sector"]], axis=0).tolist() for p in shown
        },
        "size": {p: float(size[p][main].sum((2, 3)).mean()) for p in parts},
        "influence": shown["whole forecast"].sum(1).tolist(),
        "network_part": shown["network part"].sum(1).tolist(),
        "var": var.sum(1).tolist(),
        "adjacency": adjacency.mean(0).tolist(),
        "adjacency_seeds": adjacency.tolist(),
        "agreement": agreement,
    }


# ---------------------------------------------------------------------------- all of it


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="folder in which finished parts are kept")
    cache = parser.parse_args().cache
    torch.set_num_threads(1)

    def run(job, seed):
        path = cache and cache / f"{job.__name__}-{seed}.json"
        if path and path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        began = time.process_time()
        result = job(seed)
        result["seconds"] = time.process_time() - began
        print(f"{job.__name__} {seed}: {result['seconds']:.0f} s", flush=True)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result), encoding="utf-8")
        return result

    jobs = (wind_runs, irish_runs, delay_runs, regime_runs, turning_runs)
    runs = {job: [run(job, seed) for seed in range(SEEDS)] for job in jobs}
    mesh, irish = checks_table(runs[wind_runs]), checks_table(runs[irish_runs])
    result = {
        "seeds": SEEDS,
        "wind": wind_table(runs[wind_runs]),
        "delays": delay_table(runs[delay_runs]),
        "regimes": regime_table(runs[regime_runs]),
        "turning": turning_table(runs[turning_runs]),
        "sanity": {"mesh step": mesh[0], "Irish wind": irish[0]},
        "deletion": {"mesh step": mesh[1], "Irish wind": irish[1]},
        "irish": irish_table(runs[irish_runs]),
        "seconds": round(sum(one["seconds"] for rows in runs.values() for one in rows)),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {result['seconds']} s")


if __name__ == "__main__":
    main()
