"""The page whose network runs in the reader's browser: export it, draw the page as it stands without a script, copy.

At the first directive of a build the stored network (benchmarks/live.pt) becomes an ONNX file, and all that the page
shows is worked out by the package: the presets, the graph, the forecasts, the experiments. Both are kept beside the
doctrees and made again only when something they depend on has changed. At the end of the build they are copied into
the site's folder _live, with the modules of book/_live and the two files of ONNX Runtime Web.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from stgcn_live_html import MAP, app_html, result_sentence, score_tables, values

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "book" / "_live"
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
SOURCES = (
    "benchmarks/live.py", "benchmarks/live.json", "benchmarks/live.pt", "book/_ext/stgcn_live.py",
    "book/_ext/stgcn_live_html.py", "stgcn_lab/models.py", "stgcn_lab/layers.py", "stgcn_lab/graphs.py",
    "stgcn_lab/baselines.py", "stgcn_lab/data/irish_wind.nc",
)  # fmt: skip
FIRST_DAYS, FIRST_STATION = "west", "BEL"
logger = logging.getLogger(__name__)

# What a reader is invited to try. The page does it at the press of a button, and the package did it for the text.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "cut": {"days": "west", "select": "BEL", "isolate": ["BEL"], "view": "change"},
    "cut in a gale": {"days": "gale", "select": "BEL", "isolate": ["BEL"], "view": "change"},
    "gust": {"days": "calm", "select": "MAL", "today": {"MAL": 20}, "view": "change"},
    "gale": {"days": "calm", "select": "BEL", "today": {"VAL": 20, "BEL": 20, "CLA": 20}, "view": "change"},
    "move": {"days": "west", "select": "VAL", "move": {"VAL": [53.05, -6.45]}, "view": "change"},
    "silent": {"days": "gale", "select": "BIR", "silent": ["BIR"], "view": "change"},
    "silent and alone": {"days": "gale", "select": "BIR", "silent": ["BIR"], "isolate": ["BIR"], "view": "change"},
    "no graph": {"days": "west", "select": "BEL", "isolate": "all", "view": "change"},
    "eve": {"days": "eve", "select": "VAL", "view": "tomorrow"},
}


# ---------------------------------------------------------------------------- what the page is made of


def prepared(app: Sphinx) -> Path:
    """A folder with network.onnx and data.json, made anew only if something has changed."""
    missing = [name for name in SOURCES if not (ROOT / name).is_file()]
    if missing:
        raise ExtensionError(f"live: expected the files of the network, found no {', '.join(missing)}: run make bench")
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    folder = Path(app.doctreedir) / f"live-{digest}"
    if not (folder / "data.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            make(Path(new))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(new, folder)
    return folder


def make(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("live_benchmark", ROOT / "benchmarks" / "live.py")
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    network, results = benchmark.stored_network()
    stage = Stage(benchmark.Record(), network, results["settings"], benchmark.with_reports)
    data = stage.data()
    data["results"] = {name: results[name] for name in ("scores", "choice", "graph minus none", "seed", "settings")}
    export(network, stage, folder / "network.onnx")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (folder / "data.json").write_text(text, encoding="utf-8")


def export(network: Any, stage: Stage, path: Path) -> None:
    """The network with the graph as an input, and proof that the file says what PyTorch says."""
    import onnxruntime
    import torch

    from stgcn_lab.deploy import _forget_origin, _quiet

    x, operator = stage.example()
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            network,
            (x, operator),
            str(path),
            input_names=["x", "operator"],
            output_names=["y"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _forget_origin(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x.numpy(), "operator": operator.numpy()})[0]
    with torch.no_grad():
        worst = abs(network(x, operator).numpy() - found).max()
    if not worst < 1e-5:
        raise ExtensionError(f"live: the exported network is off by up to {worst:.2g}")


class Stage:
    """The record and the network, and what both say when a reader changes something."""

    def __init__(self, record: Any, network: Any, settings: dict[str, Any], with_reports: Any) -> None:
        self.record, self.network, self.settings, self.with_reports = record, network, settings, with_reports
        self.root = record.root
        self.codes = self.root["station"].values.tolist()
        self.lat, self.lon = self.root["lat"].values.round(4), self.root["lon"].values.round(4)
        self.presets = {preset["key"]: preset for preset in self._presets()}

    def _presets(self) -> list[dict[str, Any]]:
        """Five days each, chosen by a rule from the test years, with the day after: what came of it."""
        import numpy as np

        test = self.root.sel(time=slice("1971", "1978"))
        wind = (test**2).values
        mean, five = wind.mean(1), np.convolve(wind.mean(1), np.ones(5) / 5, "valid")  # five[d]: days d ... d + 4
        z = ((test - self.record.season) / self.record.scale).values
        today = np.arange(5, len(wind) - 1)  # each has four days before it and one after
        east, west = [[self.codes.index(c) for c in codes] for codes in (("DUB", "ROS"), ("VAL", "BEL"))]
        rules = (
            ("gale", "A gale today", "The windiest day of the eight test years is today. How fast will it calm down?",
             today[mean[today].argmax()]),
            ("eve", "The eve of a storm", "No day of the test years was followed by a steeper rise of the wind.",
             today[(mean[today + 1] - mean[today]).argmax()]),
            ("calm", "Five calm days", "The calmest five days in a row of the test years.",
             today[five[today - 4].argmin()]),
            ("west", "Windy in the west", "Of all days the one when the Atlantic coast stands out most from the Irish "
             "Sea coast, for the season.", today[(z[:, west].mean(1) - z[:, east].mean(1))[today].argmax()]),
            ("usual", "Days like any others", "The five days that lie closest to what is usual for the season.",
             today[np.convolve((z**2).mean(1), np.ones(5), "valid")[today - 4].argmin()]),
        )  # fmt: skip
        return [self._days(test, *rule) for rule in rules]

    def _days(self, test: Any, key: str, title: str, story: str, today: int) -> dict[str, Any]:
        days = slice(int(today) - 4, int(today) + 2)
        times = test["time"][days]
        return {
            "key": key,
            "title": title,
            "story": story,
            "dates": [str(day)[:10] for day in times.values],
            "wind": (test[days].values[:5] ** 2).round(3).tolist(),
            "observed": (test[days].values[5] ** 2).round(3).tolist(),
            "season": self.record.season.sel(time=times).values.round(5).tolist(),  # of the root
        }

    def operator(self, lat: Any, lon: Any, cut: set[tuple[int, int]]) -> Any:
        from stgcn_lab import graphs

        settings = self.settings
        graph = graphs.knn_graph(lat, lon, k=settings["neighbours"], length_scale=settings["length_scale"])
        stays = [(min(i, j), max(i, j)) not in cut for i, j in graph.edge_index.T.tolist()]
        graph.edge_index, graph.edge_weight = graph.edge_index[:, stays], graph.edge_weight[stays]
        return graphs.gcn_operator(graph, sparse=False)

    def inputs(self, preset: dict[str, Any], wind: Any, silent: list[int]) -> Any:
        import numpy as np
        import torch

        z = (np.sqrt(wind) - preset["season"][:5]) / self.record.scale.values
        reports = torch.ones(1, len(self.codes))
        reports[:, silent] = 0
        return self.with_reports(torch.tensor(z, dtype=torch.float32)[None, :, :, None], reports)

    def example(self) -> tuple[Any, Any]:
        preset = self.presets[FIRST_DAYS]
        return self.inputs(preset, preset["wind"], []), self.operator(self.lat, self.lon, set())

    def perform(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The forecast in m/s after a plan such as those of EXPERIMENTS, and what the network itself put out."""
        import numpy as np
        import torch

        preset, count = self.presets[plan["days"]], len(self.codes)
        lat, lon, wind = self.lat.copy(), self.lon.copy(), np.array(preset["wind"])
        for code, place in plan.get("move", {}).items():
            lat[self.codes.index(code)], lon[self.codes.index(code)] = place
        for code, speed in plan.get("today", {}).items():
            wind[-1, self.codes.index(code)] = speed
        alone = plan.get("isolate", [])
        alone = range(count) if alone == "all" else [self.codes.index(code) for code in alone]
        cut = {(min(i, j), max(i, j)) for i in alone for j in range(count) if i != j}
        operator = self.operator(lat, lon, cut)
        x = self.inputs(preset, wind, [self.codes.index(code) for code in plan.get("silent", [])])
        with torch.no_grad():
            z = self.network(x, operator)[0, 0, :, 0].double().numpy()
        root = np.array(preset["season"][5]) + self.record.scale.values * z
        return {"z": z.tolist(), "speed": (root.clip(0) ** 2).round(4).tolist(), "operator": operator.tolist()}

    def data(self) -> dict[str, Any]:
        import matplotlib as mpl
        import numpy as np

        names = self.root["name"].values.tolist()
        scale = self.record.scale.values.round(6)
        self.record.scale[:] = scale  # the browser computes with the same digits
        for preset in self.presets.values():
            untouched = self.perform({"days": preset["key"]})
            preset |= {"z": untouched["z"], "forecast": untouched["speed"]}
            season = np.array(preset["season"])
            root = np.sqrt(preset["wind"][-1]) - season[4] + season[5]
            preset["persistence"] = (root.clip(0) ** 2).round(4).tolist()
        return {
            "history": 5,
            "neighbours": self.settings["neighbours"],
            "lengthScale": self.settings["length_scale"],
            "stations": [
                {"code": code, "name": name, "lat": float(a), "lon": float(o), "scale": float(s)}
                for code, name, a, o, s in zip(self.codes, names, self.lat, self.lon, scale, strict=True)
            ],
            "days": list(self.presets.values()),
            "operator": self.operator(self.lat, self.lon, set()).tolist(),
            "experiments": {
                name: {"plan": plan, "speed": self.perform(plan)["speed"]} for name, plan in EXPERIMENTS.items()
            },
            "weights": sum(weights.numel() for weights in self.network.parameters()),
            "windiest": round(float((self.root.sel(time=slice("1961", "1968")) ** 2).max()), 1),
            "map": MAP,
            "palettes": {
                name: [mpl.colors.to_hex(mpl.colormaps[of](i / 32)) for i in range(33)]
                for name, of in (("wind", "viridis"), ("change", "PuOr_r"))
            },
            "views": {
                "tomorrow": {"palette": "wind", "low": 0, "high": 16, "sign": "", "digits": 1},
                "today": {"palette": "wind", "low": 0, "high": 16, "sign": "", "digits": 1},
                "change": {"palette": "change", "low": -2, "high": 2, "sign": "+", "digits": 2},
                "persistence": {"palette": "change", "low": -8, "high": 8, "sign": "+", "digits": 1},
            },
        }


