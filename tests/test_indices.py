import subprocess
import sys
import warnings

import numpy as np
import pytest
import windpowerlib
import xarray as xr
import xclim.indices as xci
from scipy import integrate, stats

from stgcn_lab import datasets, indices
from stgcn_lab.indices import degree_days, evapotranspiration, frost_free_season, spei, spi, wind_power

# Of xclim and windpowerlib, where they are called here directly.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def series(values, start="1951-01", units="mm", lat=40.0, name=None):
    """Monthly (time, station) series from the month ``start`` on."""
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    months = np.datetime64(start, "M") + np.arange(len(values))
    stations = values.shape[1]
    return xr.DataArray(
        values,
        dims=("time", "station"),
        coords={
            "time": months.astype("datetime64[ns]"),
            "station": [f"S{i}" for i in range(stations)],
            "lat": ("station", np.broadcast_to(lat, stations).astype(float)),
            "lon": ("station", np.linspace(-105, -100, stations)),
        },
        attrs={"units": units},
        name=name,
    )


def rain(years=40, stations=2, seed=0, dry=0.0, start="1951-01"):
    """Gamma rain in tenths of a mm, wetter in summer; ``dry`` of the months have none."""
    rng = np.random.default_rng(seed)
    month = np.arange(12 * years) % 12
    scale = 20 - 8 * np.cos(2 * np.pi * month / 12)
    values = rng.gamma(2.0, scale[:, None], (12 * years, stations)).round(1)
    values[rng.random(values.shape) < dry] = 0
    return series(values, start)


@pytest.fixture(scope="module")
def colorado():
    return datasets.load_colorado()


@pytest.fixture(scope="module")
def full(colorado):
    """Twelve stations with a nearly complete record, 1941 to 1990."""
    years = colorado.sel(time=slice("1941", "1990"))
    share = years.to_array().notnull().mean(["variable", "time"]).values
    return years.isel(station=np.sort(np.argsort(-share)[:12]))


# ---------------------------------------------------------------------------- drought


def by_hand(precip, months, first, last):
    """SPI of one column, calendar month by calendar month, with SciPy alone."""
    x = precip.values[:, 0]
    total = np.array([np.nan if t < months - 1 else x[t - months + 1 : t + 1].sum() for t in range(len(x))])
    year = precip.time.dt.year.values
    out = np.full(len(x), np.nan)
    for month in range(1, 13):
        here = precip.time.dt.month.values == month
        sample = total[here & (year >= first) & (year <= last)]
        sample = sample[np.isfinite(sample)]
        dry = (sample == 0).mean()
        shape, _, scale = stats.gamma.fit(sample[sample > 0], floc=0)
        odds = dry + (1 - dry) * stats.gamma.cdf(total[here], shape, scale=scale)
        out[here] = np.clip(stats.norm.ppf(odds), -3.09, 3.09)
    return out


@pytest.mark.parametrize(("months", "dry"), [(1, 0.25), (3, 0.0), (3, 0.5), (12, 0.0)])
def test_spi_by_hand(months, dry):
    precip = rain(stations=1, dry=dry)
    found = spi(precip, months, ("1956", "1985"))
    assert np.allclose(found.values[:, 0], by_hand(precip, months, 1956, 1985), atol=1e-3, equal_nan=True)
    assert found.dims == ("time", "station") and found.attrs["units"] == "1" and found.name == "spi"
    assert found.time.equals(precip.time) and set(found.coords) == set(precip.coords)


def test_spi_is_what_xclim_gives(full):
    found = spi(full.precip, 3, ("1951", "1980"))
    theirs = xci.standardized_precipitation_index(
        full.precip.assign_attrs(units="mm/month"),
        freq=None,
        window=3,
        dist="gamma",
        method="ML",
        fitkwargs={"floc": 0},
        cal_start="1951-01-01",
        cal_end="1980-12-31",
    )
    assert np.isfinite(found).mean() > 0.9
    assert np.allclose(found, theirs.transpose("time", "station").clip(-3.09, 3.09), atol=1e-6, equal_nan=True)


def test_spi_is_standard_normal_over_its_reference(full):
    inside = spi(full.precip, 3, ("1951", "1980")).sel(time=slice("1951", "1980"))
    assert abs(float(inside.mean())) < 0.03 and abs(float(inside.std()) - 1) < 0.03
    shares = [float((inside < z).sum() / inside.notnull().sum()) for z in (-1, 0, 1)]
    assert np.allclose(shares, stats.norm.cdf([-1, 0, 1]), atol=0.03)


@pytest.mark.parametrize("index", ["spi", "spei"])
def test_what_lies_outside_the_reference_changes_nothing_inside(full, index):
    water = evapotranspiration(full.tmin, full.tmax)

    def run(precip):
        return spi(precip, 3, ("1951", "1975")) if index == "spi" else spei(precip, water, 3, ("1951", "1975"))

    changed = full.precip.copy(data=full.precip.values.copy())
    changed.loc[{"time": slice("1976", None)}] *= 5.0
    changed.loc[{"time": slice(None, "1950-10")}] += 40.0
    before, after = run(full.precip), run(changed)
    inside = {"time": slice("1951", "1975")}
    assert before.sel(inside).equals(after.sel(inside))
    assert float((after - before).sel(time=slice("1977", None)).mean()) > 1.0


def test_without_a_reference_the_whole_record_is_fitted():
    precip = rain(30)
    assert spi(precip).equals(spi(precip, 3, ("1951", "1980")))
    assert not spi(precip).equals(spi(precip, 3, ("1951", "1975")))


