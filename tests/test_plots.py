"""Every drawing works offline, without a warning, and shows what it was given."""

import socket
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from cartopy import crs as ccrs
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.collections import LineCollection, PathCollection
from torch_geometric.data import Data

from stgcn_lab.graphs import delaunay_graph, knn_graph, radius_graph
from stgcn_lab.plots import graph_map, map_axes, station_map, training_curve
from stgcn_lab.training import History


@pytest.fixture(autouse=True)
def _offline_and_without_warnings(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a drawing asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
