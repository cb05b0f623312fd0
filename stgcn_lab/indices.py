"""Climate indices of station series, as farmers and engineers use them, and wind speed as the power of a turbine.

Drought (`spi`, `spei`), the water that the air asks for (`evapotranspiration`), warmth summed up (`degree_days`), the
season without frost and wind power. Where a well-kept library has the method, it is called: xclim fits the drought
indices and knows where the sun stands, windpowerlib has the power curves of real turbines. Both come with
``pip install "stgcn-lab[applications]"`` and are imported when a function needs them: xclim alone takes seconds.

Most of these indices are made for daily values. Here they take monthly means and sums, and each says what that costs.
A missing month stays missing.
"""

import contextlib
import copy
import importlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri
from scipy.stats import kappa4

from ._checks import number, whole_number
from .datasets import check_series

BEYOND = 3.09  # a standard normal value is as far out as this once in a thousand times


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside a library: what it uses of others and its makers will have to change is not the reader's business."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _library(name: str) -> Any:
    try:
        with _quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'indices: expected {name.split(".")[0]}, found none; pip install "stgcn-lab[applications]"'
        ) from error


def _series(series: Any, name: str, units: str) -> xr.DataArray:
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"{name}: expected an xarray DataArray (time, station), found {type(series).__name__}")
    checked = check_series(series, name, units)
    return checked.astype(np.float64)


def _monthly(series: Any, name: str, units: str) -> xr.DataArray:
    """A checked series of dates, no two of them in one month."""
    series = _series(series, name, units)
    if not np.issubdtype(series["time"].dtype, np.datetime64):
        raise TypeError(f"{name}: expected times as datetime64, found {series['time'].dtype}; a month needs dates")
    if np.unique(_months(series)).size < series.sizes["time"]:
        raise ValueError(f"{name}: expected monthly values, found two times in one month; take monthly means or sums")
    return series


def _months(series: xr.DataArray) -> np.ndarray:
    return series["time"].values.astype("datetime64[M]")


def _not_negative(series: xr.DataArray, name: str) -> xr.DataArray:
    if (series.values < 0).any():
        raise ValueError(f"{name}: expected values of at least 0, found {np.nanmin(series.values):g}")
    return series


def _same_places(first: xr.DataArray, name: str, second: xr.DataArray, second_name: str) -> None:
    for dim in ("time", "station"):
        if not np.array_equal(first[dim].values, second[dim].values):
            raise ValueError(f"{second_name}: expected the {dim} of {name}, value for value, found others")


def _temperatures(tmin: Any, tmax: Any) -> tuple[xr.DataArray, xr.DataArray]:
    tmin, tmax = _monthly(tmin, "tmin", "degC"), _monthly(tmax, "tmax", "degC")
    _same_places(tmin, "tmin", tmax, "tmax")
    crossed = tmin.values > tmax.values
    if crossed.any():
        t, s = np.argwhere(crossed)[0]
        raise ValueError(
            f"tmax: expected at least tmin, found {tmax.values[t, s]:g} below {tmin.values[t, s]:g} degC "
            f"at {tmin['station'].values[s]} in {_months(tmin)[t]}"
        )
    return tmin, tmax


def _result(like: xr.DataArray, values: np.ndarray, name: str, long_name: str, units: str) -> xr.DataArray:
    return xr.DataArray(values, like.coords, like.dims, name, {"long_name": long_name, "units": units})


# ---------------------------------------------------------------------------- drought


