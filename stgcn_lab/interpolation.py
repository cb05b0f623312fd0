"""Filling gaps without a network: season, interpolation in time, inverse distance, kriging, empirical functions.

All of them but :func:`linear_in_time` work on anomalies ``z = (x - season) / scale``, which stations share as they do
not share their climates (climatologically aided interpolation, Willmott & Robeson 1995, doi:10.1002/joc.3370150207).
"""

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ._checks import whole_number
from .baselines import _check_dates, _check_series, _season_design
from .graphs import _stations, great_circle_distance

Array = NDArray[np.float64]
MEMORY_LAGS = (1, 2, 3, 4, 6, 8, 12, 18, 24, 36, 48)
NEAREST = 8  # known values before a gap, and as many after it, that interpolation in time looks at
GP_STATIONS = 120  # the kernel of the climate is learned from at most so many stations: its cost grows as their cube
HELD_OUT = 0.05  # share of the known values that choose the number of EOFs
LEAST_TOGETHER = 3  # times: a pair of stations with fewer says nothing of their correlation
USUAL = (0.9, 500.0, 1.0, np.inf)  # correlation in space where the record can't tell it
TOLERANCE = 1e-3  # in standard deviations: where the iteration of EOFs stops
LEAST_TOLD = 0.01  # values; two months of a daily record tell the wave of a year as 0.00002 values would
LARGEST = 1e100  # of a value: squares of squares must stay finite


@dataclass(frozen=True)
class Anomalies:
    """A gappy series without its season: ``x = season + scale · z``.

    Attributes:
        z: (time, station) anomalies of unit variance, NaN where missing.
        season: (time, station) usual value, without gaps, in the units of the series.
        season_spread: (station,) standard deviation of its error, as the fit sees it.
        scale: (station,) standard deviation of the anomalies, in the units of the series.
        place: (station, 2 or 3) km east, km north, and m of elevation where it is known.
        distance: (station, station) km.
        steps: (time,) times in steps of the usual length.
    """

    z: Array
    season: Array
    season_spread: Array
    scale: Array
    place: Array
    distance: Array
    steps: Array


@dataclass(frozen=True)
class SpaceCorrelation:
    """``ρ(d, h) = a exp(-(d / L)^p - |h| / H)`` between anomalies d km and h m of height apart; 1 with itself.

    Attributes:
        share: a, what stations have in common; the rest is each one's own.
        length: L in km. power: p. height: H in m, infinite where no elevation is known.
    """

    share: float
    length: float
    power: float
    height: float

    def __call__(self, distance: Array, climb: Array) -> Array:
        """Correlations for distances in km and differences of height in m, of different stations."""
        return self.share * np.exp(-((distance / self.length) ** self.power) - climb / self.height)

    def matrix(self, anomalies: Anomalies) -> Array:
        """(station, station) correlations, 1 on the diagonal."""
        correlation = self(anomalies.distance, _climb(anomalies.place))
        np.fill_diagonal(correlation, 1.0)
        values, vectors = np.linalg.eigh(correlation)
        own = 1.0 - self.share  # no eigenvalue of a correlation may be less
        if values[0] < 0.5 * own:  # round the whole globe, distances along it with p > 1 make none
            correlation = (vectors * np.maximum(values, own)) @ vectors.T
            size = np.sqrt(np.diag(correlation))
            correlation /= np.outer(size, size)
        return correlation


# ---------------------------------------------------------------------------- preparation


def check_gappy(series: xr.DataArray) -> None:
    """Check a series that may have gaps.

    Raises:
        TypeError, ValueError: for another kind of series, dims, times that are unsorted or no dates, infinite or
            absurdly large values, or no value at all.
    """
    _check_series(series, "series")
    _check_dates(series["time"], "series")
    if not np.isfinite(series.values).any():
        raise ValueError("series: expected at least one observed value, found none; there is nothing to fill gaps from")
    if (largest := float(np.nanmax(np.abs(series.values.astype(np.float64))))) > LARGEST:
        raise ValueError(f"series: expected values of at most {LARGEST:g}, and NaN where missing, found {largest:g}")


