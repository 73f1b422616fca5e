"""The page and the code agree: levels, what each module may import, and what the package offers."""

import ast
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
# Packages that stand in one row of the table: their files may import each other.
WHOLE_PACKAGES = {"layers", "datasets"}
# What the page says in words below the table.
USERS_OF_TENSORFLOW = {
    "raw_columns",
    "serving",
    "export",
    "portable_formats",
    "joined_trees",
    "stacked_epochs_tensorflow",
    "doctor.gradients",
}
PROGRAM = "served_check"


def read_levels():
    """Level and purity of each module, from the page's table."""
    levels = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            for module in re.split(r",\s*", cells[1]):
                assert module not in levels, f"{module} is in the table twice"
                levels[module] = (int(cells[0]), cells[2] == "yes")
    return levels


def module_name(path):
    """`kfusion/search/running.py` -> "search.running"; a package's front -> its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def in_table(module):
    """The table's name for a module: a package that stands there whole, or the module itself."""
    first = module.split(".")[0]
    return first if first in WHOLE_PACKAGES else module


LEVELS = read_levels()
SOURCES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
# The fronts of packages only hand on names: kfusion itself and kfusion.search.
FRONTS = {name for name in SOURCES if (PACKAGE / name.replace(".", "/") / "__init__.py").exists()}
RANKED = sorted(set(SOURCES) - (FRONTS - WHOLE_PACKAGES))
PURE = [name for name in RANKED if LEVELS.get(in_table(name), (0, False))[1]]


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
        if target in FRONTS - WHOLE_PACKAGES:
            homes = [home for home, _ in imports_of(target) if home.endswith(f".{parts[-1]}")]
            assert homes, f"{module} imports {name}, which its package does not hand on"
            target = homes[0].removeprefix("kfusion.").rpartition(".")[0]
        yield target, at_once


def test_the_page_and_the_package_have_the_same_modules():
    assert set(LEVELS) == {in_table(module) for module in RANKED}


@pytest.mark.parametrize("module", RANKED)
def test_imports_point_down(module):
    level = LEVELS[in_table(module)][0]
    for target, _ in kfusion_imports(module):
        siblings = in_table(module) == in_table(target) in WHOLE_PACKAGES
        if not siblings:
            assert LEVELS[in_table(target)][0] < level, f"{module} imports {target}"


def test_the_exceptions_stand_on_the_page():
    words = PAGE.split("TensorFlow is imported inside functions only, by")[1].split(";")[0]
    assert set(re.findall(r"`([\w.]+)`", words)) == USERS_OF_TENSORFLOW
    assert f"`{PROGRAM}` is a program of its own" in PAGE


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_load_no_keras_and_no_tensorflow(module):
    for name, at_once in imports_of(module):
        package = name.split(".")[0]
        if package in HEAVY and module != PROGRAM:
            assert package == "tensorflow", f"{module} imports {name}"
            assert module in USERS_OF_TENSORFLOW, f"{module} imports {name}"
            assert not at_once, f"{module} imports {name} outside a function"
    for target, at_once in kfusion_imports(module):
        assert not at_once or in_table(target) in {in_table(pure) for pure in PURE}, (
            f"{module} is pure and loads {target}"
        )


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
