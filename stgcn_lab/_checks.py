"""Checks of arguments that several modules share."""

from typing import Any

import numpy as np


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """The value as a plain int, or a ValueError that names the argument; NumPy's integers are whole numbers too."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return int(value)


def number(value: Any, name: str, least: float, open_end: bool = False) -> float:
    """The value as a plain finite float of at least (``open_end``: above) ``least``, or a ValueError that names it."""
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not numeric or not np.isfinite(value) or value < least or (open_end and value == least):
        limit = "above" if open_end else "of at least"
        raise ValueError(f"{name}: expected a number {limit} {least:g}, found {value!r}")
    return float(value)
