"""Components from plain config, where the constructor is the schema.

``build({"_target_": "pipeline.cells.gru.GRU", "hidden": 64}, Cell, at="cell", inputs=40)`` checks every value against
the constructor's type hints, refuses unknown keys with the nearest valid name, and calls the constructor. Values that
the program computes (here ``inputs``) are handed over by name and cannot be set by config.

A name is judged before anything is imported: it must be a class that a file in the ``ROOMS`` of parts defines, one of
``EXTERNAL``, or one of a plugin, a module of the user's own that they allow by ``plugins=[...]``. So a config that came
with a model file is data: it cannot name code to run.
"""

import ast
import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "datasets")
KINDS = "augmentations batch cells decoders encoders extractors layers serving sinks sources tasks training"
ROOMS = ("datasets.", *(f"pipeline.{room}." for room in KINDS.split()))  # in which parts may be named
EXTERNAL = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD", "torch.optim.RMSprop")
TARGET = "_target_"
MAX_LISTED = 40  # names in a message
NAME = re.compile(r"(?=.{1,200}$)[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)
PLUGINS = "RIVULET_PLUGINS"  # environment variable: modules of the user's own, separated by commas
LAX = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)

Config = Mapping[str, Any]
Kind = TypeVar("Kind")


def nearest(name: str, valid: list[str]) -> str:
    """'; did you mean ...?' for a name that is not among the valid ones, or else the list of them, if they are few."""
    ends = [one for one in valid if one.endswith(f".{name}")]  # a key without its group
    close = ends or difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of: {', '.join(sorted(valid))}" if len(valid) <= MAX_LISTED else ""


def allow(*names: str) -> None:
    """Let ``_target_`` name classes of these modules or packages of the user's own, in this process and its children.

    They may lie in the current folder, too. ConfigError for one that is not there.
    """
    kept = plugins()
    if not (names := tuple(dict.fromkeys([*kept, *names]))):
        return
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # behind all others, so that it hides nothing
    for name in names:
        if not NAME.fullmatch(name) or name.endswith(".py") or find_spec(name.partition(".")[0]) is None:
            source = PLUGINS if name in kept else "plugins"
            raise ConfigError(f"{source}: there is no module {name!r} in {here} or on PYTHONPATH")
    os.environ[PLUGINS] = ",".join(names)


def plugins() -> list[str]:
    """The modules that the user has allowed."""
    return [name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip()]


def is_plugin(module: str) -> bool:
    """Whether a module is one of the allowed, or inside of one."""
    return f"{module}.".startswith(tuple(f"{name}." for name in plugins()))


