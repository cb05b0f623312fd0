"""From a series to a result with sensible settings: regimes, a forecast, or filled gaps.

Each job prepares the series (:func:`prepare`), chooses its settings on a part of the record, scores the choice once on
another part that played no role in it, and says in words what it did. :mod:`stgcn_lab.report` writes the result,
:mod:`stgcn_lab.cli` is the same from the command line.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ._checks import whole_number
from .baselines import _season_design, eof_kmeans, fit_ar, fit_damped_persistence, fit_gnar, fit_var, persistence
from .datasets import check_series, grid_to_nodes, nodes_to_grid
from .forecasting import fit_forecaster
from .graphs import knn_graph
from .imputation import impute as fill
from .interpolation import anomalies, krige_in_space, space_correlation
from .regimes import LEAST_STEPS, choose_num_regimes, discover_regimes
from .simulate import withhold
from .verification import _default_block, block_bootstrap, compare, mean_score
from .windows import _lattice

if TYPE_CHECKING:
    from torch_geometric.data import Data

Array = NDArray[np.float64]
MOST_STATIONS = 2000  # matrices of all pairs, a few of them, still fit into memory
MOST_KRIGING = 2.5e11  # cubes of the stations that report, summed over the patterns of gaps
LEAST_FORECAST, LEAST_IMPUTE = 60, 20  # steps
MOST_REGIMES = 6
TRAIN, TEST = 0.6, 0.8  # where the part that chooses begins, and the one that is scored
NEIGHBOURS = 8
NETWORK_CELLS = 2_000_000  # steps times stations; above it training would take longer than a reader waits
ENSEMBLE_CELLS = 360_000  # the network has three members up to a third of them, and one above them
SKEWED = 0.5  # of anomalies; the root of wind speed or rain is more nearly Gaussian
Z90 = 1.645  # of a Gaussian, 5 % lie above


class SeriesError(ValueError):
    """The series cannot be used for this job; the message says why and what to do."""


@dataclass(frozen=True)
class Result:
    """What a job found.

    Attributes:
        job: "regimes", "forecast" or "impute".
        series: (time, station) as the method saw it, gaps and all.
        data: what is written as NetCDF.
        scores: one row for each method (and lead time), with intervals.
        chosen: the method that the choosing part of the record preferred.
        notes: what was done to the series, in sentences.
        facts: the numbers that the report speaks of.
    """

    job: str
    series: xr.DataArray
    data: xr.Dataset
    scores: pd.DataFrame
    chosen: str
    notes: tuple[str, ...]
    facts: dict[str, Any] = field(repr=False)


# ---------------------------------------------------------------------------- preparation


def prepare(
    series: xr.DataArray | xr.Dataset, variable: str | None = None, steps: str = "day"
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """One variable on a regular time axis, ready for a job; and what was done to it, in sentences.

    A grid becomes nodes; several values a day become one (the mean, or the sum of an amount of rain or snow); missing
    steps are put in as NaN; ends without any value and stations without one are left out.

    Args:
        series: as :func:`stgcn_lab.datasets.check_series` wants it, or the same on a grid (time, lat, lon).
        variable: name of the variable in a Dataset; None if there is only one.
        steps: "day", or "keep" to leave several values a day as they are.

    Returns:
        (time, station) float64, and the notes.

    Raises:
        SeriesError: for anything that no job can use.
    """
    if steps not in ("day", "keep"):
        raise ValueError(f"steps: expected 'day' or 'keep', found {steps!r}")
    notes: list[str] = []
    x = _one_variable(series, variable)
    try:
        if {"lat", "lon"} <= set(x.dims):
            notes.append(f"Each of the {x.sizes['lat']} x {x.sizes['lon']} cells of the grid is taken as a station.")
            x = grid_to_nodes(x)
        if "station" in x.dims and "station" not in x.coords:
            x = x.assign_coords(station=np.arange(x.sizes["station"]))
        x = check_series(x).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise SeriesError(str(error)) from error
    x = x.drop_vars([name for name in x.coords if name not in ("time", "station", "lat", "lon", "elevation", "name")])
    if "direction" in f"{x.name} {x.attrs.get('standard_name', '')}".lower():
        raise SeriesError(
            f"series: expected a quantity that can be averaged, found the direction {x.name!r}: the mean of 350 and 10 "
            "degrees is not 180; take the eastward and northward wind"
        )
    if not isinstance(x.indexes["time"], pd.DatetimeIndex):
        raise SeriesError(f"time: expected dates of the usual calendar, found {x.indexes['time'].dtype}")
    if x.sizes["station"] > MOST_STATIONS:
        raise SeriesError(
            f"station: expected at most {MOST_STATIONS} stations or cells, found {x.sizes['station']}; "
            "cut out a region, or take every second cell"
        )
    if "elevation" in x.coords and not np.isfinite(x["elevation"].values.astype(float)).all():
        x = x.drop_vars("elevation")
        notes.append("Elevation is unknown at some stations and was not used.")
    x = _regular(x, notes)
    x = _by_day(x, steps, notes)
    there = x.notnull().values
    if not there.any():
        raise SeriesError("series: expected at least one value, found none; every value is missing")
    rows = np.flatnonzero(there.any(axis=1))
    if len(rows) < len(there) and (rows[-1] - rows[0] + 1) < len(there):
        notes.append(f"{len(there) - (rows[-1] - rows[0] + 1)} steps without any value at the ends were left out.")
        x = x[rows[0] : rows[-1] + 1]
    silent = ~there.any(axis=0)
    if silent.any():
        names = ", ".join(map(str, x["station"].values[silent][:5])) + (", ..." if silent.sum() > 5 else "")
        notes.append(f"{silent.sum()} stations never report and were left out: {names}.")
        x = x[:, ~silent]
    return x, tuple(notes)


def _one_variable(series: Any, variable: str | None) -> xr.DataArray:
    if isinstance(series, xr.DataArray):
        return series
    if not isinstance(series, xr.Dataset):
        raise SeriesError(f"series: expected an xarray DataArray or Dataset, found {type(series).__name__}")
    names = [str(name) for name, values in series.data_vars.items() if "time" in values.dims]
    if variable is None:
        if len(names) != 1:
            raise SeriesError(
                f"variable: found {len(names)} variables over time in the series ({', '.join(names) or 'none'}), "
                f"expected one; choose it, such as --variable {names[0] if names else 'NAME'} or variable=..."
            )
        variable = names[0]
    if variable not in names:
        raise SeriesError(f"variable: found {variable!r}, expected one of {', '.join(names) or 'none'}")
    return series[variable]


def _regular(x: xr.DataArray, notes: list[str]) -> xr.DataArray:
    """Missing steps put in as NaN."""
    if x.sizes["time"] < 3:
        raise SeriesError(f"time: expected at least 3 steps, found {x.sizes['time']}; this needs a longer record")
    try:
        lattice, rows, _ = _lattice(x.indexes["time"].as_unit("ns"), "time")
    except ValueError as error:
        raise SeriesError(f"{error}; average the values to days or months first") from error
    if len(lattice) > len(rows):
        notes.append(f"{len(lattice) - len(rows)} steps that the record lacks were put in as missing.")
        x = x.reindex(time=lattice)
    return x


def step_of(time: xr.DataArray) -> tuple[str, float]:
    """What a step is called, such as "day" or "6 hours", and its usual length in days."""
    days = float(np.median(np.diff(time.values)) / np.timedelta64(1, "D"))
    if days >= 350:
        return "year", days
    if days >= 28:
        return ("month" if days < 32 else f"{round(days / 30.4)} months"), days
    if days >= 0.99:
        return ("day" if days < 1.5 else f"{round(days)} days"), days
    hours = round(days * 24)
    return ("hour" if hours == 1 else f"{hours} hours" if hours else f"{round(days * 1440)} minutes"), days


def _by_day(x: xr.DataArray, steps: str, notes: list[str]) -> xr.DataArray:
    name, days = step_of(x["time"])
    if steps == "keep" or days > 0.75:
        return x
    each = round(1 / days)
    amount = x.attrs.get("standard_name", "").endswith("amount") or x.attrs.get("units") == "mm"
    groups = x.resample(time="1D")
    count = groups.count()
    daily = groups.mean() * (each if amount else 1)
    daily = daily.where(count >= 0.75 * each).transpose("time", "station")
    notes.append(
        f"{each} values a day (one every {name}) were {'summed' if amount else 'averaged'} to days of UTC; "
        "a day counts if three quarters of them are there."
    )
    if daily.sizes["time"] < 3:
        raise SeriesError(f"time: expected at least 3 days, found {daily.sizes['time']}; or keep the steps as they are")
    return daily.assign_attrs(x.attrs)


def _check_varies(x: xr.DataArray, least: int, job: str, notes: list[str]) -> xr.DataArray:
    """Enough steps; stations whose value never changes are left out."""
    if x.sizes["time"] < least:
        raise SeriesError(
            f"time: expected at least {least} steps for {job}, found {x.sizes['time']} ({_period(x)}); "
            "this needs a longer record"
        )
    values = x.values
    largest = np.nanmax(np.abs(values))
    if largest > 1e9:
        raise SeriesError(f"series: expected values of weather, found {largest:g}; is it a code for a missing value?")
    constant = np.nanmax(values, axis=0) - np.nanmin(values, axis=0) <= 1e-9 * max(largest, 1e-300)
    if constant.all():
        raise SeriesError("series: expected values that vary in time, found a constant at every station")
    if constant.any():
        names = ", ".join(map(str, x["station"].values[constant][:5]))
        notes.append(f"{constant.sum()} stations whose value never changes were left out: {names}.")
        x = x[:, ~constant]
    _check_cost(x)
    return x


def _check_cost(x: xr.DataArray) -> None:
    """Kriging inverts a matrix for each pattern of gaps; a dozen times over, that must end within minutes."""
    patterns = np.unique(x.notnull().values, axis=0)
    if float((patterns.sum(axis=1).astype(float) ** 3).sum()) > MOST_KRIGING:
        raise SeriesError(
            f"series: {x.sizes['station']} stations or cells with {len(patterns)} different patterns of gaps are more "
            "than can be kriged in minutes; cut out a region or a period, or leave out the stations with gaps"
        )


def _period(x: xr.DataArray) -> str:
    return f"{str(x.time.values[0])[:10]} to {str(x.time.values[-1])[:10]}"


def _graph(x: xr.DataArray) -> "Data":
    return knn_graph(x["lat"].values, x["lon"].values, k=NEIGHBOURS)


def _is_grid(x: xr.DataArray) -> bool:
    try:
        return min(nodes_to_grid(x[0]).shape) > 1
    except ValueError:
        return False


@contextmanager
def _solvable() -> Iterator[None]:
    """What makes the equations of a method singular is in the series."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise SeriesError(
            "series: its equations have no solution, as where stations are copies of one another or hardly change; "
            "leave such stations out"
        ) from error


