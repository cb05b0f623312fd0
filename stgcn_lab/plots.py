"""Drawing: stations, graphs and regimes on a map, regimes and gaps in time, the course of a training, and scores.

Maps are drawn with the coastlines that come with the package, without a network. Colour maps are readable
for colour-blind eyes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cartopy
import cartopy.crs as ccrs
import cartopy.feature as cfeature
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.patches import Circle, FancyArrowPatch, Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from . import datasets

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from .training import History

cartopy.config["pre_existing_data_dir"] = str(datasets.coastlines_dir())

SEA, LAND, COAST, INK, EDGE = "#eef3f7", "#f7f5ef", "#8a8f94", "#1b2a38", "#5b7ea3"
OBSERVED, MISSING = "#1f4e79", "#f3e9d2"  # dark and light: they differ in a print in black too

# Eight colours that differ for colour-blind eyes too, after Okabe & Ito (2008), https://jfly.uni-koeln.de/color/
OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442", "#000000")


def map_axes(
    lat: ArrayLike,
    lon: ArrayLike,
    ax: GeoAxes | None = None,
    margin: float = 0.08,
    figsize: tuple[float, float] = (6, 6),
) -> GeoAxes:
    """A map of a region with coastlines and labelled latitude and longitude.

    Args:
        lat, lon: degrees; the map is made to hold all these points.
        ax: a cartopy axes to draw into; a new figure if not given.
        margin: space around the points, as a share of the region's size.
        figsize: size of a new figure in inches.

    Returns:
        The cartopy axes.

    Raises:
        TypeError: if ``ax`` is no map.
        ValueError: if there is no point, or coordinates are not finite.
    """
    if ax is not None and not isinstance(ax, GeoAxes):
        raise TypeError(f"ax: expected a cartopy GeoAxes, such as map_axes gives, found {type(ax).__name__}")
    lat, lon = np.asarray(lat, float).ravel(), np.asarray(lon, float).ravel()
    if lat.size == 0 or lat.shape != lon.shape or not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise ValueError(
            "lat, lon: expected the same number of finite degrees, at least one, "
            f"found shapes {lat.shape} and {lon.shape}"
        )
    if np.abs(lat).max() > 90 or lon.min() < -180 or lon.max() > 360:
        raise ValueError(
            "lat, lon: expected degrees from -90 to 90 and from -180 to 360, found "
            f"latitudes to {lat[np.abs(lat).argmax()]:g} and longitudes {lon.min():g} to {lon.max():g}"
        )
    west, width = _narrowest(lon)
    middle = (west + width / 2 + 180) % 360 - 180
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").add_subplot(projection=_projection(lat, middle))
    pad_lat = max(margin * np.ptp(lat), 0.5)
    half = min(width / 2 + max(margin * width, 0.5), 180)
    south, north = max(lat.min() - pad_lat, -90), min(lat.max() + pad_lat, 90)
    ax.set_extent([-half, half, south, north], crs=ccrs.PlateCarree(middle))
    detail = "50m" if max(np.ptp(lat), width) < 25 else "110m"
    ax.set_facecolor(SEA)
    ax.add_feature(cfeature.LAND.with_scale(detail), facecolor=LAND, zorder=0)
    ax.add_feature(cfeature.COASTLINE.with_scale(detail), edgecolor=COAST, linewidth=0.7, zorder=1)
    lines = ax.gridlines(draw_labels=["left", "bottom"], linewidth=0.4, color="#b8c0c8", linestyle=":", zorder=1)
    lines.xlabel_style = lines.ylabel_style = {"size": 8, "color": "#444"}
    return ax


def _projection(lat: NDArray[np.float64], middle: float) -> ccrs.Projection:
    """Mercator, which keeps shapes, except near the pole, which it cannot show."""
    return ccrs.Mercator(middle) if np.abs(lat).max() < 75 else ccrs.PlateCarree(middle)


def _narrowest(lon: NDArray[np.float64]) -> tuple[float, float]:
    """West end and width, in degrees, of the narrowest strip that holds all longitudes, date line or not."""
    east = np.sort(lon % 360)
    gaps = np.diff(east, append=east[0] + 360)
    widest = int(gaps.argmax())
    return float(east[(widest + 1) % east.size]), float(360 - gaps[widest])


def station_map(
    stations: xr.DataArray | xr.Dataset,
    values: ArrayLike | None = None,
    label: str | None = None,
    names: bool = False,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    size: float = 60,
    ax: GeoAxes | None = None,
) -> GeoAxes:
    """Stations on a map, coloured by a value.

    Args:
        stations: anything with coordinates ``lat`` and ``lon`` over ``station``.
        values: (station,) to colour by; NaN is drawn as a cross. By default ``stations`` itself, if it is a
            DataArray over ``station`` alone.
        label: title of the colour bar; by default the long name and units of the values.
        names: write the station's identifier beside it.
        cmap, vmin, vmax: colour map and its range.
        size: area of a marker in points².
        ax: a cartopy axes to draw into.

    Returns:
        The cartopy axes.

    Raises:
        ValueError: without coordinates, or if there is not one value for each station.
    """
    if not {"lat", "lon"} <= set(getattr(stations, "coords", {})):
        raise ValueError("stations: expected xarray data with coordinates lat and lon (station)")
    lat, lon = stations["lat"].values, stations["lon"].values
    if values is None and isinstance(stations, xr.DataArray) and stations.dims == ("station",):
        values = stations
    if label is None and isinstance(values, xr.DataArray):
        name = values.attrs.get("long_name", values.name or "")
        label = f"{name} ({values.attrs['units']})" if "units" in values.attrs else str(name)
    ax = map_axes(lat, lon, ax)
    plain = ccrs.PlateCarree()
    if values is None:
        ax.scatter(lon, lat, s=size, c=EDGE, edgecolors=INK, linewidths=0.6, transform=plain, zorder=3)
    else:
        try:
            numbers = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"values: expected one number for each of {lat.size} stations, found {values!r}"
            ) from error
        if numbers.shape != lat.shape:
            raise ValueError(f"values: expected one for each of {lat.size} stations, found shape {numbers.shape}")
        there = np.isfinite(numbers)
        dots = ax.scatter(
            lon[there], lat[there], s=size, c=numbers[there], cmap=cmap, vmin=vmin, vmax=vmax,
            edgecolors=INK, linewidths=0.6, transform=plain, zorder=3,
        )  # fmt: skip
        ax.scatter(lon[~there], lat[~there], s=size / 2, c=INK, marker="x", transform=plain, zorder=3)
        ax.figure.colorbar(dots, ax=ax, label=label or "", shrink=0.8)
    if names:
        for station, y, x in zip(stations["station"].values, lat, lon, strict=True):
            ax.annotate(
                str(station), (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8,
                color=INK, zorder=4, transform=plain,
            )  # fmt: skip
    return ax


def graph_map(
    graph: "Data", values: ArrayLike | None = None, label: str = "", ax: GeoAxes | None = None, **kwargs: Any
) -> GeoAxes:
    """A graph on a map: edges as lines, the stronger the darker and wider, stations as dots.

    Args:
        graph: with ``pos`` = (lon, lat), as made by :mod:`stgcn_lab.graphs`.
        values: (nodes,) to colour the stations by.
        label: title of the colour bar.
        ax: a cartopy axes to draw into.
        kwargs: passed on to :func:`station_map`.

    Returns:
        The cartopy axes.

    Raises:
        ValueError: for a graph without positions or edge_index.
    """
    for key, what in (("pos", "positions pos (node, 2) = (lon, lat)"), ("edge_index", "edge_index (2, edges)")):
        if not hasattr(tensor := getattr(graph, key, None), "detach"):  # without importing torch for a drawing
            found = "none" if tensor is None else type(tensor).__name__
            raise ValueError(f"graph: expected {what}, a tensor, found {found}")
    lon, lat = np.asarray(graph.pos.detach().cpu(), float).T
    places = xr.Dataset(coords={"station": np.arange(len(lat)), "lat": ("station", lat), "lon": ("station", lon)})
    ax = station_map(places, values, label=label, ax=ax, **kwargs)
    source, target = graph.edge_index.cpu().numpy()
    weight = graph.get("edge_weight")
    strength = np.ones(source.size)
    if weight is not None and source.size and weight.max() > 0:
        strength = (weight / weight.max()).detach().cpu().numpy()
    points = ax.projection.transform_points(ccrs.PlateCarree(), lon, lat)[:, :2]
    colours = np.tile(to_rgba(EDGE), (source.size, 1))
    colours[:, 3] = 0.25 + 0.65 * strength
    ax.add_collection(
        LineCollection(
            list(np.stack([points[source], points[target]], axis=1)), colors=colours,
            linewidths=0.6 + 1.6 * strength, zorder=2,
        ),
        autolim=False,
    )  # fmt: skip
    return ax


def training_curve(history: "History", label: str = "loss", ax: Axes | None = None) -> Axes:
    """Training and validation loss by epoch, with the epoch whose weights were kept.

    Args:
        history: as returned by ``training.fit``.
        label: name and units of the loss.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError: for anything but a history.
        ValueError: if the history holds no epoch.
    """
    if not hasattr(history, "train_loss"):
        raise TypeError(f"history: expected the History that training.fit returns, found {type(history).__name__}")
    if not history.train_loss:
        raise ValueError("history: expected at least one epoch, found none")
    if ax is None:
        ax = plt.figure(figsize=(6, 3.4), layout="constrained").add_subplot()
    epochs = np.arange(1, len(history.train_loss) + 1)
    ax.plot(epochs, history.train_loss, color="#0072b2", label="training")
    ax.plot(epochs, history.validation_loss, color="#d55e00", linestyle="--", label="validation")
    best = history.best_epoch
    ax.plot(best + 1, history.validation_loss[best], "o", color="#d55e00", label="kept")
    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def skill_curve(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    xlabel: str = "lead time (steps)",
    ylabel: str = "skill score",
    ax: Axes | None = None,
) -> Axes:
    """A score or a skill of several methods against the lead time, or against anything else.

    A line marks zero where a curve goes below it: there the forecast is worse than the reference.

    Args:
        x: (points,) rising, for example lead times.
        curves: for the name of each method (points,), or (points, 3) = value, low and high, such as a list of what
            ``verification.compare`` returns: then the interval is drawn as a band. NaN leaves a gap.
        xlabel, ylabel: names and units of the axes.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: for no mapping, no curve, or curves that are not as long as x.
    """
    x = np.asarray(x, float)
    if x.ndim != 1 or x.size == 0 or not (np.diff(x) > 0).all():
        raise ValueError(f"x: expected numbers that rise, found {x}")
    if not isinstance(curves, Mapping):
        raise TypeError(f"curves: expected a curve for the name of each method, found {type(curves).__name__}")
    if not curves:
        raise ValueError("curves: expected at least one, found none")
    drawn = {}
    for name, curve in curves.items():
        drawn[name] = values = np.asarray(curve, float)
        if values.shape not in ((x.size,), (x.size, 3)):
            raise ValueError(
                f"curves[{name!r}]: expected {x.size} numbers, or as many (value, low, high), "
                f"found shape {values.shape}"
            )
    if ax is None:
        ax = plt.figure(figsize=(6, 3.6), layout="constrained").add_subplot()
    for k, (name, values) in enumerate(drawn.items()):
        colour, mark, line = _style(k)
        if values.ndim == 2:
            ax.fill_between(x, values[:, 1], values[:, 2], color=colour, alpha=0.18, linewidth=0, zorder=2)
            values = values[:, 0]
        ax.plot(x, values, color=colour, marker=mark, markersize=4.5, linestyle=line, label=name, zorder=3)
    if any(np.nanmin(values, initial=0) < 0 for values in drawn.values()):
        ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def _named(argument: str, tables: Any, kind: type[Any], needed: set[str], maker: str) -> dict[str, Any]:
    """What is to be drawn by its name, one alone under no name."""
    named = dict(tables) if isinstance(tables, Mapping) and not isinstance(tables, xr.Dataset) else {"": tables}
    if not named:
        raise ValueError(f"{argument}: expected at least one, found none")
    for name, table in named.items():
        label = f"{argument}[{name!r}]" if name else argument
        if not isinstance(table, kind):
            raise TypeError(f"{label}: expected what {maker} returns, found {type(table).__name__}")
        there = {*map(str, table.coords), *(map(str, table) if isinstance(table, xr.Dataset) else ())}
        if not needed <= there:
            raise ValueError(f"{label}: expected {', '.join(sorted(needed))} of {maker}, found {sorted(there)}")
    return named


def _style(k: int) -> tuple[str, str, str]:
    """Colour, mark and line of the k-th method: colours alone are not for everybody, nor for a print in black."""
    return OKABE_ITO[k % len(OKABE_ITO)], "osD^vPX*"[k % 8], ("-", "--", "-.", ":")[k % 4]


def _square(ax: Axes | None, xlabel: str, ylabel: str) -> Axes:
    """Axes from 0 to 1 with their diagonal."""
    if ax is None:
        ax = plt.figure(figsize=(4.6, 4.6), layout="constrained").add_subplot()
    ax.plot([0, 1], [0, 1], color=COAST, linewidth=1, zorder=1)
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.grid(alpha=0.3)
    return ax


def reliability_diagram(tables: xr.Dataset | Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """How often an event took place, against the probability that it was forecast with.

    Right forecasts lie on the diagonal; flatter than that, they are too sure. The area of a dot is the share of the
    forecasts that it stands for. The dotted line is the frequency of the event, all that a forecast without skill
    can know. Bars are intervals, if the tables have them.

    Args:
        tables: as ``verification.reliability`` makes them, one or one for the name of each method.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: for something else, or tables without a forecast.
    """
    needed = {"probability", "frequency", "count"}
    named = _named("tables", tables, xr.Dataset, needed, "verification.reliability")
    for name, table in named.items():
        if table["count"].sum() == 0:
            raise ValueError(f"tables{f'[{name!r}]' if name else ''}: expected at least one forecast, found none")
    ax = _square(ax, "forecast probability", "observed frequency")
    for k, (name, table) in enumerate(named.items()):
        colour, mark, line = _style(k)
        table = table.isel(bin=table["count"].values > 0)
        x, y = table["probability"].values, table["frequency"].values
        share = table["count"].values / table["count"].values.sum()
        ax.axhline(float(share @ y), color=colour, linestyle=":", linewidth=1, zorder=1)
        ax.plot(x, y, color=colour, marker=mark, markersize=3, linestyle=line, linewidth=1, label=name, zorder=2)
        ax.scatter(x, y, s=15 + 300 * share, marker=mark, color=colour, alpha=0.8, zorder=3)
        if {"low", "high"} <= set(table):
            ax.vlines(x, table["low"], table["high"], color=colour, linewidth=1, zorder=2)
    if "" not in named:
        ax.legend(frameon=False, loc="upper left")
    return ax


def roc_curve(tables: xr.Dataset | Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Detection against false alarms, for everyone who acts at some probability; the area is in the legend.

    The diagonal is what a forecast reaches that can't tell events from others, the upper left corner a perfect one.

    Args:
        tables: as ``verification.roc`` makes them, one or one for the name of each method.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: for something else.
    """
    needed = {"probability_of_detection", "false_alarm_rate", "area"}
    named = _named("tables", tables, xr.Dataset, needed, "verification.roc")
    ax = _square(ax, "false alarm rate", "probability of detection")
    for k, (name, table) in enumerate(named.items()):
        colour, _, line = _style(k)
        label = f"{name}, " * bool(name) + f"area {float(table['area']):.3f}"
        if {"area_low", "area_high"} <= set(table):
            label += f" ({float(table['area_low']):.3f} to {float(table['area_high']):.3f})"
        x, y = table["false_alarm_rate"], table["probability_of_detection"]
        ax.plot(x, y, color=colour, linestyle=line, label=label, zorder=2)
    ax.legend(frameon=False, loc="lower right")
    return ax


