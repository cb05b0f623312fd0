"""What a job found, written for people: one page that needs no network, figures, tables and a NetCDF file.

Everything is drawn in memory first and then appears in its folder at once, or not at all.
"""

import base64
import html
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from . import __version__, plots
from .workflows import SIMPLE, Result

# What a folder of results may hold: --force replaces these, and touches no folder that holds anything else.
FILES = (
    "report.html", "scores.csv", "regimes.nc", "regimes.csv", "forecast.nc", "forecast.csv", "filled.nc", "filled.csv",
    "maps.png", "timeline.png", "transitions.png", "months.png", "map-forecast.png", "map-unusual.png", "skill.png",
    "map-skill.png", "course.png", "gaps.png", "map-gaps.png", "example.png",
)  # fmt: skip
COLOURS = [*plots.OKABE_ITO, "#999999", "#663399", "#8b4513", "#2f4f4f"]  # one for each of up to twelve regimes
PLAIN = {"degC": "°C", "m s-1": "m/s", "mm d-1": "mm/day", "1": ""}
COMPASS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
REFERENCES = {
    "regimes": "Hamilton (1989), https://doi.org/10.2307/1912559; Yan et al. (2018), "
    "https://doi.org/10.1609/aaai.v32i1.12328",
    "graph network": "Yu, Yin & Zhu (2018), https://doi.org/10.24963/ijcai.2018/505",
    "network autoregression": "Knight, Leeming, Nason & Nunes (2020), https://doi.org/10.18637/jss.v096.i05",
    "vector autoregression": "Lütkepohl (2005), New Introduction to Multiple Time Series Analysis, Springer",
    "leading EOFs": "Beckers & Rixen (2003), https://doi.org/10.1175/1520-0426(2003)020<1839:ECADFF>2.0.CO;2",
    "kriging": "Cressie (1993), Statistics for Spatial Data, Wiley",
    "inverse distance": "Shepard (1968), https://doi.org/10.1145/800186.810616",
    "intervals": "Künsch (1989), https://doi.org/10.1214/aos/1176347265",
}


@dataclass(frozen=True)
class _Picture:
    name: str
    content: bytes
    alt: str
    caption: str
    wide: bool = False  # over both columns of the page


# ---------------------------------------------------------------------------- the folder


def check_out(out: str | os.PathLike[str], force: bool = False) -> Path:
    """Can results be written there? Nothing is changed.

    Args:
        out: folder that is not there yet, or is empty; with ``force`` one that holds an earlier result alone.
        force: whether to replace an earlier result.

    Returns:
        The absolute path.

    Raises:
        FileExistsError: something is there that would be lost.
        OSError: nothing can be written there.
    """
    path = Path(out).expanduser().resolve()
    if path in (cwd := Path.cwd(), *cwd.parents):
        raise FileExistsError(f"out: expected a folder of its own, found {out}, which holds where you are")
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"out: expected a folder, found the file {out}")
    there = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    if there and not force:
        raise FileExistsError(
            f"out: {out} holds {len(there)} files, such as {there[0]}; name a new folder, or replace "
            "earlier results by --force"
        )
    if foreign := [name for name in there if name not in FILES]:
        raise FileExistsError(
            f"out: {out} holds {foreign[0]}, which is none of the results; even --force leaves such a folder alone"
        )
    base = _standing(path.parent)
    try:
        with tempfile.TemporaryDirectory(dir=base, prefix=".stgcn-lab-") as folder:
            (Path(folder) / "try").write_bytes(b"x")
    except OSError as error:
        raise OSError(error.errno, f"out: nothing can be written in {base}: {error.strerror or error}") from error
    return path


def _standing(path: Path) -> Path:
    """The nearest folder upwards that is there."""
    while not path.exists():
        path = path.parent
    return path


def _publish(files: dict[str, bytes], path: Path) -> None:
    """Write all files into a folder beside, then give it its name: all appear at once, or none."""
    base = _standing(path.parent)
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    try:
        with tempfile.TemporaryDirectory(dir=base, prefix=".stgcn-lab-") as folder:
            new, old = Path(folder) / "new", Path(folder) / "old"
            new.mkdir()
            for name, content in files.items():
                (new / name).write_bytes(content)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(new, path)
            except BaseException:
                if old.exists():
                    os.rename(old, path)
                raise
    except BaseException as error:
        for parent in made:  # from the innermost
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if not isinstance(error, OSError):
            raise
        raise OSError(
            error.errno, f"out: could not write to {path}: {error.strerror or error}; nothing was left behind"
        ) from error


