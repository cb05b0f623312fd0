"""Tables as text, long or wide, as variables over time and station."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ._names import MISSING, ROLES, Log, counted, is_role, known_unit, name_and_unit, our_name, plain_name, shown
from ._times import CLOCK, in_utc, parse_times, stamp, time_cells

Part = tuple[pd.Series, np.ndarray, str | None]  # of a variable: lines, values, units
# Degrees, and then minutes, seconds and a quarter of the sky, of which the last may stand alone.
DEGREES = r"^(\d+(?:[.,]\d+)?)\s*[°\s]?\s*(?:(\d+(?:[.,]\d+)?)['′\s]+)?(?:(\d+(?:[.,]\d+)?)[\"″\s]*)?([NSEWO])$"
FLAGS = re.compile(r"(?:^|[_ ])(?:qc?|qn_?\d*|flags?|quality|ind|eor)(?:$|[_ ])")  # columns on the quality of another


def read_cells(path: Path, log: Log) -> pd.DataFrame:
    """A table's cells as text, named by its header line, over the numbers of the lines."""
    name, text = path.name, _text(path, log)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip(" ,;\t\"'"):
        lines.pop()
    rows, width = _rows(lines, name, log)
    dated = re.compile(r"\d{4}-\d\d-\d\d|\d{1,4}[./]\d{1,2}[./]\d{1,4}")
    full = [number for number, row in enumerate(rows) if len(row) == width and any(row)]
    first = next((number for number in full if not rows[number][0].startswith("#")), full[0])
    if first and rows[first - 1][0].startswith("#") and len(rows[first - 1]) == width and dated.match(rows[first][0]):
        first -= 1  # the header is the last of the remarks
    header = [cell.lstrip("# ") for cell in rows[first]]
    dates = sum(map(bool, map(dated.match, header)))
    if dates or not any(letter.isalpha() for letter in "".join(header)):
        raise log.stop(
            f"line {first + 1} of {name} should name the columns, found {shown(header)}",
            "write the times below each other, not side by side" if 2 * dates > width else
            "write a first line such as time,station,lat,lon,wind_speed [m s-1]",
        )  # fmt: skip
    if first:
        log.note(f"the first {first} lines of {name} were taken for remarks")
    body = {number + 1: row for number, row in enumerate(rows) if number > first and any(row)}
    if body and (units := _units_below(header, next(iter(body.values())))):
        log.note(f"line {next(iter(body))} of {name} was read as the units of the columns")
        del body[next(iter(body))]
        header = units
    if not body:
        raise log.stop(f"{name} has a header and no lines below it", "get it anew")
    if longer := [number for number, row in body.items() if any(row[width:])]:
        found = counted(len(longer), "line has", "lines have")
        raise log.stop(
            f"{found} more cells than the header has names ({width}), the first is line {longer[0]}",
            "put names and numbers with a comma in quotes, or separate cells by semicolons",
        )
    if shorter := [number for number, row in body.items() if len(row) < width]:
        if shorter[-1] == len(lines) and not text.endswith(("\n", "\r")):
            raise log.stop(f"{name} ends within line {len(lines)}", "it is cut off: get it anew, or delete that line")
        found = counted(len(shorter), "line has", "lines have")
        log.warning(f"{found} fewer cells than the header, the first is line {shorter[0]}", "read as missing")
    cells = [row if len(row) == width else (row + [""] * width)[:width] for row in body.values()]
    table = pd.DataFrame(cells, index=list(body), columns=pd.Index(header, dtype=object), dtype=object)
    table = table.loc[:, [bool(header[i]) or (table.iloc[:, i] != "").any() for i in range(width)]]
    twice = table.columns[table.columns.duplicated()]
    if lost := [column for column in twice if column and not FLAGS.search(column.lower())]:
        log.error(
            f"{counted(len(lost), 'column has', 'columns have')} the name of another: {shown(lost)}",
            "name each differently",
        )
    table = table.loc[:, ~table.columns.duplicated()]
    table.attrs["name"] = name
    return table


def _units_below(header: list[str], row: list[str]) -> list[str]:
    """The header with the units of the line below it, if that line holds units and nothing else."""
    bare = [re.sub(r"^[\[(](.*)[\])]$", r"\1", cell) for cell in row]
    known = [bool(known_unit(cell)) for cell in bare]
    nothing = {"", "-", "utc", "date", "deg", "degrees", "degrees_north", "degrees_east", "°"}
    if len(row) > len(header) or not any(known) or is_role(row[0], "units"):
        return []
    if not all(there or cell.lower() in nothing for there, cell in zip(known, bare, strict=True)):
        return []
    return [
        f"{name} [{unit}]" if there and not name_and_unit(name)[1] else name
        for name, unit, there in itertools.zip_longest(header, bare, known, fillvalue="")
    ]