def value_curve(values: xr.DataArray | Mapping[str, xr.DataArray], ax: Axes | None = None) -> Axes:
    """What a forecast is worth, against the cost of acting in units of the loss that it prevents.

    One is perfect knowledge; zero, the line, is as without the forecast. Curves far below it are cut off. For a rare
    event most of the value is at small ratios: ``ax.set_xscale("log")`` shows them better.

    Args:
        values: as ``verification.economic_value`` makes them, one or one for the name of each method; a band is the
            interval between their coordinates ``low`` and ``high``, if they have them.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: for something else, or no value at all.
    """
    named = _named("values", values, xr.DataArray, {"ratio"}, "verification.economic_value")
    for name, value in named.items():
        if value.dims != ("ratio",):
            raise ValueError(f"values{f'[{name!r}]' if name else ''}: expected dims (ratio), found {value.dims}")
    if not any(value.notnull().any() for value in named.values()):
        raise ValueError("values: expected at least one value, found only NaN")
    if ax is None:
        ax = plt.figure(figsize=(6, 3.6), layout="constrained").add_subplot()
    for k, (name, value) in enumerate(named.items()):
        colour, _, line = _style(k)
        if {"low", "high"} <= set(value.coords):
            band = value["ratio"], value["low"], value["high"]
            ax.fill_between(*band, color=colour, alpha=0.18, linewidth=0, zorder=2)
        ax.plot(value["ratio"], value, color=colour, linestyle=line, label=name, zorder=3)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set(xlabel="cost of acting / loss", ylabel="relative economic value", ylim=(-0.25, 1.02))
    ax.grid(alpha=0.3)
    if "" not in named:
        ax.legend(frameon=False)
    return ax


