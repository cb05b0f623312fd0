"""Verification: how good a forecast was, and how sure one can be that it was better than another.

A forecast and what was observed are series (time, station) of the same times and stations. Pairs with a missing value
on either side are left out. A score is the mean over time at each station, unless ``dim`` asks for another mean:
``dim=("time", "station")`` for one number, ``dim="station"`` for one at each time, ``dim=()`` for the score of each
pair. With ``weights``, such as :func:`area_weights`, stations count as much as they say in a mean over stations.

Scores that the library `scores <https://scores.readthedocs.io>`_ has are computed by it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ._checks import whole_number

if TYPE_CHECKING:
    import pandas as pd

Dims = str | Sequence[str]
Array = NDArray[np.float64]


# ---------------------------------------------------------------------------- what is compared with what


def _check_field(field: xr.DataArray, name: str) -> None:
    if not isinstance(field, xr.DataArray):
        raise TypeError(f"{name}: expected an xarray DataArray (time, station), found {type(field).__name__}")
    if field.dims != ("time", "station"):
        raise ValueError(f"{name}: expected dims (time, station), found {field.dims}")
    if field.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, found dtype {field.dtype}")
    if field.size == 0:
        raise ValueError(f"{name}: expected at least one time and one station, found {dict(field.sizes)}")
    if infinite := int(np.isinf(field.values).sum()):
        raise ValueError(f"{name}: expected finite numbers, or NaN for a missing one, found {infinite} infinite ones")


def _common(observed: xr.DataArray, others: dict[str, xr.DataArray], truth: str = "observed") -> list[xr.DataArray]:
    """The others and, last, what was observed, in double precision, NaN wherever one of them is missing."""
    for name, field in {truth: observed, **others}.items():
        _check_field(field, name)
    time = observed["time"].values
    if len(time) > 1 and not (time[1:] > time[:-1]).all():
        raise ValueError(f"{truth}: expected times that increase, found unsorted or repeated ones")
    for name, field in others.items():
        for dim in ("time", "station"):
            here, there = field[dim].values, observed[dim].values
            if not np.array_equal(here, there):
                raise ValueError(
                    f"{name}: expected the {dim}s of {truth}, {len(there)} from {there[0]} to {there[-1]}, "
                    f"found {len(here)} from {here[0]} to {here[-1]}{'' if len(here) != len(there) else ', others'}; "
                    "choose them with .sel, NaN is for what is missing"
                )
    values = [field.values.astype(np.float64) for field in (*others.values(), observed)]
    there = np.logical_and.reduce([~np.isnan(x) for x in values])
    if not there.any():
        raise ValueError(f"{', '.join(others)}, {truth}: expected at least one pair without NaN, found none")
    return [observed.copy(data=np.where(there, x, np.nan)) for x in values]


def _check_spread(spread: Array, name: str = "spread") -> None:
    if (spread <= 0).any():
        raise ValueError(
            f"{name}: expected standard deviations above 0, found {int((spread <= 0).sum())} that are not, "
            f"the smallest {np.nanmin(spread):g}"
        )


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, found {level!r}")


def _check_dim(dim: Dims) -> list[str]:
    dims = [dim] if dim is None or isinstance(dim, str) else list(dim)
    if not set(dims) <= {"time", "station"}:
        raise ValueError(f"dim: expected 'time', 'station', both or (), found {dim!r}")
    return dims


def _station_weights(weights: ArrayLike | xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    if (
        isinstance(weights, xr.DataArray)
        and weights.dims == ("station",)
        and not np.array_equal(weights["station"].values, observed["station"].values)
    ):
        raise ValueError("weights: expected the stations of observed in their order, found others")
    values = np.asarray(weights, float)
    if values.shape != (observed.sizes["station"],) or not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(
            f"weights: expected one number of at least 0 for each of {observed.sizes['station']} stations, "
            f"found shape {values.shape}, smallest {values.min() if values.size else 'none'}"
        )
    if values.sum() == 0:
        raise ValueError("weights: expected at least one above 0, found none")
    return xr.DataArray(values, dims="station", coords={"station": observed["station"]})


def _reduction(dim: Dims, weights: ArrayLike | xr.DataArray | None, observed: xr.DataArray) -> dict[str, Any]:
    """``dim`` and ``weights`` as `scores` takes them."""
    dims = _check_dim(dim)
    if weights is None:
        return {"reduce_dims": dims} if dims else {"preserve_dims": "all"}
    if "station" not in dims:
        raise ValueError(f"weights: they are for a mean over stations, which dim={dim!r} does not ask for")
    return {"reduce_dims": dims, "weights": _station_weights(weights, observed)}


def _labelled(score: xr.DataArray, name: str, long_name: str, units: str | None) -> xr.DataArray:
    score = score.rename(name)
    score.attrs = {"long_name": long_name} | ({} if units is None else {"units": units})
    return score


# ---------------------------------------------------------------------------- forecasts of a number


def rmse(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Root mean square error, ``sqrt(mean (f - o)²)``.

    The error that one benchmark speaks of may be the root of the mean over everything, ``dim=("time", "station")``,
    and another's the mean of the stations' roots, :func:`mean_score`: they differ.

    Args:
        forecast, observed: (time, station), same units.
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), in the units of ``observed``; NaN where there is no pair.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, or no pair at all.
    """
    return _of_pairs("rmse", forecast, observed, dim, weights, "rmse", "root mean square error")


