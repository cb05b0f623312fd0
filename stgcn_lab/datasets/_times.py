"""Times in tables: which cells hold them, what they say, their zone, and the regular axis that they lie on."""

import re
import warnings
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ._names import Log, counted, is_role, name_and_unit, shown

CLOCK = r"\d{1,2}(:\d\d){1,2}(\.0+)?(\s*[AaPp]\.?[Mm]\.?)?|24|2[0-3]|[01]?\d|[0-2]\d[0-5]\d"
DATE = r"\d{4}-\d\d(-\d\d.*)?|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*|\d{4}年.*|(1[6-9]|20)\d{6}(\d\d){0,3}"
DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
# Names of columns of times that are not in UTC: local, CET, PST, UTC+1
LOCAL = re.compile(
    r"(?i)(?:^|[\W_])(?:local|ortszeit|me?s?z|cest|[cewi]et|[ecmpja][ds]t|akst|[an]st|bst|ist|jst|kst|lst|a[ecw][ds]t|lt)"
    r"(?:$|[\W_]|time)|(?:utc|gmt)\s*[-+−]\s*[1-9]"
)
PARTS = ("year", "month", "day", "dayofyear", "hour", "minute")


def time_zone(name: str, log: Log) -> ZoneInfo:
    """A time zone by its name, or an error."""
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError):  # a folder, no such zone, a path
        raise log.stop(
            f"timezone: there is no time zone {name!r}", "write a name such as 'Europe/Dublin' or 'UTC'"
        ) from None