def spi(
    precip: xr.DataArray, months: int = 3, reference: tuple[str, str] | None = None, min_years: int = 20
) -> xr.DataArray:
    """Standardised precipitation index: how unusual the rain of the last months is for the place and the season.

    The sum S of the last ``months`` months is brought to a standard normal value, month by month of the calendar and
    station by station: ``SPI = Φ^-1(q + (1 - q) G(S))``, with q the share of sums that are 0 and G a gamma
    distribution from 0, fitted to the others by maximum likelihood. -1 is a dry spell that one season in six
    falls below, -2 one in 44. xclim fits and transforms.

    Only ``reference`` is fitted, the whole record is transformed: what comes after the reference period does not change
    a value inside, nor what is learned from it. Values beyond +-3.09, once in a thousand times, are set to +-3.09:
    thirty sums say nothing of such odds, and a sum of 0 where none was seen before has no finite value at all.

    Args:
        precip: (time, station) monthly sums, "mm"; NaN is missing.
        months: how many months are summed up, the last one included.
        reference: first and last date of the period that is fitted, such as ("1951", "1980"); None takes all.
        min_years: a calendar month of a station with fewer sums than this in the reference period is NaN, and so is
            one with fewer than half as many sums above 0, or all alike: too little to fit a gamma distribution to.

    Returns:
        (time, station), units "1". NaN where one of the months of the sum is missing, as it is at the start.

    Raises:
        ImportError: without xclim.
        TypeError, ValueError: for another series, units or setting, two times in one month, negative sums, or a
            reference period that has ``min_years`` sums nowhere.

    Source: McKee, Doesken & Kleist (1993); zeros as in WMO-No. 1090 (2012).
    """
    precip = _not_negative(_monthly(precip, "precip", "mm"), "precip")
    name = "standardized_precipitation_index"
    gamma: dict[str, Any] = {"dist": "gamma", "method": "ML", "fitkwargs": {"floc": 0}}
    values = _standardised(precip, months, reference, min_years, name, zeros_apart=True, **gamma)
    return _result(precip, values, "spi", f"standardised precipitation index, sums of {months} month(s)", "1")


def spei(
    precip: xr.DataArray,
    evapotranspiration: xr.DataArray,
    months: int = 3,
    reference: tuple[str, str] | None = None,
    min_years: int = 20,
) -> xr.DataArray:
    """Standardised precipitation evapotranspiration index: as :func:`spi`, of rain less what the air asks for.

    ``SPEI = Φ^-1(F(D))``, D the sum of ``precip - evapotranspiration`` over the last ``months`` months and F a
    log-logistic distribution with three parameters, free to lean to either side (the generalised logistic), fitted by
    L-moments as the authors of the index do. Maximum likelihood is slower by far and puts the end of the distribution
    so close to the driest sum of the reference that a drier one later is impossible. xclim transforms.

    Args:
        precip: (time, station) monthly sums, "mm"; NaN is missing.
        evapotranspiration: the same for the potential evapotranspiration, for example from
            :func:`evapotranspiration`.
        months, reference, min_years: as for :func:`spi`.

    Returns:
        (time, station), units "1", within +-3.09. NaN where one of the months of the sum is missing.

    Raises:
        ImportError: without xclim.
        TypeError, ValueError: as :func:`spi`, or for other times and stations in the two series.

    Source: Vicente-Serrano, Beguería & López-Moreno (2010); Beguería et al. (2014).
    """
    precip = _not_negative(_monthly(precip, "precip", "mm"), "precip")
    evapotranspiration = _monthly(evapotranspiration, "evapotranspiration", "mm")
    _same_places(precip, "precip", evapotranspiration, "evapotranspiration")
    min_years = whole_number(min_years, "min_years", least=5)  # xclim takes no L-moments of fewer
    dist = copy.copy(kappa4)
    dist.lmom_fit = _log_logistic  # where xclim looks for a fit by L-moments
    balance = precip.copy(data=precip.values - evapotranspiration.values)
    name = "standardized_precipitation_evapotranspiration_index"
    values = _standardised(balance, months, reference, min_years, name, dist=dist, method="PWM")
    long_name = f"standardised precipitation evapotranspiration index, sums of {months} month(s)"
    return _result(precip, values, "spei", long_name, "1")


