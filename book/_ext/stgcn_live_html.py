"""What the page with a network in it looks like before, and without, a script: map, graph, days, tables, sentences.

Everything is drawn from the dictionary of stgcn_live.Stage.data. The modules in book/_live find their places in this
HTML by the names in ``data-`` attributes, and change what stands there.
"""

from __future__ import annotations

from datetime import date
from html import escape
from math import asinh, degrees, radians, tan
from typing import Any

WEST, EAST, SOUTH, NORTH, WIDTH = -11.2, -5.1, 51.2, 55.75, 420
UNITS = WIDTH / (EAST - WEST)  # of the map in a degree of longitude


def mercator(lat: float) -> float:
    return degrees(asinh(tan(radians(lat))))


HEIGHT = round((mercator(NORTH) - mercator(SOUTH)) * UNITS)
MAP = {"west": WEST, "east": EAST, "south": SOUTH, "north": NORTH, "width": WIDTH, "height": HEIGHT}
# Where a name stands beside its station: clear of the others and of the coast.
LEFT_OF = {"MUL", "SHA"}
DAY_HEIGHT, DAY_WIDTH = 46, 132  # of the small pictures of the last days, in their own units
DAY_TOP = 20  # m/s at their upper edge


def place(lat: float, lon: float) -> tuple[float, float]:
    """A point of the map: Mercator's projection, which the modules use too."""
    return round((lon - WEST) * UNITS, 1), round((mercator(NORTH) - mercator(lat)) * UNITS, 1)


def land_path() -> str:
    """The land of the map as the path of an SVG, from the coastlines that come with the package."""
    from cartopy.io.shapereader import Reader
    from shapely.geometry import box

    from stgcn_lab import datasets

    file = datasets.coastlines_dir() / "shapefiles" / "natural_earth" / "physical" / "ne_50m_land.shp"
    around = box(WEST - 1, SOUTH - 1, EAST + 1, NORTH + 1)  # the cut edges lie outside the picture
    path = []
    for shape in Reader(file).geometries():
        inside = shape.intersection(around)
        for part in getattr(inside, "geoms", [inside]):
            if part.geom_type == "Polygon" and not part.is_empty:
                points = [place(lat, lon) for lon, lat in part.exterior.coords]
                path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z")
    return "".join(path)


def colour(data: dict[str, Any], view: str, value: float) -> tuple[str, str]:
    """Fill of a station, and the colour of the number on it."""
    of = data["views"][view]
    palette = data["palettes"][of["palette"]]
    share = min(max((value - of["low"]) / (of["high"] - of["low"]), 0), 1)
    fill = palette[round(share * (len(palette) - 1))]
    red, green, blue = (int(fill[i : i + 2], 16) for i in (1, 3, 5))
    return fill, "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#111"


def speed(value: float, sign: str = "") -> str:
    """Metres a second with one decimal, and with a true minus sign."""
    text = f"{value:{sign}.1f}"
    return (text if float(text) else "0.0").replace("-", "−")


def day(iso: str, year: bool = False) -> str:
    found = date.fromisoformat(iso)
    return f"{found.day} {found:%B %Y}" if year else f"{found:%a} {found.day} {found:%b}"


def edges_of(data: dict[str, Any]) -> list[tuple[int, int, float]]:
    """Each edge once, with its entry in the operator."""
    rows = data["operator"]
    return [(i, j, rows[i][j]) for i in range(len(rows)) for j in range(i + 1, len(rows)) if rows[i][j]]


def days_of(data: dict[str, Any], key: str) -> dict[str, Any]:
    return next(one for one in data["days"] if one["key"] == key)


# ---------------------------------------------------------------------------- the map


