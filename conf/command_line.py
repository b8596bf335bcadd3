"""The command line: made ready for Hydra's grammar, and Hydra's errors explained by the key that is meant."""

import os
import re
import shlex
import sys
from pathlib import Path, PurePath
from shutil import get_terminal_size
from textwrap import fill
from typing import Any
from urllib.parse import unquote, urlparse

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.core.search_space import quote
from pipeline.core.settings import dotted

FOLDER = Path(__file__).resolve().parent
HOME = re.compile(r"(?:(?<=^)|(?<=[\[,]))~(?=$|/)")  # at the beginning of a value, or of one in a list
STRUCTURED = ("[", "{", "'", '"', "$")  # how lists, mappings, quoted text and references begin


def is_follower() -> bool:
    """Whether torchrun started this process, and another one writes the files."""
    return os.environ.get("RANK", "0") != "0"


def arrange(arguments: list[str]) -> list[str]:
    """Arrange a command line for Hydra, which does not take overrides after an option if others come before it, names
    the folder of several runs otherwise, would resume a training in a new folder, and cannot read most characters.
    ConfigError for what is no override.
    """
    given, unknown = get_args_parser().parse_known_intermixed_args(arguments)
    if unknown:
        key = unknown[0].strip("-").partition("=")[0]
        raise ConfigError(f"{unknown[0]}: no such option; keys have no dashes: {key}=VALUE (see --help)")
    ready = {text: prepare(text, given.multirun) for text in given.overrides}
    found = [one for one in arguments if one not in ready] + [ready[one] for one in arguments if one in ready]
    if given.multirun:
        return [one.replace("hydra.run.dir=", "hydra.sweep.dir=", 1) for one in found]
    resumed = [one.partition("=")[2].strip("'\"") for one in arguments if one.startswith("trainer.resume=")]
    named = any(one.lstrip("+").startswith("hydra.run.dir=") for one in arguments)
    if is_follower():
        found.append("hydra.run.dir=.")
    elif resumed and not named and (place := Path(resumed[-1]).expanduser()).exists():
        found.append(f"hydra.run.dir={quote(str(place if place.is_dir() else place.parent))}")
    return found


def prepare(text: str, multirun: bool = False) -> str:
    """An override as Hydra can read it: ``~`` is the home folder, and text that is beyond its grammar gets quotes.
    ConfigError for what is no override, and for what could be text or something else.
    """
    key, equals, value = text.partition("=")
    if not key.strip("+~") or (not equals and not text.startswith("~")):
        hint = ", such as checkpoint=RUN, source.path=FILE or dataset.root=FOLDER" * Path(text).exists()
        raise ConfigError(f"got {text!r}; expected KEY=VALUE{hint} (--help shows groups and keys)")
    group = key.lstrip("+~").partition("@")[0]
    names = options(group) if re.fullmatch(r"\w{1,50}", group) else []
    choices = f"expected one of: {', '.join(names)}" + "; for none of them: 'sink=[]'" * (group == "sink")
    if equals and not value.strip():
        hint = choices if names else f"to set no value, if that is allowed, write {key}=null"
        raise ConfigError(f"{key}: got nothing; is a shell variable not set? {hint[0].upper()}{hint[1:]}")
    text = f"{key}{equals}{HOME.sub(lambda _: str(Path.home()), value)}"
    plain = quote(value) if '"' in value or value.endswith("\\") else f'"{value}"'
    how = f"as text, in bash: {shlex.quote(f'{key}={plain}')}"
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        if value.startswith(STRUCTURED):
            if value.startswith("{") and key.startswith("decoder."):  # Hydra takes plain words as keys, and no others
                how = f"labels beyond plain words stand in pairs: '{key}=[[\"a, b\",0.5]]'"
            raise ConfigError(f"{key}: cannot read {value!r} as a list, a mapping or quoted text; {how}") from None
        return f"{key}={quote(str(Path.home()) + value[1:] if HOME.match(value) else value)}"
    if override.is_sweep_override() and not multirun:
        raise ConfigError(f"{key}: got {value!r}; {how}; as a list: '{key}=[{value}]'; one run for each: --multirun")
    if names and equals and not override.is_sweep_override() and not isinstance(override.value(), str | list | dict):
        raise ConfigError(f"{key}: got {value}; {choices}")
    return text


def searchpath() -> list[str]:
    """The user's own places of configuration: of --config-dir, and of hydra.searchpath."""
    given = get_args_parser().parse_known_intermixed_args(sys.argv[1:])[0]
    found = [f"file://{Path(given.config_dir).resolve()}"] if given.config_dir else []
    for text in given.overrides:
        if text.startswith("hydra.searchpath="):
            listed = OverridesParser.create().parse_override(text).value()
            found += [str(entry) for entry in (listed if isinstance(listed, list) else [listed])]
    return found


