"""Seeds from seeds, far apart however near those are."""

from __future__ import annotations

import numpy as np


def derive_seed(*numbers: int) -> int:
    """A seed in 1 to 2^31 - 1 that any of the numbers changes.

    Args:
        *numbers: Ints of 0 or more, such as the search's seed and the trial's number.

    Example:
        >>> derive_seed(1) != derive_seed(2) != derive_seed(1, 0)
        True
    """
    # The count in front: behind, zeros would say nothing.
    drawn = np.random.SeedSequence([len(numbers), *numbers]).generate_state(1)[0]
    return int(drawn % (2**31 - 1)) + 1