# ---------------------------------------------------------------------------- directives


def read(app: Sphinx) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((prepared(app) / "data.json").read_text(encoding="utf-8"))
    return data


class Live(SphinxDirective):
    """A part of the page that is made from the prepared data."""

    def data(self) -> dict[str, Any]:
        for name in SOURCES:
            self.env.note_dependency(str(ROOT / name))
        return read(self.env.app)


class LiveNetwork(Live):
    """The map, the graph, the days and the forecast; the scripts go with it into the pages alone, not into the PDF."""

    def run(self) -> list[nodes.Node]:
        text = app_html(self.data(), FIRST_DAYS, FIRST_STATION, scripts=self.env.app.builder.name == "html")
        return [nodes.raw("", text, format="html")]


class LiveTry(Live):
    """An experiment: its text, a button that does it, and what the package found when it did it."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        name, data = self.arguments[0], self.data()
        if name not in data["experiments"]:
            raise self.error(f"live-try: expected one of {', '.join(data['experiments'])}, found {name!r}")
        box = nodes.container("", *self.parse_content_to_nodes(), classes=["live-try"])
        plan = json.dumps(data["experiments"][name]["plan"], separators=(",", ":")).replace('"', "&quot;")
        button = f'<p class="live-do" hidden><button type="button" data-do="{plan}">Do it on the map</button></p>'
        box += nodes.paragraph("", "", *self.parse_inline(result_sentence(data, name), lineno=self.lineno)[0])
        box += nodes.raw("", button, format="html")
        return [box]


class LiveScores(Live):
    """The tables of the test years."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(score_tables(self.data()["results"]))