@pytest.mark.parametrize("index", ["spi", "spei"])
def test_a_missing_month_spoils_every_sum_that_needs_it_and_no_other(index):
    water = series(np.full((480, 2), 30.0))

    def run(precip):
        return spi(precip, 3) if index == "spi" else spei(precip, water.sel(time=precip.time), 3)

    precip = rain(dry=0.1)
    holes = precip.copy(data=precip.values.copy())
    holes[100, 0] = np.nan
    gone = np.isnan(run(holes).values)
    assert np.flatnonzero(gone[:, 0]).tolist() == [0, 1, 100, 101, 102]
    assert np.flatnonzero(gone[:, 1]).tolist() == [0, 1]

    # A month without a row is as missing as one that is NaN.
    nan = precip.where(np.arange(480)[:, None] != 200)
    short = precip.isel(time=np.arange(480) != 200)
    kept = run(nan).isel(time=np.arange(480) != 200)
    assert run(short).equals(kept) and np.isnan(kept[200:202]).all()


def test_the_day_of_the_stamp_does_not_matter():
    precip = rain(25)
    last = precip.assign_coords(time=precip.time + np.timedelta64(20, "D"))
    found = spi(last, 2)
    assert np.array_equal(found.values, spi(precip, 2).values, equal_nan=True) and found.time.equals(last.time)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.chunk({"time": 50}),
        lambda x: x.astype(np.float32),
        lambda x: x.assign_coords(time=x.time.astype("datetime64[s]")),
        lambda x: x.assign_coords(lat=-x.lat),
    ],
)
def test_spi_of_other_kinds_of_numbers_times_and_places(change):
    precip = rain(25, dry=0.1)
    assert np.allclose(spi(change(precip)), spi(precip), atol=1e-5, equal_nan=True)


def test_a_dry_window_is_exactly_dry():
    # A running sum (older xarray takes one by default) leaves 1e-15 mm of the rain before it: a wet season, the driest.
    precip = rain(60, 1, seed=3, dry=0.6)
    total = precip.values[2:] + precip.values[1:-1] + precip.values[:-2]
    months = precip.time.dt.month.values[2:]
    with xr.set_options(use_bottleneck=True):
        found = spi(precip, 3).values[2:]
    for month in range(1, 13):
        zero = total[months == month] == 0
        assert zero.any()
        assert np.allclose(found[months == month][zero], stats.norm.ppf(zero.mean()), atol=1e-9)
        assert (found[months == month][~zero] > stats.norm.ppf(zero.mean())).all()


def test_too_few_years_are_nan_and_none_at_all_is_an_error():
    precip = rain(30, 3)
    precip[: 12 * 15, 1] = np.nan  # 15 years are left
    precip[np.arange(360) % 12 == 6, 2] = np.nan  # no July
    gone = np.isnan(spi(precip, 1).values)
    assert not gone[:, 0].any() and gone[:, 1].all()
    assert np.array_equal(gone[:, 2], np.arange(360) % 12 == 6)
    fewer = np.isnan(spi(precip, 1, min_years=15).values)
    assert np.array_equal(fewer[:, 1], np.arange(360) < 180)
    assert np.isnan(spi(precip, 1, ("1951", "1970"))[:, 1]).all()
    for reference in (("1951", "1969"), ("1890", "1900"), ("2001", "2030")):
        with pytest.raises(ValueError, match="reference: expected a period with 20 complete sums"):
            spi(precip, 1, reference)
    # 20 years of sums over three months need the two months before.
    assert np.isfinite(spi(rain(21), 3, ("1952", "1971"))[12:]).all()
    assert np.isnan(spi(rain(20), 3)[::12]).all() and np.isfinite(spi(rain(20), 3)[2::12]).all()


@pytest.mark.parametrize("index", ["spi", "spei"])
def test_sums_that_say_nothing_are_nan(index):
    precip = rain(30, 4)
    january = np.arange(360) % 12 == 0
    precip[january, 0] = 0.0
    precip[january, 1] = 7.0
    precip[january, 2] = np.where(np.arange(30) < 21, 0.0, 5.0 + np.arange(30))  # 9 wet years
    precip[january, 3] = np.where(np.arange(30) < 20, 0.0, 5.0 + np.arange(30))  # 10
    found = spi(precip, 1) if index == "spi" else spei(precip, xr.zeros_like(precip), 1)
    nan = np.isnan(found.values)
    assert not nan[~january].any() and nan[january][:, :2].all()
    assert nan[january][:, 2].all() == (index == "spi")
    assert not nan[january][:, 3].any()


def test_spi_stays_within_what_thirty_years_can_tell():
    precip = rain(40, 1)
    precip[-2:, 0] = 0.0  # never seen in the reference
    precip[-3, 0] = 5000.0
    found = spi(precip, 1, ("1951", "1985"))
    assert found[-2:, 0].values.tolist() == [-3.09, -3.09] and float(found[-3, 0]) == 3.09


def l_moments(x):
    """First three by their definition: means over all pairs and triples."""
    x = np.sort(x)
    i, j = np.triu_indices(len(x), 1)
    triples = [(a, b, c) for a in range(len(x)) for b in range(a + 1, len(x)) for c in range(b + 1, len(x))]
    a, b, c = x[np.array(triples)].T
    return x.mean(), (x[j] - x[i]).mean() / 2, (c - 2 * b + a).mean() / 3


