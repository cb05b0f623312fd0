"""Spatio-temporal graph convolutional networks for regional weather: the package under the book.

Modules are loaded when they are first used, so that ``import stgcn_lab`` costs next to nothing.
A module imports only from floors below it:

    0  datasets, graphs, simulate, dynamics
    1  layers, windows, classes, indices, verification
    2  models, baselines, streaming
    3  training, regions, interpolation
    4  regimes, forecasting, deploy
    5  imputation, events, explain, plots
    6  workflows
    7  report
    8  cli
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = [
    "baselines",
    "classes",
    "cli",
    "datasets",
    "deploy",
    "dynamics",
    "events",
    "explain",
    "forecasting",
    "graphs",
    "imputation",
    "indices",
    "interpolation",
    "layers",
    "models",
    "plots",
    "regimes",
    "regions",
    "report",
    "simulate",
    "streaming",
    "training",
    "verification",
    "windows",
    "workflows",
]

try:
    __version__ = version("stgcn-lab")
except PackageNotFoundError:  # a bare copy of the folder, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its modules are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
