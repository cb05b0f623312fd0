"""Köppen-Geiger classes against places everybody knows, against the rules written a second time as a chain of
questions, and at every border; few-label methods against brute force."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stgcn_lab import datasets, graphs, models
from stgcn_lab.classes import (
    draw_labels,
    elevation_graph,
    fill_by_place,
    fit_few_labels,
    koeppen_geiger,
    label_propagation,
    masked_cross_entropy,
    merge_rare,
    station_climatology,
)

# Rounded climatologies of the twentieth century: latitude, degC and mm of January to December.
PLACES = {
    ("Singapore", "Af"): (
        1.4,
        [26.5, 27.1, 27.5, 28.0, 28.3, 28.3, 27.9, 27.9, 27.6, 27.6, 27.0, 26.4],
        [242, 162, 185, 179, 172, 162, 159, 176, 170, 194, 256, 288],
    ),
    ("Miami", "Am"): (
        25.8,
        [20.1, 21.2, 22.6, 24.5, 26.8, 28.3, 28.9, 28.9, 28.3, 26.6, 24.0, 21.5],
        [41, 57, 76, 80, 136, 246, 165, 226, 250, 161, 83, 52],
    ),
    ("Darwin", "Aw"): (
        -12.4,
        [28.3, 28.2, 28.3, 28.3, 27.0, 25.2, 24.9, 25.8, 27.8, 29.1, 29.3, 28.9],
        [426, 361, 323, 99, 26, 2, 1, 5, 15, 70, 141, 248],
    ),
    ("Cairo", "BWh"): (
        30.1,
        [14.0, 15.1, 17.6, 21.5, 24.9, 27.4, 28.0, 27.9, 26.3, 23.5, 18.9, 15.2],
        [5, 4, 4, 1, 0, 0, 0, 0, 0, 1, 4, 6],
    ),
    ("Denver", "BSk"): (
        39.8,
        [-0.2, 0.4, 4.7, 8.8, 14.1, 19.8, 23.5, 22.4, 17.4, 10.6, 4.1, -0.6],
        [10, 9, 23, 43, 54, 50, 55, 43, 24, 26, 15, 9],
    ),
    ("Rome", "Csa"): (
        41.9,
        [7.5, 8.2, 10.2, 12.6, 17.2, 21.1, 24.1, 24.5, 20.8, 16.4, 11.4, 8.4],
        [70, 68, 57, 76, 48, 35, 17, 35, 76, 97, 118, 87],
    ),
    ("Cape Town", "Csb"): (
        -34.0,
        [20.9, 21.1, 19.8, 17.4, 14.7, 12.7, 12.0, 12.5, 13.9, 16.2, 18.2, 19.9],
        [15, 17, 20, 41, 69, 93, 82, 77, 40, 30, 14, 17],
    ),
    ("Hong Kong", "Cwa"): (
        22.3,
        [16.3, 16.8, 19.1, 22.6, 26.3, 27.9, 28.8, 28.6, 27.7, 25.5, 21.8, 17.9],
        [25, 54, 82, 175, 305, 456, 377, 432, 328, 101, 38, 27],
    ),
    ("Buenos Aires", "Cfa"): (
        -34.6,
        [25.0, 23.7, 21.6, 18.0, 14.6, 11.7, 11.0, 13.1, 14.9, 17.9, 20.7, 23.5],
        [139, 127, 140, 119, 91, 68, 69, 71, 76, 137, 117, 114],
    ),
    ("London", "Cfb"): (
        51.5,
        [5.2, 5.3, 7.6, 9.9, 13.3, 16.4, 18.7, 18.5, 15.7, 12.0, 8.0, 5.5],
        [55, 41, 42, 44, 49, 45, 45, 50, 49, 69, 59, 55],
    ),
    ("Reykjavik", "Cfc"): (
        64.1,
        [0.7, 0.5, 1.2, 3.7, 6.7, 9.8, 11.6, 11.0, 8.2, 4.9, 2.2, 0.8],
        [88, 92, 83, 56, 53, 44, 52, 66, 88, 73, 79, 97],
    ),
    ("Beijing", "Dwa"): (
        39.9,
        [-3.7, -0.7, 5.8, 14.2, 19.9, 24.4, 26.2, 24.9, 20.0, 13.1, 4.6, -1.5],
        [2.7, 4.9, 8.3, 21.2, 34.2, 78.1, 185.2, 159.7, 45.5, 21.8, 7.4, 2.8],
    ),
    ("Moscow", "Dfb"): (
        55.8,
        [-6.5, -6.7, -1.0, 6.7, 13.2, 17.0, 19.2, 17.0, 11.3, 5.6, -1.2, -5.2],
        [52, 41, 35, 37, 49, 80, 85, 82, 68, 71, 55, 52],
    ),
    ("Yakutsk", "Dfd"): (
        62.0,
        [-38.6, -33.8, -20.1, -4.8, 7.5, 16.4, 19.5, 15.2, 6.1, -7.8, -27.0, -37.6],
        [9, 8, 7, 8, 20, 35, 39, 37, 31, 18, 16, 10],
    ),
    ("Utqiagvik", "ET"): (
        71.3,
        [-25.2, -25.7, -24.9, -16.4, -6.1, 2.1, 4.9, 3.9, 0.1, -8.2, -16.6, -21.9],
        [3, 4, 2, 4, 5, 8, 25, 27, 18, 10, 5, 4],
    ),
    ("Vostok", "EF"): (
        -78.5,
        [-32.0, -44.3, -57.9, -64.7, -65.6, -65.2, -66.9, -67.6, -66.0, -57.1, -43.3, -32.1],
        [1, 1, 2, 2, 3, 3, 2, 2, 2, 2, 1, 1],
    ),
}
YEAR = np.cos(2 * np.pi * (np.arange(12) - 6) / 12)  # hottest in July
EVEN = np.full(12, 100.0)


def asked_one_by_one(t, p, summer):
    """The table of Peel et al. (2007) as a person would work through it."""
    winter = [m for m in range(12) if m not in summer]
    total, mean = sum(p), sum(t) / 12
    rain_s, rain_w = sum(p[m] for m in summer), sum(p[m] for m in winter)
    if rain_w >= 0.7 * total:
        limit = 2 * mean
    elif rain_s >= 0.7 * total:
        limit = 2 * mean + 28
    else:
        limit = 2 * mean + 14
    if total < 10 * limit:
        return "B" + ("W" if total < 5 * limit else "S") + ("h" if mean >= 18 else "k")
    if min(t) >= 18:
        if min(p) >= 60:
            return "Af"
        return "Am" if min(p) >= 100 - total / 25 else "Aw"
    if max(t) < 10:
        return "ET" if max(t) > 0 else "EF"
    s = min(p[m] for m in summer) < 40 and min(p[m] for m in summer) < max(p[m] for m in winter) / 3
    w = min(p[m] for m in winter) < max(p[m] for m in summer) / 10
    if s and w:
        s, w = rain_s <= rain_w, rain_s > rain_w
    code = ("C" if min(t) > 0 else "D") + ("s" if s else "w" if w else "f")
    if max(t) >= 22:
        return code + "a"
    if sum(value > 10 for value in t) >= 4:
        return code + "b"
    return code + ("d" if min(t) < -38 else "c")


APRIL_TO_SEPTEMBER = [3, 4, 5, 6, 7, 8]
OCTOBER_TO_MARCH = [9, 10, 11, 0, 1, 2]


@pytest.mark.parametrize(("place", "code"), PLACES, ids=[name for name, _ in PLACES])
def test_places_that_everybody_knows(place, code):
    lat, t, p = PLACES[place, code]
    assert str(koeppen_geiger(t, p, lat)) == code
    if code[0] != "A":  # near the equator the warmer half-year and the half-year of the calendar may differ
        assert str(koeppen_geiger(t, p)) == code


def test_many_stations_at_once():
    lat, t, p = (np.array([entry[i] for entry in PLACES.values()]) for i in range(3))
    expected = [code for _, code in PLACES]
    assert koeppen_geiger(t.T, p.T, lat).tolist() == expected
    # A DataArray may have its months on any axis; two more axes are kept.
    stations = [xr.DataArray(v, dims=("station", "month")) for v in (t, p)]
    assert koeppen_geiger(*stations, lat).tolist() == expected
    assert koeppen_geiger(t.T.reshape(12, 4, 4), p.T.reshape(12, 4, 4), lat.reshape(4, 4)).shape == (4, 4)


monthly = st.lists(st.integers(-450, 350), min_size=12, max_size=12)
rain = st.lists(st.integers(0, 3000), min_size=12, max_size=12)


@given(monthly, rain, st.integers(-30, 30), st.integers(0, 30))
@settings(max_examples=400, deadline=None)
def test_against_the_questions_asked_one_by_one(t, p, shift, scale):
    # Half the climates are built from a season, so that the rarer classes come up too.
    t = np.array(t) / 10 if scale % 2 else (shift + scale * YEAR + np.array(t) / 300).round(1)
    p = np.array(p) / (10 if scale % 3 else 100)
    assert str(koeppen_geiger(t, p, 45.0)) == asked_one_by_one(t.tolist(), p.tolist(), APRIL_TO_SEPTEMBER)
    assert str(koeppen_geiger(t, p, -45.0)) == asked_one_by_one(t.tolist(), p.tolist(), OCTOBER_TO_MARCH)


@given(monthly, rain)
@settings(max_examples=100, deadline=None)
def test_the_other_hemisphere_is_half_a_year_later(t, p):
    t, p = np.array(t) / 10, np.array(p) / 10
    assert koeppen_geiger(t, p, 40.0) == koeppen_geiger(np.roll(t, 6), np.roll(p, 6), -40.0)


def year(hottest, coldest):
    """A season with exactly this hottest and coldest month."""
    t = (hottest + coldest) / 2 + (hottest - coldest) / 2 * YEAR
    t[6], t[0] = hottest, coldest
    return t


def wet(**months):
    """100 mm each month, but for those named as m1 ... m12."""
    p = EVEN.copy()
    for name, value in months.items():
        p[int(name[1:]) - 1] = value
    return p


WARM_FOUR = np.array([-5, -5, 0, 5, 9, 10.1, 15, 15, 10.1, 5, 0, -5.0])
BORDERS = {
    "coldest 18 is tropical": (year(28, 18), EVEN, "Af"),
    "coldest below 18 is not": (year(28, 17.9), EVEN, "Cfa"),
    "driest 60 is rain forest": (year(28, 20), wet(m1=60), "Af"),
    "driest below 60, enough in the year": (year(28, 20), wet(m1=59.9), "Am"),
    # d = 100 - (1100 + d) / 25 at d = 53.85
    "monsoon just above the limit": (year(28, 20), wet(m1=53.9), "Am"),
    "just below it": (year(28, 20), wet(m1=53.8), "Aw"),
    "coldest above 0 is temperate": (year(21, 0.1), EVEN, "Cfb"),
    "coldest 0 is cold": (year(21, 0), EVEN, "Dfb"),
    "hottest 22 is hot summer": (year(22, 5), EVEN, "Cfa"),
    "hottest below 22 is warm summer": (year(21.9, 5), EVEN, "Cfb"),
    "four months above 10": (WARM_FOUR, EVEN, "Dfb"),
    "a month of exactly 10 does not count": (np.where(WARM_FOUR == 10.1, 10.0, WARM_FOUR), EVEN, "Dfc"),
    "coldest -38 is c": (np.where(WARM_FOUR < 10.2, -38.0, WARM_FOUR), EVEN, "Dfc"),
    "coldest below -38 is d": (np.where(WARM_FOUR < 10.2, -38.1, WARM_FOUR), EVEN, "Dfd"),
    "hottest 10 is not polar": (year(10, 2), EVEN, "Cfc"),
    "hottest below 10 is tundra": (year(9.9, 2), EVEN, "ET"),
    "hottest above 0 is tundra": (year(0.1, -20), EVEN, "ET"),
    "hottest 0 is ice": (year(0, -20), EVEN, "EF"),
    "dry summer": (year(21, 5), wet(m7=33.3), "Csb"),
    "a third of the wettest winter month is not dry": (year(21, 5), wet(m7=100 / 3), "Cfb"),
    "40 mm is not dry": (year(21, 5), wet(m7=40, m1=150), "Cfb"),
    "below 40 mm is": (year(21, 5), wet(m7=39.9, m1=150), "Csb"),
    "dry winter": (year(21, 5), wet(m1=9.9), "Cwb"),
    "a tenth of the wettest summer month is not dry": (year(21, 5), wet(m1=10), "Cfb"),
    "both dry, more rain in summer": (year(21, 5), wet(m1=9, m7=30, m8=130), "Cwb"),
    "both dry, more rain in winter": (year(21, 5), wet(m1=9, m7=30, m2=150), "Csb"),
    "both dry, as much rain": (year(21, 5), wet(m1=9, m7=9), "Csb"),
    # mean 10 degC, even rain: 10 P* = 340 mm, half of it 170 mm
    "year at the limit is not dry": (np.array([5, 15.0] * 6), np.full(12, 340 / 12 + 1e-9), "Cfb"),
    "year below the limit": (np.array([5, 15.0] * 6), np.full(12, 28.3), "BSk"),
    "half the limit is still steppe": (np.array([5, 15.0] * 6), np.full(12, 170 / 12 + 1e-9), "BSk"),
    "below half is desert": (np.array([5, 15.0] * 6), np.full(12, 14.1), "BWk"),
    "mean 18 is hot": (np.array([13, 23.0] * 6), np.full(12, 30.0), "BSh"),
    "mean below 18 is cold": (np.array([13, 22.9] * 6), np.full(12, 30.0), "BSk"),
    # 350 mm at a mean of 10 degC: steppe if it falls in summer (480 mm needed), not in winter (200 mm needed)
    "70 % in summer": (np.array([5, 15.0] * 6), np.where(np.isin(np.arange(12), APRIL_TO_SEPTEMBER), 42, 16.4), "BSk"),
    "70 % in winter": (np.array([5, 15.0] * 6), np.where(np.isin(np.arange(12), APRIL_TO_SEPTEMBER), 16.4, 42), "Cfb"),
    "tundra that is dry is B": (year(9, 0), np.full(12, 3.0), "BWk"),
    "no rain at all": (year(25, 10), np.zeros(12), "BWk"),
}


@pytest.mark.parametrize("border", BORDERS)
def test_each_border(border):
    t, p, code = BORDERS[border]
    assert str(koeppen_geiger(t, p, 45.0)) == code
    assert str(koeppen_geiger(np.roll(t, 6), np.roll(p, 6), -45.0)) == code


def test_a_missing_month_gives_no_class():
    t, p = np.stack([year(21, 5)] * 3, axis=1), np.stack([EVEN] * 3, axis=1)
    t[3, 0], p[11, 2] = np.nan, np.nan
    assert koeppen_geiger(t, p, [45.0, 45.0, 45.0]).tolist() == ["", "Cfb", ""]
    assert koeppen_geiger(np.full((12, 2), np.nan), np.full((12, 2), np.nan)).tolist() == ["", ""]


@pytest.mark.parametrize(
    ("t", "p", "lat", "message"),
    [
        (np.zeros(11), np.zeros(11), None, "temperature: expected 12 months"),
        (np.zeros(12), np.zeros((12, 2)), None, "precipitation: expected the shape"),
        (np.zeros(12), np.full(12, -1.0), None, "precipitation: expected mm"),
        (np.full(12, 290.0), np.zeros(12), None, "degC"),
        (np.zeros(12), np.full(12, np.inf), None, "precipitation: expected finite"),
        (np.zeros(12), np.zeros(12), 91.0, "lat: expected degrees"),
        (np.zeros(12), np.zeros(12), np.nan, "lat: expected degrees"),
        (np.zeros((12, 3)), np.zeros((12, 3)), np.zeros(2), "lat: expected one latitude"),
        (["a"] * 12, np.zeros(12), None, "temperature: expected numbers"),
    ],
)
def test_koeppen_geiger_says_what_is_wrong(t, p, lat, message):
    with pytest.raises(ValueError, match=message):
        koeppen_geiger(t, p, lat)


# ---------------------------------------------------------------------------- climatology


@pytest.fixture(scope="module")
def colorado():
    return datasets.load_colorado()


def test_station_climatology_is_the_mean_of_enough_years(colorado):
    mean = station_climatology(colorado, min_years=10)
    assert mean.tmin.dims == ("month", "station") and mean.tmin.attrs["units"] == "degC"
    rng = np.random.default_rng(0)
    for month, station in zip(rng.integers(1, 13, 60), rng.integers(0, 376, 60), strict=True):
        column = colorado.precip.values[month - 1 :: 12, station]  # the record begins in January
        column = column[np.isfinite(column)]
        found = mean.precip.sel(month=month).values[station]
        assert np.isnan(found) if column.size < 10 else np.isclose(found, column.mean())
    one = station_climatology(colorado.tmax, min_years=10)
    assert one.identical(mean.tmax.rename(one.name)) or np.array_equal(one, mean.tmax, equal_nan=True)


def test_station_climatology_asks_for_the_number_of_years():
    time = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
    values = np.arange(36.0)[:, None]
    values[0] = np.nan  # January 2000
    series = xr.DataArray(
        values,
        dims=("time", "station"),
        coords={"time": time, "lat": ("station", [1.0]), "lon": ("station", [2.0])},
        attrs={"units": "mm"},
    )
    three, two = station_climatology(series, 3), station_climatology(series, 2)
    assert np.isnan(three[0, 0]) and np.isfinite(three[1:]).all()
    assert two[0, 0] == (12 + 24) / 2
    with pytest.raises(ValueError, match="calendar months"):
        station_climatology(series[:7])
    with pytest.raises(ValueError, match="min_years"):
        station_climatology(series, 0)
    daily = series.assign_coords(time=np.arange("2000-01-01", "2000-02-06", dtype="datetime64[D]").astype("M8[ns]"))
    with pytest.raises(ValueError, match="two times in one month"):
        station_climatology(daily)
    with pytest.raises(TypeError, match="time"):
        station_climatology(series.assign_coords(time=np.arange(36)))


def test_colorado_has_the_climates_it_is_known_for(colorado):
    mean = station_climatology(colorado, 10)
    codes = koeppen_geiger((mean.tmin + mean.tmax) / 2, mean.precip, colorado.lat)
    of = dict(zip(colorado.name.values.tolist(), codes.tolist(), strict=True))
    height = colorado.elevation.values
    assert of["AKRON 4 E"] == "BSk"
    assert np.median(height[codes == "BSk"]) < np.median(height[codes == "Dfb"]) < np.median(height[codes == "Dfc"])
    assert height[codes == "ET"].min() > 3000


# ---------------------------------------------------------------------------- few labels


def test_merge_rare_joins_what_is_spelled_alike():
    codes = ["BSk"] * 12 + ["Dfb"] * 11 + ["Dfc"] * 10 + ["Dfa"] * 10 + ["Dsb", "Cfb", "BWk", "Cfa", "ET", "", "Dwc"]
    merged = merge_rare(codes, 10)
    assert merged[:43].tolist() == codes[:43]
    assert merged[43:].tolist() == ["Dfb", "Dfb", "BSk", "Dfa", "", "", "Dfc"]
    assert merge_rare(codes, 1).tolist() == codes
    assert set(merge_rare(["Af", "BSk"], 5)) == {""}
    assert merge_rare(["Dwa", "Dfb", "ET"], common=["BSk", "Dfa"]).tolist() == ["Dfa", "Dfa", ""]


def test_draw_labels_takes_the_share_of_each_class():
    codes = np.array(["a"] * 100 + ["b"] * 30 + ["c"] * 3 + [""] * 7)
    told = draw_labels(codes, 0.1, seed=3)
    assert [told[codes == c].sum() for c in ("a", "b", "c", "")] == [10, 3, 1, 0]
    assert np.array_equal(told, draw_labels(codes, 0.1, seed=3))
    assert not np.array_equal(told, draw_labels(codes, 0.1, seed=4))
    for share in (0, 1, np.nan):
        with pytest.raises(ValueError, match="share"):
            draw_labels(codes, share)
    with pytest.raises(ValueError, match="codes"):
        draw_labels(["", ""])


def test_elevation_graph_against_brute_force(colorado):
    place = colorado.isel(station=slice(0, 60))
    lat, lon, z = place.lat.values, place.lon.values, place.elevation.values
    graph = elevation_graph(lat, lon, z, k=5, km_per_metre=0.2)
    chosen = set()
    reach = np.zeros((60, 60))
    for i in range(60):
        d = graphs.great_circle_distance(lat[i], lon[i], lat, lon)
        reach[i] = np.sqrt(d**2 + (0.2 * (z - z[i])) ** 2)
        nearest = [j for j in np.argsort(reach[i]) if j != i][:5]
        chosen |= {(i, j) for j in nearest} | {(j, i) for j in nearest}
    source, target = graph.edge_index.numpy()
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == chosen
    scale = reach[source, target].mean()
    assert np.allclose(graph.edge_weight, np.exp(-0.5 * (reach[source, target] / scale) ** 2), rtol=1e-4)
    assert graphs.gcn_operator(graph).shape == (60, 60)


def test_without_height_the_elevation_graph_is_the_nearest_neighbours(colorado):
    place = colorado.isel(station=slice(0, 60))
    flat = elevation_graph(place.lat, place.lon, place.elevation, k=5, km_per_metre=0)
    plain = graphs.knn_graph(place.lat, place.lon, k=5)
    assert torch.equal(flat.edge_index, plain.edge_index)
    assert torch.allclose(flat.edge_weight, plain.edge_weight, atol=1e-5)
    alone = elevation_graph([40.0], [-105.0], [1600.0])
    assert alone.num_nodes == 1 and alone.edge_index.shape == (2, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elevation": [1.0]}, "elevation"),
        ({"elevation": [1.0, np.nan]}, "elevation"),
        ({"k": 0}, "k: expected"),
        ({"km_per_metre": -1}, "km_per_metre"),
        ({"length_scale": 0}, "length_scale"),
        ({"lat": [1.0, 95.0]}, "lat"),
    ],
)
def test_elevation_graph_says_what_is_wrong(change, message):
    good = {"lat": [40.0, 41.0], "lon": [-105.0, -106.0], "elevation": [1000.0, 2000.0]}
    with pytest.raises(ValueError, match=message):
        elevation_graph(**good | change)


def test_fill_by_place_finds_a_plane_and_touches_nothing_else(colorado):
    place = colorado.isel(station=slice(0, 50))
    values = 30 - 0.0065 * place.elevation + 0.5 * place.lat - 0.1 * place.lon
    series = xr.concat([values, 2 * values], "month").transpose("month", "station")
    holes = np.random.default_rng(1).random(series.shape) < 0.6
    filled = fill_by_place(series.where(~holes))
    assert np.allclose(filled, series)
    weather = colorado.tmax.isel(time=slice(1200, 1212))
    whole = fill_by_place(weather)
    assert np.isfinite(whole).all() and whole.attrs == weather.attrs
    there = np.isfinite(weather.values)
    assert np.array_equal(whole.values[there], weather.values[there])
    with pytest.raises(ValueError, match="at least 5 values"):
        fill_by_place(series.where(np.arange(50) < 4))
    with pytest.raises(ValueError, match="elevation"):
        fill_by_place(series.drop_vars("elevation"))
    with pytest.raises(TypeError, match="DataArray"):
        fill_by_place(series.values)


def small_graph():
    rng = np.random.default_rng(0)
    return graphs.knn_graph(rng.uniform(40, 42, 30), rng.uniform(-106, -103, 30), k=4)


def test_label_propagation_is_where_the_iteration_ends():
    graph, labels = small_graph(), np.full(30, -1)
    labels[[0, 7, 20]] = [0, 1, 2]
    scores = label_propagation(graph, labels, 3, alpha=0.8)
    a = graphs.adjacency(graph).toarray()
    s = a / np.sqrt(np.outer(a.sum(0), a.sum(1)))
    start = np.zeros((30, 3))
    start[[0, 7, 20], [0, 1, 2]] = 1
    f = start
    for _ in range(300):
        f = 0.8 * s @ f + 0.2 * start
    assert np.allclose(scores, f, atol=1e-10)
    assert np.allclose(label_propagation(graph, labels, 3, alpha=0), start)


def test_label_propagation_does_not_cross_a_gap():
    islands = graphs.radius_graph([0, 0, 10, 10], [0, 0.1, 0, 0.1], 100)
    scores = label_propagation(islands, [0, -1, -1, -1], 2)
    assert scores[1, 0] > 0 and (scores[2:] == 0).all() and (scores[:, 1] == 0).all()
    with pytest.raises(ValueError, match="alpha"):
        label_propagation(islands, [0, -1, -1, -1], 2, alpha=1.0)
    with pytest.raises(ValueError, match="labels: expected class numbers"):
        label_propagation(islands, [2, -1, -1, -1], 2)
    with pytest.raises(ValueError, match="at least one class"):
        label_propagation(islands, [-1] * 4, 2)
    with pytest.raises(ValueError, match="4 whole numbers"):
        label_propagation(islands, [0.0, 1.0, 0.0, 1.0], 2)
    with pytest.raises(ValueError, match="undirected"):
        label_propagation(graphs.knn_graph([0, 0, 1], [0, 1, 3], 1, symmetric=False), [0, -1, -1], 2)


def test_masked_cross_entropy_counts_the_labelled_alone():
    torch.manual_seed(0)
    scores = torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1, -1, 1])
    loss = masked_cross_entropy(scores, labels)
    by_hand = -sum(F.log_softmax(scores, -1)[i, labels[i]] for i in (0, 2, 5)) / 3
    assert torch.allclose(loss, by_hand)
    loss.backward()
    assert (scores.grad[[1, 3, 4]] == 0).all() and (scores.grad[[0, 2, 5]] != 0).all()
    with pytest.raises(ValueError, match="at least one class"):
        masked_cross_entropy(scores, torch.full((6,), -1))
    with pytest.raises(ValueError, match="expected \\(N, C\\)"):
        masked_cross_entropy(scores, labels[:5])


def test_fit_few_labels_learns_repeats_and_never_sees_other_labels():
    graph = small_graph()
    truth = (graph.pos[:, 0] > graph.pos[:, 0].median()).long().numpy()
    x = torch.from_numpy(truth.astype(np.float32))[:, None, None].repeat(1, 4, 1)
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    labels = np.where(np.arange(30) < 8, truth, -1)

    def run(seed=0):
        torch.manual_seed(5)
        model = models.ArticleSTGCN(30, 1, 4, 2)
        score = lambda: model(x, graph.edge_index, graph.edge_weight)  # noqa: E731
        return fit_few_labels(model, score, labels, epochs=25, seed=seed)

    scores = run()
    assert not scores.requires_grad
    assert (scores.argmax(1).numpy() == truth)[8:].mean() > 0.8
    assert torch.equal(scores, run())


def test_fit_few_labels_leaves_the_state_of_chance_alone_and_says_what_is_wrong():
    layer = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    x = torch.ones(3, 2)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    fit_few_labels(layer, lambda: layer(x), [0, 1, -1], epochs=2)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(FloatingPointError, match="loss"):
        fit_few_labels(layer, lambda: layer(x * torch.nan), [0, 1, -1], epochs=2)
    with pytest.raises(ValueError, match="labels"):
        fit_few_labels(layer, lambda: layer(x), [0, 5, -1], epochs=2)
    with pytest.raises(TypeError, match="model"):
        fit_few_labels(nn.ReLU(), lambda: x, [0, 1, -1])
    with pytest.raises(ValueError, match="epochs"):
        fit_few_labels(layer, lambda: layer(x), [0, 1, -1], epochs=0)
    with pytest.raises(ValueError, match="learning_rate"):
        fit_few_labels(layer, lambda: layer(x), [0, 1, -1], learning_rate=0.0)
