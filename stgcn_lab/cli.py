"""The command line: ``stgcn-lab check | regimes | forecast | impute FILE``.

Ends with 0 when all went well, with 2 and a message on the error stream when the file, the settings or the disk do not
allow what was asked, with 130 when it was interrupted, and with 1 for a fault of the program itself. What stood in the
folder of results stays as it was unless all of the new ones are there.
"""

import argparse
import io
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import __version__

if TYPE_CHECKING:
    import xarray as xr

DONE, FAULT, REFUSED, STOPPED = 0, 1, 2, 130


class _Refused(Exception):
    """What the reader can put right; the message says how."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the name of the program; those of the process if not given.

    Returns:
        The exit status: 0, 1, 2 or 130 as in the head of this module.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a sign that the terminal does not know is no fault
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why, or has shown the help
        return int(stop.code or 0)
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a reader must know is said in words
            return int(options.run(options))
    except _Refused as refused:
        return _say(f"stgcn-lab: {refused}", REFUSED)
    except BrokenPipeError:  # the reader of our output has gone, as in "stgcn-lab check FILE | head"
        return DONE
    except KeyboardInterrupt:
        return _say("stgcn-lab: interrupted; nothing was written", STOPPED)
    except MemoryError:
        return _say("stgcn-lab: not enough memory for this file; cut out a region or a period first", REFUSED)
    except Exception:
        traceback.print_exc()
        return _say("stgcn-lab: this is a fault of the program, not of your file; please report it", FAULT)


def _say(text: str, status: int) -> int:
    if sys.stderr is not None:  # it may be closed
        print(text, file=sys.stderr)
    return status


def _tell(text: str) -> None:
    """Print, and notice now and not at the end of the process if nobody can take it."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of the process tries again
        if isinstance(error, BrokenPipeError):
            raise
        raise _Refused(f"the output could not be written: {_reason(error)}") from error


# ---------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stgcn-lab",
        description="Weather regimes, forecasts and filled gaps from your own file of station or grid data.",
        epilog="Begin with: stgcn-lab check FILE",
    )
    parser.add_argument("--version", action="version", version=f"stgcn-lab {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="say what is in a file, and what is wrong with it")
    _add_reading(check)
    check.set_defaults(run=_check)

    regimes = commands.add_parser("regimes", help="find weather regimes, with maps")
    _add_reading(regimes)
    regimes.add_argument("--k", type=_whole, metavar="K", help="number of regimes (default: chosen from the data)")
    _add_writing(regimes)
    regimes.set_defaults(run=_job, job="regimes", settings=("k",))

    forecast = commands.add_parser("forecast", help="forecast the next steps, with a report on how good that is")
    _add_reading(forecast)
    forecast.add_argument("--lead", type=_whole, default=1, metavar="STEPS", help="how many steps ahead (default: 1)")
    forecast.add_argument(
        "--no-network", dest="network", action="store_false", help="leave out the graph network: much faster"
    )
    _add_writing(forecast)
    forecast.set_defaults(run=_job, job="forecast", settings=("lead", "network"))

    impute = commands.add_parser("impute", help="fill the gaps")
    _add_reading(impute)
    impute.add_argument("--network", action="store_true", help="try a graph network too: takes minutes")
    _add_writing(impute)
    impute.set_defaults(run=_job, job="impute", settings=("network",))
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="CSV, NetCDF, zarr or GRIB")
    reading = parser.add_argument_group("how to read the file, where it does not say so itself")
    reading.add_argument("--variable", metavar="NAME", help="the variable to take")
    reading.add_argument(
        "--units", action="append", metavar="UNITS", help="of the variable, such as knots; or NAME=UNITS (repeat)"
    )
    reading.add_argument("--timezone", metavar="ZONE", help="of clock times without one, such as Europe/Dublin")
    reading.add_argument("--stations", metavar="TABLE", help="a table of stations: station, lat, lon, elevation")
    reading.add_argument(
        "--columns", action="append", metavar="WHAT=NAME", help="name of a column, such as time=Datum (repeat)"
    )


def _add_writing(parser: argparse.ArgumentParser) -> None:
    writing = parser.add_argument_group("the results")
    writing.add_argument(
        "--out", metavar="DIR", help="folder for the results; made by this command (default: here, named FILE-JOB)"
    )
    writing.add_argument("--force", action="store_true", help="replace the results of an earlier run in DIR")
    writing.add_argument(
        "--steps", choices=("day", "keep"), default="day", help="average hours to days (default), or keep them"
    )
    writing.add_argument("--seed", type=_seed, default=0, metavar="N", help="of everything random (default: 0)")
    writing.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2147483647, found {text!r}")
    return int(text)


