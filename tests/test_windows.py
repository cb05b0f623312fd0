"""Split, then standardise, then cut windows: no year reaches into another, nothing missing becomes a value."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stgcn_lab.windows import Sources, SourceWindows, Standardizer, WindowDataset, known_at, split_by_time


def make_series(steps: int = 60, stations: int = 3, start: str = "2000-01-01", freq: str = "D") -> xr.DataArray:
    """A (time, station) series in which every value says where it stands: 100 x time step + station."""
    values = 100.0 * np.arange(steps)[:, None] + np.arange(stations)
    return xr.DataArray(
        values,
        dims=("time", "station"),
        coords={
            "time": pd.date_range(start, periods=steps, freq=freq),
            "station": [f"S{i}" for i in range(stations)],
            "lat": ("station", 50.0 + np.arange(stations)),
            "lon": ("station", -8.0 + np.arange(stations)),
        },
        attrs={"units": "m s-1", "long_name": "wind speed"},
        name="wind",
    )


@pytest.fixture
def series() -> xr.DataArray:
    return make_series()


@pytest.fixture
def years() -> xr.DataArray:
    """Daily, 2000-01-01 to 2003-12-31."""
    return make_series(steps=1461)


def year_of(part) -> set[int]:
    return set(part.time.dt.year.values.tolist())


# ---------------------------------------------------------------------------- split


@pytest.mark.parametrize("as_dataset", [True, False])
def test_split_in_three(years, as_dataset):
    ds = years.to_dataset() if as_dataset else years
    parts = split_by_time(ds, train=("2000", "2001"), validation=("2002", "2002"), test=("2003", "2003"))
    assert type(parts.train) is type(ds)
    assert (year_of(parts.train), year_of(parts.validation), year_of(parts.test)) == ({2000, 2001}, {2002}, {2003})
    assert sum(part.sizes["time"] for part in parts) == 1461, "both ends are included"
    train, validation, test = (set(part.time.values) for part in parts)
    assert not train & validation and not train & test and not validation & test
    assert max(train) < min(validation) and max(validation) < min(test)
    kept = parts.train if isinstance(ds, xr.DataArray) else parts.train["wind"]
    assert kept.attrs == years.attrs and set(kept.coords) == set(years.coords)


@pytest.mark.parametrize(
    "train", [("2000", "2001"), ["2000", "2001"], slice("2000", "2001"), (None, "2001"), slice(None, "2001-12-31")]
)
def test_split_takes_pairs_and_slices(years, train):
    parts = split_by_time(years, train, test=("2002", None))
    assert year_of(parts.train) == {2000, 2001} and year_of(parts.test) == {2002, 2003}
    assert parts.validation is None


def test_split_of_hours_within_a_day():
    series = make_series(96, freq="h")
    parts = split_by_time(series, ("2000-01-01", "2000-01-02T05"), test=("2000-01-02T06", "2000-01-04"))
    assert parts.train.sizes["time"] == 24 + 6 and parts.test.sizes["time"] == 96 - 30


@pytest.mark.parametrize(
    ("periods", "parts"),
    [
        ({"train": ("2000", "2001"), "validation": ("2001", "2002")}, ["validation", "after train", "2001-12-31"]),
        ({"train": ("2000", "2001"), "validation": ("2001-12-31", "2002")}, ["validation", "after train"]),
        ({"train": ("2000", "2001"), "test": ("2001-06", "2003")}, ["test", "after train", "2001-06-01"]),
        ({"train": ("2002", "2003"), "test": ("2000", "2001")}, ["test", "after train"]),
        (
            {"train": ("2000", "2000"), "validation": ("2002", "2002"), "test": ("2001", "2001")},
            ["test", "after validation"],
        ),
        ({"train": ("1990", "1995")}, ["train", "1990", "1995", "2000-01-01", "2003-12-31"]),
        ({"train": ("2001", "2000")}, ["train", "2001"]),
        ({"train": ("2000", "2001"), "test": ("2010", "2012")}, ["test", "2010", "2003-12-31"]),
        ({"train": "2000"}, ["train", "(first, last)", "'2000'"]),
        ({"train": ("2000", "2001", "2002")}, ["train", "(first, last)"]),
        ({"train": None}, ["train", "(first, last)", "None"]),
        ({"train": 2000}, ["train", "(first, last)", "2000"]),
        ({"train": (2000, 2001)}, ["train", "2000"]),
        ({"train": ("spring", "autumn")}, ["train", "spring"]),
    ],
)
def test_split_refuses_bad_periods(years, periods, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        split_by_time(years, **periods)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (lambda s: s.isel(time=slice(None, None, -1)), ValueError, ["ds", "rising order"]),
        (lambda s: s.isel(time=[0, 2, 1, 3]), ValueError, ["ds", "rising order"]),
        (lambda s: s.isel(time=[0, 1, 1, 2]), ValueError, ["ds", "each once"]),
        (lambda s: s.isel(time=slice(0, 0)), ValueError, ["ds", "at least one", "none"]),
        (lambda s: s.rename(time="day"), ValueError, ["ds", "'time'", "day"]),
        (lambda s: s.drop_vars("time"), ValueError, ["ds", "'time'", "coordinate"]),
        (lambda s: s.values, TypeError, ["ds", "xarray", "ndarray"]),
        (lambda s: s.to_dataframe(), TypeError, ["ds", "xarray", "DataFrame"]),
    ],
)
def test_split_refuses_bad_series(years, change, error, parts):
    with pytest.raises(error) as raised:
        split_by_time(change(years), ("2000", "2001"))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- standardise


def weather(steps=200, seed=0) -> xr.DataArray:
    series = make_series(steps, 4)
    rng = np.random.default_rng(seed)
    values = [3.0, -20, 300, 0] + [1.0, 5, 0.1, 40] * rng.standard_normal((steps, 4))
    values[rng.random(values.shape) < 0.1] = np.nan
    return series.copy(data=values)


@pytest.mark.parametrize("as_dataset", [True, False])
def test_standardizer_formula(as_dataset):
    series = weather()
    given_series = series.to_dataset() if as_dataset else series
    z = Standardizer().fit(given_series).transform(given_series)
    z = z["wind"] if as_dataset else z
    expected = (series.values - np.nanmean(series.values, axis=0)) / np.nanstd(series.values, axis=0)
    np.testing.assert_allclose(z, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(series))
    assert z.attrs["units"] == "1" and z.attrs["long_name"] == "wind speed" and z.name == "wind"
    assert set(z.coords) == set(series.coords) and z.dims == series.dims


@pytest.mark.parametrize("per_station", [True, False])
@pytest.mark.parametrize("as_dataset", [True, False])
def test_standardizer_round_trip(per_station, as_dataset):
    series = weather().to_dataset() if as_dataset else weather()
    scaler = Standardizer(per_station).fit(series)
    back = scaler.inverse_transform(scaler.transform(series))
    xr.testing.assert_allclose(back, series, rtol=1e-12, atol=1e-12)
    restored = back["wind"] if as_dataset else back
    assert restored.attrs == weather().attrs


def test_standardizer_of_several_variables_restores_the_units_of_each():
    ds = xr.Dataset({"wind": weather(), "rain": weather(seed=1).assign_attrs(units="mm")})
    scaler = Standardizer().fit(ds)
    back = scaler.inverse_transform(scaler.transform(ds))
    assert back["wind"].attrs["units"] == "m s-1" and back["rain"].attrs["units"] == "mm"
    xr.testing.assert_allclose(back, ds, rtol=1e-12)


def test_standardizer_learns_from_the_training_part_alone():
    series = weather()
    other = series.copy(deep=True)
    other[120:] = 1e6  # whatever happens in the test years
    results = []
    for s in (series, other):
        train, _, test = split_by_time(s, ("2000-01-01", "2000-04-29"), test=("2000-04-30", None))
        scaler = Standardizer().fit(train)
        results.append((scaler.mean, scaler.std, scaler.transform(train)))
        scaler.transform(test)
        xr.testing.assert_identical(scaler.mean, results[-1][0])
    for a, b in zip(*results, strict=True):
        xr.testing.assert_identical(a, b)


def test_standardizer_with_one_mean_for_all_stations():
    series = weather()
    scaler = Standardizer(per_station=False).fit(series)
    z = scaler.transform(series)
    expected = (series.values - np.nanmean(series.values)) / np.nanstd(series.values)
    np.testing.assert_allclose(z, expected, rtol=1e-10, atol=1e-12)
    elsewhere = series.isel(station=[0, 1]).assign_coords(station=["X", "Y"])
    assert scaler.transform(elsewhere).sizes["station"] == 2


@pytest.mark.parametrize("constant", [15.3, 288.13])
def test_standardizer_only_centres_a_constant_station_in_single_precision(constant):
    """Its deviation is rounding noise of about 1e-6, by which nothing must be divided."""
    series = weather(6000).astype(np.float32)
    series[:, 1] = constant
    z = Standardizer().fit(series).transform(series)
    assert abs(z[:, 1]).max() < 1e-3 and z[:, 0].std() == pytest.approx(1, abs=1e-3)


def test_standardizer_refuses_text():
    with pytest.raises(TypeError, match="train: expected numbers.*'name'"):
        Standardizer().fit(weather().to_dataset(name="wind").assign(name=weather().astype(str)))


@pytest.mark.parametrize("constant", [0.0, 0.1, -273.15, 1e6])
def test_standardizer_only_centres_a_constant_station(constant):
    series = weather()
    series[:, 1] = constant
    scaler = Standardizer().fit(series)
    np.testing.assert_allclose(scaler.transform(series)[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(series))[:, 1], constant, rtol=1e-12)


def test_standardizer_keeps_a_station_that_never_reports_missing():
    series = weather()
    series[:, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = Standardizer().fit(series)
        z = scaler.transform(series)
    assert z[:, 2].isnull().all() and z[:, [0, 1, 3]].notnull().any("time").all()
    assert scaler.inverse_transform(z)[:, 2].isnull().all()


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_standardizer_must_be_fitted_first(method):
    with pytest.raises(ValueError, match="fit"):
        getattr(Standardizer(), method)(weather())


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
@pytest.mark.parametrize("as_dataset", [True, False])
def test_standardizer_does_not_drop_stations_in_silence(method, as_dataset):
    """xarray aligns on common labels: a station that was not in the training part would simply vanish."""
    series = weather().to_dataset() if as_dataset else weather()
    scaler = Standardizer().fit(series.isel(station=[0, 1, 2]))
    with pytest.raises(ValueError, match="station"):
        getattr(scaler, method)(series)


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_standardizer_does_not_drop_variables_in_silence(method):
    scaler = Standardizer().fit(weather().to_dataset())
    with pytest.raises(ValueError, match="wind|gust"):
        getattr(scaler, method)(weather().rename("gust").to_dataset())


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_standardizer_refuses_what_is_no_series(method):
    with pytest.raises(TypeError, match="series.*ndarray"):
        getattr(Standardizer().fit(weather()), method)(weather().values)


@pytest.mark.parametrize(
    ("train", "error", "parts"),
    [
        (weather().values, TypeError, ["train", "ndarray"]),
        (weather().isel(time=[1, 0]), ValueError, ["train", "rising order"]),
        (weather() * np.nan, ValueError, ["train", "all missing"]),
        (weather().mean("time"), ValueError, ["train", "'time'"]),
    ],
)
def test_standardizer_refuses_bad_training_series(train, error, parts):
    with pytest.raises(error) as raised:
        Standardizer().fit(train)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- windows


def windows_of(series: xr.DataArray, history=4, horizon=2, **options) -> WindowDataset:
    return WindowDataset(series.to_dataset(), "wind", "wind", history, horizon, **options)


@given(steps=st.integers(2, 30), stations=st.integers(1, 4), history=st.integers(1, 8), horizon=st.integers(1, 5))
def test_windows_equal_direct_slices(steps, stations, history, horizon):
    series = make_series(steps, stations)
    count = steps - history - horizon + 1  # the last window ends at the last step
    if count < 1:
        with pytest.raises(ValueError, match=f"ds: expected at least {history + horizon} time steps.*found {steps}"):
            windows_of(series, history, horizon)
        return
    windows = windows_of(series, history, horizon)
    assert len(windows) == count and windows.starts.tolist() == list(range(count))
    values, times = torch.tensor(series.values, dtype=torch.float32)[..., None], series.time.values
    for i in range(count):
        window = windows[i]
        assert torch.equal(window.x, values[i : i + history])
        assert torch.equal(window.y, values[i + history : i + history + horizon])
        assert window.x_mask.all() and window.y_mask.all()
        assert (windows.times[i] == times[i + history : i + history + horizon]).all()
    assert windows.times[-1, -1] == times[-1]


def test_a_batch_gathers_its_windows(series):
    windows = windows_of(series)
    for indices in ([3, 0, 50], torch.tensor([3, 0, 50]), np.array([3, 0, 50])):
        batch = windows.batch(indices)
        assert batch.x.shape == (3, 4, 3, 1) and batch.y.shape == (3, 2, 3, 1)
        assert batch.x.dtype == batch.y.dtype == torch.float32
        assert batch.x_mask.dtype == batch.y_mask.dtype == torch.bool
        for b, i in enumerate([3, 0, 50]):
            for gathered, single in zip(batch, windows[i], strict=True):
                assert torch.equal(gathered[b], single)


def test_windows_are_views_of_one_array(series):
    windows = windows_of(series)
    storage = windows[0].x.untyped_storage().data_ptr()
    assert all(window.x.untyped_storage().data_ptr() == storage for window in windows)
    assert windows[1].x.data_ptr() - windows[0].x.data_ptr() == 3 * 4  # one step of 3 stations, 4 bytes each


def test_the_caller_may_change_the_series_afterwards(series):
    windows = windows_of(series)
    before = windows[0].x.clone()
    series[:] = -1.0
    assert torch.equal(windows[0].x, before)


def test_inputs_and_targets_are_stacked_in_the_order_given():
    ds = xr.Dataset({"wind": make_series(), "rain": -make_series(), "sun": 0.5 * make_series()})
    windows = WindowDataset(ds, ["rain", "wind"], ["sun", "rain", "wind"], 4, 2)
    window = windows[0]
    assert window.x.shape == (4, 3, 2) and window.y.shape == (2, 3, 3)
    wind = torch.tensor(make_series().values, dtype=torch.float32)
    assert torch.equal(window.x[..., 0], -wind[:4]) and torch.equal(window.x[..., 1], wind[:4])
    assert torch.equal(window.y[..., 0], 0.5 * wind[4:6]) and torch.equal(window.y[..., 2], wind[4:6])


def test_dims_in_another_order_are_transposed_and_not_reshaped():
    series = make_series()
    a, b = windows_of(series), windows_of(series.transpose("station", "time"))
    assert torch.equal(a[7].x, b[7].x) and torch.equal(a[7].y, b[7].y)


def test_missing_values_are_masked_and_hold_zero(series):
    series[3, 1] = series[5, 0] = np.nan
    series[8, 2] = np.inf
    windows = windows_of(series)
    batch = windows.batch(range(len(windows)))
    assert torch.isfinite(batch.x).all() and torch.isfinite(batch.y).all()
    there = torch.tensor(np.isfinite(series.values))[..., None]
    for i in range(len(windows)):
        assert torch.equal(batch.x_mask[i], there[i : i + 4]) and torch.equal(batch.y_mask[i], there[i + 4 : i + 6])
    assert (batch.x[~batch.x_mask] == 0).all() and (batch.y[~batch.y_mask] == 0).all()
    assert windows[0].x_mask[0, 0, 0] and windows[0].x[0, 0, 0] == 0  # a measured zero is no missing value


def test_windows_without_any_observed_target_are_left_out(series):
    series[20:25] = np.nan
    series[22, 1] = 1.0  # one station on one day is enough
    windows = windows_of(series, history=4, horizon=1)
    targets = (windows.starts + 4).tolist()
    assert targets == [t for t in range(4, 60) if t not in (20, 21, 23, 24)]
    assert torch.stack([window.y_mask.any() for window in windows]).all()


def test_missing_inputs_do_not_remove_a_window(series):
    ds = xr.Dataset({"wind": series, "rain": series * np.nan})
    assert len(WindowDataset(ds, "rain", "wind", 4, 2)) == 55


def test_windows_never_reach_over_a_gap(series):
    gappy = series.isel(time=[*range(20), *range(23, 40), *range(50, 60)])
    windows = windows_of(gappy)
    assert len(windows) == sum(n - 5 for n in (20, 17, 10))
    for i, window in enumerate(windows):
        steps = torch.cat([window.x, window.y])[:, 0, 0] / 100  # the day's number
        assert (steps.diff() == 1).all()
        assert (np.diff(windows.times[i]) == np.timedelta64(1, "D")).all()


def test_winters_are_not_joined_over_the_summer():
    series = make_series(1461)
    winters = series.sel(time=series.time.dt.month.isin([12, 1, 2]))
    windows = windows_of(winters, 10, 5)
    assert len(windows) == sum(n - 14 for n in (31 + 29, 31 + 31 + 28, 31 + 31 + 28, 31 + 31 + 28, 31) if n > 14)
    first = winters.time.values[windows.starts]
    assert (windows.times[:, -1] - first == np.timedelta64(14, "D")).all()


@pytest.mark.parametrize("freq", ["MS", "ME"])
def test_months_of_28_to_31_days_are_regular(freq):
    series = make_series(60, freq=freq)
    assert len(windows_of(series, 12, 1)) == 60 - 12
    assert len(windows_of(series.drop_isel(time=30), 12, 1)) == (30 - 12) + (29 - 12)  # but a missing month is a gap


@pytest.mark.parametrize("freq", ["30min", "6h", "QS", "YS"])
def test_other_regular_steps(freq):
    assert len(windows_of(make_series(40, freq=freq))) == 35


def test_a_dropped_leap_day_is_a_gap():
    """28 February to 1 March is two days in a leap year: only the windows across it are left out."""
    series = make_series(731, start="1999-01-01")  # 2000 is the leap year
    dropped = series.sel(time=~((series.time.dt.month == 2) & (series.time.dt.day == 29)))
    assert dropped.sizes["time"] == 730
    windows = windows_of(dropped)
    assert len(windows) == (365 + 59 - 5) + (306 - 5)
    assert len(windows_of(series)) == 731 - 5


def test_a_window_of_the_training_part_never_holds_validation_values():
    series = make_series(100)
    train, validation, _ = split_by_time(series, ("2000-01-01", "2000-02-29"), ("2000-03-01", "2000-04-09"))
    a, b = windows_of(train), windows_of(validation)
    assert a.times.max() == np.datetime64("2000-02-29") and b.times.min() == np.datetime64("2000-03-05")
    assert a.batch(range(len(a))).y.max() < 100 * 60 and b.batch(range(len(b))).x.min() >= 100 * 60
    assert len(a) + len(b) == 100 - 2 * 5


def test_batches_in_order_of_time_hold_every_window_once(series):
    windows = windows_of(series)  # 55
    batches = list(windows.batches(16))
    assert [len(batch.x) for batch in batches] == [16, 16, 16, 7], "the last, smaller batch is not dropped"
    assert torch.equal(torch.cat([batch.x for batch in batches]), windows.batch(range(55)).x)


def test_shuffled_batches_hold_every_window_once_and_repeat_with_the_seed(series):
    windows = windows_of(series)

    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return [(torch.cat([b.x for b in windows.batches(16, generator)])[:, 0, 0, 0] / 100).tolist() for _ in range(2)]

    first, second = order(1)
    assert sorted(first) == sorted(second) == list(range(55))
    assert first != second and first != sorted(first)
    assert order(1) == [first, second] and order(2)[0] != first


def test_shuffling_leaves_global_random_numbers_alone(series):
    before = torch.get_rng_state()
    list(windows_of(series).batches(16, torch.Generator().manual_seed(1)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_batches_refuse_a_bad_size(series, size):
    with pytest.raises((TypeError, ValueError), match="batch_size"):
        list(windows_of(series).batches(size))


@pytest.mark.parametrize("stretch", [2, 7, 13, 500])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_stretches_hold_every_window_once(stretch, seed):
    series = make_series(steps=70)
    series[20:33] = np.nan  # windows without a target
    series = series.isel(time=np.r_[0:45, 50:70])  # and some over a gap
    windows = windows_of(series)
    seen = []
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for batch in windows.batches(3 * stretch, generator, stretch):
        count = batch.y.shape[1]
        assert (
            batch.x.shape[1:] == (4 + count - 1, 3, 1)
            and batch.y.shape[1:] == (count, 2, 3, 1) == batch.y_mask.shape[1:]
        )
        assert batch.x_mask.shape == batch.x.shape and count <= stretch and len(batch.x) <= 3
        for b, s in batch.y_mask.flatten(2).any(dim=2).nonzero():
            parts = batch.x[b, s : s + 4], batch.y[b, s], batch.x_mask[b, s : s + 4], batch.y_mask[b, s]
            seen.append(parts)
    if seed is not None:
        seen.sort(key=lambda parts: (parts[1].max(), parts[0].max()))  # values say when
    assert len(seen) == len(windows) > 20
    for parts, window in zip(seen, windows, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(parts, window, strict=True))


def test_shuffled_stretches_begin_elsewhere_each_time(series):
    windows, generator = windows_of(series), torch.Generator().manual_seed(0)
    first = {
        min(int(x.min()) for x in (batch.x[:, 0] for batch in windows.batches(64, generator, 8))) for _ in range(3)
    }
    cuts = [
        sorted(int(value) for batch in windows.batches(64, generator, 8) for value in batch.x[:, 0, 0, 0])
        for _ in range(3)
    ]
    assert first == {0} and len({tuple(cut) for cut in cuts}) > 1


@pytest.mark.parametrize("stretch", [0, -1, 1.5, "8", None])
def test_batches_refuse_a_bad_stretch(series, stretch):
    with pytest.raises((TypeError, ValueError), match="stretch: expected"):
        list(windows_of(series).batches(8, None, stretch))


def test_a_record_in_single_precision_is_not_copied():
    """Forty megabytes, of which windows, their masks and batches take what they need and no more."""
    steps, stations = 20_000, 250
    record = np.random.default_rng(0).normal(size=(2, steps, stations)).astype(np.float32)
    times = pd.date_range("2000", periods=steps, freq="h")
    ds = xr.Dataset(
        {name: (("time", "station"), values) for name, values in zip("ab", record, strict=True)}, {"time": times}
    )
    tracemalloc.start()
    windows = WindowDataset(ds, ["a", "b"], "a", 24, 3)
    assert tracemalloc.get_traced_memory()[1] < 0.3 * ds.nbytes  # where values are missing is asked once, in bytes
    tracemalloc.stop()
    for name, values in windows._record.items():
        assert np.shares_memory(values.numpy(), ds[name].values)
    single = WindowDataset(ds, "b", "b", 24, 3)
    assert np.shares_memory(single[7].x.numpy(), ds["b"].values) and np.shares_memory(
        single[7].y.numpy(), ds["b"].values
    )


def test_a_record_in_a_file_that_is_only_read(tmp_path):
    values = np.arange(600, dtype=np.float32).reshape(200, 3)
    values.tofile(tmp_path / "record")
    mapped = np.memmap(tmp_path / "record", np.float32, "r", shape=(200, 3))
    times = pd.date_range("2000", periods=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        windows = WindowDataset(xr.Dataset({"x": (("time", "station"), mapped)}, {"time": times}), "x", "x", 4, 2)
        batch = windows.batch([0, 190])
    assert torch.equal(batch.x[1, ..., 0], torch.from_numpy(values[190:194]))


def test_windows_can_be_walked_through(series):
    windows = windows_of(series)
    assert len(list(windows)) == len(windows) == 55
    assert torch.equal(windows[-1].y, windows[54].y)
    with pytest.raises(IndexError):
        windows[55]


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda ds: WindowDataset(ds["wind"], "wind", "wind", 4, 2), TypeError, ["ds", "Dataset", "DataArray"]),
        (lambda ds: WindowDataset(ds, "gust", "wind", 4, 2), ValueError, ["inputs", "wind", "gust"]),
        (lambda ds: WindowDataset(ds, "wind", ["gust"], 4, 2), ValueError, ["targets", "wind", "gust"]),
        (lambda ds: WindowDataset(ds, [], "wind", 4, 2), ValueError, ["inputs", "at least one"]),
        (lambda ds: WindowDataset(ds, "wind", None, 4, 2), ValueError, ["targets", "at least one", "None"]),
        (lambda ds: WindowDataset(ds.isel(station=[]), "wind", "wind", 4, 2), ValueError, ["at least one station"]),
        (lambda ds: WindowDataset(ds, "wind", "wind", 0, 2), ValueError, ["history", "at least 1", "0"]),
        (lambda ds: WindowDataset(ds, "wind", "wind", 4, 1.5), ValueError, ["horizon", "whole number", "1.5"]),
        (lambda ds: WindowDataset(ds, "wind", "wind", True, 2), ValueError, ["history", "True"]),
        (lambda ds: WindowDataset(ds, "wind", "wind", 59, 2), ValueError, ["ds", "at least 61", "found 60"]),
        (lambda ds: WindowDataset(ds.isel(time=[1, 0, 2]), "wind", "wind", 1, 1), ValueError, ["ds", "rising order"]),
        (lambda ds: WindowDataset(ds.isel(time=[0, 1, 1]), "wind", "wind", 1, 1), ValueError, ["ds", "each once"]),
        (lambda ds: WindowDataset(ds.mean("station"), "wind", "wind", 1, 1), ValueError, ["wind", "(time, station)"]),
        (lambda ds: WindowDataset(ds * np.nan, "wind", "wind", 1, 1), ValueError, ["ds", "no window", "observed"]),
        (lambda ds: WindowDataset(ds.astype(str), "wind", "wind", 1, 1), ValueError, ["inputs", "numbers", "wind"]),
        (
            lambda ds: WindowDataset(ds.isel(time=[0, 1, 10, 11, 20, 21]), "wind", "wind", 2, 1),
            ValueError,
            ["ds", "no window of 3", "gap"],
        ),
    ],
)
def test_windows_refuse_what_does_not_fit(series, call, error, parts):
    with pytest.raises(error) as raised:
        call(series.to_dataset())
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_a_time_axis_of_plain_dates_works():
    """pandas dates of another resolution than nanoseconds."""
    series = make_series(30)
    series = series.assign_coords(time=pd.date_range("1850-01-01", periods=30).as_unit("s"))
    assert len(windows_of(series)) == 25


@pytest.mark.parametrize("date", [pd.Timestamp, np.datetime64, lambda text: pd.Timestamp(text).to_pydatetime()])
def test_split_takes_dates_of_any_kind(years, date):
    parts = split_by_time(years, train=(None, date("2000-12-31")), test=slice(date("2001-01-01"), None))
    assert parts.train.sizes["time"] + parts.test.sizes["time"] == years.sizes["time"]
    assert str(parts.test.time.values[0]).startswith("2001-01-01")


def test_steps_may_be_numpy_integers(series):
    windows = WindowDataset(series.to_dataset(), "wind", ("wind",), np.int64(4), np.int32(2))
    assert len(windows) == 55
    assert sum(len(batch.x) for batch in windows.batches(np.int64(20))) == 55


# ---------------------------------------------------------------------------- what was known when


def monthly(values, start="2000-01-01") -> xr.DataArray:
    return xr.DataArray(
        np.asarray(values, float), {"time": pd.date_range(start, periods=len(values), freq="MS")}, ["time"], "sea"
    )


def test_a_month_is_known_when_it_is_over():
    series = monthly([1, 2, 3]).assign_attrs(units="degC")
    asked = ["2000-01-31T23:59", "2000-02-01", "2000-02-29", "2000-03-01", "2000-06-01"]
    known = known_at(series, asked)
    np.testing.assert_array_equal(known, [np.nan, 1, 1, 2, 3])
    np.testing.assert_array_equal(known["age"], [np.nan, 0, 28, 0, 61])
    assert known.dims == ("time",) and known.name == "sea" and known.attrs == {"units": "degC"}
    assert list(known["time"].values) == list(pd.DatetimeIndex(asked).values)
    np.testing.assert_array_equal(known_at(series, asked[::-1]), known[::-1])


def test_a_delay_is_waited_for_and_counts_in_the_age():
    known = known_at(monthly([1, 2, 3]), ["2000-02-09", "2000-02-11", "2000-03-10", "2000-03-11"], delay=10)
    np.testing.assert_array_equal(known, [np.nan, 1, 1, 2])
    np.testing.assert_array_equal(known["age"], [np.nan, 10, 38, 10])


@pytest.mark.parametrize(
    ("freq", "period", "first_known"),
    [
        ("D", None, "2000-01-02"),
        ("6h", None, "2000-01-01T06"),
        ("MS", None, "2000-02-01"),
        ("QS", None, "2000-04-01"),
        ("YS", None, "2001-01-01"),
        ("YS", "2MS", "2000-03-01"),
        ("YS", pd.DateOffset(months=3), "2000-04-01"),
        ("D", "h", "2000-01-01T01"),
    ],
)
def test_the_period_of_a_value(freq, period, first_known):
    series = xr.DataArray(np.arange(5.0), {"time": pd.date_range("2000-01-01", periods=5, freq=freq)}, ["time"])
    first_known = pd.Timestamp(first_known)
    known = known_at(series, [first_known - pd.Timedelta("1s"), first_known], period=period)
    np.testing.assert_array_equal(known, [np.nan, 0])


def test_a_month_left_out_of_the_series_does_not_make_the_others_longer():
    series = monthly([1, 2, 3, 4]).isel(time=[0, 1, 3])
    np.testing.assert_array_equal(
        known_at(series, ["2000-02-01", "2000-03-01", "2000-04-01", "2000-05-01"]), [1, 2, 2, 4]
    )


def test_a_missing_value_leaves_the_older_one_station_by_station():
    series = monthly([0, 0, 0]).expand_dims(station=2).copy()
    series[:] = [[1, np.nan, 3], [np.nan, 5, np.nan]]
    series = series.assign_coords(station=["a", "b"], lat=("station", [50.0, 51]))
    known = known_at(series, ["2000-02-01", "2000-03-01", "2000-04-01"])
    assert known.dims == ("time", "station") and list(known["lat"]) == [50, 51]
    np.testing.assert_array_equal(known, [[1, np.nan], [1, 5], [3, 5]])
    np.testing.assert_array_equal(known["age"], [[0, np.nan], [29, 0], [0, 31]])


@given(st.integers(0, 30), st.integers(0, 60), st.integers(0, 1000))
def test_known_at_never_looks_ahead(delay, at, seed):
    """Whatever is changed in the future, nothing changes; and a brute-force search finds the same."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(24) < 0.2, np.nan, rng.standard_normal(24))
    series = monthly(values)
    time = np.datetime64("2000-01-01") + np.timedelta64(12 * at, "D")
    known = known_at(series, [time], delay=delay)
    ends = series.indexes["time"] + pd.DateOffset(months=1) + pd.Timedelta(days=delay)
    out = [value for value, end in zip(values, ends, strict=True) if end <= time and np.isfinite(value)]
    np.testing.assert_array_equal(known, [out[-1] if out else np.nan])
    changed = series.copy(data=np.where(ends <= time, values, 99.0))
    xr.testing.assert_identical(known_at(changed, [time], delay=delay), known)


