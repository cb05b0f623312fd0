"""Simple methods that every network stands beside.

Each returns its forecast under the *valid* time, the time that it speaks about, so that a forecast and what
was observed are compared by subtracting one from the other. What has to be fitted is fitted to the training
part, and the result has ``forecast(series, lead)``; the linear ones also have ``spread(lead)``, the standard
deviation of their errors. Those for events have ``probability(series)``. :class:`GNAR` belongs to no stations and
first has to be put ``on`` some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from torch_geometric.data import Data

from ._checks import number, whole_number
from .graphs import adjacency, directional_operators
from .verification import _check_binary
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
    if np.isinf(series.values).any():
        raise ValueError(f"{name}: expected finite values, and NaN where missing, found infinite ones")


def _check_dates(times: xr.DataArray, name: str) -> None:
    if not np.issubdtype(times.dtype, np.datetime64):
        raise TypeError(f"{name}: expected times as datetime64, found {times.dtype}; a season needs dates")


def _check_stations(series: xr.DataArray, stations: np.ndarray, name: str = "series", whose: str = "the fit") -> None:
    if not np.array_equal(series["station"].values, stations):
        raise ValueError(
            f"{name}: expected the {len(stations)} stations of {whose} in their order, "
            f"{stations.tolist()}, found {series['station'].values.tolist()}"
        )


def _lagged(x: np.ndarray, lag: int) -> np.ndarray:
    """Row t holds x[t - lag]; the first rows are NaN."""
    past = np.full_like(x, np.nan)
    past[lag:] = x[: max(len(x) - lag, 0)]
    return past


def _station_coords(series: xr.DataArray) -> dict[Any, xr.DataArray]:
    """What a series says of its stations (their names and places), for results that have no time."""
    return {name: coord for name, coord in series.coords.items() if coord.dims == ("station",)}


def _check_times(times: xr.DataArray) -> None:
    if not isinstance(times, xr.DataArray) or times.dims != ("time",):
        found = f"dims {times.dims}" if isinstance(times, xr.DataArray) else type(times).__name__
        raise TypeError(f"times: expected the time coordinate of a series, such as test.time, found {found}")
    _check_dates(times, "times")


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
    _check_dates(train.time, "train")
    _check_times(times)
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
class DampedPersistence:
    """Tomorrow between today and the mean, see :func:`fit_damped_persistence`.

    Attributes:
        train: (time, station), the training part.
    """

    train: xr.DataArray

    def _moments(self, lead: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, variance and autocorrelation at a lead of each station."""
        x = self.train.values.astype(np.float64)
        if lead >= len(x):
            raise ValueError(f"lead: expected fewer steps than the {len(x)} of the training part, found {lead}")
        mean = np.nanmean(x, axis=0)
        # Rounding leaves a constant station a little variance; what is below it is nothing.
        variance = np.nanvar(x, axis=0)
        pairs = (x - mean)[lead:] * (x - mean)[:-lead]
        count = np.isfinite(pairs).sum(axis=0)
        covariance = np.nansum(pairs, axis=0) / np.maximum(count, 1) * (1 - lead / len(x))
        varies = variance > (1e-12 * np.abs(x[np.isfinite(x)]).max()) ** 2
        correlation = np.divide(covariance, variance, out=np.zeros_like(mean), where=varies)
        return mean, variance, np.clip(correlation, -1, 1)

    def forecast(self, series: xr.DataArray, lead: int = 1) -> xr.DataArray:
        """Forecast every time of a series from the value of ``lead`` steps before.

        Args:
            series: (time, station) with the stations of the fit.
            lead: lead time in steps.

        Returns:
            (time, station) at valid times; the first ``lead`` steps are NaN, and what follows a missing value.

        Raises:
            TypeError, ValueError: for another kind of series, other stations, or a lead that is below 1 or as long
                as the training part.
        """
        _check_series(series, "series")
        mean, _, correlation = self._moments(whole_number(lead, "lead"))
        _check_stations(series, self.train["station"].values)
        return series.copy(data=mean + correlation * (_lagged(series.values.astype(np.float64), lead) - mean))

    def spread(self, lead: int = 1) -> xr.DataArray:
        """Standard deviation of the forecast error, ``σ sqrt(1 - r_l²)``, the same at every time.

        Args:
            lead: lead time in steps.

        Returns:
            (station,) in the units of the series.

        Raises:
            ValueError: for a lead that is below 1 or as long as the training part.
        """
        _, variance, correlation = self._moments(whole_number(lead, "lead"))
        coords = _station_coords(self.train)
        return xr.DataArray(np.sqrt(variance * (1 - correlation**2)), dims="station", coords=coords, name="spread")


def fit_damped_persistence(series: xr.DataArray) -> DampedPersistence:
    """Persistence that knows how soon the weather forgets.

    ``f(t) = m + r_l (x(t - l) - m)`` with the mean m and the autocorrelation r_l of each station at lead l in the
    training part; the farther ahead, the closer to the mean. Remove the season first. Steps are counted in rows:
    give a series without gaps in its time axis.

    Args:
        series: (time, station), the training part. Missing values are passed over.

    Returns:
        The fitted model.

    Raises:
        TypeError, ValueError: for another kind of series, or a station without values.

    Source: Wilks (2011), Statistical Methods in the Atmospheric Sciences, chapter 9.
    """
    _check_series(series, "series")
    empty = series.isnull().all("time").values
    if empty.any():
        raise ValueError(f"series: expected values at every station, found none at {series.station.values[empty][0]!r}")
    return DampedPersistence(series.copy(deep=True))