def _pairs(given: list[str] | None, option: str) -> dict[str, str] | None:
    """{"time": "Datum"} of ["time=Datum"]."""
    if given is None:
        return None
    pairs = dict(text.split("=", 1) for text in given if "=" in text)
    if wrong := [text for text in given if "=" not in text]:
        raise _Refused(f"{option}: expected WHAT=NAME such as time=Datum, found {wrong[0]!r}")
    return pairs


# ---------------------------------------------------------------------------- reading


def _inspected(options: argparse.Namespace, variable: str | None) -> Any:
    from .datasets import inspect_stations

    units: Any = options.units
    if units is not None and len(units) == 1 and "=" not in units[0]:
        units = units[0]
    else:
        units = _pairs(units, "--units")
    return inspect_stations(
        options.file,
        variable=variable,
        units=units,
        timezone=options.timezone,
        stations=options.stations,
        columns=_pairs(options.columns, "--columns"),
    )


def _line(finding: Any) -> str:
    """A finding for a terminal: arguments of Python as options of the command."""
    advice = re.sub(r"(columns|units)=\{'([^']*)': '?([^'}]*)'?\}", r"--\1 \2=\3", finding.advice)
    advice = re.sub(r"\b(stations|variable|timezone)=", r"--\1 ", advice).replace("=...", "=NAME")
    return f"{finding.what} ({advice})" if advice else str(finding.what)


def _series(options: argparse.Namespace) -> tuple["xr.Dataset", tuple[Any, ...]]:
    """The series of the file, or a refusal that lists all that is wrong."""
    found = _inspected(options, options.variable)
    if found.series is None:
        wrong = [finding for finding in found.findings if finding.level == "error"]
        lines = "\n".join(f"  - {_line(finding)}" for finding in wrong)
        raise _Refused(f"{options.file} cannot be used:\n{lines}")
    return found.series, tuple(finding for finding in found.findings if finding.level != "error")


# ---------------------------------------------------------------------------- commands


def _check(options: argparse.Namespace) -> int:
    found = _inspected(options, options.variable)
    marks = {"error": "WRONG", "warning": "look", "note": "note"}
    lines = [options.file, *(f"  {marks[finding.level]}: {_line(finding)}" for finding in found.findings)]
    if found.series is None:
        return _say("\n".join([*lines, "This file cannot be used as it is."]), REFUSED)
    _tell("\n".join([*lines, *_what_next(found.series, options.file)]))
    return DONE


def _what_next(series: "xr.Dataset", file: str) -> list[str]:
    """For each job whether it can be done."""
    from . import workflows

    names = [str(name) for name in series.data_vars]
    choice = "" if len(names) == 1 else f" --variable {shlex.quote(names[0])}"
    lines = []
    try:
        x, notes = workflows.prepare(series, names[0])
    except workflows.SeriesError as error:
        return [f"  No job can use it: {error}"]
    lines += [f"  note: {note}" for note in notes]
    for job, least in (("regimes", 40), ("forecast", workflows.LEAST_FORECAST), ("impute", workflows.LEAST_IMPUTE)):
        if x.sizes["time"] < least:
            lines.append(f"  {job}: not with {x.sizes['time']} steps, it needs {least}")
        else:
            lines.append(f"  {job}: stgcn-lab {job} {shlex.quote(file)}{choice} --out results")
    return lines


def _job(options: argparse.Namespace) -> int:
    from . import report, training, workflows

    name = os.path.basename(os.path.normpath(options.file)).split(".")[0]
    options.out = options.out or f"{name or 'stations'}-{options.job}"
    try:
        report.check_out(options.out, options.force)  # before the minutes of work
    except OSError as error:
        raise _Refused(_reason(error)) from error
    series, findings = _series(options)
    settings = {name: getattr(options, name) for name in options.settings}
    bar = not options.quiet and sys.stderr is not None
    variable = options.variable if options.variable in series.data_vars else None
    training.reuse_memory()  # this process is ours alone
    try:
        result = getattr(workflows, options.job)(
            series, variable=variable, steps=options.steps, seed=options.seed, progress=bar, **settings
        )
    except workflows.SeriesError as error:
        raise _Refused(f"{options.file}: {error}") from error
    try:
        report.write(result, options.out, source=os.path.basename(options.file), findings=findings, force=options.force)
    except OSError as error:
        raise _Refused(_reason(error)) from error
    if not options.quiet:
        _tell(f"{os.path.join(options.out, 'report.html')}\n  {report.summary(result)}")
    return DONE


def _reason(error: OSError) -> str:
    """What an error of the system says, without its number."""
    return str(error.strerror or error) if error.errno is not None else str(error)


if __name__ == "__main__":
    sys.exit(main())