def write(
    result: Result,
    out: str | os.PathLike[str],
    *,
    source: str = "",
    findings: Iterable[Any] = (),
    force: bool = False,
) -> Path:
    """Write a result as a folder: ``report.html``, its figures and tables, and the data as NetCDF and CSV.

    The page holds its figures and asks for nothing from anywhere, so it can be sent by mail.

    Args:
        result: of :mod:`stgcn_lab.workflows`.
        out: a folder that is not there yet, or is empty.
        source: where the series came from, such as the name of a file.
        findings: what :func:`stgcn_lab.datasets.inspect_stations` found, each with ``what`` and ``advice``.
        force: replace an earlier result in ``out``.

    Returns:
        The path of the page.

    Raises:
        FileExistsError: something is there that would be lost.
        OSError: it could not be written; what was there before still is.
    """
    path = check_out(out, force)
    _publish(render(result, source=source, findings=findings), path)
    return path / "report.html"


def render(result: Result, *, source: str = "", findings: Iterable[Any] = ()) -> dict[str, bytes]:
    """All files of a result by their names, in memory. Arguments as in :func:`write`."""
    if not isinstance(result, Result):
        raise TypeError(f"result: expected a Result of stgcn_lab.workflows, found {type(result).__name__}")
    sentences, pictures, tables, data = _SECTIONS[result.job](result)
    files = {picture.name: picture.content for picture in pictures}
    files["scores.csv"] = result.scores.to_csv(index=False).encode()
    files |= data
    page = _page(result, sentences, pictures, tables, sorted(files), source, list(findings))
    return files | {"report.html": page.encode()}


def summary(result: Result) -> str:
    """The first sentence of the report, for a terminal."""
    words = {"forecast": _forecast_words, "regimes": _regime_words, "impute": _impute_words}
    return words[result.job](result)[0]


# ---------------------------------------------------------------------------- helpers


def _unit(x: xr.DataArray) -> str:
    units = str(x.attrs.get("units", ""))
    return PLAIN.get(units, units)


def _with_unit(value: float, x: xr.DataArray, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.3g} {_unit(x)}".strip().replace("-", "−")


def _with_interval(row: pd.Series, x: xr.DataArray) -> str:
    return f"{_with_unit(row['rmse'], x)} (95 % interval {_with_unit(row['low'], x)} to {_with_unit(row['high'], x)})"


def _named(x: xr.DataArray) -> str:
    return str(x.attrs.get("long_name") or x.name or "the series").replace("_", " ")


def _date(time: Any, step: str) -> str:
    stamp = pd.Timestamp(time)
    if step == "year":
        return f"{stamp:%Y}"
    if "month" in step:
        return f"{stamp:%B %Y}"
    return f"{stamp.day} {stamp:%B %Y}" + ("" if "day" in step else f", {stamp:%H:%M} UTC")


def _netcdf(data: xr.Dataset) -> bytes:
    attrs = {"Conventions": "CF-1.8", "source": f"stgcn-lab {__version__}"} | data.attrs
    squeeze = {name: {"zlib": True} for name, v in data.data_vars.items() if v.ndim > 1}
    return bytes(data.assign_attrs(attrs).to_netcdf(engine="netcdf4", encoding=squeeze))


def _drawn(name: str, draw: Callable[[], Any], alt: str, caption: str, wide: bool = False) -> _Picture:
    """Run what draws a figure and keep it as PNG; the reader's own figures stay as they are."""
    before = set(plt.get_fignums())
    style: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style | {"text.parse_math": False}):  # a name may hold a dollar
        try:
            draw()
            (new,) = set(plt.get_fignums()) - before
            content = io.BytesIO()
            plt.figure(new).savefig(content, dpi=130, format="png", bbox_inches="tight")
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return _Picture(name, content.getvalue(), alt, caption, wide)


def _figure(width: float, height: float) -> Figure:
    return plt.figure(figsize=(width, height), layout="constrained")


def _map(values: xr.DataArray, titles: list[str], label: str, cmap: str) -> None:
    """Maps side by side: dots for stations, with their names where few, cells for a grid."""
    known = values.values[np.isfinite(values.values)]
    style: dict[str, Any] = {"cmap": cmap}
    if cmap == "viridis":  # the others have their middle at zero
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        style |= {"vmin": low, "vmax": high if high > low else low + 1}
    count, stations = values.sizes["regime"], values.sizes["station"]
    size = float(np.clip(4000 / stations, 12, 70))
    width = 3.9 if count == 1 else 3.0
    axes = plots.regime_maps(values, titles, label=label, size=size, width=width, **style)
    for ax in axes if stations <= 15 else ():
        for name, lat, lon in zip(*(values[key].values for key in ("station", "lat", "lon")), strict=True):
            ax.annotate(
                str(name), (lon, lat), (4, 4), textcoords="offset points", fontsize=7, color=plots.INK,
                transform=ccrs.PlateCarree(), zorder=4,
            )  # fmt: skip