@dataclass(frozen=True)
class VAR:
    """A fitted vector autoregression, see :func:`fit_var`, :func:`fit_ar`, :func:`fit_kriging` and :meth:`GNAR.on`.

    Attributes:
        stations: (station,) labels of the stations it was fitted to.
        intercept: (station,).
        coefficients: (order, station, station); ``coefficients[p - 1][i, j]`` is the influence of station j,
            p steps ago, on station i.
        residual_covariance: (station, station) of the errors one step ahead, or None where it is not known.
    """

    stations: np.ndarray
    intercept: np.ndarray
    coefficients: np.ndarray
    residual_covariance: np.ndarray | None = None

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
        _check_stations(series, self.stations)
        x = series.values.astype(np.float64)
        past = [_lagged(x, p) for p in range(len(self.coefficients))]  # past[p][t] = x[t - p]
        weights = self._weights()
        for _ in range(lead):
            step = np.tile(self.intercept, (len(x), 1))
            for values, phi in zip(past, weights, strict=True):
                # A missing value is missed only where it has weight: plain arithmetic would spread 0 * NaN = NaN.
                gaps = np.flatnonzero(np.isnan(values).any(axis=1))
                step += (phi @ np.nan_to_num(values).T).T
                step[gaps] += np.where(((phi != 0) @ np.isnan(values[gaps]).T.astype(float)).T > 0, np.nan, 0)
            past = [step, *past[:-1]]
        return series.copy(data=_lagged(past[0], lead))  # made at t, valid at t + lead

    def _weights(self) -> list[Any]:
        """The coefficients of each lag, sparse where most are 0 as in an autoregression of each station alone."""
        return [sp.csr_matrix(phi) if np.count_nonzero(phi) < phi.size / 10 else phi for phi in self.coefficients]

    def spread(self, lead: int = 1) -> xr.DataArray:
        """Standard deviation of the forecast error, the same at every time.

        The errors of the steps on the way feed on: ``Σ_{h=0}^{l-1} Ψ_h Σ Ψ_hᵀ`` with the covariance Σ of the errors
        one step ahead, ``Ψ_0 = I`` and ``Ψ_h = Σ_p Φ_p Ψ_{h-p}``. That the coefficients are estimates is left out.

        Args:
            lead: lead time in steps.

        Returns:
            (station,) in the units of the series; 1.96 times it on either side of the forecast holds 95 % of what
            follows, if the errors are Gaussian. NaN where the fit left no step to judge the errors by.

        Raises:
            ValueError: for a lead below 1, or a model without ``residual_covariance``.

        Source: Lütkepohl (2005), section 2.2.
        """
        lead = whole_number(lead, "lead")
        if self.residual_covariance is None:
            raise ValueError("residual_covariance: expected (station, station) to tell the spread, found None")
        weights = self._weights()
        effects = [np.eye(len(self.stations))]  # effects[h]: of an error on the values h steps later
        for h in range(1, lead):
            effects.append(sum(phi @ effects[h - p] for p, phi in enumerate(weights, start=1) if p <= h))
        variance = sum(((effect @ self.residual_covariance) * effect).sum(axis=1) for effect in effects)
        return xr.DataArray(np.sqrt(variance), dims="station", coords={"station": self.stations}, name="spread")


def fit_var(series: xr.DataArray, order: int, ridge: float = 0.0) -> VAR:
    """Fit a vector autoregression by least squares: every station from the last steps of all stations.

    ``x(t) = c + Σ_{p=1}^{P} Φ_p x(t - p) + e(t)``. For daily weather it is the linear method to beat. Remove the
    season first. Rows are taken as steps of one length: give a series without gaps in its time axis.

    Args:
        series: (time, station), the training part. Steps with a missing value are passed over.
        order: P, number of lags.
        ridge: penalty λ on the coefficients b of predictors brought to variance 1, added to the mean square of
            the errors as ``λ Σ_p p² Σ b_p²``: what is longer ago is trusted less. With it there may be fewer steps
            than coefficients.

    Returns:
        The fitted model, with the covariance of its residuals (divided by the steps less the coefficients).

    Raises:
        TypeError, ValueError: for another kind of series, an order below 1, a penalty below 0, or fewer complete
            steps than coefficients.

    Source: Lütkepohl (2005), New Introduction to Multiple Time Series Analysis, chapter 3.
    """
    _check_series(series, "series")
    order = whole_number(order, "order")
    ridge = number(ridge, "ridge", least=0)
    x = series.values.astype(np.float64)
    stations = x.shape[1]
    intercept, weights, residuals, parameters = _least_squares(x, order, ridge, f"{stations} stations")
    coefficients = weights.reshape(order, stations, stations).transpose(0, 2, 1)
    covariance = _residual_covariance(residuals, parameters)
    return VAR(series["station"].values, intercept, coefficients, covariance)


