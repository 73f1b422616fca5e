"""Names that TensorFlow serves: ASCII letters, digits and underscores."""

from __future__ import annotations

import re
from collections.abc import Sequence


def plain_name(name: str) -> str:
    """A name with each other character made an underscore, and a letter first."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if plain[:1].isalpha() else f"column_{plain}"


def plain_names(names: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Plain names by name, all different: TensorFlow does not tell case apart.

    A name that is plain stays; in others a number is appended where two would be the same.

    Args:
        names: Names, each once.
        taken: Plain names that are used elsewhere.
    """
    given: dict[str, str] = {}
    used = {name.lower() for name in taken}
    # Names that can stay go first, so that none of them has to give way.
    for name in sorted(names, key=lambda name: plain_name(name) != name):
        served = plain = plain_name(name)
        number = 2
        while served.lower() in used:
            served, number = f"{plain}_{number}", number + 1
        used.add(served.lower())
        given[name] = served
    return given
