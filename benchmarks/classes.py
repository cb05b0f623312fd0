"""Köppen-Geiger classes of Colorado stations from one year of weather and a tenth of the labels.

    python benchmarks/classes.py

The class of a station comes from all years of its record but 1997; the input is the weather of 1997, the last year,
with height and, for the networks, a graph. Every method's settings are chosen on draws of the labels that are not
among the reported ones. Writes benchmarks/classes.json, which the chapter on classes reads.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score

from stgcn_lab import classes, datasets, graphs, layers, models

RESULTS = Path(__file__).with_suffix(".json")
INPUT_YEAR, MIN_YEARS, MIN_STATIONS, SHARE = 1997, 10, 10, 0.1
TUNING, REPORTED = range(1000, 1005), range(20)
SHARES, SHARE_DRAWS, ABLATION_DRAWS = (0.05, 0.1, 0.2, 0.4), range(10), range(10)
HEIGHTS = (0.0, 0.2, 0.5, 1.0)  # km per metre: how far a climb counts


def load_task() -> dict[str, Any]:
    """Labels from the long record, inputs from one year that the labels have not seen."""
    data = datasets.load_colorado()
    data["mean"] = ((data.tmin + data.tmax) / 2).assign_attrs(units="degC")
    recent = data.time.dt.year == INPUT_YEAR
    normal = classes.station_climatology(data.where(~recent), MIN_YEARS)
    detailed = classes.koeppen_geiger(normal["mean"], normal.precip, data.lat)
    codes = classes.merge_rare(detailed, MIN_STATIONS)
    names = sorted(set(codes) - {""})
    common = sorted(names, key=lambda name: -np.count_nonzero(codes == name))
    year = classes.station_climatology(data.where(recent), 1)
    rule = classes.koeppen_geiger(year["mean"], year.precip, data.lat)  # of the one year
    year["precip"] = np.sqrt(year.precip).assign_attrs(units="mm0.5")  # less skewed
    z = ((data.elevation - data.elevation.mean()) / data.elevation.std()).values
    filled, there = [], []
    for name in ("tmin", "tmax", "precip"):
        month = year[name].assign_coords(lat=data.lat, lon=data.lon, elevation=data.elevation)
        whole = classes.fill_by_place(month)
        filled.append(((whole - whole.mean("station")) / whole.std("station")).values)
        there.append(month.notnull().values)
    weather = np.stack(filled, axis=-1)  # (12, N, 3)
    seen = np.stack([there[0] & there[1], there[2]], axis=-1)
    height = np.broadcast_to(z[:, None], (12, z.size, 1))
    return {
        "data": data,
        "codes": codes,
        "detailed": detailed,
        "names": names,
        "common": common,
        "y": np.array([names.index(code) if code else -1 for code in codes]),
        "x": torch.from_numpy(np.concatenate([weather, seen, height], axis=-1)).float(),  # (12, N, 6)
        "flat": np.concatenate([weather.transpose(1, 0, 2).reshape(z.size, -1), z[:, None]], axis=1),  # (N, 37)
        "reports": seen.all(axis=(0, 2)),
        "rule": rule,
    }


def logistic(x: np.ndarray, labels: np.ndarray, c: float) -> np.ndarray:
    told = labels >= 0
    return LogisticRegression(C=c, max_iter=3000).fit(x[told], labels[told]).predict(x)


class Methods:
    """Every method as a function of (labels with -1 where unknown, seed, settings) -> class of each station."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, place = task, task["data"]
        self.x, self.flat = task["x"], task["flat"]
        self.nodes, self.classes = len(task["y"]), len(task["names"])
        lat, lon, z = (place[axis].values for axis in ("lat", "lon", "elevation"))
        flat = graphs.great_circle_distance(lat[:, None], lon[:, None], lat, lon)
        self.distance = {h: np.hypot(flat, h * (z[:, None] - z)) for h in HEIGHTS}
        self.graph = {
            (k, h): classes.elevation_graph(lat, lon, z, k=k, km_per_metre=h) for k in (8, 16) for h in HEIGHTS
        }
        self.sectors = {key: graphs.directional_operators(graph) for key, graph in self.graph.items()}
        self.smooth = {key: graphs.gcn_operator(graph) for key, graph in self.graph.items()}

    def majority(self, labels: np.ndarray, seed: int) -> np.ndarray:
        return np.full(self.nodes, np.bincount(labels[labels >= 0]).argmax())

    def nearest(self, labels: np.ndarray, seed: int, height: float) -> np.ndarray:
        told = np.flatnonzero(labels >= 0)
        return labels[told[self.distance[height][:, told].argmin(axis=1)]]

    def nearest_on_the_map(self, labels: np.ndarray, seed: int) -> np.ndarray:
        return self.nearest(labels, seed, 0.0)

    def propagation(self, labels: np.ndarray, seed: int, k: int, height: float, alpha: float) -> np.ndarray:
        return classes.label_propagation(self.graph[k, height], labels, self.classes, alpha).argmax(axis=1)

    def logistic_elevation(self, labels: np.ndarray, seed: int, c: float) -> np.ndarray:
        return logistic(self.flat[:, -1:], labels, c)

    def logistic(self, labels: np.ndarray, seed: int, c: float) -> np.ndarray:
        return logistic(self.flat, labels, c)

    def smoothed_logistic(self, labels: np.ndarray, seed: int, height: float, steps: int, c: float) -> np.ndarray:
        x = torch.from_numpy(self.flat).float()[None]
        for _ in range(steps):
            x = layers.propagate(self.smooth[8, height], x)
        return logistic(x[0].numpy(), labels, c)

    def article(
        self,
        labels: np.ndarray,
        seed: int,
        height: float,
        epochs: int,
        edges: bool = True,
        use_height: bool = True,
        calendar: bool = False,
    ) -> np.ndarray:
        torch.manual_seed(seed)
        x = self.x.transpose(0, 1)  # (N, 12, 6)
        x = x if use_height else x[..., :-1]
        if calendar:  # two more features that tell the month
            angle = 2 * torch.pi * torch.arange(12) / 12
            month = 2**0.5 * torch.stack([angle.cos(), angle.sin()], dim=-1)
            x = torch.cat([x, month.expand(self.nodes, 12, 2)], dim=-1)
        model = models.ArticleSTGCN(self.nodes, x.shape[-1], 12, self.classes)
        graph = self.graph[8, height]
        index, weight = (graph.edge_index, graph.edge_weight) if edges else (graph.edge_index[:, :0], None)
        scores = classes.fit_few_labels(
            model, lambda: model(x, index, weight), labels, epochs=epochs, weight_decay=0.1, seed=seed
        )
        return scores.argmax(dim=1).numpy()

    def classifier(
        self, labels: np.ndarray, seed: int, height: float, epochs: int, channels: tuple[int, ...]
    ) -> np.ndarray:
        torch.manual_seed(seed)
        model = models.STGCNClassifier(
            self.x.shape[-1], self.classes, level="node", channels=channels, kernel_size=3, dropout=0.5
        )
        scores = classes.fit_few_labels(
            model,
            lambda: model(self.x[None], self.sectors[8, height])[0],
            labels,
            epochs=epochs,
            learning_rate=3e-3,
            weight_decay=0.1,
            seed=seed,
        )
        return scores.argmax(dim=1).numpy()


