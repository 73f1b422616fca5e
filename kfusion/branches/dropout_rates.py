"""Rates of dropout and the places of a branch that they belong to."""

from __future__ import annotations

from collections.abc import Sequence


def listed_rates(dropout: float | Sequence[float]) -> list[float]:
    """One or more rates in the order of their places."""
    rates = [dropout] if isinstance(dropout, (int, float)) else list(dropout)
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"`dropout` must hold rates in [0, 1). Received: {dropout!r}.")
    return rates


def last_rates(rates: Sequence[float], count: int) -> list[float]:
    """As many rates as there are places: the last ones, or 0 in the first places."""
    return [0.0] * (count - len(rates)) + list(rates[max(0, len(rates) - count) :])