def _as_maps(x: xr.DataArray, rows: np.ndarray) -> xr.DataArray:
    """(regime, station) with the places of the series, as the drawing of maps takes it."""
    places = {name: c for name, c in x.coords.items() if c.dims == ("station",)}
    return xr.DataArray(rows, dims=("regime", "station"), coords=places, attrs=x.attrs)


def _normal(facts: dict[str, Any]) -> str:
    """What anomalies are counted from: a short record does not know its season."""
    return "what is usual at that time of the year" if facts["season"] else "the mean of the record"


def _station(x: xr.DataArray, station: int) -> str:
    """What a station is called, with its identifier."""
    label = str(x["station"].values[station])
    if {"lat", "lon"} <= set(x.coords) and label.isdigit() and "name" not in x.coords:  # a cell of a grid
        lat, lon = float(x["lat"][station]), (float(x["lon"][station]) + 180) % 360 - 180
        return f"{abs(lat):g}° {'N' if lat >= 0 else 'S'}, {abs(lon):g}° {'E' if lon >= 0 else 'W'}"
    name = str(x["name"].values[station]).strip() if "name" in x.coords else label
    return label if name in (label, "", "nan") else f"{name} ({label})"


def _where(x: xr.DataArray, station: int) -> str:
    """The part of the region in which a station lies."""
    lat, lon = x["lat"].values, x["lon"].values
    around = (lon - lon[station] + 180) % 360 - 180
    north, east = lat[station] - lat.mean(), -around.mean() * np.cos(np.deg2rad(lat.mean()))
    size = np.hypot(np.ptp(lat), np.ptp(around) * np.cos(np.deg2rad(lat.mean())))
    if np.hypot(north, east) < 0.12 * size:
        return "in the middle"
    return f"in the {COMPASS[round(np.degrees(np.arctan2(east, north)) / 45) % 8]}"


def _bars(scores: pd.DataFrame, chosen: str, unit: str) -> None:
    """Errors of the methods with their intervals, the best at the top, the chosen one dark."""
    figure = _figure(5.8, 0.6 + 0.36 * len(scores))
    ax = figure.add_subplot()
    rows = scores.iloc[::-1]
    colours = [plots.OKABE_ITO[0] if name == chosen else "#a9bccf" for name in rows["method"]]
    reach = np.abs(rows[["low", "high"]].to_numpy().T - rows["rmse"].to_numpy())
    ax.barh(rows["method"], rows["rmse"], xerr=reach, color=colours, error_kw={"ecolor": plots.INK, "capsize": 3})
    ax.set_xlabel(f"root mean square error ({unit or 'units of the series'}), 95 % interval")
    ax.grid(axis="x", alpha=0.3)


def _against(row: pd.Series, chosen: str, x: xr.DataArray) -> str:
    """How the chosen method stands to another, in a sentence that the interval allows."""
    if row["difference high"] < 0:
        less = -row["chosen minus it"] / row["rmse"]
        return (
            f"Its error is {less:.0%} smaller than that of {row['method']} "
            f"({_with_unit(row['chosen minus it'], x, True)}; 95 % interval "
            f"{_with_unit(row['difference low'], x, True)} to {_with_unit(row['difference high'], x, True)})."
        )
    if row["difference low"] > 0:
        return (
            f"On the scored part {row['method']} was better, by {_with_unit(row['chosen minus it'], x)}: "
            f"the part of the record that chose {chosen} was not like the part that scored it."
        )
    return f"It cannot be told from {row['method']}: the interval of the difference holds zero."


def _score_rows(scores: pd.DataFrame, chosen: str) -> list[list[str]]:
    rows = []
    for _, row in scores.iterrows():
        same = row["method"] == chosen
        gap = "chosen" if same else f"{row['chosen minus it']:+.2g} ({row['difference low']:+.2g} to "
        gap += "" if same else f"{row['difference high']:+.2g})"
        rows.append(
            [row["method"], f"{row['rmse']:.3g} ({row['low']:.3g} to {row['high']:.3g})", gap.replace("-", "−")]
        )
    return rows


Table = tuple[str, list[str], list[list[str]]]  # caption, head, rows
Section = tuple[list[str], list[_Picture], list[Table], dict[str, bytes]]

# ---------------------------------------------------------------------------- forecast


