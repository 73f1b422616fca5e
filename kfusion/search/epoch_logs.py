"""What epochs log, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def to_numbers(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Logs as floats; of a metric with a value per class, the mean."""
    return {name: float(np.mean(np.asarray(value))) for name, value in (logs or {}).items()}