@cache
def ancestors(target: str) -> frozenset[str]:
    """A class of our own and its bases, read from our files without importing any; empty if it is none."""
    module, _, name = target.rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_bytes()).body if module.startswith(PACKAGES) and path.is_file() else []
    imports = [(node.module, alias) for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = {alias.asname or alias.name: f"{origin}.{alias.name}" for origin, alias in imports}
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
            return frozenset([target]).union(*(ancestors(names.get(base, f"{module}.{base}")) for base in bases))
    return frozenset()


def is_part(target: str, kind: type) -> bool:
    """Whether a class of our own may be named, and is derived from ``kind``, if that is our own, too."""
    found, asked = ancestors(target), f"{kind.__module__}.{kind.__qualname__}"
    return bool(found) and target.startswith(ROOMS) and (asked in found or not asked.startswith(PACKAGES))


def find(target: Any, kind: type[Kind], at: str) -> type[Kind]:
    """The class that ``target`` names, if it may be built here; ConfigError otherwise."""
    what = f"{at}.{TARGET}: {target!r:.200}"
    refusal = ConfigError(
        f"{what} is not allowed; expected a {kind.__name__ + ' ' if kind is not object else ''}class under "
        f"{' or '.join([*PACKAGES, *plugins()])}, or one of {', '.join(EXTERNAL)}"
    )
    if not isinstance(target, str) or not NAME.fullmatch(target):
        raise refusal
    module_name, _, class_name = target.rpartition(".")
    package = target.partition(".")[0]
    if package in PACKAGES:
        if not is_part(target, kind):
            raise refusal
        spec = find_spec(package)
        if spec is None or not Path(spec.origin or "/").resolve().is_relative_to(ROOT):
            raise ConfigError(f"{what}: another package named {package!r} hides Rivulet's own")
    elif target not in EXTERNAL and not is_plugin(module_name):
        if package in sys.stdlib_module_names or package == "torch" or not module_name:
            raise refusal
        raise ConfigError(f"{what} is no part of Rivulet; if you trust that code, allow it: needs plugins=[{package}]")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        limited = "; is its memory limited (ulimit -v)?" if "segment" in str(error) else ""
        raise ConfigError(f"{what} cannot be imported: {error}{limited}") from error
    except Exception as error:
        if not is_plugin(module_name):
            raise
        raise ConfigError(f"{what} cannot be imported: {locate(error)}") from error
    if found is None and is_plugin(module_name):
        own = vars(importlib.import_module(module_name)).values()
        names = [one.__name__ for one in own if inspect.isclass(one) and one.__module__ == module_name]
        raise ConfigError(
            f"{what}: there is no such class in {module_name}{nearest(class_name, names) if names else ''}"
        )
    if not inspect.isclass(found) or not issubclass(found, kind):
        raise refusal
    if target not in EXTERNAL and found.__module__ != module_name and not is_plugin(found.__module__):
        raise refusal
    return found


def locate(error: Exception) -> str:
    """What broke the import of a module, and in which line of the file. A SyntaxError says that itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if not isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{place}"


def build(config: Config, kind: type[Kind] = object, /, at: str = "config", **given: Any) -> Kind:  # type: ignore[assignment]
    """The component that ``config`` describes, of class ``kind``; ``at`` names it in errors, e.g. ``encoder``."""
    make: Any = prepare(config, kind, at, **given)
    try:
        inspect.signature(make.func).bind(**make.keywords)
    except TypeError as error:  # an argument without a default that nobody has set
        raise ConfigError(f"{at}: {error}") from None
    try:
        return make()  # type: ignore[no-any-return]
    except ConfigError:
        raise
    except ValueError as error:  # settings that do not go together: the constructor says which
        raise ConfigError(f"{at}: {error}" if config[TARGET] in EXTERNAL else str(error)) from error


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
    """The parameters by name with their type hints; those before a ``/`` are the program's own."""
    found: dict[str, Any] = {}
    for maker in makers(function):
        hints = get_type_hints(maker, include_extras=True)
        for parameter in inspect.signature(maker).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name != "self":
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
    return found


def makers(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Who takes the arguments: a class's constructor, and its parents' as long as ``**options`` are handed on."""
    classes = inspect.getmro(function) if inspect.isclass(function) else ()
    for maker in [vars(owner)["__init__"] for owner in classes if "__init__" in vars(owner)] or [function]:
        yield maker
        kinds = {parameter.kind for parameter in inspect.signature(maker).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return


def convert(value: Any, hint: Any, path: str) -> Any:
    """``value`` as the type hint asks, nested components included; ConfigError if it does not fit."""
    if isinstance(value, Mapping) and TARGET in value:
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        for option in options:
            if get_origin(option) is Callable:  # a factory: the owner calls it with what it computes
                return prepare(value, get_args(option)[1], path)
            if inspect.isclass(option) and option.__module__ != "builtins":
                return build(value, option, at=path)
    if isinstance(value, list) and any(isinstance(one, Mapping) and TARGET in one for one in value):
        inner = next(iter(get_args(get_args(hint)[0] if get_origin(hint) is Annotated else hint)), Any)
        value = [convert(one, inner, f"{path}.{number}") for number, one in enumerate(value)]
    try:
        return TypeAdapter(hint, config=None if is_model(hint) else LAX).validate_python(value)
    except ValidationError as error:
        raise ConfigError(explain(error, value, hint, path)) from None


def explain(error: ValidationError, value: Any, hint: Any, path: str) -> str:
    """What is wrong with a value: which one inside of it, and what each kind that it could be of expects."""
    first, *others = error.errors()
    if isinstance(value, Mapping) and get_origin(hint) is dict and len(first["loc"]) == 1 and first["loc"][0] in value:
        path, value = f"{path}.{first['loc'][0]}", first["input"]
    wanted = [first["msg"][0].lower() + first["msg"][1:]]
    if get_origin(hint) in (Union, types.UnionType) and all(len(other["loc"]) == 1 for other in (first, *others)):
        wanted += [other["msg"].removeprefix("Input should be ").partition(", ")[0] for other in others]
    return f"{path}: got {value!r}; {', or '.join(wanted)}. Set {path}=..."


def is_model(hint: Any) -> bool:
    """Pydantic models and dataclasses bring their own configuration."""
    return inspect.isclass(hint) and (hasattr(hint, "model_fields") or hasattr(hint, "__dataclass_fields__"))
