"""Makes the sample of land cover that comes with kfusion. Needs the extra `demo`.

usage: python examples/make_landcover_sample.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import kfusion.datasets
from kfusion.datasets.landcover import LANDCOVER_CODES, Points, build_points, write_sample

NUM_LANDCOVER_ROWS = 3000


def draw_groups(table: pd.DataFrame, num_landcover_rows: int) -> np.ndarray:
    """Draws whole groups at random until they hold this many rows of the six classes."""
    six_classes = [code for codes in LANDCOVER_CODES.values() for code in codes]
    counts = table["igbp"].isin(six_classes).groupby(table["group"]).sum()
    counts = counts.iloc[np.random.RandomState(0).permutation(len(counts))]
    num_groups = int(np.searchsorted(counts.cumsum(), num_landcover_rows)) + 1
    return counts.index[:num_groups].to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the sample that comes with kfusion.")
    parser.add_argument("--out", type=Path, default=Path(kfusion.datasets.__path__[0]))
    folder = parser.parse_args().out
    points = build_points()
    kept = points.table["group"].isin(draw_groups(points.table, NUM_LANDCOVER_ROWS)).to_numpy()
    sample = Points(points.images[kept], points.table[kept])
    write_sample(folder, sample)
    print(f"{len(sample.table)} of {len(points.table)} rows written to {folder}")


if __name__ == "__main__":
    main()
