"""Weather with a known truth: made-up fields with planted regimes, regions or best forecast, and planted gaps.

A method that finds patterns in real weather cannot be marked right or wrong. Here it can, and a forecast can be
held against the best one that there is. Values that are taken out of a real record are known too: what fills the
gaps can be held against them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ._checks import number, whole_number

SIDE = 2.0  # the stations lie in a square of 2 x 2 length units
DEGREES = 5.0  # degrees to one unit, around the equator, where a degree is the same distance both ways
CENTRE = (0.0, -140.0)  # latitude, longitude: in the open Pacific
STEP = "6h"
WAVE_NUMBERS = np.pi * np.array([1.0, 1.6, 2.3])  # rad per unit
PHASE_SPEEDS = np.array([0.42, 0.54, 0.66])  # rad per step
PHASE_NOISE = 0.05  # rad per step
MEMORY = 0.7  # lag-one autocorrelation of the noise
NOISE_LENGTH, PATTERN_LENGTH = 0.3, 0.6  # units
DRIFT = 0.2  # units a step, how far the wind of a planted region carries the field
CARRIED_MEMORY = 0.9
OWN_MEMORY = 0.3  # of a station that others influence


def travelling_regimes(
    num_nodes: int = 100,
    num_steps: int = 4000,
    num_regimes: int = 4,
    seed: int = 0,
    signal: float = 1.0,
    direction: float = 0.0,
    duration: tuple[int, int] = (25, 60),
) -> tuple[xr.DataArray, xr.DataArray]:
    """Regimes that differ in how they move, and not in how a snapshot looks.

    In regime k the field is a sum of three plane waves that travel towards the angle
    ``direction + 360° k / num_regimes`` (counted from east, anticlockwise), with phases drawn anew at each
    onset, plus noise with a memory of 0.7 and a Gaussian correlation in space. All stations are standardised.
    Every regime has the same mean, 0, and a wave looks the same whether it comes or goes: of two opposite
    directions a snapshot cannot tell which it is.

    Args:
        num_nodes: N, stations at random in a square.
        num_steps: length of the series.
        num_regimes: K; 1 gives a single regime without an end.
        seed: of everything random.
        signal: standard deviation of the waves over that of the noise.
        direction: degrees, where the waves of regime 0 go; 0 is east.
        duration: shortest and longest duration of a regime in steps.

    Returns:
        (time, station) series with lat, lon; (time,) regime that was planted.

    Raises:
        TypeError, ValueError: for sizes below 1, a negative signal, or a duration of no steps.
    """
    num_nodes, num_steps, num_regimes, seed = _sizes(num_nodes, num_steps, num_regimes, seed, signal)
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, SIDE, (num_nodes, 2))
    truth = _sequence(rng, num_steps, num_regimes, duration)
    onset = np.diff(truth, prepend=-1) != 0
    # The phases walk from step to step, and are drawn anew at each onset: a sum that starts again there.
    walk = np.cumsum(PHASE_SPEEDS + PHASE_NOISE * rng.standard_normal((num_steps, 3)), axis=0)
    starts = np.flatnonzero(onset)
    fresh = rng.uniform(0, 2 * np.pi, (starts.size, 3)) - walk[starts]
    phase = walk + np.repeat(fresh, np.diff(starts, append=num_steps), axis=0)
    angle = np.deg2rad(direction) + 2 * np.pi * np.arange(num_regimes) / num_regimes
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ xy.T  # (regime, station): distance down the wind
    field = np.zeros((num_steps, num_nodes))
    for wave, wave_number in enumerate(WAVE_NUMBERS):
        field += np.cos(wave_number * along[truth] - phase[:, wave, None])
    return _finish(rng, xy, field, truth, signal)


def mean_pattern_regimes(
    num_nodes: int = 100,
    num_steps: int = 4000,
    num_regimes: int = 4,
    seed: int = 0,
    signal: float = 1.0,
    duration: tuple[int, int] = (25, 60),
) -> tuple[xr.DataArray, xr.DataArray]:
    """Regimes that differ in their mean pattern: the classical case.

    In regime k a smooth random pattern of its own is added to the same noise as in
    :func:`travelling_regimes`. A snapshot shows which regime it belongs to.

    Args, Returns, Raises:
        As in :func:`travelling_regimes`; ``signal`` is the standard deviation of the patterns over that of
        the noise.
    """
    num_nodes, num_steps, num_regimes, seed = _sizes(num_nodes, num_steps, num_regimes, seed, signal)
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, SIDE, (num_nodes, 2))
    truth = _sequence(rng, num_steps, num_regimes, duration)
    patterns = rng.standard_normal((num_regimes, num_nodes)) @ _correlated(xy, PATTERN_LENGTH).T
    return _finish(rng, xy, patterns[truth], truth, signal)


def phase_randomised(series: xr.DataArray, seed: int = 0) -> xr.DataArray:
    """A surrogate without regimes: the same mean, spectra and lagged correlations, everything else shuffled.

    ``x*(t) = IFFT[ FFT(x)(f) · exp(iφ(f)) ]`` with one random phase φ for each frequency, the same at all
    stations. What is left is what a linear, stationary, Gaussian process would show.

    Args:
        series: (time, station) without missing values.
        seed: of the phases.

    Returns:
        (time, station), with the coordinates and attributes of the series.

    Raises:
        TypeError, ValueError: for another kind of series, or one with missing values.

    Source: Prichard & Theiler (1994), doi:10.1103/PhysRevLett.73.951.
    """
    _check_series(series)
    if not np.isfinite(series.values).all():
        raise ValueError("series: found missing values; a spectrum needs a series without gaps, fill them first")
    spectrum = np.fft.rfft(series.values.astype(float), axis=0)
    turn = np.exp(2j * np.pi * np.random.default_rng(seed).uniform(size=len(spectrum)))
    turn[0] = 1  # the mean stays
    if series.sizes["time"] % 2 == 0:
        turn[-1] = 1  # the highest frequency of an even length is real
    return series.copy(data=np.fft.irfft(spectrum * turn[:, None], n=series.sizes["time"], axis=0))


def withhold(
    series: xr.DataArray,
    share: float,
    pattern: str = "random",
    length: tuple[int, int] = (7, 56),
    seed: int = 0,
) -> xr.DataArray:
    """The series with some of its observed values taken out, to see how well they can be filled in.

    What was taken out is ``series.notnull() & withheld.isnull()``. With the same seed a larger share takes out all
    that a smaller one does, and more.

    Args:
        series: (time, station), NaN where nothing was observed; gaps of its own stay gaps and do not count.
        share: of the observed values, from 0 to below 1.
        pattern: ``"random"``: each value alike, ``round(share * observed)`` of them. ``"blocks"``: as many, in runs
            at a random station and time; runs may meet or overlap, and the ends of the record and gaps of its own
            may cut them short, as may the count, which is exact, the last one. ``"stations"``: whole stations,
            ``round(share * stations that report)`` of them, but at least one, unless the share is 0: the share of
            the values that this takes out is only near the one asked for. Always something is left, a value or
            a station.
        length: shortest and longest run of ``"blocks"`` in steps; all lengths between are alike.
        seed: of everything random.

    Returns:
        (time, station), with the coordinates and attributes of the series; what is left is untouched.

    Raises:
        TypeError, ValueError: for another kind of series, one without a value, a share that is not from 0 to below
            1, an unknown pattern, a length that is no (shortest, longest), or whole stations of a series in which
            fewer than two report.
    """
    _check_series(series)
    if series.dtype.kind not in "fiu":
        raise TypeError(f"series: expected numbers, found dtype {series.dtype}")
    share, seed = number(share, "share", least=0), whole_number(seed, "seed", least=0)
    if share >= 1:
        raise ValueError(f"share: expected a number from 0 to below 1, found {share!r}")
    if pattern not in ("random", "blocks", "stations"):
        raise ValueError(f"pattern: expected 'random', 'blocks' or 'stations', found {pattern!r}")
    shortest, longest = _shortest_longest(length, "length")
    shown = series.notnull().values  # a new array: what is left in the end
    observed, reporting = np.flatnonzero(shown), np.flatnonzero(shown.any(axis=0))
    if observed.size == 0:
        raise ValueError("series: expected at least one observed value, found none")
    rng = np.random.default_rng(seed)
    count = min(round(share * observed.size), observed.size - 1)
    if pattern == "random":
        shown.flat[rng.permutation(observed)[:count]] = False
    elif pattern == "stations" and share > 0:
        if reporting.size < 2:
            raise ValueError(
                "series: expected at least two stations that report, one to withhold and one to keep, "
                f"found {reporting.size} of {series.sizes['station']}"
            )
        stations = min(max(round(share * reporting.size), 1), reporting.size - 1)
        shown[:, rng.permutation(reporting)[:stations]] = False
    elif pattern == "blocks":
        while count > 0:
            steps = int(rng.integers(shortest, longest + 1))
            # A run may begin before the record does: else the first and last values would hardly ever be taken.
            start = int(rng.integers(1 - steps, len(shown)))
            column = shown[max(start, 0) : start + steps, rng.choice(reporting)]  # a view
            taken = np.flatnonzero(column)[:count]
            column[taken] = False
            count -= taken.size
    return series.where(xr.DataArray(shown, dims=series.dims))


def _check_series(series: xr.DataArray) -> None:
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"series: expected an xarray DataArray (time, station), found {type(series).__name__}")
    if series.dims != ("time", "station") or series.size == 0:
        raise ValueError(f"series: expected dims (time, station), none of them empty, found {dict(series.sizes)}")


def _shortest_longest(value: tuple[int, int], name: str) -> tuple[int, int]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}: expected (shortest, longest), found {value!r}")
    shortest, longest = (whole_number(limit, name) for limit in value)
    if shortest > longest:
        raise ValueError(f"{name}: expected (shortest, longest), found {value!r}")
    return shortest, longest


def _sizes(num_nodes: int, num_steps: int, num_regimes: int, seed: int, signal: float) -> tuple[int, int, int, int]:
    if not np.isfinite(signal) or signal < 0:
        raise ValueError(f"signal: expected a number of at least 0, found {signal!r}")
    return (
        whole_number(num_nodes, "num_nodes"),
        whole_number(num_steps, "num_steps", least=2),
        whole_number(num_regimes, "num_regimes"),
        whole_number(seed, "seed", least=0),
    )


def _sequence(
    rng: np.random.Generator, num_steps: int, num_regimes: int, duration: tuple[int, int]
) -> NDArray[np.int64]:
    """Which regime rules at each step: each lasts a while, then another follows."""
    shortest, longest = _shortest_longest(duration, "duration")
    if num_regimes == 1:
        return np.zeros(num_steps, dtype=np.int64)
    parts, length, regime = [], 0, int(rng.integers(num_regimes))
    while length < num_steps:
        parts.append(np.full(rng.integers(shortest, longest + 1), regime))
        length += parts[-1].size
        regime = (regime + int(rng.integers(1, num_regimes))) % num_regimes
    return np.concatenate(parts)[:num_steps].astype(np.int64)


def _correlated(xy: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Matrix that gives independent numbers a Gaussian correlation in space."""
    square = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    return np.linalg.cholesky(np.exp(-square / (2 * length**2)) + 1e-8 * np.eye(len(xy)))