def regime_maps(
    composites: xr.DataArray,
    titles: Sequence[str] | None = None,
    label: str | None = None,
    cmap: str = "RdBu_r",
    vmin: float | None = None,
    vmax: float | None = None,
    columns: int | None = None,
    size: float = 30,
    width: float = 3.4,
) -> list[GeoAxes]:
    """One map for each regime, all in the same colours.

    Stations that are a whole grid, as `datasets.grid_to_nodes` makes it, are drawn as filled cells, others as dots.

    Args:
        composites: (regime, station) with coordinates lat and lon over station, for example the mean anomaly of
            each regime. A missing value leaves its cell empty, or is drawn as a cross.
        titles: one for each regime.
        label: title of the colour bar; by default the long name and units.
        cmap: colour map.
        vmin, vmax: its range. By default it is symmetric about zero and holds all values; one of the two given
            alone sets the other to its opposite.
        columns: maps in a row.
        size: area of a dot in points².
        width: of a map in inches.

    Returns:
        The cartopy axes, one for each regime.

    Raises:
        TypeError, ValueError: for another kind of composites, no coordinates, or another number of titles.
    """
    if not isinstance(composites, xr.DataArray):
        raise TypeError(
            f"composites: expected an xarray DataArray (regime, station), found {type(composites).__name__}"
        )
    if composites.dims != ("regime", "station") or composites.size == 0:
        raise ValueError(
            f"composites: expected dims (regime, station), none of them empty, found {dict(composites.sizes)}"
        )
    if not {"lat", "lon"} <= set(composites.coords):
        raise ValueError("composites: expected coordinates lat and lon (station)")
    count = composites.sizes["regime"]
    if titles is None:
        titles = [f"regime {k}" for k in composites["regime"].values]
    if len(titles) != count:
        raise ValueError(f"titles: expected one for each of {count} regimes, found {len(titles)}")
    if label is None:
        name = composites.attrs.get("long_name", composites.name or "")
        label = f"{name} ({composites.attrs['units']})" if "units" in composites.attrs else str(name)
    largest = float(np.abs(composites).max()) or 1.0
    if vmin is None and vmax is None:
        vmax = largest if np.isfinite(largest) else 1.0
    vmin, vmax = (-vmax if vmin is None else vmin, -vmin if vmax is None else vmax)  # type: ignore[operator]

    lat, lon = composites["lat"].values.astype(float), composites["lon"].values.astype(float)
    west, degrees = _narrowest(lon)
    projection = _projection(lat, (west + degrees / 2 + 180) % 360 - 180)
    x, y = projection.transform_points(ccrs.PlateCarree(), lon, lat).T[:2]
    height = width * np.clip(np.ptp(y) / max(np.ptp(x), 1e-9), 0.4, 1.5)
    if columns is None:
        columns = count if count <= 3 else int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    figure = plt.figure(figsize=(width * columns + 0.8, (height + 0.3) * rows), layout="constrained")
    plain, style = ccrs.PlateCarree(), {"cmap": cmap, "vmin": vmin, "vmax": vmax}
    axes = []
    for k in range(count):
        ax = map_axes(lat, lon, figure.add_subplot(rows, columns, k + 1, projection=projection))
        values = composites[k]
        if (cells := _cells(values, west)) is not None:
            drawn = ax.pcolormesh(*cells, **style, transform=plain, zorder=0.5)  # under the coastlines
        else:
            there = np.isfinite(values.values)
            drawn = ax.scatter(
                lon[there], lat[there], s=size, c=values.values[there], **style,
                edgecolors=INK, linewidths=0.4, transform=plain, zorder=3,
            )  # fmt: skip
            ax.scatter(lon[~there], lat[~there], s=size / 2, c=INK, marker="x", transform=plain, zorder=3)
        ax.set_title(titles[k], fontsize=10)
        axes.append(ax)
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, aspect=30)
    return axes


