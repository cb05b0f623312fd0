"""Every drawing works offline, without a warning, and shows what it was given."""

import socket
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from cartopy import crs as ccrs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Circle, FancyArrowPatch
from torch_geometric.data import Data

from stgcn_lab.datasets import grid_to_nodes, load_colorado
from stgcn_lab.graphs import delaunay_graph, knn_graph, radius_graph
from stgcn_lab.plots import (
    MISSING,
    OBSERVED,
    OKABE_ITO,
    gap_calendar,
    graph_map,
    map_axes,
    regime_maps,
    regime_timeline,
    reliability_diagram,
    roc_curve,
    skill_curve,
    station_map,
    training_curve,
    transition_diagram,
    value_curve,
)
from stgcn_lab.training import History
from stgcn_lab.verification import Interval, economic_value, reliability, roc


@pytest.fixture(autouse=True)
def _offline_and_without_warnings(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a drawing asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # what another test left, collected here
        yield
    plt.close("all")


def draw(ax):
    """Cartopy reads coastlines when the figure is drawn, so nothing is proved before that."""
    ax.figure.canvas.draw()
    return ax


def stations(count=5, values=None) -> xr.DataArray:
    rng = np.random.default_rng(0)
    return xr.DataArray(
        rng.uniform(3, 9, count) if values is None else np.asarray(values, float),
        dims="station",
        coords={
            "station": [f"S{i}" for i in range(count)],
            "lat": ("station", rng.uniform(51.5, 55.5, count)),
            "lon": ("station", rng.uniform(-10.5, -5.5, count)),
        },
        attrs={"units": "m s-1", "long_name": "mean wind speed"},
        name="wind",
    )


def dots(ax) -> list:
    return [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]


def colour_bars(ax) -> list[str]:
    return [other.get_ylabel() for other in ax.figure.axes if other is not ax]


def holds(ax, lat, lon) -> bool:
    """Whether all the points lie inside the map."""
    x0, x1, y0, y1 = ax.get_extent()
    points = ax.projection.transform_points(ccrs.PlateCarree(), np.asarray(lon, float), np.asarray(lat, float))
    return bool(((points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)).all())


# ---------------------------------------------------------------------------- maps


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        ([51.5, 55.5], [-10.5, -5.5]),  # Ireland
        ([27.5, 72.5], [-15, 60]),  # Europe
        ([10, 55], [80, 155]),
        ([53.0], [-8.0]),  # one point
        ([80, 90], [0, 40]),  # the pole
        ([-35, 35], [0, 355]),  # round the globe
    ],
)
def test_map_holds_all_points(lat, lon):
    ax = draw(map_axes(lat, lon))
    assert isinstance(ax, GeoAxes) and holds(ax, lat, lon)


def test_longitudes_from_0_to_360_give_the_same_map():
    lat, lon = np.array([51.5, 55.5]), np.array([-10.5, -5.5])
    a, b = draw(map_axes(lat, lon)), draw(map_axes(lat, lon + 360))
    assert holds(b, lat, lon)
    width = [ax.get_extent()[1] - ax.get_extent()[0] for ax in (a, b)]
    assert width[1] == pytest.approx(width[0], rel=0.01)


def test_map_over_the_date_line_is_not_the_whole_globe():
    """Fiji: 177 E to 178 W is five degrees wide, not 355."""
    ax = draw(map_axes([-19, -16], [177, -178]))
    assert holds(ax, [-19, -16], [177, -178])
    x0, x1, _, _ = ax.get_extent()
    assert x1 - x0 < 2_000_000


def test_map_draws_into_given_axes():
    figure = plt.figure()
    given = figure.add_subplot(projection=ccrs.Mercator())
    assert map_axes([50, 55], [0, 5], ax=given) is given and plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("lat", "lon", "parts"),
    [
        ([], [], ["lat, lon", "at least one"]),
        ([50, np.nan], [0, 1], ["lat", "finite"]),
        ([50], [0, 1], ["(1,)", "(2,)"]),
        ([50, 100], [0, 1], ["lat", "100"]),
    ],
)
def test_map_refuses_bad_points(lat, lon, parts):
    with pytest.raises(ValueError) as error:
        map_axes(lat, lon)
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- stations