def _standardised(
    amount: xr.DataArray,
    months: int,
    reference: tuple[str, str] | None,
    min_years: int,
    index: str,
    zeros_apart: bool = False,
    **settings: Any,
) -> np.ndarray:
    """Values of xclim's index, for the times of ``amount``."""
    months, min_years = whole_number(months, "months"), whole_number(min_years, "min_years", least=2)
    # Months that have no row are missing too.
    stamps = _months(amount)
    every = np.arange(stamps[0], stamps[-1] + np.timedelta64(1, "M"))
    amount = amount.assign_coords(time=stamps.astype("datetime64[ns]")).reindex(time=every.astype("datetime64[ns]"))
    # Not a rolling sum: that carries rounding errors on, and a dry window would be not quite 0.
    total = sum((amount.shift(time=lag) for lag in range(1, months)), amount)

    start, end = _reference(reference)
    fitted = total.sel(time=slice(start, end))
    count = fitted.groupby("time.month").count("time") if fitted.sizes["time"] else xr.zeros_like(fitted)
    most = int(count.max()) if count.size else 0
    if most < min_years:
        raise ValueError(
            f"reference: expected a period with {min_years} complete sums of {months} month(s) for some calendar month "
            f"and station, found {most} at most from {start or every[0]} to {end or every[-1]}"
        )
    enough = count >= min_years
    if zeros_apart:
        fitted = fitted.where(fitted > 0)
        enough &= fitted.groupby("time.month").count("time") >= min_years / 2
    enough &= fitted.groupby("time.month").max("time") > fitted.groupby("time.month").min("time")
    month = total["time"].dt.month
    total = total.where(enough.reindex(month=range(1, 13), fill_value=False).sel(month=month).drop_vars("month"))

    xclim = _library("xclim.indices")
    with _quiet():
        values = getattr(xclim, index)(
            total.assign_attrs(units="mm/month"),
            freq=None,
            window=1,
            cal_start=start,
            cal_end=end,
            **settings,
        )
    values = values.transpose("time", "station").sel(time=stamps.astype("datetime64[ns]")).values
    return np.clip(values, -BEYOND, BEYOND)


def _reference(reference: Any) -> tuple[str | None, str | None]:
    if reference is None:
        return None, None
    two = isinstance(reference, (tuple, list)) and len(reference) == 2
    if not two or not all(isinstance(date, str) for date in reference):
        raise TypeError(f'reference: expected two dates such as ("1951", "1980"), or None, found {reference!r}')
    try:
        dates = [np.datetime64(date, "M") for date in reference]
    except ValueError as error:
        raise ValueError(f'reference: expected two dates such as ("1951", "1980"), found {reference!r}') from error
    if not dates[0] <= dates[1]:  # so that NaT fails too
        raise ValueError(f"reference: expected the earlier date first, found {reference!r}")
    return reference[0], reference[1]


def _log_logistic(x: np.ndarray) -> dict[str, float]:
    """Generalised logistic distribution with the first three L-moments of a sample.

    It is the four-parameter kappa distribution with h = -1. Hosking & Wallis (1997), Regional Frequency Analysis,
    appendix A.7.
    """
    x, i, n = np.sort(x), np.arange(x.size), x.size
    b0, b1, b2 = x.mean(), (i * x).sum() / n / (n - 1), (i * (i - 1) * x).sum() / n / (n - 1) / (n - 2)
    scatter = 2 * b1 - b0
    k = -round((6 * b2 - 6 * b1 + b0) / scatter, 9)
    scale = scatter * np.sinc(k)  # sin(πk) / πk
    return {"h": -1.0, "k": k, "loc": b0 - (scale * (1 - 1 / np.sinc(k)) / k if k else 0.0), "scale": scale}


def evapotranspiration(tmin: xr.DataArray, tmax: xr.DataArray) -> xr.DataArray:
    """Potential evapotranspiration of each month: how much water grass with enough of it would give to the air.

    ``E = n · 0.0023 · 0.408 R (T + 17.8) sqrt(tmax - tmin)`` and at least 0, after Hargreaves and Samani: n days, R the
    mean over them of the sun's energy above the air in MJ m-2 a day (from xclim), 0.408 kg of water evaporated by a MJ,
    T = (tmin + tmax) / 2.

    Among the methods that need temperature alone, this one hardly minds monthly means: it is linear in T, R is averaged
    over the days of the month, and the square root bends little over the spread of daily ranges: it costs a hundredth
    or two. The range between night and day stands for cloud, so dry air and clear skies
    count. Thornthwaite's method, the other usual one, is monthly by design, but gives 0 below 0 degC, too little where
    the air is dry (as in Colorado), and needs whole years: a missing month spoils its heat index.

    Args:
        tmin, tmax: (time, station) monthly means of the daily minimum and maximum, "degC", with ``lat``.

    Returns:
        (time, station) in mm a month, units "mm"; NaN where either is missing.

    Raises:
        ImportError: without xclim.
        TypeError, ValueError: for other series or units, different times or stations, or tmax below tmin.

    Source: Hargreaves & Samani (1985); Allen et al. (1998), FAO 56, equations 20 and 52.
    """
    tmin, tmax = _temperatures(tmin, tmax)
    # The sun keeps to two calendars: an ordinary year and a leap year serve all.
    days = xr.date_range("2003-01-01", "2004-12-31", freq="D", use_cftime=False)
    lat = tmin["lat"].reset_coords(drop=True).astype(np.float64).assign_attrs(units="degrees_north")
    helpers = _library("xclim.indices.helpers")
    times = xr.DataArray(days, dims="time", coords={"time": days})
    with _quiet():
        radiation = helpers.extraterrestrial_solar_radiation(times, lat)
    monthly = radiation.transpose("time", "station").resample(time="MS").mean() / 1e6  # MJ m-2 a day
    calendar = tmin["time"].dt
    water = 0.408 * monthly.values[calendar.month.values - 1 + 12 * calendar.is_leap_year.values]
    low, high, n = tmin.values, tmax.values, calendar.days_in_month.values[:, None]
    values = n * 0.0023 * water * np.maximum((low + high) / 2 + 17.8, 0) * np.sqrt(high - low)
    return _result(tmin, values, "evapotranspiration", "potential evapotranspiration of the month", "mm")


