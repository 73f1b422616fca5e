"""What operations, functions and classes do, told as data that differ where they may differ."""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import json
import platform
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from kfusion.frozen.frozen_parts import AUGMENTATIONS

# What these hold is the same wherever their version is.
LIBRARIES = ("keras", "kfusion", "numpy", "tensorflow", "jax", "torch", "math")
# Their layers' configs and weights say all, but for the functions that they are given.
TOLD_BY_CONFIG = ("keras", "kfusion")
# Of one layer, these say nothing of what it answers; names are counted up in each process.
IGNORED = ("name", "trainable")
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range)
CONTAINERS = ("TrackedList", "TrackedDict", "TrackedSet")
# These reach what no code names.
UNTOLD_BUILTINS = (
    "__import__",
    "compile",
    "delattr",
    "eval",
    "exec",
    "globals",
    "input",
    "locals",
    "open",
    "setattr",
    "vars",
)
READ_BY_NAME = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
# What a class has beside its members, and what only tells about them.
ABOUT_CLASSES = (
    "__abstractmethods__",
    "__annotations__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
)
# What training leaves on a model.
LEFT_BY_TRAINING = (
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "history",
    "optimizer",
    "stop_training",
)


class UnknownPartError(ValueError):
    """Something in a part does not tell what it does."""