def folders() -> list[Path]:
    """The folders with configuration: ours, and the user's own."""
    own = [urlparse(place) for place in searchpath()]
    return [FOLDER, *(Path(unquote(place.path)) for place in own if place.scheme in ("", "file"))]


def compose_config(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration of such a command line, with the user's own places."""
    own = f"hydra.searchpath=[{','.join(map(quote, searchpath()))}]"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose(config_name, [own, *overrides])


def explain(error: Exception, config_name: str) -> str:
    """What is wrong with a configuration, with the nearest valid name where a key or an option is unknown."""
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return explain_yaml(error)
    text = str(error)
    absent = re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text)
    if isinstance(error, MissingConfigException) and absent and (names := options(absent[1])):
        for folder in folders():
            if (path := folder / absent[1] / f"{absent[2]}.yml").is_file():
                return f"{absent[1]}: Hydra reads .yaml files only; rename {path} to {absent[2]}.yaml"
        return f"{absent[1]}: there is no {absent[2]!r}{nearest(absent[2], names)}"
    cause = error.__cause__
    if cause is not None and str(cause) not in text:
        text += f"\n{cause}"
    found = re.search(r"Could not override '([^']+)'", text)
    if not found or "Available options" in text:
        return text
    key = found.group(1)
    above, others = key.rpartition(".")[0], options_with(key)
    if others and "." in above and any(known.startswith(f"{above}.") for known in known_keys(config_name)):
        return f"{key}: is not among the keys of {above} that are set; to set it, too, write +{key}=..."
    if others:
        return f"{key}: belongs to {' or '.join(others)}; choose {'one of them' if others[1:] else 'it'}, too"
    group, _, name = key.rpartition(".")
    if name == "_target_" or any(one.startswith(f"{group}._target_=") for one in sys.argv[1:]):  # one of the user's own
        return f"{key}: is not in the yaml of {group}; to add a key of a part of your own, write +{key}=..."
    return f"{key}: no such key{nearest(key, known_keys(config_name))} (`--cfg job` shows all keys)"


def explain_yaml(error: Exception) -> str:
    """Which file cannot be read, where, and why."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}{hint}"
    for path in (path for folder in folders() for path in sorted(folder.rglob("*.yaml"))):
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError as wrong:
            line = wrong.object.count(b"\n", 0, wrong.start) + 1
            return f"{path}, line {line}: byte 0x{wrong.object[wrong.start]:02x} is not UTF-8; save the file as UTF-8"
    return str(error)


def options_with(key: str) -> list[str]:
    """The options that have a key, such as source=files for source.paths."""
    group, _, rest = key.partition(".")
    name, _, inner = rest.partition(".")
    if inner and name in options(group):  # of several at once: sink.csv.path
        return [f"{group}={name}"] if inner in keys_of(group, name) else []
    if group == "sink":  # whose keys stand under the option's name
        return []
    return [f"{group}={option}" for option in options(group) if name in keys_of(group, option)]


def keys_of(group: str, option: str) -> list[str]:
    """The keys of an option, also those without a default, and those of the yamls that it takes up (``@_here_``)."""
    path = next(path for folder in folders() if (path := folder / group / f"{option}.yaml").is_file())
    config: Any = OmegaConf.load(path)
    beside = PurePath(option).parent
    keys = [str(key) for key in config if key != "defaults"]
    taken = [str(one).removesuffix("@_here_") for one in config.get("defaults", []) if str(one).endswith("@_here_")]
    return keys + [key for name in taken for key in keys_of(group, str(beside / name))]


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration as the command line chose its groups, dotted, and the groups."""
    names = [*group_names(config_name), "experiment"]
    several = re.compile(r"(\[.*?\]|[^\[,])*,")  # a comma outside of brackets, for --multirun
    chosen = [one for one in sys.argv[1:] if one.partition("=")[0] in names and not several.match(one)]
    return [*dotted(OmegaConf.to_container(compose_config(config_name, chosen))), *names]


def group_names(config_name: str) -> list[str]:
    """The groups that a program uses, in the order of its defaults."""
    defaults = OmegaConf.load(FOLDER / f"{config_name}.yaml").defaults
    return [str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry if "/" not in str(key)]


def groups(config_name: str) -> str:
    """The groups of a program with their options, as wide as the terminal, for its help."""
    rows = (f"  {name}: {', '.join(options(name))}" for name in group_names(config_name))
    return "\n".join(fill(row, get_terminal_size().columns - 1, subsequent_indent="      ") for row in rows)


def options(group: str) -> list[str]:
    """The options of a group, the user's own among them."""
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})