def test_station_map_shows_values_with_name_and_units():
    data = stations()
    ax = draw(station_map(data))
    (collection,) = dots(ax)
    np.testing.assert_allclose(collection.get_array(), data)
    np.testing.assert_allclose(collection.get_offsets(), np.stack([data.lon, data.lat], axis=1))
    assert colour_bars(ax) == ["mean wind speed (m s-1)"]
    assert holds(ax, data.lat, data.lon)


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("with_values", [True, False])
def test_station_map_of_few_and_many(count, with_values):
    data = stations(count)
    ax = draw(station_map(data if with_values else data.to_dataset()))
    assert sum(len(c.get_offsets()) for c in dots(ax)) == count
    assert len(colour_bars(ax)) == with_values


def test_station_map_draws_missing_values_as_crosses():
    data = stations(5, [1, np.nan, 3, np.nan, 5])
    ax = draw(station_map(data))
    seen, crosses = dots(ax)
    np.testing.assert_allclose(seen.get_array(), [1, 3, 5])
    np.testing.assert_allclose(crosses.get_offsets()[:, 1], data.lat[[1, 3]])


def test_station_map_of_nothing_but_missing_values():
    ax = draw(station_map(stations(3, [np.nan] * 3)))
    assert sum(len(c.get_offsets()) for c in dots(ax)) == 3


def test_station_map_of_equal_values():
    draw(station_map(stations(3, [2, 2, 2])))


def test_station_map_writes_names_and_label():
    data = stations()
    ax = draw(station_map(data, values=list(range(5)), label="rank", names=True, cmap="cividis", vmin=0, vmax=9))
    assert {text.get_text() for text in ax.texts} >= set(data.station.values)
    assert colour_bars(ax) == ["rank"] and dots(ax)[0].get_clim() == (0, 9)


def test_station_map_draws_into_given_axes():
    given = plt.figure().add_subplot(projection=ccrs.Mercator())
    assert draw(station_map(stations(), ax=given)) is given


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: station_map(np.zeros(3)), ["stations", "lat", "lon"]),
        (lambda: station_map(stations().drop_vars("lat")), ["stations", "lat"]),
        (lambda: station_map(stations(), values=[1, 2]), ["values", "5 stations", "(2,)"]),
        (lambda: station_map(stations(), values=3.0), ["values", "5 stations", "()"]),
        (lambda: station_map(stations(), values=["a"] * 5), ["values", "number"]),
    ],
)
def test_station_map_refuses_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- graphs


def lines(ax) -> LineCollection:
    (found,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    return found


def test_graph_map_draws_every_edge_between_its_stations(graph):
    ax = draw(graph_map(graph, values=np.arange(12.0), label="degree", names=True))
    segments = np.array(lines(ax).get_segments())
    lon, lat = graph.pos.double().numpy().T
    places = ax.projection.transform_points(ccrs.PlateCarree(), lon, lat)[:, :2]
    np.testing.assert_allclose(segments[:, 0], places[graph.edge_index[0]])
    np.testing.assert_allclose(segments[:, 1], places[graph.edge_index[1]])
    assert colour_bars(ax) == ["degree"]


def test_stronger_edges_are_wider_and_darker(graph):
    collection = lines(draw(graph_map(graph)))
    order = np.argsort(graph.edge_weight.numpy(), kind="stable")
    assert (np.diff(np.asarray(collection.get_linewidths())[order]) >= 0).all()
    assert (np.diff(collection.get_colors()[order][:, 3]) >= 0).all()
    assert collection.get_colors()[:, 3].max() <= 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: knn_graph([53.0], [-8.0]),  # one station, no edge
        lambda: knn_graph([53.0, 54], [-8.0, -7], 1),
        lambda: radius_graph([50.0, 60], [0.0, 0], 1.0),  # no edge
        lambda: delaunay_graph([50.0, 51, 52], [0.0, 2, 0]),
        lambda: Data(pos=torch.tensor([[0.0, 50], [1, 51]]), edge_index=torch.tensor([[0], [1]]), num_nodes=2),
        lambda: knn_graph([50.0, 60, 61], [0.0, 0, 5], 1, length_scale=1.0),  # weights that vanish in float32
    ],
)
def test_graph_map_of_small_and_odd_graphs(make):
    graph = make()
    ax = draw(graph_map(graph))
    assert len(lines(ax).get_segments()) == graph.edge_index.shape[1]
    assert np.isfinite(lines(ax).get_linewidths()).all()
    assert sum(len(c.get_offsets()) for c in dots(ax)) == graph.num_nodes


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda g: graph_map(Data(edge_index=g.edge_index, num_nodes=12)), ["graph", "pos", "none"]),
        (lambda g: graph_map("graph"), ["graph", "pos"]),
        (lambda g: graph_map(g, values=np.ones(5)), ["values", "12 stations", "(5,)"]),
    ],
)
def test_graph_map_refuses_what_does_not_fit(graph, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(graph)
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- training curve


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_training_curve_shows_both_losses_and_the_epoch_kept(epochs):
    train, validation = list(np.linspace(3, 1, epochs)), list(np.linspace(4, 2, epochs))
    ax = draw(training_curve(History(train, validation, best_epoch=epochs - 1), label="loss (m² s-2)"))
    drawn = [line.get_xydata() for line in ax.lines]
    np.testing.assert_allclose(drawn[0], np.stack([np.arange(1, epochs + 1), train], axis=1))
    np.testing.assert_allclose(drawn[1][:, 1], validation)
    np.testing.assert_allclose(drawn[2], [[epochs, validation[-1]]])
    assert ax.get_xlabel() == "epoch" and ax.get_ylabel() == "loss (m² s-2)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation", "kept"]


