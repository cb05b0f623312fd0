"""Against numerical prediction: who forecasts a small planet's weather best, from what, and at what price?

    python benchmarks/numerical.py

Nature is the shallow-water model of `dynamics` on 64 x 32 cells: a jet that breaks into storms, over a mountain. Every
six hours its means over two by two cells are kept, 32 x 16 of them: the analyses. All forecasts start from an analysis
and are scored on analyses. The record is split in time, with ten days left out between the parts: 500 days to learn
from, 100 to choose settings on, 250 that are scored once, from a start every five days, up to ten days ahead.

Rivals: the mean, persistence, nature's own equations, the same with a wrong mountain and a wrong drag, or on half the
grid, or both; a linear map of the neighbourhood; a graph network, trained on one step and then through several; a
hybrid: the model that has both faults, and a graph network that corrects each of its six-hour steps.
Tried for the network on the part for choices (one training, mean squared error of a step in variances of the weather):
24 channels, 2 rounds, batches of 8, five epochs 0.0343; batches of 2, three epochs 0.0287; 16 channels, 3 rounds,
batches of 2, three epochs 0.0247, which was taken. What was tried for the linear map is in the results, "choice".
The length of the training was set by the clock, not chosen: a minute each. What one training of four times the length
gives is in the results ("longer"), and was looked at last. All of it takes about half an hour of one core.
Writes numerical.json beside this file. What is finished is kept under _build/numerical (or --cache), so that an
interrupted run goes on where it stood; --choose prints the scores of the settings that were tried, on the part for it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from stgcn_lab import dynamics, models, training, verification, windows

RESULTS = Path(__file__).with_suffix(".json")
CACHE = Path(__file__).parents[1] / "_build" / "numerical"
SEEDS, CHOICE_SEEDS = range(5), range(100, 101)
HOURS = 6
TRAIN, VALIDATION, TEST, GAP, SPIN_UP = 2000, 400, 1000, 40, 60  # steps of six hours; the last one days
LEADS, EVERY = 40, 20  # steps that are forecast, and from one start to the next
BLOCK = 2  # starts, ten days, in a block of the bootstrap
NOISE = 0.1  # of the standard deviation, in a noisy start

NATURE = dynamics.Channel()
WRONG = {"mountain": 1100.0, "drag": 4.0}
HALF = {"nx": 32, "ny": 16, "minutes": 30.0}
GRID = replace(NATURE, **HALF)  # of the analyses
NUMERICAL = {
    "perfect model": {},
    "wrong physics": WRONG,
    "half resolution": HALF,
    "both wrong": WRONG | HALF,
}
BASE = replace(NATURE, **NUMERICAL["both wrong"])  # of the hybrid
ELSEWHERE = {  # worlds that nobody has learned from
    "jet moved north": {"jet_position": 600.0},
    "weaker jet": {"jet": 65.0},
    "mountain moved": {"mountain_position": (12000.0, 0.0)},
}

REACH, SHARED, RIDGE = 3, False, 0.1  # of the linear regression
CHANNELS, ROUNDS, BATCH, RATE = 16, 3, 2, 5e-3
THROUGH = 4  # steps of the second training
# states to learn from: epochs on single steps, epochs through several, every how many starts of these
EPOCHS = {125: (10, 1, 1), 500: (4, 1, 2), 2000: (3, 2, 4)}
LONGER = 4  # times the epochs, to see whether the network was stopped too early

WILD = 1e4  # m
DAYS = (1, 2, 5, 10, 20, 30)
KINDS = {"climatology": "simple", "persistence": "simple", "linear regression": "linear", "graph network": "learned"}
KINDS |= {"graph network, rolled": "learned", "hybrid": "hybrid"}
WHAT = {
    "climatology": "the mean of the training part",
    "persistence": "the start",
    "perfect model": "nature's own equations on its own grid, from the analysis",
    "wrong physics": "the same, the mountain 1100 m high in place of 1500 and the drag 4 days in place of 3",
    "half resolution": "nature's equations on the grid of the analyses",
    "both wrong": "wrong physics on the grid of the analyses",
    "linear regression": "each cell's next state from the 7 x 7 cells around it, repeated",
    "graph network": "a mesh step trained on single steps, repeated",
    "graph network, rolled": "the same after a second training through a day",
    "hybrid": "both wrong, each step corrected by a mesh step",
}


# ---------------------------------------------------------------------------- nature


@cache
def record() -> Tensor:
    """(time, 3, ny, nx) analyses, all parts in one."""
    return kept("record", make_record)


def make_record() -> Tensor:
    state = dynamics.forecast(dynamics.stirred(NATURE, seed=0, dtype=torch.float32), NATURE, 24 * SPIN_UP)
    parts = []
    for _ in range(0, TRAIN + VALIDATION + TEST + 2 * GAP, 100):
        run = dynamics.forecast(state, NATURE, 100 * HOURS, HOURS)
        parts.append(dynamics.coarsen(run))
        state = run[-1]
    return torch.cat(parts)


def part_of(name: str) -> Tensor:
    first = {"train": 0, "validation": TRAIN + GAP, "test": TRAIN + VALIDATION + 2 * GAP}[name]
    return record()[first : first + {"train": TRAIN, "validation": VALIDATION, "test": TEST}[name]]


@cache
def climate() -> tuple[Tensor, Tensor]:
    """(3, ny, nx) mean and (3, 1, 1) standard deviation around it, of the part that is learned from."""
    train = part_of("train")
    mean = train.mean(0)
    return mean, (train - mean).square().mean((0, 2, 3), keepdim=True)[0].sqrt()


def starts_of(run: Tensor, every: int = EVERY, leads: int = LEADS) -> tuple[Tensor, Tensor]:
    """(start, 3, ny, nx) and what became of them, (start, lead, 3, ny, nx)."""
    first = torch.arange(0, len(run) - leads, every)
    return run[first], torch.stack([run[first + lead] for lead in range(1, leads + 1)], dim=1)


def noisy(start: Tensor, seed: int = 0) -> Tensor:
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    return start + NOISE * climate()[1] * noise


# ---------------------------------------------------------------------------- numerical models


def numerical(start: Tensor, world: dynamics.Channel, leads: int = LEADS) -> Tensor:
    """(start, lead, 3, ny, nx) on the grid of the analyses."""
    made = []
    for part in start.split(24):
        if world.nx == GRID.nx:
            made.append(dynamics.forecast(part, world, leads * HOURS, HOURS))
        else:
            made.append(dynamics.coarsen(dynamics.forecast(dynamics.refine(part), world, leads * HOURS, HOURS)))
    return torch.cat(made)


# ---------------------------------------------------------------------------- linear regression


def neighbourhood(run: Tensor, row: int, reach: int) -> Tensor:
    """(time, nx, inputs) of the cells of a row: the rows and columns around, standardised anomalies."""
    rows = run[:, :, max(0, row - reach) : row + reach + 1]
    columns = [rows.roll(-east, dims=-1) for east in range(-reach, reach + 1)]
    return torch.stack(columns, dim=2).flatten(1, 3).transpose(1, 2)


def fit_linear(states: int, reach: int, shared: bool, ridge: float) -> list[Tensor]:
    """Weights of each row, (1 or nx, inputs, 3): one map that the cells of a row share, or one for each cell."""
    mean, sd = climate()
    train = ((part_of("train")[-states:] - mean) / sd).double()
    weights = []
    for row in range(GRID.ny):
        x, y = neighbourhood(train[:-1], row, reach), train[1:, :, row].transpose(1, 2)
        x, y = x.transpose(0, 1), y.transpose(0, 1)  # (nx, time, .)
        if shared:
            x, y = x.flatten(0, 1)[None], y.flatten(0, 1)[None]
        gram = x.transpose(1, 2) @ x / x.shape[1]
        gram += ridge * torch.eye(gram.shape[-1], dtype=gram.dtype)
        weights.append(torch.linalg.solve(gram, x.transpose(1, 2) @ y / x.shape[1]).float())
    return weights


def linear(start: Tensor, weights: list[Tensor], reach: int, leads: int = LEADS) -> Tensor:
    mean, sd = climate()
    x, made = (start - mean) / sd, []
    for _ in range(leads):
        rows = [(neighbourhood(x, row, reach)[:, :, None] @ w)[:, :, 0] for row, w in enumerate(weights)]
        x = torch.stack(rows, dim=1).permute(0, 3, 1, 2)
        made.append(x * sd + mean)
    return torch.stack(made, dim=1)


# ---------------------------------------------------------------------------- networks


class Windows:
    """Windows as `training.fit` reads them: a standardised state and the ``horizon`` states after it, (B, ., N, 3).

    With ``physics``, the base's forecast of each next state, that comes first among the inputs.
    """

    def __init__(self, run: Tensor, horizon: int = 1, every: int = 1, physics: Tensor | None = None) -> None:
        self.run, self.horizon = run, horizon
        self.inputs = run if physics is None else torch.cat([physics, run], dim=-1)
        self.first = torch.arange(0, len(run) - horizon, every)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Any:
        count = len(self.first)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        for first in self.first[order].split(size):
            x = self.inputs[first][:, None]
            y = torch.stack([self.run[first + lead] for lead in range(1, self.horizon + 1)], dim=1)
            yield windows.Batch(x, y, torch.ones_like(x, dtype=torch.bool), torch.ones_like(y, dtype=torch.bool))


def standard(run: Tensor) -> Tensor:
    """(time, N, 3): nodes, less the mean of all cells, over the standard deviation of the weather."""
    mean, sd = climate()
    return dynamics.to_nodes((run - mean.mean((1, 2), keepdim=True)) / sd)


def natural(x: Tensor) -> Tensor:
    """The inverse of `standard`."""
    mean, sd = climate()
    return dynamics.to_grid(x, GRID) * sd + mean.mean((1, 2), keepdim=True)


class Learned(nn.Module):
    """Six hours by a graph network that sees the state and where it is: latitude and ground."""

    def __init__(self, channels: int, rounds: int, base: dynamics.Channel | None = None) -> None:
        super().__init__()
        self.base = base
        self.net = models.MeshStep(8 if base else 5, 3, channels=channels, rounds=rounds)
        self.look_at(NATURE)

    def look_at(self, world: dynamics.Channel) -> None:
        """Tell it of the ground of a world."""
        y = dynamics.places(GRID)[1][:, None].expand(-1, GRID.nx) / 2000
        ground = dynamics.coarsen(dynamics.ground(world)) / 500
        self.where = torch.stack([y, ground], dim=-1).flatten(0, 1)

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        where = self.where.expand(*x.shape[:-1], -1)
        if self.base is None:
            return self.net(torch.cat([x, where], dim=-1), edges)
        # the model's forecast comes first: what the network adds is a correction of it
        return self.net(torch.cat([self.physics(x), x, where], dim=-1), edges)

    def physics(self, x: Tensor) -> Tensor:
        return standard(dynamics.forecast(natural(x), self.base, HOURS))


class Corrected(nn.Module):
    """The learned part of a hybrid, fed with what the base has made already: for the training on single steps."""

    def __init__(self, model: Learned) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        return self.model.net(torch.cat([x, self.model.where.expand(*x.shape[:-1], -1)], dim=-1), edges)


EDGES = dynamics.grid_edges(GRID)


def trained(hybrid: bool, states: int, seed: int, times: int = 1) -> dict[str, Any]:
    """Weights after the training on single steps and after that through several, and the seconds they took.

    With ``times``, each of both goes on for so many times as many epochs.
    """
    began = time.process_time()
    torch.manual_seed(seed)
    model = Learned(CHANNELS, ROUNDS, BASE if hybrid else None)
    train, validation = standard(part_of("train")[-states:]), standard(part_of("validation"))
    epochs, rolled, every = EPOCHS[states]
    epochs, rolled = times * epochs, times * rolled
    if hybrid:
        network: nn.Module = Corrected(model)
        with torch.no_grad():
            pair = [Windows(train, physics=model.physics(train))]
            pair.append(Windows(validation, every=4, physics=model.physics(validation)))
    else:
        network, pair = model, [Windows(train), Windows(validation, every=4)]
    options = {"operator": EDGES, "batch_size": BATCH, "patience": 99, "seed": seed, "progress": False}
    history = training.fit(network, *pair, epochs=epochs, learning_rate=RATE, **options)
    found = {"single": copy.deepcopy(model.state_dict()), "seconds": time.process_time() - began}
    found["loss"] = history.validation_loss
    if not hybrid:
        pair = [Windows(train, THROUGH, every), Windows(validation, THROUGH, 4)]
        history = training.fit(models.Rollout(model, THROUGH), *pair, epochs=rolled, learning_rate=RATE / 5, **options)
        found |= {"rolled": model.state_dict(), "rolled_loss": history.validation_loss}
        found["seconds_rolled"] = time.process_time() - began
    print(f"trained {'hybrid' if hybrid else 'network'}, {states} states, seed {seed}: "
          f"{time.process_time() - began:.0f} s, loss {history.validation_loss[-1]:.4f}", flush=True)  # fmt: skip
    return found


@cache
def network(name: str, states: int, seed: int, times: int = 1) -> Learned:
    hybrid = name == "hybrid"
    found = kept("trained", trained, hybrid, states, seed, *([times] if times > 1 else []))
    model = Learned(CHANNELS, ROUNDS, BASE if hybrid else None)
    model.load_state_dict(found["rolled" if name.endswith("rolled") else "single"])
    return model.eval()


def told(model: Learned, world: dynamics.Channel) -> Learned:
    """The same network in another world, of whose ground (and, to the base of a hybrid, jet) it is told."""
    model = copy.deepcopy(model)
    model.look_at(world)
    if model.base is not None:
        model.base = replace(world, **NUMERICAL["both wrong"])
    return model


@torch.no_grad()
def rolled_out(model: Learned, start: Tensor, leads: int = LEADS) -> Tensor:
    """(start, lead, 3, ny, nx); NaN from the step on at which the base of a hybrid broke down."""
    made = []
    for part in start.split(24):
        x, steps = standard(part)[:, None], []
        for _ in range(leads):
            try:
                x = model(x, EDGES)
            except FloatingPointError:
                x = torch.full_like(x, torch.nan)
            steps.append(natural(x[:, 0]))
        made.append(torch.stack(steps, dim=1))
    return torch.cat(made)


# ---------------------------------------------------------------------------- scores


def scores_of(forecast: Tensor, truth: Tensor, usual: Tensor) -> dict[str, np.ndarray]:
    """(start, lead) means over the cells: squared errors, and the products that the anomaly correlation is made of.

    A forecast that leaves all bounds counts as 10 km off, and no more.
    """
    forecast = forecast.nan_to_num(WILD, WILD, -WILD).clamp(-WILD, WILD)
    square = (forecast - truth).square().mean((-2, -1))
    f, t = forecast[:, :, 0] - usual[0], truth[:, :, 0] - usual[0]
    found = {"height": square[:, :, 0], "wind": square[:, :, 1:].sum(-1)}
    found |= {name: product.mean((-2, -1)) for name, product in (("ft", f * t), ("ff", f * f), ("tt", t * t))}
    return {name: value.double().numpy() for name, value in found.items()}


def correlation(runs: list[dict[str, np.ndarray]]) -> list[float]:
    each = [run["ft"].mean(0) / np.sqrt(np.maximum(run["ff"].mean(0) * run["tt"].mean(0), 1e-12)) for run in runs]
    return rounded(np.mean(each, axis=0))


def curves(runs: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """By lead, the mean over the seeds; the interval is that of other starts."""
    height = np.stack([run["height"] for run in runs], axis=1)  # (start, seed, lead)
    options: dict[str, Any] = {"block_length": BLOCK, "of_means": True}
    value, low, high = verification.block_bootstrap(lambda m: np.sqrt(m).mean(1), height, **options)
    found = {"rmse": rounded(value), "low": rounded(low), "high": rounded(high), "acc": correlation(runs)}
    found["wind"] = rounded(np.mean([np.sqrt(run["wind"].mean(0)) for run in runs], axis=0))
    if len(runs) > 1:
        found["seeds"] = rounded(np.sqrt(height.mean(0)))
    return found


def difference(first: list[dict], second: list[dict], lead: int) -> list[float]:
    a, b = (np.stack([run["height"][:, lead - 1] for run in runs], axis=1) for runs in (first, second))

    def of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(a).mean(1) - np.sqrt(b).mean(1)

    return rounded(verification.block_bootstrap(of, a, b, block_length=BLOCK, of_means=True))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray, Tensor)):
        return [rounded(item) for item in (value.tolist() if hasattr(value, "tolist") else value)]
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def days_of_skill(acc: list[float]) -> float:
    """Days until the anomaly correlation falls below 0.6, between the leads on a straight line."""
    if acc[0] <= 0:  # it has no anomalies at all
        return 0.0
    days, last = 0.25 * np.arange(len(acc) + 1), [1.0, *acc]
    for i, value in enumerate(acc, start=1):
        if value < 0.6:
            return float(days[i - 1] + 0.25 * (last[i - 1] - 0.6) / (last[i - 1] - value))
    return float(days[-1])


# ---------------------------------------------------------------------------- the test


def test_scores(
    name: str, noise: bool, seed: int = 0, states: int = TRAIN, leads: int = LEADS
) -> dict[str, np.ndarray]:
    start, truth = starts_of(part_of("test"))
    truth, usual = truth[:, :leads], climate()[0]
    return scores_of(made_by(name, noisy(start) if noise else start, seed, states, leads), truth, usual)


def made_by(name: str, start: Tensor, seed: int = 0, states: int = TRAIN, leads: int = LEADS) -> Tensor:
    if name == "climatology":
        return climate()[0].expand(len(start), leads, -1, -1, -1)
    if name == "persistence":
        return start[:, None].expand(-1, leads, -1, -1, -1)
    if name in NUMERICAL:
        return numerical(start, replace(NATURE, **NUMERICAL[name]), leads)
    if name == "linear regression":
        return linear(start, linear_weights(states), REACH, leads)
    return rolled_out(network(name, states, seed), start, leads)


@cache
def linear_weights(states: int) -> list[Tensor]:
    return kept("linear", fit_linear, states, REACH, SHARED, RIDGE)


def seconds_a_day(name: str) -> float:
    start = part_of("validation")[:1]
    made_by(name, start, leads=4)
    began = time.process_time()
    made_by(name, start, leads=16)
    return (time.process_time() - began) / 4


def chaos() -> dict[str, Any]:
    """Twins that differ by a thousandth of the weather's standard deviation, in the model that made it."""
    start = dynamics.refine(part_of("validation")[::40])
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    twins = torch.stack([start, start + 1e-3 * climate()[1] * noise])
    run = dynamics.coarsen(dynamics.forecast(twins, NATURE, 24 * 20, 24))[:, :, :, 0]
    growth = (run[0] - run[1]).square().mean((0, 2, 3)).sqrt() / climate()[1][0, 0, 0]
    days = np.arange(1, 21)
    inside = (growth.numpy() > 0.003) & (growth.numpy() < 0.3)
    rate = np.polyfit(days[inside], np.log2(growth.numpy()[inside]), 1)[0]
    return {"doubling_days": float(1 / rate), "growth": growth.numpy()}