@contextmanager
def _stages(total: int, progress: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar on the error stream: call it with the name of what begins now."""
    bars = tqdm(total=total, disable=not progress, bar_format="{l_bar}{bar:24}| {elapsed}")
    # For matrices this small, several threads wait for each other more than they work.
    with threadpool_limits(1, "blas"), bars as bar:
        begun = False

        def stage(name: str) -> None:
            nonlocal begun
            bar.update(begun)
            begun = True
            bar.set_description(f"{name:<36}")

        yield stage
        bar.update(total - bar.n)


# ---------------------------------------------------------------------------- anomalies


@dataclass(frozen=True)
class _View:
    """A series as the methods see it, and the way back: ``x = g(usual + scale · z)``, g the square if ``root``."""

    z: xr.DataArray  # without gaps
    usual: Array
    scale: Array
    root: bool

    def back(self, z: Array, spread: Array | float = 0.0) -> Array:
        """In the units of the series; the mean of a square is the square of the mean and the variance."""
        y = self.usual + self.scale * z
        return y.clip(0) ** 2 + (self.scale * spread) ** 2 if self.root else y


def _view(x: xr.DataArray, rows: int, harmonics: int, root: bool = False) -> _View:
    """Anomalies from a season that the first ``rows`` steps tell, gaps kriged from what reports at the same time."""
    y = _root(x) if root else x
    taught = xr.DataArray(np.arange(x.sizes["time"]) < rows, dims="time")
    clock = _clock(y, rows) + _shared_wave(y, rows, harmonics)
    found = anomalies((y - clock).where(taught), harmonics if harmonics > 1 else 0)
    z = (y.values - clock - found.season) / found.scale
    if np.isnan(z).any():
        guess = krige_in_space(replace(found, z=z), space_correlation(found).matrix(found))[0]
        z = np.where(np.isnan(z), guess, z)
    kept = x.reset_coords(drop=True).copy(data=z)
    return _View(kept, clock + found.season, found.scale, root)


def _clock(y: xr.DataArray, rows: int) -> Array:
    """(time, station) usual departure of each hour from its day, from the first ``rows`` steps; 0 for daily values."""
    if step_of(y["time"])[1] > 0.75:
        return np.zeros(y.shape)
    day = y["time"].values.astype("datetime64[D]")
    hour = (y["time"].values - day) / np.timedelta64(1, "m")
    frame = pd.DataFrame(y.values[:rows])
    departure = frame - frame.groupby(day[:rows]).transform("mean")
    usual = departure.groupby(hour[:rows]).mean().reindex(np.unique(hour)).fillna(0.0)
    return usual.to_numpy()[np.searchsorted(usual.index.to_numpy(), hour)]


def _root(x: xr.DataArray) -> xr.DataArray:
    return x.copy(data=np.sqrt(x.values.clip(0)))


def _tries_root(x: xr.DataArray) -> bool:
    """Never negative and skewed, as wind speed and rain are."""
    values = x.values
    if np.nanmin(values) < 0:
        return False
    deviation = values - np.nanmean(values, axis=0)
    variance = np.nanmean(deviation**2)
    return bool(variance > 0 and np.nanmean(deviation**3) / variance**1.5 > SKEWED)


def _harmonics(x: xr.DataArray) -> int:
    """Annual harmonics that a record can tell: two of each station; from one to two years one that all share."""
    days = (x["time"].values[-1] - x["time"].values[0]) / np.timedelta64(1, "D")
    if days < 365 - 31 or step_of(x["time"])[0] == "year":
        return 0
    return 1 if days < 2 * 365 - 31 else 2


def _shared_wave(y: xr.DataArray, rows: int, harmonics: int) -> Array:
    """(time, 1) annual wave of the mean over the stations, where a record is too short for a season of each."""
    if harmonics != 1:
        return np.zeros((y.sizes["time"], 1))
    mean = _mean_of((y.values[:rows] - _mean_of(y.values[:rows])).T)
    design, known = _season_design(y["time"], 1), np.isfinite(mean)
    wave = np.linalg.lstsq(design[:rows][known], mean[known], rcond=None)[0]
    return design[:, 1:] @ wave[1:, None]


def _season_note(x: xr.DataArray, what: str = "record") -> str:
    if step_of(x["time"])[0] == "year":
        return "One value a year has no season: anomalies are from each station's mean."
    return (
        f"The {what} ({_period(x)}) is shorter than a year and cannot tell a season: anomalies are from each station's "
        "mean, and the difference of summer and winter counts as weather.",
        f"The {what} ({_period(x)}) is shorter than two years: of the season it tells one annual wave that all "
        "stations share, and the weather of that one year passes for usual.",
        "The season (annual harmonics at each station) was taken off before anything was learned.",
    )[_harmonics(x)]


# ---------------------------------------------------------------------------- regimes


def regimes(
    series: xr.DataArray | xr.Dataset,
    k: int | None = None,
    *,
    variable: str | None = None,
    steps: str = "day",
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """The weather regimes of a series: how many, which when, and what they look like.

    Gaps are filled (kriging), times at which no station reports are left out, the season is taken off, skewed values
    that are never negative are replaced by their root, and :func:`stgcn_lab.regimes.discover_regimes` does the rest.

    Args:
        series: as in :func:`prepare`.
        k: number of regimes; None chooses it on halves of the record that were held out.
        variable, steps: as in :func:`prepare`.
        seed: of everything random.
        progress: show a bar on the error stream.

    Returns:
        With ``data``: regime (time), probability (time, regime), composite (regime, station), the mean anomaly in the
        units of the series, transition (regime, next), duration (regime), share (regime, month).

    Raises:
        SeriesError: for a series that has no regimes to find, or is too short.
    """
    seed = whole_number(seed, "seed", least=0)
    x, told = prepare(series, variable, steps)
    notes = [*told]
    if k is not None and whole_number(k, "k") > 12:
        raise SeriesError(f"k: expected at most 12 regimes, found {k}; more than that nobody can look at")
    least = 2 * LEAST_STEPS if k is None else LEAST_STEPS * k
    x = _check_varies(x, least, "regimes" if k is None else f"{k} regimes", notes)
    with _stages(4, progress) as stage, _solvable():
        stage("filling gaps")
        reported = x.notnull().any("station").values
        if not reported.all():
            notes.append(f"{(~reported).sum()} steps at which no station reports were left out.")
        missing = int(x.isnull().values[reported].sum())
        root = _tries_root(x)
        y = _root(x) if root else x
        if missing:
            share = missing / (reported.sum() * x.sizes["station"])
            notes.append(f"{missing} missing values ({share:.1%}) were filled by kriging from the stations around.")
            if share > 0.3:
                notes.append("So much of the record was filled that regimes may follow the filling: beware.")
            y = fill(y, method="kriging").reset_coords("spread", drop=True)
        if root:
            notes.append("The values are never negative and skewed: regimes were sought in their square root.")
        notes.append(_season_note(x))
        past = int((reported[2:] & reported[1:-1] & reported[:-2]).sum())  # an expert looks two steps back
        if past < least:
            raise SeriesError(
                f"time: expected at least {least} steps with a report then and at the two steps before, found {past}"
            )
        z = _anomaly(y)[reported]
        if (warming := _trend(z)) is not None:
            notes.append(warming)
        graph = _graph(x)
        options: dict[str, Any] = {}
        if _is_grid(x):
            options["weights"] = np.maximum(np.cos(np.deg2rad(x["lat"].values)), 0.01)
            notes.append("Cells of a grid count by their area.")
        name, days = step_of(z["time"])
        options["duration"] = 30.0 if days < 20 else 6.0
        stage("how many regimes" if k is None else "finding regimes")
        if k is None:
            most = min(MOST_REGIMES, past // (2 * LEAST_STEPS))
            gains = choose_num_regimes(z, graph, range(1, most + 1), seed, **options)
            k = int(gains["num_regimes"].values[gains.values.argmax()])
            notes.append(f"The number of regimes, {k}, is the one that held-out halves of the record preferred.")
        stage("finding regimes")
        found = discover_regimes(z, graph, k, seed, **options)
        stage("a classical method beside it")
        modes = int(min(10, z.sizes["time"] - 1, z.sizes["station"]))
        classical = eof_kmeans(z, modes, k, seed=seed, weights=options.get("weights")) if k > 1 else found.labels * 0
    anomaly = x[reported] - (_usual(x)[reported])
    labels = found.labels.values
    composite = np.stack([_mean_of(anomaly.values[labels == j]) for j in range(k)])
    month = z["time"].dt.month.values
    by_month = np.array([[np.mean(labels[month == m] == j) if (month == m).any() else np.nan for m in range(1, 13)]
                         for j in range(k)])  # fmt: skip
    units = {"units": x.attrs["units"]}
    numbers = {"regime_number": np.arange(k), "next": np.arange(k), "month": np.arange(1, 13)}
    data = xr.Dataset(
        {
            "regime": ("time", labels.astype(np.int32), {"long_name": "regime, 0 the commonest", "units": "1"}),
            "probability": (("time", "regime_number"), found.probabilities.values, {"units": "1"}),
            "composite": (
                ("regime_number", "station"),
                composite,
                {"long_name": f"mean anomaly of {_name(x)}", **units},
            ),
            "transition": (("regime_number", "next"), found.transition_matrix.values, {"units": "1"}),
            "duration": ("regime_number", found.mean_duration.values, {"units": f"steps of a {name}"}),
            "share": (("regime_number", "month"), by_month, {"long_name": "share of the month", "units": "1"}),
        },
        {"time": z["time"], **numbers, **_places(x)},
        {"title": f"Weather regimes of {_name(x)}", "verdict": found.verdict},
    )
    scores = pd.DataFrame(
        {"regimes": found.held_out["num_regimes"].values, "gain over one regime (nats a step)": found.held_out.values}
    )
    if k > 1 and not np.isfinite(scores.iloc[:, 1]).all():
        scores = scores.dropna()
    facts = {
        "k": k,
        "shares": [float(np.mean(labels == j)) for j in range(k)],
        "durations": [float(d) for d in found.mean_duration.values],
        "verdict": found.verdict,
        "supported": found.supported,
        "stability": found.stability,
        "agreement": float(adjusted_rand_score(labels, classical.values)),
        "apart": _apart(labels, k),
        "step": name,
        "season": _harmonics(x) > 0,
    }
    return Result("regimes", x, data, scores, f"{k} regimes", tuple(notes), facts)


def _apart(labels: NDArray[np.int64], k: int) -> float:
    """How differently the halves of a record use the regimes: 0 for the same shares, 1 for no regime in common."""
    early, late = (np.bincount(half, minlength=k) / len(half) for half in np.array_split(labels, 2))
    return float(np.abs(early - late).sum() / 2)


def _trend(z: xr.DataArray) -> str | None:
    """A word of warning if the mean over the stations drifts by more than its standard deviation."""
    mean = z.mean("station").values
    slope, level = np.polyfit(np.linspace(-0.5, 0.5, len(mean)), mean, 1)
    if abs(slope) < np.std(mean - level):
        return None
    return (
        f"The mean of all stations drifts by {slope:+.2g} from the beginning of the record to its end: regimes may "
        "tell early from late years, not one kind of weather from another."
    )


def _anomaly(y: xr.DataArray) -> xr.DataArray:
    """A series without gaps less its season and the hour of the day."""
    return y.copy(data=y.values - _usual(y))


def _usual(x: xr.DataArray) -> Array:
    harmonics = _harmonics(x)
    clock = _clock(x, x.sizes["time"]) + _shared_wave(x, x.sizes["time"], harmonics)
    return clock + anomalies(x - clock, harmonics if harmonics > 1 else 0).season


def _mean_of(values: Array) -> Array:
    count = np.isfinite(values).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(values.shape[1], np.nan), where=count > 0)


def _name(x: xr.DataArray) -> str:
    return str(x.attrs.get("long_name") or x.name or "the series")


# ---------------------------------------------------------------------------- forecast

SIMPLE = ("climatology", "persistence")
LINEAR = ("damped persistence", "autoregression", "network autoregression", "vector autoregression")
NETWORK = "graph network"
SCORES = ("rmse", "low", "high", "chosen minus it", "difference low", "difference high")
Setting = tuple[str, bool, dict[str, Any]]  # name, root, options


def forecast(
    series: xr.DataArray | xr.Dataset,
    lead: int = 1,
    *,
    variable: str | None = None,
    steps: str = "day",
    network: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """Forecast the steps after the end of a record, by the method that its own past recommends.

    The first 60 % of the record teach, the next 20 % choose among climatology, persistence, autoregressions of single
    stations and of all, and a graph network (and their settings, and whether to take the root of skewed values), the
    last 20 % are scored once, on values whose station reported when the forecast was made. Then the chosen method is
    fitted to all of it. Gaps in what a forecast starts from are kriged from the stations that report at that time.

    Args:
        series: as in :func:`prepare`.
        lead: how many steps ahead; all from 1 to ``lead`` are forecast and scored.
        variable, steps: as in :func:`prepare`.
        network: whether to try the graph network, which takes most of the time.
        seed: of the network and the intervals.
        progress: show a bar on the error stream.

    Returns:
        With ``data``: forecast, lower and upper (time, station), an interval that holds 90 % if the errors stay what
        they were; lead (time); and past_forecast, past_observed (lead, past_time, station) of the scored part.

    Raises:
        SeriesError: for a series too short, or with too few values in one of its parts.
    """
    seed, lead = whole_number(seed, "seed", least=0), whole_number(lead, "lead")
    x, told = prepare(series, variable, steps)
    notes = [*told]
    x = _check_varies(x, LEAST_FORECAST, "a forecast", notes)
    total = x.sizes["time"]
    first, second = round(TRAIN * total), round(TEST * total)
    if lead > (total - second) // 3:
        raise SeriesError(
            f"lead: expected at most {(total - second) // 3} steps, a third of the {total - second} that are scored, "
            f"found {lead}"
        )
    leads = range(1, lead + 1)
    targets = {h: x.where(persistence(x, h).notnull()) for h in leads}
    for h in leads:
        for part, rows in (("choosing", slice(first, second)), ("scored", slice(second, None))):
            if targets[h][rows].count() < 20:
                raise SeriesError(
                    f"series: expected at least 20 values in the {part} part ({_period(x[rows])}) whose station also "
                    f"reported {h} steps earlier, found {int(targets[h][rows].count())}; too many gaps"
                )
    if network and first * x.sizes["station"] > NETWORK_CELLS:
        network = False
        notes.append("The record is too large for the graph network to be trained in minutes: left out.")
    task = _Task(x, _graph(x), targets, _harmonics(x[:first]), seed)
    with _stages(6 if network else 4, progress) as stage, _solvable():
        stage("season and gaps")
        roots = (False, True) if _tries_root(x[:second]) else (False,)
        views = {root: _view(x, first, task.harmonics, root) for root in roots}
        stage("choosing a linear method")
        best, errors, runs = _choose(task, views, first, second)
        if network:
            stage("training a graph network")
            _add_network(task, views, first, second, best, errors, runs)
        chosen = min(errors, key=errors.__getitem__)
        root = best[chosen][1]
        spread = _errors_of(runs[chosen], views[root], x, first, second, task.leads)
        stage("scoring the last part")
        views = {root: _view(x, second, task.harmonics, root) for root in roots}
        runs = {name: _fitted(task, setting, views[setting[1]], second) for name, setting in best.items()}
        said = {name: {h: _values(views[best[name][1]], runs[name], h, second) for h in task.leads} for name in best}
        scores = _score_table(task, said, second, chosen)
        held = {h: _held(views[root], runs[chosen](h), spread[h], targets[h].values, second) for h in task.leads}
        stage("the forecast")
        later = _errors_of(runs[chosen], views[root], x, second, total, task.leads)
        wide = {h: np.sqrt((spread[h] ** 2 + later[h] ** 2) / 2) for h in task.leads}
        ahead = _ahead(task, best[chosen], wide)
    attrs = {key: x.attrs[key] for key in ("units", "standard_name") if key in x.attrs}
    past = (("lead_step", "past_time", "station"), np.stack([said[chosen][h][second:] for h in task.leads]), attrs)
    ahead["past_forecast"], ahead["past_observed"] = past, (("past_time", "station"), x.values[second:], attrs)
    data = ahead.assign_coords(lead_step=np.arange(1, lead + 1), past_time=x["time"].values[second:])
    data.attrs = {"title": f"Forecast of {_name(x)} from {str(x.time.values[-1])[:16]}", "method": chosen}
    notes.append(_season_note(x[:first], "first part of the record"))
    if root:
        notes.append("The method works on the square root of the values, which are skewed: so the choosing part said.")
    facts = {
        "step": step_of(x["time"])[0],
        "parts": [_period(x[:first]), _period(x[first:second]), _period(x[second:])],
        "held": held,
        "choosing": {name: errors[name] for name in sorted(errors, key=errors.__getitem__)},
        "settings": {name: setting[2] for name, setting in best.items()},
        "lead": lead,
        "season": task.harmonics > 0,
    }
    return Result("forecast", x, data, scores, chosen, tuple(notes), facts)


Run = Callable[[int], Array]  # of a lead time: z (time, station) at valid times


@dataclass(frozen=True)
class _Task:
    """What is to be forecast: ``targets[lead]`` are the values that count, their station having reported in time."""

    x: xr.DataArray
    graph: "Data"
    targets: dict[int, xr.DataArray]
    harmonics: int
    seed: int

    @property
    def leads(self) -> list[int]:
        return list(self.targets)


def _choose(
    task: _Task, views: dict[bool, _View], first: int, second: int
) -> tuple[dict[str, Setting], dict[str, float], dict[str, Run]]:
    """The best setting of each method, its error on the choosing part, and its fit to the part before."""
    best: dict[str, Setting] = {}
    errors: dict[str, float] = {}
    runs: dict[str, Run] = {}
    for setting in _candidates(task.x, tuple(views), first):
        name, view = setting[0], views[setting[1]]
        run = _fitted(task, setting, view, first)
        error = _choosing_error(task, views, view, run, first, second)
        if name not in best or error < errors[name]:
            best[name], errors[name], runs[name] = setting, error, run
    return best, errors, runs


def _choosing_error(task: _Task, views: dict[bool, _View], view: _View, run: Run, first: int, second: int) -> float:
    """Root mean square error on the choosing part as a share of climatology's, mean over the lead times."""
    usual = views[False].back(np.zeros(task.x.shape))
    shares = []
    for h in task.leads:
        target = task.targets[h][first:second]
        both = (_values(view, run, h, first), usual)
        mine, its = (mean_score(target.copy(data=values[first:second]), target) for values in both)
        shares.append(mine / max(its, 1e-300))
    return float(np.nan_to_num(np.mean(shares), nan=np.inf))


def _add_network(
    task: _Task,
    views: dict[bool, _View],
    first: int,
    second: int,
    best: dict[str, Setting],
    errors: dict[str, float],
    runs: dict[str, Run],
) -> None:
    """Train the network on top of the better of the two linear methods that know the neighbours."""
    linear = min(LINEAR[2:], key=errors.__getitem__)
    _, root, found = best[linear]
    view = views[root]
    if not (view.z.values[:first].std(axis=0) > 1e-9).all():
        return  # a station that says nothing before the choosing part
    members = int(np.clip(ENSEMBLE_CELLS // view.z[:first].size, 1, 3))
    options: dict[str, Any] = {"members": members, "lags": found["order"]}
    options |= {"ridge": found["ridge"]} if "ridge" in found else {"shared": True}
    model = _network(task, view, first, second, options)
    options["epochs"] = max(round(np.mean([history.best_epoch + 1 for history in model.histories])), 1)
    best[NETWORK], runs[NETWORK] = (NETWORK, root, options), _runner(model, view)
    errors[NETWORK] = _choosing_error(task, views, view, runs[NETWORK], first, second)


def _held(view: _View, z: Array, spread: Array, truth: Array, first: int) -> float:
    """Share of the scored values inside the interval of 90 %."""
    lower, upper = (view.back(z + sign * Z90 * spread)[first:] for sign in (-1, 1))
    known = np.isfinite(truth[first:])
    return float(((truth[first:] >= lower) & (truth[first:] <= upper))[known].mean())


def _ahead(task: _Task, setting: Setting, spread: dict[int, Array]) -> xr.Dataset:
    """The method fitted to the whole record, and what it says of the steps after it, with the bounds of 90 %."""
    x, total = task.x, task.x.sizes["time"]
    longer = _extended(x, len(spread))
    view = _view(longer, total, task.harmonics, setting[1])
    run = _fitted(task, setting, view, total)
    rows = {"forecast": [_values(view, run, h, total)[total + h - 1] for h in spread]}
    for name, sign in (("lower", -1), ("upper", 1)):
        rows[name] = [view.back(run(h) + sign * Z90 * spread[h])[total + h - 1] for h in spread]
    text = {"forecast": "forecast", "lower": "5 % bound of the forecast", "upper": "95 % bound of the forecast"}
    attrs = {key: x.attrs[key] for key in ("units", "standard_name") if key in x.attrs}
    least = 0.0 if float(x.min()) >= 0 else -np.inf
    data = {
        name: (("time", "station"), np.stack(values).clip(least), attrs | {"long_name": f"{_name(x)}, {text[name]}"})
        for name, values in rows.items()
    }
    plain = _view(longer, total, task.harmonics) if view.root else view
    usual = (("time", "station"), plain.usual[total:], attrs | {"long_name": f"{_name(x)}, usual at this time"})
    lead = ("time", np.array(list(spread)), {"units": "1", "long_name": "steps after the last observation"})
    return xr.Dataset(data | {"usual": usual}, {"time": longer["time"].values[total:], "lead": lead, **_places(x)})


def _places(x: xr.DataArray) -> dict[str, xr.DataArray]:
    return {str(name): coord for name, coord in x.coords.items() if coord.dims == ("station",)}


def _candidates(x: xr.DataArray, roots: tuple[bool, ...], rows: int) -> list[Setting]:
    few = x.sizes["station"] <= 600
    found: list[Setting] = [(name, False, {}) for name in SIMPLE]
    for root in roots:
        found.append(("damped persistence", root, {}))
        found += [("autoregression", root, {"order": p}) for p in (1, 2, 3)]
        found += [("network autoregression", root, {"order": p}) for p in (1, 2, 3)]
        found += [
            ("vector autoregression", root, {"order": p, "ridge": ridge})
            for p in ((1, 2) if few else (1,))
            for ridge in (0.01, 0.03, 0.1, 0.3, 1.0)
        ]
    return found


def _fitted(task: _Task, setting: Setting, view: _View, rows: int) -> Run:
    """Fit to the first rows: a function that gives z (time, station) at valid times for a lead."""
    name, _, options = setting
    train = view.z[:rows]
    if name == "climatology":
        return lambda h: np.zeros(view.z.shape)
    if name == "persistence":
        plain = view.back(view.z.values)
        return lambda h: (_shifted(plain, h) - view.usual) / view.scale
    if name == NETWORK:
        return _runner(_network(task, view, rows, None, options), view)
    if name == "damped persistence":
        model: Any = fit_damped_persistence(train)
    elif name == "autoregression":
        model = fit_ar(train, **options)
    elif name == "network autoregression":
        model = fit_gnar(train, task.graph, **options).on(task.graph, train["station"].values)
    else:
        model = fit_var(train, **options)
    return _runner(model, view)


def _runner(model: Any, view: _View) -> Run:
    kept: dict[int, Array] = {}

    def run(h: int) -> Array:
        if h not in kept:
            kept[h] = model.forecast(view.z, h).values
        return kept[h]

    return run


def _shifted(values: Array, h: int) -> Array:
    past = np.full_like(values, np.nan)
    past[h:] = values[:-h]
    return past


def _network(task: _Task, view: _View, first: int, second: int | None, options: dict[str, Any]) -> Any:
    return fit_forecaster(
        view.z[:first],
        None if second is None else view.z[first:second],
        task.graph,
        horizon=len(task.targets),
        harmonics=0,
        history=max(3, options["lags"]),
        patience=2,
        seed=task.seed,
        **{"epochs": 8} | options,
    )


def _values(view: _View, run: Run, h: int, rows: int) -> Array:
    """A forecast in the units of the series; the variance that a root needs comes from the first rows."""
    z = run(h)
    if not view.root:
        return view.back(z)
    error = (view.z.values - z)[:rows]
    return view.back(z, np.sqrt(_mean_of(error**2)))


def _errors_of(run: Run, view: _View, x: xr.DataArray, first: int, second: int, leads: list[int]) -> dict[int, Array]:
    """(station,) root mean square errors of z at each lead, drawn to those of all where there are few."""
    known = x.notnull().values[first:second]
    found = {}
    for h in leads:
        squares = np.where(known, (view.z.values - run(h))[first:second] ** 2, 0.0)
        count = known.sum(axis=0)
        pooled = squares.sum() / max(count.sum(), 1)
        found[h] = np.sqrt((squares.sum(axis=0) + 30 * pooled) / (count + 30))
    return found


def _extended(x: xr.DataArray, lead: int) -> xr.DataArray:
    """The series with ``lead`` more steps, all missing."""
    stamps = x.indexes["time"]
    _, _, step = _lattice(stamps.as_unit("ns"), "time")
    later = [stamps[-1] + (h + 1) * step for h in range(lead)]
    return x.reindex(time=stamps.append(pd.DatetimeIndex(later)))


def _score_table(task: _Task, said: dict[str, dict[int, Array]], second: int, chosen: str) -> pd.DataFrame:
    """One row a method and lead: RMSE of the scored part with its interval, and against the chosen method."""
    rows = []
    for name, h in [(name, h) for name in said for h in task.leads]:
        truth = task.targets[h][second:]
        options: dict[str, Any] = {"block_length": _default_block(truth["time"].values, h), "seed": task.seed}
        mine, best = (truth.copy(data=values[second:]) for values in (said[name][h], said[chosen][h]))
        alone = block_bootstrap(_root_mean, ((mine - truth) ** 2).values, of_means=True, **options)
        less = (0.0, 0.0, 0.0) if name == chosen else compare(best, mine, truth, **options)
        rows.append((name, h, *alone, *less))
    return pd.DataFrame(rows, columns=["method", "lead", *SCORES]).sort_values(["lead", "rmse"], ignore_index=True)


def _root_mean(mean: Array) -> Array:
    """Mean over the stations of each one's root mean square error, those without a value left out."""
    return np.nanmean(np.sqrt(mean), axis=1)


# ---------------------------------------------------------------------------- filling gaps

WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("straight line in time", "linear", {}),
    ("season and own past and future", "climatology", {}),
    ("inverse distance", "idw", {}),
    ("kriging", "kriging", {}),
    ("kriging in space and time", "kriging", {"memory": True}),
    ("leading EOFs", "eof", {}),
)
KRIGING = WAYS[3]
ATTENTION: tuple[str, str, dict[str, Any]] = ("attention network", "attention", {})


def impute(
    series: xr.DataArray | xr.Dataset,
    *,
    variable: str | None = None,
    steps: str = "day",
    network: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """Fill the gaps of a series by the method that fills gaps best which were made on purpose.

    A tenth of the known values is hidden in runs as long as the record's own gaps; of what is left another tenth is
    hidden to choose the method (and whether to take the root of skewed values), and the first tenth scores it once.

    Args:
        series: as in :func:`prepare`.
        variable, steps: as in :func:`prepare`.
        network: whether to try a graph attention network too, which takes minutes.
        seed: of everything random.
        progress: show a bar on the error stream.

    Returns:
        With ``data``: the variable without gaps, spread (standard deviation of the error where the method knows it; 0
        where observed) and observed (1 or 0), all (time, station).

    Raises:
        SeriesError: for a series too short or with too few values.
    """
    seed = whole_number(seed, "seed", least=0)
    x, told = prepare(series, variable, steps)
    notes = [*told]
    x = _check_varies(x, LEAST_IMPUTE, "filling gaps", notes)
    known = int(x.count())
    if known < 100:
        raise SeriesError(f"series: expected at least 100 values to learn from, found {known}")
    length = _gap_lengths(x)
    part = _affordable(x, seed)
    if part.size < x.size:
        few = f"{part.sizes['time']} steps and {part.sizes['station']} stations"
        notes.append(f"The record is large: the methods were compared on its last {few}.")
    graph = _graph(part)
    scored = withhold(part, 0.1, "blocks", length, seed)
    choosing = withhold(scored, 0.1, "blocks", length, seed + 1)
    if (hidden := int(scored.count() - choosing.count())) < 10:
        raise SeriesError(f"series: expected at least 10 values to hide for the choice of a method, found {hidden}")
    ways = [*WAYS, *([ATTENTION] if network else [])]

    def error(way: tuple[str, str, dict[str, Any]], root: bool) -> float:
        return float(np.sqrt(_hidden_squares(_filled(choosing, graph, way, root, seed)[0], scored, choosing)[0]))

    with _stages(2 * len(ways) + 2, progress) as stage, _solvable():
        stage("looking at the values")
        root = _tries_root(x) and error(KRIGING, True) < error(KRIGING, False)
        tried = {}
        for way in ways:
            stage(f"trying {way[0]}")
            tried[way[0]] = error(way, root)
        name = min(tried, key=tried.__getitem__)
        squares: dict[str, Array] = {}
        within = None
        for way in ways:
            stage(f"scoring {way[0]}")
            values, spread = _filled(scored, graph, way, root, seed)
            squares[way[0]] = _hidden_squares(values, part, scored)[1]
            if way[0] == name and spread is not None:
                within = float((np.abs(values - part.values) <= Z90 * spread)[np.isfinite(squares[name])].mean())
        chosen = next(way for way in ways if way[0] == name)
        stage("filling the gaps")
        whole, spread = _filled(x, _graph(x), chosen, root, seed)
    block = _default_block(part["time"].values, length[1])
    rows = []
    for label, square in squares.items():
        ours, best = _per_time(square), _per_time(squares[name])
        alone = block_bootstrap(_pooled, *ours, block_length=block, seed=seed, of_means=True)
        less = block_bootstrap(
            lambda a, b, c, d: _pooled(a, b) - _pooled(c, d), *best, *ours, block_length=block, seed=seed, of_means=True
        )
        rows.append((label, *alone, *less))
    missing = x.isnull().values
    variable = str(x.name or "value")
    units = {"units": x.attrs["units"]}
    data = xr.Dataset(
        {
            variable: x.reset_coords(drop=True).copy(data=whole),
            "observed": (("time", "station"), (~missing).astype(np.int8), {"units": "1", "long_name": "1 if observed"}),
        },
        dict(x.coords),
        {"title": f"{_name(x)} with its gaps filled", "method": name},
    )
    if spread is not None:
        data["spread"] = (("time", "station"), np.where(missing, spread, 0.0), {**units, "long_name": "error"})
    notes.append(_season_note(x))
    if root:
        notes.append("The method works on the square root of the values, which are skewed: so the hidden values said.")
    if not missing.any():
        notes.append("The record has no gaps: nothing was filled, and the values are those of the file.")
    facts = {
        "missing": int(missing.sum()),
        "share": float(missing.mean()),
        "gap": length,
        "hidden": int(np.isfinite(squares[name]).sum()),
        "held": within,
        "variable": variable,
        "step": step_of(x["time"])[0],
    }
    table = pd.DataFrame(rows, columns=["method", *SCORES]).sort_values("rmse", ignore_index=True)
    return Result("impute", x, data, table, name, tuple(notes), facts)


def _gap_lengths(x: xr.DataArray) -> tuple[int, int]:
    """Shortest and longest run to hide: the middle nine tenths of the record's own gaps, a tenth of it at most."""
    edge = np.zeros((1, x.sizes["station"]), bool)
    gaps = np.concatenate([edge, x.isnull().values, edge]).astype(int)
    begins, ends = (np.argwhere(np.diff(gaps.T) == sign)[:, 1] for sign in (1, -1))
    most = max(x.sizes["time"] // 10, 1)
    if len(begins) == 0:
        return 1, min(10, most)
    low, high = np.quantile(ends - begins, [0.05, 0.95])
    return min(max(int(low), 1), most), min(max(int(high), 1), most)


def _affordable(x: xr.DataArray, seed: int) -> xr.DataArray:
    """As many stations, and the last steps, as the methods can be compared on in a minute or two."""

    def typical() -> float:
        return float(np.cbrt((x.notnull().values.sum(axis=1).astype(float) ** 3).mean()))

    if (reporting := typical()) > 200:
        count = max(round(x.sizes["station"] * 200 / reporting), 2)
        x = x[:, np.sort(np.random.default_rng(seed).permutation(x.sizes["station"])[:count])]
    return x[-int(np.clip(4e9 / max(typical(), 1.0) ** 3, 120, x.sizes["time"])) :]


def _filled(
    x: xr.DataArray, graph: "Data", way: tuple[str, str, dict[str, Any]], root: bool, seed: int
) -> tuple[Array, Array | None]:
    """Values without gaps and the spread of the filled ones, in the units of the series."""
    clock = _clock(x, x.sizes["time"]) if not root else np.zeros(x.shape)
    y = _root(x) if root else x - clock
    done = fill(y, graph, way[1], seed=seed, harmonics=_harmonics(x), **way[2])
    spread = done["spread"].values if "spread" in done.coords else None
    guess = done.values
    if root:
        wide = 0.0 if spread is None else spread
        guess = guess.clip(0) ** 2 + np.square(wide)
        spread = None if spread is None else 2 * np.sqrt(guess) * spread
    else:
        guess = guess + clock
    if float(x.min()) >= 0:
        guess = guess.clip(0)
    return np.where(x.isnull().values, guess, x.values), spread


def _hidden_squares(values: Array, truth: xr.DataArray, shown: xr.DataArray) -> tuple[float, Array]:
    """Mean square error of the hidden values, and the squares (time, station), NaN where nothing was hidden."""
    hidden = (truth.notnull() & shown.isnull()).values
    squares = np.where(hidden, (values - truth.values) ** 2, np.nan)
    return float(np.nanmean(squares)), squares


def _per_time(squares: Array) -> tuple[Array, Array]:
    """Sum of the squares and their number at each time: their means make the pooled error."""
    return np.nansum(squares, axis=1), np.isfinite(squares).sum(axis=1).astype(float)


def _pooled(total: Array, count: Array) -> Array:
    return np.sqrt(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))
