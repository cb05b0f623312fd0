"""Filling the gaps of a station series: nine methods behind one function."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ._checks import number, whole_number
from .baselines import DAYS_PER_YEAR, _check_order
from .forecasting import _operator
from .interpolation import (
    Anomalies,
    Array,
    anomalies,
    check_gappy,
    eof_filling,
    inverse_distance,
    krige_in_space,
    krige_in_space_and_time,
    krige_in_time,
    linear_in_time,
)
from .layers import Operators
from .models import AttentionImputer, RecurrentImputer, STGCNImputer, mesh_edges
from .regimes import OPTIONS, complete_regimes
from .training import fit, gaussian_crps
from .windows import Batch

if TYPE_CHECKING:
    from torch_geometric.data import Data

NETWORKS = ("stgcn", "attention", "grin")
METHODS = ("linear", "climatology", "idw", "kriging", "eof", *NETWORKS, "joint")
CLASSES: dict[str, type[nn.Module]] = {"stgcn": STGCNImputer, "attention": AttentionImputer, "grin": RecurrentImputer}
FEATURES = 7  # of a cell, see _features
HIDE = 0.25  # about this share of the known values is hidden in training, at least at one station in five
LEAST_SPREAD = 0.02  # standard deviations: no first guess is surer


def impute(
    series: xr.DataArray,
    graph: "Data | None" = None,
    method: str = "attention",
    *,
    seed: int = 0,
    harmonics: int = 2,
    **options: Any,
) -> xr.DataArray:
    """Fill what is missing in a station series; what was observed is returned untouched, bit for bit.

    ========================  =====================================================================================
    method                    what stands in a gap
    ========================  =====================================================================================
    ``"linear"``              a straight line in time between the values on either side
    ``"climatology"``         the season, and the station's own anomalies before and after, kriged in time
    ``"idw"``                 the season, and the neighbours' anomalies weighted by 1 / distance²
    ``"kriging"``             the same with the weights of simple kriging, from correlations that depend on distance
                              and height; ``memory=True``: with covariances learned from the record, and what that
                              leaves over kriged in time (:func:`~stgcn_lab.interpolation.krige_in_space_and_time`)
    ``"eof"``                 the season, and the leading EOFs of the whole field (DINEOF)
    ``"stgcn"``               a spatio-temporal graph convolutional network
    ``"attention"``           a network that attends to what is known among neighbours and times
    ``"grin"``                a recurrent graph network that runs forwards and backwards
    ``"joint"``               completes the series and finds its regimes at once (``num_regimes``, by default 2; the
                              result has a coordinate ``regime``), see :func:`stgcn_lab.regimes.complete_regimes`
    ========================  =====================================================================================

    The networks correct kriging in space and time, and say how sure they are. They learn from the series itself: more
    of what is known is hidden, at some stations, in the form of the gaps that others have, and told from the rest.

    A station that was never observed gets the season that its place suggests and what its neighbours say of the
    moment (with ``"climatology"`` and ``"eof"`` the season alone; with ``"linear"`` the mean of the others). Where no
    station reports, what is left is the station's own past and future, or the season. Before a station's first value
    and after its last one the same holds, with ``"linear"`` that value itself. No gap is too long: a network's
    window only limits how far it sees, kriging in time has no such limit.

    Args:
        series: (time, station) with coords lat and lon in degrees (not needed by ``"linear"``), and elevation in m
            where it is known; NaN is missing. In units in which a Gaussian is a fair picture, such as the square
            root of wind speed or of rain: nothing keeps a filled value from being negative.
        graph: of the same stations, for the networks and ``"joint"``.
        method: see above.
        seed: of everything random.
        harmonics: annual harmonics of the season; a record of less than two years has a mean only. Hours of the day
            have no season here: take their cycle out of an hourly series first.
        options: ``power`` of ``"idw"``; ``memory`` of ``"kriging"``; ``most`` of ``"eof"``; ``num_regimes`` and others
            of :func:`~stgcn_lab.regimes.complete_regimes`; for networks ``window`` (steps of time), ``masks`` (how
            often gaps are made anew), ``steps``, ``batch_size``, ``learning_rate`` and ``weight_decay`` of training,
            ``members`` (networks, each with its own seed), ``progress``, and what the network's class takes.

    Returns:
        The series without gaps, in its own dtype. Where the method knows how sure it is (all but ``"linear"`` and
        ``"idw"``), the coordinate ``spread`` (time, station) is the standard deviation of the error, 0 where observed.

    Raises:
        TypeError, ValueError: for another kind of series or graph, no value at all, infinite values, unsorted times,
            an unknown method, or options that it does not have.
    """
    check_gappy(series)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    seed, harmonics = whole_number(seed, "seed", least=0), whole_number(harmonics, "harmonics", least=0)
    nodes = series.sizes["station"]
    if method in (*NETWORKS, "joint") and (graph is None or getattr(graph, "num_nodes", None) != nodes):
        found = (
            f"{graph.num_nodes} nodes" if graph is not None and hasattr(graph, "num_nodes") else type(graph).__name__
        )
        raise ValueError(f"graph: expected the {nodes} stations of the series as nodes for {method!r}, found {found}")
    if graph is not None:
        _check_order(graph, series)
    run = {
        "linear": _linear,
        "climatology": _climatology,
        "idw": _idw,
        "kriging": _kriging,
        "eof": _eof,
        "joint": _joint,
    }.get(method, _network)
    _check_options(method, run, options)
    given = {"seed": seed, "harmonics": harmonics, "graph": graph, "method": method}
    values, spread, coords = run(series, given, **options)
    missing = series.isnull().values
    whole = series.values.copy()
    whole[missing] = values[missing]
    filled = series.copy(data=whole)
    if spread is not None:
        units = {"units": series.attrs["units"]} if "units" in series.attrs else {}
        filled = filled.assign_coords(spread=(("time", "station"), np.where(missing, spread, 0.0), units))
    return filled.assign_coords(coords)


Filled = tuple[Array, Array | None, dict[str, Any]]


def _check_options(method: str, run: Callable[..., Filled], options: dict[str, Any]) -> None:
    functions: list[Callable[..., Any]] = [run]
    if method in NETWORKS:
        functions.append(CLASSES[method])
    elif method == "joint":
        functions.append(complete_regimes)
    known = [p.name for f in functions for p in inspect.signature(f).parameters.values() if p.default is not p.empty]
    known = [name for name in known if name not in ("seed", "edge_features")]
    known += OPTIONS if method == "joint" else ()
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"options: {method!r} does not know {', '.join(unknown)}, knows {', '.join(known) or 'none'}")


def _linear(series: xr.DataArray, given: dict[str, Any]) -> Filled:
    return linear_in_time(series), None, {}


def _climatology(series: xr.DataArray, given: dict[str, Any]) -> Filled:
    found = anomalies(series, given["harmonics"])
    return _in_units(found, *krige_in_time(found.z, found.steps))


def _idw(series: xr.DataArray, given: dict[str, Any], power: float = 2.0) -> Filled:
    found = anomalies(series, given["harmonics"])
    power = number(power, "power", least=0, open_end=True)
    return _in_units(found, inverse_distance(found, power), None)


def _kriging(series: xr.DataArray, given: dict[str, Any], memory: bool = False) -> Filled:
    found = anomalies(series, given["harmonics"])
    guess, spread = krige_in_space_and_time(found)[:2] if memory else krige_in_space(found)
    return _in_units(found, guess, spread)


def _eof(series: xr.DataArray, given: dict[str, Any], most: int = 12) -> Filled:
    found = anomalies(series, given["harmonics"])
    guess, error, _ = eof_filling(found, most, given["seed"])
    known = np.isfinite(found.z)
    told = known.any(axis=0) & known.any(axis=1, keepdims=True)  # else what stands there is the season
    return _in_units(found, guess, np.where(told, error, 1.0))


def _joint(series: xr.DataArray, given: dict[str, Any], num_regimes: int = 2, **options: Any) -> Filled:
    found = anomalies(series, given["harmonics"])
    filled, regimes = complete_regimes(series.copy(data=found.z), given["graph"], num_regimes, given["seed"], **options)
    spread = filled["spread"].values if "spread" in filled.coords else None
    values, spread, _ = _in_units(found, filled.values, spread)
    return values, spread, {"regime": regimes.labels}


def _in_units(found: Anomalies, guess: Array, spread: Array | float | None) -> Filled:
    """From anomalies in standard deviations back to the units of the series; the season may be wrong as well."""
    total = None if spread is None else np.hypot(found.scale * spread, found.season_spread)
    return found.season + found.scale * guess, total, {}


# ---------------------------------------------------------------------------- networks


class _OnFirstGuess(nn.Module):
    """Mean and log spread of the first guess, corrected by a network: (B, T, N, F) -> (B, T, N, 2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, operator: Operators | None = None) -> Tensor:
        return _first_guess(x) + self.network(x, operator)