def test_training_curve_draws_into_given_axes():
    given = plt.figure().add_subplot()
    assert draw(training_curve(History([1.0], [1.0], 0), ax=given)) is given


def test_training_curve_needs_an_epoch():
    with pytest.raises(ValueError, match="history.*at least one epoch.*none"):
        training_curve(History())


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda graph: training_curve([1.0, 0.5]), ["history", "History", "list"]),
        (lambda graph: graph_map(graph, ax=plt.figure().add_subplot()), ["ax", "GeoAxes", "Axes"]),
        (lambda graph: graph_map(Data(pos=graph.pos, num_nodes=12)), ["graph", "edge_index", "none"]),
    ],
)
def test_plots_refuse_what_is_something_else(graph, call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(graph)
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- maps of regimes


def composites(count=3, scale=1.0) -> xr.DataArray:
    values = np.random.default_rng(1).standard_normal((count, 5)) * scale
    coords = {name: coord for name, coord in stations().coords.items() if name != "regime"}
    attrs = {"units": "m s-1", "long_name": "wind anomaly"}
    return xr.DataArray(values, dims=("regime", "station"), coords=coords, attrs=attrs)


def gridded(lat, lon, count=2) -> xr.DataArray:
    values = np.random.default_rng(2).standard_normal((count, len(lat), len(lon)))
    coords = {"lat": np.asarray(lat, float), "lon": np.asarray(lon, float)}
    return grid_to_nodes(xr.DataArray(values, dims=("regime", "lat", "lon"), coords=coords, attrs={"units": "m"}))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_regime_maps_show_every_station_of_every_regime_in_one_scale(count):
    data = composites(count)
    axes = regime_maps(data)
    draw(axes[0])
    assert len(axes) == count and [ax.get_title() for ax in axes] == [f"regime {k}" for k in range(count)]
    limit = float(np.abs(data).max())
    for k, ax in enumerate(axes):
        (found,) = dots(ax)
        np.testing.assert_array_equal(found.get_array(), data[k])
        np.testing.assert_allclose(found.get_offsets(), np.stack([data.lon, data.lat], axis=1))
        assert found.get_clim() == (-limit, limit) and found.get_cmap().name == "RdBu_r"
    bars = [ax for ax in axes[0].figure.axes if not isinstance(ax, GeoAxes)]
    assert [bar.get_ylabel() for bar in bars] == ["wind anomaly (m s-1)"]


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        ([50, 52.5, 55], [0, 2.5, 5, 7.5]),
        ([55, 52.5, 50], [0, 2.5, 5, 7.5]),  # from the north
        ([85, 87.5, 90], [-20, -10, 0]),  # with the pole
        ([0, 10], [170, 175, -180, -175]),  # over the date line
        ([0, 10], [350, 355, 0, 5]),
    ],
)
def test_regime_maps_of_a_grid_are_cells_around_their_points(lat, lon):
    data = gridded(lat, lon)
    axes = regime_maps(data, titles=["one", "two"])
    draw(axes[0])
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    for k, ax in enumerate(axes):
        (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
        assert not dots(ax) and holds(ax, data.lat.values, data.lon.values)
        corners = mesh.get_coordinates()
        assert np.diff(corners[0, :, 0]).max() < 15 and np.abs(corners[..., 1]).max() <= 90
        shown = np.asarray(mesh.get_array())
        for value, y, x in zip(data[k].values, data.lat.values, data.lon.values, strict=True):
            row = np.searchsorted(corners[:, 0, 1], y) - 1
            west = corners[0, 0, 0]
            column = np.searchsorted(corners[0, :, 0], (x - west) % 360 + west) - 1
            assert shown[row, column] == value


def test_regime_maps_mark_what_is_missing():
    data = composites(2)
    data[0, 1] = np.nan
    axes = regime_maps(data)
    assert [len(c.get_offsets()) for c in dots(draw(axes[0]))] == [4, 1]
    draw(regime_maps(data * np.nan)[0])
    grid = gridded([50, 55], [0, 5, 10])
    grid[1, 2] = np.nan
    (mesh,) = [c for c in draw(regime_maps(grid)[1]).collections if isinstance(c, QuadMesh)]
    assert np.ma.getmaskarray(mesh.get_array()).sum() == 1


@pytest.mark.parametrize(
    ("options", "limits"),
    [({"vmax": 2}, (-2, 2)), ({"vmin": -3}, (-3, 3)), ({"vmin": 0, "vmax": 5}, (0, 5))],
)
def test_regime_maps_take_another_range(options, limits):
    axes = regime_maps(composites(3), cmap="viridis", columns=1, label="x", **options)
    assert all(c.get_clim() == limits and c.get_cmap().name == "viridis" for ax in axes for c in dots(ax))
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 1)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: regime_maps(composites().values), ["composites", "DataArray", "ndarray"]),
        (lambda: regime_maps(composites()[0]), ["composites", "(regime, station)", "station"]),
        (lambda: regime_maps(composites()[:0]), ["composites", "empty"]),
        (lambda: regime_maps(composites().drop_vars("lon")), ["composites", "lat and lon"]),
        (lambda: regime_maps(composites(), titles=["a"]), ["titles", "3 regimes", "1"]),
    ],
)
def test_regime_maps_refuse_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- transitions


