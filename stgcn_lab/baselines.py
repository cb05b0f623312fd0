"""Simple methods that every network stands beside.

Each returns its forecast under the *valid* time, the time that it speaks about, so that a forecast and what
was observed are compared by subtracting one from the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ._checks import whole_number
from .windows import _check_time

DAYS_PER_YEAR = 365.2425


def _check_series(series: xr.DataArray, name: str) -> None:
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"{name}: expected an xarray DataArray (time, station), found {type(series).__name__}")
    _check_time(series, name)
    if series.dims != ("time", "station"):
        raise ValueError(f"{name}: expected dims (time, station), found {series.dims}")
    if series.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, found dtype {series.dtype}")
    if series.sizes["station"] == 0:
        raise ValueError(f"{name}: expected at least one station, found none")


def _station_coords(series: xr.DataArray) -> dict[Any, xr.DataArray]:
    """What a series says of its stations (their names and places), for results that have no time."""
    return {name: coord for name, coord in series.coords.items() if coord.dims == ("station",)}


def climatology(train: xr.DataArray, times: xr.DataArray, harmonics: int | None = None) -> xr.DataArray:
    """The usual value of the season, learned from the training years.

    By default the mean of each calendar day (each calendar month for a monthly series) over the training years.
    With ``harmonics`` = H a smooth season, fitted by least squares at each station:
    ``c(t) = a_0 + Σ_{h=1}^{H} a_h cos(2πhτ) + b_h sin(2πhτ)``, τ the time in years. Ten values for each day of
    the year make a noisy mean; two or four harmonics are estimated from thousands.

    Args:
        train: (time, station) series, in physical units; NaN is missing.
        times: the times to give the climatology for, for example ``test.time``.
        harmonics: number of annual harmonics, or None for the calendar mean.

    Returns:
        (time, station) at ``times``, in the units of ``train``. NaN where the calendar mean never saw a value;
        29 February takes 28 February's where the training years have none.

    Raises:
        TypeError, ValueError: for another kind of series, or fewer values than the fit needs.
    """
    _check_series(train, "train")
    if not isinstance(times, xr.DataArray) or times.dims != ("time",):
        found = f"dims {times.dims}" if isinstance(times, xr.DataArray) else type(times).__name__
        raise TypeError(f"times: expected the time coordinate of a series, such as test.time, found {found}")
    for stamps, name in ((train.time, "train"), (times, "times")):
        if not np.issubdtype(stamps.dtype, np.datetime64):
            raise TypeError(f"{name}: expected times as datetime64, found {stamps.dtype}; a season needs dates")
    if harmonics is None:
        values = _calendar_mean(train, times)
    else:
        values = _harmonic_season(train, times, harmonics)
    coords = _station_coords(train) | {"time": times}
    return xr.DataArray(values, dims=("time", "station"), coords=coords, attrs=train.attrs, name=train.name)


def _calendar_mean(train: xr.DataArray, times: xr.DataArray) -> np.ndarray:
    # Monthly values are known by their month alone: some are stamped on its first day, some on its last.
    steps = np.diff(train.time.values)
    monthly = len(steps) > 0 and np.median(steps) >= np.timedelta64(28, "D")

    def calendar_key(times: xr.DataArray) -> np.ndarray:
        return 100 * times.dt.month.values + (0 if monthly else times.dt.day.values)

    key, values = calendar_key(train.time), train.values
    table = {}
    for k in np.unique(key):
        rows = values[key == k]
        count = np.isfinite(rows).sum(axis=0)
        table[k] = np.divide(np.nansum(rows, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)
    nothing = np.full(train.sizes["station"], np.nan)
    leap_day = table.get(229, nothing)
    table[229] = np.where(np.isnan(leap_day), table.get(228, nothing), leap_day)
    return np.array([table.get(k, nothing) for k in calendar_key(times)]).reshape(times.size, nothing.size)


def _harmonic_season(train: xr.DataArray, times: xr.DataArray, harmonics: int) -> np.ndarray:
    harmonics = whole_number(harmonics, "harmonics", least=0)
    design = _season_design(train.time, harmonics)
    coefficients = np.full((design.shape[1], train.sizes["station"]), np.nan)
    for i, column in enumerate(train.values.astype(np.float64).T):
        there = np.isfinite(column)
        if there.sum() < design.shape[1]:
            if there.any():
                raise ValueError(
                    f"train: expected at least {design.shape[1]} values for {harmonics} harmonics, "
                    f"found {there.sum()} at station {train.station.values[i]!r}"
                )
            continue  # a station that never reports has no season: NaN
        coefficients[:, i] = np.linalg.lstsq(design[there], column[there], rcond=None)[0]
    return _season_design(times, harmonics) @ coefficients


def _season_design(times: xr.DataArray, harmonics: int) -> np.ndarray:
    days = (times.values - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    angle = 2 * np.pi * days[:, None] / DAYS_PER_YEAR * np.arange(1, harmonics + 1)
    return np.concatenate([np.ones((len(days), 1)), np.cos(angle), np.sin(angle)], axis=1)


def persistence(series: xr.DataArray, lead: int = 1) -> xr.DataArray:
    """Tomorrow as today: the value of ``lead`` steps ago, missing where that was missing.

    ``f(t) = x(t - lead)``, counted in rows: give a series without gaps in its time axis.

    Args:
        series: (time, station).
        lead: lead time in steps.

    Returns:
        (time, station) at valid times; the first ``lead`` steps are NaN.

    Raises:
        TypeError, ValueError: for another kind of series or a lead below 1.
    """
    _check_series(series, "series")
    lead = whole_number(lead, "lead")
    return series.shift(time=lead)


@dataclass(frozen=True)
class VAR:
    """A fitted vector autoregression, see :func:`fit_var`.

    Attributes:
        stations: (station,) labels of the stations it was fitted to.
        intercept: (station,).
        coefficients: (order, station, station); ``coefficients[p - 1][i, j]`` is the influence of station j,
            p steps ago, on station i.
    """

    stations: np.ndarray
    intercept: np.ndarray
    coefficients: np.ndarray

    def forecast(self, series: xr.DataArray, lead: int = 1) -> xr.DataArray:
        """Forecast every time of a series from the steps up to ``lead`` before it.

        Longer leads feed the forecast back into the model.

        Args:
            series: (time, station) with the stations of the fit.
            lead: lead time in steps.

        Returns:
            (time, station) at valid times; the first order + lead - 1 steps are NaN, and so is a forecast
            that needs a missing value.

        Raises:
            TypeError, ValueError: for another kind of series, other stations, or a lead below 1.
        """
        _check_series(series, "series")
        lead = whole_number(lead, "lead")
        order = len(self.coefficients)
        if not np.array_equal(series["station"].values, self.stations):
            raise ValueError(
                f"series: expected the {len(self.stations)} stations of the fit in their order, "
                f"{self.stations.tolist()}, found {series['station'].values.tolist()}"
            )
        x = series.values.astype(np.float64)
        past = [np.roll(x, p, axis=0) for p in range(order)]  # past[p][t] = x[t - p]
        for p in range(order):
            past[p][:p] = np.nan
        for _ in range(lead):
            step = self.intercept + sum(past[p] @ self.coefficients[p].T for p in range(order))
            past = [step, *past[:-1]]
        values = np.full_like(x, np.nan)
        values[lead:] = past[0][: max(len(x) - lead, 0)]  # made at t, valid at t + lead
        return series.copy(data=values)


def fit_var(series: xr.DataArray, order: int) -> VAR:
    """Fit a vector autoregression by least squares: every station from the last steps of all stations.

    ``x(t) = c + Σ_{p=1}^{P} Φ_p x(t - p) + e(t)``. For daily weather it is the linear method to beat. Remove the
    season first. Rows are taken as steps of one length: give a series without gaps in its time axis.

    Args:
        series: (time, station), the training part. Steps with a missing value are passed over.
        order: P, number of lags.

    Returns:
        The fitted model.

    Raises:
        TypeError, ValueError: for another kind of series, an order below 1, or fewer complete steps than
            coefficients.

    Source: Lütkepohl (2005), New Introduction to Multiple Time Series Analysis, chapter 3.
    """
    _check_series(series, "series")
    order = whole_number(order, "order")
    x = series.values.astype(np.float64)
    steps, stations = x.shape
    rows = steps - order
    if rows > 0:
        design = np.concatenate([np.ones((rows, 1))] + [x[order - p : steps - p] for p in range(1, order + 1)], axis=1)
        complete = np.isfinite(design).all(axis=1) & np.isfinite(x[order:]).all(axis=1)
    if rows <= 0 or complete.sum() < 1 + order * stations:
        raise ValueError(
            f"series: expected at least {1 + order * stations} complete steps for order {order} and {stations} "
            f"stations, found {0 if rows <= 0 else int(complete.sum())}"
        )
    beta = np.linalg.lstsq(design[complete], x[order:][complete], rcond=None)[0]  # (1 + P N, N)
    return VAR(series["station"].values, beta[0], beta[1:].reshape(order, stations, stations).transpose(0, 2, 1))


def eof_kmeans(
    series: xr.DataArray,
    modes: int,
    clusters: int,
    window: int = 1,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> xr.DataArray:
    """Weather regimes the classical way: k-means clusters among the leading empirical orthogonal functions (EOFs).

    With the mean of each station removed, ``X = U S Vᵀ``; the rows of V are the EOFs, patterns in space, and the
    leading columns of ``U S`` say how much of each there is at a time. k-means groups the times in that space. With
    a window the rows of X are windows of that many steps, and the patterns short films: extended EOFs.

    The stations are not standardised: one that varies more counts for more. Windows are counted in rows: give a
    series without gaps in its time axis.

    Args:
        series: (time, station) without missing values, season removed.
        modes: how many EOFs.
        clusters: how many clusters.
        window: W, steps of a window. Time t takes the window from ``t - W // 2`` on, W steps long, which has t in
            its middle; times near an edge, where there is none, take the nearest window.
        seed: of k-means, which begins twenty times and keeps the tightest clusters.
        weights: (station,) how much the squares of each station count, for example the cosine of latitude on a
            grid; equal if not given.

    Returns:
        (time,) cluster of every time, an integer from 0; 0 is the most frequent.

    Raises:
        TypeError, ValueError: for another kind of series, missing values, a constant series, weights that do not
            fit, a window as long as the series, more modes than the series has, or more clusters than windows.

    Source: Michelangeli, Vautard & Legras (1995), doi:10.1175/1520-0469(1995)052<1237:WRRAQS>2.0.CO;2.
    """
    from sklearn.cluster import KMeans  # slow to load

    _check_series(series, "series")
    modes, clusters = whole_number(modes, "modes"), whole_number(clusters, "clusters")
    window, seed = whole_number(window, "window"), whole_number(seed, "seed", least=0)
    values = series.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            f"series: expected no missing values, found {int((~np.isfinite(values)).sum())}; "
            "an EOF needs them all, fill them or leave the stations out"
        )
    if weights is not None:
        weights = np.asarray(weights, float)
        if weights.shape != (values.shape[1],) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"weights: expected one number of at least 0 for each of {values.shape[1]} stations, found {weights}"
            )
        values = values * np.sqrt(weights)
    steps = len(values)
    windows = steps - window + 1
    if windows < 2:
        raise ValueError(f"window: expected at least one step fewer than the {steps} of the series, found {window}")
    if clusters > windows:
        raise ValueError(f"clusters: expected at most as many as there are windows, {windows}, found {clusters}")
    x = values - values.mean(axis=0)
    x = np.concatenate([x[lag : lag + windows] for lag in range(window)], axis=1)
    x -= x.mean(axis=0)
    left, scale, _ = np.linalg.svd(x, full_matrices=False)
    # Rounding leaves a little of everything, even of a constant: what is below it is nothing.
    rank = int((scale > max(x.shape) * np.finfo(float).eps * max(scale[0], np.abs(values).max())).sum())
    if rank == 0:
        raise ValueError("series: expected values that vary in time, found a constant at every station")
    if modes > rank:
        raise ValueError(f"modes: expected at most {rank}, the number that the series has, found {modes}")
    found = KMeans(clusters, n_init=20, random_state=seed).fit_predict(left[:, :modes] * scale[:modes])
    order = np.argsort(-np.bincount(found, minlength=clusters), kind="stable")
    labels = np.argsort(order)[found][np.clip(np.arange(steps) - window // 2, 0, windows - 1)]
    attrs = {"long_name": "cluster"}
    return xr.DataArray(labels, dims="time", coords={"time": series["time"]}, attrs=attrs, name="regime")