GRIDS: dict[str, dict[str, tuple]] = {
    "majority": {},
    "nearest_on_the_map": {},
    "nearest": {"height": HEIGHTS[1:]},
    "propagation": {"k": (8, 16), "height": HEIGHTS, "alpha": (0.5, 0.8, 0.9, 0.95)},
    "logistic_elevation": {"c": (1.0, 10.0, 100.0)},
    "logistic": {"c": (0.03, 0.1, 0.3, 1.0, 3.0)},
    "smoothed_logistic": {"height": HEIGHTS, "steps": (1, 2), "c": (0.1, 0.3, 1.0, 3.0)},
    "article": {"height": HEIGHTS[1:], "epochs": (20, 40, 80)},
    "classifier": {"height": HEIGHTS[1:], "epochs": (30, 60, 120), "channels": ((16,), (32, 32))},
}


def judge(task: dict[str, Any], guess: np.ndarray, told: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro-F1 over the stations that have a class which was not told."""
    test = (task["y"] >= 0) & ~told
    truth = task["y"][test]
    macro = f1_score(truth, guess[test], average="macro", labels=range(len(task["names"])), zero_division=0)
    return float((truth == guess[test]).mean()), float(macro)


def run(task: dict[str, Any], method: Callable, seed: int, share: float = SHARE, **settings: Any) -> tuple:
    told = classes.draw_labels(task["codes"], share, seed)
    guess = method(np.where(told, task["y"], -1), seed, **settings)
    return judge(task, guess, told), guess, told


def interval(values: np.ndarray) -> dict[str, float]:
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": values.mean(), "low": values.mean() - half, "high": values.mean() + half, "sd": values.std(ddof=1)}


def split_halves(task: dict[str, Any]) -> dict[str, Any]:
    """How often two halves of a station's own record, odd and even years, give it the same class."""
    data = task["data"].where(task["data"].time.dt.year != INPUT_YEAR)
    halves = []
    for remainder in (0, 1):
        half = classes.station_climatology(data.where(data.time.dt.year % 2 == remainder), MIN_YEARS // 2)
        codes = classes.koeppen_geiger(half["mean"], half.precip, data.lat)
        halves.append(classes.merge_rare(codes, common=task["common"]))
    both = (halves[0] != "") & (halves[1] != "") & (task["codes"] != "")
    return {"stations": int(both.sum()), "agreement": float((halves[0] == halves[1])[both].mean())}


def rule_on_the_year(task: dict[str, Any]) -> dict[str, Any]:
    """The rule applied to the year of input: right at how many of the stations that report all of it."""
    guess = classes.merge_rare(task["rule"], common=task["common"])
    here = (task["rule"] != "") & (task["codes"] != "")
    return {"stations": int(here.sum()), "accuracy": float((guess == task["codes"])[here].mean())}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return [rounded(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4)
    return value.item() if isinstance(value, np.generic) else value


def main() -> None:
    warnings.filterwarnings("ignore", message="Sparse CSR")
    torch.set_num_threads(1)
    start = time.perf_counter()
    task = load_task()
    methods = Methods(task)
    chosen, tried, results = {}, {}, {}
    for name, grid in GRIDS.items():
        method = getattr(methods, name)
        scored = []
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            scored.append((np.mean([run(task, method, seed, **settings)[0] for seed in TUNING]), settings))
        chosen[name], tried[name] = max(scored, key=lambda entry: entry[0])[1], len(scored)
        began = time.perf_counter()
        runs = [run(task, method, seed, **chosen[name]) for seed in REPORTED]
        seconds = (time.perf_counter() - began) / len(REPORTED)
        scores = np.array([entry[0] for entry in runs])
        test = [(task["y"] >= 0) & ~told for _, _, told in runs]
        confusion = sum(
            confusion_matrix(task["y"][t], guess[t], labels=range(methods.classes))
            for t, (_, guess, _) in zip(test, runs, strict=True)
        )
        right = np.array([guess == task["y"] for _, guess, _ in runs])
        asked = np.array(test)
        results[name] = {
            "accuracy": scores[:, 0],
            "macro_f1": scores[:, 1],
            "accuracy_interval": interval(scores[:, 0]),
            "macro_f1_interval": interval(scores[:, 1]),
            "accuracy_where_it_reports": right[asked & task["reports"]].mean(),
            "accuracy_where_it_does_not": right[asked & ~task["reports"]].mean(),
            "confusion": confusion,
            "seconds_a_draw": seconds,
        }
        print(
            f"{name:20} {scores.mean(axis=0).round(3)} {chosen[name]} {time.perf_counter() - start:.0f} s", flush=True
        )
        if name in ("smoothed_logistic", "article"):
            results[name]["share_right"] = (right & asked).sum(axis=0) / np.maximum(asked.sum(axis=0), 1)

    differences = {}
    for first, second in (
        ("smoothed_logistic", "logistic"),
        ("article", "logistic"),
        ("classifier", "logistic"),
        ("article", "smoothed_logistic"),
        ("article", "propagation"),
        ("article", "classifier"),
    ):
        differences[f"{first} - {second}"] = {
            key: interval(results[first][key] - results[second][key]) for key in ("accuracy", "macro_f1")
        }

    by_share: dict[str, Any] = {}
    for name in ("nearest", "propagation", "logistic", "smoothed_logistic", "article", "classifier"):
        by_share[name] = {}
        for share in SHARES:
            if share == SHARE:  # done above
                scores = np.stack([results[name][key] for key in ("accuracy", "macro_f1")], axis=1)[: len(SHARE_DRAWS)]
            else:
                scores = np.array([run(task, getattr(methods, name), s, share, **chosen[name])[0] for s in SHARE_DRAWS])
            by_share[name][share] = {"accuracy": interval(scores[:, 0]), "macro_f1": interval(scores[:, 1])}
    print(f"shares {time.perf_counter() - start:.0f} s", flush=True)

    ablations = {}
    for name, change in {
        "no edges": {"edges": False},
        "edges that ignore height": {"height": 0.0},
        "no height in the features": {"use_height": False},
        "told the month": {"calendar": True},
    }.items():
        runs = [run(task, methods.article, seed, **chosen["article"] | change) for seed in ABLATION_DRAWS]
        scores = np.array([entry[0] for entry in runs])
        full = np.stack([results["article"][key] for key in ("accuracy", "macro_f1")], axis=1)
        lost = scores - full[: len(ABLATION_DRAWS)]
        ablations[name] = {
            "accuracy": interval(scores[:, 0]),
            "macro_f1": interval(scores[:, 1]),
            "accuracy_difference": interval(lost[:, 0]),
            "macro_f1_difference": interval(lost[:, 1]),
        }

    detailed, counts = np.unique(task["detailed"], return_counts=True)
    report = {
        "task": {
            "input_year": INPUT_YEAR,
            "min_years": MIN_YEARS,
            "share": SHARE,
            "stations": int((task["y"] >= 0).sum()),
            "reporting": int((task["reports"] & (task["y"] >= 0)).sum()),
            "labelled": int(classes.draw_labels(task["codes"], SHARE, 0).sum()),
            "names": task["names"],
            "counts": [int((task["y"] == c).sum()) for c in range(methods.classes)],
            "before_merging": dict(zip(detailed.tolist(), counts.tolist(), strict=True)),
        },
        "split_halves": split_halves(task),
        "rule_on_the_year": rule_on_the_year(task),
        "tuning_draws": list(TUNING),
        "reported_draws": list(REPORTED),
        "settings": chosen,
        "settings_tried": tried,
        "methods": results,
        "paired_differences": differences,
        "by_share": by_share,
        "by_share_draws": list(SHARE_DRAWS),
        "ablation_draws": list(ABLATION_DRAWS),
        "article_ablations": ablations,
        "seconds": time.perf_counter() - start,
    }
    RESULTS.write_text(json.dumps(rounded(report)) + "\n", encoding="utf-8")
    print(f"{report['seconds']:.0f} s -> {RESULTS.name}")


if __name__ == "__main__":
    main()