def patches(ax, kind) -> list:
    return [patch for patch in ax.patches if isinstance(patch, kind)]


def test_transition_diagram_shows_shares_stays_and_departures():
    matrix = np.array([[0.96, 0.03, 0.01], [0.10, 0.80, 0.10], [0.06, 0.0, 0.94]])
    ax = draw(transition_diagram(matrix, ["west", "block", "south"]))
    share = np.linalg.matrix_power(matrix, 2000)[0]
    areas = np.array([circle.radius**2 for circle in patches(ax, Circle)])
    np.testing.assert_allclose(areas / areas.sum(), share, rtol=1e-6)
    texts = [text.get_text() for text in ax.texts]
    assert texts[-3:] == ["west\n0.96", "block\n0.80", "south\n0.94"]
    assert texts[:-3] == ["0.75", "0.25", "0.50", "0.50", "1.00"]  # the row of each, left; nothing from 2 to 1
    tails = [arrow.get_arrowstyle().tail_width for arrow in patches(ax, FancyArrowPatch)]
    np.testing.assert_array_equal(np.argsort(tails, kind="stable"), [1, 2, 3, 0, 4])


@pytest.mark.parametrize(
    ("matrix", "arrows"),
    [([[1.0]], 0), ([[0.9, 0.1], [0.3, 0.7]], 2), (np.eye(3), 0), (np.full((6, 6), 1 / 6), 30)],
)
def test_transition_diagram_of_any_size_stays_in_its_axes(matrix, arrows):
    ax = draw(transition_diagram(matrix))
    assert len(patches(ax, FancyArrowPatch)) == arrows
    circles = patches(ax, Circle)
    assert np.isfinite([c.radius for c in circles]).all() and len(circles) == len(matrix)
    for circle in circles:
        assert (np.abs(circle.center) + circle.radius <= ax.get_xlim()[1]).all()
    for a in circles:  # circles do not overlap
        assert all(np.hypot(*np.subtract(a.center, b.center)) > a.radius + b.radius for b in circles if b is not a)