def _text(path: Path, log: Log) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # as Excel saves "Unicode text"
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        strange = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in content[:100_000])
        if strange:
            raise log.stop(
                f"{path.name} is no text (line {line})", "is it whole, and the file that was meant?"
            ) from error
        log.warning(f"{path.name} is not in UTF-8 (line {line})", "it was read as Windows-1252; look at the names")
        return content.decode("cp1252", errors="replace")


def _rows(lines: list[str], name: str, log: Log) -> tuple[list[list[str]], int]:
    """The cells of each line, and how many most lines have."""

    def split(some: list[str], sign: str | None) -> list[list[str]]:
        rows = (
            [line.split() for line in some] if sign is None else csv.reader(some, delimiter=sign, skipinitialspace=True)
        )
        return [list(map(str.strip, row)) or [""] for row in rows]

    tail = [line for line in lines[-200:] if line.strip()]  # remarks are at the head
    try:
        for sign in ("\t", ";", "|", ",", None):
            width, often = Counter(map(len, split(tail, sign))).most_common(1)[0] if tail else (0, 0)
            if width > 1 and often >= 0.7 * len(tail):
                log.decimal_comma = sign == ";"  # as spreadsheets write where the comma is taken
                return split(lines, sign), width
    except csv.Error as error:
        raise log.stop(f"{name} is no table ({error})", "save it anew as CSV") from error
    what = "its lines have no common number of columns" if tail else "it holds blank lines only"
    raise log.stop(f"{name} is no table: {what}", "save it as CSV, with a header")


def read_numbers(cells: pd.Series, label: str, log: Log) -> tuple[np.ndarray, str | None]:
    """Cells as floats with NaN where missing, and the unit where it stands behind each number."""
    values = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    if log.decimal_comma and _points_group(cells):
        log.error(
            f"{label}: the point may be before decimals or between thousands, as in a table with decimal commas",
            "write no sign between thousands",
        )
    rest = cells[values.isna()]
    rest = rest[~rest.str.lower().isin(MISSING)].str.replace("−", "-", regex=False)
    rest = rest.str.replace("[\u00a0\u2009\u202f]", "", regex=True)  # blanks of fixed width, between thousands
    if rest.empty:
        return values.to_numpy(), None
    if our_name(label) == "precip" and len(trace := rest[rest.str.lower().isin(("t", "tr", "trace"))]):
        log.note(f"{label}: a trace of rain ({trace.iloc[0]!r}) was read as 0, {counted(len(trace), 'time', 'times')}")
        values[trace.index] = 0.0
        rest = rest.drop(trace.index)
    comma = rest.str.contains(r"^[-+]?[\d.]*,\d", regex=True)
    if comma.any():
        rest = rest.where(~comma, _with_point(cells, rest[comma], label, log).reindex(rest.index))
    parts = rest.str.extract(r"^([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\D.*)?$")
    values[rest.index] = pd.to_numeric(parts[0])
    behind = parts[1].dropna().unique()
    if all(known_unit(unit) for unit in behind) and parts[0].notna().all():
        return values.to_numpy(), one_unit(behind, label, log)
    wrong = cells[rest.index][parts[0].isna() | parts[1].notna()]
    found = shown(f"{cell!r} (line {line})" for line, cell in wrong.iloc[:3].items())
    log.error(
        f"{label}: {counted(len(wrong), 'cell is no number', 'cells are no numbers')}: {found}",
        "write numbers there, or leave the cells empty",
    )
    return values.to_numpy(), None


def _points_group(cells: pd.Series) -> bool:
    """Whether whole numbers below a thousand stand beside 1.002, with three digits behind each point."""
    plain = cells[cells.str.fullmatch(r"[-+]?\d+(\.\d+)?")]
    point = plain.str.contains(".", regex=False)
    grouped = plain[point].str.fullmatch(r"[-+]?[1-9]\d{0,2}\.\d{3}").all()
    return bool(point.any() and not point.all() and grouped and plain[~point].str.fullmatch(r"[-+]?\d{1,3}").all())