# ---------------------------------------------------------------------------- warmth and frost


def degree_days(
    tmin: xr.DataArray,
    tmax: xr.DataArray,
    base: float,
    kind: Literal["heating", "cooling", "growing"] = "heating",
    daily_spread: float | xr.DataArray | None = None,
) -> xr.DataArray:
    """Degree days of each month from monthly means: warmth summed above a base, or what lacks below it.

    Day by day they are ``Σ max(T - b, 0)`` for cooling and growing and ``Σ max(b - T, 0)`` for heating, T the mean of a
    day. Of a month only the mean T and the number n of days are known. Without ``daily_spread`` all days are taken to
    be alike, ``n max(T - b, 0)``, which is never too much and too little in the months around the base, where some days
    are on either side: by 0.4 σ a day at the base itself (Jensen's inequality). With ``daily_spread`` = σ the days are
    taken to be normally distributed around the mean (Thom's correction): ``n [(T - b) Φ(z) + σ φ(z)]``,
    ``z = (T - b) / σ``; heating with (b - T).

    Args:
        tmin, tmax: (time, station) monthly means of the daily minimum and maximum, "degC"; T = (tmin + tmax) / 2.
        base: b in degC. Usual are 18 (heating), 18 to 22 (cooling), 10 (growing of maize; no upper limit is used).
        kind: "heating", "cooling" or "growing". The last two are the same sum under two names.
        daily_spread: standard deviation of the daily means within a month in degC, one number or a DataArray over
            any of (month, station); None: no correction.

    Returns:
        (time, station) for the month, units "degC d"; NaN where tmin or tmax is missing.

    Raises:
        TypeError, ValueError: for other series or units, different times or stations, tmax below tmin, an unknown
            kind, or a spread that is negative, missing, or of other stations.

    Source: Thom (1954), The rational relationship between heating degree days and temperature.
    """
    tmin, tmax = _temperatures(tmin, tmax)
    base = number(base, "base", least=-100)
    if kind not in ("heating", "cooling", "growing"):
        raise ValueError(f"kind: expected 'heating', 'cooling' or 'growing', found {kind!r}")
    excess = (tmin.values + tmax.values) / 2 - base
    if kind == "heating":
        excess = -excess
    daily = np.maximum(excess, 0)
    if daily_spread is not None:
        sigma = _daily_spread(daily_spread, tmin)
        z = np.divide(excess, sigma, out=np.zeros_like(excess), where=sigma > 0)
        normal = excess * ndtr(z) + sigma * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        daily = np.where(sigma > 0, np.maximum(normal, 0), daily)
    values = daily * tmin["time"].dt.days_in_month.values[:, None]
    return _result(tmin, values, f"{kind}_degree_days", f"{kind} degree days, base {base:g} degC", "degC d")


def _daily_spread(spread: Any, like: xr.DataArray) -> np.ndarray:
    if not isinstance(spread, xr.DataArray):
        return np.full(like.shape, number(spread, "daily_spread", least=0))
    if not set(spread.dims) <= {"month", "station"}:
        raise ValueError(f"daily_spread: expected dims out of (month, station), found {spread.dims}")
    expected = {"month": np.arange(1, 13), "station": like["station"].values}
    for dim in spread.dims:
        if dim not in spread.coords or not np.array_equal(spread[dim].values, expected[str(dim)]):
            raise ValueError(f"daily_spread: expected {dim}s {expected[str(dim)].tolist()}, found others")
    if "month" in spread.dims:
        spread = spread.sel(month=like["time"].dt.month)
    values = spread.broadcast_like(like).transpose("time", "station").values
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("daily_spread: expected finite numbers of at least 0, found others")
    return values.astype(np.float64)


