"""Checks that cannot decide: one error for the reason, one decorator that tells it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from kfusion.doctor.case import Case
from kfusion.doctor.findings import Finding, Undecided

Said = Iterator[Finding | Undecided]
Check = Callable[[Case], Said]


class UndecidableError(Exception):
    """Why a check cannot decide."""


def decides(name: str) -> Callable[[Check], Check]:
    """Makes an `Undecided` of the name given where a check raises `UndecidableError`."""

    def decorate(check: Check) -> Check:
        @functools.wraps(check)
        def decided(case: Case) -> Said:
            try:
                yield from check(case)
            except UndecidableError as reason:
                yield Undecided(name, str(reason))

        return decided

    return decorate