def anomalies(series: xr.DataArray, harmonics: int = 2) -> Anomalies:
    """Take the season out of a gappy series, also at stations that say little or nothing.

    The season of a station has the coefficients b of annual harmonics (only a mean, if the record spans less than two
    years; fewer harmonics where no station has values enough, at times of the year different enough, to tell them).
    They are a compromise, weighted by variances, between what its own values say and what its place says, by a
    Gaussian process in longitude, latitude and elevation learned from the other stations. So a long record speaks for
    itself, a short one leans on its neighbours, and a station that was never observed gets what its place suggests.
    A short record tells a mean of its own few years; in a second round it is compared with its neighbours in those
    very years: the mean is taken of its difference from them. And again in a third.

    Args:
        series: (time, station) with coords lat and lon, and elevation where it is known; NaN is missing.
        harmonics: annual harmonics of the season, at most.

    Returns:
        The anomalies, with season and scale.

    Raises:
        TypeError, ValueError: for another kind of series, no coordinates, times that are no dates, or no value.
    """
    check_gappy(series)
    harmonics = whole_number(harmonics, "harmonics", least=0)
    place, distance = _places(series)
    x = series.values.astype(np.float64)
    times = series["time"].values
    gaps = np.diff(times) / np.timedelta64(1, "s")
    steps = np.concatenate([[0.0], np.cumsum(gaps / np.median(gaps))]) if len(times) > 1 else np.zeros(1)
    if len(times) < 2 or times[-1] - times[0] < np.timedelta64(2 * 365 - 31, "D"):
        harmonics = 0
    there = np.isfinite(x)
    harmonics = min(harmonics, int(there.sum(axis=0).max()) // 6)
    while harmonics and not _tells_season(_season_design(series["time"], harmonics), there).any():
        harmonics -= 1
    design = _season_design(series["time"], harmonics)
    shared = np.zeros_like(x)  # what the neighbours say of the moment: in the first round nothing
    for last in (False, False, True):
        coefficients, season_spread = _season_coefficients(design, x - shared, place)
        season = design @ coefficients.T
        scale = _scale(x - season)
        found = Anomalies((x - season) / scale, season, season_spread, scale, place, distance, steps)
        if not last and x.shape[1] > 1:
            shared = scale * krige_in_space(found)[0]
    return found


def _places(series: xr.DataArray) -> tuple[Array, Array]:
    missing = {"lat", "lon"} - set(series.coords)
    if missing:
        raise ValueError(
            f"series: expected coordinates lat and lon of each station, found no {' and no '.join(missing)}"
        )
    for axis in sorted({"lat", "lon", "elevation"} & set(series.coords)):
        if series[axis].dims != ("station",) or series[axis].dtype.kind not in "fiu":
            raise ValueError(
                f"series: expected a number for each station as coordinate {axis}, "
                f"found dims {series[axis].dims} of {series[axis].dtype}"
            )
    lat, lon = _stations(series["lat"].values, series["lon"].values)
    distance = great_circle_distance(lat[:, None], lon[:, None], lat, lon)
    around = (lon - lon[0] + 180) % 360 - 180  # the date line may run through the region
    east = 111.2 * np.cos(np.deg2rad(lat.mean())) * around
    columns = [east - east.mean(), 111.2 * (lat - lat.mean())]
    if "elevation" in series.coords:
        height = series["elevation"].values.astype(np.float64)
        if not np.isfinite(height).all():
            raise ValueError("series: expected a finite elevation of each station, or none at all")
        columns.append(height)
    return np.stack(columns, axis=1), np.asarray(distance)


def _climb(place: Array) -> Array:
    height = place[:, 2] if place.shape[1] > 2 else np.zeros(len(place))
    return np.abs(height[:, None] - height)


def _scale(x: Array) -> Array:
    """Standard deviation of each station, drawn to that of all where there are few values."""
    there = np.isfinite(x)
    count, squares = there.sum(axis=0), np.where(there, x, 0.0) ** 2
    pooled = squares.sum() / max(count.sum(), 1)
    scale = np.sqrt((squares.sum(axis=0) + 30 * pooled) / (count + 30))
    return np.where(scale > 0, scale, 1.0)


def _tells_season(design: Array, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which stations (station,) have values enough, at times of the year different enough, for a season of their own:
    the least certain combination of its coefficients must be told as by LEAST_TOLD values."""
    enough = there.sum(axis=0) >= max(3 * design.shape[1], 10)
    for i in np.flatnonzero(enough).tolist():
        own = design[there[:, i]]
        enough[i] = np.linalg.eigvalsh(own.T @ own)[0] >= LEAST_TOLD
    return enough


def _season_coefficients(design: Array, x: Array, place: Array) -> tuple[Array, Array]:
    """(station, coefficient): own estimate and that of the place, each weighted by the inverse of its variance.

    And the standard deviation (station,) of the error of the season, root mean square over the times.
    """
    there = np.isfinite(x)
    count, terms = there.sum(axis=0), design.shape[1]
    own = np.full((x.shape[1], terms), np.nan)
    enough = _tells_season(design, there)
    if not enough.any():
        enough = count == count.max()
    for i in np.flatnonzero(enough).tolist():
        own[i] = np.linalg.lstsq(design[there[:, i]], x[there[:, i], i], rcond=None)[0]
    usual = np.sqrt(np.nanmean((x - np.nanmean(x)) ** 2)) or 1.0
    prior, prior_variance = _climate_of_place(place, own, usual)
    residual = x - design @ np.where(enough[:, None], own, prior).T
    variance = max(np.nanmean(residual[:, enough] ** 2) or 1.0, 1e-12 * usual**2)
    # Neighbouring values repeat each other: n of them count as n (1 - r) / (1 + r).
    pairs = np.nan_to_num(residual[1:] * residual[:-1])
    both = there[1:] & there[:-1]
    memory = np.clip(pairs.sum() / max(both.sum(), 1) / variance, 0.0, 0.95)
    noise = variance * (1 + memory) / (1 - memory)
    coefficients, spread = np.empty_like(prior), np.empty(len(prior))
    for i, values in enumerate(x.T):
        d = design[there[:, i]]
        weight = np.diag(1 / prior_variance[i])
        covariance = np.linalg.inv(d.T @ d / noise + weight)
        coefficients[i] = covariance @ (d.T @ values[there[:, i]] / noise + weight @ prior[i])
        spread[i] = np.sqrt(((design @ covariance) * design).sum(axis=1).mean())
    return coefficients, spread


def _climate_of_place(place: Array, own: Array, usual: float) -> tuple[Array, Array]:
    """Mean and variance (station, coefficient) of the season of each station, by all stations but itself."""
    known = np.isfinite(own[:, 0])
    middle, spread = own[known].mean(axis=0), own[known].std(axis=0)
    if known.sum() < 3:  # how climates differ can't be seen: as much as the values of all stations and times do
        spread = np.full_like(spread, usual)
    spread = np.maximum(spread, 1e-9 * usual)
    mean, variance = np.tile(middle, (len(own), 1)), np.tile(spread**2, (len(own), 1))
    if known.sum() < 5:
        return mean, variance
    width = place.std(axis=0)
    coords = place / np.where(width > 0, width, 1.0)
    # The mean and the seasonal wave hang on the place in different ways: a kernel for each.
    for part in (slice(0, 1), slice(1, None)):
        if own[:, part].size:
            y = (own[known, part] - middle[part]) / spread[part]
            told, left = _gaussian_process(coords, known, y)
            mean[:, part] = middle[part] + spread[part] * told
            variance[:, part] = spread[part] ** 2 * left[:, None]
    return mean, variance


def _gaussian_process(coords: Array, known: NDArray[np.bool_], y: Array) -> tuple[Array, Array]:
    """Mean (station, output) and variance (station,) at every station; where y is known, from the others alone."""
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(coords.shape[1], 2.0), (0.2, 50.0), nu=1.5)
    kernel += WhiteKernel(0.3, (1e-3, 2.0))
    some = np.linspace(0, known.sum() - 1, min(known.sum(), GP_STATIONS)).astype(int)
    with warnings.catch_warnings():  # a length at its bound says that an axis does not matter: no fault
        warnings.simplefilter("ignore", ConvergenceWarning)
        kernel = GaussianProcessRegressor(kernel).fit(coords[known][some], y[some]).kernel_
    inverse = np.linalg.inv(kernel(coords[known]))
    mean, variance = np.empty((len(coords), y.shape[1])), np.empty(len(coords))
    mean[known] = y - (inverse @ y) / np.diag(inverse)[:, None]
    variance[known] = 1 / np.diag(inverse)
    if not known.all():
        across = kernel(coords[~known], coords[known])
        mean[~known] = across @ inverse @ y
        left = kernel.diag(coords[~known]) - np.einsum("ij,jk,ik->i", across, inverse, across)
        variance[~known] = np.maximum(left, 1e-6)
    return mean, variance


# ---------------------------------------------------------------------------- in time


def linear_in_time(series: xr.DataArray) -> Array:
    """Straight lines between the values before and after a gap; the first or last value beyond the ends.

    A station that was never observed takes the mean of the others.

    Args:
        series: (time, station), NaN where missing.

    Returns:
        (time, station) without gaps.

    Raises:
        TypeError, ValueError: see :func:`check_gappy`.
    """
    check_gappy(series)
    seconds = (series["time"].values - series["time"].values[0]) / np.timedelta64(1, "s")
    filled = series.values.astype(np.float64).copy()
    for column in filled.T:
        there = np.isfinite(column)
        if there.any():
            column[~there] = np.interp(seconds[~there], seconds[there], column[there])
    silent = np.isnan(filled).all(axis=0)
    filled[:, silent] = filled[:, ~silent].mean(axis=1, keepdims=True)
    return filled


def memory(z: Array, steps: Array) -> tuple[float, float]:
    """Share s and time scale θ of ``ρ(τ) = s exp(-τ / θ)``, fitted to the autocorrelations of all stations together.

    Args:
        z: (time, station) of mean 0, NaN where missing.
        steps: (time,) of the values, in steps.

    Returns:
        s between 0 and 1 (the rest is noise without memory), and θ in steps.
    """
    there = np.isfinite(z)
    values = np.where(there, z, 0.0)
    variance = (values**2).sum() / max(there.sum(), 1)
    lags, found, weights = [], [], []
    for lag in MEMORY_LAGS:
        if lag >= len(z) // 2:
            break
        whole = np.abs(steps[lag:] - steps[:-lag] - lag) < 0.5 * lag
        both = (there[lag:] & there[:-lag])[whole].sum()
        if both >= 20 and variance > 0:
            lags.append(float(lag))
            found.append((values[lag:] * values[:-lag])[whole].sum() / both / variance)
            weights.append(np.sqrt(both))
    if not lags:
        return 0.5, 2.0
    tau, rho, weight = np.array(lags), np.array(found), np.array(weights) / max(weights)

    def misfit(p: Array) -> Array:
        return weight * (p[0] * np.exp(-tau / np.exp(p[1])) - rho)

    fitted = least_squares(misfit, [np.clip(rho[0], 0.1, 0.9), np.log(3.0)], bounds=([0.0, -1.0], [0.999, 6.0]))
    return float(fitted.x[0]), float(np.exp(fitted.x[1]))


def krige_in_time(z: Array, steps: Array) -> tuple[Array, Array]:
    """Each station from its own past and future: simple kriging in time, from the nearest known values on both sides.

    Near a known value it follows it; far from all it returns to 0, the season.

    Args:
        z: (time, station) of mean 0, NaN where missing.
        steps: (time,) of the values, in steps.

    Returns:
        Estimate and its standard deviation (time, station), both in the units of z; only for the missing values,
        0 elsewhere.
    """
    share, scale = memory(z, steps)
    deviation = np.sqrt(np.nanmean(z**2)) if np.isfinite(z).any() else 1.0
    estimate, spread = np.zeros_like(z), np.zeros_like(z)
    for i in range(z.shape[1]):
        known, gaps = np.flatnonzero(np.isfinite(z[:, i])), np.flatnonzero(np.isnan(z[:, i]))
        if len(known) == 0:
            spread[gaps, i] = deviation
            continue
        around = np.searchsorted(known, gaps)[:, None] + np.arange(-NEAREST, NEAREST)
        real = (around >= 0) & (around < len(known))
        at = known[np.clip(around, 0, len(known) - 1)]
        among = share * np.exp(-np.abs(steps[at][:, :, None] - steps[at][:, None, :]) / scale)
        among = np.where(real[:, :, None] & real[:, None, :], among, 0.0)
        among[:, np.arange(2 * NEAREST), np.arange(2 * NEAREST)] = 1.0
        to = np.where(real, share * np.exp(-np.abs(steps[at] - steps[gaps][:, None]) / scale), 0.0)
        weights = np.linalg.solve(among, to[:, :, None])[:, :, 0]
        estimate[gaps, i] = (weights * z[at, i]).sum(axis=1)
        spread[gaps, i] = deviation * np.sqrt(np.maximum(1 - (weights * to).sum(axis=1), 1e-6))
    return estimate, spread


# ---------------------------------------------------------------------------- in space


def inverse_distance(found: Anomalies, power: float = 2.0) -> Array:
    """``ẑ_i(t) = Σ_j d_ij^-p z_j(t) / Σ_j d_ij^-p`` over the stations j that report at t; 0 where none does.

    Args:
        found: see :func:`anomalies`.
        power: p.

    Returns:
        (time, station) estimate of every value from the others.

    Source: Shepard (1968), doi:10.1145/800186.810616.
    """
    if power * np.log10(max(found.distance.max(), 1.0)) > 250:
        raise ValueError(f"power: expected a number for which km^power can be told from 0, found {power:g}")
    weight = 1 / np.maximum(found.distance, 1.0) ** power  # stations at one spot: as if a kilometre apart
    np.fill_diagonal(weight, 0.0)
    there = np.isfinite(found.z)
    total = there @ weight
    return np.divide(np.where(there, found.z, 0.0) @ weight, total, out=np.zeros_like(found.z), where=total > 0)


def space_correlation(found: Anomalies) -> SpaceCorrelation:
    """Fit ``ρ(d, h) = a exp(-(d / L)^p - |h| / H)`` to the correlations between all pairs of stations.

    Args:
        found: see :func:`anomalies`.

    Returns:
        The function. Where fewer than three pairs ever report together, what is usual for weather: a = 0.9, L = 500 km,
        p = 1.
    """
    there = np.isfinite(found.z)
    values = np.where(there, found.z, 0.0)
    first, second = np.triu_indices(values.shape[1], 1)
    both = (there.T.astype(float) @ there)[first, second]
    use = both >= LEAST_TOGETHER
    first, second, both = first[use], second[use], both[use]
    if len(both) < 3:
        return SpaceCorrelation(*USUAL)
    variance = (values**2).T @ there  # of each over the times of the other
    product = (values.T @ values)[first, second]
    correlation = product / np.sqrt(np.maximum(variance[first, second] * variance[second, first], 1e-12))
    distance, climb = found.distance[first, second], _climb(found.place)[first, second]
    weight = np.sqrt(both / both.max())
    typical, steep = max(float(np.median(distance)), 1.0), climb.max() > 0

    def misfit(p: Array) -> Array:
        height = np.exp(p[3]) if steep else np.inf  # without heights there is nothing to tell it from
        return weight * (SpaceCorrelation(p[0], np.exp(p[1]), p[2], height)(distance, climb) - correlation)

    least = [0.0, np.log(typical / 50), 0.4, np.log(100.0)]
    start = [0.8, np.log(typical * 2), 1.0, np.log(5000.0)]
    most = [0.98, np.log(typical * 50), 1.5, np.log(1e6)]
    asked = slice(4 if steep else 3)
    # The valley is flat: with looser tolerances the search ends somewhere in it, on each processor somewhere else.
    close = {"ftol": 1e-14, "xtol": 1e-12, "gtol": 1e-12, "max_nfev": 2000}
    p = least_squares(misfit, start[asked], bounds=(least[asked], most[asked]), x_scale="jac", **close).x
    return SpaceCorrelation(float(p[0]), float(np.exp(p[1])), float(p[2]), float(np.exp(p[3])) if steep else np.inf)


def krige_in_space(found: Anomalies, covariance: Array | None = None) -> tuple[Array, Array]:
    """Simple kriging: every value from those of the other stations at the same time.

    With C the covariances among the stations that report and c those with station i, the weights ``C^-1 c`` make the
    best linear estimate, ``ẑ = cᵀ C^-1 z``, of variance ``C_ii - cᵀ C^-1 c``. For a station that reports itself the
    estimate leaves its own value out: ``ẑ_i = z_i - (C^-1 z)_i / (C^-1)_ii``.

    Args:
        found: see :func:`anomalies`.
        covariance: (station, station) of the anomalies; by default a function of distance and height, fitted to
            ``found`` by :func:`space_correlation`.

    Returns:
        Estimate and its standard deviation (time, station), in standard deviations of the anomaly; 0 and about 1 where
        no other station reports.

    Source: Cressie (1993), section 3.2; leaving one out: Dubrule (1983), doi:10.1007/BF01033232.
    """
    if covariance is None:
        covariance = space_correlation(found).matrix(found)
    return _conditional(found.z, covariance)[:2]


def _conditional(z: Array, covariance: Array) -> tuple[Array, Array, Array]:
    """Mean and deviation (time, station) of each value given the others of its time, z where it is known left out;
    and the sum over the times of the covariances (station, station) of what is missing."""
    among = covariance + 1e-6 * np.eye(len(covariance))  # stations at one spot
    estimate, spread = np.zeros_like(z), np.tile(np.sqrt(np.diag(among)), (len(z), 1))
    uncertain = np.zeros_like(among)
    patterns, which, count = np.unique(np.isfinite(z), axis=0, return_inverse=True, return_counts=True)
    for k, known in enumerate(patterns):
        rows, here, gone = np.flatnonzero(which.ravel() == k), np.flatnonzero(known), np.flatnonzero(~known)
        inverse = np.linalg.inv(among[np.ix_(here, here)])
        across = among[np.ix_(gone, here)] @ inverse
        left = among[np.ix_(gone, gone)] - across @ among[np.ix_(here, gone)]
        values, own = z[np.ix_(rows, here)], np.diag(inverse)
        estimate[np.ix_(rows, here)] = values - (values @ inverse) / own
        estimate[np.ix_(rows, gone)] = values @ across.T
        spread[np.ix_(rows, here)] = 1 / np.sqrt(own)
        spread[np.ix_(rows, gone)] = np.sqrt(np.maximum(np.diag(left), 1e-6))
        uncertain[np.ix_(gone, gone)] += count[k] * left
    return estimate, spread, uncertain


def learn_covariance(found: Anomalies, weight: float = 200.0, rounds: int = 4) -> Array:
    """Covariances as they are between these very stations, learned in spite of the gaps by expectation-maximisation.

    A function of distance takes all directions and all stations for alike. Starting from it, C_0, by turns: what is
    missing is estimated with the present C; C becomes the mean of the squares and products of the filled anomalies
    and of the covariances Q(t) of what is still uncertain in them, drawn to C_0 as by ν more time steps:
    ``C = (ν C_0 + Σ_t ẑ ẑᵀ + Q(t)) / (ν + T)``.

    Args:
        found: see :func:`anomalies`.
        weight: ν.
        rounds: turns.

    Returns:
        (station, station).

    Source: Dempster, Laird & Rubin (1977); regularised for climate data by Schneider (2001),
        doi:10.1175/1520-0442(2001)014<0853:AOICDE>2.0.CO;2.
    """
    first = space_correlation(found).matrix(found)
    covariance = first
    for _ in range(rounds):
        estimate, _, uncertain = _conditional(found.z, covariance)
        filled = np.where(np.isfinite(found.z), found.z, estimate)
        covariance = (weight * first + filled.T @ filled + uncertain) / (weight + len(filled))
    return covariance


def krige_in_space_and_time(found: Anomalies, covariance: Array | None = None) -> tuple[Array, Array, Array]:
    """Kriging in space with learned covariances, then in time of what it left over.

    A station differs from what its neighbours say of it in its own way for a while: a valley in winter, a new
    thermometer. So the errors of :func:`krige_in_space` at the times before and after a gap, each in its own standard
    deviation, tell of the error inside: they are kriged in time (:func:`krige_in_time`).

    Args:
        found: see :func:`anomalies`.
        covariance: (station, station); by default from :func:`learn_covariance`.

    Returns:
        Estimate and standard deviation (time, station) of the missing values, in standard deviations of the anomaly
        (0 elsewhere); and the error of kriging in space (time, station) where the value is known, NaN elsewhere.
    """
    guess, spread = krige_in_space(found, learn_covariance(found) if covariance is None else covariance)
    left = found.z - guess
    correction, share = krige_in_time(left / spread, found.steps)
    missing = np.isnan(found.z)
    return np.where(missing, guess + spread * correction, 0.0), np.where(missing, spread * share, 0.0), left


# ---------------------------------------------------------------------------- empirical orthogonal functions


def eof_filling(found: Anomalies, most: int = 12, seed: int = 0) -> tuple[Array, float, int]:
    """Gaps from the leading EOFs of the rest, found by turns (DINEOF; expectation-maximisation of a PCA).

    Start with 0 in the gaps; take the K leading singular vectors of the filled field; put what they say into the
    gaps; repeat until nothing moves. K is the number that best foretells some known values hidden for that purpose.
    A station that was never observed stays at its season: no EOF can tell of it.

    Args:
        found: see :func:`anomalies`.
        most: largest K tried.
        seed: of the values hidden.

    Returns:
        Estimate (time, station) of every value; the standard deviation of its error where some station reports, from
        the hidden values, in standard deviations of the anomaly; and K.

    Source: Beckers & Rixen (2003), doi:10.1175/1520-0426(2003)020<1839:ECADFF>2.0.CO;2.
    """
    there = np.isfinite(found.z)
    known = np.flatnonzero(there.ravel())
    hidden = np.random.default_rng(seed).choice(known, max(int(HELD_OUT * len(known)), 1), replace=False)
    shown = there.copy()
    shown.ravel()[hidden] = False
    told = np.asarray(shown.any(axis=1))[hidden // there.shape[1]]  # else the season stands
    hidden = hidden[told] if told.any() else hidden
    truth = found.z.ravel()[hidden]
    most = min(whole_number(most, "most"), *found.z.shape)
    best, error, filled = 0, float(np.sqrt(np.mean(truth**2))), np.where(shown, found.z, 0.0)
    for modes in range(1, most + 1):
        filled = _iterate_eofs(filled, found.z, shown, modes)
        now = float(np.sqrt(np.mean((filled.ravel()[hidden] - truth) ** 2)))
        if now < error:
            best, error = modes, now
        elif modes >= best + 3:  # three in a row no better
            break
    filled = np.where(there, found.z, 0.0)
    for modes in range(1, best + 1):  # one by one: from 0 straight to many the turns may end in a wrong place
        filled = _iterate_eofs(filled, found.z, there, modes)
    return filled, error, best


def _iterate_eofs(filled: Array, z: Array, shown: Array, modes: int) -> Array:
    for _ in range(100):
        tall = filled.shape[0] >= filled.shape[1]
        square = filled.T @ filled if tall else filled @ filled.T
        vectors = np.linalg.eigh(square)[1][:, -modes:]  # leading singular vectors, of the shorter side
        smooth = (filled @ vectors) @ vectors.T if tall else vectors @ (vectors.T @ filled)
        new = np.where(shown, z, smooth)
        change = np.sqrt(np.mean((new - filled) ** 2))
        filled = new
        if change < TOLERANCE:
            break
    return filled