def _first_guess(x: Tensor) -> Tensor:
    """Mean and log spread (..., 2) that the features of each cell begin with."""
    return torch.stack([x[..., 2], x[..., 3].clamp(min=LEAST_SPREAD).log()], dim=-1)


class _Windows:
    """Windows drawn at random from copies of one record, each with other values hidden.

    For :func:`stgcn_lab.training.fit`: what it calls an epoch are ``batches_each`` batches.
    """

    def __init__(self, x: Tensor, y: Tensor, hidden: Tensor, starts: Tensor, window: int, batches_each: int) -> None:
        # x (copy, T, N, F), y (T, N, 1), hidden (copy, T, N, 1)
        self.x, self.y, self.hidden, self.window, self.batches_each = x, y, hidden, window, batches_each
        pairs = [(c, s) for c in range(len(x)) for s in starts.tolist() if hidden[c, s : s + window].any()]
        self.pairs = torch.tensor(pairs, dtype=torch.long)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        for _ in range(self.batches_each):
            copy, start = self.pairs[torch.randint(len(self.pairs), (batch_size,), generator=generator)].T
            steps = start[:, None] + torch.arange(self.window)
            x = self.x[copy[:, None], steps]
            yield Batch(x, self.y[steps], x[..., 1:2] > 0, self.hidden[copy[:, None], steps])