def _with_point(cells: pd.Series, commas: pd.Series, label: str, log: Log) -> pd.Series:
    """Cells with a comma as Python writes numbers, wherever the comma stands: before decimals or between thousands."""
    number = commas.str.extract(r"^([-+]?[\d.,]+)")[0]
    plain = cells[cells.str.fullmatch(r"[-+]?\d+(\.\d+)?")]
    grouped = number.str.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
    thousands = number.str.contains(r",.*[,.]", regex=True)  # which only thousands can have
    decimals = ~grouped | number.str.contains(".", regex=False) & ~thousands
    if decimals.all():
        return commas.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    if thousands.any() or plain.str.contains(".", regex=False).any():
        if not decimals.any():
            return commas.str.replace(",", "", regex=False)
    elif decimals.any() or log.decimal_comma:
        return commas.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    elif not plain.empty and pd.to_numeric(plain).abs().max() < 1000:  # 998 and 1,002
        return commas.str.replace(",", "", regex=False)
    log.error(
        f"{label}: the comma may be before decimals or between thousands: {shown(map(repr, number.unique()[:3]))}",
        "write decimals with a point, and no sign between thousands",
    )
    return commas.str.replace(",", "", regex=False)


def one_unit(found: Iterable[str | None], label: str, log: Log) -> str | None:
    """The one unit among some, or an error if there are several."""
    spelled = {known_unit(unit) or unit: unit for unit in found if unit}
    if len(spelled) > 1 and not log.said["units"]:
        kinds = " and ".join(sorted(map(repr, spelled.values())))
        log.error(f"{label}: units are mixed, found {kinds}", "bring all values to one unit")
    return next(iter(spelled.values()), None)


def _is_numeric(cells: pd.Series) -> bool:
    """Whether most cells of a column that are not missing begin like a number."""
    there = cells.drop_duplicates()
    there = there[~there.str.lower().isin(MISSING)]
    return len(there) > 0 and there.str.match(r"[-+−]?[\d.,]*\d|[-+]?inf").mean() > 0.5


def read_degrees(cells: pd.Series, label: str, log: Log) -> np.ndarray:
    """Degrees from decimal numbers, or from degrees, minutes, seconds and a quarter of the sky."""
    once = cells.drop_duplicates()  # a long table says them in each line
    parts = once.str.upper().str.extract(DEGREES)
    if parts[3].notna().all():
        size = parts[[0, 1, 2]].apply(lambda part: pd.to_numeric(part.str.replace(",", ".", regex=False))).fillna(0)
        values = ((size[0] + size[1] / 60 + size[2] / 3600) * np.where(parts[3].isin(["S", "W"]), -1, 1)).to_numpy()
    else:
        values, _ = read_numbers(once, label, log)
        if re.search(r"(?:^|[\s°_])(?:w|s|west|south)$", (name_and_unit(str(cells.name))[1] or "").lower()):
            if (values < 0).any():
                log.error(f"{cells.name}: degrees west or south, and some are negative", "which side is meant? say one")
            values = -values
    return values[pd.Index(once).get_indexer(cells)]


def roles_of(table: pd.DataFrame, log: Log) -> dict[str, str]:
    """Which column is time, station, lat, lon and so on, said by the caller or guessed from the names."""
    bare = {column: plain_name(name_and_unit(column)[0]) for column in table}
    taken: dict[str, str] = {}
    for role, name in log.said["columns"].items():
        if role != "time_format":
            fits = [column for column in table if name in (column, name_and_unit(column)[0])]
            if not fits:
                raise log.stop(f"columns: there is no column {name!r}", f"there are {shown(table.columns)}")
            taken[role] = fits[0]
    for role in sorted(ROLES, key=lambda role: role == "name"):  # a name is an id where nothing else is
        if role != "time" and role not in taken:
            fits = [c for c in sorted(bare, key=lambda c: _rank(bare[c], role)) if c not in taken.values()]
            if fits and _rank(bare[fits[0]], role) < len(ROLES[role]):
                taken[role] = fits[0]
    if not {"variable", "value"} <= set(taken):  # only both mean a line for each value
        return {role: column for role, column in taken.items() if role not in ("variable", "value")}
    return taken


def _rank(name: str, role: str) -> int:
    """Where a name is in the list of those for a role; behind all if it is not."""
    names = ROLES[role].split()
    return names.index(name) if name in names else len(ROLES[role])