class LiveValue(SphinxRole):
    """A number of the page that is computed when the book is built."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = values(read(self.env.app))
        if self.text not in known:
            message = self.inliner.reporter.error(f"live-value: found {self.text!r}, know {', '.join(known)}")
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.Text(known[self.text])], []


def copy_files(app: Sphinx, failure: Exception | None) -> None:
    """All that the page loads beside its own text, into the site's folder _live."""
    if failure or app.builder.name != "html" or "live" not in app.env.found_docs:
        return
    folder = Path(app.outdir) / "_live"
    folder.mkdir(exist_ok=True)
    wanted = [*sorted(MODULES.glob("*.*")), *sorted(prepared(app).glob("*.*"))]
    runtime = [RUNTIME / name for name in RUNTIME_FILES]
    missing = [path.name for path in runtime if not path.is_file()]
    if missing:  # no reason to fail: the page says so itself, and is of use without
        logger.info("live: its network cannot run in the page, npm's %s is missing", " and ".join(missing))
    for path in [*wanted, *(path for path in runtime if path.is_file())]:
        copy = folder / path.name
        if not copy.is_file() or copy.stat().st_size != path.stat().st_size or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("live-network", LiveNetwork)
    app.add_directive("live-try", LiveTry)
    app.add_directive("live-scores", LiveScores)
    app.add_role("live-value", LiveValue())
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