def _forecast_words(result: Result) -> list[str]:
    x, data, facts, chosen = result.series, result.data, result.facts, result.chosen
    step, scores = facts["step"], result.scores
    first = data["forecast"].values[0]
    usual = first - data["usual"].values[0]
    highest, lowest = int(np.argmax(first)), int(np.argmin(first))
    when = _date(data["time"].values[0], step)
    now = scores[scores["lead"] == 1]
    mine = now[now["method"] == chosen].iloc[0]
    sentences = [
        f"The forecast for {when}, the first {step} after the record: {_with_unit(first.mean(), x)} on average, "
        f"{_with_unit(abs(usual.mean()), x)} {'above' if usual.mean() >= 0 else 'below'} {_normal(facts)}; "
        f"most at {_station(x, highest)} {_where(x, highest)} ({_with_unit(first[highest], x)}), "
        f"least at {_station(x, lowest)} {_where(x, lowest)} ({_with_unit(first[lowest], x)}).",
        f"Made by: {chosen}. It did best on the part of the record that chooses ({facts['parts'][1]}). On the part "
        f"kept for scoring ({facts['parts'][2]}) its root mean square error one {step} ahead was "
        f"{_with_interval(mine, x)}.",
    ]
    sentences += [
        _against(row, chosen, x) for _, row in now.iterrows() if row["method"] in SIMPLE and row.method != chosen
    ]
    linear = now[~now["method"].isin([*SIMPLE, "graph network"])]
    if chosen == "graph network":
        sentences.append(_against(linear.iloc[0], chosen, x))
    elif "graph network" in set(now["method"]):
        sentences.append(
            "A graph network was tried too and not chosen: on the choosing part a simpler method did better."
        )
    sentences.append(
        f"The interval that should hold 90 % of what follows held {facts['held'][1]:.0%} of the scored values."
    )
    return sentences