@pytest.mark.parametrize("period", ["ME", "QE", "YE", "W", pd.offsets.MonthEnd()])
def test_a_period_that_does_not_begin_at_the_stamp_is_refused(period):
    # From 1 January, a Saturday, pandas counts a month to the 31st and a week to the 2nd: values known too early.
    with pytest.raises(ValueError, match="begins at every stamp"):
        known_at(monthly([1, 2, 3]), ["2000-01-31"], period=period)
    sources = {"station": monthly([1, 2, 3, 4]).to_dataset(name="x"), "ocean": monthly([1, 2, 3]).to_dataset(name="x")}
    with pytest.raises(ValueError, match="ocean.*begins at every stamp"):
        SourceWindows(sources, {"station": "x", "ocean": "x"}, "x", 1, 1, periods={"ocean": period})


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: known_at(s.values, ["2000-02-01"]), TypeError, ["series", "DataArray", "ndarray"]),
        (lambda s: known_at(s.rename(time="day"), ["2000-02-01"]), ValueError, ["series", "'time'"]),
        (lambda s: known_at(s[::-1], ["2000-02-01"]), ValueError, ["series", "rising order"]),
        (lambda s: known_at(s.assign_coords(time=[0, 1, 2]), ["2000-02-01"]), TypeError, ["series", "dates", "int64"]),
        (lambda s: known_at(s.astype(str), ["2000-02-01"]), TypeError, ["series", "numbers"]),
        (lambda s: known_at(s, ["soon"]), TypeError, ["times", "dates", "soon"]),
        (lambda s: known_at(s, ["NaT"]), ValueError, ["times", "NaT"]),
        (lambda s: known_at(s, [2001]), TypeError, ["times", "dates", "int64"]),
        (lambda s: known_at(s, [["2000-02-01"]]), TypeError, ["times", "one axis", "(1, 1)"]),
        (lambda s: known_at(s, ["2000-02-01"], delay=-1), ValueError, ["delay", "-1"]),
        (lambda s: known_at(s, ["2000-02-01"], period="moon"), ValueError, ["series", "period", "moon"]),
        (lambda s: known_at(s, ["2000-02-01"], period="-1D"), ValueError, ["series", "period", "-1D"]),
        (lambda s: known_at(s[:1], ["2000-02-01"]), ValueError, ["series", "two time steps", "period"]),
    ],
)
def test_known_at_refuses_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call(monthly([1, 2, 3]))
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- windows of several sources


