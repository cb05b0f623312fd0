"""From a series to a result: what the jobs do to a series, that they choose and score honestly, and the report."""

import html.parser
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stgcn_lab import datasets, report, workflows
from stgcn_lab.workflows import SeriesError


def weather(stations=12, steps=500, seed=0, missing=0.0, start="2016-03-01", freq="D", wind=False) -> xr.DataArray:
    """Unseen stations: a season, weather that a west wind carries along, noise of each station, gaps."""
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(47, 54, stations), rng.uniform(6, 18, stations)
    place = np.stack([(lon - 12) * 71, (lat - 50) * 111])  # km
    waves = rng.normal(0, 1 / 500, (40, 2))
    turn = np.exp(-1j * (waves @ [350.0, 40.0]))  # km a step
    a, z = rng.normal(size=40) + 1j * rng.normal(size=40), np.empty((steps, stations))
    for t in range(steps):
        a = 0.85 * a * turn + np.sqrt(1 - 0.85**2) * (rng.normal(size=40) + 1j * rng.normal(size=40))
        z[t] = (a @ np.exp(1j * waves @ place)).real / np.sqrt(40)
    z += 0.3 * rng.normal(size=z.shape)
    time = pd.date_range(start, periods=steps, freq=freq)
    season = np.cos(2 * np.pi * (time.day_of_year.to_numpy() - 20) / 365.25)[:, None]
    values = (2 + 0.2 * season + 0.5 * z).clip(0) ** 2 if wind else 9 - 8 * season + 3.5 * z
    values = np.where(rng.random(z.shape) < missing, np.nan, np.round(values, 2))
    attrs = {"units": "m s-1", "standard_name": "wind_speed"} if wind else {"units": "degC", "long_name": "temperature"}
    coords = {
        "time": time,
        "station": [f"S{i}" if i else "S$_{0$" for i in range(stations)],  # which is no formula
        "lat": ("station", lat),
        "lon": ("station", lon),
        "name": ("station", [f"Town & <b>{i}</b>" for i in range(stations)]),
    }
    return xr.DataArray(values, coords, ("time", "station"), "t", attrs)


@pytest.fixture(scope="module")
def daily() -> xr.DataArray:
    return weather(missing=0.05)


@pytest.fixture(scope="module")
def forecast(daily) -> workflows.Result:
    return workflows.forecast(daily, 2, network=False)


@pytest.fixture(scope="module")
def imputed(daily) -> workflows.Result:
    return workflows.impute(daily)


@pytest.fixture(scope="module")
def regimes() -> workflows.Result:
    return workflows.regimes(weather(8, 420, missing=0.03), k=2)


# ---------------------------------------------------------------------------- preparation


def test_a_clean_series_is_left_alone(daily):
    x, notes = workflows.prepare(daily)
    assert notes == ()
    xr.testing.assert_equal(x, daily)


def test_a_grid_becomes_stations():
    grid = datasets.load_reanalysis("europe").isel(time=slice(0, 60))
    x, notes = workflows.prepare(grid)
    assert x.dims == ("time", "station") and x.sizes["station"] == 19 * 31 and "19 x 31" in notes[0]


def test_hours_are_averaged_to_days_and_rain_is_summed():
    hourly = weather(3, 24 * 5, freq="h")
    hourly[24:40, 0] = np.nan  # most of the second day
    x, notes = workflows.prepare(hourly)
    assert x.sizes["time"] == 5 and "24 values a day" in notes[0] and "averaged" in notes[0]
    np.testing.assert_allclose(x[0], hourly[:24].mean("time"))
    assert np.isnan(x[1, 0]) and np.isfinite(x[1, 1])
    kept, notes = workflows.prepare(hourly, steps="keep")
    assert kept.sizes["time"] == 120 and notes == ()
    rain = hourly.clip(0).assign_attrs(units="mm", standard_name="lwe_thickness_of_precipitation_amount")
    x, notes = workflows.prepare(rain)
    np.testing.assert_allclose(x[0], rain[:24].sum("time"))
    assert "summed" in notes[0]