def map_svg(data: dict[str, Any], first: str, values: list[float]) -> str:
    stations = data["stations"]
    at = [place(one["lat"], one["lon"]) for one in stations]
    lines = "".join(
        f'<g class="live-edge" data-pair="{i}-{j}"><line class="live-wire" x1="{at[i][0]}" y1="{at[i][1]}" '
        f'x2="{at[j][0]}" y2="{at[j][1]}" stroke-width="{1 + 9 * weight:.2f}"/></g>'
        for i, j, weight in edges_of(data)
    )
    dots = []
    for i, (station, (x, y), value) in enumerate(zip(stations, at, values, strict=True)):
        fill, ink = colour(data, "tomorrow", value)
        left = station["code"] in LEFT_OF
        dots.append(
            f'<g class="live-node" data-i="{i}" transform="translate({x} {y})">'
            '<circle class="live-reach" r="20"/><circle class="live-hand" r="23"/>'
            f'<circle class="live-dot" r="15" fill="{fill}"/>'
            # the name first, and a space: read aloud it is "Malin Head 7.1"
            f'<text class="live-name" x="{-19 if left else 19}" y="-12" text-anchor="{"end" if left else "start"}">'
            f"{escape(station['name'])} </text>"
            f'<text class="live-number" y="4.5" fill="{ink}">{speed(value)}</text></g>'
        )
    return (
        f'<svg class="live-svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-labelledby="live-map-name" '
        'aria-describedby="live-hint" data-live="map">'
        '<title id="live-map-name">Map of Ireland with twelve wind stations, the graph between them and tomorrow’s '
        'wind in metres a second</title><rect class="live-sea" width="100%" height="100%"/>'
        f'<path class="live-land" d="{land_path()}"/>'
        f'<g data-live="edges" aria-hidden="true">{lines}</g><g data-live="ghosts" aria-hidden="true"></g>'
        f'<g data-live="nodes">{"".join(dots)}</g></svg>'
    )


def legend(data: dict[str, Any], view: str) -> str:
    of = data["views"][view]
    palette = data["palettes"][of["palette"]]
    middle = (of["low"] + of["high"]) / 2
    ticks = "".join(f"<span>{end}</span>" for end in (f"{of['low']:g}", f"{middle:g} m/s", f"{of['high']:g} or more"))
    return (
        f'<div class="live-legend" data-live="legend"><div class="live-bar" style="background:linear-gradient(90deg,'
        f'{",".join(palette[::4])})"></div><div class="live-ticks">{ticks}</div></div>'
    )


# ---------------------------------------------------------------------------- the days and the tables


def day_picture(data: dict[str, Any], days: dict[str, Any], i: int) -> str:
    """Five bars for the days and a dot for tomorrow, on a line for what is usual."""

    def height(value: float) -> float:
        return round(min(value / DAY_TOP, 1) * DAY_HEIGHT, 1)

    bars = []
    for d in range(5):
        tall = height(days["wind"][d][i])
        bars.append(f'<rect x="{4 + 20 * d}" y="{DAY_HEIGHT - tall:g}" width="15" height="{tall:g}"/>')
    usual, tomorrow = height(days["season"][5][i] ** 2), height(days["forecast"][i])
    return (
        f'<svg viewBox="0 0 {DAY_WIDTH} {DAY_HEIGHT}" aria-hidden="true"><g class="live-bars">{"".join(bars)}</g>'
        f'<line class="live-usual" x1="0" x2="{DAY_WIDTH}" y1="{DAY_HEIGHT - usual:g}" y2="{DAY_HEIGHT - usual:g}"/>'
        f'<circle class="live-untouched" cx="118" cy="{DAY_HEIGHT - tomorrow:g}" r="4.5"/>'
        f'<circle class="live-tomorrow" cx="118" cy="{DAY_HEIGHT - tomorrow:g}" r="4.5"/></svg>'
    )


def days_html(data: dict[str, Any], days: dict[str, Any], first: str) -> str:
    cards = "".join(
        f'<li><div class="live-card{" is-first" if one["code"] == first else ""}" data-i="{i}">'
        f'<span class="live-card-name">{escape(one["name"])}</span>{day_picture(data, days, i)}'
        f'<span class="live-card-text" data-live="card">{speed(days["wind"][4][i])} → '
        f"<b>{speed(days['forecast'][i])}</b></span></div></li>"
        for i, one in enumerate(data["stations"])
    )
    return f'<ul class="live-cards" data-live="cards">{cards}</ul>'