@pytest.fixture
def sources() -> dict[str, xr.Dataset]:
    """Daily stations, a grid with another number of nodes every six hours, a monthly ocean of one node."""
    station = make_series(120, 3).to_dataset().assign(elevation=("station", [1.0, 2, 3]), noon=("time", np.ones(120)))
    ocean = monthly([10, 20, 30, 40, 50, 60]).to_dataset()
    return {"station": station, "grid": make_series(480, 5, freq="6h").to_dataset(), "ocean": ocean}


ODD = pd.DatetimeIndex(["2000-01-01", "2000-01-01T00:00:01", "2001-01-01"])
INPUTS = {"station": ["elevation", "wind"], "grid": "wind", "ocean": "sea"}


def several(sources, targets="wind", history=None, horizon=2, **options) -> SourceWindows:
    history = history or {"station": 3, "grid": 4, "ocean": 2}
    inputs = {kind: INPUTS[kind] for kind in sources}
    return SourceWindows(sources, inputs, targets, history, horizon, **options)


def test_source_windows_see_what_was_known_and_predict_what_comes(sources):
    windows = several(sources)
    assert len(windows) == 118, "120 days, 2 to predict, and data of nothing before the first"
    number = list(windows.times[:, 0]).index(np.datetime64("2000-03-01"))
    assert windows.issued[number] == np.datetime64("2000-03-01")
    assert list(windows.times[number]) == list(pd.date_range("2000-03-01", periods=2).values)
    assert list(windows.seen["station"][number]) == list(pd.date_range("2000-02-27", periods=3).values)
    assert list(windows.seen["grid"][number]) == list(pd.date_range("2000-02-29", periods=4, freq="6h").values)
    assert list(windows.seen["ocean"][number]) == list(pd.date_range("2000-01-01", periods=2, freq="MS").values)
    batch = windows.batch([number])
    assert {kind: tuple(x.shape) for kind, x in batch.x.items()} == {
        "station": (1, 3, 3, 2),
        "grid": (1, 4, 5, 1),
        "ocean": (1, 2, 1, 1),
    }
    assert batch.y.shape == batch.y_mask.shape == (1, 2, 3, 1) and batch.y_mask.all()
    day = 60  # since 1 January of a leap year
    assert batch.x["station"][0, :, 1, 0].tolist() == [100 * (day + i) + 1 for i in (-3, -2, -1)]
    assert batch.x["grid"][0, :, 4, 0].tolist() == [100 * (4 * day + i) + 4 for i in (-4, -3, -2, -1)]
    assert batch.x["ocean"].flatten().tolist() == [10, 20]
    assert batch.y[0, :, 2, 0].tolist() == [100 * day + 2, 100 * (day + 1) + 2]