def _features(found: Anomalies, season: Array) -> Array:
    """What a network sees of each cell (T, N, F): value (0 where missing), whether it is known, first guess and its
    spread (the value, and 0, where it is known), error of kriging in space (where known), sine and cosine of the year.
    """
    known = np.isfinite(found.z)
    guess, spread, left = krige_in_space_and_time(found)
    value = np.where(known, found.z, 0.0)
    cells = [value, known, np.where(known, value, guess), spread, np.nan_to_num(left)]
    cells += [np.broadcast_to(part[:, None], value.shape) for part in season]
    return np.stack(cells, axis=-1).astype(np.float32)


def _hide_like_gaps(known: Array, rng: np.random.Generator) -> Array:
    """Known values (T, N) to hide: at some stations, the gaps of another station at another time of the record."""
    steps, nodes = known.shape
    missing = 1 - known.mean()
    share = float(np.clip(HIDE / max(missing, 1e-9), 0.2, 1.0))
    hidden = np.zeros_like(known, dtype=bool)
    chosen = np.flatnonzero(rng.random(nodes) < share)
    if len(chosen) == 0:
        chosen = rng.integers(nodes, size=1)
    for i in chosen:
        gaps = ~known[:, rng.integers(nodes)].astype(bool)
        hidden[:, i] = np.roll(gaps, rng.integers(steps))
    return hidden & known.astype(bool)


