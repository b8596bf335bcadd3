"""How a program starts: Hydra composes the configuration, the program's signature checks it, errors become exit codes.

This is the only place that knows Hydra. ``launch(train, "train")`` composes ``conf/train.yaml`` with the command line's
overrides, turns it into plain values, refuses what ``train`` does not take, and calls it.
"""

import codecs
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

import pipeline.core.program as ending
from pipeline.core.build import allow, arguments_for, build, check, convert, nearest
from pipeline.core.errors import UNWRITABLE, USAGE, ConfigError, UserError
from pipeline.core.search_space import quote

OK, SOME_ROWS, INTERRUPTED, TERMINATED = 0, 3, 130, 143
FOLDER = Path(__file__).resolve().parent
REPLACEMENTS = {"–": b"-", "█": b"#", "…": b"..."} | {chr(0xDC00 + byte): bytes([byte]) for byte in range(128, 256)}


class Job(NamedTuple):
    """One of several runs: where its results are, what was set for it, and its exit code (None: it broke down)."""

    folder: Path
    overrides: str
    code: int | None


def launch(program: Callable[..., int], config_name: str, after: Callable[[list[Job]], None] | None = None) -> None:
    """Run ``program`` under the configuration ``config_name`` and exit with its code (or that of its error).

    ``after`` gets the jobs of --multirun once they are over, whatever has become of them.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing and exiting
    ending.print_warnings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    codecs.register_error("rivulet", encode)
    sys.stdout.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    OmegaConf.register_new_resolver("groups", groups, replace=True)
    OmegaConf.register_new_resolver("sweeping", sweep_prefix, replace=True)
    sys.argv[1:] = arrange(sys.argv[1:])
    codes: list[int] = []
    jobs: list[Job] = []

    @hydra.main(version_base="1.3", config_path=str(FOLDER), config_name=config_name)
    def run(config: DictConfig) -> None:
        known, code = HydraConfig.get(), None
        try:
            code = guard(lambda: start(program, config), config_name)
            codes.append(code)
        finally:
            if known.mode == RunMode.MULTIRUN:
                jobs.append(Job(Path(known.runtime.output_dir), " ".join(known.overrides.task), code))

    def run_all() -> int:
        try:
            run()
        finally:
            if after and jobs:
                guard(lambda: after(jobs) or OK, config_name)
        return max(codes, default=OK)

    try:
        code = guard(run_all, config_name)
    except KeyboardInterrupt:
        code = ending.fail("interrupted", INTERRUPTED)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # from here on, the process ends with its own code
    sys.exit(flush(code))


def is_follower() -> bool:
    """Whether torchrun started this process, and another one writes the files."""
    return os.environ.get("RANK", "0") != "0"


def arrange(arguments: list[str]) -> list[str]:
    """Arrange a command line for Hydra, which does not take overrides after --multirun if others come before it, names
    the folder of several runs otherwise, and would resume a training in a new folder.
    """
    several = [one for one in arguments if one in ("--multirun", "-m")]
    found = several + [one for one in arguments if one not in several]
    if several:
        return [one.replace("hydra.run.dir=", "hydra.sweep.dir=", 1) for one in found]
    resumed = [one.partition("=")[2].strip("'\"") for one in arguments if one.startswith("trainer.resume=")]
    named = any(one.lstrip("+").startswith("hydra.run.dir=") for one in arguments)
    if is_follower():
        found.append("hydra.run.dir=.")
    elif resumed and not named and (place := Path(resumed[-1])).exists():
        folder = str(place if place.is_dir() else place.parent).replace("'", "\\'")
        found.append(f"hydra.run.dir='{folder}'")
    return found


def start(program: Callable[..., int], config: DictConfig) -> int:
    """Call ``program`` with the configuration as checked, plain values. One that has a folder keeps them there."""
    job, settings = HydraConfig.get(), to_plain(config)
    parameters = inspect.signature(program).parameters
    sweep = settings.pop("sweep", None) if "report" in parameters else None
    arguments = check_settings(program, settings)
    if sweep is not None and is_follower():
        raise ConfigError("sweep: trains in one process; start it without torchrun")
    if "out" not in parameters or is_follower():
        return program(**arguments)
    out = Path(job.runtime.output_dir)
    with record_settings(config, list(job.overrides.task), out):
        return program(**arguments, out=out) if sweep is None else search(program, sweep, settings, out)


@contextmanager
def record_settings(config: DictConfig, overrides: list[str], out: Path) -> Iterator[None]:
    """Write a run's settings to ``.hydra`` in its folder. If the run is refused, restore those of the run before."""
    folder = out / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    before = {path: path.read_bytes() for path in folder.glob("*.yaml")}
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(overrides, folder / "overrides.yaml")
    try:
        yield
    except UserError as error:
        for path, data in before.items() if error.exit_code == USAGE else ():
            path.write_bytes(data)
        raise


def to_plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, its references resolved."""
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    return {str(key): value for key, value in settings.items()}


def check_settings(program: Callable[..., int], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as arguments of ``program``; their ``plugins`` are allowed and taken out. ConfigError for a key that
    ``program`` does not take, or that is missing.
    """
    names = settings.pop("plugins", None) or []
    allow(*convert([names] if isinstance(names, str) else names, list[str], "plugins"))
    arguments = arguments_for(program, settings)
    for key in sorted(OmegaConf.missing_keys(settings)):
        raise ConfigError(f"{key}: is not set; give it on the command line: {key}=... (--help has examples)")
    for name in inspect.signature(program).parameters:
        if name not in settings and name not in ("out", "report"):
            raise ConfigError(f"{name}: is not set; choose at least one: {', '.join(options(name)) or 'a value'}")
    check(settings)
    return arguments