def test_context_comes_last_and_is_repeated(sources):
    windows = SourceWindows({"station": sources["station"]}, {"station": ["elevation", "noon", "wind"]}, "wind", 3, 2)
    assert windows.features == {"station": ["wind", "elevation", "noon"]} and windows.context == {"station": 2}
    x = windows.batch([50]).x["station"]
    assert x[0, :, :, 1].tolist() == [[1, 2, 3]] * 3 and (x[..., 2] == 1).all()
    assert several(sources).context == {"station": 1, "grid": 0, "ocean": 0}, "one node: its series is data"


def test_one_source_gives_the_windows_of_a_plain_dataset(sources):
    """With one source and no gap the same windows as WindowDataset, and some more at the edge, with masks."""
    plain = WindowDataset(sources["station"], "wind", "wind", 3, 2)
    windows = SourceWindows({"station": sources["station"]}, {"station": "wind"}, "wind", 3, 2)
    batch, expected = windows.batch(range(2, 118)), plain.batch(range(116))
    assert len(plain) == 116 and len(windows) == 118
    assert torch.equal(batch.x["station"], expected.x) and torch.equal(batch.y, expected.y)
    assert torch.equal(batch.y_mask, expected.y_mask)
    first = windows.batch([0])
    assert first.x_mask["station"][0, :, 0, 0].tolist() == [False, False, True]
    assert first.x["station"].isnan().sum() == 6