def frost_free_season(tmin: xr.DataArray, threshold: float = 0.0) -> xr.Dataset:
    """The part of each year in which the usual night stays above freezing, from monthly means of the daily minimum.

    The means are put in the middle of their months and joined by straight lines. The season goes from where this curve
    rises through ``threshold`` to where it falls through it again, around the warmest month.

    The curve knows the usual night, not the coldest: on the day that it rises through 0 degC every second night still
    has frost. The last frost of spring comes weeks later and the first of autumn weeks earlier, so what a gardener
    calls the frost-free season is much shorter; a threshold of about 1.5 times the day-to-day spread of the minima
    (some 4 to 6 degC) comes closer to it. A cold snap within a month leaves no trace.

    Args:
        tmin: (time, station) monthly means of the daily minimum, "degC", of stations north of the equator.
        threshold: degC.

    Returns:
        Dataset over (year, station), for each calendar year of the series: start and end as a day of the year (1 is the
        start of 1 January; with fractions) and length in days. NaN for a year with a missing month. Where all twelve
        months are above the threshold there is no start and no end (NaN), and the length is the whole year; where none
        is, the length is 0. A season that begins or ends beyond the middle of January or December has no start or no
        end in the year: NaN, and so is its length.

    Raises:
        TypeError, ValueError: for another series or units, or stations south of the equator, whose warm season lies in
            two calendar years.
    """
    tmin = _monthly(tmin, "tmin", "degC")
    threshold = number(threshold, "threshold", least=-100)
    if (tmin["lat"].values < 0).any():
        raise ValueError(
            "tmin: expected stations north of the equator, found southern ones; their season lies in two calendar "
            "years: shift the time by six months and give the latitude without its sign"
        )
    months = _months(tmin)
    years = np.unique(months.astype("datetime64[Y]"))
    calendar = (years[:, None].astype("datetime64[M]") + np.arange(12)).ravel()
    rows = np.full((calendar.size, tmin.sizes["station"]), np.nan)
    rows[np.searchsorted(calendar, months)] = tmin.values
    full = rows.reshape(years.size, 12, tmin.sizes["station"])
    first_days = calendar.astype("datetime64[D]").reshape(years.size, 12)
    n = (calendar + np.timedelta64(1, "M")).astype("datetime64[D]").reshape(years.size, 12) - first_days
    middle = 1 + (first_days - first_days[:, :1]).astype(float) + n.astype(float) / 2

    start, end, length = np.full((3, years.size, tmin.sizes["station"]), np.nan)
    for y, s in np.argwhere(np.isfinite(full).all(axis=1)):
        excess, day = full[y, :, s] - threshold, middle[y]
        above = excess > 0
        if above.all() or not above.any():
            length[y, s] = n[y].astype(float).sum() if above.all() else 0.0
            continue
        warmest = int(excess.argmax())
        before, after = np.flatnonzero(~above[:warmest]), np.flatnonzero(~above[warmest:])
        if before.size:
            start[y, s] = _crossing(excess, day, before[-1])
        if after.size:
            end[y, s] = _crossing(excess, day, warmest + after[0] - 1)
        length[y, s] = end[y, s] - start[y, s]

    stations = {name: coord for name, coord in tmin.coords.items() if coord.dims == ("station",)}
    told = {
        "start": (start, f"first day of the year with the usual night above {threshold:g} degC", "1"),
        "end": (end, f"last day of the year with the usual night above {threshold:g} degC", "1"),
        "length": (length, f"days with the usual night above {threshold:g} degC", "d"),
    }
    return xr.Dataset(
        {
            name: (("year", "station"), values, {"long_name": long_name, "units": units})
            for name, (values, long_name, units) in told.items()
        },
        stations | {"year": years.astype(int) + 1970},
    )


def _crossing(excess: np.ndarray, day: np.ndarray, i: int) -> float:
    """The day on which the straight line from month i to the next one passes 0."""
    return float(day[i] + (day[i + 1] - day[i]) * excess[i] / (excess[i] - excess[i + 1]))