def row_table(data: dict[str, Any], days: dict[str, Any], first: str) -> str:
    """The row of the operator for a station, and what each neighbour brings."""
    stations = data["stations"]
    i = [one["code"] for one in stations].index(first)
    row = data["operator"][i]
    z = [
        (wind**0.5 - usual) / one["scale"]
        for wind, usual, one in zip(days["wind"][4], days["season"][4], stations, strict=True)
    ]
    order = sorted((j for j in range(len(row)) if row[j]), key=lambda j: (j != i, -row[j]))
    body = "".join(
        f'<tr data-j="{j}"><th scope="row">{escape(stations[j]["name"])}{" (itself)" if j == i else ""}</th>'
        f"<td>{row[j]:.2f}</td><td>{number(z[j])}</td>{product(row[j] * z[j])}<td></td></tr>"
        for j in order
    )
    total = sum(row[j] * z[j] for j in order)
    return (
        '<div class="live-scroll"><table class="live-table" data-live="row"><caption>One step of the graph '
        'convolution at <b data-live="here">' + escape(stations[i]["name"]) + "</b>, on today’s anomalies</caption>"
        '<thead><tr><th scope="col">Listens to</th><th scope="col">weight <i>Â</i><sub>ij</sub></th>'
        '<th scope="col">anomaly <i>x</i><sub>j</sub></th><th scope="col">product</th>'
        '<th scope="col"><span class="live-away">Edge</span></th></tr></thead>'
        f"<tbody>{body}</tbody><tfoot><tr><th scope='row'>Sum</th><td>{sum(row):.2f}</td><td></td>"
        f"<td><b>{number(total)}</b></td><td></td></tr></tfoot></table></div>"
    )


def said(data: dict[str, Any], days: dict[str, Any], first: str) -> str:
    """The forecast for a station in a sentence; the modules say the same."""
    i = [one["code"] for one in data["stations"]].index(first)
    return (
        f"{escape(data['stations'][i]['name'])} tomorrow: {speed(days['forecast'][i])} m/s. "
        f"Persistence says {speed(days['persistence'][i])}; {speed(days['observed'][i])} came."
    )


def product(value: float) -> str:
    """A cell with a bar that begins in its middle."""
    end = 50 + 50 * max(-1.0, min(1.0, value))
    bar = f"--from:{min(50, end):.1f}%;--to:{max(50, end):.1f}%"
    return f'<td class="live-product" style="{bar}">{number(value)}</td>'


def number(value: float) -> str:
    text = f"{value:+.2f}"
    return (text if float(text) else "0.00").replace("-", "−")