def test_transition_diagram_draws_into_given_axes():
    given = plt.figure().add_subplot()
    assert draw(transition_diagram(np.eye(2), ax=given)) is given


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: transition_diagram(np.ones((2, 3))), ["matrix", "square", "(2, 3)"]),
        (lambda: transition_diagram(np.ones((0, 0))), ["matrix", "(0, 0)"]),
        (lambda: transition_diagram([[0.5, 0.5], [0.5, 0.6]]), ["matrix", "sum to 1", "row 1"]),
        (lambda: transition_diagram([[1.5, -0.5], [0.5, 0.5]]), ["matrix", "row 0"]),
        (lambda: transition_diagram([[np.nan, 1], [0, 1]]), ["matrix", "row 0", "nan"]),
        (lambda: transition_diagram(np.eye(2), ["a"]), ["labels", "2 regimes", "1"]),
    ],
)
def test_transition_diagram_refuses_what_does_not_fit(call, parts):
    with pytest.raises(ValueError) as error:
        call()
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- timeline


def ruling(values, dated=True) -> xr.DataArray:
    days = np.datetime64("2000-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    dims = ("time",) if np.ndim(values) == 1 else ("time", "regime")
    return xr.DataArray(np.asarray(values), dims=dims, coords={"time": days if dated else np.arange(len(values))})


def height_at(ax, layer: int, when: float) -> float:
    """Height of one layer of the stack at a time."""
    inside = [y / 1000 for y in range(1, 1000, 2)]
    return sum(ax.collections[layer].get_paths()[0].contains_point((when, y)) for y in inside) / len(inside)


@pytest.mark.parametrize("dated", [True, False])
def test_timeline_of_labels_is_a_strip_of_their_colours(dated):
    ax = draw(regime_timeline(ruling([0, 0, 2, 2, 2, 1], dated)))
    assert [to_hex(c.get_facecolor()[0]) for c in ax.collections] == list(OKABE_ITO[:3])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["regime 0", "regime 1", "regime 2"]
    start = ax.get_xlim()[0]
    for step, regime in [(0.1, 0), (1.4, 0), (1.6, 2), (4.4, 2), (4.6, 1), (4.9, 1)]:
        assert [round(height_at(ax, k, start + step)) for k in range(3)] == [k == regime for k in range(3)], step


def test_timeline_of_probabilities_stacks_them():
    p = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    ax = draw(regime_timeline(ruling(p), names=["wet", "dry"], colours=["#111111", "#eeeeee"]))
    for step in range(3):
        when = ax.get_xlim()[0] + np.clip(step, 0.1, 1.9)
        assert [height_at(ax, k, when) for k in range(2)] == pytest.approx(p[step], abs=0.01)
    assert ax.get_ylabel() == "probability" and ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["wet", "dry"]


def test_timeline_with_names_keeps_a_colour_for_a_regime_that_never_rules():
    given = plt.figure().add_subplot()
    ax = draw(regime_timeline(ruling([0, 1, 0]), names=["a", "b", "c"], ax=given))
    assert ax is given and len(ax.collections) == 3
    draw(regime_timeline(ruling([0])))  # a single time


def test_colours_are_eight_different_ones():
    assert len(set(OKABE_ITO)) == 8


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: regime_timeline([0, 1]), ["regimes", "DataArray", "list"]),
        (lambda: regime_timeline(ruling([0, 1]).rename(time="t")), ["regimes", "(time)", "t"]),
        (lambda: regime_timeline(ruling([0, 1])[:0]), ["regimes", "empty"]),
        (lambda: regime_timeline(ruling([0.0, 1.0])), ["regimes", "whole numbers", "float64"]),
        (lambda: regime_timeline(ruling([0, -1])), ["regimes", "from 0", "-1"]),
        (lambda: regime_timeline(ruling([[0.5, 0.6]])), ["regimes", "sum to 1"]),
        (lambda: regime_timeline(ruling([[np.nan, 1.0]])), ["regimes", "sum to 1"]),
        (lambda: regime_timeline(ruling([0, 1, 2]), names=["a"]), ["names", "3 regimes", "1"]),
        (lambda: regime_timeline(ruling(range(9))), ["colours", "9 regimes", "8"]),
    ],
)
def test_timeline_refuses_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- gaps


def reports(observed, times=None) -> xr.DataArray:
    """(time, station) ones, NaN where nothing was observed."""
    observed = np.asarray(observed, bool)
    coords = {"station": [f"S{i}" for i in range(observed.shape[1])]}
    coords["time"] = pd.date_range("2000-01-01", periods=len(observed)) if times is None else times
    return xr.DataArray(np.where(observed, 1.0, np.nan), dims=("time", "station"), coords=coords)