# ---------------------------------------------------------------------------- wind


def wind_power(
    wind_speed: xr.DataArray,
    turbine: str = "E-82/2300",
    hub_height: float = 85,
    measured_height: float = 10,
    roughness: float = 0.1,
    within_day_spread: float | None = None,
) -> xr.DataArray:
    """Capacity factor of a wind turbine: its power as a part of the largest on its power curve.

    The wind is brought to the hub by the logarithmic profile, ``v_h = v ln(h / z_0) / ln(h_m / z_0)``, and then through
    the power curve of the turbine: nothing below its first speed, about the cube of the wind in the middle, a plateau,
    and nothing above the cut-out speed. windpowerlib has curve and profile.

    The power of the mean wind of a day is not the mean power: where the curve bends upwards the mean power is larger,
    near the plateau it is smaller (Jensen's inequality). With ``within_day_spread`` = s the wind of a step is taken to
    be normally distributed around its mean v with the standard deviation s v (and calm where that would be
    below 0), and the power is averaged over that.

    Args:
        wind_speed: (time, station), "m s-1"; NaN is missing.
        turbine: a turbine with a power curve in windpowerlib, see ``windpowerlib.get_turbine_types()``.
        hub_height: h in m.
        measured_height: h_m in m, at which the wind was measured.
        roughness: z_0 in m; 0.03 short grass, 0.1 fields with hedges, 0.5 suburbs.
        within_day_spread: s, of the wind around the mean of its step, below 1; None for values that are nearly
            instantaneous. Daily means: 0.3 or so.

    Returns:
        (time, station) from 0 to 1, units "1"; NaN where the wind is missing. The largest power of the curve counts as
        1: for some turbines that is a little more than their nominal power.

    Raises:
        ImportError: without windpowerlib.
        TypeError, ValueError: for another series or units, negative wind, an unknown turbine or heights and lengths
            that make no profile.

    Source: windpowerlib and its power curves; smoothing as Nørgaard & Holttinen (2004).
    """
    wind_speed = _not_negative(_series(wind_speed, "wind_speed", "m s-1"), "wind_speed")
    roughness = number(roughness, "roughness", least=0, open_end=True)
    hub_height = number(hub_height, "hub_height", least=roughness, open_end=True)
    measured_height = number(measured_height, "measured_height", least=roughness, open_end=True)
    library = _library("windpowerlib")
    speeds, power = _power_curve(library, turbine, hub_height)
    at_hub = library.wind_speed.logarithmic_profile(wind_speed.values, measured_height, hub_height, roughness)
    factors = np.ones(1)
    if within_day_spread is not None:
        spread = number(within_day_spread, "within_day_spread", least=0)
        if spread >= 1:
            raise ValueError(f"within_day_spread: expected a number below 1, found {within_day_spread!r}")
        # Winds that are equally likely. The smoothed curves of windpowerlib let the power fade above the cut-out speed.
        factors = 1 + spread * ndtri((np.arange(200) + 0.5) / 200)
    total = sum(library.power_output.power_curve(at_hub * factor, speeds, power) for factor in factors)
    values = total / factors.size / power.max()
    return _result(wind_speed, values, "capacity_factor", f"capacity factor of a turbine {turbine}", "1")


def _power_curve(library: Any, turbine: Any, hub_height: float) -> tuple[Any, Any]:
    """Wind speeds (m/s) and powers (W) of a turbine that windpowerlib knows."""
    if not isinstance(turbine, str):
        raise TypeError(f"turbine: expected the name of a turbine, found {type(turbine).__name__}")
    with _quiet():
        types = library.get_turbine_types(print_out=False)
    known = types.loc[types["has_power_curve"], "turbine_type"].tolist()
    if turbine not in known:
        raise ValueError(
            f"turbine: expected one of {len(known)} with a power curve in windpowerlib, such as {known[:3]}, "
            f"found {turbine!r}; windpowerlib.get_turbine_types() lists them"
        )
    try:
        with _quiet():
            curve = library.WindTurbine(hub_height, turbine_type=turbine).power_curve
    except ValueError as error:
        raise ValueError(f"hub_height: expected one for {turbine}, found {hub_height:g} m: {error}") from error
    return curve["wind_speed"], curve["value"]