@pytest.mark.parametrize("lean", [1, -1])
def test_the_log_logistic_fit_has_the_l_moments_of_the_sample(lean):
    x = lean * np.random.default_rng(1).gamma(1.5, 30, 25)
    p = indices._log_logistic(x)
    dist = stats.kappa4(p["h"], p["k"], p["loc"], p["scale"])
    assert np.sign(p["k"]) == -lean
    first = integrate.quad(dist.ppf, 0, 1)[0]
    second = integrate.quad(lambda u: dist.ppf(u) * (2 * u - 1), 0, 1)[0]
    third = integrate.quad(lambda u: dist.ppf(u) * (6 * u * u - 6 * u + 1), 0, 1)[0]
    assert np.allclose([first, second, third], l_moments(x), rtol=1e-5)
    # The distribution function in closed form, Hosking & Wallis (1997).
    at = np.quantile(x, [0.05, 0.3, 0.6, 0.95])
    y = -np.log(1 - p["k"] * (at - p["loc"]) / p["scale"]) / p["k"]
    assert np.allclose(dist.cdf(at), 1 / (1 + np.exp(-y)))


def test_a_sample_without_skewness_gets_the_logistic_distribution():
    p = indices._log_logistic(np.array([-3.0, -1.0, 0.0, 1.0, 3.0]))
    assert p["k"] == 0 and p["loc"] == 0
    assert p["scale"] == pytest.approx(l_moments(np.array([-3.0, -1.0, 0.0, 1.0, 3.0]))[1])


def test_spei_by_hand(full):
    water = evapotranspiration(full.tmin, full.tmax)
    found = spei(full.precip, water, 2, ("1951", "1980")).values
    balance = (full.precip - water).values
    balance = balance[1:] + balance[:-1]
    year, month = full.time.dt.year.values[1:], full.time.dt.month.values[1:]
    for station, m in ((0, 1), (5, 7), (11, 10)):
        x = balance[month == m, station]
        sample = x[(year[month == m] >= 1951) & (year[month == m] <= 1980)]
        p = indices._log_logistic(sample[np.isfinite(sample)])
        y = -np.log(np.maximum(1 - p["k"] * (x - p["loc"]) / p["scale"], 1e-300)) / p["k"]
        expected = np.clip(stats.norm.ppf(1 / (1 + np.exp(-y))), -3.09, 3.09)
        assert np.allclose(found[1:][month == m, station], expected, atol=1e-6, equal_nan=True)


def test_spei_agrees_with_the_maximum_likelihood_of_xclim_where_there_is_plenty():
    rng = np.random.default_rng(0)
    balance = stats.fisk(4, loc=-150, scale=120).rvs((12 * 250, 1), random_state=rng)
    precip = series(np.maximum(balance, 0), "1750-01")
    water = series(np.maximum(-balance, 0), "1750-01")
    found = spei(precip, water, 1)
    theirs = xci.standardized_precipitation_evapotranspiration_index(
        (precip - water).assign_attrs(units="mm/month"), freq=None, window=1, dist="fisk", method="ML"
    )
    assert float(abs(found - theirs).quantile(0.99)) < 0.15 and float(abs(found - theirs).mean()) < 0.05


def test_spei_knows_heat_that_spi_does_not(full):
    water = evapotranspiration(full.tmin, full.tmax)
    hot = water.where(water.time.dt.year != 1985, 1.5 * water).assign_attrs(water.attrs)
    plain, warm = (spei(full.precip, w, 3, ("1951", "1980")) for w in (water, hot))
    summer = {"time": slice("1985-06", "1985-09")}
    assert (warm.sel(summer) < plain.sel(summer)).all()
    rain_only = spi(full.precip, 3, ("1951", "1980"))
    assert 0.8 < float(xr.corr(plain, rain_only)) < 0.99
    assert plain.attrs["units"] == "1" and plain.name == "spei" and float(abs(plain).max()) <= 3.09


# ---------------------------------------------------------------------------- evapotranspiration


def test_evapotranspiration_of_lyon_in_july():
    # FAO 56, example 20: 5.0 mm a day at 45 deg 43 min N with tmin 14.8 and tmax 26.6 degC.
    tmin, tmax = (series([t], "1999-07", "degC", 45 + 43 / 60) for t in (14.8, 26.6))
    assert float(evapotranspiration(tmin, tmax)[0, 0]) / 31 == pytest.approx(5.03, rel=0.01)


def daily_from(monthly):
    """Each day of the series as its month."""
    first, last = monthly.time.values[[0, -1]].astype("datetime64[M]")
    days = np.arange(first.astype("datetime64[D]"), (last + 1).astype("datetime64[D]"))
    row = days.astype("datetime64[M]").astype(int) - first.astype(int)
    return monthly.isel(time=row).assign_coords(time=days.astype("datetime64[ns]"))


def xclim_daily_sum(tmin, tmax):
    lat = tmin.lat.assign_attrs(units="degrees_north")
    rate = xci.potential_evapotranspiration(tasmin=tmin, tasmax=tmax, lat=lat, method="hargreaves85")
    return (rate * 86400).resample(time="MS").sum().transpose("time", "station")


def test_evapotranspiration_is_what_xclim_gives_day_by_day():
    rng = np.random.default_rng(0)
    low = -12 * np.cos(2 * np.pi * np.arange(24) / 12)[:, None] + rng.normal(-3, 5, (24, 4))
    tmin = series(low, "2003-01", "degC", [-30, 2, 39, 58])  # 2004 is a leap year
    tmax = (tmin + rng.uniform(4, 18, low.shape)).assign_attrs(units="degC")
    found, theirs = evapotranspiration(tmin, tmax), xclim_daily_sum(daily_from(tmin), daily_from(tmax))
    assert np.allclose(found, theirs, rtol=1e-9, atol=1e-9)
    assert found.attrs["units"] == "mm" and found.name == "evapotranspiration" and found.dims == ("time", "station")


