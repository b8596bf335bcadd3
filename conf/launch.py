"""How a program starts: Hydra composes the configuration, the program's signature checks it, errors become exit codes.

Only this and ``command_line.py`` know Hydra. ``launch(train, "train")`` composes ``train.yaml`` with the command line's
overrides, turns it into plain values, refuses what ``train`` does not take, and calls it.
"""

import codecs
import errno
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from conf.command_line import (
    FOLDER,
    arrange,
    compose_config,
    explain,
    groups,
    is_follower,
    options,
    searchpath,
)
from pipeline.core import program as ending
from pipeline.core.build import TARGET, allow, arguments_for, build, check, convert, nearest
from pipeline.core.errors import UNWRITABLE, USAGE, ConfigError, UserError
from pipeline.core.interrupt import INTERRUPTED, release
from pipeline.core.journal import open_locked
from pipeline.core.version import VERSION

OK, SOME_ROWS, TERMINATED = 0, 3, 143
OURS = "out", "report"  # what the program computes, and no setting can name
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
    ending.replace_closed_streams()
    ending.print_warnings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    codecs.register_error("rivulet", encode)
    sys.stdout.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    OmegaConf.register_new_resolver("groups", groups, replace=True)
    OmegaConf.register_new_resolver("sweeping", sweep_prefix, replace=True)
    OmegaConf.register_new_resolver("new_folder", cache(new_folder), replace=True)
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
        if "--version" in sys.argv:
            print(f"Rivulet {VERSION}")
            return OK
        if config_name == "infer" and not sys.argv[1:]:
            example = "python infer.py checkpoint=runs/demo source.path=talk.wav"
            raise ConfigError(f"got no settings; expected a model and a source: {example} (--help has more)")
        sys.argv[1:] = arrange(sys.argv[1:])
        try:
            with compose_once():
                run()
        except (YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(explain(error, config_name)) from None
        finally:
            if after and jobs:
                guard(lambda: after(jobs) or OK, config_name)
        return max(codes, default=OK)

    try:
        release()
        code = guard(run_all, config_name)
    except KeyboardInterrupt:
        code = ending.fail("interrupted", INTERRUPTED)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # from here on, the process ends with its own code
    sys.exit(flush(code))


@contextmanager
def compose_once() -> Iterator[None]:
    """Hydra composes all settings in advance, only to look for ``hydra.mode``. No yaml of ours sets it, so it need not,
    unless there are the user's own.
    """
    look = Hydra.get_mode
    if not searchpath() and not any("hydra.mode" in text for text in sys.argv):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = look  # type: ignore[method-assign]


def start(program: Callable[..., int], config: DictConfig) -> int:
    """Call ``program`` with the configuration as checked, plain values. One that has a folder keeps them there."""
    job, keeps = HydraConfig.get(), "out" in inspect.signature(program).parameters and not is_follower()
    out = Path(job.runtime.output_dir)
    try:
        settings = to_plain(config)
        sweep = settings.pop("sweep", None)
        arguments = check_settings(program, settings)
        if sweep is not None and is_follower():
            raise ConfigError("sweep: trains in one process; start it without torchrun")
        if not keeps:
            return program(**arguments)
        with record_settings(config, list(job.overrides.task), out):
            return program(**arguments, out=out) if sweep is None else search(program, sweep, settings, out)
    except UserError as error:
        if keeps and error.exit_code == USAGE:
            remove_empty(out)
        raise


@contextmanager
def record_settings(config: DictConfig, overrides: list[str], out: Path) -> Iterator[None]:
    """Write a run's settings to ``.hydra`` in its folder, which belongs to this run until it ends. If it is refused,
    restore what was there before. ConfigError if another run has the folder.
    """
    folder = out / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = open_locked(folder / "lock")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise ConfigError(f"hydra.run.dir: another run is using {out}; wait for it, or choose another folder") from None
    before = {path: path.read_bytes() for path in folder.glob("*.yaml")}
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(overrides, folder / "overrides.yaml")
    try:
        yield
    except UserError as error:
        if error.exit_code == USAGE:
            for path in folder.glob("*"):
                path.write_bytes(before[path]) if path in before else path.unlink()
        raise
    finally:
        os.close(lock)


def remove_empty(out: Path) -> None:
    """Remove the folder of a refused run, and those above it in the current one, as long as they are empty."""
    with suppress(OSError):
        for place in (out / ".hydra", out, *(place for place in out.parents if Path.cwd() in place.parents)):
            if place.is_dir():
                place.rmdir()


def new_folder(wanted: str) -> str:
    """Make a folder that no other run has made: ``wanted``, or else ``wanted-2``, ``wanted-3``, ..."""
    path = wanted
    for number in count(2):
        with suppress(FileExistsError):
            os.makedirs(path)
            break
        path = f"{wanted}-{number}"
    return path


def to_plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values: references resolved, ``~/`` the home folder, and named parts as they are."""
    settings: Any = expand_home(OmegaConf.to_container(config, resolve=True, throw_on_missing=False))
    return {str(key): expand_parts(value, str(key)) for key, value in settings.items()}


def expand_parts(value: Any, at: str) -> Any:
    """Settings with those of conf/extractor/NAME.yaml in place of each name in a component's ``parts``. ConfigError for
    a name that is not there.
    """
    if not isinstance(value, dict):
        return value
    value = {key: expand_parts(inner, f"{at}.{key}") for key, inner in value.items()}
    if TARGET in value and isinstance(names := value.get("parts"), list):
        known = options("extractor")
        for number, name in enumerate(names):
            if isinstance(name, str):
                if name not in known:
                    raise ConfigError(f"{at}.parts: there is no extractor {name!r}{nearest(name, known)}")
                names[number] = to_plain(compose_config("train", [f"extractor={name}"]))["extractor"]
    return value


def expand_home(value: Any) -> Any:
    """Settings with the home folder in place of a ``~/`` at the beginning of a text; lists within lists are pairs of
    labels, and stay.
    """
    if isinstance(value, dict):
        return {key: expand_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [inner if isinstance(inner, list) else expand_home(inner) for inner in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and re.match("~(/|$)", value) else value


def check_settings(program: Callable[..., int], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as arguments of ``program``; their ``plugins`` are allowed and taken out. ConfigError for a key that
    ``program`` does not take, or that is missing.
    """
    for key in OURS:
        if key in settings:
            raise ConfigError(f"{key}: no such key; a run's folder is hydra.run.dir=FOLDER")
    if "experiment" in settings:
        hint = "its yaml must begin with the line `# @package _global_`; so its keys are those of the program"
        raise ConfigError(f"experiment: {hint}")
    names = settings.pop("plugins", None) or []
    allow(*convert([names] if isinstance(names, str) else names, list[str], "plugins"))
    arguments = arguments_for(program, settings)
    for key in sorted(OmegaConf.missing_keys(settings)):
        raise ConfigError(f"{key}: is not set; add it to the command: {key}=... (--help and docs/ have examples)")
    for name in inspect.signature(program).parameters:
        if name not in settings and name not in OURS:
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