def forecast_table(data: dict[str, Any], days: dict[str, Any]) -> str:
    heads = "".join(f'<th scope="col">{day(iso)}</th>' for iso in days["dates"][:5])
    body = []
    for i, one in enumerate(data["stations"]):
        past = "".join(f"<td>{speed(row[i])}</td>" for row in days["wind"])
        body.append(
            f'<tr><th scope="row">{escape(one["name"])}</th>{past}<td><b>{speed(days["forecast"][i])}</b></td>'
            f"<td>0.0</td><td>{speed(days['persistence'][i])}</td><td>{speed(days['observed'][i])}</td></tr>"
        )
    return (
        '<details class="live-more"><summary>All numbers in a table (m/s)</summary><div class="live-scroll" '
        'tabindex="0" role="region" aria-label="Table of all numbers"><table class="live-table" data-live="numbers">'
        "<thead><tr>"
        f'<th scope="col">Station</th>{heads}<th scope="col">Forecast</th><th scope="col">Your change</th>'
        '<th scope="col">Persistence</th><th scope="col">What came</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


# ---------------------------------------------------------------------------- the whole


def app_html(data: dict[str, Any], key: str, first: str, scripts: bool) -> str:
    days = days_of(data, key)
    options = "".join(
        f'<option value="{one["key"]}"{" selected" if one["key"] == key else ""}>{escape(one["title"])}, '
        f"{day(one['dates'][4], year=True)}</option>"
        for one in data["days"]
    )
    stations = "".join(
        f'<option value="{i}"{" selected" if one["code"] == first else ""}>{escape(one["name"])}</option>'
        for i, one in enumerate(data["stations"])
    )
    views = "".join(
        f'<label><input type="radio" name="live-view" value="{name}"{" checked" if name == "tomorrow" else ""}>'
        f"<span>{text}</span></label>"
        for name, text in (
            ("tomorrow", "Tomorrow"),
            ("change", "Change"),
            ("persistence", "vs persistence"),
            ("today", "Today"),
        )
    )
    sliders = "".join(
        f'<label class="live-slide"><span data-live="date">{day(iso)}</span>'
        f'<input type="range" min="0" max="30" step="0.1" data-d="{d}"><output>–</output></label>'
        for d, iso in enumerate(days["dates"][:5])
    )
    start = (
        '<link rel="stylesheet" href="_live/live.css">'
        '<script type="module" src="_live/page.js" data-live="script"></script>'
        '<script>if (location.protocol === "file:") addEventListener("DOMContentLoaded", () => {'
        'document.querySelector("[data-live=status]").textContent = "You have opened this page from disk, where '
        "browsers load no modules: the network cannot run. Start a small server with “make serve” and open "
        'http://127.0.0.1:8000/live.html. The map below shows the forecast made when the book was built."; });</script>'
        if scripts
        else ""
    )
    return f"""{start}
<div class="live" id="live-app" data-live="app">
<p class="live-status" data-live="status" role="status">The map shows a forecast made when the book was built. \
<noscript>Without JavaScript it stays as it is; text, tables and experiments below are complete.</noscript></p>
<div class="live-controls" data-live="controls" hidden>
<label class="live-field">Days <select data-live="days">{options}</select></label>
<fieldset class="live-views"><legend class="live-away">The map shows</legend>{views}</fieldset>
<button type="button" data-live="reset">Undo everything</button>
</div>
<p class="live-story" data-live="story"><b>{day(days["dates"][4], year=True)}.</b> {escape(days["story"])}</p>
<div class="live-stage" data-live="stage" tabindex="-1" role="group" aria-label="Map and chosen station">
<figure class="live-map">{map_svg(data, first, days["forecast"])}
<figcaption><span data-live="shown">Tomorrow’s mean wind, {day(days["dates"][5], year=True)}</span>
{legend(data, "tomorrow")}
<span class="live-hint" id="live-hint" data-live="hint" hidden>Drag a station, or focus it and use the arrow keys \
(with Shift in large steps). Click a station to choose it, an edge to cut or restore it.</span></figcaption></figure>
<div class="live-panel">
<div class="live-inputs" data-live="inputs" hidden>
<label class="live-field">Station <select data-live="station">{stations}</select></label>
<span class="live-place" data-live="place"></span>
<div class="live-tools"><label><input type="checkbox" data-live="reports" checked> reports</label>
<button type="button" data-live="cut-off">Cut all its edges</button>
<button type="button" data-live="home">Back to its place</button></div>
<div class="live-slides" role="group" aria-label="Mean wind of the last five days">{sliders}</div>
</div>
<p class="live-said" data-live="said">{said(data, days, first)}</p>
<p class="live-away" data-live="announce" aria-live="polite"></p>
{row_table(data, days, first)}
</div>
</div>
<p class="live-cards-head">The last five days and <span class="live-key-dot"></span> tomorrow at each station, in m/s; \
the line is what is usual for the season</p>
{days_html(data, days, first)}
{forecast_table(data, days)}
<details class="live-more" data-live="edge-list" hidden><summary>All edges, to cut or restore</summary>\
<ul class="live-edges" data-live="edge-buttons"></ul></details>
</div>"""


# ---------------------------------------------------------------------------- sentences and scores


def result_sentence(data: dict[str, Any], name: str) -> str:
    """What an experiment did to the forecast, as the package worked it out."""
    found = data["experiments"][name]
    plan, days = found["plan"], days_of(data, found["plan"]["days"])
    change = [new - old for new, old in zip(found["speed"], days["forecast"], strict=True)]
    names = [one["name"] for one in data["stations"]]
    if name == "eve":
        error = [seen - said for seen, said in zip(days["observed"], days["forecast"], strict=True)]
        return (
            f"*What the package found:* on {day(days['dates'][4], year=True)} it forecast a mean of "
            f"{mean(days['forecast']):.1f} m/s over the twelve stations; {mean(days['observed']):.1f} m/s came. It was "
            f"too low at {sum(one > 0 for one in error)} stations, by up to {speed(max(error))} m/s at "
            f"{names[error.index(max(error))]}."
        )
    felt = sorted((i for i in range(len(change)) if abs(change[i]) >= 0.05), key=lambda i: -abs(change[i]))
    same = sum(abs(one) < 5e-4 for one in change)
    here = [one["code"] for one in data["stations"]].index(plan["select"])
    text = (
        f"*What the package found:* the forecast for {names[here]} goes from {speed(days['forecast'][here])} to "
        f"{speed(found['speed'][here])} m/s."
    )
    others = [i for i in felt if i != here]
    if others:
        most = ", ".join(f"{names[i]} {speed(change[i], '+')}" for i in others[:4])
        text += f" Other forecasts that change most: {most}."
    else:
        text += " No other forecast changes by 0.05 m/s or more."
    return text + (f" At {same} of the twelve stations nothing changes at all." if same else "")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def values(data: dict[str, Any]) -> dict[str, str]:
    """The numbers that the text of the page takes from here."""
    results = data["results"]
    report, silent = ({line["model"]: line for line in results["scores"][table]} for table in ("all report", "silent"))
    network, usual = report["network of this page"], report["climatology"]
    found = {
        "weights": f"{data['weights']:,}",
        "neighbours": {1: "one", 2: "two", 3: "three", 4: "four"}[data["neighbours"]],
        "length-scale": f"{data['lengthScale']:.0f}",
        "windiest": f"{data['windiest']:.1f}",
        "skill": f"{100 * (1 - network['score'] / usual['score']):.0f}",
        "skill-line": f"{100 * (1 - report['VAR(3)']['score'] / usual['score']):.0f}",
        "behind-line": difference(network["difference"]),
        "silent-skill": f"{100 * (1 - silent['network of this page']['score'] / usual['score']):.0f}",
        "silent-behind-line": difference(silent["network of this page"]["difference"]),
        "score": f"{network['score']:.4f}",
        "score cut": f"{report['its edges all cut']['score']:.4f}",
        "this-one": f"{network['seeds'][results['seed']]:.4f}",
    }
    for name in ("all report", "silent"):
        value, low, high = results["graph minus none"][name]
        found[f"graph {name}"] = difference({"value": value, "low": low, "high": high})
    rows = {row["name"]: row for row in results["choice"]}
    for name, row in rows.items():
        found[f"choice {name}"] = f"{row['all report']:.4f} and {row['silent']:.4f}"
    return found


def difference(found: dict[str, float]) -> str:
    value, low, high = (f"{found[name]:+.4f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


TABLES = (
    ("all report", "All stations report", "VAR(3)", "VAR(3)"),
    ("silent", "The station itself is silent", "line from the other stations", "that line"),
)


NAMES = {
    "its edges all cut": "network of this page, all edges cut",
    "the same without a graph": "the same, trained without a graph",
}


def score_tables(results: dict[str, Any]) -> str:
    """Both tables of the test years in Markdown."""
    text = []
    for key, title, reference, short in TABLES:
        lines = results["scores"][key]
        usual = next(line["score"] for line in lines if line["model"] == "climatology")
        text += [f"| {title} | RMSE | skill | minus {short} (95 %) |", "|---|---:|---:|---:|"]
        for line in sorted(lines, key=lambda one: one["score"]):
            spread = f"\u00a0±\u00a0{line['spread']:.4f}" if len(line["seeds"]) > 1 else ""
            against = "the reference" if line["model"] == reference else difference(line["difference"])
            skill = f"{1 - line['score'] / usual:.3f}".replace("-", "−")
            text.append(
                f"| {NAMES.get(line['model'], line['model'])} | {line['score']:.4f}{spread} | {skill} | {against} |"
            )
        text.append("")
    return "\n".join(text)