def test_evapotranspiration_of_monthly_means_is_close_to_the_sum_of_days():
    rng = np.random.default_rng(0)
    days = np.arange("1990-01-01", "2000-01-01", dtype="datetime64[D]")
    season = 9 - 13 * np.cos(2 * np.pi * (np.arange(days.size) - 15) / 365.25)
    weather = np.empty((days.size, 2))
    weather[0], noise = 0, rng.normal(size=weather.shape)
    for t in range(1, days.size):
        weather[t] = 0.7 * weather[t - 1] + 0.71 * noise[t]
    swing = np.clip(15 + 2 * weather + 3 * rng.normal(size=weather.shape), 2, None)
    blank = series(np.zeros((1, 2)), lat=[38, 41], units="degC")
    tmean = xr.concat([blank] * days.size, "time").assign_coords(time=days.astype("datetime64[ns]"))
    tmean.values[:] = season[:, None] + 4.5 * weather
    tmin, tmax = tmean - swing / 2, tmean + swing / 2
    tmin.attrs = tmax.attrs = {"units": "degC"}
    truth = xclim_daily_sum(tmin, tmax)
    low, high = (x.resample(time="MS").mean(keep_attrs=True) for x in (tmin, tmax))
    ratio = (evapotranspiration(low, high) / truth).groupby("time.month").mean(...)
    assert (abs(ratio - 1) < 0.025).all()


