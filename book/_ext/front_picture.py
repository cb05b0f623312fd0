"""Draw the picture of the front page: python book/_ext/front_picture.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from stgcn_lab import datasets, graphs, plots

wind = datasets.load_irish_wind().wind_speed
gale = wind.sel(station="VAL", time=slice("1961", "1970")).idxmax("time").values
days = gale + np.array([-1, 0, 1, 2], "timedelta64[D]")
graph = graphs.delaunay_graph(wind.lat, wind.lon, max_km=220)

fig = plt.figure(figsize=(11, 3.9), layout="constrained")
axes = []
for i, day in enumerate(days):
    ax = plots.map_axes(wind.lat, wind.lon, fig.add_subplot(1, 4, i + 1, projection=plots.ccrs.Mercator(-8)))
    plots.graph_map(graph, ax=ax, size=0)
    dots = ax.scatter(
        wind.lon,
        wind.lat,
        s=95,
        c=wind.sel(time=day),
        cmap="viridis",
        vmin=4,
        vmax=22,
        edgecolors=plots.INK,
        linewidths=0.7,
        transform=plots.ccrs.PlateCarree(),
        zorder=4,
    )
    ax.set_title(np.datetime_as_string(day, unit="D"), fontsize=11)
    axes.append(ax)
fig.colorbar(dots, ax=axes, label="daily mean wind (m/s)", shrink=0.85, pad=0.01)
fig.savefig(Path(__file__).parent.parent / "_static" / "front.png", dpi=110)
