"""DeLong's test of two models beside the two AUCs alone by scikit-learn, on the same scores.

Both take turns in one process; the first turn of each is not counted. The test computes the same
two AUCs, and their covariance.

usage: python benchmarks/delong_speed.py [--rows 24000 1000000] [--repeats 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy
import sklearn
from sklearn.metrics import roc_auc_score

from kfusion.evidence.delong import delong_test


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(rows: int, positive_share: float, decimals: int, repeats: int) -> dict[str, object]:
    random = np.random.default_rng(0)
    y = (random.random(rows) < positive_share).astype(int)
    first = random.normal(size=rows) + y
    second = first + random.normal(size=rows)
    first, second = first.round(decimals), second.round(decimals)

    def both_areas() -> tuple[float, float]:
        return roc_auc_score(y, first), roc_auc_score(y, second)

    test = delong_test(y, first, second)
    gap = max(abs(ours - theirs) for ours, theirs in zip(test[:2], both_areas(), strict=True))
    ours, theirs = [], []
    for turn in range(repeats + 1):
        pair = seconds_of(lambda: delong_test(y, first, second)), seconds_of(both_areas)
        if turn:
            ours.append(pair[0])
            theirs.append(pair[1])
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    return {
        "benchmark": "delong_speed",
        "rows": rows,
        "positive_share": positive_share,
        "decimals": decimals,
        "seconds": round(statistics.median(ours), 5),
        "seconds_of_two_roc_auc_score": round(statistics.median(theirs), 5),
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(theirs), 3),
        "paired_ratios": [round(ratio, 3) for ratio in ratios],
        "largest_difference_of_areas": gap,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[24_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    for rows in arguments.rows:
        # Scores of two decimals are full of ties.
        for decimals in (12, 2):
            print(json.dumps(compare(rows, 0.1, decimals, arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()