def _network(
    series: xr.DataArray,
    given: dict[str, Any],
    window: int = 48,
    masks: int = 6,
    steps: int = 200,
    batch_size: int = 8,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-3,
    members: int = 1,
    progress: bool = False,
    **architecture: Any,
) -> Filled:
    window, masks, steps = (
        whole_number(window, "window", least=4),
        whole_number(masks, "masks"),
        whole_number(steps, "steps"),
    )
    members, seed = whole_number(members, "members"), given["seed"]
    found = anomalies(series, given["harmonics"])
    known = np.isfinite(found.z)
    window = min(window, len(known))
    angle = 2 * np.pi * series["time"].dt.dayofyear.values / DAYS_PER_YEAR
    season = np.stack([np.sin(angle), np.cos(angle)])
    operator, network = _architecture(given["method"], given["graph"], architecture)

    # Each copy learns its covariances anew: those that have seen the hidden values would guess them too well.
    rng = np.random.default_rng(seed)
    hidden = [_hide_like_gaps(known, rng) for _ in range(masks)]
    copies = [_features(replace(found, z=np.where(hide, np.nan, found.z)), season) for hide in hidden]
    epochs = min(steps, 10)
    train = _Windows(
        torch.from_numpy(np.stack(copies)),
        torch.from_numpy(np.nan_to_num(found.z).astype(np.float32))[..., None],
        torch.from_numpy(np.stack(hidden))[..., None],
        _starts(found.steps, window, 1),
        window,
        -(-steps // epochs),  # rounded up
    )
    complete = torch.from_numpy(_features(found, season))
    means, spreads = [], []
    for member in range(members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + member)
            model = _OnFirstGuess(network())
        if len(train.pairs):  # else there is too little to hide any of it: the first guess stands
            fit(
                model,
                train,  # type: ignore[arg-type]
                None,
                operator=operator,
                loss=gaussian_crps,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=seed + member,
                progress=progress,
            )
        mean, spread = _whole_record(model, complete, operator, found.steps, window)
        means.append(mean)
        spreads.append(spread)
    mean = np.mean(means, axis=0)
    spread = np.sqrt(np.mean(np.square(spreads), axis=0) + np.var(means, axis=0))
    return _in_units(found, mean, spread)


def _architecture(method: str, graph: Any, options: dict[str, Any]) -> tuple[Operators | None, Any]:
    """The operator of a network's graph convolutions, and a function that makes the network."""
    if method == "attention":
        edges = mesh_edges(graph)
        return edges, lambda: AttentionImputer(FEATURES, edges[1].shape[-1], **options)
    operator = _operator(graph, options.get("spatial", "gcn"), graph.num_nodes, options.get("order"))
    return operator, lambda: CLASSES[method](FEATURES, **options)


def _starts(steps: Array, window: int, stride: int) -> Tensor:
    """First rows of windows, every ``stride`` rows and at the ends, that never reach over a break of the time axis."""
    breaks = np.concatenate([[0], np.cumsum(np.diff(steps) > 1.5)])
    starts: set[int] = set()
    for stretch in range(breaks[-1] + 1):
        rows = np.flatnonzero(breaks == stretch)
        if len(rows) >= window:
            starts |= {*range(rows[0], rows[-1] - window + 2, stride), int(rows[-1]) - window + 1}
    return torch.tensor(sorted(starts), dtype=torch.long)


@torch.no_grad()
def _whole_record(
    model: nn.Module, x: Tensor, operator: Operators | None, steps: Array, window: int
) -> tuple[Array, Array]:
    """Mean and spread (T, N) of every cell: from the windows that hold it, most from where it lies in the middle."""
    first = _first_guess(x)
    total, weight = torch.zeros_like(first), torch.zeros(len(x), 1, 1)
    middle = 1.0 + torch.minimum(torch.arange(window), torch.arange(window).flip(0))[:, None, None]
    model.eval()
    for part in _starts(steps, window, max(window // 2, 1)).split(16):
        said = model(x[part[:, None] + torch.arange(window)], operator)
        for s, out in zip(part.tolist(), said, strict=True):
            total[s : s + window] += middle * out
            weight[s : s + window] += middle
    out = torch.where(weight > 0, total / weight.clamp(min=1e-9), first)  # a stretch shorter than a window: first guess
    return out[..., 0].double().numpy(), out[..., 1].exp().double().numpy()