def search(program: Callable[..., int], sweep: Any, settings: dict[str, Any], out: Path) -> int:
    """Call ``program`` again and again, as ``sweep`` says: each time composed anew, in a folder of its own."""
    from pipeline.training.progress import Report
    from pipeline.training.sweep import Sweep

    job = HydraConfig.get()
    name = str(job.job.config_name)
    if job.mode is RunMode.MULTIRUN:
        raise ConfigError("sweep: chooses by itself what to train; leave --multirun out")
    given = [text for text in job.overrides.task if not re.match(r"[+~]*sweep\b", text)]

    def train(overrides: list[str], out: Path, report: Report | None) -> int:
        every = [*given, *overrides]
        try:
            config = compose_config(name, every)
        except HydraException as error:
            raise ConfigError(explain(error, name)) from None
        with record_settings(config, every, out):
            return program(**check_settings(program, to_plain(config)), out=out, report=report)

    build(sweep, Sweep, at="sweep").run(train, given, settings, out)
    return OK


def read_overrides(folder: Path) -> list[str] | None:
    """The overrides of the run in a folder; None if they are missing or have another form."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    return [str(text) for text in found] if isinstance(found, list) else None


def sweep_prefix() -> str:
    """What the name of a sweep's folder begins with; nothing for a single run."""
    return "sweep_" if any(re.match(r"\+?sweep=", argument) for argument in sys.argv[1:]) else ""


def flush(code: int) -> int:
    """Write the rest of standard output; the code, or UNWRITABLE if that fails."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNWRITABLE
    return code


def encode(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an output cannot show: bytes of file names as they are (perhaps no UTF-8), the rest in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return b"".join(REPLACEMENTS.get(char, b"?") for char in found), error.end


def guard(job: Callable[[], int], config_name: str) -> int:
    """Run a job; an error that a user can cause becomes one message and its exit code."""

    def explained() -> int:
        try:
            return job()
        except (HydraException, OmegaConfBaseException) as error:  # some of which are an OSError, too
            raise ConfigError(explain(error, config_name)) from None

    return ending.guard(explained)


def explain(error: Exception, config_name: str) -> str:
    """Hydra's message, with the nearest valid name where a key or an option is unknown."""
    text = str(error)
    absent = re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text)
    if isinstance(error, MissingConfigException) and absent and (FOLDER / absent[1]).is_dir():
        return f"{absent[1]}: there is no {absent[2]!r}{nearest(absent[2], options(absent[1]))}"
    cause = error.__cause__
    if cause is not None and str(cause) not in text:
        text += f"\n{cause}"
    found = re.search(r"Could not override '([^']+)'", text)
    if not found or "Available options" in text:
        return text
    key = found.group(1)
    if others := options_with(key):
        return f"{key}: belongs to {' or '.join(others)}; choose {'one of them' if others[1:] else 'it'}, too"
    return f"{key}: no such key{nearest(key, known_keys(config_name))} (`--cfg job` shows all keys)"


def options_with(key: str) -> list[str]:
    """The options that have a key, such as source=files for source.paths."""
    group, _, rest = key.partition(".")
    name, _, inner = rest.partition(".")
    if (FOLDER / group / f"{name}.yaml").is_file() and inner:  # of several at once: sink.csv.path
        return [f"{group}={name}"] if inner in keys_of(group, name) else []
    if group == "sink":  # whose keys stand under the option's name
        return []
    return [f"{group}={option}" for option in options(group) if name in keys_of(group, option)]


def keys_of(group: str, option: str) -> list[str]:
    """The keys of an option, also those without a default."""
    return [str(key) for key in OmegaConf.load(FOLDER / group / f"{option}.yaml").keys()]  # noqa: SIM118


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration as the command line chose its groups, dotted, and the groups."""
    known = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    several = re.compile(r"(\[.*?\]|[^\[,])*,")  # a comma outside of brackets, for --multirun
    chosen = [one for one in sys.argv[1:] if one.partition("=")[0] in known and not several.match(one)]
    return [*dotted_keys(OmegaConf.to_container(compose_config(config_name, chosen))), *group_names(config_name)]


def compose_config(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration of such a command line, with the user's own folder of --config-dir."""
    own = re.search(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.+)", "\n".join(sys.argv[1:]))
    path = [f"hydra.searchpath=[{quote(f'file://{Path(own[1]).resolve()}')}]"] if own else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose(config_name, [*path, *overrides])


def group_names(config_name: str) -> list[str]:
    """The groups that a program uses, in the order of its defaults."""
    defaults = OmegaConf.load(FOLDER / f"{config_name}.yaml").defaults
    return [str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry if "/" not in str(key)]


def groups(config_name: str) -> str:
    """The groups of a program with their options, one a line, for its help."""
    return "\n".join(f"{name}: {', '.join(options(name))}" for name in group_names(config_name))


def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def dotted_keys(config: Any, at: str = "") -> list[str]:
    """Dotted keys of nested dictionaries."""
    if not isinstance(config, dict):
        return [at]
    return [name for key, value in config.items() for name in dotted_keys(value, f"{at}.{key}" if at else str(key))]
