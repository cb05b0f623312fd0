"""Drawing: stations and graphs on a map, and the course of a training.

Maps are drawn with the coastlines that come with the package, without a network. Colour maps are readable
for colour-blind eyes.
"""

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
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from . import datasets

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from .training import History

cartopy.config["pre_existing_data_dir"] = str(datasets.coastlines_dir())

SEA, LAND, COAST, INK, EDGE = "#eef3f7", "#f7f5ef", "#8a8f94", "#1b2a38", "#5b7ea3"


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
        # Regions near the pole would look stretched on a plain grid: shorten a degree of longitude.
        projection = ccrs.Mercator(middle) if np.abs(lat).max() < 75 else ccrs.PlateCarree(middle)
        ax = plt.figure(figsize=figsize, layout="constrained").add_subplot(projection=projection)
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