def shade_at(ax, when, station: int) -> float:
    """Share of the times that was observed, as drawn at a time in the row of a station."""
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    share = image.get_array().filled(np.nan)
    x = float(ax.xaxis.convert_units(np.datetime64(when))) if isinstance(when, str) else when
    row, column = int((station - top) / (bottom - top) * len(share)), int((x - left) / (right - left) * share.shape[1])
    return share[row, column]


def legend_of(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_gap_calendar_shows_every_cell_at_its_date_and_station():
    observed = np.random.default_rng(0).random((60, 4)) < 0.5
    months = pd.date_range("1999-11-01", periods=60, freq="MS")  # 28 to 31 days, two leap days
    ax = draw(gap_calendar(reports(observed, months)))
    for t, month in enumerate(months):
        drawn = [shade_at(ax, str(month.date()), k) for k in range(4)]
        np.testing.assert_array_equal(drawn, observed[t].astype(float))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["S0", "S1", "S2", "S3"]
    assert ax.get_ylim() == (3.5, -0.5)  # the first one at the top
    assert legend_of(ax) == ["observed", "missing"]
    assert any("2001" in label.get_text() for label in ax.get_xticklabels())


def test_observed_and_missing_differ_in_lightness_and_are_the_colours_of_the_legend():
    ax = draw(gap_calendar(reports([[True, False]])))
    marks = [to_hex(mark.get_facecolor()) for mark in ax.get_legend().get_patches()]
    drawn = [to_hex(ax.images[0].cmap(ax.images[0].norm(value))) for value in (1.0, 0.0)]
    assert marks == drawn == [OBSERVED, MISSING]
    dark, light = (np.dot([0.2126, 0.7152, 0.0722], np.power(to_rgb(c), 2.2)) for c in (OBSERVED, MISSING))
    assert (light + 0.05) / (dark + 0.05) > 4.5  # the contrast that is asked of text


def test_gap_calendar_averages_where_times_share_a_point():
    """No gap is lost by chance: each column of the picture is the share observed in its times."""
    observed = np.random.default_rng(1).random((6574, 3)) < 0.8
    observed[3000:3200, 1] = False
    share = draw(gap_calendar(reports(observed))).images[0].get_array()
    assert share.shape == (3, 658)  # ten days each
    np.testing.assert_allclose(share[:, :657], observed[:6570].reshape(657, 10, 3).mean(axis=1).T)
    np.testing.assert_allclose(share[:, 657], observed[6570:].mean(axis=0))  # the last holds four days


def test_times_that_are_not_in_the_record_are_no_gaps_of_it():
    months = pd.date_range("2000-01-01", periods=48, freq="MS")
    winter = months[np.isin(months.month, [11, 12, 1, 2])]
    observed = np.ones((len(winter), 2), bool)
    observed[:4, 1] = False
    ax = draw(gap_calendar(reports(observed, winter)))
    assert legend_of(ax) == ["observed", "missing", "not in the record"]
    assert ax.patch.get_hatch()
    for month in months:
        expected = [1.0, float(month >= winter[4])] if month in winter else [np.nan, np.nan]
        np.testing.assert_array_equal([shade_at(ax, str(month.date()), k) for k in range(2)], expected)


def test_all_of_colorado_is_drawn_fast():
    series = load_colorado()["tmax"]
    began = time.perf_counter()
    ax = draw(gap_calendar(series))
    assert time.perf_counter() - began < 5  # it takes a fifth of a second
    shape = ax.images[0].get_array().shape
    assert shape[0] == series.sizes["station"] and 300 < shape[1] <= 700
    assert ax.get_ylabel() == f"{series.sizes['station']} stations" and len(ax.get_yticks()) == 0
    assert float(ax.images[0].get_array().mean()) == pytest.approx(float(series.notnull().mean()), abs=1e-3)


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (1, 5), (2, 31), (700, 1), (701, 2)])
def test_gap_calendar_of_any_size_in_given_axes(steps, count):
    _, mine = plt.subplots()
    assert draw(gap_calendar(reports(np.zeros((steps, count))), ax=mine)) is mine
    assert (mine.images[0].get_array() == 0).all()
    assert len(mine.get_yticks()) == (count if count <= 30 else 0)
    draw(gap_calendar(reports(np.ones((steps, count))).drop_vars(["time", "station"])))  # numbers instead of names


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda s: gap_calendar(s.values), ["series", "DataArray", "ndarray"]),
        (lambda s: gap_calendar(s.transpose()), ["series", "(time, station)", "station"]),
        (lambda s: gap_calendar(s[0]), ["series", "(time, station)"]),
        (lambda s: gap_calendar(s[:, :0]), ["series", "empty", "0"]),
        (lambda s: gap_calendar(s[::-1]), ["series", "times in rising order"]),
        (lambda s: gap_calendar(s.isel(time=[0, 0, 1])), ["series", "each once"]),
        (lambda s: gap_calendar(s.assign_coords(time=["a", "b", "c"])), ["series", "dates or numbers", "<U1"]),
    ],
)
def test_gap_calendar_refuses_what_does_not_fit(call, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        call(reports(np.ones((3, 2))))
    assert all(part in str(error.value) for part in parts), str(error.value)


# ---------------------------------------------------------------------------- scores


def test_skill_curve_shows_values_and_bands():
    interval = [Interval(0.5, 0.4, 0.6), Interval(0.3, 0.1, 0.4), Interval(-0.1, -0.3, 0.2)]
    curves = {"network": interval, "VAR": [0.4, 0.2, np.nan]}
    ax = draw(skill_curve([1, 2, 4], curves, "lead time (h)", "skill over persistence"))
    network, var, zero = ax.lines
    np.testing.assert_allclose(network.get_xydata(), [[1, 0.5], [2, 0.3], [4, -0.1]])
    np.testing.assert_allclose(var.get_ydata(), [0.4, 0.2, np.nan])
    assert set(zero.get_ydata()) == {0}
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert {(1, 0.4), (1, 0.6), (2, 0.1), (4, -0.3), (4, 0.2)} <= set(map(tuple, corners))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["network", "VAR"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lead time (h)", "skill over persistence")
    assert network.get_color() != var.get_color() and network.get_marker() != var.get_marker()


def test_skill_curve_of_errors_has_no_zero_line_and_takes_axes():
    _, mine = plt.subplots()
    curve = xr.DataArray([0.5, 0.7], dims="lead", coords={"lead": [1, 2]})
    assert skill_curve(curve.lead, {"rmse": curve}, ylabel="RMSE (K)", ax=mine) is mine
    assert len(draw(mine).lines) == 1
    draw(skill_curve([1], {"all missing": [np.nan]}))


def test_many_curves_can_be_told_apart():
    ax = draw(skill_curve([1, 2], {f"method {k}": [k, k] for k in range(8)}))
    assert len({line.get_color() for line in ax.lines}) == 8
    assert len({line.get_marker() for line in ax.lines}) == 8


def test_skill_curve_refuses():
    with pytest.raises(ValueError, match="x: expected numbers that rise"):
        skill_curve([2, 1], {"a": [0, 0]})
    with pytest.raises(TypeError, match="curves"):
        skill_curve([1, 2], [0, 0])
    with pytest.raises(ValueError, match="curves: expected at least one"):
        skill_curve([1, 2], {})
    with pytest.raises(ValueError, match=r"curves\['a'\]: expected 2 numbers"):
        skill_curve([1, 2], {"a": [1, 2, 3]})


def chances(power=1.0):
    rng = np.random.default_rng(0)
    chance = rng.random((500, 2))
    coords = {"time": np.arange(500), "station": ["A", "B"]}
    event = rng.random((500, 2)) < chance**power
    return tuple(xr.DataArray(x, dims=("time", "station"), coords=coords) for x in (chance, event))


def reliability_table(power=1.0, **options):
    return reliability(*chances(power), bins=5, **options)


def test_reliability_diagram_shows_the_table():
    table = reliability_table()
    table["count"][2] = 0
    ax = draw(reliability_diagram(table))
    (points,) = dots(ax)
    there = [0, 1, 3, 4]
    expected = np.stack([table.probability[there], table.frequency[there]], axis=1)
    np.testing.assert_allclose(points.get_offsets(), expected)
    assert np.argmax(points.get_sizes()) == np.argmax(table["count"].values[there])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
    usual = (table["count"] * table.frequency.fillna(0)).sum() / table["count"].sum()
    np.testing.assert_allclose(ax.lines[1].get_ydata(), usual)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("forecast probability", "observed frequency")
    assert ax.get_legend() is None


def test_reliability_diagram_of_several_has_a_legend():
    ax = draw(reliability_diagram({"right": reliability_table(), "too sure": reliability_table(0.3)}))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right", "too sure"]
    one, other = dots(ax)
    assert to_hex(one.get_facecolor()[0]) != to_hex(other.get_facecolor()[0])


def test_reliability_diagram_shows_intervals():
    table = reliability_table(resamples=30)
    ax = draw(reliability_diagram({"plain": reliability_table(0.3), "with intervals": table}))
    (bars,) = [part for part in ax.collections if isinstance(part, LineCollection)]
    expected = [[[x, low], [x, high]] for x, low, high in zip(table.probability, table.low, table.high, strict=True)]
    np.testing.assert_allclose(bars.get_segments(), expected)


def test_reliability_diagram_refuses():
    with pytest.raises(TypeError, match=r"tables\['a'\]: expected what verification.reliability returns, found list"):
        reliability_diagram({"a": [0.1, 0.2]})
    with pytest.raises(TypeError, match="tables: expected what verification.reliability returns, found list"):
        reliability_diagram([0.1, 0.2])
    with pytest.raises(ValueError, match="tables: expected at least one"):
        reliability_diagram({})
    with pytest.raises(ValueError, match=r"tables\['a'\]: expected count, frequency, probability of"):
        reliability_diagram({"a": reliability_table().drop_vars("frequency")})
    with pytest.raises(ValueError, match="at least one forecast"):
        reliability_diagram(reliability_table() * 0)


def test_roc_curve_shows_the_table_and_its_area():
    table = roc(*chances(3), thresholds=[0.2, 0.5, 0.9])
    ax = draw(roc_curve(table))
    diagonal, curve = ax.lines
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    expected = np.stack([table.false_alarm_rate, table.probability_of_detection], axis=1)
    np.testing.assert_allclose(curve.get_xydata(), expected)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("false alarm rate", "probability of detection")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [f"area {table.area:.3f}"]
    with_interval = roc(*chances(3), resamples=20)
    _, mine = plt.subplots()
    assert roc_curve({"a": table, "b": with_interval}, ax=mine) is mine
    area, low, high = (with_interval[name].item() for name in ("area", "area_low", "area_high"))
    labels = [text.get_text() for text in draw(mine).get_legend().get_texts()]
    assert labels == [f"a, area {table.area:.3f}", f"b, area {area:.3f} ({low:.3f} to {high:.3f})"]
    assert len({line.get_color() for line in mine.lines}) == len({line.get_linestyle() for line in mine.lines[1:]}) + 1


def test_value_curve_shows_values_and_bands():
    ratios = [0.1, 0.3, 0.6, 0.8]
    plain = economic_value(*chances(3), ratios)
    banded = economic_value(*chances(3), ratios, thresholds=0.5, resamples=20)
    ax = draw(value_curve({"plain": plain, "at one half": banded}))
    first, second, zero = ax.lines
    np.testing.assert_allclose(first.get_xydata(), np.stack([ratios, plain], axis=1))
    np.testing.assert_allclose(second.get_ydata(), banded)
    assert set(zero.get_ydata()) == {0}
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for ratio, low, high in zip(ratios, banded.low.values, banded.high.values, strict=True):
        assert {(ratio, low), (ratio, high)} <= set(map(tuple, corners))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain", "at one half"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("cost of acting / loss", "relative economic value")
    assert first.get_color() != second.get_color() and first.get_linestyle() != second.get_linestyle()
    _, mine = plt.subplots()
    assert value_curve(plain, ax=mine) is mine and mine.get_legend() is None
    draw(value_curve({"a": plain, "without a number": plain * np.nan}))


def test_curves_of_decisions_refuse():
    table, values = roc(*chances(3)), economic_value(*chances(3), [0.1, 0.3])
    with pytest.raises(TypeError, match="tables: expected what verification.roc returns, found DataArray"):
        roc_curve(values)
    with pytest.raises(ValueError, match=r"tables\['a'\]: expected area, .* of verification.roc"):
        roc_curve({"a": table.drop_vars("area")})
    with pytest.raises(ValueError, match="tables: expected at least one, found none"):
        roc_curve({})
    with pytest.raises(
        TypeError, match=r"values\['a'\]: expected what verification.economic_value returns, found Dataset"
    ):
        value_curve({"a": table})
    with pytest.raises(ValueError, match="values: expected ratio of verification.economic_value"):
        value_curve(values.rename(ratio="lead"))
    with pytest.raises(ValueError, match="values: expected at least one value, found only NaN"):
        value_curve(values * np.nan)
    for wrong in (values[0], values.expand_dims(method=2)):
        with pytest.raises(ValueError, match=r"values\['a'\]: expected dims \(ratio\)"):
            value_curve({"a": wrong})
