"""Checks of arguments that several modules share."""

from typing import Any

import numpy as np


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """The value as a plain int, or a ValueError that names the argument; NumPy's integers are whole numbers too."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return int(value)
