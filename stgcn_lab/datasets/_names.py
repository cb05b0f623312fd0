"""What files call the weather, its units and its places; the findings; and what is found in one."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from .bundled import KNOT

# Our name: CF standard name, units, smallest and largest value that weather has.
QUANTITIES = {
    "air_temperature": ("air_temperature", "degC", -100, 65),
    "tmin": ("air_temperature", "degC", -100, 65),
    "tmax": ("air_temperature", "degC", -100, 65),
    "dew_point_temperature": ("dew_point_temperature", "degC", -100, 45),
    "wind_speed": ("wind_speed", "m s-1", 0, 130),
    "eastward_wind": ("eastward_wind", "m s-1", -150, 150),
    "northward_wind": ("northward_wind", "m s-1", -150, 150),
    "precip": ("lwe_thickness_of_precipitation_amount", "mm", 0, 15000),
    "relative_humidity": ("relative_humidity", "%", 0, 110),
    "air_pressure_at_mean_sea_level": ("air_pressure_at_mean_sea_level", "hPa", 850, 1100),
}
# What files call them, as `plain_name` has it.
CALLED = {
    "air_temperature": "temperature temp airtemp t2m 2t tas ta tavg tmean tg temperature2m temp2m 2mtemperature "
    "airtemperature2m tmp lufttemperatur temperatur temperatura tmk tt 气温 温度",
    "tmin": "tn tasmin mintemp tempmin temperaturemin temperature2mmin tnk 最低气温",
    "tmax": "tx tasmax maxtemp tempmax temperaturemax temperature2mmax txk 最高气温",
    "dew_point_temperature": "dewpoint dewpointtemperature d2m 2d td tdew dewpoint2m 2mdewpointtemperature 露点",
    "wind_speed": "wind windspeed ws wspd ff fm fg ff10 sfcwind si10 10si windspeed10m windgeschwindigkeit wdsp sknt "
    "meanwindspeed 风速",
    "eastward_wind": "u u10 10u uwnd uas 10mucomponentofwind",
    "northward_wind": "v v10 10v vwnd vas 10mvcomponentofwind",
    "precip": "precipitation rain rainfall prcp rr rs rsk tp precipitationsum totalprecipitation niederschlag lluvia "
    "pluie rainsum p01m 降水 降水量",
    "relative_humidity": "rh rhum humidity relhum relativehumidity2m hurs upm 相对湿度",
    "air_pressure_at_mean_sea_level": "msl mslp slp pmsl pp pressuremsl meansealevelpressure sealevelpressure psl "
    "海平面气压",
}
# What files call the columns and coordinates that are no weather; where several are there, the first counts.
ROLES = {
    "time": "time date datetime timestamp datum zeit fecha hora heure dato data obstime validtime valid utc timeutc "
    "dateutc localtime messdatum epoch unixtime dt uhrzeit clock yyyymmdd 日期 时间",
    "station": "station stationid stationcode site siteid staid stationsid stid id wmo wmoid icao usaf location "
    "locationid place ort code stationname name stationsname sitename 站号 站点 站名",
    "name": "name stationname stationsname sitename 站名",
    "lat": "lat latitude breite geobreite geogrbreite latitud navlat 纬度",
    "lon": "lon long lng longitude laenge lange geolaenge geogrlaenge longitud navlon geogrlange geolange 经度",
    "elevation": "elevation elev alt altitude height stationshoehe hoehe surfacealtitude hohe stationshohe 海拔",
    "variable": "variable parameter element datatype quantity",
    "value": "value wert valor values",
    "units": "units unit einheit",
    "year": "year yr yyyy jahr ano annee 年",
    "month": "month mon mm mo monat mes mois 月",
    "day": "day dy dd tag dia jour 日",
    "hour": "hour hr hh hours stunde 时",
    "minute": "minute min mi",
    "dayofyear": "dayofyear doy yday julianday",
}
# Spellings of units, as `known_unit` has them: ours, and the factor and the summand that lead there.
UNITS_CALLED = {
    "c ℃ degc celsius degreecelsius degreescelsius degreec degreesc cel": ("degC", 1.0, 0.0),
    "k kelvin degk degreek degreekelvin": ("degC", 1.0, -273.15),
    "f degf fahrenheit degreefahrenheit degreesfahrenheit degreef degreesf": ("degC", 5 / 9, -160 / 9),
    "m/s ms-1 mps meter/second meters/second m/sec metrepersecond meterpersecond meterspersecond metrespersecond "
    "meter/s": ("m s-1", 1.0, 0.0),
    "kn kt kts knot knots nmi/h kn/h": ("m s-1", KNOT, 0.0),
    "km/h kmh-1 kmh kph kmhr-1 km/hr": ("m s-1", 1 / 3.6, 0.0),
    "mph mi/h mih-1 mileperhour milesperhour mp/h": ("m s-1", 0.44704, 0.0),
    "hpa mb mbar millibar hectopascal": ("hPa", 1.0, 0.0),
    "pa pascal pascals": ("hPa", 0.01, 0.0),
    "kpa": ("hPa", 10.0, 0.0),
    "inhg": ("hPa", 33.86389, 0.0),
    "% percent pct": ("%", 1.0, 0.0),
    "mm kgm-2 kg/m2 l/m2 lm-2 millimeter millimetre millimeters millimetres mm/day mmd-1": ("mm", 1.0, 0.0),
    "cm": ("mm", 10.0, 0.0),
    "m metre meter metres meters": ("mm", 1000.0, 0.0),
    "in inch inches": ("mm", 25.4, 0.0),
}
_UNITS = {spelling: to for spellings, to in UNITS_CALLED.items() for spelling in spellings.split()}
_NAMES = {name: ours for ours, names in CALLED.items() for name in [ours.replace("_", ""), *names.split()]}
# What stands for a missing value in tables of numbers, and in a cell of text.
NINES = [99.9, 99.99, 999.0, 999.9, 999.99, 9999.0, 9999.9, 99999.0]
FILLS = np.array([-99.0, *(-nines for nines in NINES), *NINES, -8888, 32767, -32767, -32768, 1e20, -1e20, 1e30, -1e30])
MISSING = {"", "no data", ".", "?", "x", "m", "missing", "nd", "k.a."}
MISSING |= {"na", "n/a", "n.a.", "<na>", "nan", "nil", "null", "none", "#n/a", "#value!", "#num!", "#ref!", "#div/0!"}
MISSING |= {sign * count for sign in "-*/" for count in range(1, 7)}


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a file: level "error", "warning" (repaired, or doubtful) or "note"."""

    level: str
    what: str
    advice: str = ""
    kind: type[Exception] = field(default=ValueError, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.level}: {self.what}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Inspection:
    """A file as a series of stations, None where there is an error, and all that was found on the way."""

    series: xr.Dataset | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What has to be put right before the file can be used."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