def _forecast(result: Result) -> Section:
    x, data, facts, chosen = result.series, result.data, result.facts, result.chosen
    step, unit, scores, names = facts["step"], _unit(x), result.scores, x["station"].values
    first, when = data["forecast"].values[0], _date(data["time"].values[0], step)
    usual = first - data["usual"].values[0]
    highest, lowest = int(np.argmax(first)), int(np.argmin(first))
    now, normal = scores[scores["lead"] == 1], _normal(facts)
    lead = facts["lead"]
    shown = sorted({0, lead // 2, lead - 1})
    titles = [_date(data["time"].values[i], step) for i in shown]
    pictures = [
        _drawn(
            "map-forecast.png",
            lambda: _map(_as_maps(x, data["forecast"].values[shown]), titles, f"{_named(x)} ({unit})", "viridis"),
            f"Map of the forecast of {_named(x)} at {len(names)} stations, from {_with_unit(first[lowest], x)} at "
            f"{_station(x, lowest)} to {_with_unit(first[highest], x)} at {_station(x, highest)} on {when}.",
            f"Forecast of {_named(x)}.",
            len(shown) > 1,
        ),
        _drawn(
            "map-unusual.png",
            lambda: _map(
                _as_maps(x, (data["forecast"] - data["usual"]).values[shown]), titles, f"difference ({unit})", "RdBu_r"
            ),
            f"Map of the forecast less {normal}, {_with_unit(usual.min(), x, True)} to "
            f"{_with_unit(usual.max(), x, True)} on {when}.",
            f"How far the forecast is from {normal}.",
            len(shown) > 1,
        ),
        _drawn(
            "skill.png",
            lambda: _bars(now, chosen, unit),
            f"Bars of the errors of {len(now)} methods: "
            + ", ".join(f"{r.method} {r.rmse:.3g}" for r in now.itertuples())
            + ".",
            f"Errors one {step} ahead on the part of the record that chose nothing ({facts['parts'][2]}).",
        ),
    ]
    truth, past = data["past_observed"], data["past_forecast"][0]
    known = (truth.notnull() & x.shift(time=1)[-truth.sizes["past_time"] :].notnull().values).values
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.where(known, (past - truth).values ** 2, np.nan)
        before = np.where(known, np.diff(x.values, axis=0)[-len(squares) :] ** 2, np.nan)
        count = known.sum(axis=0)
        skill = np.where(count >= 10, 1 - np.sqrt(np.nansum(squares, axis=0) / np.nansum(before, axis=0)), np.nan)
    good = int((skill > 0).sum())
    pictures.append(
        _drawn(
            "map-skill.png",
            lambda: _map(_as_maps(x, 100 * skill[None]), [f"one {step} ahead"], "error smaller by (%)", "BrBG"),
            f"Map of the gain over persistence: the error is smaller at {good} of {np.isfinite(skill).sum()} stations.",
            "By how much the error is smaller than that of 'as today' (persistence); green is better, brown is worse.",
        )
    )
    best = int(np.argmax(truth.notnull().sum("past_time").values))
    pictures.append(
        _drawn(
            "course.png",
            lambda: _course(result, best),
            f"Observed {_named(x)} at {_station(x, best)} over the last steps, what was forecast one step ahead, and "
            "the new forecast with its interval.",
            f"The end of the record at {_station(x, best)}, forecast one {step} ahead, and the new forecast (90 %).",
        )
    )
    tables = [
        (
            f"Errors {h} {step}{'s' if h > 1 and not step[0].isdigit() else ''} ahead ({unit})",
            ["method", "root mean square error (95 % interval)", "chosen minus it (95 % interval)"],
            _score_rows(scores[scores["lead"] == h], chosen),
        )
        for h in sorted({1, lead})
    ]
    table = data[["forecast", "lower", "upper"]].reset_coords(drop=True).to_dataframe().reset_index()
    table.insert(2, "lead", np.repeat(data["lead"].values, len(names)))
    return _forecast_words(result), pictures, tables, {"forecast.nc": _netcdf(data), "forecast.csv": _csv(table)}


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g").encode()


def _course(result: Result, station: int) -> None:
    data, x = result.data, result.series
    truth, past = data["past_observed"].values[-60:, station], data["past_forecast"].values[0, -60:, station]
    before, after = data["past_time"].values[-60:], data["time"].values
    middle = data["forecast"].values[:, station]
    reach = np.abs(np.stack([data[name].values[:, station] for name in ("lower", "upper")]) - middle)
    ax = _figure(6.2, 2.9).add_subplot()
    ax.plot(before, truth, color=plots.INK, marker=".", markersize=4, label="observed")
    ax.plot(before, past, color=plots.OKABE_ITO[1], label="forecast one step before")
    new: dict[str, Any] = {
        "color": plots.OKABE_ITO[0],
        "marker": "o",
        "linestyle": "none",
        "capsize": 3,
        "label": "new forecast, 90 %",
    }
    ax.errorbar(after, middle, reach, **new)
    ax.set_ylabel(f"{_named(x)} ({_unit(x)})")
    plots._time_axis(ax, before)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


# ---------------------------------------------------------------------------- regimes


def _regime_words(result: Result) -> list[str]:
    x, facts = result.series, result.facts
    count, step = facts["k"], facts["step"]
    sentences = [_verdict(facts)]
    if facts["apart"] > 0.5:
        sentences.append(
            "Beware: the first and the second half of the record hardly share their regimes "
            f"({facts['apart']:.0%} of the time would have to change its regime). So they tell early from late years. "
            "Look for a station that was moved, another instrument or a drift before you call them weather."
        )
    for j, values in enumerate(result.data["composite"].values):
        middle, far = np.nanmean(values), int(np.nanargmax(np.abs(values)))
        lasts = f", some {facts['durations'][j]:.3g} {step}s at a stretch" if count > 1 else ""
        sentences.append(
            f"Regime {j}: {facts['shares'][j]:.0%} of the time{lasts}; on average "
            f"{_with_unit(abs(middle), x)} {'above' if middle >= 0 else 'below'} {_normal(facts)}, farthest from it at "
            f"{_station(x, far)}, {_where(x, far)} ({_with_unit(values[far], x, True)})."
        )
    if count > 1:
        word = "closely" if facts["agreement"] > 0.5 else "partly" if facts["agreement"] > 0.15 else "hardly"
        sentences.append(
            f"Clusters of the leading EOFs, the classical method, agree {word} with these regimes (adjusted Rand index "
            f"{facts['agreement']:.2f}; 1 is the same, 0 is chance): regimes here differ in how weather moves as well."
        )
    return sentences


def _regimes(result: Result) -> Section:
    x, data, facts = result.series, result.data, result.facts
    count, step, unit = facts["k"], facts["step"], _unit(result.series)
    composite = data["composite"].values
    sentences = _regime_words(result)
    rows = []
    for j in range(count):
        middle = np.nanmean(composite[j])
        far = int(np.nanargmax(np.abs(composite[j])))
        months = data["share"].values[j]
        likely = int(np.nanargmax(months))
        where = f"{_station(x, far)}, {_where(x, far)} ({_with_unit(composite[j, far], x, True)})"
        rows.append(
            [str(j), f"{facts['shares'][j]:.0%}", f"{facts['durations'][j]:.3g} {step}s" if count > 1 else "always"]
            + [_with_unit(middle, x, True), where, f"{pd.Timestamp(2000, likely + 1, 1):%B} ({months[likely]:.0%})"]
        )
    titles = [f"regime {j}: {share:.0%}" for j, share in enumerate(facts["shares"])]
    pictures = [
        _drawn(
            "maps.png",
            lambda: _map(_as_maps(x, composite), titles, f"anomaly ({unit})", "RdBu_r"),
            f"{count} maps, one for each regime, of the mean anomaly of {_named(x)}: "
            + "; ".join(
                f"regime {j} {np.nanmin(c):+.2g} to {np.nanmax(c):+.2g} {unit}" for j, c in enumerate(composite)
            ),
            f"Mean anomaly of {_named(x)} in each regime, from {_normal(facts)}.",
            count > 1,
        ),
        _drawn(
            "timeline.png",
            lambda: _timeline(data),
            f"Strip of colours that shows which of {count} regimes ruled when.",
            "Which regime ruled when: above the whole record, below its last part.",
            count > 1,
        ),
        _drawn(
            "months.png",
            lambda: _months(data),
            "Stacked bars of the share of each regime in each month of the year.",
            "How often each regime rules in each month.",
        ),
    ]
    if count > 1:
        pictures.append(
            _drawn(
                "transitions.png",
                lambda: plots.transition_diagram(data["transition"].values),
                "Circles for regimes with arrows for how one follows another; probability to stay: "
                + ", ".join(f"{p:.2f}" for p in np.diag(data["transition"].values)),
                f"How one regime follows another. In a circle: the chance to stay one more {step}; at an arrow: where "
                "it goes when it ends.",
            )
        )
    head = ["regime", "share of the time", "mean duration", "mean anomaly", "farthest", "most often in"]
    tables = [("The regimes", head, rows)]
    gains = result.scores
    if len(gains) and count > 1:
        tables.append(
            ("How many regimes the held-out halves want", list(gains.columns),
             [[f"{row.iloc[0]:.0f}", f"{row.iloc[1]:+.3f}".replace("-", "−")] for _, row in gains.iterrows()])
        )  # fmt: skip
    table = data["regime"].to_dataframe().reset_index()
    for j in range(count):
        table[f"probability_{j}"] = data["probability"].values[:, j]
    return sentences, pictures, tables, {"regimes.nc": _netcdf(data), "regimes.csv": _csv(table)}


def _verdict(facts: dict[str, Any]) -> str:
    if facts["k"] == 1:
        return "One regime: the record gives no reason to tell several kinds of weather apart."
    if facts["supported"]:
        return (
            f"The record supports {facts['k']} regimes: each half of it is foretold better by those of the other half."
        )
    return (
        f"The record does not show that there are {facts['k']} regimes: its halves do not prefer them to fewer. Take "
        f"the maps as a description, not as a discovery. ({facts['verdict']})"
    )


def _timeline(data: xr.Dataset) -> None:
    figure = _figure(6.2, 3.2)
    upper, lower = figure.subplots(2, 1)
    count = data.sizes["regime_number"]
    names = [f"regime {j}" for j in range(count)]
    plots.regime_timeline(data["regime"], names, COLOURS, ax=upper)
    plots.regime_timeline(data["regime"][-min(120, data.sizes["time"]) :], names, COLOURS, ax=lower)
    lower.get_legend().remove()


def _months(data: xr.Dataset) -> None:
    ax = _figure(6.2, 2.9).add_subplot()
    below = np.zeros(12)
    for j, share in enumerate(np.nan_to_num(data["share"].values)):
        ax.bar(range(12), share, bottom=below, color=COLOURS[j], label=f"regime {j}", width=0.85)
        below += share
    ax.set_xticks(range(12), [f"{pd.Timestamp(2000, m, 1):%b}" for m in range(1, 13)])
    ax.set(ylabel="share of the month", ylim=(0, 1))
    ax.legend(frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)


# ---------------------------------------------------------------------------- filled gaps


def _impute_words(result: Result) -> list[str]:
    x, facts, chosen = result.series, result.facts, result.chosen
    scores, missing = result.scores, result.series.isnull().values
    mine = scores[scores["method"] == chosen].iloc[0]
    gone = f"{facts['missing']} of {missing.size} values ({facts['share']:.1%}) were missing and are filled; "
    sentences = [
        (gone if facts["missing"] else "Nothing was missing, so nothing was filled; ")
        + "what was observed stands as it was.",
        f"Filled by: {chosen}. On {facts['hidden']} known values hidden for the purpose, in runs of {facts['gap'][0]} "
        f"to {facts['gap'][1]} steps as the record's own gaps, its root mean square error was "
        f"{_with_interval(mine, x)}.",
    ]
    simple = ("straight line in time", "season and own past and future", "inverse distance")
    sentences += [
        _against(row, chosen, x)
        for _, row in scores.iterrows()
        if row["method"] in simple[:2] and row["method"] != chosen
    ]
    if facts["held"] is not None:
        sentences.append(f"The interval that should hold 90 % of the hidden values held {facts['held']:.0%} of them.")
    sentences.append("Gaps longer than those, or at stations far from all others, are filled worse than this.")
    return sentences


def _impute(result: Result) -> Section:
    x, data, facts, chosen = result.series, result.data, result.facts, result.chosen
    unit, scores, missing = _unit(x), result.scores, x.isnull().values
    share = 100 * missing.mean(axis=0)
    worst = int(share.argmax())
    station = int(np.argmax(_longest_gap(missing))) if missing.any() else 0
    name = _station(x, station)
    pictures = [
        _drawn(
            "gaps.png",
            lambda: plots.gap_calendar(x),
            f"A row for each of {x.sizes['station']} stations, dark where it reported: {facts['share']:.1%} missing.",
            "What was observed (dark) and what was filled (light).",
        ),
        _drawn(
            "map-gaps.png",
            lambda: _map(_as_maps(x, share[None]), [""], "missing (%)", "viridis"),
            f"Map of the share of missing values, {share.min():.0f} to {share.max():.0f} %, most at "
            f"{_station(x, worst)}.",
            "Share of the values that were missing at each station.",
        ),
        _drawn(
            "skill.png",
            lambda: _bars(scores, chosen, unit),
            "Bars of the errors of the methods: " + ", ".join(f"{r.method} {r.rmse:.3g}" for r in scores.itertuples()),
            "Errors on known values that were hidden, and chose nothing.",
        ),
        _drawn(
            "example.png",
            lambda: _example(result, station),
            f"{_named(x)} at {name} around its longest gap, observed and filled.",
            f"Around the longest gap at {name}: observed, and filled with the interval of 90 % where it is known.",
        ),
    ]
    head = ["method", "root mean square error (95 % interval)", "chosen minus it (95 % interval)"]
    tables = [(f"Errors on hidden values ({unit})", head, _score_rows(scores, chosen))]
    wide = data[facts["variable"]].reset_coords(drop=True).to_pandas().reset_index()
    return _impute_words(result), pictures, tables, {"filled.nc": _netcdf(data), "filled.csv": _csv(wide)}


def _longest_gap(missing: np.ndarray) -> np.ndarray:
    """(station,) steps of the longest gap."""
    longest, run = np.zeros(missing.shape[1], int), np.zeros(missing.shape[1], int)
    for row in missing:
        run = np.where(row, run + 1, 0)
        longest = np.maximum(longest, run)
    return longest


def _example(result: Result, station: int) -> None:
    x, data = result.series[:, station], result.data.isel(station=station)
    gone, run, ends = x.isnull().values, 0, (0, 0)
    for t, lost in enumerate(gone):
        run = run + 1 if lost else 0
        if run > ends[1]:
            ends = (t, run)
    pad = int(np.clip(2 * ends[1], 20, 120))
    part = slice(max(ends[0] - ends[1] - pad, 0), ends[0] + pad)
    x, gone, data = x[part], gone[part], data.isel(time=part)
    time, filled = x["time"].values, np.where(gone, data[result.facts["variable"]].values, np.nan)
    ax = _figure(6.2, 2.9).add_subplot()
    ax.plot(time, x.values, color=plots.INK, marker=".", markersize=4, label="observed", zorder=3)
    reach = 1.645 * np.where(gone, data["spread"].values, np.nan) if "spread" in data else None
    bars: dict[str, Any] = {"color": plots.OKABE_ITO[0], "marker": "o", "markersize": 3, "linestyle": "none"}
    ax.errorbar(time, filled, reach, label="filled" + (", 90 %" if reach is not None else ""), elinewidth=0.8, **bars)
    ax.set_ylabel(f"{_named(x)} ({_unit(x)})")
    plots._time_axis(ax, time)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


_SECTIONS: dict[str, Callable[[Result], Section]] = {"forecast": _forecast, "regimes": _regimes, "impute": _impute}

# ---------------------------------------------------------------------------- the page

STYLE = """
:root { color-scheme: light dark; --ink: #1b2a38; --soft: #52616f; --back: #fbfaf7; --card: #ffffff; --line: #d8dee4;
  --accent: #0b5c93; --best: #e4eff8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #a7b4c0; --back: #14191f; --card: #1d252d;
  --line: #36414c; --accent: #7cc0f2; --best: #1f3a50 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 58rem; margin: 0 auto; padding: 1.25rem 1rem 3rem }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: .5rem 0 }
h3 { font-size: 1rem; margin: 1rem 0 .2rem }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line) }
p.lead { color: var(--soft); margin: 0 0 1rem } ul { padding-left: 1.2rem } li { margin: .35rem 0 }
section.short { background: var(--card); border: 1px solid var(--line); border-left: .3rem solid var(--accent);
  border-radius: .5rem; padding: .4rem 1.1rem .7rem }
section.short h2 { border: 0; margin-top: .4rem; padding: 0 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem }
figure.wide { grid-column: 1 / -1 }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto }
figcaption { color: #3d4a56; font-size: .9rem; padding: .5rem .3rem 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .93rem }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top;
  font-variant-numeric: tabular-nums }
tr.best td { background: var(--best); font-weight: 600 } a { color: var(--accent); overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { color: var(--soft) } dd { margin: 0 }
code { overflow-wrap: anywhere } footer { color: var(--soft); font-size: .88rem; margin-top: 2.5rem }
@media print { body { background: #fff } figure { break-inside: avoid } }
"""
TITLES = {"forecast": "Forecast", "regimes": "Weather regimes", "impute": "Filled gaps"}
READ = {
    "forecast": "Root mean square error is the usual size of the difference between forecast and observation, mean "
    "over the stations. Persistence says that it stays as it is; climatology says what is usual in the season: a "
    "forecast that beats neither is worth nothing. An interval of 95 % says what other stretches of weather as long "
    "might have given (moving blocks); where the interval of a difference holds zero, this record cannot tell the two "
    "methods apart.",
    "regimes": "A regime is a kind of weather that lasts for a while and comes back. Its map says how far values are "
    "from usual, its dynamics how today's map grows out of yesterday's. The check: what was fitted to one half of the "
    "record judges the other half, with this number of regimes and with fewer. Regimes are found by a computer in "
    "numbers: whether they mean something in the atmosphere needs other data, such as maps of pressure.",
    "impute": "A filled value is an estimate, smoother than weather: use it where a method needs a complete series, "
    "and not for extremes or trends. The errors here are those on known values that were hidden in runs like the "
    "record's own gaps; they say how good the filling is, as far as real gaps are like these.",
}


def _text(value: Any) -> str:
    return html.escape(str(value))


def _linked(text: str) -> str:
    """Escaped, with its addresses as links."""
    parts = re.split(r"(https://\S+?)(?=[;,.]?(?:\s|$))", text)
    return "".join(
        f'<a href="{_text(part.replace("<", "%3C").replace(">", "%3E"))}">{_text(part)}</a>'
        if part.startswith("https://")
        else _text(part)
        for part in parts
    )


def _finding(finding: Any) -> str:
    return f"{finding.what} ({finding.advice})" if finding.advice else str(finding.what)


def _page(
    result: Result,
    sentences: list[str],
    pictures: list[_Picture],
    tables: list[Table],
    files: list[str],
    source: str,
    findings: list[Any],
) -> str:
    x = result.series
    title = f"{TITLES[result.job]}: {_named(x)}"
    span = f"{str(x.time.values[0])[:10]} to {str(x.time.values[-1])[:10]}"
    facts = {
        "data": source or str(x.attrs.get("source", "a series")),
        "variable": f"{_named(x)}, {_unit(x) or 'no units'}",
        "stations": f"{x.sizes['station']}",
        "period": f"{span}, {x.sizes['time']} steps (one a {result.facts['step']})",
        "missing": f"{float(x.isnull().mean()):.1%} of the values",
    }
    doubts = [_finding(f) for f in findings if f.level == "warning"]
    told = [_finding(f) for f in findings if f.level != "warning"] + list(result.notes)
    cite = [
        "This report: stgcn-lab "
        f"{__version__}, Weather on graphs: spatio-temporal graph convolutional networks for regional weather.",
        f"The data{f' ({source})' if source else ''}: whoever measured them; look up how they want to be cited.",
    ]
    keys = [
        key
        for key in REFERENCES
        if key in (result.job, result.chosen) or (key == "kriging" and "kriging" in result.chosen)
    ]
    if result.job != "regimes":
        keys.append("intervals")
    cite += [f"The method ({key}): {REFERENCES[key]}" for key in keys]

    def items(lines: list[str], write: Callable[[str], str] = _text) -> str:
        return "<ul>" + "".join(f"<li>{write(line)}</li>" for line in lines) + "</ul>"

    body = [f"<h1>{_text(title)}</h1>", f'<p class="lead">{_text(x.sizes["station"])} stations, {_text(span)}</p>']
    body.append(f'<section class="short"><h2>In short</h2>{items(sentences)}</section>')
    body.append('<h2>What it looks like</h2><div class="figures">')
    for picture in pictures:
        data = base64.b64encode(picture.content).decode()
        body.append(
            f"<figure{' class=wide' if picture.wide else ''}>"
            f'<img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}">'
            f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
        )
    body.append(f"</div><h2>How good it is</h2><p>{_text(READ[result.job])}</p>")
    for caption, head, rows in tables:
        cells = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
        lines = "".join(
            f"<tr{' class=best' if row[-1] == 'chosen' else ''}>"
            + "".join(f"<td>{_text(c)}</td>" for c in row)
            + "</tr>"
            for row in rows
        )
        body.append(
            f'<div class="wide"><table><caption>{_text(caption)}</caption><thead><tr>{cells}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
        )
    body.append("<h2>The data, and what was done to them</h2><dl>")
    body += [f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts.items()]
    repaired = f"<h3>Repaired, or worth a look</h3>{items(doubts)}" if doubts else "<p>Nothing had to be repaired.</p>"
    body.append(f"</dl>{repaired}<h3>What was done</h3>{items(told)}")
    body.append(f"<h2>How to cite</h2>{items(cite, _linked)}")
    body.append(f"<h2>Files beside this page</h2><p><code>{_text(', '.join(files))}</code></p>")
    body.append(f"<footer>Made by stgcn-lab {_text(__version__)}. This page needs no network.</footer>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )
