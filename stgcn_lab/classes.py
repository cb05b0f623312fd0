"""Classes at stations: the climate of a place named by rule, and named from a few labelled neighbours.

The rule is that of Köppen and Geiger. The few-label setting asks what can be said of a station whose class
nobody has given, from its own measurements, from the stations around it, and from the labels of a few.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import splu
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from ._checks import whole_number
from .datasets import Field, check_series
from .graphs import _both_ways, _build, _normalised, _stations, adjacency, great_circle_distance

Array = NDArray[np.float64]

MONTHS = 12
SUMMER_NORTH = np.isin(np.arange(1, 13), [4, 5, 6, 7, 8, 9])  # April to September


def station_climatology(series: Field, min_years: int = 10) -> Field:
    """The mean of each calendar month at each station, where enough years were observed.

    ``c_m = mean of x(t) over the years with a value in month m``. The World Meteorological Organization asks
    for 30 years, and accepts a mean over 10; where a record has more gaps than values, 10 keeps more stations.

    Args:
        series: monthly values (time, station), or a Dataset of them; NaN is missing.
        min_years: a month with fewer years than this is NaN.

    Returns:
        The same variables over (month, station), months 1 to 12, in the same units.

    Raises:
        TypeError, ValueError: for anything but a monthly series with dates, or ``min_years`` below 1.
    """
    series = check_series(series)
    min_years = whole_number(min_years, "min_years")
    if not np.issubdtype(series["time"].dtype, np.datetime64):
        raise TypeError(f"series: expected times as datetime64, found {series['time'].dtype}; a month needs dates")
    stamps = series["time"].values.astype("datetime64[M]")
    if np.unique(stamps).size < stamps.size:
        raise ValueError("series: expected monthly values, found two times in one month; take monthly means or sums")
    months = series["time"].dt.month.values
    missing = sorted(set(range(1, 13)) - set(months.tolist()))
    if missing:
        raise ValueError(f"series: expected all 12 calendar months, found none of the months {missing}")
    grouped = series.groupby("time.month")
    with xr.set_options(keep_attrs=True):
        mean = grouped.mean("time")
    return mean.where(grouped.count("time") >= min_years).transpose("month", "station")


def koeppen_geiger(temperature: ArrayLike, precipitation: ArrayLike, lat: ArrayLike | None = None) -> NDArray[np.str_]:
    """The Köppen-Geiger class of a place, from the climatology of its twelve months.

    B (dry) is asked first: the year's precipitation in mm is less than 10 P*, with ``P* = 2 T_mean`` if at least
    70 % of it falls in the winter half-year, ``2 T_mean + 28`` if in the summer half-year, ``2 T_mean + 14``
    otherwise. Of the rest A is tropical, C temperate, D cold and E polar by the coldest and hottest month; the
    second letter tells when it rains, the third how warm the summer is.

    Args:
        temperature: (12, ...) mean temperature of January to December in degC.
        precipitation: (12, ...) monthly totals in mm, of the same shape.
        lat: degrees north, a number or of shape (...): April to September is summer from the equator northwards,
            winter south of it. Without it the warmer half-year is summer, as in the paper.

    Returns:
        Codes such as "BSk", "Dfc" or "ET" of shape (...); "" where a month is missing (NaN).

    Raises:
        ValueError: for other shapes, negative precipitation, infinite values, impossible latitudes, or
            temperatures that can't be in degC.

    Source: Peel, Finlayson & McMahon (2007), table 1. Kottek et al. (2006) draw the border of C and D at -3 degC
    instead of 0, and ask for E before B.
    """
    t, p = _months_first(temperature, "temperature"), _months_first(precipitation, "precipitation")
    if t.shape != p.shape:
        raise ValueError(f"precipitation: expected the shape of temperature, {t.shape}, found {p.shape}")
    if (p < 0).any():
        raise ValueError(f"precipitation: expected mm, at least 0, found {np.nanmin(p):g}")
    if (np.abs(t) > 100).any():
        raise ValueError(
            f"temperature: expected degC, found {np.nanmin(t):g} to {np.nanmax(t):g} (is it kelvin or degF?)"
        )
    there = np.isfinite(t).all(axis=0) & np.isfinite(p).all(axis=0)
    t, p = np.where(there, t, 0.0), np.where(there, p, 0.0)

    north = (slice(None),) + (None,) * (t.ndim - 1)
    april_to_september = np.broadcast_to(SUMMER_NORTH[north], t.shape)
    if lat is None:
        first, second = t[SUMMER_NORTH].sum(axis=0), t[~SUMMER_NORTH].sum(axis=0)
        summer = np.where(first >= second, april_to_september, ~april_to_september)
    else:
        degrees = np.asarray(lat, dtype=np.float64)
        if not (np.abs(degrees) <= 90).all():
            raise ValueError(f"lat: expected degrees from -90 to 90, found {lat!r}")
        if degrees.shape not in ((), t.shape[1:]):
            raise ValueError(f"lat: expected one latitude or shape {t.shape[1:]}, found shape {degrees.shape}")
        summer = np.where(degrees >= 0, april_to_september, ~april_to_september)

    year, mean = p.sum(axis=0), t.mean(axis=0)
    hottest, coldest, warm_months = t.max(axis=0), t.min(axis=0), (t > 10).sum(axis=0)
    in_summer = np.where(summer, p, 0.0).sum(axis=0)
    in_winter = year - in_summer
    driest = p.min(axis=0)
    summer_driest, winter_driest = (np.where(half, p, np.inf).min(axis=0) for half in (summer, ~summer))
    summer_wettest, winter_wettest = (np.where(half, p, -np.inf).max(axis=0) for half in (summer, ~summer))

    # Without any rain at all both halves hold "70 % of nothing": the place is a desert by any threshold above 0.
    threshold = 2 * mean + np.select([in_winter >= 0.7 * year, in_summer >= 0.7 * year], [0.0, 28.0], 14.0)
    dry = year < 10 * threshold
    desert = np.where(year < 5 * threshold, "BW", "BS")
    arid = np.char.add(desert, np.where(mean >= 18, "h", "k"))

    tropical = np.select([driest >= 60, driest >= 100 - year / 25], ["Af", "Am"], "Aw")

    dry_summer = (summer_driest < 40) & (summer_driest < winter_wettest / 3)
    dry_winter = winter_driest < summer_wettest / 10
    # Both can be true at once; then the half-year with more rain decides.
    dry_summer, dry_winter = (
        dry_summer & ~(dry_winter & (in_summer > in_winter)),
        dry_winter & ~(dry_summer & (in_summer <= in_winter)),
    )
    rain = np.select([dry_summer, dry_winter], ["s", "w"], "f")
    warmth = np.select([hottest >= 22, warm_months >= 4, coldest < -38], ["a", "b", "d"], "c")
    group = np.where(coldest > 0, "C", "D")
    rainy = np.char.add(np.char.add(group, rain), warmth)

    polar = np.where(hottest > 0, "ET", "EF")
    code = np.select([dry, coldest >= 18, hottest < 10], [arid, tropical, polar], rainy)
    return np.where(there, code, "")


def _months_first(values: ArrayLike, name: str) -> Array:
    if isinstance(values, xr.DataArray) and "month" in values.dims:
        values = values.transpose("month", ...)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers of shape (12, ...), found {type(values).__name__}") from error
    if numbers.ndim == 0 or numbers.shape[0] != MONTHS:
        raise ValueError(f"{name}: expected 12 months on the first axis, found shape {numbers.shape}")
    if np.isinf(numbers).any():
        raise ValueError(f"{name}: expected finite values and NaN where missing, found infinite ones")
    return numbers


def merge_rare(codes: ArrayLike, min_stations: int = 10, common: Sequence[str] | None = None) -> NDArray[np.str_]:
    """Let a class that few stations have join the common class that is spelled most like it.

    First and third letter (the main climate and its warmth) are asked for first, then the second and third (a
    temperate place with a warm summer joins the cold ones with a warm summer), then the first two, then the third
    alone. A rare class that is like no common one in this way becomes "": too rare to be learned.

    Args:
        codes: (stations,) such as :func:`koeppen_geiger` gives; "" is unknown and stays so.
        min_stations: classes with fewer stations are rare.
        common: the classes to join, most frequent first, instead of those that ``codes`` has often enough.

    Returns:
        (stations,) codes of common classes, and "".

    Raises:
        ValueError: for another shape, or ``min_stations`` below 1.
    """
    codes = np.asarray(codes, dtype=str)
    if codes.ndim != 1:
        raise ValueError(f"codes: expected one code for each station, found shape {codes.shape}")
    min_stations = whole_number(min_stations, "min_stations")
    names, counts = np.unique(codes[codes != ""], return_counts=True)
    if common is None:
        often = counts >= min_stations
        common = names[often][np.argsort(-counts[often], kind="stable")].tolist()
    merged = codes.copy()
    for name in set(names.tolist()) - set(common):
        alike = (c for letters in ((0, 2), (1, 2), (0, 1), (2,)) for c in common if _same_letters(name, c, letters))
        merged[codes == name] = next(alike, "")
    return merged


def _same_letters(code: str, other: str, letters: tuple[int, ...]) -> bool:
    return all(len(code) > i < len(other) and code[i] == other[i] for i in letters)


def draw_labels(codes: ArrayLike, share: float = 0.1, seed: int = 0) -> NDArray[np.bool_]:
    """Choose at random the few stations whose class is told, the same share of each class.

    Args:
        codes: (stations,) class codes; "" is unknown and never chosen.
        share: part of the stations of each class, rounded, at least one.
        seed: of the draw.

    Returns:
        (stations,) True where the class is told.

    Raises:
        ValueError: for another shape, no known class, or a share that is not between 0 and 1.
    """
    codes = np.asarray(codes, dtype=str)
    if codes.ndim != 1 or not (codes != "").any():
        raise ValueError(f"codes: expected one code for each station, not all unknown, found shape {codes.shape}")
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, found {share!r}")
    rng = np.random.default_rng(seed)
    told = np.zeros(codes.shape, dtype=bool)
    for name in np.unique(codes[codes != ""]):
        stations = np.flatnonzero(codes == name)
        told[rng.choice(stations, max(1, round(share * stations.size)), replace=False)] = True
    return told


def elevation_graph(
    lat: ArrayLike,
    lon: ArrayLike,
    elevation: ArrayLike,
    k: int = 8,
    km_per_metre: float = 0.2,
    length_scale: float | None = None,
) -> Data:
    """Connect each station with the k that are nearest when height counts as distance.

    ``D² = d² + (γ Δz)²`` with d the great-circle distance in km, Δz the difference in height in m and γ in km/m;
    weights ``exp(-D² / 2 l²)``. With γ = 0.2 a climb of 500 m is as far as 100 km on the plain.

    Args:
        lat, lon: (stations,) degrees north and east.
        elevation: (stations,) m.
        k: neighbours of each station, capped at the number of other stations.
        km_per_metre: γ; 0 forgets the height.
        length_scale: l in km; by default the mean D of the edges.

    Returns:
        An undirected graph as those of :mod:`stgcn_lab.graphs`; ``edge_distance`` is d.

    Raises:
        ValueError: for impossible coordinates or heights, k below 1, negative γ or a length scale not above 0.
    """
    lat, lon = _stations(lat, lon)
    height = np.asarray(elevation, dtype=np.float64)
    if height.shape != lat.shape or not np.isfinite(height).all():
        raise ValueError(
            f"elevation: expected a finite height in m for each of {lat.size} stations, found shape {height.shape} "
            f"with {np.count_nonzero(~np.isfinite(height))} not finite"
        )
    if not km_per_metre >= 0:
        raise ValueError(f"km_per_metre: expected a number of at least 0, found {km_per_metre!r}")
    k = min(whole_number(k, "k"), lat.size - 1)
    flat = great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    distance = np.hypot(flat, km_per_metre * (height[:, None] - height))
    others = distance.copy()
    np.fill_diagonal(others, np.inf)
    nearest = np.argsort(others, axis=1, kind="stable")[:, :k]
    source, target = _both_ways(np.stack([nearest.ravel(), np.repeat(np.arange(lat.size), k)], axis=1))
    far = distance[target, source]
    if length_scale is None:
        length_scale = max(float(far.mean()), 1.0) if far.size else 1.0
    elif not length_scale > 0:
        raise ValueError(f"length_scale: expected a distance above 0 km, found {length_scale!r}")
    return _build(lat, lon, source, target, edge_weight=np.exp(-0.5 * (far / length_scale) ** 2))


def fill_by_place(series: xr.DataArray) -> xr.DataArray:
    """Fill what is missing at a time from the stations that report, by a plane in latitude, longitude and height.

    ``x_i = b_0 + b_1 φ_i + b_2 λ_i + b_3 z_i``, least squares over the stations with a value, time by time. It is
    a simple reconstruction: the lapse rate of the month and its trend over the region.

    Args:
        series: (time, station) with coords lat, lon and ``elevation`` in m; NaN is missing. The first dim may be
            ``month``.

    Returns:
        The same without NaN; values that were there are untouched.

    Raises:
        TypeError, ValueError: without coordinates, or for a time with fewer than five values.
    """
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"series: expected an xarray DataArray (time, station), found {type(series).__name__}")
    if series.ndim != 2 or series.dims[1] != "station" or not {"lat", "lon", "elevation"} <= set(series.coords):
        raise ValueError(
            "series: expected dims (time, station) and coords lat, lon, elevation, "
            f"found dims {series.dims} and coords {sorted(map(str, series.coords))}"
        )
    place = np.stack([series[axis].values.astype(np.float64) for axis in ("lat", "lon", "elevation")], axis=1)
    if not np.isfinite(place).all():
        raise ValueError("series: expected finite lat, lon and elevation, found some that are not")
    spread = place.std(axis=0)
    place = (place - place.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.concatenate([np.ones((len(place), 1)), place], axis=1)
    filled = series.values.astype(np.float64).copy()
    for row in filled:
        there = np.isfinite(row)
        if there.all():
            continue
        if there.sum() <= design.shape[1]:
            raise ValueError(
                f"series: expected at least {design.shape[1] + 1} values at each time to fill the others from, "
                f"found {there.sum()}"
            )
        row[~there] = design[~there] @ np.linalg.lstsq(design[there], row[there], rcond=None)[0]
    return series.copy(data=filled)


def label_propagation(graph: Data, labels: ArrayLike, num_classes: int, alpha: float = 0.9) -> Array:
    """Let a few labels spread along the edges of a graph until nothing changes any more.

    ``F = (1 - α) (I - α S)^-1 Y``, the limit of ``F ← α S F + (1 - α) Y``, with ``S = D^-1/2 A D^-1/2`` and Y the
    labels as ones.

    Args:
        graph: undirected, N nodes.
        labels: (N,) class numbers from 0, and -1 where the class is unknown.
        num_classes: C.
        alpha: between 0 (nothing spreads) and 1 (labels are forgotten).

    Returns:
        (N, C) scores, at least 0; a row of zeros where no label can be reached. The class is the largest.

    Raises:
        TypeError, ValueError: for a malformed graph, labels or settings out of range, or a directed graph.

    Source: Zhou et al. (2004), section 2.
    """
    a = adjacency(graph)
    nodes = a.shape[0]
    labels = _labels(labels, nodes, num_classes)
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha: expected a number from 0 to below 1, found {alpha!r}")
    if abs(a - a.T).max() > 1e-6 * max(a.max(), 1e-30):
        raise ValueError("graph: expected an undirected graph, found edges without their way back at the same weight")
    told = np.flatnonzero(labels >= 0)
    one_hot = np.zeros((nodes, num_classes))
    one_hot[told, labels[told]] = 1.0
    system = sp.identity(nodes, format="csc") - alpha * _normalised(a)
    scores = (1 - alpha) * splu(sp.csc_matrix(system)).solve(one_hot)
    return np.maximum(scores, 0.0)  # rounding of values that are 0


def masked_cross_entropy(scores: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy over the stations whose class is told, and over no others.

    ``-1/|L| Σ_{i in L} log p_i(y_i)``, p the softmax of the scores. Class weights make it a weighted mean.

    Args:
        scores: (N, C) logits.
        labels: (N,) class numbers from 0, and -1 where the class is unknown.
        class_weights: (C,), or None.

    Returns:
        A scalar.

    Raises:
        ValueError: for other shapes, or if no class is told.

    Source: Kipf & Welling (2017), equation 10.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores, labels: expected (N, C) and (N,), found shapes {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    if not (labels >= 0).any():
        raise ValueError("labels: expected at least one class that is told (0 or more), found -1 everywhere")
    return F.cross_entropy(scores, labels, weight=class_weights, ignore_index=-1)


def fit_few_labels(
    model: nn.Module,
    score: Callable[[], Tensor],
    labels: ArrayLike,
    *,
    epochs: int = 60,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """Train a network on the few labelled stations of one map, and give the scores of all.

    All stations pass through the network at each step, since the labelled ones hear their neighbours; the loss
    sees the labelled ones alone. With so few labels none is spared for validation: the number of epochs is fixed.

    Args:
        model: trained in place.
        score: called without arguments, gives the model's logits (N, C), for example
            ``lambda: model(x, edge_index)``.
        labels: (N,) class numbers from 0, and -1 where the class is unknown.
        epochs: steps, each over all stations.
        learning_rate, weight_decay: of AdamW.
        seed: decides the dropout, not the model's initial weights.

    Returns:
        (N, C) logits of the trained network, without gradient.

    Raises:
        TypeError, ValueError: for a model without weights, or labels and settings out of range.
        FloatingPointError: if the loss is no longer a number.
    """
    epochs = whole_number(epochs, "epochs")
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise TypeError(f"model: expected a torch.nn.Module with weights, found {type(model).__name__}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: expected a number above 0, found {learning_rate!r}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    target: Any = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        for epoch in range(epochs):
            optimizer.zero_grad()
            logits = score()
            if target is None:
                target = torch.from_numpy(_labels(labels, *logits.shape)).to(logits.device)
            loss = masked_cross_entropy(logits, target)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss: found {loss.item()} in epoch {epoch}; is a value missing in the input?"
                )
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return score()


def _labels(labels: ArrayLike, nodes: int, num_classes: int) -> NDArray[np.int64]:
    num_classes = whole_number(num_classes, "num_classes")
    numbers = np.asarray(labels)
    if numbers.shape != (nodes,) or numbers.dtype.kind not in "iu":
        raise ValueError(f"labels: expected {nodes} whole numbers, found shape {numbers.shape} of {numbers.dtype}")
    if numbers.min() < -1 or numbers.max() >= num_classes:
        raise ValueError(
            f"labels: expected class numbers from 0 to {num_classes - 1} and -1 where unknown, "
            f"found {numbers.min()} to {numbers.max()}"
        )
    if (numbers < 0).all():
        raise ValueError("labels: expected at least one class that is told (0 or more), found -1 everywhere")
    return numbers.astype(np.int64)