class Stop(Exception):
    """What was found leaves nothing to go on with."""


class Log:
    """The findings so far, and what the caller said."""

    def __init__(self, **said: Any) -> None:
        self.found: list[Finding] = []
        self.said = said
        self.used: set[str] = set()  # which names of ``units`` there are
        self.decimal_comma = False  # does the table that is read separate cells by semicolons?
        self.local = ""  # column of times that by its name is not in UTC
        self.alone = False  # one variable, so ``units`` means that one

    def add(self, level: str, what: str, advice: str = "", kind: type[Exception] = ValueError) -> None:
        finding = Finding(level, what, advice, kind)
        if finding not in self.found:
            self.found.append(finding)

    def error(self, what: str, advice: str = "") -> None:
        self.add("error", what, advice)

    def warning(self, what: str, advice: str = "") -> None:
        self.add("warning", what, advice)

    def note(self, what: str, advice: str = "") -> None:
        self.add("note", what, advice)

    def stop(self, what: str, advice: str = "", kind: type[Exception] = ValueError) -> Stop:
        """To be raised: an error after which nothing is left to go on with."""
        self.add("error", what, advice, kind)
        return Stop()


def plain_name(name: object) -> str:
    """A name without case, accents, blanks and signs, to compare names with."""
    text = unicodedata.normalize("NFKD", str(name)).casefold()
    return "".join(c for c in text if c.isalnum())


def is_role(name: object, role: str) -> bool:
    """Whether a name says that a column is the time, the station and so on."""
    return plain_name(name) in ROLES[role].split()


def our_name(name: object) -> str | None:
    """What this package calls a quantity of the weather, None if it is not known."""
    return _NAMES.get(plain_name(name))


def known_unit(text: str) -> tuple[str, float, float] | None:
    """Our unit for one spelling of it, the factor and the summand; None if it is not known."""
    plain = re.sub(r"\*\*|[\s.·⋅^_°º˚]|Â", "", text).replace("−", "-").replace("²", "2").replace("⁻¹", "-1").lower()
    tenth = re.match(r"(?:01|1/10|tenthsof|tenths|tenth)(?=[a-z])", plain)
    found = _UNITS.get(plain[tenth.end() if tenth else 0 :])
    return found and (found[0], found[1] * 0.1 if tenth else found[1], found[2])


def name_and_unit(text: str) -> tuple[str, str | None]:
    """Name and unit of a column, from "Temp (°F)", "wind [kn]" or "temp_f"."""
    text = " ".join(text.split()).strip("'\" ")
    if found := re.fullmatch(r"(.*?)[\s_,]*[\[(]([^\])]*)[\])]", text):
        return found[1].strip() or text, found[2].strip() or None
    base, _, last = text.replace(" ", "_").rpartition("_")
    if our_name(base) and not our_name(text) and known_unit(last):
        return base, last
    return text, None


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun: "1 line has", "2 lines have"."""
    return f"{number} {one if number == 1 else many}"


def shown(names: Iterable[object]) -> str:
    """The first few of some names, as text."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")
