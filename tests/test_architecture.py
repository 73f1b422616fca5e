"""The page and the code agree: levels, what each module may import, and what the package offers."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kfusion

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kfusion"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
HEAVY = {"keras", "tensorflow", "keras_tuner", "jax", "torch"}
# What the page says in words below the table.
USERS_OF_TENSORFLOW = {
    "devices",
    "data.raw_columns",
    "exports.serving",
    "exports.export",
    "exports.portable_formats",
    "exports.joined_trees",
    "stacked.stacked_epochs_tensorflow",
    "doctor.gradients",
}
PROGRAM = "exports.served_check"


def read_levels():
    """Level of each package, and which of its files are pure, from the page's table."""
    levels = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            for package in re.split(r",\s*", cells[1]):
                assert package not in levels, f"{package} is in the table twice"
                levels[package] = (int(cells[0]), re.split(r",\s*", cells[2]))
    return levels


def module_name(path):
    """`kfusion/search/running.py` -> "search.running"; a package's front -> its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def package_of(module):
    """What the table calls the place of a module: its package, or itself if it lies in none."""
    return module.split(".")[0]


def is_pure(module):
    """Whether the table says that a module loads neither Keras nor TensorFlow."""
    pure = LEVELS[package_of(module)][1]
    return pure == ["yes"] or module.partition(".")[2] in pure


LEVELS = read_levels()
SOURCES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
# The fronts of packages hand on names, or say what their package is about.
FRONTS = {name for name in SOURCES if (PACKAGE / name.replace(".", "/") / "__init__.py").exists()}
RANKED = sorted(set(SOURCES) - {""})


def imports_of(module):
    """Yields `(imported module, whether it is imported when the module is)` in dotted names."""
    tree = SOURCES[module]
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) not in inside


def kfusion_imports(module):
    """Yields `(module of kfusion, whether at once)`; a front's name stands for where it lives."""
    for name, at_once in imports_of(module):
        parts = name.split(".")
        if parts[0] != "kfusion":
            continue
        found = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
        target = next((candidate for candidate in found if candidate in SOURCES), "")
        if target in FRONTS and name != f"kfusion.{target}":
            homes = [home for home, _ in imports_of(target) if home.endswith(f".{parts[-1]}")]
            if homes:
                target = homes[0].removeprefix("kfusion.").rpartition(".")[0]
        yield target, at_once


def test_the_page_and_the_package_have_the_same_packages():
    assert set(LEVELS) == {package_of(module) for module in RANKED}


def test_the_page_names_only_files_that_there_are():
    for package, (_, pure) in LEVELS.items():
        for name in set(pure) - {"yes", "no"}:
            assert f"{package}.{name}" in SOURCES, f"{package} has no {name}"


@pytest.mark.parametrize("module", RANKED)
def test_imports_point_down(module):
    level = LEVELS[package_of(module)][0]
    for target, _ in kfusion_imports(module):
        if package_of(target) != package_of(module):
            assert LEVELS[package_of(target)][0] < level, f"{module} imports {target}"


def test_no_file_imports_itself_around_others():
    files = {
        module: {target for target, _ in kfusion_imports(module)} - {""}
        for module in set(RANKED) - FRONTS
    }
    try:
        list(graphlib.TopologicalSorter(files).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"These files import each other: {' -> '.join(error.args[1])}.")


def test_the_exceptions_stand_on_the_page():
    words = PAGE.split("TensorFlow is imported inside functions only, by")[1].split(";")[0]
    assert set(re.findall(r"`([\w.]+)`", words)) == USERS_OF_TENSORFLOW
    assert f"`{PROGRAM}` is a program of its own" in PAGE


@pytest.mark.parametrize("module", [module for module in RANKED if is_pure(module)])
def test_pure_modules_load_no_keras_and_no_tensorflow(module):
    for name, at_once in imports_of(module):
        package = name.split(".")[0]
        if package in HEAVY and module != PROGRAM:
            assert package == "tensorflow", f"{module} imports {name}"
            assert module in USERS_OF_TENSORFLOW, f"{module} imports {name}"
            assert not at_once, f"{module} imports {name} outside a function"
    for target, at_once in kfusion_imports(module):
        assert not at_once or is_pure(target), f"{module} is pure and loads {target}"


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {PROGRAM}))
def test_tensorflow_is_imported_inside_functions_of_few_modules_only(module):
    for name, at_once in imports_of(module):
        if name.split(".")[0] == "tensorflow":
            assert module in USERS_OF_TENSORFLOW
            assert not at_once


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"cli", "commands.telling", PROGRAM}))
def test_only_the_command_line_prints(module):
    called = {
        node.func.id
        for node in ast.walk(SOURCES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in called


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_is_pickled(module):
    packages = {name.split(".")[0] for name, _ in imports_of(module)}
    assert packages.isdisjoint({"pickle", "dill", "cloudpickle", "shelve", "marshal"})
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"read_pickle", "to_pickle"}
            # Joblib runs folds; its files are pickles.
            assert ast.unparse(node) not in {"joblib.dump", "joblib.load"}
        if isinstance(node, ast.ImportFrom) and node.module == "joblib":
            assert not {alias.name for alias in node.names} & {"dump", "load"}


def test_the_program_that_checks_exports_imports_nothing_of_kfusion():
    assert not list(kfusion_imports(PROGRAM))


def test_every_public_name_resolves():
    assert all(getattr(kfusion, name) is not None for name in kfusion.__all__)
    assert set(kfusion.__all__) <= set(dir(kfusion))


def test_type_checkers_see_the_public_names():
    (block,) = [
        node
        for node in SOURCES[""].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = [alias.asname or alias.name for line in block.body for alias in line.names]
    assert sorted(seen) == kfusion.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        getattr(kfusion, "no_such_thing")  # noqa: B009


def test_importing_the_package_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import kfusion"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "kfusion" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "pandas", "sklearn", "PIL", "tqdm"})