class Told:
    """Tells what operations do, each function, class and layer once.

    Of Keras' and kfusion's own layers, configs and weights say all but what the functions do that
    they were given. Of anything else, the code is told, with all that it refers to (globals,
    cells of closures, defaults, attributes), down to plain data and the names of what libraries
    hold. What a library's function reads by itself, such as a file, is not seen.

    Attributes:
        has_own_code: Whether there was a function in anything told so far, or code of neither
            Keras nor kfusion.
    """

    def __init__(self) -> None:
        self.has_own_code = False
        self._numbers: dict[int, int] = {}
        # No other object may get the id of one that was told.
        self._kept: list[Any] = []

    def operation(self, operation: keras.Operation) -> list[Any]:
        """What a layer or another operation does, all within it told too.

        Raises:
            UnknownPartError: If something in it cannot be told.
        """
        if not self._is_new(operation):
            return self._number(operation)
        parts = _parts(operation)
        for part in parts:
            if hasattr(part, "save_assets"):
                raise UnknownPartError(f"layer {part.name!r} keeps more than weights")
        return [
            self._number(operation),
            [self._part(part) for part in parts],
            [array_digest(weight) for weight in getattr(operation, "weights", ())],
        ]

    def value(self, value: Any, where: str) -> Any:
        """What a value is, down to plain data.

        Args:
            value: Anything.
            where: Whose it is, for the error.

        Raises:
            UnknownPartError: If it is nothing that can be told.
        """
        kind = type(value)
        if kind in PLAIN:
            return [kind.__name__, repr(value)]
        if is_array(value):
            return array_digest(value)
        if isinstance(value, (np.generic, np.dtype)):
            return [kind.__name__, repr(value)]
        if kind is slice:
            return ["slice", self.value((value.start, value.stop, value.step), where)]
        if _is_container(value):
            return self._container(value, where)
        if isinstance(value, keras.Operation):
            return self.operation(value)
        if (name := _name_in_library(value)) is not None:
            return name
        return self._code_or_object(value, where)

    def _code_or_object(self, value: Any, where: str) -> Any:
        if isinstance(value, functools.partial):
            return ["partial", self.value((value.func, value.args, value.keywords), where)]
        if isinstance(value, types.MethodType):
            return ["method", self.value((value.__func__, value.__self__), where)]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.value(value.__func__, where)]
        if isinstance(value, property):
            return ["property", self.value((value.fget, value.fset, value.fdel), where)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value, where)
        if _root(type(value)) in TOLD_BY_CONFIG and hasattr(value, "get_config"):
            return [self.value(type(value), where), _config(value), self._given(value)]
        if isinstance(value, types.ModuleType):
            raise UnknownPartError(
                f"{where} uses the module {value.__name__!r}, whose content may change: import "
                "the functions from it by name"
            )
        raise UnknownPartError(
            f"{where} uses {type(value).__module__}.{type(value).__qualname__}, of which nobody "
            "can tell what it holds"
        )

    def _part(self, part: keras.Operation) -> list[Any]:
        told = [self.value(type(part), f"{part.name!r}"), _config(part)]
        self.has_own_code |= isinstance(part, keras.layers.Lambda)
        if _name_in_library(type(part)) is not None:
            return [*told, self._given(part)]
        # Which attributes matter, only its code knows.
        ignored = _usual_attributes(isinstance(part, keras.Model))
        own = {name: value for name, value in vars(part).items() if name not in ignored}
        own["autocast"] = getattr(part, "autocast", None)
        return [*told, self._attributes(own, part)]

    def _given(self, owner: Any) -> list[Any]:
        """What an object of Keras or kfusion holds that is not of these."""
        ignored = _usual_attributes(isinstance(owner, keras.Model))
        given = {
            name: value
            for name, value in vars(owner).items()
            if name not in ignored and any(map(_is_foreign, _leaves(value)))
        }
        self.has_own_code |= bool(given)
        return self._attributes(given, owner)

    def _attributes(self, attributes: Mapping[str, Any], owner: Any) -> list[Any]:
        of = f"of {getattr(owner, 'name', type(owner).__name__)!r}"
        return [
            [name, self.value(value, f"attribute {name!r} {of}")]
            for name, value in sorted(attributes.items())
        ]

    def _container(self, value: Any, where: str) -> list[Any]:
        if isinstance(value, dict):
            return ["dict", *([self.value(each, where) for each in i] for i in value.items())]
        told = [self.value(each, where) for each in value]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted(told, key=json.dumps)]
        return ["tuple" if isinstance(value, tuple) else "list", *told]

    def _function(self, function: types.FunctionType) -> list[Any]:
        self.has_own_code = True
        if not self._is_new(function):
            return self._number(function)
        where = f"function {function.__qualname__!r}"
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        return [
            self._number(function),
            self._code(function.__code__, function.__globals__, where),
            self.value((function.__defaults__, function.__kwdefaults__), where),
            self.value((cells, vars(function)), where),
        ]

    def _class(self, kind: type, where: str) -> list[Any]:
        self.has_own_code = True
        if not self._is_new(kind):
            return self._number(kind)
        where = f"class {kind.__qualname__!r}"
        if type(kind).__module__ != "abc":
            self.value(type(kind), where)
        members = {name: each for name, each in vars(kind).items() if name not in ABOUT_CLASSES}
        return [
            self._number(kind),
            [self.value(base, where) for base in kind.__bases__],
            self._attributes(members, kind),
        ]

    def _code(self, code: types.CodeType, names: Mapping[str, Any], where: str) -> list[Any]:
        """What code does, wherever it is written, and what the names in it stand for."""
        used: dict[str, Any] = {}
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname in READ_BY_NAME:
                used[name] = self._named(name, names, where)
            elif instruction.opname == "IMPORT_NAME" and _root_of(name) not in LIBRARIES:
                raise UnknownPartError(f"{where} imports {name!r} while it runs")
            elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                raise UnknownPartError(f"{where} changes the global {name!r}")
        constants = [
            self._code(each, names, where)
            if isinstance(each, types.CodeType)
            else self.value(each, where)
            for each in code.co_consts
        ]
        variables = [code.co_varnames, code.co_names, code.co_freevars, code.co_cellvars]
        signature = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
        handlers = getattr(code, "co_exceptiontable", b"").hex()
        return [
            code.co_code.hex(),
            handlers,
            code.co_flags,
            signature,
            list(map(list, variables)),
            constants,
            sorted(used.items()),
        ]

    def _named(self, name: str, names: Mapping[str, Any], where: str) -> Any:
        if name in names:
            return self.value(names[name], f"{where} (by {name!r})")
        if name in UNTOLD_BUILTINS:
            raise UnknownPartError(f"{where} calls {name!r}")
        return "builtin" if hasattr(builtins, name) else "none"

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._numbers:
            return False
        self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        return True

    def _number(self, value: Any) -> list[Any]:
        return ["number", self._numbers[id(value)]]


def library_version(name: str) -> str:
    """The version of a library that is loaded; Python's, of what comes with it."""
    return str(getattr(sys.modules[name], "__version__", platform.python_version()))


def is_array(value: Any) -> bool:
    """Whether a value is an array, a weight or a tensor, which its numbers tell whole."""
    return (
        (type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject)
        or isinstance(value, keras.Variable)
        or (
            keras.ops.is_tensor(value)
            and not isinstance(value, keras.KerasTensor)
            # Text becomes objects, whose bytes are addresses.
            and keras.backend.standardize_dtype(value.dtype) != "string"
        )
    )


def array_digest(value: Any) -> str:
    """Dtype, shape and a digest of the content."""
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
    content = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return f"{array.dtype} {array.shape} {content}"