def future_changed(ds: xr.Dataset, period, delay, issued) -> xr.Dataset:
    """The same with other values and gaps wherever a step is not known yet; where it has no time, nothing changes."""
    late = ds.indexes["time"] + period + pd.Timedelta(days=delay) > issued
    new = np.where(np.arange(len(late)) % 7 == 0, np.nan, -999.0)
    late, new = (xr.DataArray(part, {"time": ds["time"]}, ["time"]) for part in (late, new))
    return ds.map(lambda series: xr.where(late, new, series) if "time" in series.dims else series)


@pytest.mark.parametrize("delay", [0, 3, 40])
def test_source_windows_never_look_ahead(sources, delay):
    """Change the future of every source, the target's included, and no window issued before sees it."""
    periods = {"station": pd.Timedelta("1D"), "grid": pd.Timedelta("6h"), "ocean": pd.DateOffset(months=1)}
    delays = {"grid": delay, "ocean": delay}
    windows = several(sources, delays=delays)
    for issued in (np.datetime64("2000-01-17"), np.datetime64("2000-03-01"), np.datetime64("2000-04-01")):
        changed = {kind: future_changed(ds, periods[kind], delays.get(kind, 0), issued) for kind, ds in sources.items()}
        again = several(changed, delays=delays)
        before = np.flatnonzero(windows.issued <= issued)
        x, y = windows.batch(before).x, again.batch(np.flatnonzero(again.issued <= issued)).x
        assert len(before) and len(before) == len(y["ocean"])
        for kind in sources:
            torch.testing.assert_close(x[kind], y[kind], rtol=0, atol=0, equal_nan=True)
        after = windows.batch(range(before[-1] + 1, before[-1] + 3)).x["station"]
        assert not torch.equal(after, again.batch(range(before[-1] + 1, before[-1] + 3)).x["station"])
    for kind, seen in windows.seen.items():
        known = (pd.DatetimeIndex(seen.ravel()) + periods[kind]).values.reshape(seen.shape)
        late = known + np.timedelta64(delays.get(kind, 0), "D") > windows.issued[:, None]
        assert not (late & ~np.isnat(seen)).any()