def fit_ar(series: xr.DataArray, order: int) -> VAR:
    """Fit an autoregression to each station alone: what a station knows of its own tomorrow.

    ``x_i(t) = c_i + Σ_{p=1}^{P} φ_{p,i} x_i(t - p) + e_i(t)`` by least squares. Beside a VAR it shows what the other
    stations add.

    Args:
        series: (time, station), the training part, season removed, without gaps in its time axis. Each station
            passes over its own missing values only.
        order: P, number of lags.

    Returns:
        A vector autoregression with diagonal coefficients.

    Raises:
        TypeError, ValueError: for another kind of series, an order below 1, or a station with fewer complete steps
            than coefficients.
    """
    _check_series(series, "series")
    order = whole_number(order, "order")
    x = series.values.astype(np.float64)
    steps, stations = x.shape
    intercept, coefficients = np.empty(stations), np.zeros((order, stations, stations))
    residuals = np.full((max(steps - order, 0), stations), np.nan)
    for i, label in enumerate(series["station"].values):
        fitted = _least_squares(x[:, [i]], order, 0.0, f"station {label!r}")
        intercept[i], coefficients[:, i, i], residuals[:, i] = fitted[0][0], fitted[1][:, 0], fitted[2][:, 0]
    covariance = _residual_covariance(residuals, 1 + order)
    return VAR(series["station"].values, intercept, coefficients, covariance)


