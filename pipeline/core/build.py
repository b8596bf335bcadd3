"""Components from plain config, where the constructor is the schema.

``build({"_target_": "pipeline.cells.gru.GRU", "hidden": 64}, Cell, at="cell", inputs=40)`` checks every value against
the constructor's type hints, refuses unknown keys with the nearest valid name, and calls the constructor. Values that
the program computes (here ``inputs``) are handed over by name and cannot be set by config.

Only classes of this clone's ``pipeline`` and ``datasets`` packages and the few of ``EXTERNAL`` can be named, each must
be of the kind the caller asks for, and nothing else is ever imported: a config that came with a model file is data.
"""

import difflib
import importlib
import inspect
import re
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "datasets")
EXTERNAL = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD", "torch.optim.RMSprop")
TARGET = "_target_"
LAX = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)

Config = Mapping[str, Any]
Kind = TypeVar("Kind")


def nearest(name: str, valid: list[str]) -> str:
    """'; did you mean ...?' for a name that is not among the valid ones, or else the list of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of: {', '.join(sorted(valid))}"


def find(target: Any, kind: type[Kind], at: str) -> type[Kind]:
    """The class that ``target`` names, if it may be built here; ConfigError otherwise."""
    refusal = ConfigError(
        f"{at}.{TARGET}: {target!r} is not allowed; expected a {kind.__name__} class under "
        f"{' or '.join(PACKAGES)}, or one of {', '.join(EXTERNAL)}"
    )
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        raise refusal
    module_name, _, class_name = target.rpartition(".")
    if target not in EXTERNAL and module_name.split(".")[0] not in PACKAGES:
        raise refusal
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise refusal from None
        raise
    if target not in EXTERNAL and not Path(module.__file__ or "/").resolve().is_relative_to(ROOT):
        raise ConfigError(f"{at}.{TARGET}: {module_name!r} is not Rivulet's own; another package hides ours")
    found = getattr(module, class_name, None)
    if not inspect.isclass(found) or not issubclass(found, kind):
        raise refusal
    if target not in EXTERNAL and found.__module__ != module_name:
        raise refusal
    return found


def build(config: Config, kind: type[Kind] = object, /, at: str = "config", **given: Any) -> Kind:  # type: ignore[assignment]
    """The component that ``config`` describes, of class ``kind``; ``at`` names it in errors, e.g. ``encoder``."""
    make = prepare(config, kind, at, **given)
    try:
        return make()
    except ConfigError:
        raise
    except ValueError as error:  # settings that do not go together: the constructor says which
        raise ConfigError(str(error)) from error


def prepare(config: Config, kind: type[Kind], at: str, **given: Any) -> Callable[..., Kind]:
    """As ``build``, but the constructor is not called yet: arguments that are still missing can follow."""
    if not isinstance(config, Mapping) or TARGET not in config:
        raise ConfigError(f"{at}: expected a component with a {TARGET!r}, got {config!r}")
    found = find(config[TARGET], kind, at)
    settings = {key: value for key, value in config.items() if key != TARGET}
    for key in settings.keys() & given.keys():
        raise ConfigError(f"{at}.{key}: is computed from the other settings and cannot be set; remove it")
    arguments = arguments_for(found, settings, at)
    return partial(found, **arguments, **given)


def check(config: Any, at: str = "") -> None:
    """Check every component found anywhere in ``config`` (keys, types, targets) without building any."""
    if not isinstance(config, Mapping):
        return
    if TARGET in config:
        prepare(config, object, at or "config")
    for key, value in config.items():
        check(value, f"{at}.{key}" if at else str(key))


def arguments_for(function: Callable[..., Any], settings: Config, at: str = "") -> dict[str, Any]:
    """``settings`` checked and converted as arguments of ``function``, whose signature is the schema."""
    hints = schema(function)
    valid = list(hints)
    checked = {}
    for key, value in settings.items():
        path = f"{at}.{key}" if at else str(key)
        if key not in hints:
            raise ConfigError(f"{path}: no such key{nearest(str(key), valid)}")
        checked[key] = convert(value, hints[key], path)
    return checked


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters by name with their type hints. A constructor that hands ``**options`` on has those of its parent,
    too.
    """
    classes = inspect.getmro(function) if inspect.isclass(function) else (None,)
    found: dict[str, Any] = {}
    for owner in classes:
        if owner is not None and "__init__" not in vars(owner):
            continue
        target = function if owner is None else vars(owner)["__init__"]
        hints, parameters = get_type_hints(target, include_extras=True), inspect.signature(target).parameters.values()
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name != "self":
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def convert(value: Any, hint: Any, path: str) -> Any:
    """``value`` as the type hint asks, nested components included; ConfigError if it does not fit."""
    if isinstance(value, Mapping) and TARGET in value:
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        for option in options:
            if get_origin(option) is Callable:  # a factory: the owner calls it with what it computes
                return prepare(value, get_args(option)[1], path)
            if inspect.isclass(option) and option.__module__ != "builtins":
                return build(value, option, at=path)
        return value
    try:
        return TypeAdapter(hint, config=None if is_model(hint) else LAX).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ConfigError(f"{path}: got {value!r}; {problem[0].lower()}{problem[1:]}. Set {path}=...") from None


def is_model(hint: Any) -> bool:
    """Pydantic models and dataclasses bring their own configuration."""
    return inspect.isclass(hint) and (hasattr(hint, "model_fields") or hasattr(hint, "__dataclass_fields__"))