def _finish(
    rng: np.random.Generator,
    xy: NDArray[np.float64],
    field: NDArray[np.float64],
    truth: NDArray[np.int64],
    signal: float,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Add the noise, standardise each station, and put names and coordinates on it."""
    noise = _autoregression(rng.standard_normal(field.shape) @ _correlated(xy, NOISE_LENGTH).T)
    values = signal * field / max(field.std(), 1e-12) + noise
    series = _labelled(xy, (values - values.mean(axis=0)) / values.std(axis=0), "standardised value")
    return series, xr.DataArray(truth, dims="time", coords={"time": series["time"]}, name="regime")


def _labelled(xy: NDArray[np.float64], values: NDArray[np.float64], long_name: str) -> xr.DataArray:
    """Put names and coordinates on a (time, station) array."""
    east, north = (xy - SIDE / 2).T * DEGREES
    coords = {
        "time": pd.date_range("2000-01-01", periods=len(values), freq=STEP),
        "station": [f"S{i:03d}" for i in range(len(xy))],
        "lat": ("station", CENTRE[0] + north, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("station", CENTRE[1] + east, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attrs = {"units": "1", "long_name": long_name}
    return xr.DataArray(values, dims=("time", "station"), coords=coords, attrs=attrs, name="value")


def planted_regions(
    num_nodes: int = 100,
    num_steps: int = 1000,
    num_regions: int = 4,
    seed: int = 0,
    signal: float = 0.5,
    kind: str = "signals",
) -> tuple[xr.DataArray, xr.DataArray]:
    """Regions that are known: each station belongs to the nearest of a few random centres.

    With ``kind="signals"`` the stations of a region vary together: each region has its own signal, an
    autoregression with a memory of 0.7, the same at all its stations. With ``kind="motion"`` the regions share
    one field, which is carried along by another wind in each: it goes towards the angle 360° k / num_regions
    (counted from east, anticlockwise) in region k,
    ``f(r, t) = 0.9 f(r - u_k, t - 1) + e(r, t)`` with innovations e that are correlated in space. There, variance,
    spectrum and the correlation at the same time are nearly alike everywhere and only the direction differs.
    Either is covered by noise with a memory of 0.7 and a Gaussian correlation in space.

    Args:
        num_nodes: N, stations at random in a square.
        num_steps: length of the series.
        num_regions: K, at most num_nodes; each region gets at least N / 3K stations (rounded down).
        seed: of everything random.
        signal: standard deviation of the signals, or of the carried field, over that of the noise: the lower,
            the harder.
        kind: ``"signals"`` or ``"motion"``.

    Returns:
        (time, station) series with lat, lon; (station,) region that was planted.

    Raises:
        TypeError, ValueError: for sizes below 1, more regions than stations, a negative signal, or an unknown kind.
    """
    num_nodes, num_steps, num_regions, seed = _sizes(num_nodes, num_steps, num_regions, seed, signal)
    if num_regions > num_nodes:
        raise ValueError(f"num_regions: expected at most {num_nodes}, the number of stations, found {num_regions}")
    if kind not in ("signals", "motion"):
        raise ValueError(f"kind: expected 'signals' or 'motion', found {kind!r}")
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, SIDE, (num_nodes, 2))
    truth = _territories(rng, xy, num_regions)
    if kind == "signals":
        field = _autoregression(rng.standard_normal((num_steps, num_regions)))[:, truth]
    else:
        field = _carried(rng, xy, truth, num_regions, num_steps)
    series, _ = _finish(rng, xy, field, np.zeros(num_steps, dtype=np.int64), signal)
    coords = {name: series[name] for name in ("station", "lat", "lon")}
    return series, xr.DataArray(truth, dims="station", coords=coords, name="region")


def _territories(rng: np.random.Generator, xy: NDArray[np.float64], num_regions: int) -> NDArray[np.int64]:
    """To which of a few centres each station is nearest; the centres are drawn until no region is tiny."""
    least = max(len(xy) // (3 * num_regions), 1)
    for _ in range(1000):
        centres = rng.uniform(0, SIDE, (num_regions, 2))
        truth = ((xy[:, None] - centres) ** 2).sum(-1).argmin(1)
        if np.bincount(truth, minlength=num_regions).min() >= least:
            return truth.astype(np.int64)
    # As many regions as this leave no room for chance: strips of equal size, from west to east.
    return (xy[:, 0].argsort().argsort() * num_regions // len(xy)).astype(np.int64)


def _autoregression(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give white noise (time, ...) a memory, in place, and the variance 1."""
    noise[1:] *= np.sqrt(1 - MEMORY**2)
    for t in range(1, len(noise)):
        noise[t] += MEMORY * noise[t - 1]
    return noise


def _carried(
    rng: np.random.Generator, xy: NDArray[np.float64], truth: NDArray[np.int64], num_regions: int, num_steps: int
) -> NDArray[np.float64]:
    """A field that the wind of each region carries along, with unit variance at each station."""
    angle = 2 * np.pi * np.arange(num_regions) / num_regions
    upstream = xy - DRIFT * np.stack([np.cos(angle), np.sin(angle)], axis=1)[truth]
    carry = _carry(xy, upstream, CARRIED_MEMORY)
    spin_up = 50  # steps until the start is forgotten
    field = rng.standard_normal((spin_up + num_steps, len(xy))) @ _correlated(xy, NOISE_LENGTH / 2).T
    for t in range(1, len(field)):
        field[t] += carry @ field[t - 1]
    field = field[spin_up:]
    return field / field.std(axis=0)


def _carry(xy: NDArray[np.float64], upstream: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    """(station, station) matrix that reads a field off at the points upstream and damps it."""
    # The value upstream is what the stations around that point say, the nearer the louder.
    weight = np.exp(-((upstream[:, None] - xy) ** 2).sum(-1) / (2 * (DRIFT / 2) ** 2)) + 1e-12
    return memory * weight / weight.sum(1, keepdims=True)


# ---------------------------------------------------------------------------- advection


@dataclass(frozen=True)
class Advection:
    """What lies behind an advected field, and with it the best forecast that there is, see :func:`advected_field`.

    Attributes:
        wind: (time,) where the field goes from this time to the next: degrees from east, anticlockwise.
        carry: the matrix (station, station) of each direction that occurs.
        innovation: (station, station) covariance of what is new at each step.
        stations: (station,) their names.
    """

    wind: xr.DataArray
    carry: dict[float, NDArray[np.float64]]
    innovation: NDArray[np.float64]
    stations: NDArray[np.str_]

    def forecast(self, series: xr.DataArray, lead: int = 1, frozen: bool = False) -> xr.DataArray:
        """The conditional mean: ``x(t + h) = A(t + h - 1) ... A(t + 1) A(t) x(t)``.

        It knows the matrices, and the wind up to the valid time. With a steady wind that is no secret, and the
        forecast is the best there is. With a turning wind it is a bound: on average nobody who must guess how
        the wind will turn can do better.

        Args:
            series: (time, station), the advected field or a stretch of it.
            lead: lead time h in steps.
            frozen: let the wind stay as it is when the forecast starts; a forecast that needs no future.

        Returns:
            (time, station) at valid times; the first ``lead`` steps are NaN.

        Raises:
            TypeError, ValueError: for another kind of series, other stations or times, or a lead below 1.
        """
        lead, row = whole_number(lead, "lead"), self._rows(series)
        values = np.full(series.shape, np.nan)
        x = series.values[: max(len(row) - lead, 0)].astype(float)
        for step in range(lead):
            wind = self.wind.values[row[: len(x)] + (0 if frozen else step)]
            for direction in np.unique(wind):
                there = wind == direction
                x[there] = x[there] @ self.carry[direction].T
        values[lead:] = x
        return series.copy(data=values)

    def spread(self, series: xr.DataArray, lead: int = 1) -> xr.DataArray:
        """Standard deviation of the error of :meth:`forecast`: ``P(h) = A P(h - 1) Aᵀ + Q``, its diagonal.

        Args, Returns, Raises:
            As for the forecast, which does not let the wind stay.
        """
        lead, row = whole_number(lead, "lead"), self._rows(series)
        values = np.full(series.shape, np.nan)
        known: dict[tuple[float, ...], NDArray[np.float64]] = {}
        for t in range(lead, len(row)):
            path = tuple(self.wind.values[row[t - lead] : row[t - lead] + lead])
            if path not in known:
                covariance = np.zeros_like(self.innovation)
                for direction in path:
                    carry = self.carry[direction]
                    covariance = carry @ covariance @ carry.T + self.innovation
                known[path] = np.sqrt(np.diag(covariance))
            values[t] = known[path]
        return series.copy(data=values).assign_attrs(long_name="standard deviation of the forecast")

    def _rows(self, series: xr.DataArray) -> NDArray[np.int64]:
        """Where a series lies in the simulated time."""
        if not isinstance(series, xr.DataArray):
            raise TypeError(f"series: expected an xarray DataArray (time, station), found {type(series).__name__}")
        if series.dims != ("time", "station") or "time" not in series.coords or "station" not in series.coords:
            raise ValueError(f"series: expected dims (time, station) with coordinates, found {series.dims}")
        if not np.array_equal(series["station"].values, self.stations):
            raise ValueError(
                f"series: expected the {len(self.stations)} stations of the simulation in their order, "
                f"found {series['station'].values.tolist()}"
            )
        row = self.wind.indexes["time"].get_indexer(series.indexes["time"])
        if len(row) == 0 or (row < 0).any() or (np.diff(row) != 1).any():
            raise ValueError("series: expected times of the simulation, one after the other, found others or none")
        return row


def advected_field(
    num_nodes: int = 50,
    num_steps: int = 2000,
    seed: int = 0,
    turn: float = 0.0,
    memory: float = 0.95,
    direction: float = 0.0,
) -> tuple[xr.DataArray, Advection]:
    """A field that the wind carries over the stations, and the best forecast of it.

    ``x(t + 1) = A(t) x(t) + e(t + 1)``: A reads the field off upstream of each station, between the stations
    around that point, and damps it; e is Gaussian and correlated in space. The wind is the same everywhere and
    carries 0.2 units (one degree) a step. Upstream of the edge there is nothing to read: there the stations near
    the edge stand in.

    With ``turn=0`` the wind is steady, A never changes, and a vector autoregression has the right form: no
    network can be better than it by more than its coefficients are wrong. With ``turn > 0`` the wind turns at
    random, all directions come alike, and what is best follows from the last steps in a way that is not linear.

    Args:
        num_nodes: N, stations at random in a square.
        num_steps: length of the series.
        seed: of everything random.
        turn: standard deviation of the change of the wind's direction in a step, degrees. Directions are whole
            tens of degrees more than ``direction``.
        memory: how much of the field is left after a step, 0 to below 1.
        direction: degrees from east, anticlockwise: where the wind goes at first.

    Returns:
        (time, station) series with lat, lon; the wind and the best forecast, see :class:`Advection`.

    Raises:
        TypeError, ValueError: for sizes below 1, a negative turn, or a memory outside 0 to 1.
    """
    num_nodes, num_steps, _, seed = _sizes(num_nodes, num_steps, 1, seed, 0.0)
    if not np.isfinite(turn) or turn < 0:
        raise ValueError(f"turn: expected a number of at least 0, found {turn!r}")
    if not 0 <= memory < 1:
        raise ValueError(f"memory: expected a number from 0 to below 1, found {memory!r}")
    if not np.isfinite(direction):
        raise ValueError(f"direction: expected degrees, found {direction!r}")
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, SIDE, (num_nodes, 2))
    spin_up = 100  # steps until the start is forgotten
    walk = np.cumsum(turn * rng.standard_normal(spin_up + num_steps))
    wind = (direction + 10 * np.round((walk - walk[spin_up]) / 10)) % 360
    carry = {}
    for angle in np.unique(wind):
        downwind = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        carry[float(angle)] = _carry(xy, xy - DRIFT * downwind, memory)
    # Innovations of this size give the field about the variance 1, less what reading off between stations smooths.
    factor = np.sqrt(1 - memory**2) * _correlated(xy, NOISE_LENGTH)
    field = rng.standard_normal((spin_up + num_steps, num_nodes)) @ factor.T
    for t in range(1, len(field)):
        field[t] += carry[wind[t - 1]] @ field[t - 1]
    series = _labelled(xy, field[spin_up:], "value carried by the wind")
    attrs = {"units": "degrees", "long_name": "where the wind goes, from east anticlockwise"}
    blown = xr.DataArray(wind[spin_up:], dims="time", coords={"time": series["time"]}, attrs=attrs, name="wind")
    return series, Advection(blown, carry, factor @ factor.T, series["station"].values)


# ---------------------------------------------------------------------------- influence


def delayed_influence(
    num_nodes: int = 12,
    num_steps: int = 3000,
    seed: int = 0,
    sources: int = 2,
    longest: int = 4,
    strength: float = 0.5,
    kind: str = "linear",
) -> tuple[xr.DataArray, xr.Dataset]:
    """Stations that few others influence, each after its own delay: what an explanation ought to find.

    ``x_i(t) = 0.3 x_i(t - 1) + Σ_j w_ij g(x_j(t - d_ij)) + e_i(t)``. Each station listens to a few others, drawn by
    lot wherever they lie. The innovations e have the variance 1 and a Gaussian correlation in space, so that a
    neighbour is often correlated with what it does not influence. With ``kind="linear"`` g is the value itself; with
    ``"magnitude"`` it is ``|x| - √(2/π)``: high and low count alike, which leaves hardly any correlation, and hardly
    anything for a linear model to find (up to a strength of 0.5; the stronger, the more the distributions lean).

    Args:
        num_nodes: N, stations at random in a square.
        num_steps: length of the series.
        seed: of everything random.
        sources: how many others each station listens to.
        longest: longest delay in steps; the delays are drawn from 1 to this.
        strength: ``Σ_j |w_ij|``, shared evenly among the sources, with signs by lot; 0 to below 0.7, so that the field
            stays bounded.
        kind: ``"linear"`` or ``"magnitude"``.

    Returns:
        (time, station) series with lat, lon; the truth: ``weight`` w (target, source) and ``delay`` d (target, source)
        in steps, both 0 where there is no influence. The diagonal holds each station's own memory.

    Raises:
        TypeError, ValueError: for sizes below 1, as many sources as stations, a strength outside 0 to 0.7, or an
            unknown kind.
    """
    num_nodes, num_steps, _, seed = _sizes(num_nodes, num_steps, 1, seed, 0.0)
    longest = whole_number(longest, "longest")
    sources = whole_number(sources, "sources", least=0)
    if sources >= num_nodes:
        raise ValueError(f"sources: expected fewer than the {num_nodes} stations, found {sources}")
    if not 0 <= number(strength, "strength", least=0) < 1 - OWN_MEMORY:
        raise ValueError(f"strength: expected a number from 0 to below {1 - OWN_MEMORY:g}, found {strength!r}")
    if kind not in ("linear", "magnitude"):
        raise ValueError(f"kind: expected 'linear' or 'magnitude', found {kind!r}")
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, SIDE, (num_nodes, 2))
    weight, delay = OWN_MEMORY * np.eye(num_nodes), np.eye(num_nodes, dtype=np.int64)
    for i in range(num_nodes):
        heard = rng.choice(np.delete(np.arange(num_nodes), i), sources, replace=False)
        weight[i, heard] = strength / max(sources, 1) * rng.choice([-1.0, 1.0], sources)
        delay[i, heard] = rng.integers(1, longest + 1, sources)
    others = weight - np.diag(np.diag(weight))
    after = [others * (delay == d) for d in range(1, longest + 1)]
    spin_up = 100 + longest  # steps until the start is forgotten
    field = rng.standard_normal((spin_up + num_steps, num_nodes)) @ _correlated(xy, NOISE_LENGTH).T
    told = np.zeros_like(field)  # what the others hear
    for t in range(len(field)):
        if t >= longest:
            field[t] += OWN_MEMORY * field[t - 1]
            field[t] += sum(part @ told[t - d] for d, part in enumerate(after, start=1))
        told[t] = field[t] if kind == "linear" else np.abs(field[t]) - np.sqrt(2 / np.pi)
    series = _labelled(xy, field[spin_up:], "value that others influence")
    names = series["station"].values
    truth = xr.Dataset(
        {
            "weight": (("target", "source"), weight, {"units": "1"}),
            "delay": (("target", "source"), delay, {"units": "steps"}),
        },
        coords={"target": names, "source": names},
    )
    return series, truth