def _least_squares(
    x: np.ndarray, order: int, ridge: float, whose: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Regress x[t] (stations,) on its last ``order`` steps.

    Returns intercept (stations,), weights (order * stations, stations), residuals (steps - order, stations) with NaN
    where a step is not complete, and the (effective) number of coefficients of one station.
    """
    steps, stations = x.shape
    past = np.concatenate([_lagged(x, p) for p in range(1, order + 1)], axis=1)[order:]
    complete = np.isfinite(past).all(axis=1) & np.isfinite(x[order:]).all(axis=1)
    least = 1 + order * stations if ridge == 0 else 2
    if complete.sum() < least:
        raise ValueError(
            f"series: expected at least {least} complete steps for order {order} and {whose}, found {complete.sum()}"
        )
    z, y = past[complete], x[order:][complete]
    if ridge == 0:
        beta = np.linalg.lstsq(np.concatenate([np.ones((len(z), 1)), z], axis=1), y, rcond=None)[0]
        intercept, weights, parameters = beta[0], beta[1:], float(least)
    else:
        scale = z.std(axis=0)
        scale[scale == 0] = 1
        scale *= np.repeat(np.arange(1, order + 1), stations)  # penalises lag p by p² as much
        left, s, right = np.linalg.svd((z - z.mean(axis=0)) / scale, full_matrices=False)
        shrink = s / (s**2 + ridge * len(z))
        weights = (right.T * shrink) @ (left.T @ (y - y.mean(axis=0))) / scale[:, None]
        intercept = y.mean(axis=0) - z.mean(axis=0) @ weights
        parameters = 1 + float((s * shrink).sum())
    residuals = np.full((len(past), stations), np.nan)
    residuals[complete] = y - intercept - z @ weights
    return intercept, weights, residuals, parameters


def _residual_covariance(residuals: np.ndarray, parameters: float) -> np.ndarray:
    there = np.isfinite(residuals).astype(float)
    filled = np.nan_to_num(residuals)
    free = there.T @ there - parameters  # steps that two stations share, less what the fit used up
    unknown = np.diag(np.full(len(free), np.nan))  # two stations that never report together: taken as independent
    return np.divide(filled.T @ filled, free, out=unknown, where=free > 0)


@dataclass(frozen=True)
class GNAR:
    """A network autoregression whose weights belong to no station, see :func:`fit_gnar`.

    Attributes:
        own: (order,) a; the influence of a station's own value, p steps ago.
        neighbours: (order, sectors) b; that of the mean of its neighbours in each compass sector.
        residual_variance: of the errors one step ahead, the same at all stations; NaN if nothing was left to judge by.
    """

    own: np.ndarray
    neighbours: np.ndarray
    residual_variance: float

    def on(self, graph: Data, stations: ArrayLike) -> VAR:
        """The same weights on any graph, those of the fit or others: a vector autoregression for its stations.

        ``Φ_p = a_p I + Σ_s b_{p,s} O_s``.

        Args:
            graph: N nodes with ``pos``, in the order of ``stations``.
            stations: (N,) labels.

        Returns:
            The model of these stations. Its ``spread`` takes their errors as independent of each other, which
            neighbours' are not: right for one step ahead, too small for more.

        Raises:
            TypeError, ValueError: for a malformed graph, or another number of labels than of nodes.
        """
        operators = _sector_means(graph, self.neighbours.shape[1])
        labels, nodes = np.asarray(stations), operators[0].shape[0]
        if labels.shape != (nodes,):
            raise ValueError(f"stations: expected {nodes} labels, one for each node, found shape {labels.shape}")
        identity = sp.identity(nodes, format="csr")
        coefficients = np.stack(
            [
                sum((b * operator for b, operator in zip(at_lag, operators, strict=True)), a * identity).toarray()
                for a, at_lag in zip(self.own, self.neighbours, strict=True)
            ]
        )
        return VAR(labels, np.zeros(nodes), coefficients, self.residual_variance * np.eye(nodes))


def fit_gnar(
    series: xr.DataArray, graph: Data, order: int, sectors: int = 4, ridge: float = 0.0, prior: GNAR | None = None
) -> GNAR:
    """A generalised network autoregression with a handful of weights that all stations share.

    ``x_i(t) = Σ_{p=1}^{P} [ a_p x_i(t - p) + Σ_s b_{p,s} (O_s x(t - p))_i ] + e_i(t)``, where O_s takes the mean of the
    neighbours in compass sector s. What :func:`fit_var` is to the stations that it was fitted to, this is to any:
    :meth:`GNAR.on` applies it to another graph. There is no intercept, and every station counts alike: give anomalies
    from the season, divided by the standard deviation of their station. Rows are taken as steps of one length: give
    a series without gaps in its time axis.

    Args:
        series: (time, station), the training part. A mean is taken over those neighbours that report; a station's
            step is passed over where its own value, one of its last P, or all neighbours in a sector are missing.
        graph: N nodes with ``pos``, the stations of the series in their order.
        order: P, number of lags.
        sectors: S; 1 for one mean of all neighbours.
        ridge: penalty λ on the coefficients b of predictors brought to mean square 1, added to the mean square of the
            errors as ``λ Σ_p p² Σ (b_p - b'_p)²``: what is longer ago is trusted less.
        prior: b', towards which the penalty draws, such as the fit to another region; 0 if not given. Without a
            penalty it has no say.

    Returns:
        The fitted weights, and the mean square of the errors (over the values less the coefficients).

    Raises:
        TypeError, ValueError: for another kind of series, graph or prior, a graph of other stations, a prior of other
            lags or sectors, settings out of range, or fewer values than coefficients.

    Source: Knight, Leeming, Nason & Nunes (2020), doi:10.18637/jss.v096.i05; compass sectors instead of their stages
    of neighbours.
    """
    _check_series(series, "series")
    order, sectors = whole_number(order, "order"), whole_number(sectors, "sectors")
    ridge = number(ridge, "ridge", least=0)
    operators = _sector_means(graph, sectors)
    _check_nodes(graph, series)
    towards = np.zeros((order, 1 + sectors))
    if prior is not None:
        if not isinstance(prior, GNAR):
            raise TypeError(f"prior: expected a GNAR, as fit_gnar returns it, found {type(prior).__name__}")
        if prior.neighbours.shape != (order, sectors):
            raise ValueError(
                f"prior: expected {order} lags and {sectors} sectors as in this fit, "
                f"found {' and '.join(map(str, prior.neighbours.shape))}"
            )
        towards = np.column_stack([prior.own, prior.neighbours])
    x = series.values.astype(np.float64)
    fields = [x, *(_mean_of_those_that_report(operator, x) for operator in operators)]
    past = [_lagged(field, p)[order:] for p in range(1, order + 1) for field in fields]
    there = np.isfinite(x[order:])
    for field in past:
        there &= np.isfinite(field)
    z, y = np.stack([field[there] for field in past], axis=1), x[order:][there]
    least = towards.size if ridge == 0 else 1
    if len(y) < least:
        raise ValueError(
            f"series: expected at least {least} values with a full past for order {order} and {sectors} sectors, "
            f"found {len(y)}"
        )
    weights, parameters = _drawn_least_squares(
        z, y, ridge * np.repeat(np.arange(1, order + 1) ** 2, 1 + sectors), towards
    )
    free = len(y) - parameters
    variance = float(((y - z @ weights) ** 2).sum() / free) if free > 1e-9 else np.nan
    weights = weights.reshape(order, 1 + sectors)
    return GNAR(weights[:, 0], weights[:, 1:], variance)


def _drawn_least_squares(
    z: np.ndarray, y: np.ndarray, penalty: np.ndarray, towards: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights (columns,) that make ``mean (y - z b)² + Σ penalty s² (b - towards)²`` smallest, s² the mean of z².

    And the (effective) number of them. The penalty enters as more rows of the regression.
    """
    scale = np.sqrt((z**2).mean(axis=0))
    scale[scale == 0] = 1  # no station has such neighbours: the weight stays at what it is drawn towards
    root = np.sqrt(penalty * len(y)) * scale
    rows = np.concatenate([z, np.diag(root)])
    weights = np.linalg.lstsq(rows, np.concatenate([y, root * towards.ravel()]), rcond=None)[0]
    gram = z.T @ z
    return weights, float(np.trace(np.linalg.pinv(gram + np.diag(root**2), hermitian=True) @ gram))


def _sector_means(graph: Data, sectors: int) -> list[sp.csr_matrix]:
    """:func:`stgcn_lab.graphs.directional_operators` as SciPy matrices."""
    return [
        sp.csr_matrix(
            (part.values().double().numpy(), part.col_indices().numpy(), part.crow_indices().numpy()), tuple(part.shape)
        )
        for part in directional_operators(graph, sectors, sparse=True)
    ]


def _mean_of_those_that_report(operator: sp.csr_matrix, x: np.ndarray) -> np.ndarray:
    """(time, station) means over neighbours: NaN where none reports, 0 where there are none, as the operator has it."""
    weight = (operator @ np.isfinite(x).T.astype(float)).T
    nobody = np.where(np.diff(operator.indptr) > 0, np.nan, 0.0)
    return np.divide((operator @ np.nan_to_num(x).T).T, weight, out=np.tile(nobody, (len(x), 1)), where=weight > 0)


def _check_nodes(graph: Data, series: xr.DataArray) -> None:
    """The nodes of a graph are the stations of the series: as many, and in their order."""
    if graph.num_nodes != series.sizes["station"]:
        raise ValueError(
            f"graph: expected {series.sizes['station']} nodes, one for each station, found {graph.num_nodes}"
        )
    _check_order(graph, series)


def _check_order(graph: Data, series: xr.DataArray) -> None:
    """Where both tell their places: a graph of the same stations in another order would pass for theirs."""
    stations, pos = series["station"].values, getattr(graph, "pos", None)
    if pos is None or len(pos) != len(stations) or not {"lat", "lon"} <= set(_station_coords(series)):
        return
    place = np.stack([series["lon"].values, series["lat"].values], axis=1).astype(np.float64)
    apart = np.abs(pos.numpy() - place)
    apart[:, 0] = np.minimum(apart[:, 0], 360 - apart[:, 0])
    wrong = np.flatnonzero((apart > 0.01).any(axis=1))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"graph: expected its nodes where the stations are and in their order, found node {i} at lon, lat "
            f"{np.round(pos[i].tolist(), 2).tolist()} and station {stations[i]!r} at {place[i].round(2).tolist()}"
        )


def fit_kriging(series: xr.DataArray, order: int) -> VAR:
    """Simple kriging in space and time: the best linear forecast that the empirical covariances allow.

    With ``C_k[i, j] = cov(x_i(t), x_j(t - k))`` the weights of the last P steps solve
    ``Σ_{q=1}^{P} Φ_q C_{p-q} = C_p`` for p = 1 to P, and the kriging variance is ``C_0 - Σ_p Φ_p C_pᵀ``. These are the
    Yule-Walker equations; with complete data least squares (:func:`fit_var`) gives nearly the same.

    Args:
        series: (time, station), the training part, season removed, without gaps in its time axis. Each covariance
            takes the steps at which both of its stations report.
        order: P, number of lags; covariances up to that lag are used.

    Returns:
        A vector autoregression whose ``residual_covariance`` is the kriging variance. Leads beyond 1 feed the
        forecast back.

    Raises:
        TypeError, ValueError: for another kind of series, an order below 1, stations that never report together, or
            covariances that no weather can have, as from too few steps or from a constant or repeated station.

    Source: the empirical model of Gneiting, Genton & Guttorp (2007).
    """
    _check_series(series, "series")
    order = whole_number(order, "order")
    x = series.values.astype(np.float64)
    steps, stations = x.shape
    there = np.isfinite(x).astype(float)
    mean = np.nan_to_num(x).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    anomaly = np.where(there > 0, x - mean, 0.0)
    covariance = []
    for lag in range(order + 1):
        pairs = there[lag:].T @ there[: max(steps - lag, 0)]
        if (pairs == 0).any():
            i, j = series["station"].values[np.argwhere(pairs == 0)[0]]
            raise ValueError(f"series: expected values of {i!r} {lag} steps after values of {j!r}, found none")
        # Divided by all steps, not by steps - lag, which keeps the covariances of complete data consistent.
        covariance.append(anomaly[lag:].T @ anomaly[: steps - lag] / pairs * (1 - lag / steps))
    among = np.block(
        [[covariance[p - q] if p >= q else covariance[q - p].T for p in range(order)] for q in range(order)]
    )  # among[q, p] = C_{p-q}: of x(t - q) with x(t - p)
    scale = np.sqrt(np.diag(among))
    if not (scale > 0).all() or np.linalg.eigvalsh(among / np.outer(scale, scale))[0] < 1e-10:
        raise ValueError(
            f"series: expected stations and lags whose covariances can be inverted, found {steps} steps of {stations} "
            f"stations at order {order} that cannot (a constant or repeated station, or too few steps in common)"
        )
    with_now = np.concatenate(covariance[1:], axis=1)  # (station, order * station)
    weights = np.linalg.solve(among, with_now.T)
    coefficients = weights.reshape(order, stations, stations).transpose(0, 2, 1)
    intercept = mean - coefficients.sum(axis=0) @ mean
    return VAR(series["station"].values, intercept, coefficients, covariance[0] - weights.T @ with_now.T)


@dataclass(frozen=True)
class Trees:
    """Fitted gradient-boosted trees, see :func:`fit_trees`.

    Attributes:
        stations: (station,) labels of the stations they were fitted to.
        order: number of lags.
        operators: (station, station) each, what a station sees of its neighbours.
        places: (station, 2) latitude and longitude if one model serves all stations, else None.
        models: the models of each lead, one for each station or one for all; each after the columns that it reads.
    """

    stations: np.ndarray
    order: int
    operators: list[sp.csr_matrix]
    places: np.ndarray | None
    models: dict[int, list[tuple[np.ndarray, Any]]]

    def _columns(self, series: xr.DataArray, lead: int) -> tuple[np.ndarray, np.ndarray]:
        """What the forecast of each time and station is made from (time, station, column), and where it can be made."""
        x = series.values.astype(np.float64)
        there = np.isfinite(x).astype(float)
        fields = [x]
        for a in self.operators:  # an average over those neighbours that report
            weight = (a @ there.T).T
            fields.append(np.divide((a @ np.nan_to_num(x).T).T, weight, out=np.full_like(x, np.nan), where=weight > 0))
        # float32 halves the memory, which thousands of stations feel; trees only compare.
        past = [_lagged(field, lead + p) for field in fields for p in range(self.order)]
        lags = np.stack(past, axis=-1, dtype=np.float32)
        possible = np.asarray(np.isfinite(lags).any(axis=-1))
        possible[: lead + self.order - 1] = False
        day = (series.time.values - series.time.values.astype("datetime64[D]")) / np.timedelta64(1, "D")
        hour = 2 * np.pi * day[:, None]
        clock = np.concatenate(
            [_season_design(series.time, 1)[:, 1:], np.cos(hour), np.sin(hour)], axis=1, dtype=np.float32
        )
        columns = [lags, np.broadcast_to(clock[:, None], (*x.shape, 4))]
        if self.places is not None:
            columns.append(np.broadcast_to(self.places.astype(np.float32), (*x.shape, 2)))
        return np.concatenate(columns, axis=-1), possible

    def _parts(self) -> list[slice]:
        """The stations of each model."""
        return [slice(None)] if self.places is not None else [slice(i, i + 1) for i in range(len(self.stations))]

    def forecast(self, series: xr.DataArray, lead: int = 1) -> xr.DataArray:
        """Forecast every time of a series from the steps up to ``lead`` before it.

        Args:
            series: (time, station) with the stations of the fit.
            lead: lead time in steps, one that was fitted.

        Returns:
            (time, station) at valid times; the first order + lead - 1 steps are NaN, and so is a forecast for which
            nothing was observed. Where only some values are missing, the trees do without.

        Raises:
            TypeError, ValueError: for another kind of series, other stations, or a lead that was not fitted.
        """
        _check_series(series, "series")
        _check_dates(series.time, "series")
        lead = whole_number(lead, "lead")
        if lead not in self.models:
            raise ValueError(f"lead: expected one that was fitted, {sorted(self.models)}, found {lead}")
        _check_stations(series, self.stations)
        columns, possible = self._columns(series, lead)
        values = np.full(series.shape, np.nan)
        for part, (read, model) in zip(self._parts(), self.models[lead], strict=True):
            rows = possible[:, part]
            if rows.any():
                values[:, part][rows] = model.predict(columns[:, part][rows][:, read])
        return series.copy(data=values)


def fit_trees(
    series: xr.DataArray,
    graph: Data,
    order: int = 3,
    lead: int | Sequence[int] = 1,
    *,
    pooled: bool = False,
    rounds: int = 200,
    leaves: int = 8,
    seed: int = 0,
) -> Trees:
    """Gradient-boosted trees on the last steps of each station and of its neighbours, the season and the time of day.

    ``f(t) = Σ_r ν T_r(lags, season)``: each small tree T_r corrects what those before it left over. The usual strong
    method that is neither linear nor a network. One model is fitted to each lead, and to each station. Tree r may
    split on three tenths of the columns, drawn by chance at each split.

    Args:
        series: (time, station), the training part, season removed, without gaps in its time axis; NaN is missing.
        graph: N nodes, the stations of the series. An edge from j lets the trees of station i see j.
        order: number of lags.
        lead: lead time in steps, or several of them.
        pooled: one model for all stations, which sees the mean of the neighbours in the north, east, south and west,
            and latitude and longitude (coords ``lat`` and ``lon`` of the series): for thousands of stations or
            short records. Without it each neighbour is a column of its own.
        rounds: number of trees.
        leaves: most leaves of a tree.
        seed: of the drawing of columns.

    Returns:
        The fitted model.

    Raises:
        TypeError, ValueError: for another kind of series or graph, times that are no dates, a graph of other size, a
            station with fewer than two steps to learn from, or a number below 1.

    Source: Friedman (2001), doi:10.1214/aos/1013203451; Ke et al. (2017), LightGBM.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor  # slow to load

    _check_series(series, "series")
    _check_dates(series.time, "series")
    order, seed = whole_number(order, "order"), whole_number(seed, "seed", least=0)
    rounds, leaves = whole_number(rounds, "rounds"), whole_number(leaves, "leaves", least=2)
    leads = [whole_number(value, "lead") for value in (lead if isinstance(lead, Sequence) else [lead])]
    if not leads:
        raise ValueError("lead: expected at least one lead time, found none")
    a, places = adjacency(graph), None
    if a.shape[0] != series.sizes["station"]:
        raise ValueError(f"graph: expected {series.sizes['station']} nodes, one for each station, found {a.shape[0]}")
    if pooled:
        if not {"lat", "lon"} <= set(_station_coords(series)):
            raise ValueError("series: expected coords lat and lon over station for pooled trees, found none")
        operators = _sector_means(graph, 4)
        places = np.stack([series["lat"].values, series["lon"].values], axis=1)
    else:
        operators = _each_neighbour(a)
    trees = Trees(series["station"].values, order, operators, places, {})
    for value in leads:
        columns, possible = trees._columns(series, value)
        usable = possible & np.isfinite(series.values)
        trees.models[value] = []
        for part in trees._parts():
            rows = usable[:, part]
            if rows.sum() < 2:
                raise ValueError(
                    f"series: expected at least 2 steps to learn lead {value} from at station(s) "
                    f"{series['station'].values[part].tolist()}, found {rows.sum()}"
                )
            x, y = columns[:, part][rows], series.values[:, part][rows]
            # scikit-learn stumbles over a column without values; one that never varies tells nothing.
            read = np.flatnonzero(np.isfinite(x).any(axis=0) & (x != x[0]).any(axis=0))
            model = HistGradientBoostingRegressor(
                learning_rate=0.05,
                max_iter=rounds,
                max_leaf_nodes=leaves,
                max_features=0.3,
                early_stopping=False,
                random_state=seed,
            )
            trees.models[value].append((read, model.fit(x[:, read], y)))
    return trees


def _each_neighbour(a: sp.csr_matrix) -> list[sp.csr_matrix]:
    """One operator for each rank: the k-th picks the k-th neighbour of each station."""
    a = sp.csr_matrix(a)
    a.setdiag(0)
    a.eliminate_zeros()
    target = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    rank = np.arange(a.nnz) - a.indptr[target]
    return [
        sp.csr_matrix((np.ones((rank == k).sum()), (target[rank == k], a.indices[rank == k])), shape=a.shape)
        for k in range(int(np.diff(a.indptr).max()))
    ]


def event_rate(train_event: xr.DataArray, times: xr.DataArray, harmonics: int = 1) -> xr.DataArray:
    """The usual probability of an event: how often it took place in the training years, station by season.

    ``logit p_i(t) = a_i + Σ_{h=1}^{H} b_h cos(2πhτ) + c_h sin(2πhτ)``, τ the time in years, fitted by maximum
    likelihood. Each station has its own rate; all share one seasonal shape, since rare events are too few for more.
    What a warning must beat, as :func:`climatology` is for a forecast of values.

    Args:
        train_event: (time, station), whether the event took place: 1 or 0, NaN if nobody knows.
        times: the times to give the probability for, for example ``test.time``.
        harmonics: H; 0 for the plain rate of each station.

    Returns:
        (time, station) at ``times``. 0 (or 1) at a station where the event never (always) took place, NaN at one
        that never reports.

    Raises:
        TypeError, ValueError: for another kind of series or values that are no events.
    """
    _check_event(train_event, "train_event")
    _check_dates(train_event.time, "train_event")
    _check_times(times)
    harmonics = whole_number(harmonics, "harmonics", least=0)
    y = train_event.values.astype(np.float64)
    there = np.isfinite(y)
    count = there.sum(axis=0)
    rate = np.divide(np.nansum(y, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)
    values = np.tile(rate, (times.size, 1))
    varies = (rate > 0) & (rate < 1)
    if harmonics and varies.any():
        y, there = np.nan_to_num(y[:, varies]), there[:, varies]
        shape = _season_design(train_event.time, harmonics)[:, 1:]
        a, b = logit(rate[varies]), np.zeros(2 * harmonics)

        def cost(a: np.ndarray, b: np.ndarray) -> float:
            z = a + (shape @ b)[:, None]
            return float(((np.logaddexp(0, z) - y * z) * there).sum() + 0.05 * b @ b)

        for _ in range(30):  # Newton's method; the a_i, one a station, are eliminated from its equations
            p = expit(a + (shape @ b)[:, None])
            error, curvature = (p - y) * there, p * (1 - p) * there
            mixed, own = curvature.T @ shape, curvature.sum(axis=0)[:, None]
            # The last term, too weak to count else, keeps b finite where all events fall on few days.
            among = (shape.T * curvature.sum(axis=1)) @ shape - mixed.T @ (mixed / own) + 0.1 * np.eye(len(b))
            slope = shape.T @ error.sum(axis=1) + 0.1 * b
            step = np.linalg.solve(among, slope - (mixed / own).T @ error.sum(axis=0))
            shift = (error.sum(axis=0) - mixed @ step) / own[:, 0]
            while cost(a - shift, b - step) > cost(a, b) and np.abs(step).max() > 1e-9:
                shift, step = shift / 2, step / 2
            a, b = a - shift, b - step
        values[:, varies] = expit(a + (_season_design(times, harmonics)[:, 1:] @ b)[:, None])
    coords = _station_coords(train_event) | {"time": times}
    return _as_probability(xr.DataArray(values, dims=("time", "station"), coords=coords), values)


def _as_probability(series: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    """Values under the times and stations of a series; of its attributes none still holds."""
    said = series.copy(data=values).rename("probability")
    said.attrs = {"units": "1", "long_name": "probability"}
    return said


def _check_event(event: xr.DataArray, name: str) -> None:
    _check_series(event, name)
    _check_binary(event.values, name)


def _logistic_regression(design: np.ndarray, y: np.ndarray, penalty: np.ndarray, whose: str) -> np.ndarray:
    """Coefficients b (columns,) that make ``mean[log(1 + e^z) - y z] + Σ penalty b²`` smallest, z = design b.

    The first column is 1; y, from 0 to 1, is on average neither.
    """
    b = np.zeros(design.shape[1])
    b[0] = logit(y.mean())

    def cost(b: np.ndarray) -> float:
        z = design @ b
        return float((np.logaddexp(0, z) - y * z).mean() + penalty @ b**2)

    for _ in range(50):  # Newton's method
        p = expit(design @ b)
        slope = design.T @ (p - y) / len(y) + 2 * penalty * b
        curvature = (design.T * (p * (1 - p))) @ design / len(y) + 2 * np.diag(penalty)
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        while cost(b - step) > cost(b) and np.abs(step).max() > 1e-9:
            step = step / 2
        b = b - step
        if np.abs(design @ step).max() < 1e-6:
            return b
    raise ValueError(
        f"ridge: expected a penalty that keeps the coefficients of {whose} finite, found one too small: "
        "the predictors tell the events of the training part without a fault"
    )


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression, see :func:`fit_logistic`.

    Attributes:
        stations: (station,) labels of the stations it was fitted to.
        lead: the lead time that it was fitted to, in steps.
        mean: (station,) of the series in the training part.
        coefficients: (lags, station, station) W; ``coefficients[p][i, j]`` is what station j, p steps before the
            forecast is made, adds to the logit of station i.
        season: (1 + 2 H, station) intercept, cosines and sines of the time of year.
    """

    stations: np.ndarray
    lead: int
    mean: np.ndarray
    coefficients: np.ndarray
    season: np.ndarray

    def probability(self, series: xr.DataArray) -> xr.DataArray:
        """The probability of the event at every time of a series, from the steps up to ``lead`` before it.

        Args:
            series: (time, station) with the stations of the fit. A missing value counts as the mean of the fit.

        Returns:
            (time, station) at valid times; the first lags + lead - 1 steps, which have no full past, are NaN.

        Raises:
            TypeError, ValueError: for another kind of series or other stations.
        """
        _check_series(series, "series")
        _check_dates(series.time, "series")
        _check_stations(series, self.stations)
        return _as_probability(series, expit(self._logits(series)))

    def _logits(self, series: xr.DataArray) -> np.ndarray:
        z = _season_design(series.time, (len(self.season) - 1) // 2) @ self.season
        anomaly = np.nan_to_num(series.values - self.mean)
        for p, weights in enumerate(self.coefficients):
            z = z + _lagged(anomaly, self.lead + p) @ weights.T
        return z


def fit_logistic(
    train: xr.DataArray,
    train_event: xr.DataArray,
    lags: int = 3,
    ridge: float = 0.001,
    harmonics: int = 1,
    lead: int = 1,
) -> Logistic:
    """Logistic regression: the probability of an event at a station from the last steps of all stations.

    ``logit p_i(t) = s_i(t) + Σ_{p=0}^{P-1} Σ_j W_p[i, j] (x_j(t - lead - p) - m_j)`` with a season s of annual
    harmonics and the means m: for events what :func:`fit_var` is for values. Rows are taken as steps of one length:
    give a series without gaps in its time axis.

    Args:
        train: (time, station), the training part. A missing value counts as the mean.
        train_event: (time, station), whether the event took place: 1 or 0, NaN if nobody knows; the same times.
        lags: P.
        ridge: penalty λ on the coefficients b of predictors brought to variance 1, added to the mean negative log
            likelihood as ``λ Σ_p p² Σ b_p²``, p = 1 for the latest: what is longer ago is trusted less. The season
            has 0.005 / T on its waves, just enough to keep them finite with few events.
        harmonics: of the season; 0 for none.
        lead: lead time in steps.

    Returns:
        The fitted model.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no events, a
            station without events or without their absence, settings out of range, or a penalty too small to keep
            the coefficients finite.

    Source: Wilks (2011), Statistical Methods in the Atmospheric Sciences, section 7.3.2.
    """
    _check_series(train, "train")
    _check_dates(train.time, "train")
    _check_events_of(train_event, train, "train_event", "train")
    lags, lead = whole_number(lags, "lags"), whole_number(lead, "lead")
    harmonics = whole_number(harmonics, "harmonics", least=0)
    ridge = number(ridge, "ridge", least=0)
    x = train.values.astype(np.float64)
    reports = np.isfinite(x)
    mean = np.nan_to_num(x).sum(axis=0) / np.maximum(reports.sum(axis=0), 1)
    anomaly = np.where(reports, x - mean, 0.0)
    scale = anomaly.std(axis=0)
    scale[scale <= 1e-9 * np.abs(mean)] = 1  # a constant tells nothing, and is left out by its own zeros
    season = _season_design(train.time, harmonics)
    past = [_lagged(anomaly / scale, lead + p) for p in range(lags)]
    design = np.concatenate([season, *past], axis=1)
    penalty = ridge * np.repeat(np.r_[0, np.arange(1, lags + 1) ** 2], [season.shape[1], *[len(mean)] * lags])
    whole = np.isfinite(design).all(axis=1)
    # A few events all in one season would send its coefficients to infinity.
    weak = np.repeat([0, 0.005, 0], [1, season.shape[1] - 1, lags * len(mean)])
    fitted = np.empty((design.shape[1], len(mean)))
    for i, label in enumerate(train["station"].values.tolist()):
        y = train_event.values[:, i].astype(np.float64)
        rows = whole & np.isfinite(y)
        if not 0 < y[rows].sum() < rows.sum():
            raise ValueError(
                f"train_event: expected times with the event and times without at every station, "
                f"found {y[rows].sum():g} events in {rows.sum()} times at {label!r}"
            )
        fitted[:, i] = _logistic_regression(design[rows], y[rows], penalty + weak / rows.sum(), f"station {label!r}")
    weights = fitted[season.shape[1] :].reshape(lags, len(mean), len(mean)) / scale[:, None]
    return Logistic(train["station"].values, lead, mean, weights.transpose(0, 2, 1), fitted[: season.shape[1]])


def _check_events_of(event: xr.DataArray, series: xr.DataArray, name: str, whose: str) -> None:
    _check_event(event, name)
    _check_stations(event, series["station"].values, name, whose)
    if not np.array_equal(event["time"].values, series["time"].values):
        raise ValueError(f"{name}: expected the times of {whose}, each in its place")


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