def test_evapotranspiration_keeps_gaps_and_stops_in_the_cold():
    tmin, tmax = series([-40.0, np.nan, 5.0], "2001-01", "degC"), series([-30.0, 5.0, 20.0], "2001-01", "degC")
    found = evapotranspiration(tmin, tmax).values[:, 0]
    assert found[0] == 0 and np.isnan(found[1]) and 60 < found[2] < 110
    night = evapotranspiration(series([5.0], "2001-12", "degC", 80), series([9.0], "2001-12", "degC", 80))
    assert float(night[0, 0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("lat", [-90.0, -33.0, 0.0, 70.0, 90.0])
def test_evapotranspiration_from_pole_to_pole(lat):
    """Hargreaves' formula by hand, with the sun after Spencer (1971)."""
    tmin = series(np.full(12, 5.0), "1951-01", "degC", lat)
    days, f = np.arange("1951-01", "1952-01", dtype="datetime64[D]"), np.deg2rad(lat)
    t = 2 * np.pi * (np.arange(365) + 0.5) / 365
    near = 1.00011 + 0.034221 * np.cos(t) + 0.00128 * np.sin(t) + 0.000719 * np.cos(2 * t) + 0.000077 * np.sin(2 * t)
    tilt = 0.006918 - 0.399912 * np.cos(t) + 0.070257 * np.sin(t) - 0.006758 * np.cos(2 * t)
    tilt += 0.000907 * np.sin(2 * t) - 0.002697 * np.cos(3 * t) + 0.00148 * np.sin(3 * t)
    w = np.arccos(np.clip(-np.tan(f) * np.tan(tilt), -1, 1))
    sun = 24 * 60 / np.pi * 0.0820 * near * (w * np.sin(f) * np.sin(tilt) + np.cos(f) * np.cos(tilt) * np.sin(w))
    daily = 0.0023 * 0.408 * 27.8 * np.sqrt(10) * sun  # mm; mean of 10, range of 10 degC
    expected = np.bincount(days.astype("datetime64[M]").astype(int) % 12, daily)
    found = evapotranspiration(tmin, (tmin + 10).assign_attrs(units="degC"))
    assert np.allclose(found[:, 0], expected, rtol=0, atol=2.5)


# ---------------------------------------------------------------------------- degree days


def test_degree_days_by_hand():
    tmin, tmax = series([-5.0, 10.0], "2000-01", "degC"), series([5.0, 20.0], "2000-01", "degC")
    values = {
        (18, "heating"): [18 * 31, 3 * 29],  # February 2000 has 29 days
        (10, "growing"): [0, 5 * 29],
        (10, "cooling"): [0, 5 * 29],
    }
    for (base, kind), expected in values.items():
        found = degree_days(tmin, tmax, base, kind)
        assert found.values[:, 0].tolist() == expected
        assert found.attrs["units"] == "degC d" and found.name == f"{kind}_degree_days"
    shifted = [x.assign_coords(time=x.time + np.timedelta64(366, "D")) for x in (tmin, tmax)]
    assert degree_days(*shifted, 18).values[1, 0] == 3 * 28  # 2001
    # At the base itself: sigma / sqrt(2 pi) a day.
    assert float(degree_days(tmin, tmax, 15, "cooling", 4.0)[1, 0]) == pytest.approx(29 * 4 / np.sqrt(2 * np.pi))
    # One sigma above: (phi(1) + Phi(1)) sigma a day.
    assert float(degree_days(tmin, tmax, 10, "growing", 5.0)[1, 0]) == pytest.approx(29 * 5 * 1.08332, rel=1e-5)


def test_heating_less_cooling_is_the_mean_whatever_the_spread():
    rng = np.random.default_rng(0)
    tmin = series(rng.normal(8, 10, (48, 3)), units="degC")
    tmax = (tmin + 9).assign_attrs(units="degC")
    days = tmin.time.dt.days_in_month
    last = None
    for spread in (None, 0, 1.0, 3.0, 6.0):
        heating, cooling = (degree_days(tmin, tmax, 12, kind, spread) for kind in ("heating", "cooling"))
        assert np.allclose(heating - cooling, days * (12 - (tmin + 4.5)))
        assert spread != 0 or heating.equals(last)
        assert spread in (None, 0) or (heating.values > last.values - 1e-9).all()
        assert (heating.values >= 0).all() and (cooling.values >= 0).all()
        last = heating


@pytest.fixture(scope="module")
def days():
    """Thirty years of daily minima and maxima at four stations, with weather of 4 to 6 degC around the season."""
    rng = np.random.default_rng(0)
    time = np.arange("1961-01-01", "1991-01-01", dtype="datetime64[D]")
    season = -11 * np.cos(2 * np.pi * (np.arange(time.size) - 15) / 365.25)
    weather, noise = np.zeros((time.size, 4)), rng.normal(size=(time.size, 4))
    for t in range(1, time.size):
        weather[t] = 0.6 * weather[t - 1] + 0.8 * noise[t]
    mean = np.array([4.0, 9.0, 14.0, 18.0]) + (season[:, None] + (5 - season[:, None] / 11) * weather)
    blank = series(np.zeros((1, 4)), units="degC")
    tmean = xr.concat([blank] * time.size, "time").assign_coords(time=time.astype("datetime64[ns]"))
    return tmean.copy(data=mean)


@pytest.mark.parametrize(("kind", "base"), [("heating", 18), ("cooling", 20), ("growing", 10)])
def test_degree_days_of_monthly_means_against_daily_ones(days, kind, base):
    daily = {
        "heating": xci.heating_degree_days,
        "cooling": xci.cooling_degree_days,
        "growing": xci.growing_degree_days,
    }[kind]
    truth = daily(days, thresh=f"{base} degC", freq="MS").transpose("time", "station")
    mean = days.resample(time="MS").mean(keep_attrs=True)
    tmin, tmax = (mean + d for d in (-6, 6))
    tmin.attrs = tmax.attrs = {"units": "degC"}
    spread = days.resample(time="MS").std().groupby("time.month").mean()

    def usual(x):
        return x.groupby("time.month").mean("time")

    n = usual(truth.time.dt.days_in_month * xr.ones_like(truth))
    plain = usual(degree_days(tmin, tmax, base, kind) - truth) / n
    corrected = usual(degree_days(tmin, tmax, base, kind, spread) - truth) / n
    # Without correction never too much, and clearly too little around the base; with it, right in every month
    # within 0.2 degC d a day, and within 3 % of the year.
    assert (plain < 1e-6).all() and float(plain.min()) < -1.1
    assert (abs(corrected) < 0.2).all()
    year = degree_days(tmin, tmax, base, kind, spread).sum("time") / truth.sum("time")
    biased = degree_days(tmin, tmax, base, kind).sum("time") / truth.sum("time")
    assert (abs(year - 1) < 0.03).all() and (biased.min() < 0.93) and (biased <= 1).all()


def test_the_daily_spread_may_differ_by_month_and_station(days):
    tmin = series(np.full((24, 3), 6.0), units="degC")
    tmax = (tmin + 8).assign_attrs(units="degC")
    month = xr.DataArray(np.linspace(7, 3, 12), dims="month", coords={"month": np.arange(1, 13)})
    station = xr.DataArray([2.0, 4.0, 0.0], dims="station", coords={"station": tmin.station})
    by_month = degree_days(tmin, tmax, 10, "heating", month)
    by_both = degree_days(tmin, tmax, 10, "heating", station * month / 4)
    for m, s in ((0, 0), (6, 1), (23, 2)):
        sigma = float(month[m % 12])
        one = degree_days(tmin, tmax, 10, "heating", sigma)[m, s]
        assert float(by_month[m, s]) == pytest.approx(float(one))
        both = degree_days(tmin, tmax, 10, "heating", sigma * float(station[s]) / 4)[m, s]
        assert float(by_both[m, s]) == pytest.approx(float(both))
    plain = degree_days(tmin, tmax, 10, "heating")
    assert np.array_equal(degree_days(tmin, tmax, 10, "heating", station)[:, 2], plain[:, 2])
    assert by_month.dims == ("time", "station") and set(by_month.coords) == set(tmin.coords)


# ---------------------------------------------------------------------------- frost


def season(mean, half_range, years=1, start=1995):
    """Monthly means with their peak in the middle of July, as a plain cosine of the month."""
    month = np.arange(12 * years)
    return series(mean - half_range * np.cos(2 * np.pi * (month % 12) / 12), f"{start}-01", "degC")


def test_frost_free_season_by_hand():
    # April -2, May 4 degC: a third of the way from the middle of April to the middle of May. October 3, November -1.
    values = [-9, -8, -6, -2, 4, 9, 12, 11, 8, 3, -1, -5]
    ordinary = frost_free_season(series(values, "1995-01", "degC")).isel(year=0, station=0)
    april, may, october, november = 1 + 90 + 15, 1 + 120 + 15.5, 1 + 273 + 15.5, 1 + 304 + 15
    assert float(ordinary.start) == pytest.approx(april + (may - april) / 3)
    assert float(ordinary.end) == pytest.approx(october + (november - october) * 3 / 4)
    assert float(ordinary.length) == pytest.approx(float(ordinary.end - ordinary.start))
    leap = frost_free_season(series(values, "1996-01", "degC")).isel(year=0, station=0)
    assert float(leap.start - ordinary.start) == pytest.approx(1) and int(leap.year) == 1996
    assert float(leap.length) == pytest.approx(float(ordinary.length))
    warmer = frost_free_season(series(values, "1995-01", "degC"), threshold=4.0).isel(year=0, station=0)
    assert float(warmer.start) == pytest.approx(may) and float(warmer.length) < float(ordinary.length)


def test_frost_free_season_finds_where_a_smooth_year_crosses():
    time = np.arange("1995-01-01", "1996-01-01", dtype="datetime64[D]")
    daily = 2 - 13 * np.cos(2 * np.pi * (np.arange(365) - 15) / 365)
    monthly = [daily[time.astype("datetime64[M]") == m].mean() for m in np.unique(time.astype("datetime64[M]"))]
    found = frost_free_season(series(monthly, "1995-01", "degC")).isel(year=0, station=0)
    warm = np.flatnonzero(daily > 0) + 1
    assert abs(float(found.start) - warm[0]) < 2 and abs(float(found.end) - warm[-1]) < 2


def test_a_frost_free_season_around_the_warmest_month_alone():
    # A mild March does not count: the season lies around July.
    values = [-9, -3, 1, -2, 4, 9, 12, 11, 8, 3, -1, -5]
    found = frost_free_season(series(values, "1995-01", "degC")).isel(year=0, station=0)
    assert 100 < float(found.start) < 136
    hottest_in_may = [-9, -3, -1, 2, 14, 9, 12, 11, -1, 3, -1, -5]
    assert 225 < float(frost_free_season(series(hottest_in_may, "1995-01", "degC")).end[0, 0]) < 260


def test_years_without_a_crossing_or_with_a_gap():
    warm, cold = season(20, 5), season(-20, 5)
    always = frost_free_season(xr.concat([warm, warm.assign_coords(time=season(0, 1, start=1996).time)], "time"))
    assert np.isnan(always.start).all() and np.isnan(always.end).all()
    assert always.length.values[:, 0].tolist() == [365, 366]
    never = frost_free_season(cold)
    assert np.isnan(never.start).all() and np.isnan(never.end).all() and float(never.length[0, 0]) == 0
    at_the_threshold = frost_free_season(series(np.zeros(12), "1995-01", "degC"))
    assert float(at_the_threshold.length[0, 0]) == 0
    # January above: the season has begun before the year.
    mild = frost_free_season(series([1, 1, 2, 4, 6, 9, 12, 11, 8, 3, -1, -5], "1995-01", "degC"))
    assert np.isnan(mild.start[0, 0]) and np.isfinite(mild.end[0, 0]) and np.isnan(mild.length[0, 0])
    late = frost_free_season(series([-1, 1, 2, 4, 6, 9, 12, 11, 8, 3, 1, 1], "1995-01", "degC"))
    assert np.isnan(late.end[0, 0]) and np.isfinite(late.start[0, 0]) and np.isnan(late.length[0, 0])

    two = season(2, 12, years=3)
    two[14, 0] = np.nan
    found = frost_free_season(two.isel(time=slice(0, 35)))  # and December 1997 has no row
    assert found.year.values.tolist() == [1995, 1996, 1997]
    assert np.isfinite(found.length.values[0]).all() and np.isnan(found.to_array().values[:, 1:]).all()


def test_frost_free_season_of_colorado(colorado):
    mean = frost_free_season(colorado.tmin).mean("year")
    height = colorado.elevation.values
    low, high = (float(np.nanmean(mean.length.values[w])) for w in (height < 1500, height > 2600))
    assert 180 < low < 240 and 80 < high < 150
    assert (mean.start < mean.end).where(mean.start.notnull(), True).all()
    assert {"lat", "lon", "name", "elevation"} <= set(mean.coords)


# ---------------------------------------------------------------------------- wind


def wind(values):
    return series(values, units="m s-1")


def at_hub(values, **settings):
    """Capacity factor of wind that blows at the hub itself."""
    return wind_power(wind(values), measured_height=85, hub_height=85, **settings).values[:, 0]


def test_wind_power_is_the_power_curve_of_windpowerlib():
    speeds = np.array([0.0, 1.9, 3.0, 4.25, 7.0, 9.5, 12.0, 13.9, 20.0, 25.0, 25.1, 60.0])
    turbine = windpowerlib.WindTurbine(85, turbine_type="E-82/2300")
    curve = turbine.power_curve
    power = windpowerlib.power_output.power_curve(speeds, curve["wind_speed"], curve["value"])
    assert np.allclose(at_hub(speeds), power / 2350e3)
    # From the table of the curve: 25 kW at 3 m/s, 532 at 7, 2350 from 14 to 25.
    assert np.allclose(at_hub([3, 7, 14, 25]), [25 / 2350, 532 / 2350, 1, 1])
    found = wind_power(wind(speeds))
    expected = windpowerlib.power_output.power_curve(
        speeds * np.log(850) / np.log(100), curve["wind_speed"], curve["value"]
    )
    assert np.allclose(found.values[:, 0], expected / 2350e3)
    assert found.attrs["units"] == "1" and found.name == "capacity_factor"
    other = wind_power(wind([8.0]), "V90/2000", 100, 50, 0.03).values[0, 0]
    vestas = windpowerlib.WindTurbine(100, turbine_type="V90/2000").power_curve
    at = 8 * np.log(100 / 0.03) / np.log(50 / 0.03)
    assert other == pytest.approx(np.interp(at, vestas["wind_speed"], vestas["value"]) / vestas["value"].max())


def test_wind_power_rises_to_its_plateau_and_stops_when_it_storms():
    speed = np.linspace(0, 40, 801)
    power = at_hub(speed)
    assert (
        (np.diff(power[speed <= 25]) >= 0).all() and (power[speed <= 1] == 0).all() and (power[speed > 25] == 0).all()
    )
    assert (power[(speed >= 14) & (speed <= 25)] == 1).all() and power.min() == 0
    rough, smooth = wind_power(wind([6.0]), roughness=0.5), wind_power(wind([6.0]), roughness=0.03)
    assert float(rough[0, 0]) > float(smooth[0, 0])  # the same wind at 10 m grows more over rough ground
    assert np.isnan(at_hub([np.nan, 5.0])).tolist() == [True, False]


def test_the_spread_within_a_day_is_jensens_inequality():
    speed = np.arange(0.0, 36.0, 0.5)
    plain, gusty = at_hub(speed), at_hub(speed, within_day_spread=0.3)
    assert (gusty[(speed >= 3) & (speed <= 8)] > plain[(speed >= 3) & (speed <= 8)]).all()
    assert (gusty[(speed >= 12) & (speed <= 20)] < plain[(speed >= 12) & (speed <= 20)]).all()
    assert gusty[speed == 27] > 0 and (gusty >= 0).all() and (gusty <= 1).all()
    # The mean over the distribution itself, at 2000 equally likely winds.
    factors = np.maximum(1 + 0.3 * stats.norm.ppf((np.arange(2000) + 0.5) / 2000), 0)
    for v in (4.0, 7.0, 10.0, 13.0, 18.0, 24.0):
        assert gusty[speed == v][0] == pytest.approx(at_hub(v * factors).mean(), abs=0.004)
    # windpowerlib's own smoothing, where cut-out is far: above it, it lets the power fade over 1 m/s.
    curve = windpowerlib.WindTurbine(85, turbine_type="E-82/2300").power_curve
    smooth = windpowerlib.power_curves.smooth_power_curve(
        curve["wind_speed"], curve["value"], block_width=0.1, wind_speed_range=20, turbulence_intensity=0.3
    ).set_index("wind_speed")["value"]
    for v in (5.0, 8.0, 11.0, 14.0):
        assert gusty[speed == v][0] == pytest.approx(smooth[v] / 2350e3, abs=0.004)
    assert np.allclose(at_hub(speed, within_day_spread=0), plain, rtol=1e-12)
    tiny = at_hub(speed[4:], within_day_spread=0.05)
    assert np.abs(tiny - plain[4:])[speed[4:] < 22].max() < 0.02


def test_wind_power_of_the_irish_stations():
    irish = datasets.load_irish_wind().wind_speed.sel(time="1970")
    plain, gusty = wind_power(irish), wind_power(irish, within_day_spread=0.3)
    mean = plain.mean("time")
    assert mean.sel(station="MAL") > mean.sel(station="BIR") and float(mean.min()) > 0.1 and float(mean.max()) < 0.8
    calm, windy = irish.values.mean(axis=0).argmin(), irish.values.mean(axis=0).argmax()
    change = (gusty - plain).mean("time").values
    assert change[calm] > 0 > change[windy]


# ---------------------------------------------------------------------------- what is wrong


PRECIP, TMIN = rain(25), season(3, 10, years=25, start=1951)
TMAX = (TMIN + 8).assign_attrs(units="degC")
WIND = wind([5.0, 6.0])
CALLS = {
    "spi": (lambda x: spi(x), PRECIP),
    "spei": (lambda x: spei(x, PRECIP), PRECIP),
    "spei, evapotranspiration": (lambda x: spei(PRECIP, x), PRECIP),
    "evapotranspiration, tmin": (lambda x: evapotranspiration(x, TMAX), TMIN),
    "evapotranspiration, tmax": (lambda x: evapotranspiration(TMIN, x), TMAX),
    "degree_days": (lambda x: degree_days(x, TMAX, 10), TMIN),
    "frost_free_season": (lambda x: frost_free_season(x), TMIN),
    "wind_power": (lambda x: wind_power(x), WIND),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_series_that_is_none_is_told_apart(call):
    run, good = CALLS[call]
    run(good)
    with pytest.raises(TypeError, match="DataArray"):
        run(good.values)
    with pytest.raises(TypeError, match="DataArray"):
        run(good.to_dataset(name="x"))
    with pytest.raises(ValueError, match="units"):
        run(good.assign_attrs(units="K"))
    with pytest.raises(ValueError, match="lat"):
        run(good.drop_vars("lat"))
    with pytest.raises(ValueError, match="station"):
        run(good.isel(station=0))
    with pytest.raises(ValueError, match="station"):
        run(good.isel(station=slice(0, 0)))
    with pytest.raises(ValueError, match="ascending"):
        run(good.isel(time=slice(None, None, -1)))
    assert np.array_equal(  # the order of the dims does not matter
        *(
            (x.to_array() if isinstance(x, xr.Dataset) else x).values
            for x in (run(good), run(good.transpose("station", "time")))
        ),
        equal_nan=True,
    )


@pytest.mark.parametrize("call", [name for name in CALLS if name != "wind_power"])
def test_a_series_that_is_not_monthly_is_told_apart(call):
    run, good = CALLS[call]
    twice = good.assign_coords(time=good.time.values[0] + np.arange(good.sizes["time"]) * np.timedelta64(5, "D"))
    with pytest.raises(ValueError, match="two times in one month"):
        run(twice)
    with pytest.raises(TypeError, match="datetime64"):
        run(good.assign_coords(time=np.arange(good.sizes["time"])))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: spi(-PRECIP.assign_attrs(units="mm") - 1, 3), ValueError, "units|at least 0"),
        (lambda: spi((PRECIP - 50).assign_attrs(units="mm")), ValueError, "precip: expected values of at least 0"),
        (lambda: spei((PRECIP - 50).assign_attrs(units="mm"), PRECIP), ValueError, "precip: expected values"),
        (lambda: spi(PRECIP, 0), ValueError, "months"),
        (lambda: spi(PRECIP, 2.0), ValueError, "months"),
        (lambda: spi(PRECIP, min_years=1), ValueError, "min_years"),
        (lambda: spei(PRECIP, PRECIP, min_years=2), ValueError, "min_years: expected .* 5"),
        (lambda: spi(PRECIP, reference=1951), TypeError, "reference"),
        (lambda: spi(PRECIP, reference=(1951, 1980)), TypeError, "reference"),
        (lambda: spi(PRECIP, reference=("1951",)), TypeError, "reference"),
        (lambda: spi(PRECIP, reference=("1975", "1951")), ValueError, "earlier"),
        (lambda: spi(PRECIP, reference=("x", "1951")), ValueError, "reference"),
        (lambda: spi(PRECIP, reference=("NaT", "1951")), ValueError, "reference"),
        (lambda: spi(PRECIP * np.nan), ValueError, "units|reference"),
        (lambda: spi((PRECIP * np.nan).assign_attrs(units="mm")), ValueError, "found 0 at most"),
        (lambda: spei(PRECIP, PRECIP[1:]), ValueError, "evapotranspiration: expected the time of precip"),
        (lambda: spei(PRECIP, PRECIP[:, ::-1]), ValueError, "evapotranspiration: expected the station of precip"),
        (lambda: evapotranspiration(TMIN, TMAX[1:]), ValueError, "tmax: expected the time of tmin"),
        (lambda: evapotranspiration(TMAX, TMIN), ValueError, "tmax: expected at least tmin, found .* at S0 in 1951-01"),
        (lambda: degree_days(TMAX, TMIN, 10), ValueError, "tmax: expected at least tmin"),
        (lambda: degree_days(TMIN, TMAX, np.nan), ValueError, "base"),
        (lambda: degree_days(TMIN, TMAX, "10 degC"), ValueError, "base"),
        (lambda: degree_days(TMIN, TMAX, 10, "warming"), ValueError, "kind"),
        (lambda: degree_days(TMIN, TMAX, 10, daily_spread=-1), ValueError, "daily_spread"),
        (lambda: degree_days(TMIN, TMAX, 10, daily_spread=[1, 2]), ValueError, "daily_spread"),
        (lambda: degree_days(TMIN, TMAX, 10, daily_spread=TMIN), ValueError, "daily_spread: expected dims"),
        (
            lambda: degree_days(TMIN, TMAX, 10, daily_spread=xr.DataArray([1.0], dims="station")),
            ValueError,
            "daily_spread: expected station",
        ),
        (
            lambda: degree_days(TMIN, TMAX, 10, daily_spread=xr.DataArray(np.ones(12), dims="month")),
            ValueError,
            "daily_spread: expected month",
        ),
        (
            lambda: degree_days(TMIN, TMAX, 10, daily_spread=xr.DataArray([np.nan], {"station": ["S0"]})),
            ValueError,
            "daily_spread: expected finite",
        ),
        (lambda: frost_free_season(TMIN, None), ValueError, "threshold"),
        (lambda: frost_free_season(season(3, 10).assign_coords(lat=("station", [-40.0]))), ValueError, "southern"),
        (lambda: wind_power((WIND - 9).assign_attrs(units="m s-1")), ValueError, "wind_speed: expected values"),
        (lambda: wind_power(WIND, "windmill"), ValueError, "turbine: expected one of .* found 'windmill'"),
        (lambda: wind_power(WIND, 82), TypeError, "turbine"),
        (lambda: wind_power(WIND, hub_height=0.1), ValueError, "hub_height"),
        (lambda: wind_power(WIND, hub_height=40), ValueError, "hub_height: expected one for E-82/2300"),
        (lambda: wind_power(WIND, measured_height=0.05), ValueError, "measured_height"),
        (lambda: wind_power(WIND, roughness=0), ValueError, "roughness"),
        (lambda: wind_power(WIND, within_day_spread=-0.1), ValueError, "within_day_spread"),
        (lambda: wind_power(WIND, within_day_spread=1), ValueError, "within_day_spread"),
        (lambda: wind_power(WIND, within_day_spread="much"), ValueError, "within_day_spread"),
    ],
)
def test_each_index_says_what_is_wrong(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("xclim", lambda: spi(PRECIP)),
        ("xclim", lambda: spei(PRECIP, PRECIP)),
        ("xclim", lambda: evapotranspiration(TMIN, TMAX)),
        ("windpowerlib", lambda: wind_power(WIND)),
    ],
)
def test_without_the_library_the_error_says_how_to_get_it(monkeypatch, library, call):
    for name in [library, "xclim.indices", "xclim.indices.helpers"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'expected {library}, found none; pip install "stgcn-lab\[applications\]"'):
        call()