def nameless(config: Any, numbers: Mapping[str, int] | None = None) -> Any:
    """A serialized config without the names of layers, which say nothing of what they answer.

    Args:
        config: As of `keras.saving.serialize_keras_object`.
        numbers: Of the layers of the model around, by name; they stand for the names.
    """
    numbers = numbers or {}
    if isinstance(config, (list, tuple)):
        return [nameless(each, numbers) for each in config]
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    if isinstance(inner, dict) and (
        "trainable" in inner or config.get("class_name") == "InputLayer"
    ):
        inner = {name: value for name, value in inner.items() if name not in IGNORED}
        config = {**config, "config": inner, "name": None, "compile_config": None}
    layers = config.get("layers")
    if isinstance(layers, (list, tuple)) and all(isinstance(each, dict) for each in layers):
        numbers = {each["name"]: i for i, each in enumerate(layers) if "name" in each}
    return {
        name: _numbered(value, numbers)
        if name in ("input_layers", "output_layers", "keras_history")
        else nameless(value, numbers)
        for name, value in config.items()
    }


def _numbered(places: Any, numbers: Mapping[str, int]) -> Any:
    return keras.tree.map_structure(lambda leaf: numbers.get(leaf, leaf), places)


def _config(owner: Any) -> Any:
    try:
        config = nameless(keras.saving.serialize_keras_object(owner.get_config()))
        if isinstance(owner, keras.Operation):
            # Augmented views have seeds of the rows' own.
            ignored = (*IGNORED, "seed") if type(owner) in AUGMENTATIONS else IGNORED
            config = {name: value for name, value in config.items() if name not in ignored}
        return json.loads(json.dumps(config))
    except (NotImplementedError, TypeError, ValueError) as error:
        name = getattr(owner, "name", type(owner).__name__)
        raise UnknownPartError(f"{name!r} has no config: {error}") from error


def _parts(operation: keras.Operation) -> list[keras.Operation]:
    """An operation and all within it, of models also what is no layer."""
    if not isinstance(operation, keras.layers.Layer):
        return [operation]
    # Keras has no public way to the layers that a layer is made of.
    layers = list(operation._flatten_layers())
    within = [each for layer in layers for each in getattr(layer, "operations", ())]
    return list({id(each): each for each in [*layers, *within]}.values())


@functools.cache
def _usual_attributes(is_model: bool) -> frozenset[str]:
    """Names of what Keras itself keeps on every layer or model."""
    taken = keras.Input((1,), name="plain_input")
    models = [keras.Model(taken, taken, name="plain"), keras.Sequential(name="plain")]
    of_models = {name for model in models for name in vars(model)}
    found = set(vars(keras.layers.Layer(name="plain")))
    if is_model:
        return frozenset(found | of_models | set(LEFT_BY_TRAINING))
    # On tensorflow, of each layer with a list of others.
    return frozenset(found | {name for name in of_models if name.startswith("_self_")})


def _is_container(value: Any) -> bool:
    kind = type(value)
    return kind in (tuple, list, dict, set, frozenset) or (
        kind.__name__ in CONTAINERS and _root(kind) == "keras"
    )


def _leaves(value: Any) -> Iterable[Any]:
    if not _is_container(value):
        return [value]
    within = value.values() if isinstance(value, dict) else value
    return [leaf for each in within for leaf in _leaves(each)]


def _is_foreign(value: Any) -> bool:
    """Whether a value is neither data nor of Keras or kfusion."""
    kind = type(value)
    if kind in (*PLAIN, slice) or is_array(value) or isinstance(value, (np.generic, np.dtype)):
        return False
    if _root(kind) in TOLD_BY_CONFIG and not isinstance(value, type):
        return False
    name = _name_in_library(value)
    return name is None or _root_of(name) not in TOLD_BY_CONFIG


def _name_in_library(value: Any) -> str | None:
    """Where a library or Python itself holds a value, with the version; None if none does."""
    if isinstance(value, types.ModuleType):
        root = _root_of(value.__name__)
        held = sys.modules.get(value.__name__) is value and root in LIBRARIES
        return f"{value.__name__} {library_version(root)}" if held else None
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module == "builtins":
        is_told = getattr(builtins, name, None) is value and name not in UNTOLD_BUILTINS
        return f"builtins.{name}" if is_told else None
    found: Any = sys.modules.get(module) if _root_of(module) in LIBRARIES else None
    for each in name.split("."):
        found = getattr(found, each, None)
    is_held = found is not None and found is value
    return f"{module}.{name} {library_version(_root_of(module))}" if is_held else None


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _root(kind: type) -> str:
    return _root_of(kind.__module__)


def _root_of(name: str) -> str:
    return name.split(" ")[0].split(".")[0]