def _cells(values: xr.DataArray, west: float) -> tuple[NDArray, NDArray, NDArray] | None:
    """Edges of the cells in longitude and latitude, and their values, if the stations are a whole grid."""
    try:
        grid = datasets.nodes_to_grid(values)
    except ValueError:
        return None
    if min(grid.shape) < 2:
        return None
    grid = grid.assign_coords(lon=(grid["lon"].values - west) % 360 + west).sortby(["lat", "lon"])

    def edges(middles: NDArray) -> NDArray:
        between = (middles[1:] + middles[:-1]) / 2
        return np.concatenate([2 * middles[:1] - between[:1], between, 2 * middles[-1:] - between[-1:]])

    return edges(grid["lon"].values), edges(grid["lat"].values).clip(-90, 90), grid.values


def transition_diagram(matrix: ArrayLike, labels: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Regimes as circles on a ring, and arrows for how one follows another.

    The area of a circle is the share of the time that its regime has in the long run, π with ``π P = π``. Below the
    name stands the probability of staying one more step, P[i, i]. The width of an arrow, and the number on it, is the
    probability that the next regime is j, given that i is left: ``P[i, j] / (1 - P[i, i])``. Arrows below 0.005
    are not drawn.

    Args:
        matrix: (regime, regime) transition probabilities of one step, from the row to the column.
        labels: one for each regime; their numbers by default.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        ValueError: for a matrix that is not square or whose rows are no probabilities, or another number of labels.
    """
    p = np.asarray(matrix, float)
    if p.ndim != 2 or p.shape[0] != p.shape[1] or p.size == 0:
        raise ValueError(f"matrix: expected a square one (regime, regime), found shape {p.shape}")
    wrong = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"matrix: expected rows of probabilities that sum to 1, found row {row}: {p[row]}")
    count = len(p)
    labels = [str(k) for k in range(count)] if labels is None else labels
    if len(labels) != count:
        raise ValueError(f"labels: expected one for each of {count} regimes, found {len(labels)}")
    # π (P - I) = 0 and Σ π = 1; of several solutions the most even one.
    equations = np.concatenate([p.T - np.eye(count), np.ones((1, count))])
    share = np.linalg.lstsq(equations, np.eye(count + 1)[count], rcond=None)[0].clip(0)
    leaving = p * (1 - np.eye(count))
    leaving = leaving / np.maximum(leaving.sum(axis=1, keepdims=True), 1e-12)

    if ax is None:
        ax = plt.figure(figsize=(5, 5), layout="constrained").add_subplot()
    angle = (np.pi if count == 2 else np.pi / 2) - 2 * np.pi * np.arange(count) / count
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (count > 1)
    radius = min(0.42, 0.6 * np.sin(np.pi / count) if count > 1 else 1) * np.sqrt(share / share.max())
    halo = [withStroke(linewidth=3, foreground="white")]
    circles = [
        Circle(tuple(centre), r, facecolor="#dfe5ea", edgecolor=INK, linewidth=1.2, zorder=2)
        for centre, r in zip(centres, radius, strict=True)
    ]
    for i, j in zip(*np.nonzero(leaving >= 0.005), strict=True):
        chance = leaving[i, j]
        arrow = FancyArrowPatch(
            tuple(centres[i]), tuple(centres[j]), patchA=circles[i], patchB=circles[j], shrinkA=2, shrinkB=2,
            arrowstyle=f"simple,head_length=9,head_width={7 + 9 * chance},tail_width={0.4 + 9 * chance}",
            connectionstyle="arc3,rad=0.18", facecolor=EDGE, edgecolor="none", zorder=1,
        )  # fmt: skip
        ax.add_patch(arrow)
        # A third of the way along the curve, the numbers of two opposite arrows keep apart.
        ahead = centres[j] - centres[i]
        spot = centres[i] + 0.36 * ahead + 0.09 * np.array([ahead[1], -ahead[0]])
        ax.text(
            spot[0],
            spot[1],
            f"{chance:.2f}",
            fontsize=8,
            ha="center",
            va="center",
            color=INK,
            path_effects=halo,
            zorder=3,
        )
    for k, circle in enumerate(circles):
        ax.add_patch(circle)
        ax.text(
            centres[k, 0], centres[k, 1], f"{labels[k]}\n{p[k, k]:.2f}", ha="center", va="center", fontsize=10,
            color=INK, path_effects=halo, zorder=4,
        )  # fmt: skip
    reach = 1.05 * np.abs(centres).max() + radius.max()
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set_axis_off()
    return ax


def regime_timeline(
    regimes: xr.DataArray,
    names: Sequence[str] | None = None,
    colours: Sequence[str] = OKABE_ITO,
    ax: Axes | None = None,
) -> Axes:
    """Which regime ruled when: a strip of colours, or the probabilities stacked on one another.

    Args:
        regimes: (time,) whole numbers from 0, or (time, regime) probabilities that sum to 1 at each time.
        names: one for each regime, for the legend; by default "regime 0" and so on.
        colours: at least one for each regime.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: for another kind of regimes, or fewer names or colours than regimes.
    """
    if not isinstance(regimes, xr.DataArray):
        raise TypeError(f"regimes: expected an xarray DataArray, found {type(regimes).__name__}")
    if regimes.dims not in (("time",), ("time", "regime")) or regimes.size == 0:
        raise ValueError(
            f"regimes: expected dims (time) or (time, regime), none of them empty, found {dict(regimes.sizes)}"
        )
    if regimes.ndim == 1:
        if regimes.dtype.kind not in "iu" or regimes.min() < 0:
            raise ValueError(
                f"regimes: expected whole numbers from 0, found dtype {regimes.dtype}, smallest {regimes.min().item()}"
            )
        share = np.eye(max(int(regimes.max()) + 1, len(names or ())))[regimes.values]
    else:
        share = regimes.values.astype(float)
        if not ((share >= -1e-6).all() and (np.abs(share.sum(axis=1) - 1) < 1e-3).all()):
            raise ValueError("regimes: expected probabilities of at least 0 that sum to 1 at each time")
    count = share.shape[1]
    names = [f"regime {k}" for k in range(count)] if names is None else names
    if len(names) != count:
        raise ValueError(f"names: expected one for each of {count} regimes, found {len(names)}")
    if len(colours) < count:
        raise ValueError(f"colours: expected at least one for each of {count} regimes, found {len(colours)}")
    if ax is None:
        ax = plt.figure(figsize=(8, 1.8), layout="constrained").add_subplot()
    time = regimes["time"].values
    # Each value holds half a step to either side.
    ax.stackplot(time, share.T, labels=names, colors=colours[:count], step="mid", linewidth=0)
    ax.set(ylim=(0, 1), xlim=(time[0], time[-1]) if time.size > 1 else None)
    if regimes.ndim == 1:
        ax.set_yticks([])
    else:
        ax.set_ylabel("probability")
    _time_axis(ax, time)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(count, 6), frameon=False, handlelength=1, fontsize=9)
    return ax


def _time_axis(ax: Axes, time: NDArray[Any]) -> None:
    if np.issubdtype(time.dtype, np.datetime64):
        locator = AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        ax.set_xlabel("time")


def gap_calendar(series: xr.DataArray, ax: Axes | None = None) -> Axes:
    """Which station reported when: a row for each station, dark where it did and light where a value is missing.

    Where many times share a point of the picture, its shade is the share of them that were observed. Times that
    the series does not have at all, such as the summers of a record of winters, are hatched.

    Args:
        series: (time, station), NaN where nothing was observed; the first station is drawn at the top.
        ax: axes to draw into.

    Returns:
        The axes. Stations have their names at the side where there are few enough to read them, up to 30.

    Raises:
        TypeError, ValueError: for another kind of series, an empty one, or times that do not rise.
    """
    if not isinstance(series, xr.DataArray):
        raise TypeError(f"series: expected an xarray DataArray (time, station), found {type(series).__name__}")
    if series.dims != ("time", "station") or series.size == 0:
        raise ValueError(f"series: expected dims (time, station), none of them empty, found {dict(series.sizes)}")
    time, count = series["time"].values, series.sizes["station"]
    dated = np.issubdtype(time.dtype, np.datetime64)
    if not dated and time.dtype.kind not in "fiu":
        raise TypeError(f"series: expected times that are dates or numbers, found dtype {time.dtype}")
    when = np.asarray(date2num(time) if dated else time, float)
    steps = np.diff(when)
    if not (steps > 0).all():
        raise ValueError("series: expected times in rising order, each once; use .sortby('time') and drop repeats")
    # An image has columns of one width, months have not: each column shows the time that is nearest to its middle.
    step = steps[steps <= 1.5 * np.median(steps)].mean() if steps.size else 1.0
    columns = min(round((when[-1] - when[0]) / step) + 1, 20_000)
    middle = np.linspace(when[0], when[-1], columns)
    nearest = np.searchsorted((when[1:] + when[:-1]) / 2, middle)
    there = np.abs(when[nearest] - middle) <= 0.75 * step
    observed = series.notnull().values[nearest] & there[:, None]
    # More columns than the picture has points would hide gaps at random: average them.
    together = -(-columns // 700)
    starts = np.arange(0, columns, together)
    total = np.add.reduceat(there.astype(float), starts)[:, None]
    share = np.add.reduceat(observed.astype(float), starts) / np.where(total > 0, total, np.nan)
    if ax is None:
        ax = plt.figure(figsize=(8, np.clip(0.7 + 0.18 * count, 1.5, 5.6)), layout="constrained").add_subplot()
    shades = LinearSegmentedColormap.from_list("gaps", [MISSING, OBSERVED])
    ax.patch.set(facecolor="white", hatch="////", edgecolor=COAST)  # shines through where there is no time
    width = (when[-1] - when[0]) / (columns - 1) if columns > 1 else step
    left = when[0] - width / 2
    ax.imshow(
        share.T, cmap=shades, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
        extent=(left, left + starts.size * together * width, count - 0.5, -0.5),
    )  # fmt: skip
    ax.set_xlim(left, when[-1] + width / 2)  # of the last column only a part may stand for times
    _time_axis(ax, time)
    if count <= 30:
        names = series["station"].values if "station" in series.coords else range(count)
        ax.set_yticks(range(count), [str(name) for name in names], fontsize=8)
        ax.tick_params(axis="y", length=0)
    else:
        ax.set(ylabel=f"{count} stations", yticks=[])
    marks = [Patch(facecolor=OBSERVED, label="observed"), Patch(facecolor=MISSING, edgecolor=COAST, label="missing")]
    if not there.all():
        marks.append(Patch(facecolor="white", hatch="////", edgecolor=COAST, label="not in the record"))
    ax.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, handlelength=1, fontsize=9
    )
    return ax