def test_the_libraries_are_imported_when_needed_and_nothing_reaches_the_reader():
    program = """
import sys, warnings
from stgcn_lab import datasets, indices
assert not {"xclim", "windpowerlib"} & set(sys.modules)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "numpy.ndarray size changed")  # harmless: NumPy silences it too
c = datasets.load_colorado().sel(time=slice("1951", "1990")).isel(station=slice(0, 20))
indices.frost_free_season(c.tmin), indices.degree_days(c.tmin, c.tmax, 10, "growing", 5)
assert not {"xclim", "windpowerlib"} & set(sys.modules)
water = indices.evapotranspiration(c.tmin, c.tmax)
indices.spi(c.precip), indices.spei(c.precip, water)
indices.wind_power(datasets.load_irish_wind().wind_speed[:50], within_day_spread=0.3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_input_is_left_alone():
    precip, tmin, tmax, speed = (x.copy(deep=True) for x in (PRECIP, TMIN, TMAX, WIND))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spi(PRECIP), spei(PRECIP, PRECIP), evapotranspiration(TMIN, TMAX), degree_days(TMIN, TMAX, 10, "growing", 3)
        frost_free_season(TMIN), wind_power(WIND, within_day_spread=0.2)
    for before, after in ((precip, PRECIP), (tmin, TMIN), (tmax, TMAX), (speed, WIND)):
        assert before.identical(after)