def test_missing_steps_silent_stations_and_empty_ends(daily):
    holes = daily.isel(time=[*range(3, 50), *range(60, 300)]).copy()
    holes[:, 2] = np.nan
    holes[:4] = np.nan
    x, notes = workflows.prepare(holes)
    assert x.sizes == {"time": 293, "station": 11}
    said = " ".join(notes)
    assert "10 steps" in said and "never report" in said and "S2" in said and "at the ends" in said
    assert x.indexes["time"].freq is None or (np.diff(x.time.values) == np.timedelta64(1, "D")).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.values, "xarray"),
        (lambda x: x.to_dataset(name="a").assign(b=x), "--variable a"),
        (lambda x: x.drop_vars("lat"), "lat"),
        (lambda x: x.assign_attrs(units=""), "units"),
        (lambda x: x.rename("wind_direction"), "the mean of 350 and 10 degrees is not 180"),
        (lambda x: x.where(False), "every value is missing"),
        (lambda x: x[:2], "3 steps"),
        (lambda x: x.where(x > 100, np.inf), "infinite"),
        (lambda x: x.assign_coords(lat=x.lat + 80), "lat"),
        (lambda x: x[::-1], "ascending"),
        (lambda x: x.assign_coords(time=np.arange(x.sizes["time"])), "dates"),
        (lambda x: x[:4].assign_coords(time=np.array(["2000-01-01T00:00", "2000-01-01T00:01", "2001-01-01T00:00",
                                                      "2002-01-01T00:00"], "datetime64[ns]")), "regular"),
        (lambda x: xr.concat([x] * 200, "station").assign_coords(station=np.arange(2400)), "at most 2000"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(daily, spoil, message):
    with pytest.raises(SeriesError, match=re.escape(message)):
        workflows.prepare(spoil(daily))


def test_steps_are_day_or_keep(daily):
    with pytest.raises(ValueError, match="steps: expected 'day' or 'keep'"):
        workflows.prepare(daily, steps="month")


@pytest.mark.parametrize(
    ("job", "spoil", "message"),
    [
        ("forecast", lambda x: x[:40], "at least 60 steps"),
        ("impute", lambda x: x[:15], "at least 20 steps"),
        ("impute", lambda x: x.where(np.arange(500)[:, None] % 100 == 0)[:200], "at least 100 values"),
        ("regimes", lambda x: x[:30], "at least 40 steps"),
        ("forecast", lambda x: x.where((x.time < x.time[200]) | (x.time > x.time[497])), "too many gaps"),
        ("forecast", lambda x: x * 0 + 3, "constant"),
        ("regimes", lambda x: x * 0 + 3, "constant"),
        ("impute", lambda x: x * 1e30, "code for a missing value"),
    ],
)
def test_jobs_refuse_what_they_cannot_do(daily, job, spoil, message):
    x = spoil(daily).assign_attrs(daily.attrs)
    with pytest.raises(SeriesError, match=message):
        getattr(workflows, job)(x)


@pytest.mark.parametrize(
    ("job", "setting"), [("forecast", {"lead": 0}), ("forecast", {"lead": 1.5}), ("regimes", {"k": 0}),
                         ("impute", {"seed": -1})],
)  # fmt: skip
def test_settings_are_checked(daily, job, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        getattr(workflows, job)(daily, **setting)


# ---------------------------------------------------------------------------- forecast


def test_the_forecast_of_unseen_stations_beats_persistence_and_climatology():
    result = workflows.forecast(weather(30, 600, seed=3, missing=0.05))
    scores = result.scores.set_index("method")
    assert "graph network" in scores.index
    assert (scores.loc[["persistence", "climatology"], "difference high"] < 0).all()
    assert scores.loc[result.chosen, "rmse"] < 0.9 * scores.loc["persistence", "rmse"]
    assert result.chosen in ("vector autoregression", "network autoregression", "graph network")
    assert 0.8 < result.facts["held"][1] < 0.97


def test_a_forecast_speaks_of_the_steps_after_the_record(daily, forecast):
    data = forecast.data
    assert data.sizes == {"time": 2, "station": 12, "lead_step": 2, "past_time": 100}
    assert data["time"].values[0] == daily.time.values[-1] + np.timedelta64(1, "D")
    assert np.isfinite(data["forecast"]).all() and (data["lower"] < data["forecast"]).all()
    assert ((data["upper"] - data["lower"])[1] >= 0.99 * (data["upper"] - data["lower"])[0]).all()
    assert set(forecast.scores["lead"]) == {1, 2} and forecast.chosen in set(forecast.scores["method"])
    assert forecast.facts["choosing"][forecast.chosen] == min(forecast.facts["choosing"].values())


def test_no_forecast_of_the_past_has_seen_what_it_speaks_of(daily, forecast):
    other = daily.copy()
    other[-20:] += 10
    again = workflows.forecast(other, 2, network=False)
    assert again.chosen == forecast.chosen
    old, new = forecast.data["past_forecast"].values, again.data["past_forecast"].values
    for h in (1, 2):
        same = 80 + h  # values from row 480 on are known from row 481 on, one step ahead
        np.testing.assert_allclose(new[h - 1, :same], old[h - 1, :same])
        assert not np.allclose(new[h - 1, same:], old[h - 1, same:])


def test_the_scored_part_has_no_say_in_the_choice():
    """Neither its values nor its gaps: not even in whether the root of skewed values is tried."""
    x = weather(3, 120, wind=True)
    x = x.copy(data=x**2)  # more skewed than wind
    first = workflows.forecast(x, network=False)
    for later in (-x[96:], 10 * x[96:].where(x[96:] > 2)):
        other = x.copy(data=np.concatenate([x[:96], later]))
        again = workflows.forecast(other, network=False)
        assert first.chosen == again.chosen
        assert all(first.facts[fact] == again.facts[fact] for fact in ("choosing", "settings", "parts"))


def test_the_scores_are_those_of_the_stored_forecast(daily, forecast):
    truth = forecast.data["past_observed"].where(daily.shift(time=1)[-100:].notnull().values)
    error = forecast.data["past_forecast"][0] - truth
    scores = forecast.scores.query("lead == 1").set_index("method")["rmse"]
    assert scores[forecast.chosen] == pytest.approx(float(np.sqrt((error**2).mean("past_time")).mean()))
    last = daily.shift(time=1)[-100:].values - truth.values
    assert scores["persistence"] == pytest.approx(float(np.sqrt(np.nanmean(last**2, axis=0)).mean()))


def test_skewed_values_are_forecast_by_their_root_where_that_is_better():
    wind = datasets.load_irish_wind()["wind_speed"][:900]
    assert workflows._tries_root(wind)
    result = workflows.forecast(wind, network=False)
    assert any("square root" in note for note in result.notes)
    assert (result.data["lower"] >= 0).all()
    view = workflows._View(wind, np.full((1, 1), 2.0), np.ones(1), True)
    assert view.back(np.zeros((1, 1)), 0.5) == pytest.approx(4.25)  # the variance is given back


def test_monthly_and_hourly_series():
    month = weather(6, 180, seed=2, freq="MS", start="1990-01-01")
    result = workflows.forecast(month, 3, network=False)
    assert list(result.data["time"].dt.month.values) == [1, 2, 3] and result.facts["step"] == "month"
    hourly = weather(4, 24 * 30, seed=2, freq="h")
    hourly = hourly + 5 * np.sin(2 * np.pi * hourly.time.dt.hour / 24)
    result = workflows.forecast(hourly.assign_attrs(month.attrs).rename("t"), 1, steps="keep", network=False)
    assert result.facts["step"] == "hour"
    assert result.data["time"].values[0] == hourly.time.values[-1] + np.timedelta64(1, "h")
    assert any("cannot tell a season" in note for note in result.notes)


@pytest.mark.parametrize(("steps", "harmonics"), [(250, 0), (500, 1), (800, 2)])
def test_a_record_of_a_year_tells_one_wave(steps, harmonics):
    x = weather(5, steps, missing=0.1)
    assert workflows._harmonics(x) == harmonics
    view = workflows._view(x, steps, harmonics)
    spread = float(x.std("time").mean())
    assert np.isfinite(view.z).all() and view.back(view.z.values)[x.notnull().values] == pytest.approx(
        x.values[x.notnull().values]
    )
    assert np.mean(view.scale) < (1.01 if harmonics == 0 else 0.7) * spread


def test_one_station_alone_has_a_forecast_too():
    result = workflows.forecast(weather(1, 300), network=False)
    assert result.data["forecast"].shape == (1, 1) and np.isfinite(result.data["forecast"]).all()


def test_the_same_seed_gives_the_same_forecast(daily, forecast):
    again = workflows.forecast(daily, 2, network=False)
    xr.testing.assert_identical(again.data, forecast.data)
    pd.testing.assert_frame_equal(again.scores, forecast.scores)


# ---------------------------------------------------------------------------- regimes and gaps


def test_regimes_label_every_step(regimes):
    data = regimes.data
    assert data["regime"].sizes == {"time": 420} and set(np.unique(data["regime"])) <= {0, 1}
    np.testing.assert_allclose(data["probability"].sum("regime_number"), 1, rtol=1e-6)
    assert sum(regimes.facts["shares"]) == pytest.approx(1)
    labels = data["regime"].values
    values, there = regimes.series.values, data["composite"].values
    difference = np.nanmean(values[labels == 1], axis=0) - np.nanmean(values[labels == 0], axis=0)
    assert there.shape == (2, 8) and np.isfinite(there).all() and np.isfinite(difference).all()
    assert any("filled by kriging" in note for note in regimes.notes)


def test_copies_of_one_station_have_no_regimes():
    x = weather(4, 200)
    rain = x.copy(data=np.tile((np.arange(200) % 7 == 0).astype(float)[:, None], 4)).assign_attrs(units="mm")
    with pytest.raises(SeriesError, match="copies of one another"):
        workflows.regimes(rain, 2)


def test_times_without_any_report_get_no_regime():
    x = weather(6, 200, seed=4)
    x[50:60] = np.nan
    result = workflows.regimes(x, k=1)
    assert result.data.sizes["time"] == 190 and any("10 steps at which no station" in note for note in result.notes)


def test_the_number_of_regimes_can_be_chosen():
    result = workflows.regimes(weather(5, 130, seed=5))
    assert 1 <= result.facts["k"] <= 3 and any("held-out halves" in note for note in result.notes)


def test_gaps_are_filled_and_what_was_observed_stays(daily, imputed):
    filled = imputed.data["t"].values
    known = daily.notnull().values
    np.testing.assert_array_equal(filled[known], daily.values[known])
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(imputed.data["observed"].values, known)
    scores = imputed.scores.set_index("method")["rmse"]
    assert scores[imputed.chosen] < 0.8 * scores["straight line in time"]
    assert imputed.facts["missing"] == (~known).sum() and 0.75 < imputed.facts["held"] <= 1


def test_filled_wind_is_never_negative():
    result = workflows.impute(weather(5, 150, seed=6, wind=True, missing=0.2))
    assert (result.data["t"] >= 0).all() and np.isfinite(result.data["t"]).all()


def test_a_series_without_gaps_is_given_back():
    x = weather(4, 120)
    result = workflows.impute(x)
    xr.testing.assert_allclose(result.data["t"], x)
    assert any("no gaps" in note for note in result.notes)


# ---------------------------------------------------------------------------- the report


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.images, self.addresses, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attrs)
        self.addresses += [value for key, value in attrs.items() if key in ("src", "href") and tag != "a"]

    def handle_data(self, data):
        self.words.append(data)


class Found:
    level, what, advice = "warning", "3 values <below> zero", "they were left out"


@pytest.mark.parametrize("job", ["forecast", "imputed", "regimes"])
def test_the_report_holds_all_that_it_shows(job, request, tmp_path):
    result = request.getfixturevalue(job)
    path = report.write(result, tmp_path / "out", source="<my> file.csv", findings=[Found()])
    assert {p.name for p in path.parent.iterdir()} <= set(report.FILES)
    text = path.read_text()
    page = Page(text)
    assert page.addresses and all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert all(len(image["alt"]) > 20 for image in page.images) and len(page.images) >= 4
    assert not {"script", "link", "iframe", "b"} & set(page.tags)  # the stations' names hold a tag
    words = " ".join(page.words)
    assert "<my> file.csv" in words and "3 values <below> zero" in words and "temperature" in words
    assert all(note in words for note in result.notes)
    assert re.search(r'<meta name="viewport"', text) and "prefers-color-scheme: dark" in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().split()
    stored = next(path.parent.glob("*.nc"))
    with xr.open_dataset(stored, engine="netcdf4") as data:
        assert data.attrs["Conventions"].startswith("CF")
        assert set(result.data.data_vars) <= set(data.variables)
    assert set(pd.read_csv(path.parent / "scores.csv").columns) == set(result.scores.columns)


def test_the_report_says_where_the_choice_was_wrong(forecast):
    row = pd.Series({"method": "persistence", "rmse": 2.0, "chosen minus it": 0.3, "difference low": 0.1,
                     "difference high": 0.5})  # fmt: skip
    assert "persistence was better" in report._against(row, "climatology", forecast.series)
    row["difference low"] = -0.1
    assert "cannot be told" in report._against(row, "climatology", forecast.series)


def test_a_figure_of_the_reader_survives(forecast):
    mine = plt.figure()
    before = plt.get_fignums()  # tests that ran earlier may have left figures open
    report._drawn("skill.png", lambda: report._bars(forecast.scores.query("lead == 1"), "climatology", "K"), "", "")
    assert mine.number in before and plt.get_fignums() == before
    plt.close(mine)


def test_only_results_can_be_written(tmp_path):
    with pytest.raises(TypeError, match="result: expected a Result"):
        report.write({"forecast": 1}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_regimes_that_are_only_early_and_late_years_are_called_so():
    wind = datasets.load_irish_wind()["wind_speed"][:900]
    jump = wind.copy(data=wind.values + 5.0 * (np.arange(900) >= 450)[:, None])  # as after a change of instruments
    for series, split in ((wind, False), (jump, True)):
        result = workflows.regimes(series, k=2)
        assert (result.facts["apart"] > 0.5) == split
        assert ("Beware: the first and the second half" in " ".join(report._regime_words(result))) == split
