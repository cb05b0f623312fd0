"""Rebuild open_meteo_replay.json: the last days of irish_wind.nc, in the form in which Open-Meteo answers."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from _common import DATA_DIR, REGISTRY, main

from stgcn_lab.datasets import KNOT

PAST, COMING = 92, 2  # days: as many as the service gives back, and today and tomorrow
TODAY = pd.Timestamp("1978-12-30")  # so that the record, which ends on the 31st, holds the truth of tomorrow
WIND = json.loads(REGISTRY.read_text(encoding="utf-8"))["irish_wind"]  # read off, for its script needs rdata
ENTRY = {key: value for key, value in WIND.items() if key != "files"} | {
    "title": "Replay: wind at 12 Irish stations in the autumn of 1978, in the form of an answer of Open-Meteo",
    "period": "1978-09-29 to 1978-12-29, daily; 1978-12-30 and 1978-12-31 are missing, as days to be forecast",
    "rebuild": "data/build_replay.py",
}


def build(source: Path, folder: Path, built: Path) -> list[str]:
    with xr.open_dataset(source, engine="netcdf4") as opened:
        wind = (opened["wind_speed"].load() * KNOT).transpose("station", "time")
    days = pd.date_range(TODAY - pd.Timedelta(days=PAST), periods=PAST + COMING)
    wind = wind.sel(time=days[:PAST])
    if bool(wind.isnull().any()):
        raise ValueError(f"{source}: expected wind of all {PAST} days")
    dates = [f"{day:%Y-%m-%d}" for day in days]
    answer = []
    for number, station in enumerate(wind):
        place = {
            "latitude": float(station["lat"]),
            "longitude": float(station["lon"]),
            "generationtime_ms": 0.0,
            "utc_offset_seconds": 0,
            "timezone": "GMT",
            "timezone_abbreviation": "GMT",
        }
        if number:  # the service numbers all places but the first
            place["location_id"] = number
        speed = [round(float(value), 2) for value in station] + [None] * COMING
        place |= {
            "daily_units": {"time": "iso8601", "wind_speed_10m_mean": "m/s"},
            "daily": {"time": dates, "wind_speed_10m_mean": speed},
        }
        answer.append(place)
    stored = {
        "replay": True,
        "note": f"replay of {TODAY:%d %B %Y}: measured daily means in the form of an answer of Open-Meteo",
        "retrieved": f"{TODAY:%Y-%m-%d}T06:00:00Z",
        "source": ENTRY["original_source"],
        "references": ENTRY["references"],
        "license": ENTRY["license"],
        "station": [str(code) for code in np.asarray(wind["station"]).astype(str)],
        "name": [str(name) for name in np.asarray(wind["name"]).astype(str)],
    }
    head = json.dumps(stored, indent=1, ensure_ascii=False)[:-2]
    places = ",\n".join("  " + json.dumps(place, separators=(",", ":")) for place in answer)
    text = f'{head},\n "answer": [\n{places}\n ]\n}}\n'
    json.loads(text)
    (built / "open_meteo_replay.json").write_text(text, encoding="utf-8")
    return ["open_meteo_replay.json"]


def run(arguments: list[str] | None = None) -> int:
    return main("open_meteo_replay", ENTRY, lambda folder: DATA_DIR / "irish_wind.nc", build, arguments)


if __name__ == "__main__":
    sys.exit(run())