def from_table(table: pd.DataFrame, log: Log) -> xr.Dataset:
    """Variables over (time, station) from the cells of a long or a wide table."""
    taken = roles_of(table, log)
    top = _top(table)
    table = table.drop(top.index)
    cells, used = time_cells(table, taken, log)
    clock, ahead = parse_times(cells, log)
    if len(bad := cells[clock.isna()]):
        found = shown(f"{cell!r} (line {line})" for line, cell in bad.iloc[:3].items())
        raise log.stop(
            f"{len(bad)} of {len(cells)} lines have no time that can be read: {found}",
            "correct them, or say columns={'time': ...} or columns={'time_format': '%d/%m/%Y'}",
        )
    places = [taken[role] for role in ("station", "name", "lat", "lon", "elevation") if role in taken]
    rest = [column for column in table if column not in used and column not in places]
    rest = [column for column in rest if not re.fullmatch(r"(unnamed.*|index)?", column.lower())]  # numbers of lines
    if "station" in taken or {"lat", "lon"} <= set(taken):
        return _from_long(table, clock, ahead, taken, rest, log)
    if top.empty and log.said["stations"] is None:
        raise log.stop(
            f"there are no places: no columns station, lat and lon among {shown(table.columns)}",
            "add them or name them with columns={'station': ...}; where each column is a station, give stations=FILE, "
            "a table with the columns station, lat and lon",
        )
    return _from_wide(table, top, in_utc(clock, ahead, np.zeros(len(clock)), log), rest, log)


def _top(table: pd.DataFrame) -> pd.DataFrame:
    """Lines right below the header of a wide table that hold latitudes, longitudes, heights, names or units."""
    roles = {
        line: role
        for line, cell in table.iloc[:6, 0].items()
        for role in ("lat", "lon", "elevation", "name", "units")
        if is_role(name_and_unit(cell)[0], role)
    }
    if not {"lat", "lon"} <= set(roles.values()):
        return table.iloc[:0]
    return table.loc[list(roles)].assign(**{"": list(roles.values())})


def _from_wide(table: pd.DataFrame, top: pd.DataFrame, time: pd.Series, rest: list[str], log: Log) -> xr.Dataset:
    """One variable, a column for each station."""
    guesses = [our_name(part) for part in re.split(r"[^a-zA-Z]+", table.attrs["name"]) if len(part) > 2]
    name = log.said["variable"] or next((guess for guess in guesses if guess), "value")
    columns = [c for c in rest if _is_numeric(table[c]) or table[c].str.lower().isin(MISSING).all()]
    if ignored := [column for column in rest if column not in columns]:
        log.note(f"columns that are no numbers were left out: {shown(ignored)}")
    if not columns:
        raise log.stop(
            f"there is no column of numbers beside the times: {shown(table.columns)}", "is it the file that was meant?"
        )
    found = {column: read_numbers(table[column], column, log) for column in columns}
    lines = {str(row[""]): row[columns] for _, row in top.iterrows()}
    units = [name_and_unit(column)[1] or found[column][1] for column in columns] + list(lines.get("units", []))
    log.note(f"read as a wide table: a column for each of {len(columns)} stations, holding {name}")
    unit = one_unit(units, name, log)
    box = np.stack([values for values, _ in found.values()], axis=1)
    coords = {
        "time": pd.DatetimeIndex(time),
        "station": np.array([name_and_unit(column)[0] for column in columns], dtype=str),
    } | {
        role: ("station", row.to_numpy(str) if role == "name" else read_degrees(row.astype(object), role, log))
        for role, row in lines.items()
        if role != "units"
    }
    return xr.Dataset({name: (("time", "station"), box, {"units": unit} if unit else {})}, coords)


def _from_long(
    table: pd.DataFrame, clock: pd.Series, ahead: pd.Series, taken: dict[str, str], rest: list[str], log: Log
) -> xr.Dataset:
    """A line for each station and time, with a column for each variable, or for the variable's name and its value."""
    degrees = {axis: read_degrees(table[taken[axis]], axis, log) for axis in ("lat", "lon") if axis in taken}
    if "station" in taken:
        key = table[taken["station"]]
        key = key.map({name: re.sub(r"^(\d+)\.0$", r"\1", name) for name in key.unique()})  # numbers by way of pandas
        if len(nameless := key[key == ""]):
            found = counted(len(nameless), "line names", "lines name")
            raise log.stop(f"{found} no station, the first is line {nameless.index[0]}", "fill the column")
    else:
        pairs = zip(degrees["lat"], degrees["lon"], strict=True)
        key = pd.Series([f"{lat:g},{lon:g}" for lat, lon in pairs], table.index)
    codes, labels = pd.factorize(key)
    parts = _values(table, taken, rest, log) if "value" in taken else _variables(table, taken, rest, log)
    if not parts:
        raise log.stop(
            f"there is no column of numbers beside times and places: {shown(table.columns)}", "is it the right file?"
        )
    log.note(f"read as a long table: a line for each time and station, holding {shown(parts)}")
    raw = pivoted(in_utc(clock, ahead, codes, log), codes, np.asarray(labels, dtype=str), parts, log)
    first = np.unique(codes, return_index=True)[1]
    for axis, values in degrees.items():
        spread = pd.Series(values).groupby(codes).agg(np.ptp)
        if (spread > 0.02).any():
            station, several = labels[spread.argmax()], np.unique(values[codes == spread.argmax()])
            log.error(f"station {station} has several {axis}: {shown(several)}", "give each place a station of its own")
        raw = raw.assign_coords({axis: ("station", values[first])})
    if "elevation" in taken:
        raw["elevation"] = ("station", read_numbers(table[taken["elevation"]].iloc[first], "elevation", log)[0])
        raw = raw.set_coords("elevation")
    if "name" in taken:
        raw = raw.assign_coords(name=("station", table[taken["name"]].iloc[first].to_numpy(str)))
    return raw