def mae(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean absolute error, ``mean |f - o|``.

    Args, Returns, Raises:
        As in :func:`rmse`.
    """
    return _of_pairs("mae", forecast, observed, dim, weights, "mae", "mean absolute error")


def bias(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean error, ``mean (f - o)``: above zero where the forecast is too high.

    Args, Returns, Raises:
        As in :func:`rmse`.
    """
    return _of_pairs("additive_bias", forecast, observed, dim, weights, "bias", "mean error")


def mape(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean absolute percentage error, ``100 mean |f - o| / |o|``: the usual measure of forecasts of demand.

    It makes sense for what is far from zero, and has a natural zero: not for degrees Celsius.

    Args:
        forecast, observed: (time, station), same units, no observation zero.
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), in per cent; NaN where there is no pair.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, an observation of zero, or no
            pair at all.
    """
    forecast, observed = _common(observed, {"forecast": forecast})
    _check_not_zero(observed.values)
    error = observed.copy(data=_LOSSES["mape"](forecast.values, observed.values))
    return _labelled(_mean(error, dim, weights), "mape", "mean absolute percentage error", "%")


def _check_not_zero(observed: Array) -> None:
    if zeros := int((observed == 0).sum()):
        raise ValueError(f"observed: expected no zero, which has no percentage, found {zeros}")


def _of_pairs(
    function: str,
    forecast: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims,
    weights: ArrayLike | xr.DataArray | None,
    name: str,
    long_name: str,
) -> xr.DataArray:
    """A score of the library's ``continuous`` family."""
    from scores import continuous

    forecast, observed = _common(observed, {"forecast": forecast})
    score = getattr(continuous, function)(forecast, observed, **_reduction(dim, weights, observed))
    return _labelled(score, name, long_name, observed.attrs.get("units"))


def acc(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climatology: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Anomaly correlation coefficient: the correlation of forecast and observed departures from the climatology.

    Their means are removed, so that it says nothing of the bias, and it says nothing of the amplitude either.
    Maps are compared with ``dim="station"``, and weights if the cells are not of one size.

    Args:
        forecast, observed: (time, station), same units.
        climatology: (time, station), for example :func:`stgcn_lab.baselines.climatology` of the training years.
        dim: what it is a correlation over: "time", "station" or both.
        weights: (station,) for a correlation over stations.

    Returns:
        What is left of (time, station), from -1 to 1; NaN where one of the two does not vary.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, or no pair at all.
    """
    forecast, climatology, observed = _common(observed, {"forecast": forecast, "climatology": climatology})
    reduction = _reduction(dim, weights, observed)
    if "reduce_dims" not in reduction:
        raise ValueError("dim: expected 'time', 'station' or both, found (); one pair has no correlation")
    with np.errstate(invalid="ignore", divide="ignore"):
        # scores.continuous.correlation.pearsonr is this function of xarray, without its weights.
        score = xr.corr(
            forecast - climatology, observed - climatology, reduction["reduce_dims"], reduction.get("weights")
        )
    return _labelled(score, "acc", "anomaly correlation", "1")


def skill_score(score: Any, reference: Any, perfect: float = 0.0) -> Any:
    """How much of the way from the reference to the perfect score a forecast goes: ``(s - r) / (p - r)``.

    One is perfect, zero no better than the reference, below zero worse. For errors, whose perfect score is zero, it
    is ``1 - s / r``. The skill of a mean is not the mean of the skills: average the scores first.

    Args:
        score, reference: numbers or arrays of a score, of the forecast and of what it is compared with.
        perfect: the score of a perfect forecast.

    Returns:
        The skill, of the shape of the scores; NaN where the reference is perfect.
    """
    if isinstance(score, xr.DataArray) or isinstance(reference, xr.DataArray):
        distance = xr.where(reference == perfect, np.nan, perfect - reference)
        return _labelled((score - reference) / distance, "skill", "skill score", "1")
    distance = np.where(np.equal(reference, perfect), np.nan, np.subtract(perfect, reference))
    skill = np.subtract(score, reference) / distance
    return float(skill) if np.ndim(skill) == 0 else skill


# ---------------------------------------------------------------------------- forecasts with their uncertainty


def _crps_normal(mean: Array, spread: Array, observed: Array) -> Array:
    from scipy.special import ndtr

    z = (observed - mean) / spread
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return spread * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))


def _mean(values: xr.DataArray, dim: Dims, weights: ArrayLike | xr.DataArray | None) -> xr.DataArray:
    reduction = _reduction(dim, weights, values)
    weighted = values.weighted(reduction["weights"]) if "weights" in reduction else values
    return weighted.mean(reduction.get("reduce_dims", ()))


def crps_gaussian(
    mean: xr.DataArray,
    spread: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Continuous ranked probability score of Gaussian forecasts: the absolute error, for a forecast that is unsure.

    ``CRPS = ∫ (F(x) - 1{x ≥ o})² dx = σ [z (2 Φ(z) - 1) + 2 φ(z) - 1/√π]``, ``z = (o - μ) / σ``. Smallest on
    average for the forecast that is as unsure as it should be; as σ goes to zero it becomes ``|μ - o|``.

    Args:
        mean, spread: (time, station), μ and standard deviation σ of each forecast, in the units of ``observed``.
        observed: (time, station).
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), in the units of ``observed``.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, a spread that is not above 0, or
            no pair at all.

    Source: Gneiting, Raftery, Westveld & Goldman (2005), doi:10.1175/MWR2904.1.
    """
    mean, spread, observed = _common(observed, {"mean": mean, "spread": spread})
    _check_spread(spread.values)
    score = observed.copy(data=_crps_normal(mean.values, spread.values, observed.values))
    return _labelled(
        _mean(score, dim, weights), "crps", "continuous ranked probability score", observed.attrs.get("units")
    )


def interval_miss_rate(
    mean: xr.DataArray,
    spread: xr.DataArray,
    observed: xr.DataArray,
    level: float = 0.95,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Share of what was observed that lies outside the central interval of Gaussian forecasts.

    Right is ``1 - level``: more, and the forecast is too sure of itself; less, and it is not sure enough.

    Args:
        mean, spread: (time, station), mean and standard deviation of each forecast, in the units of ``observed``.
        observed: (time, station).
        level: probability of the interval.
        dim: what the mean is taken over; ``("time", "station")`` gives one number.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), from 0 to 1.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, a spread that is not above 0, a
            level that is not between 0 and 1, or no pair at all.
    """
    from scipy.special import ndtri

    _check_level(level)
    mean, spread, observed = _common(observed, {"mean": mean, "spread": spread})
    _check_spread(spread.values)
    distance = abs(observed - mean) / spread
    outside = (distance > ndtri((1 + level) / 2)).astype(float).where(distance.notnull())
    return _labelled(_mean(outside, dim, weights), "miss_rate", f"share outside the {level:.0%} interval", "1")


def _members(members: xr.DataArray, observed: xr.DataArray, dim: str = "member") -> tuple[xr.DataArray, xr.DataArray]:
    """An ensemble and what was observed, NaN wherever a member or the observation is missing."""
    if not isinstance(members, xr.DataArray):
        raise TypeError(f"{dim}s: expected an xarray DataArray ({dim}, time, station), found {type(members).__name__}")
    if members.dims != (dim, "time", "station") or members.sizes[dim] == 0:
        raise ValueError(
            f"{dim}s: expected dims ({dim}, time, station), at least one {dim}, found {dict(members.sizes)}"
        )
    each = {f"{dim}s[{k}]": members[k] for k in range(members.sizes[dim])}
    *fields, observed = _common(observed, each)
    return xr.concat(fields, dim=members[dim], coords="minimal", compat="override"), observed


def crps_ensemble(
    members: xr.DataArray,
    observed: xr.DataArray,
    fair: bool = False,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Continuous ranked probability score of an ensemble, ``mean |x_i - o| - 1/2 mean |x_i - x_j|``.

    Args:
        members: (member, time, station), forecasts that are equally likely.
        observed: (time, station).
        fair: whether the members are a sample of the distribution that is judged, rather than all of it: then the
            second mean leaves out i = j, and a small ensemble is not blamed for being small.
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), in the units of ``observed``.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, a fair score of one member, or no
            pair at all.

    Source: Ferro (2014), doi:10.1002/qj.2270.
    """
    from scores import probability

    members, observed = _members(members, observed)
    if fair and members.sizes["member"] < 2:
        raise ValueError("members: expected at least two for the fair score, found one")
    method = "fair" if fair else "ecdf"
    score = probability.crps_for_ensemble(members, observed, "member", method=method, preserve_dims="all")
    return _labelled(
        _mean(score, dim, weights), "crps", "continuous ranked probability score", observed.attrs.get("units")
    )


def rank_histogram(members: xr.DataArray, observed: xr.DataArray, dim: Dims = ("time", "station")) -> xr.DataArray:
    """How often what was observed has each rank among the members of an ensemble.

    Flat if what was observed could be one more member; a valley (too often outside of all) if the ensemble is too
    narrow, a hill if it is too wide, a slope if it is biased.

    Args:
        members: (member, time, station).
        observed: (time, station).
        dim: what is counted together.

    Returns:
        Shares that sum to one, over ``rank`` = 1 (below all members) to members + 1, and what is left of
        (time, station). Ties count for all their ranks in equal parts.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, or no pair at all.

    Source: Hamill (2001), doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.
    """
    from scores import probability

    members, observed = _members(members, observed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered a NaN", UserWarning)  # these pairs are left out, as told
        share = probability.rank_histogram(members, observed, "member", **_reduction(dim, None, observed))
    return _labelled(share, "share", "share of observations", "1")


def pinball(
    quantiles: xr.DataArray,
    observed: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Pinball loss of forecast quantiles, ``mean max(τ (o - q), (τ - 1) (o - q))``: smallest for the right ones.

    Too low costs τ for each unit, too high 1 - τ: for τ = 1/2 half the absolute error, for τ = 0.9 nine times as much
    for a forecast that is too low. Twice its mean over many equally spaced quantiles comes near to the CRPS.

    Args:
        quantiles: (quantile, time, station), the forecasts; the coordinate ``quantile`` holds the probabilities τ.
        observed: (time, station), same units.
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        Over ``quantile`` and what is left of (time, station), in the units of ``observed``.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, no coordinate of probabilities
            between 0 and 1, or no pair at all.

    Source: Koenker & Bassett (1978), doi:10.2307/1913643.

    Example of how much lower it is than that of another forecast, with the interval, of the same pairs::

        daily = (pinball(q, observed, dim="station").mean("quantile").values for q in (mine, other))
        block_bootstrap(lambda a, b: a - b, *daily, block_length=15, of_means=True)
    """
    from scores.continuous import quantile_score

    quantiles, observed = _members(quantiles, observed, "quantile")
    levels = np.asarray(quantiles["quantile"].values)
    if levels.dtype.kind != "f" or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles: expected probabilities between 0 and 1 as coordinate quantile, found {levels}")
    options = _reduction(dim, weights, observed)
    losses = [quantile_score(one, observed, float(tau), **options) for one, tau in zip(quantiles, levels, strict=True)]
    score = xr.concat(losses, dim=quantiles["quantile"], coords="minimal", compat="override")
    return _labelled(score, "pinball", "pinball loss", observed.attrs.get("units"))


# ---------------------------------------------------------------------------- forecasts of an event


def _probability_and_event(probability: xr.DataArray, event: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    probability, event = _common(event, {"probability": probability}, truth="event")
    _check_probability(probability.values, "probability")
    _check_binary(event.values, "event")
    return probability, event


def _check_probability(values: Array, name: str) -> None:
    if np.nanmin(values) < 0 or np.nanmax(values) > 1:
        raise ValueError(f"{name}: expected from 0 to 1, found {np.nanmin(values):g} to {np.nanmax(values):g}")


def _check_binary(values: Array, name: str) -> None:
    if not (np.isnan(values) | (values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name}: expected 0 or 1, false or true, found numbers from {np.nanmin(values):g} to {np.nanmax(values):g}"
        )


def brier(
    probability: xr.DataArray,
    event: xr.DataArray,
    dim: Dims = "time",
    weights: ArrayLike | xr.DataArray | None = None,
) -> xr.DataArray:
    """Brier score, the mean square error of a probability, ``mean (p - e)²``.

    Args:
        probability: (time, station), of the event, from 0 to 1.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows.
        dim: what the mean is taken over: "time", "station", both, or () for none.
        weights: (station,) for a mean over stations.

    Returns:
        What is left of (time, station), from 0 (perfect) to 1.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no probabilities
            or no events, or no pair at all.
    """
    from scores import probability as scores_probability

    probability, event = _probability_and_event(probability, event)
    score = scores_probability.brier_score(probability, event, **_reduction(dim, weights, event))
    return _labelled(score, "brier", "Brier score", "1")


def reliability(
    probability: xr.DataArray,
    event: xr.DataArray,
    bins: int | ArrayLike = 10,
    *,
    resamples: int = 0,
    block_length: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """How often the event took place when it was forecast with a probability of so much.

    Args:
        probability: (time, station), of the event, from 0 to 1.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows.
        bins: how many bins of equal width, or their edges from 0 to 1. A value on an edge belongs to the bin above.
        resamples: of :func:`block_bootstrap`, for intervals; none if 0.
        block_length: steps in a block; by default that of :func:`compare`.
        level, seed: of the intervals.

    Returns:
        Over ``bin``: ``probability``, the mean forecast in the bin, ``frequency``, the share of events, with
        ``low`` and ``high``, the ends of its interval, if there are resamples, and ``count``, how many pairs;
        coords ``lower`` and ``upper``, the edges. NaN for an empty bin.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no probabilities
            or no events, edges that do not rise from 0 to 1, or no pair at all.
    """
    probability, event = _probability_and_event(probability, event)
    if np.ndim(bins) == 0:
        edges = np.linspace(0, 1, whole_number(bins, "bins") + 1)
    else:
        edges = np.asarray(bins, float)
        if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not (np.diff(edges) > 0).all():
            raise ValueError(f"bins: expected a number of bins, or edges that rise from 0 to 1, found {bins!r}")
    there = event.notnull().values
    forecast, happened = probability.values[there], event.values[there]
    number, steps = len(edges) - 1, len(there)
    place = np.clip(np.searchsorted(edges, forecast, side="right") - 1, 0, number - 1)
    cell = np.nonzero(there)[0] * number + place
    # Sums in each bin at each time: their means over time say all, and can be drawn again.
    count, forecast, happened = (
        np.bincount(cell, values, minlength=steps * number).astype(float).reshape(steps, number)
        for values in (np.ones(len(cell)), forecast, happened)
    )
    frequency = _of_means(_ratio, [happened, count], event, resamples, block_length, level, seed)
    found = {"probability": _ratio(forecast.sum(axis=0), count.sum(axis=0))}
    found |= dict(zip(("frequency", "low", "high"), frequency, strict=False))
    found["count"] = count.sum(axis=0).astype(int)
    table = xr.Dataset(
        {name: ("bin", values) for name, values in found.items()},
        coords={"lower": ("bin", edges[:-1]), "upper": ("bin", edges[1:])},
    )
    table["probability"].attrs = {"long_name": "forecast probability", "units": "1"}
    table["frequency"].attrs = {"long_name": "observed frequency", "units": "1"}
    table["count"].attrs = {"long_name": "number of forecasts", "units": "1"}
    return table


def contingency(
    forecast_event: xr.DataArray, event: xr.DataArray, dim: Dims = "time", threshold: float | None = None
) -> xr.Dataset:
    """Scores of yes-or-no forecasts, from their table of hits, misses and false alarms.

    Their intervals are an example of :func:`block_bootstrap`.

    Args:
        forecast_event: (time, station), whether the event was forecast: 1 or 0, NaN where there is no forecast.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows.
        dim: what is counted together.
        threshold: the event is forecast where ``forecast_event``, which may then be a probability, is at least this.
            (``probability >= threshold`` itself makes "not forecast" of what is missing.)

    Returns:
        ``hits``, ``misses``, ``false_alarms``, ``correct_negatives`` (counts) and ``probability_of_detection``
        h / (h + m), ``false_alarm_ratio`` f / (h + f), ``false_alarm_rate`` f / (f + n), ``critical_success_index``
        h / (h + m + f), ``frequency_bias`` (h + f) / (h + m), ``equitable_threat_score`` (the index less the hits of
        chance) and ``peirce_skill_score`` (detection minus false alarm rate), each over what is left of
        (time, station). NaN where a score divides by zero.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no events, or no
            pair at all.
    """
    from scores.categorical import BinaryContingencyManager

    forecast_event, event = _common(event, {"forecast_event": forecast_event}, truth="event")
    if threshold is not None:
        number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
        if not number or not np.isfinite(threshold):
            raise ValueError(f"threshold: expected a number, found {threshold!r}")
        forecast_event = forecast_event >= threshold  # the event is NaN already where this was
    _check_binary(forecast_event.values, "forecast_event")
    _check_binary(event.values, "event")
    table = BinaryContingencyManager(forecast_event, event).transform(**_reduction(dim, None, event))
    counts = table.get_counts()
    names = {"hits": "tp", "misses": "fn", "false_alarms": "fp", "correct_negatives": "tn"}
    found = {name: counts[f"{key}_count"].astype(int) for name, key in names.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        found |= {
            "probability_of_detection": table.probability_of_detection(),
            "false_alarm_ratio": table.false_alarm_ratio(),
            "false_alarm_rate": table.false_alarm_rate(),
            "critical_success_index": table.critical_success_index(),
            "frequency_bias": table.frequency_bias(),
            "equitable_threat_score": table.equitable_threat_score(),
            "peirce_skill_score": table.peirce_skill_score(),
        }
    # A bias of so many forecasts for no event at all is no number.
    found = {name: score.where(np.isfinite(score)) for name, score in found.items()}
    return xr.Dataset({name: _labelled(score, name, name.replace("_", " "), "1") for name, score in found.items()})


def _both_kinds(probability: xr.DataArray, event: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    probability, event = _probability_and_event(probability, event)
    yes, no = (int((event == kind).sum()) for kind in (1, 0))
    if not (yes and no):
        raise ValueError(f"event: expected some 1 and some 0, found {yes} and {no}")
    return probability, event


def _acted(probability: xr.DataArray, event: xr.DataArray, thresholds: Array) -> list[Array]:
    """At each time, how many stations have a hit and a false alarm (time, threshold), an event and none (time, 1)."""
    kinds = [(event == kind).values for kind in (1, 0)]
    acted = [[(kind & (probability.values >= t)).sum(axis=1, dtype=float) for t in thresholds] for kind in kinds]
    return [np.stack(counts, axis=1) for counts in acted] + [kind.sum(axis=1, keepdims=True) for kind in kinds]


def roc(
    probability: xr.DataArray,
    event: xr.DataArray,
    thresholds: ArrayLike | None = None,
    *,
    resamples: int = 0,
    block_length: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Relative operating characteristic: detection against false alarms, for everyone who acts at some probability.

    Its area is the chance that an event was given a higher probability than a time without one: 1/2 for a forecast
    that can't tell them apart. It asks for the order of the probabilities alone; :func:`reliability` asks the rest.

    Args:
        probability: (time, station), of the event, from 0 to 1.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows; all stations count together.
        thresholds: rising probabilities; the event is forecast at and above them. By default 200 quantiles of
            the forecasts for events, and as many of those for none: all there is to know of so many events, and
            nearly all of more.
        resamples: of :func:`block_bootstrap`, for an interval of the area; none if 0.
        block_length: steps in a block; by default that of :func:`compare`.
        level, seed: of the interval.

    Returns:
        Over ``threshold``, which starts at 0 (always) and ends at infinity (never): ``probability_of_detection`` and
        ``false_alarm_rate``; ``area``, that under the straight lines between these points, and ``area_low`` and
        ``area_high`` if there are resamples.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no probabilities
            or no events, no event or nothing else, or thresholds that are no rising probabilities.

    Source: Mason & Graham (2002), doi:10.1256/003590002320603584.
    """
    probability, event = _both_kinds(probability, event)
    if thresholds is None:
        kinds = [probability.values[event.values == kind] for kind in (0, 1)]
        parts = [np.quantile(x, np.linspace(0, 1, 201), method="inverted_cdf") for x in kinds]
        # Both sides of an event's probability: the curve has a step there, and neither corner stands for it alone.
        inner = np.unique([*parts, np.nextafter(parts[1], 1)])
    else:
        inner = np.atleast_1d(np.asarray(thresholds, float))
        if inner.ndim != 1 or not ((inner >= 0) & (inner <= 1)).all() or (np.diff(inner) <= 0).any():
            raise ValueError(f"thresholds: expected rising probabilities, found {thresholds!r}")
    edges = np.concatenate([[0.0], inner[inner > 0], [np.inf]])
    counts = _acted(probability, event, edges)

    def area(hits: Array, false_alarms: Array, events: Array, others: Array) -> Array:
        detected, alarmed = _ratio(hits, events), _ratio(false_alarms, others)
        return ((detected[:, 1:] + detected[:, :-1]) / 2 * -np.diff(alarmed)).sum(axis=1)

    areas = _of_means(area, counts, event, resamples, block_length, level, seed)
    hits, false_alarms, events, others = (count.sum(axis=0) for count in counts)
    curve = {
        "probability_of_detection": ("threshold", hits / events),
        "false_alarm_rate": ("threshold", false_alarms / others),
    } | dict(zip(("area", "area_low", "area_high"), areas, strict=False))
    found = xr.Dataset(curve, coords={"threshold": edges})
    return found.map(lambda score: _labelled(score, str(score.name), str(score.name).replace("_", " "), "1"))


def economic_value(
    probability: xr.DataArray,
    event: xr.DataArray,
    ratios: ArrayLike,
    reference: xr.DataArray | None = None,
    thresholds: ArrayLike | None = None,
    *,
    resamples: int = 0,
    block_length: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> xr.DataArray:
    """Relative economic value of a forecast for those who can protect themselves, at a cost, against a loss.

    Who acts pays the cost; who doesn't and is hit by the event pays the loss. With the ratio α = cost / loss, rate o
    of the event and share h of hits, f of false alarms among all forecasts, the mean expense is ``α (h + f) + o - h``
    of a loss. The value is how much of the way it goes from the expense without the forecast, ``min(α, o)``, of the
    better of acting always and never, to that of perfect knowledge, ``α o``.

    Args:
        probability: (time, station), of the event, from 0 to 1.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows; all stations count together.
        ratios: (ratio,) costs of acting in units of the loss, between 0 and 1.
        reference: (time, station), another probability: the value then is that of knowing ``probability`` for those
            who would act on this one at the same thresholds, 0 if it helps them nothing.
        thresholds: (ratio,) or one number: act at a probability at least so high. By default the ratio itself, which
            is right if the probability is.
        resamples: of :func:`block_bootstrap`, for intervals; none if 0.
        block_length: steps in a block; by default that of :func:`compare`.
        level, seed: of the intervals.

    Returns:
        (ratio,) value: 1 perfect, 0 as without the forecast, below 0 worse than that; NaN where the reference is
        perfect. The rate o is that of the sample itself, which nobody knows beforehand: hard to beat. If there are
        resamples, coordinates ``low`` and ``high`` hold the ends of the intervals.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no probabilities
            or no events, no event or nothing else, or ratios or thresholds that are not between 0 and 1.

    Source: Richardson (2000), doi:10.1002/qj.49712656313.
    """
    alpha = np.atleast_1d(np.asarray(ratios, float))
    if alpha.ndim != 1 or not alpha.size or not ((alpha > 0) & (alpha < 1)).all():
        raise ValueError(f"ratios: expected numbers between 0 and 1, found {ratios!r}")
    act = alpha if thresholds is None else np.asarray(thresholds, float)
    if act.shape not in ((), alpha.shape) or not ((act >= 0) & (act <= 1)).all():
        raise ValueError(f"thresholds: expected one probability, or one for each ratio, found {thresholds!r}")
    act = np.broadcast_to(act, alpha.shape)
    if reference is not None:
        probability, reference, event = _common(event, {"probability": probability, "reference": reference}, "event")
        _check_probability(reference.values, "reference")
    probability, event = _both_kinds(probability, event)
    counts = _acted(probability, event, act)
    if reference is not None:
        counts += _acted(reference, event, act)[:2]

    def value(hits: Array, alarms: Array, events: Array, others: Array, *rival: Array) -> Array:
        def expense(hits: Array, alarms: Array) -> Array:
            return alpha * (hits + alarms) + (events - hits)

        before = expense(*rival) if rival else np.minimum(alpha * (events + others), events)
        return _ratio(before - expense(hits, alarms), before - alpha * events)

    names = ("value", "low", "high")
    found = dict(zip(names, _of_means(value, counts, event, resamples, block_length, level, seed), strict=False))
    bounds = {name: ("ratio", found[name]) for name in names[1:] if name in found}
    made = xr.DataArray(found["value"], dims="ratio", coords={"ratio": alpha} | bounds)
    made["ratio"].attrs = {"long_name": "cost of acting / loss", "units": "1"}
    return _labelled(made, "value", "relative economic value", "1")


def _ratio(top: Array, bottom: Array) -> Array:
    """NaN where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan), where=bottom > 0)


# ---------------------------------------------------------------------------- means over an area


def area_weights(grid: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Share of the area that each cell of a regular grid has, exactly: ``sin(φ + d/2) - sin(φ - d/2)``.

    A cell reaches half a step d to the north and the south of its middle, also at the edge of a region; only a pole
    cuts it off. The cosine of the latitude comes near, except at a pole, where it leaves no area at all.

    Args:
        grid: with dims lat and lon, or with the stations that :func:`stgcn_lab.datasets.grid_to_nodes` makes of
            them, all or some.

    Returns:
        (lat, lon) or (station,), sum 1.

    Raises:
        TypeError: not xarray.
        ValueError: no coordinates lat and lon, impossible latitudes, or places that are no regular grid.
    """
    if not isinstance(grid, (xr.DataArray, xr.Dataset)):
        raise TypeError(f"grid: expected an xarray DataArray or Dataset, found {type(grid).__name__}")
    dims = [tuple(grid[axis].dims) if axis in grid.coords else None for axis in ("lat", "lon")]
    if dims not in ([("lat",), ("lon",)], [("station",), ("station",)]):
        raise ValueError(f"grid: expected coordinates lat and lon, along themselves or station, found dims {dims}")
    lat, lon = grid["lat"].values.astype(float), grid["lon"].values.astype(float)
    if lat.size == 0 or lon.size == 0 or not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise ValueError("grid: expected finite latitudes and longitudes, at least one")
    if np.abs(lat).max() > 90:
        raise ValueError(f"grid: expected latitudes from -90 to 90, found {lat[np.abs(lat).argmax()]:g}")
    # Cells of one width have areas in proportion to their height; the widest gap lies outside of the region.
    east = np.unique(np.round(lon, 6) % 360)
    _step(np.sort(np.diff(east, append=east[0] + 360))[:-1], "longitudes")
    step = _step(np.diff(np.unique(np.round(lat, 6))), "latitudes")
    south, north = np.deg2rad(np.clip([lat - step / 2, lat + step / 2], -90, 90))
    area = np.sin(north) - np.sin(south) if step else np.ones(lat.size)
    share = xr.DataArray(area, dims=grid["lat"].dims, coords={"lat": grid["lat"]})
    if "station" in share.dims:
        share = share.assign_coords({name: grid[name] for name in ("station", "lon") if name in grid.coords})
    else:
        share = share * xr.ones_like(grid["lon"], dtype=float)
    return _labelled(share / share.sum(), "weight", "share of the area", "1")


def _step(gaps: Array, name: str) -> float:
    """The step of a regular axis, some places of which may be missing; 0 for a single place."""
    if gaps.size == 0:
        return 0.0
    # Single precision keeps a ten-thousandth of a small step, no more: neighbours may differ in rounding alone.
    step = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    if (np.abs(gaps / step - np.round(gaps / step)) > 0.02).any():
        raise ValueError(
            f"grid: expected {name} at equal steps, found gaps from {gaps.min():g} to {gaps.max():g} degrees"
        )
    return step


# ---------------------------------------------------------------------------- is it better?


class Interval(NamedTuple):
    """A number, or an array of them, with the interval that its true value is in, as far as so many days can tell."""

    value: Any
    low: Any
    high: Any


def _resamples(steps: int, block_length: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows (some resamples, steps) of a circular block bootstrap, a few megabytes at a time."""
    starts = np.random.default_rng(seed).integers(steps, size=(resamples, -(-steps // block_length)))
    for part in np.array_split(starts, min(resamples, max(1, resamples * steps // 1_000_000))):
        rows = (part[:, :, None] + np.arange(block_length)) % steps
        yield rows.reshape(len(part), -1)[:, :steps]


def _means(rows: NDArray[np.int64], array: Array) -> Array:
    """Mean over the drawn rows of an array (time, ...), NaN passed over: (resample, ...)."""
    steps, shape = len(array), array.shape[1:]
    flat = array.reshape(steps, -1)
    # How often each row was drawn: then all the means are one product of matrices.
    cells = rows + steps * np.arange(len(rows))[:, None]
    drawn = np.bincount(cells.ravel(), minlength=len(rows) * steps).reshape(len(rows), steps).astype(float)
    there = ~np.isnan(flat)
    number = np.full((len(rows), 1), float(steps)) if there.all() else drawn @ there
    return _ratio(drawn @ np.where(there, flat, 0), number).reshape(len(rows), *shape)


def block_bootstrap(
    statistic: Callable[..., Any],
    *arrays: ArrayLike | xr.DataArray,
    block_length: int,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    of_means: bool = False,
) -> Interval:
    """A statistic of series with its interval, by drawing blocks of time again and again.

    Neighbouring days resemble each other, so that n days tell less than n independent ones would. Blocks of days
    that follow each other are drawn with replacement until there are as many days as before, the same ones from all
    arrays; the last day is followed by the first. The interval holds the middle ``level`` of the statistic of these
    series.

    Args:
        statistic: takes the arrays, resampled in time, and returns one number, or an array of them; with ``of_means``
            it takes the means over time of each array, NaN passed over, (resample, ...), and returns (resample,) or
            (resample, ...), which is faster.
        arrays: (time, ...), of the same number of times.
        block_length: steps in a block, longer than what links the errors of neighbouring times.
        resamples: how many series are drawn.
        level: probability of the interval.
        seed: of the draws.
        of_means: whether the statistic is a function of means over time.

    Returns:
        (value, low, high), the value that of the series themselves; arrays if the statistic is one, each number of
        it with an interval of its own. Draws that give NaN are passed over.

    Raises:
        ValueError: for no array, arrays of different lengths, a block longer than half of the series, or a statistic
            that returns no number.

    Source: Politis & Romano (1992), A circular block-resampling procedure for stationary data; Künsch (1989),
    doi:10.1214/aos/1176347265.

    Example of the mean over stations of the root mean square error::

        squares = ((forecast - observed) ** 2).values
        block_bootstrap(lambda m: np.sqrt(m).mean(axis=1), squares, block_length=14, of_means=True)

    Example of scores of a yes-or-no forecast, which are functions of means of counts; detection, false alarm ratio
    and critical success index at once::

        def rates(hits, misses, alarms):
            return np.stack([hits / (hits + misses), alarms / (hits + alarms), hits / (hits + misses + alarms)], axis=1)

        counts = contingency(probability, event, dim="station", threshold=0.3)  # at each time
        daily = (counts[name] for name in ("hits", "misses", "false_alarms"))
        value, low, high = block_bootstrap(rates, *daily, block_length=15, of_means=True)

    Example of the Brier skill of one probability over another, paired::

        losses = (brier(p, event, dim=()).values for p in (probability, reference))
        block_bootstrap(lambda a, b: 1 - a.mean(axis=1) / b.mean(axis=1), *losses, block_length=15, of_means=True)
    """
    _check_level(level)
    resamples, seed = whole_number(resamples, "resamples"), whole_number(seed, "seed", least=0)
    if not arrays:
        raise ValueError("arrays: expected at least one, found none")
    # Values only: a day that is drawn twice would be a label that xarray finds twice.
    series = [np.asarray(array) for array in arrays]
    lengths = [len(x) if x.ndim else 0 for x in series]
    if min(lengths) != max(lengths) or lengths[0] < 2:
        raise ValueError(f"arrays: expected the same number of times, at least 2, found {lengths}")
    block_length = whole_number(block_length, "block_length")
    if block_length > lengths[0] // 2:
        raise ValueError(
            f"block_length: expected at most half of the {lengths[0]} times, found {block_length}; "
            "of fewer than two blocks there is nothing to draw"
        )
    if of_means:

        def values(rows: NDArray[np.int64]) -> Array:
            return np.asarray(statistic(*(_means(rows, x.astype(np.float64)) for x in series)), float)
    else:

        def values(rows: NDArray[np.int64]) -> Array:
            return np.asarray([statistic(*(x[drawn] for x in series)) for drawn in rows], float)

    value = values(np.arange(lengths[0])[None])
    if value.shape[:1] != (1,):
        raise ValueError(f"statistic: expected (resample,) or (resample, ...), found shape {value.shape}")
    draws = np.concatenate([values(rows) for rows in _resamples(lengths[0], block_length, resamples, seed)])
    draws = np.where(np.isnan(value), np.nan, draws)
    if np.isnan(draws).all():
        raise ValueError("statistic: expected a number, found NaN")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(*(float(x) if x.ndim == 0 else x for x in (value[0], low, high)))


def _of_means(
    statistic: Callable[..., Array],
    arrays: Sequence[Array],
    event: xr.DataArray,
    resamples: int,
    block_length: int | None,
    level: float,
    seed: int,
) -> tuple[Any, ...]:
    """A function of means over time, alone or, if there are resamples, with the ends of its interval."""
    inside = _inside(event)
    if whole_number(resamples, "resamples", least=0) == 0:
        return (statistic(*(array[inside].mean(axis=0)[None] for array in arrays))[0],)
    block = _default_block(event["time"].values[inside]) if block_length is None else block_length
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    return block_bootstrap(statistic, *(x[inside] for x in arrays), block_length=block, of_means=True, **options)


def _inside(observed: xr.DataArray) -> slice:
    """From the first time with a pair to the last: others are no part of the sample."""
    rows = np.nonzero(observed.notnull().any("station").values)[0]
    return slice(rows[0], rows[-1] + 1)


def _default_block(time: NDArray[Any], lead: int = 1) -> int:
    """The cube root of the number of steps, at least a day and the lead time, at most a fifth of all."""
    steps = len(time)
    shortest = np.cbrt(steps)
    if steps > 1 and np.issubdtype(time.dtype, np.datetime64):
        shortest = max(shortest, np.timedelta64(1, "D") / np.median(np.diff(time)))
    return max(1, min(int(np.ceil(max(shortest, lead))), steps // 5))


#: What a benchmark can be of, by the key "measure" of an entry.
MEASURES = {
    "rmse": "root mean square error",
    "mse": "mean square error",
    "mae": "mean absolute error",
    "mape": "mean absolute percentage error",
    "brier": "Brier score",
}
_LOSSES: dict[str, Callable[..., Array]] = {
    "rmse": lambda forecast, observed: (forecast - observed) ** 2,
    "mse": lambda forecast, observed: (forecast - observed) ** 2,
    "mae": lambda forecast, observed: np.abs(forecast - observed),
    "mape": lambda forecast, observed: 100 * np.abs((forecast - observed) / observed),
    "brier": lambda forecast, observed: (forecast - observed) ** 2,
    "crps": _crps_normal,
}


def _check_score(score: str, known: Iterable[str] = _LOSSES, name: str = "score") -> None:
    if score not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, found {score!r}")


def _parts(forecast: Any, name: str, score: str) -> dict[str, xr.DataArray]:
    """What a forecast consists of, by the names that errors give it."""
    if score != "crps":
        return {name: forecast}
    if not isinstance(forecast, Sequence) or len(forecast) != 2:
        raise TypeError(f"{name}: expected (mean, spread) for the score crps, found {type(forecast).__name__}")
    return {f"{name}[0]": forecast[0], f"{name}[1]": forecast[1]}


def _scored(forecasts: dict[str, Any], observed: xr.DataArray, score: str) -> tuple[dict[str, Array], NDArray[Any]]:
    """Losses (time, station) of several forecasts on the pairs that all have, and their times."""
    parts = {name: _parts(forecast, name, score) for name, forecast in forecasts.items()}
    fields = _common(observed, {name: field for part in parts.values() for name, field in part.items()})
    inside = _inside(fields[-1])
    *values, truth = (field.values[inside] for field in fields)
    if score == "mape":
        _check_not_zero(truth)
    if score == "brier":
        _check_binary(truth, "observed")
    losses, position = {}, 0
    for name, part in parts.items():
        mine = values[position : position + len(part)]
        position += len(part)
        if score == "crps":
            _check_spread(mine[1], f"{name}[1]")
        if score == "brier":
            _check_probability(mine[0], name)
        losses[name] = _LOSSES[score](*mine, truth)
    return losses, observed["time"].values[inside]


def _over_stations(mean_loss: Array, score: str, weights: Array | None) -> Array:
    """Mean over the stations (last axis) of each station's score; stations without any pair are left out."""
    scores = np.sqrt(mean_loss) if score == "rmse" else mean_loss
    share = ~np.isnan(scores) * (np.ones(scores.shape[-1]) if weights is None else weights)
    return _ratio((np.nan_to_num(scores) * share).sum(axis=-1), share.sum(axis=-1))


def mean_score(
    forecast: xr.DataArray | Sequence[xr.DataArray],
    observed: xr.DataArray,
    score: str = "rmse",
    weights: ArrayLike | xr.DataArray | None = None,
) -> float:
    """The mean over stations of each station's score: one number for a forecast.

    Args:
        forecast: (time, station); for "crps" a pair (mean, spread) of them, for "brier" the probability of an event.
        observed: (time, station); for "brier" whether the event took place, 1 or 0.
        score: "rmse", "mse", "mae", "mape", "brier" or "crps".
        weights: (station,) how much each station counts; equal if not given.

    Returns:
        The score, in the units of ``observed`` ("mape": per cent); stations without a pair are left out.

    Raises:
        TypeError, ValueError: for another kind of series or score, other times or stations, or no pair at all.
    """
    _check_score(score)
    losses, _ = _scored({"forecast": forecast}, observed, score)
    return _mean_score(losses["forecast"], score, weights, observed)


def _mean_score(losses: Array, score: str, weights: ArrayLike | xr.DataArray | None, observed: xr.DataArray) -> float:
    share = None if weights is None else _station_weights(weights, observed).values
    return float(_over_stations(_means(np.arange(len(losses))[None], losses), score, share)[0])


def compare(
    forecast_a: xr.DataArray | Sequence[xr.DataArray],
    forecast_b: xr.DataArray | Sequence[xr.DataArray],
    observed: xr.DataArray,
    score: str = "rmse",
    block_length: int | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    weights: ArrayLike | xr.DataArray | None = None,
) -> Interval:
    """The score of one forecast minus that of another, with its interval: a below b if the interval is below zero.

    The two are compared on the pairs that both have, and in each resample of :func:`block_bootstrap` on the same
    days: what makes a day hard for both drops out, and a small difference can be seen under large errors. The scores
    are means over stations of each station's score, as :func:`mean_score` gives them.

    Args:
        forecast_a, forecast_b: (time, station); for "crps" pairs (mean, spread) of them, for "brier" probabilities.
        observed: (time, station); for "brier" whether the event took place, 1 or 0.
        score: "rmse", "mse", "mae", "mape", "brier" or "crps".
        block_length: steps in a block. By default the cube root of their number, the best order for a variance (Hall,
            Horowitz & Jing 1995, doi:10.1093/biomet/82.3.561; for the ends of an interval it is somewhat lower), and
            a day at least, since the errors of hourly forecasts go with the hour. Eight years of days give 15: longer
            than the few days that a weather system takes to pass. For forecasts of h steps ahead, whose errors
            overlap, give at least h.
        resamples, level, seed: of the bootstrap.
        weights: (station,) how much each station counts; equal if not given.

    Returns:
        (value, low, high), score of a minus score of b. The interval speaks of other days of the same kind, not of
        other trainings of the same model.

    Raises:
        TypeError, ValueError: for another kind of series or score, other times or stations, or no common pair.
    """
    _check_score(score)
    losses, time = _scored({"forecast_a": forecast_a, "forecast_b": forecast_b}, observed, score)
    share = None if weights is None else _station_weights(weights, observed).values

    def difference(a: Array, b: Array) -> Array:
        return _over_stations(a, score, share) - _over_stations(b, score, share)

    block = _default_block(time) if block_length is None else block_length
    options = {"resamples": resamples, "level": level, "seed": seed}
    return block_bootstrap(difference, *losses.values(), block_length=block, of_means=True, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- the leaderboard

KINDS = ("simple", "linear", "trees", "network")
_ENTRY = (
    "dataset", "model", "kind", "lead", "units", "score", "seeds", "spread", "ensemble", "difference",
    "ensemble_difference", "seconds", "parameters",
)  # fmt: skip
_COLUMNS = [
    "dataset", "lead", "model", "kind", "measure", "units", "score", "spread", "runs", "ensemble", "difference",
    "low", "high", "ensemble_difference", "ensemble_low", "ensemble_high", "seconds", "parameters",
]  # fmt: skip


def entry(
    dataset: str,
    model: str,
    forecasts: xr.DataArray | Sequence[xr.DataArray],
    observed: xr.DataArray,
    reference: xr.DataArray | None = None,
    *,
    lead: int,
    units: str,
    seconds: float,
    parameters: int | None = None,
    kind: str,
    block_length: int | None = None,
    score: str = "rmse",
) -> dict[str, Any]:
    """A line of the leaderboard: the scores of one model on one data set. A reader's own model enters through it.

    The score is the mean over stations of each station's score, the root mean square error if none other is asked
    for, on the pairs that all seeds have.

    Args:
        dataset: name of the data set and of the protocol, the same for all models that are compared.
        model: name of the model.
        forecasts: (time, station) at valid times, over the test period; for a model whose training depends on
            chance a list of them, one for each seed.
        observed: (time, station), what they are scored against, in the units that ``units`` names.
        reference: (time, station), forecast of the best linear model.
        lead: lead time in steps.
        units: of the score.
        seconds: training time of one seed.
        parameters: number of trained parameters, if it makes sense for the model.
        kind: "simple", "linear", "trees" or "network".
        block_length: of the bootstrap, in steps; by default that of :func:`compare`, and the lead time at least.
        score: "rmse", "mse", "mae", "mape" or "brier"; for the last ``forecasts`` and ``reference`` are probabilities
            of an event, and ``observed`` is whether it took place.

    Returns:
        A dict of plain numbers and names, ready for JSON, numbers rounded to five significant digits: ``measure``,
        the name of the score; ``score`` (mean over seeds) with ``seeds`` (each) and ``spread`` (their standard
        deviation, 0 for one); ``ensemble``, the score of the mean forecast (None for one); ``difference``, score minus
        that of the reference, and ``ensemble_difference``, each {"value", "low", "high"} with the 95 % interval of a
        paired block bootstrap, on the pairs that the reference has too (None without a reference).

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, no common pair, or values that
            are no names and numbers.

    Example::

        test = wind.sel(time=slice("1971", "1978"))
        runs = [train_mine(seed).sel(time=test.time) for seed in range(5)]  # forecasts at valid times
        line = entry(
            "irish-wind", "mine", runs, test, reference=var_forecast, lead=1, units="m s-1", seconds=31, kind="network"
        )
        json.dump({"entries": [line]}, open("benchmarks/mine.json", "w"))
    """
    for name, text in (("dataset", dataset), ("model", model), ("units", units)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}: expected a name, found {text!r}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    _check_score(score, MEASURES)
    lead = whole_number(lead, "lead")
    if parameters is not None:
        parameters = whole_number(parameters, "parameters", least=0)
    if not isinstance(seconds, (int, float, np.number)) or not 0 <= seconds < np.inf:
        raise ValueError(f"seconds: expected a number of at least 0, found {seconds!r}")
    runs = [forecasts] if isinstance(forecasts, xr.DataArray) else list(forecasts)
    if not runs:
        raise ValueError("forecasts: expected at least one, found none")
    names = ["forecasts"] if len(runs) == 1 else [f"forecasts[{i}]" for i in range(len(runs))]
    *members, truth = _common(observed, dict(zip(names, runs, strict=True)))
    losses, _ = _scored(dict(zip(names, members, strict=True)), truth, score)
    scores = [_mean_score(loss, score, None, truth) for loss in losses.values()]
    # The mean of all seeds: NaN already wherever one of them is missing.
    ensemble = truth.copy(data=np.mean([member.values for member in members], axis=0))

    def against_reference(candidates: list[xr.DataArray]) -> dict[str, float] | None:
        if reference is None:
            return None
        compared = {f"forecasts[{i}]": run for i, run in enumerate(candidates)} | {"reference": reference}
        losses, time = _scored(compared, truth, score)
        *mine, other = losses.values()
        block = _default_block(time, lead) if block_length is None else block_length

        def difference(mine: Array, other: Array) -> Array:
            return _over_stations(mine, score, None).mean(axis=1) - _over_stations(other, score, None)

        interval = block_bootstrap(difference, np.stack(mine, axis=1), other, block_length=block, of_means=True)
        return {name: _rounded(value) for name, value in interval._asdict().items()}

    several = len(runs) > 1
    return {
        "dataset": dataset,
        "model": model,
        "kind": kind,
        "lead": lead,
        "measure": score,
        "units": units,
        "score": _rounded(np.mean(scores)),
        "seeds": [_rounded(one) for one in scores],
        "spread": _rounded(np.std(scores, ddof=1)) if several else 0.0,
        "ensemble": _rounded(mean_score(ensemble, truth, score)) if several else None,
        "difference": against_reference(members),
        "ensemble_difference": against_reference([ensemble]) if several else None,
        "seconds": _rounded(seconds),
        "parameters": parameters,
    }


def leaderboard(entries: Iterable[dict[str, Any]], dataset: str | None = None) -> "pd.DataFrame":
    """Entries as a table, the best first among those of one data set and lead time.

    Args:
        entries: as :func:`entry` makes them.
        dataset: only this one; all if not given.

    Returns:
        One line for each entry, sorted by data set, lead time and the score of single runs. ``low`` and ``high`` are
        the ends of the interval of ``difference``; ``runs`` is the number of seeds.

    Raises:
        TypeError, ValueError: for something that is no entry, an unknown data set or measure, several measures or
            units for one data set and lead time, or two entries of one model for one data set and lead time.
    """
    import pandas as pd

    lines = []
    for i, item in enumerate(entries):
        if not isinstance(item, dict):
            raise TypeError(f"entries[{i}]: expected a dict that verification.entry makes, found {type(item).__name__}")
        if missing := set(_ENTRY) - set(item):
            raise ValueError(f"entries[{i}]: expected what verification.entry makes, found no {sorted(missing)}")
        line = {key: item[key] for key in ("dataset", "lead", "model", "kind", "units", "score", "spread")}
        line["measure"] = item.get("measure", "rmse")  # entries had no such key once
        _check_score(line["measure"], MEASURES, f"entries[{i}]['measure']")
        line |= {"runs": len(item["seeds"]), "ensemble": item["ensemble"]}
        for key, prefix in (("difference", ""), ("ensemble_difference", "ensemble_")):
            interval = item[key] or {}
            line |= {key: interval.get("value"), f"{prefix}low": interval.get("low")}
            line |= {f"{prefix}high": interval.get("high")}
        lines.append(line | {"seconds": item["seconds"], "parameters": item["parameters"]})
    table = pd.DataFrame(lines, columns=_COLUMNS)
    if dataset is not None:
        if dataset not in set(table["dataset"]):
            raise ValueError(f"dataset: expected one of {sorted(set(table['dataset']))}, found {dataset!r}")
        table = table[table["dataset"] == dataset]
    group = ["dataset", "lead"]
    for key, name in (("measure", "measure"), ("units", "unit")):
        if (table.groupby(group)[key].nunique() > 1).any():
            raise ValueError(
                f"entries: expected one {name} for each data set, found several; their scores don't compare"
            )
    if (twice := table.duplicated([*group, "model"])).any():
        name = table.loc[twice, [*group, "model"]].iloc[0].tolist()
        raise ValueError(f"entries: expected each model once for a data set and lead time, found {name} twice")
    numbers = [key for key in _COLUMNS[6:] if key not in ("runs", "parameters")]
    table = table.astype(dict.fromkeys(numbers, float)).astype({"parameters": "Int64"})
    return table.sort_values([*group, "score"], kind="stable", ignore_index=True)


def _rounded(value: Any) -> float:
    return float(f"{float(value):.5g}")