def long(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Forecasts of a month: mass, energy and small waves on the days of `DAYS`, (start, day)."""
    start = part_of("test")[::120]
    run = made_by(name, start, seed, leads=4 * DAYS[-1])[:, [4 * day - 1 for day in DAYS]]
    wild = ~(run[:, :, 0].abs().flatten(2).amax(-1) <= 3000)  # NaN too
    run = run.nan_to_num(WILD, WILD, -WILD).clamp(-WILD, WILD)
    every = part_of("train")[::10]
    usual = dynamics.energy(every, GRID).mean(), small_scales(every).mean()
    return {
        "mass": (dynamics.mass(run, GRID) - dynamics.mass(start, GRID)[:, None]).abs().numpy(),
        "energy": (dynamics.energy(run, GRID) / usual[0]).numpy(),
        "small": (small_scales(run) / usual[1]).numpy(),
        "wild": wild.numpy(),
    }


def small_scales(run: Tensor) -> Tensor:
    return dynamics.spectrum(run[..., 2, :, :])[..., 6:].sum(-1)


# ---------------------------------------------------------------------------- elsewhere


def elsewhere_run(case: str) -> Tensor:
    world = replace(NATURE, **ELSEWHERE[case])
    state = dynamics.forecast(dynamics.stirred(world, seed=1, dtype=torch.float32), world, 24 * SPIN_UP)
    return dynamics.coarsen(dynamics.forecast(state, world, 400 * HOURS, HOURS))


def elsewhere(case: str, name: str, knows: bool, seed: int = 0) -> dict[str, np.ndarray]:
    run = kept("elsewhere run", elsewhere_run, case)
    start, truth = starts_of(run, leads=20)
    world = replace(NATURE, **ELSEWHERE[case])
    if name in NUMERICAL and knows:
        made = numerical(start, replace(world, **NUMERICAL[name]), 20)
    elif knows:
        made = rolled_out(told(network(name, TRAIN, seed), world), start, 20)
    else:
        made = made_by(name, start, seed, leads=20)
    return scores_of(made, truth, run.mean(0))


def kept(name: str, make: Callable[..., Any], *given: Any) -> Any:
    """What `make` returns, from the cache if it is there."""
    settings: tuple[Any, ...] = (asdict(NATURE), WRONG, TRAIN, REACH, RIDGE, EVERY)
    learned = not {"climatology", "persistence", *NUMERICAL} & set(given)
    if learned and make in (trained, test_scores, elsewhere, long, test_of_longer):
        settings += (CHANNELS, ROUNDS, BATCH, RATE, EPOCHS, THROUGH)
    key = hashlib.sha256(repr((name, given, settings)).encode()).hexdigest()[:12]
    path = CACHE / f"{name.replace(' ', '-')}-{key}.pt"
    if not path.exists():
        found = make(*given)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        torch.save(found, partial)
        os.replace(partial, path)
    return torch.load(path, weights_only=False)


def main() -> None:
    global CACHE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is finished")
    parser.add_argument("--choose", action="store_true", help="the part for choices alone")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="trainings of each network")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results")
    given = parser.parse_args()
    CACHE = given.cache
    torch.set_num_threads(1)
    seeds = range(given.seeds)
    learned = ("graph network", "graph network, rolled", "hybrid")
    names = ["climatology", "persistence", *NUMERICAL, "linear regression", *learned]

    def runs(name: str, noise: bool) -> list[dict[str, np.ndarray]]:
        each = seeds if name in learned else range(1)
        return [kept("test", test_scores, name, noise, seed) for seed in each]

    if given.choose:
        print(*choose(), sep="\n")
        return

    results: dict[str, Any] = {"world": asdict(NATURE), "wrong": WRONG, "half": HALF, "cells": [GRID.nx, GRID.ny]}
    results["steps"] = {"spin_up_days": SPIN_UP, "train": TRAIN, "validation": VALIDATION, "test": TEST}
    start, truth = starts_of(part_of("test"))
    results |= {"starts": len(start), "seeds": list(seeds), "lead_days": [0.25 * i for i in range(1, LEADS + 1)]}
    results["chaos"] = rounded(kept("chaos", chaos))
    anomaly = part_of("train")[:, 0] - climate()[0][0]
    memory = [float((anomaly[lag:] * anomaly[:-lag]).mean() / anomaly.square().mean()) for lag in range(1, 41)]
    results["climate"] = {"sd": rounded(climate()[1].flatten()), "autocorrelation": rounded(memory)}
    results["climate"]["persistence_hours"] = HOURS * (1 + int(np.argmax(np.array(memory) < np.exp(-1))))
    # The network of single steps is scored from true starts alone.
    said = {(name, noise): runs(name, noise) for noise in (False, True) for name in names
            if not (noise and name == "graph network")}  # fmt: skip
    results["models"] = {}
    for name in names:
        row: dict[str, Any] = {"kind": KINDS.get(name, "numerical"), "what": WHAT[name]}
        row["perfect"] = curves(said[name, False])
        row["noisy"] = curves(said[name, True]) if (name, True) in said else None
        row["seconds_per_day"] = rounded(kept("cost", seconds_a_day, name))
        row["training_seconds"], row["parameters"], states = 0.0, None, 0
        if name in learned:
            key = "seconds_rolled" if name.endswith("rolled") else "seconds"
            took = [kept("trained", trained, name == "hybrid", TRAIN, seed)[key] for seed in seeds]
            row["training_seconds"] = rounded(float(np.mean(took)))
            row["parameters"] = sum(p.numel() for p in network(name, TRAIN, 0).parameters())
            states = TRAIN
        elif name == "linear regression":
            began = time.process_time()
            fit_linear(TRAIN, REACH, SHARED, RIDGE)
            row["training_seconds"] = rounded(time.process_time() - began)
            row["parameters"], states = sum(w.numel() for w in linear_weights(TRAIN)), TRAIN
        elif name == "climatology":
            states = TRAIN
        row |= {"training_states": states, "training_bytes": states * 3 * GRID.nx * GRID.ny * 4}
        results["models"][name] = row
    results["days_of_skill"] = {
        name: rounded({kind: days_of_skill(row[kind]["acc"]) for kind in ("perfect", "noisy") if row[kind]})
        for name, row in results["models"].items()
    }
    pairs = [("graph network, rolled", "linear regression"), ("graph network, rolled", "graph network"),
             ("graph network, rolled", "both wrong"), ("graph network, rolled", "half resolution"),
             ("graph network, rolled", "wrong physics"), ("graph network", "linear regression"),
             ("hybrid", "both wrong"), ("hybrid", "half resolution"), ("hybrid", "wrong physics"),
             ("hybrid", "graph network, rolled"), ("hybrid", "perfect model")]  # fmt: skip
    results["differences"] = [
        {"first": a, "second": b, "start": kind, "lead_days": 0.25 * lead,
         "rmse": difference(said[a, kind == "noisy"], said[b, kind == "noisy"], lead)}
        for a, b in pairs for kind in ("perfect", "noisy") for lead in (1, 4, 12, 20, 40)
        if {(a, kind == "noisy"), (b, kind == "noisy")} <= set(said)
    ]  # fmt: skip
    for name, section in {
        "long": long_results,
        "hunger": hunger,
        "elsewhere": elsewhere_results,
        "longer": longer,
    }.items():
        write(results, given.out)
        results[name] = section(seeds)
    results["choice"] = choose()
    write(results, given.out)
    for name, row in results["models"].items():
        print(f"{name:24s}", *(f"{row['perfect']['rmse'][lead - 1]:8.1f}" for lead in (1, 4, 8, 12, 20, 40)))


def write(results: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def hunger(seeds: range) -> dict[str, Any]:
    """Height error by lead, and for each length of the record by seed: the latest part of it alone is learned from.

    From a shorter record the networks also see fewer windows ("windows", in their first training); what the shortest
    gives with about as many as the longest is in the results under "longer".
    """
    out: dict[str, Any] = {"states": list(EPOCHS)}
    out["windows"] = [(states - 1) * EPOCHS[states][0] for states in EPOCHS]
    for name in ("linear regression", "graph network, rolled", "hybrid"):
        each = range(1) if name == "linear regression" else seeds
        rmse = {states: [hungry(name, seed, states) for seed in each] for states in EPOCHS}
        out[name] = {
            str(0.25 * lead): [[rounded(float(run[lead - 1])) for run in runs] for runs in rmse.values()]
            for lead in (1, 4, 12)
        }
    return out


def hungry(name: str, seed: int, states: int) -> np.ndarray:
    given = (name, False, seed) if states == TRAIN else (name, False, seed, states, 12)
    return np.sqrt(kept("test", test_scores, *given)["height"].mean(0))


def test_of_longer(times: int, name: str, states: int, seed: int) -> dict[str, np.ndarray]:
    start, truth = starts_of(part_of("test"))
    return scores_of(rolled_out(network(name, states, seed, times), start), truth, climate()[0])


def longer(seeds: range) -> dict[str, Any]:
    """Was the network stopped too early (one training: a hint, and no more), and was it the shortest record's fault?"""
    found = kept("trained", trained, False, TRAIN, 0, LONGER)
    row = {"times": LONGER, "seed": 0, "training_seconds": found["seconds_rolled"], "loss": found["loss"]}
    row["perfect"] = curves([kept("longer", test_of_longer, LONGER, "graph network, rolled", TRAIN, 0)])
    row["short record"] = {
        name: curves([kept("longer", test_of_longer, LONGER, name, min(EPOCHS), seed) for seed in seeds])
        for name in ("graph network, rolled", "hybrid")
    }
    return rounded(row)


def long_results(seeds: range) -> dict[str, Any]:
    out: dict[str, Any] = {"days": list(DAYS)}
    for name in ("perfect model", "half resolution", "both wrong", "linear regression", "graph network",
                 "graph network, rolled", "hybrid"):  # fmt: skip
        each = seeds if KINDS.get(name) in ("learned", "hybrid") else range(1)
        found = [kept("long", long, name, seed) for seed in each]
        joined = {key: np.concatenate([run[key] for run in found]) for key in found[0]}
        whole = ~joined.pop("wild")
        # medians of the forecasts that are still within bounds; null where none is
        for key, label in {"mass": "mass_drift_m", "energy": "energy_ratio", "small": "small_scales"}.items():
            values = [
                np.median(value[ok]) if ok.any() else None for value, ok in zip(joined[key].T, whole.T, strict=True)
            ]
            out.setdefault(name, {})[label] = rounded(values)
        out[name]["broken"] = rounded(1 - whole.mean(0))
    return out


def elsewhere_results(seeds: range) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for case, changed in ELSEWHERE.items():
        run = kept("elsewhere run", elsewhere_run, case)
        moved = (run.mean(0) - climate()[0]) / climate()[1]
        rows: dict[str, Any] = {}
        for name in ("climatology", "persistence", *NUMERICAL, "linear regression", "graph network, rolled", "hybrid"):
            each = seeds if KINDS.get(name) in ("learned", "hybrid") else range(1)
            ways = [True] if name in ("perfect model", "wrong physics") else [False]
            if name in ("half resolution", "both wrong", "hybrid"):
                ways = [True, False]
            if name.startswith("graph") and "mountain_position" in changed:
                ways = [True, False]
            for knows in ways:
                found = [kept("elsewhere", elsewhere, case, name, knows, seed) for seed in each]
                rmse = [np.sqrt(one["height"].mean(0)) for one in found]
                rows[name + (", told" if knows else "")] = {
                    "rmse": rounded(np.mean(rmse, axis=0)), "acc": correlation(found), "seeds": rounded(rmse)
                }  # fmt: skip
        shift = float(moved.square().mean().sqrt())
        out[case] = {"changed": changed, "climate_shift_sd": rounded(shift), "models": rows}
    return out


def choose() -> list[dict[str, Any]]:
    """The settings that were tried, scored on the validation part: height error after a quarter, one and three days."""
    start, truth = starts_of(part_of("validation"), every=10)
    rows = []
    for reach, shared, ridge in (
        (1, False, 0.1),
        (2, False, 0.1),
        (3, False, 0.1),
        (3, False, 0.01),
        (3, False, 0.3),
        (3, True, 0.1),
    ):
        made = linear(start, kept("linear", fit_linear, TRAIN, reach, shared, ridge), reach)
        rows.append({"model": "linear regression", "reach": reach, "shared": shared, "ridge": ridge}
                    | _validated(made, truth))  # fmt: skip
    return rows


def _validated(made: Tensor, truth: Tensor) -> dict[str, Any]:
    rmse = (made - truth)[:, :, 0].square().mean((0, 2, 3)).sqrt()
    return {"rmse": rounded([float(rmse[lead - 1]) for lead in (1, 4, 12)])}


if __name__ == "__main__":
    main()