def test_an_estimate_sees_the_time_of_its_target(sources):
    windows = several(sources, horizon=1, estimate=True)
    assert len(windows) == 120
    number = 60
    assert windows.times[number] == [np.datetime64("2000-03-01")] and windows.issued[number] == np.datetime64(
        "2000-03-02"
    )
    assert windows.seen["station"][number][-1] == np.datetime64("2000-03-01")
    assert windows.seen["grid"][number][-1] == np.datetime64("2000-03-01T18")
    assert windows.seen["ocean"][number][-1] == np.datetime64("2000-02-01"), "March is not over"


def test_gaps_are_masked_and_no_window_is_lost_or_made_up(sources):
    """Missing values, missing steps and a source that has ended: NaN in x, False in both masks."""
    sources["station"]["wind"][10, 1] = np.nan
    sources["station"] = sources["station"].isel(time=[i for i in range(120) if i not in (20, 21)])
    sources["grid"] = sources["grid"].isel(time=slice(0, 200))  # ends on 19 February
    windows = several(sources)
    assert len(windows) == 117, "the one that predicts the two missing days is left out"
    days = ((windows.times[:, 0] - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")).astype(int)
    assert sorted(set(range(1, 119)) - set(days)) == [20]
    batch = windows.batch(range(len(windows)))
    at = {day: number for number, day in enumerate(days)}
    assert batch.y_mask[at[9], :, :, 0].tolist() == [[True] * 3, [True, False, True]] and batch.y[at[9], 1, 1, 0] == 0
    assert batch.x_mask["station"][at[12], :, :, 0].tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert batch.x_mask["station"][at[12], 1, 1].tolist() == [False, True], "the elevation is known all the same"
    assert batch.y_mask[at[19], :, 0, 0].tolist() == [True, False]
    assert batch.x_mask["station"][at[22], :, 0, 0].tolist() == [True, False, False]
    assert not batch.x_mask["station"][at[22], 1].any() and np.isnat(windows.seen["station"][at[22]]).sum() == 0
    assert batch.x_mask["grid"][at[50]].all() and not batch.x_mask["grid"][at[51], -2:].any()
    assert not batch.x_mask["grid"][at[100]].any()
    for kind, x in batch.x.items():
        assert torch.equal(x.isfinite(), batch.x_mask[kind])


def test_a_window_without_any_data_is_left_out(sources):
    """Of the first window nothing is known but the elevation, which is no data."""
    assert several(sources).issued[0] == np.datetime64("2000-01-02")
    early = sources["ocean"].assign_coords(time=sources["ocean"].indexes["time"] - pd.DateOffset(months=6))
    assert several(sources | {"ocean": early}).issued[0] == np.datetime64("2000-01-01")


def test_a_yearly_target_with_a_monthly_source():
    """Totals of October to December, from the months before: September is over on 1 October."""
    years = pd.date_range("2000-10-01", periods=6, freq="12MS")
    rain = xr.Dataset({"rain": (("time", "station"), np.arange(12.0).reshape(6, 2))}, {"time": years})
    ocean = monthly(np.arange(100.0)).to_dataset()
    both, inputs = {"station": rain, "ocean": ocean}, {"station": "rain", "ocean": "sea"}
    windows = SourceWindows(both, inputs, "rain", {"station": 1, "ocean": 3}, 1, periods={"station": "3MS"})
    assert len(windows) == 6
    batch = windows.batch(range(6))
    assert batch.x["ocean"][:, :, 0, 0].tolist() == [[6 + 12 * y, 7 + 12 * y, 8 + 12 * y] for y in range(6)]
    assert batch.x["station"][1:, 0, :, 0].tolist() == batch.y[:-1, 0, :, 0].tolist()
    late = SourceWindows(both, inputs, "rain", 1, 1, delays={"ocean": 10}).batch(range(6))
    assert late.x["ocean"].flatten().tolist() == [7 + 12 * y for y in range(6)]
    estimate = SourceWindows(both, inputs, "rain", 1, 1, periods={"station": "3MS"}, estimate=True)
    assert list(pd.DatetimeIndex(estimate.issued).month) == [1] * 6
    assert estimate.batch([0]).x["ocean"].item() == 11, "December"


def test_source_batches_hold_every_window_once_and_repeat_with_the_seed(sources):
    windows = several(sources)

    def order(generator):
        return [y for batch in windows.batches(16, generator) for y in batch.y[:, 0, 0, 0].tolist()]

    inorder = order(None)
    assert inorder == sorted(inorder) and len(inorder) == len(windows)
    mixed = order(torch.Generator().manual_seed(1))
    assert mixed != inorder and sorted(mixed) == inorder and mixed == order(torch.Generator().manual_seed(1))


def test_sources_move_and_are_cut_together(sources):
    x = next(several(sources).batches(7)).x
    moved = x.to("cpu")
    assert isinstance(moved, Sources) and list(moved) == ["station", "grid", "ocean"]
    part = x[1::3]
    assert isinstance(part, Sources) and {len(tensor) for tensor in part.values()} == {2}
    torch.testing.assert_close(part["grid"], x["grid"][1::3], equal_nan=True)
    assert x.to("meta")["grid"].is_meta


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda s: SourceWindows(s["station"], INPUTS, "wind", 3, 2), TypeError, ["sources", "dict", "Dataset"]),
        (lambda s: several({}), TypeError, ["sources", "dict"]),
        (
            lambda s: several(s | {"grid": s["grid"].isel(time=[0, 1, 2]).assign_coords(time=ODD)}),
            ValueError,
            ["sources['grid']", "regular", "1000000000 nanoseconds"],
        ),
    ],
)
def test_source_windows_refuse_what_does_not_fit(sources, call, error, parts):
    with pytest.raises(error) as raised:
        call(sources)
    assert all(part in str(raised.value) for part in parts), str(raised.value)