def time_cells(table: pd.DataFrame, taken: dict[str, str], log: Log) -> tuple[pd.Series, list[str]]:
    """One text for each line that says when it is, and the columns that went into it."""
    said = [taken["time"]] if "time" in log.said["columns"] else []
    others = [name for role, name in taken.items() if role not in ("time", "hour")]
    named = said or [name for name in table if is_role(name_and_unit(name)[0], "time") and name not in others]
    clocks = [name for name in named if table[name].str.fullmatch(CLOCK).all()]
    dates = [name for name in named if name not in clocks] or said
    if not dates and "year" in taken:
        return _from_parts(table, taken), [taken[part] for part in PARTS if part in taken]
    if not dates:  # nothing is named so: the first column that looks like dates
        dates = [name for name in table if table[name].str.fullmatch(DATE).mean() > 0.9][:1]
    if not dates:
        raise log.stop(
            "there is no column of times", f"name it with columns={{'time': ...}}; there are {shown(table.columns)}"
        )
    date = next((name for name in dates if "utc" in name.lower()), dates[0])
    if not clocks and "hour" in taken and table[taken["hour"]].str.fullmatch(CLOCK).all():
        clocks = [taken["hour"]]
    cells = table[date]
    if clocks and clocks[0] != date and cells.str.len().max() <= 10:
        clock = table[clocks[0]].str.replace(r"^(\d\d)(\d\d)$", r"\1:\2", regex=True)
        cells = cells.str.replace(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", regex=True)
        cells = cells + " " + clock.str.replace(r"^(\d{1,2})$", r"\1:00", regex=True)
    for name in (date, *clocks):
        zone = name_and_unit(name)[1] or ""
        if log.said["timezone"] is None and (zone.upper() in ("UTC", "GMT", "Z") or "/" in zone):
            log.said["timezone"] = time_zone(zone if "/" in zone else "UTC", log).key
        elif LOCAL.search(name):
            log.local = name
    return cells, [*named, date, *clocks]


def _from_parts(table: pd.DataFrame, taken: dict[str, str]) -> pd.Series:
    """Times from columns of their own for the year, the month or the day of the year, and so on."""

    def part(name: str, default: str) -> pd.Series:
        cells = table[taken[name]] if name in taken else pd.Series(default, table.index, dtype=object)
        return cells.str.replace(r"\.0+$", "", regex=True).str.zfill(len(default))

    clock = " " + part("hour", "00") + ":" + part("minute", "00")
    if "dayofyear" in taken and "month" not in taken:
        day = pd.to_datetime(part("year", "2000") + part("dayofyear", "001"), format="%Y%j", errors="coerce")
        return day.dt.strftime("%Y-%m-%d").fillna("no day of the year") + clock
    return part("year", "2000") + "-" + part("month", "01") + "-" + part("day", "01") + clock


def parse_times(cells: pd.Series, log: Log) -> tuple[pd.Series, pd.Series]:
    """Clock times, NaT where a text is none, and the minutes they are ahead of UTC where the texts say so, else NaN."""
    kinds = pd.Index(cells.unique())
    text = kinds.to_series(index=range(len(kinds)))
    split = text.str.extract(r"^(.*\d:\d\d[:.,\d]*|\d{4}-\d\d-\d\d[T ]\d\d)\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$")
    sign = split[1].str.extract(r"^([+-])(\d\d):?(\d\d)?$")
    ahead = (pd.to_numeric(sign[1]) * 60 + pd.to_numeric(sign[2]).fillna(0)) * np.where(sign[0] == "-", -1, 1)
    ahead = ahead.where(~split[1].isin(["Z", "z", "UTC", "GMT"]), 0.0).astype(float)
    text = split[0].fillna(text).str.strip()
    late = text.str.contains(r"[T ]24:00(?::00(?:\.0+)?)?$", regex=True)  # the end of a day
    text = text.where(~late, text.str.replace("24:00", "00:00", regex=False))
    if form := log.said["columns"].get("time_format"):
        found = pd.to_datetime(text, format=form, errors="coerce")
    elif text.str.fullmatch(r"\d+(\.\d+)?").all():
        found, in_utc = _from_digits(text, log)
        ahead[:] = 0.0 if in_utc else np.nan
    else:
        found = _from_dates(text, log)
    found = in_ns(found) + pd.to_timedelta(late.astype(int), unit="D")
    back = kinds.get_indexer(cells)
    return pd.Series(found.to_numpy()[back], cells.index), pd.Series(ahead.to_numpy()[back], cells.index)


def in_ns(times: pd.Series) -> pd.Series:
    """Times as datetime64[ns], NaT where they are too far away for it."""
    return times.where(times.dt.year.between(1700, 2250)).astype("datetime64[ns]")


def _from_digits(text: pd.Series, log: Log) -> tuple[pd.Series, bool]:
    """Times written as digits alone, and whether they are in UTC by definition."""
    whole = text.str.replace(r"\.0+$", "", regex=True)
    length = int(whole.str.len().max())
    if length in DIGITS and (whole.str.len() == length).all():
        late = (whole.str.slice(8) == "24") & (length == 10)
        found = pd.to_datetime(whole.where(~late, whole.str.slice(0, 8) + "00"), format=DIGITS[length], errors="coerce")
        if found.notna().all() and found.dt.year.between(1700, 2200).all():
            return found + pd.to_timedelta(late.astype(int), unit="D"), False
    value = pd.to_numeric(text)
    for unit, name, low, high in (("s", "seconds", 1e8, 5e9), ("ms", "milliseconds", 1e11, 5e12)):
        if value.between(low, high).all():
            log.note(f"times were read as {name} since 1970 in UTC")
            return pd.to_datetime(value, unit=unit), True
    if value.between(15000, 80000).all():
        log.warning(f"times are numbers such as {text.iloc[0]}", "they were read as Excel's days since 1899-12-30")
        return pd.Timestamp("1899-12-30") + pd.to_timedelta((value * 86400).round(), unit="s"), False
    return pd.to_datetime(text.where(text == ""), errors="coerce"), False


def _from_dates(text: pd.Series, log: Log) -> pd.Series:
    """Times written as dates: ISO, with the year first or last, or with the month's name."""
    text = text.str.replace(r"^(\d{4})年(\d\d?)月(\d\d?)日", r"\1-\2-\3", regex=True)
    parts = text.str.extract(r"^(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})\.?(?:[T ,]+(\d.*))?$")
    rest = parts[0].isna()
    found = in_ns(pd.to_datetime(text.where(rest), format="ISO8601", errors="coerce"))
    words = found.isna() & rest & text.str.contains(r"[A-Za-z]{3}.*\d|\d.*[A-Za-z]{3}", regex=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found[words] = in_ns(pd.to_datetime(text[words], format="mixed", dayfirst=True, errors="coerce"))
    parts = parts[~rest]
    clock = parts[3].fillna("00:00").str.replace(r"^(\d)(?=\D|$)", r"0\1", regex=True)
    clock = clock.str.replace(r"^(\d\d)$", r"\1:00", regex=True)

    def put(year: int, month: int, day: int) -> pd.Series:
        years = pd.to_numeric(parts[year])
        years = years.where(parts[year].str.len() > 2, years + np.where(years < 70, 2000, 1900)).astype(str)
        iso = years + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2) + " " + clock
        half = iso.str.contains(r"[AaPp]\.?[Mm]", regex=True)
        read = in_ns(pd.to_datetime(iso.where(~half), format="ISO8601", errors="coerce"))
        read[half] = in_ns(pd.to_datetime(iso[half], format="mixed", errors="coerce"))
        return read

    if (parts[0].str.len() == 4).all():
        found[~rest] = put(0, 1, 2)
        return found
    day_first, month_first = put(2, 1, 0), put(2, 0, 1)
    if day_first.isna().any() and month_first.isna().any():
        log.error("dates have the day first in some lines and the month in others", "write them as 2020-12-31")
    worth = [_worth(day_first), _worth(month_first)]
    found[~rest] = month_first if worth[1] > worth[0] else day_first
    if worth[0] == worth[1]:
        log.warning(
            f"dates such as {text[~rest].iloc[0]!r} may have the day or the month first",
            "the day was taken; if that is wrong, say columns={'time_format': '%m/%d/%Y'}",
        )
    return found


def _worth(times: pd.Series) -> tuple[int, float]:
    """How well a reading of dates fits: how many are dates, and how much of a regular axis they fill."""
    axis = regular_axis(times)
    return int(times.notna().sum()), 0.0 if axis is None else len(axis[0]) / len(axis[1])


def in_utc(clock: pd.Series, ahead: pd.Series, station: np.ndarray, log: Log) -> pd.Series:
    """Clock times in UTC, NaT where they are ambiguous; the dates of days and longer steps stay as they are."""
    order = (
        pd.DataFrame({"station": station, "clock": clock.to_numpy()})
        .drop_duplicates()
        .sort_values(["station", "clock"])
    )
    apart = order["clock"].diff()[order["station"] == order["station"].shift()]
    zone = log.said["timezone"]
    if not len(apart) or apart.median() >= pd.Timedelta("23h"):
        if ahead.notna().any() or zone not in (None, "UTC"):
            log.note("values are for a day or longer: their dates were kept, without a change of time zone")
        return clock
    if ahead.notna().all():
        return clock - pd.to_timedelta(ahead, unit="min")
    if ahead.notna().any():
        log.error("some times have a time zone and others none", "write all in UTC, as 2020-12-31T12:00Z")
    if zone is None and log.local:
        log.error(f"the times of {log.local!r} are not in UTC by that name", "say which with timezone='Europe/Dublin'")
    if zone is None:
        hours = pd.DatetimeIndex(clock.unique()).sort_values()
        skipped = hours[:-1][np.diff(hours) == 2 * np.diff(hours).min()] + np.diff(hours).min()
        spring = skipped[(skipped.day_of_week == 6) & (skipped.hour < 4) & skipped.month.isin([3, 4, 9, 10])]
        if len(spring) and len(skipped) < 3 * len(spring) and np.diff(hours).min() <= np.timedelta64(1, "h"):
            log.warning(
                f"{stamp(spring[0])} is missing, as where clocks are put forward to summer time",
                "if the times are local, say timezone='Europe/Dublin' or the like",
            )
        log.note(
            "times carry no time zone and were read as UTC",
            "if they are local, say timezone='Europe/Dublin' or the like",
        )
        return clock
    local = pd.DatetimeIndex(clock).tz_localize(time_zone(str(zone), log), ambiguous="NaT", nonexistent="NaT")
    if len(lost := clock[local.isna()].unique()):
        found = counted(len(lost), "clock time", "clock times")
        log.warning(
            f"{found} ambiguous or not there at the change of summer time in {zone}, such as {stamp(lost[0])}",
            "the values were left out",
        )
    return pd.Series(local.tz_convert("UTC").tz_localize(None), clock.index)


def stamp(time: Any) -> str:
    """A time as text, without the clock at midnight."""
    return str(pd.Timestamp(time)).removesuffix(" 00:00:00")


def step_name(seconds: float) -> str:
    """A step of time in words, such as "6 hours"."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            return name if seconds == size else f"{seconds / size:g} {name}s"
    return f"{seconds:g} seconds"


def regular_axis(times: pd.Series | pd.Index) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex, str, bool] | None:
    """The regular axis that times lie on: the times themselves, all of it, its step, and whether any was moved.

    A step is a number of seconds or of months. An axis much longer than there are times is cut short.
    """
    index = pd.DatetimeIndex(times).dropna().unique().sort_values().astype("datetime64[ns]")
    if len(index) < 2:
        return None
    seconds = index.asi8 // 10**9
    apart = np.diff(seconds)
    if apart.min() < 1:
        return None

    def axis(step: int) -> pd.DatetimeIndex:
        count = min((seconds[-1] - seconds[0]) // step + 1, 4 * len(index) + 100)
        return index[0] + pd.to_timedelta(step * np.arange(count), unit="s")

    usual = int(pd.Series(apart).mode()[0])
    shared = int(np.gcd.reduce(apart))
    if shared == usual:
        return index, axis(usual), step_name(usual), False
    if np.median(apart) > 27 * 86400:
        months = index.year.to_numpy() * 12 + index.month.to_numpy() - 1
        between = np.diff(months)
        if between.min() > 0:
            step = int(np.gcd.reduce(between))
            every = np.arange(months[0], months[-1] + 1, step)
            within = (index - index.to_period("M").start_time).unique()
            offset = within[0] if len(within) == 1 else pd.Timedelta(0)

            def starts(count: np.ndarray) -> pd.DatetimeIndex:
                return pd.DatetimeIndex((count - 1970 * 12).astype("datetime64[M]").astype("datetime64[ns]")) + offset

            label = {1: "month", 12: "year"}.get(step, f"{step} months")
            return starts(months), starts(every), label, len(within) > 1
    if shared >= 60 and (seconds[-1] - seconds[0]) // shared < 2 * len(index):
        return index, axis(shared), step_name(shared), False
    for step in (86400, 43200, 21600, 10800, 3600, 1800, 900, 600):  # clocks that are not quite on time
        place = np.round((seconds - seconds[0]) / step).astype(int)
        late = np.abs(seconds - seconds[0] - place * step).max() <= 0.1 * step
        if late and place[-1] < 4 * len(index) and np.diff(place).min() > 0:
            return axis(step)[place], axis(step), step_name(step), True
    return None