def _values(table: pd.DataFrame, taken: dict[str, str], rest: list[str], log: Log) -> dict[str, Part]:
    """Variables of a table that has a line for each value, with the variable's name."""
    parts: dict[str, Part] = {}
    for label, mine in table.groupby(taken["variable"], sort=False):
        name, unit = name_and_unit(str(label))
        values, behind = read_numbers(mine[taken["value"]], name, log)
        units = mine[taken["units"]].unique() if "units" in taken else [unit or behind]
        parts[name] = (mine.index.to_series(), values, one_unit(units, name, log))
    return parts


def _variables(table: pd.DataFrame, taken: dict[str, str], rest: list[str], log: Log) -> dict[str, Part]:
    """Variables of a table that has a column for each."""
    parts: dict[str, Part] = {}
    skipped = []
    for column in rest:
        name, unit = name_and_unit(column)
        numeric = _is_numeric(table[column]) or (our_name(name) and table[column].str.fullmatch(CLOCK).mean() < 0.5)
        if column == taken.get("units") or not numeric or FLAGS.search(name.lower()):
            skipped.append(column)
            continue
        name = log.said["variable"] or name if is_role(name, "value") else name
        values, behind = read_numbers(table[column], name, log)
        parts[name] = (table.index.to_series(), values, unit or behind)
    if "units" in taken and len(parts) == 1:
        [(name, (index, values, unit))] = parts.items()
        parts[name] = index, values, unit or one_unit(table[taken["units"]].unique(), name, log)
    if skipped := [column for column in skipped if column != taken.get("units")]:
        log.note(f"columns that are no numbers of the weather were left out: {shown(skipped)}")
    return parts


def pivoted(time: pd.Series, codes: np.ndarray, labels: np.ndarray, parts: Mapping[str, Part], log: Log) -> xr.Dataset:
    """Rows of (time, station, value) as variables over (time, station); rows without a time are left out."""
    times = pd.DatetimeIndex(time)
    order = np.argsort(codes, kind="stable")
    order = order[times[order].notna()]
    backwards = (np.diff(codes[order]) == 0) & (np.diff(times.asi8[order]) < 0)
    if backwards.any():
        line = time.index[order[1:][backwards][0]]
        log.warning(f"times are not in order within a station, first at line {line}", "they were sorted")
    axis = times.dropna().unique().sort_values()
    row, column = pd.Series(axis.get_indexer(times), time.index), pd.Series(codes, time.index)
    data = {}
    for name, (index, values, unit) in parts.items():
        i, j = row[index].to_numpy(), column[index].to_numpy()
        there = (i >= 0) & ~np.isnan(values)
        box = np.full((len(axis), len(labels)), np.nan)
        box[i[there], j[there]] = values[there]
        if len(differ := np.flatnonzero(there & (box[i, j] != values))):
            k = differ[0]
            log.error(
                f"{name}: a station has several values at one time, {counted(len(differ), 'time', 'times')}, such as "
                f"{labels[j[k]]} at {stamp(axis[i[k]])}: {values[k]:g} and {box[i[k], j[k]]:g}",
                "keep one, or make two stations of it",
            )
        elif again := there.sum() - len(np.unique(i[there] * len(labels) + j[there])):
            log.warning(f"{name}: {counted(again, 'line repeats', 'lines repeat')} another one", "they were dropped")
        data[name] = (("time", "station"), box, {"units": unit} if unit else {})
    return xr.Dataset(data, {"time": axis, "station": labels})
