"""Fields carried by the wind, with a known best forecast: `make bench` writes benchmarks/advection.json.

When does a graph network help? Four cases: a steady wind with a long record, where a linear model has the right form;
the same with a short record; a wind that turns and is measured; a wind that turns and is not. Everything is fitted on
a training part, settings of the linear models and epochs of the networks are chosen on a validation part, and the test
part is scored once, over five seeds of the networks. Epochs and learning rates were set on another field (seed 1).
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import xarray as xr

from stgcn_lab import baselines, graphs, models, simulate, training, verification, windows

SEEDS = range(5)
NODES, TRAIN, VALIDATION, TEST = 40, 1200, 300, 1000
LEADS = range(1, 13)
HISTORY = 4  # steps that the networks see, one where the wind is steady or measured
SKIP = 16  # first test steps, which not every model can forecast at every lead; nor the last
CASES = {
    "steady wind": {"turn": 0.0, "train": TRAIN},
    "steady wind, short record": {"turn": 0.0, "train": 200},
    "turning wind, measured": {"turn": 12.0, "train": TRAIN, "measured": True},
    "turning wind, hidden": {"turn": 12.0, "train": TRAIN},
}
FAST = {"turn": 25.0, "train": TRAIN, "measured": True}  # where the mesh steps alone are compared
REFERENCE = "VAR"


class Case:
    """Data, graph and truth of one case."""

    def __init__(self, setting, seed=0):
        steps = TRAIN + VALIDATION + TEST
        series, self.truth = simulate.advected_field(NODES, steps, seed, turn=setting["turn"])
        ds = series.to_dataset(name="value")
        self.inputs = ["value"]
        if setting.get("measured"):
            angle = np.deg2rad(self.truth.wind)
            everywhere = xr.ones_like(series)
            ds["east"], ds["north"] = np.cos(angle) * everywhere, np.sin(angle) * everywhere
            self.inputs += ["east", "north"]
        end = TRAIN + VALIDATION
        validation = VALIDATION * setting["train"] // TRAIN
        self.train = ds.isel(time=slice(end - validation - setting["train"], end - validation))
        self.validation = ds.isel(time=slice(end - validation, end))
        self.both = ds.isel(time=slice(end - validation - setting["train"], end))
        self.test = ds.isel(time=slice(end, None))
        self.observed = self.test["value"][SKIP : -len(LEADS)]
        self.graph = graphs.knn_graph(series["lat"].values, series["lon"].values, k=6)
        self.edges = models.mesh_edges(self.graph)
        hidden = setting["turn"] > 0 and not setting.get("measured")
        self.history = HISTORY if hidden else 1
        self.more = 3 if setting["train"] < TRAIN else 1  # a short record is read more often

    def windows(self, part, history, horizon, targets):
        return windows.WindowDataset(part, self.inputs, targets, history, horizon)

    def scored(self, forecast):
        return forecast.sel(time=self.observed["time"])


def squared_error(forecast, observed):
    return float(((forecast - observed) ** 2).mean())


# ---------------------------------------------------------------------------- linear models


def sector_weights(case, measured):
    """A weight for the station and one for each compass sector, the same for all: the forecast, and how many numbers.

    With a measured wind every weight is a constant plus a multiple of the wind's two components; the wind of the
    start is kept. It is the linear model of somebody who knows what wind does.
    """
    matrices = [P.numpy().astype(float) for P in graphs.directional_operators(case.graph, 4)]
    operators = np.stack([np.eye(NODES), *matrices])

    def known(ds):  # (time, coefficient): what the weights are made of
        constant = np.ones((ds.sizes["time"], 1))
        wind = [ds[name].values[:, :1] for name in ("east", "north")] if measured else []
        return np.concatenate([constant, *wind], axis=1)

    def terms(x, coefficients):  # (time, N, sector x coefficient)
        past = np.einsum("sij,tj->tis", operators, x)
        return np.einsum("tis,tc->tisc", past, coefficients).reshape(*x.shape, -1)

    x = case.both["value"].values
    design = terms(x[:-1], known(case.both)[:-1])
    weights = np.linalg.lstsq(design.reshape(x[1:].size, -1), x[1:].ravel(), rcond=None)[0]

    def forecast(series, lead):
        coefficients, x = known(case.test), series.values
        for _ in range(lead):
            x = terms(x, coefficients) @ weights
        return series.copy(data=x).shift(time=lead)

    return forecast, weights.size


def linear_models(case):
    """Forecasts (series, lead) of fitted models, their number of parameters and the seconds that the fit took."""
    train, validation, both = (part["value"] for part in (case.train, case.validation, case.both))
    fitted = {}
    start = time.perf_counter()
    fitted["damped persistence"] = (baselines.fit_damped_persistence(both).forecast, None, time.perf_counter() - start)
    start = time.perf_counter()
    fitted["AR, each station alone"] = (baselines.fit_ar(both, 2).forecast, 3 * NODES, time.perf_counter() - start)
    start = time.perf_counter()
    errors = {}
    for order in (1, 2):
        for ridge in (0.0, 0.001, 0.01, 0.1, 1.0):
            if ridge == 0 and len(train) - order <= 2 * order * NODES:
                continue
            model = baselines.fit_var(train, order, ridge)
            errors[order, ridge] = squared_error(model.forecast(validation), validation)
    order, ridge = min(errors, key=errors.get)
    model = baselines.fit_var(both, order, ridge)
    fitted[REFERENCE] = (model.forecast, NODES * (1 + order * NODES), time.perf_counter() - start)
    for measured in (False, True) if len(case.inputs) > 1 else (False,):
        start = time.perf_counter()
        forecast, count = sector_weights(case, measured)
        label = "sector weights that follow the wind" if measured else "sector weights, shared"
        fitted[label] = (forecast, count, time.perf_counter() - start)
    return fitted, {"order": order, "ridge": ridge}


# ---------------------------------------------------------------------------- networks


def fit(case, model, operator, history, horizon, targets, epochs, learning_rate, seed):
    start = time.perf_counter()
    training.fit(
        model, case.windows(case.train, history, horizon, targets),
        case.windows(case.validation, history, horizon, targets), operator=operator, epochs=epochs,
        batch_size=16, learning_rate=learning_rate, patience=10 * case.more, seed=seed, progress=False,
    )  # fmt: skip
    return time.perf_counter() - start


def forecasts(case, model, operator, history):
    """A (time, station) forecast for each lead time, at valid times of the test part."""
    test = case.windows(case.test, history, len(LEADS), "value")
    values = training.predict(model, test, operator=operator)[..., 0].numpy()  # (windows, lead, N)
    out = {}
    for lead in LEADS:
        at = xr.full_like(case.test["value"], np.nan)
        at.loc[{"time": test.times[:, lead - 1]}] = values[:, lead - 1]
        out[lead] = case.scored(at)
    return out


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def networks(name, seed):
    """All networks of one case and seed: forecasts, seconds and parameters of each."""
    torch.set_num_threads(1)
    case, out = Case(CASES[name]), {}
    for spatial, label in {
        "none": "STGCN, no graph", "gcn": "STGCN, graph without directions",
        "directional": "STGCN, compass sectors", "adaptive": "STGCN, learned graph",
    }.items():  # fmt: skip
        operator = {
            "none": lambda: None, "adaptive": lambda: None, "gcn": lambda: graphs.gcn_operator(case.graph),
            "directional": lambda: graphs.directional_operators(case.graph, 4),
        }[spatial]()  # fmt: skip
        torch.manual_seed(seed)
        model = models.STGCN(
            len(case.inputs), 1, HISTORY, len(LEADS), (32, 16, 32), blocks=1, kernel_size=2, spatial=spatial,
            norm=False, num_nodes=NODES if spatial == "adaptive" else None,
        )  # fmt: skip
        seconds = fit(case, model, operator, HISTORY, len(LEADS), "value", 12 * case.more, 3e-3, seed)
        out[label] = (forecasts(case, model, operator, HISTORY), seconds, parameters(model))
    index, features = case.edges
    for label, edges in {
        "mesh step, no edges": (index[:, :0], features[:0]),
        "mesh step, distances only": (index, features * torch.tensor([1.0, 0.0, 0.0])),
    }.items():
        out[label] = mesh_steps(case, seed, edges)["mesh step"]
    return out | mesh_steps(case, seed, case.edges, through=6)


def mesh_steps(case, seed, edges, through=0):
    """A mesh step trained on one step and, from there, through several: forecasts, seconds and parameters."""
    torch.manual_seed(seed)
    step = models.MeshStep(len(case.inputs), history=case.history)
    rolled = models.Rollout(step, len(LEADS))
    seconds = fit(case, step, edges, case.history, 1, case.inputs, 20 * case.more, 1e-2, seed)
    out = {"mesh step": (forecasts(case, rolled, edges, case.history), seconds, parameters(step))}
    if through:
        training_model = models.Rollout(step, through)
        seconds += fit(case, training_model, edges, case.history, through, case.inputs, 4 * case.more, 2e-3, seed)
        out["mesh step, trained rolling"] = (forecasts(case, rolled, edges, case.history), seconds, parameters(step))
    return out


def blur(seed):
    """Curves of both trainings where the wind turns fast, the second through eight steps."""
    torch.set_num_threads(1)
    case = Case(FAST)
    return {label: curves(case, run[0]) for label, run in mesh_steps(case, seed, case.edges, through=8).items()}


# ---------------------------------------------------------------------------- scores


def edge_energy(field, graph):
    """Mean squared difference along the edges: how rough a field is."""
    source, target = graph.edge_index.numpy()
    return float(((field.values[:, source] - field.values[:, target]) ** 2).mean())


def curves(case, made, best=None):
    """Skill over the climatology (zero), share of the predictable part, power and roughness by lead."""
    observed, rows = case.observed, {"skill": [], "power": [], "roughness": []}
    for lead in LEADS:
        forecast = made[lead]
        assert np.isfinite(forecast).all()
        rows["skill"].append(1 - squared_error(forecast, observed) / float((observed**2).mean()))
        rows["power"].append(float((forecast**2).mean() / (observed**2).mean()))
        rows["roughness"].append(edge_energy(forecast, case.graph) / edge_energy(observed, case.graph))
    if best is not None:
        rows["share"] = [mine / most for mine, most in zip(rows["skill"], best["skill"], strict=True)]
    return rows


def mean_of(runs):
    """Mean over seeds of every curve, and the standard deviation of their skill at each lead."""
    out = {key: np.mean([run[key] for run in runs], axis=0).tolist() for key in runs[0]}
    return out | {"spread": np.std([run["skill"] for run in runs], axis=0, ddof=1).tolist()}


def judge(name, runs):
    """Everything about one case, and its lines of the leaderboard."""
    case = Case(CASES[name])
    test, observed, entries = case.test["value"], case.observed, []

    def at_all_leads(forecast):
        return {lead: case.scored(forecast(test, lead)) for lead in LEADS}

    best = curves(case, at_all_leads(case.truth.forecast))
    result = {"best, all winds known": best}
    if CASES[name]["turn"] > 0:
        frozen = at_all_leads(lambda series, lead: case.truth.forecast(series, lead, frozen=True))
        result["best, today's wind known"] = curves(case, frozen, best)
    fitted, chosen = linear_models(case)
    lines = {"climatology": ("simple", at_all_leads(lambda series, lead: xr.zeros_like(series)), 0.0, None)}
    lines["persistence"] = ("simple", at_all_leads(baselines.persistence), 0.0, None)
    for label, (forecast, count, seconds) in fitted.items():
        kind = "simple" if label == "damped persistence" else "linear"
        lines[label] = (kind, at_all_leads(forecast), seconds, count)
    reference = lines[REFERENCE][1]
    for label, (_, made, *_rest) in lines.items():
        result[label] = curves(case, made, best)
    for label, (_, _, count) in runs[0].items():
        made = [run[label][0] for run in runs]
        seconds = float(np.mean([run[label][1] for run in runs]))
        result[label] = mean_of([curves(case, one, best) for one in made])
        result[label] |= {"seconds": seconds, "parameters": count}
        lines[label] = ("network", {lead: [one[lead] for one in made] for lead in LEADS}, seconds, count)
    for label, (kind, made, seconds, count) in lines.items():
        for lead in (1, 12):
            other = None if label == REFERENCE else reference[lead]
            entries.append(
                verification.entry(
                    f"advected field, {name}", label, made[lead], observed, other,
                    lead=lead, units="1", seconds=seconds, parameters=count, kind=kind,
                )
            )  # fmt: skip
    return {"models": result, "VAR": chosen, "variance": float((observed**2).mean())}, entries


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    processes = parser.parse_args().processes
    start = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        jobs = {name: [pool.submit(networks, name, seed) for seed in SEEDS] for name in CASES}
        blurs = [pool.submit(blur, seed) for seed in SEEDS]
        judged = {name: judge(name, [job.result() for job in rows]) for name, rows in jobs.items()}
        blurred = [job.result() for job in blurs]
    result = {
        "seeds": list(SEEDS),
        "leads": list(LEADS),
        "nodes": NODES,
        "cases": rounded({name: case for name, (case, _) in judged.items()}),
        "blur": rounded({label: mean_of([run[label] for run in blurred]) for label in blurred[0]}),
        "entries": [line for _, lines in judged.values() for line in lines],
        "seconds": round(time.perf_counter() - start),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
