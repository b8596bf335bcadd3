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
import warnings
from collections.abc import Callable
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

from pipeline.core.build import arguments_for, build, check, nearest
from pipeline.core.errors import UNWRITABLE, USAGE, ConfigError, UserError
from pipeline.core.text import clean

OK, SOME_ROWS, INTERRUPTED, TERMINATED = 0, 3, 130, 143
FOLDER = Path(__file__).resolve().parent
LINE = "\n"  # messages may have several


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
    warnings.showwarning = lambda message, *_: print(f"warning: {clean(str(message), LINE)}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    codecs.register_error("rivulet", shown)
    sys.stdout.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="rivulet")  # type: ignore[union-attr]
    OmegaConf.register_new_resolver("groups", groups, replace=True)
    OmegaConf.register_new_resolver("sweeping", sweeping, replace=True)
    sys.argv[1:] = arranged(sys.argv[1:])
    if (
        os.environ.get("RANK", "0") != "0"
    ):  # one of several processes that torchrun has started: the first one has a folder
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
    codes: list[int] = []
    jobs: list[Job] = []
    before = written(sys.argv[1:])

    @hydra.main(version_base="1.3", config_path=str(FOLDER), config_name=config_name)
    def run(config: DictConfig) -> None:
        known, code = HydraConfig.get(), None
        try:
            code = guarded(lambda: start(program, config))
            codes.append(code)
        finally:
            if known.mode == RunMode.MULTIRUN:
                jobs.append(Job(Path(known.runtime.output_dir), " ".join(known.overrides.task), code))

    try:
        try:
            run()
        finally:
            if after and jobs:
                guarded(lambda: after(jobs) or OK)
        if codes == [USAGE]:
            for path, text in before.items():
                path.write_bytes(text)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(failed(explained(error, config_name), USAGE))
    except OSError as error:
        sys.exit(failed(f"cannot write {error.filename or 'the output'}: {error.strerror}", UNWRITABLE))
    except KeyboardInterrupt:
        sys.exit(failed("interrupted", INTERRUPTED))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is done, and this process is ending; by its own code
    sys.exit(flushed(max(codes, default=OK)))


def arranged(arguments: list[str]) -> list[str]:
    """A command line as people mean it. Hydra does not take overrides behind --multirun if others stand before it, has
    another name for the folder of several runs, and would resume a training in a new folder.
    """
    several = [one for one in arguments if one in ("--multirun", "-m")]
    found = several + [one for one in arguments if one not in several]
    if several:
        return [one.replace("hydra.run.dir=", "hydra.sweep.dir=", 1) for one in found]
    resumed = [one.partition("=")[2].strip("'\"") for one in arguments if one.startswith("trainer.resume=")]
    named = any(one.lstrip("+").startswith("hydra.run.dir=") for one in arguments)
    if resumed and not named and (place := Path(resumed[-1])).exists():
        folder = str(place if place.is_dir() else place.parent).replace("'", "\\'")
        found.append(f"hydra.run.dir='{folder}'")
    return found


def written(arguments: list[str]) -> dict[Path, bytes]:
    """The settings that lie in the run's folder, if one is named: Hydra writes those of a command over them before it
    can be refused.
    """
    named = [one.partition("=")[2].strip("'\"") for one in arguments if one.startswith("hydra.run.dir=")]
    found = sorted((Path(named[-1]) / ".hydra").glob("*.yaml")) if named else []
    return {path: path.read_bytes() for path in found if path.is_file()}


def start(program: Callable[..., int], config: DictConfig) -> int:
    """Call ``program`` with the configuration as checked, plain values."""
    settings = plain(config)
    parameters = inspect.signature(program).parameters
    sweep = settings.pop("sweep", None) if "report" in parameters else None
    arguments = checked(program, settings)
    if sweep is not None:
        return search(program, sweep, settings)
    if HydraConfig.get().output_subdir is not None:
        arguments["out"] = Path(HydraConfig.get().runtime.output_dir)
    return program(**arguments)


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, its references resolved."""
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def checked(program: Callable[..., int], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as arguments of ``program``. ConfigError for what it does not take, and for what is missing."""
    arguments = arguments_for(program, settings)
    missing(settings)
    for name in inspect.signature(program).parameters:
        if name not in settings and name not in ("out", "report"):
            raise ConfigError(f"{name}: is not set; choose at least one: {', '.join(options(name)) or 'a value'}")
    check(settings)
    return arguments


def search(program: Callable[..., int], sweep: Any, settings: dict[str, Any]) -> int:
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
            config = composed(name, every)
        except HydraException as error:
            raise ConfigError(explained(error, name)) from None
        records = out / ".hydra"
        records.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, records / "config.yaml")
        OmegaConf.save(every, records / "overrides.yaml")
        return program(**checked(program, plain(config)), out=out, report=report)

    build(sweep, Sweep, at="sweep").run(train, given, settings, Path(job.runtime.output_dir))
    return OK


def given(folder: Path) -> list[str] | None:
    """The overrides with which the run of a folder was started; None if they are not there, or not as we write them."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    return [str(text) for text in found] if isinstance(found, list) else None


def sweeping() -> str:
    """What the name of a sweep's folder begins with; nothing for a single run."""
    return "sweep_" if any(re.match(r"\+?sweep=", argument) for argument in sys.argv[1:]) else ""


def flushed(code: int) -> int:
    """Write what still waits for standard output, or let it go: the code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNWRITABLE
    return code


def shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an output cannot show: bytes of file names as they are (they need not be UTF-8), all else in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return b"".join(map(substitute, error.object[error.start : error.end])), error.end


def substitute(char: str) -> bytes:
    """One such character."""
    byte = ord(char) - 0xDC00
    return bytes([byte]) if 0x80 <= byte <= 0xFF else {"–": b"-", "█": b"#", "…": b"..."}.get(char, b"?")


def guarded(job: Callable[[], int]) -> int:
    """Run one job; a foreseen error becomes one clear message and its exit code."""
    try:
        return job()
    except UserError as error:
        return failed(str(error), error.exit_code)
    except OmegaConfBaseException as error:
        return failed(str(error), USAGE)
    except BrokenPipeError:
        return UNWRITABLE  # whoever read us has gone
    except OSError as error:
        return failed(f"cannot write {error.filename or 'the output'}: {error.strerror}", UNWRITABLE)


def failed(message: str, code: int) -> int:
    """Print an error for people; the code. What a file has put into it does not get at the terminal."""
    print(f"error: {clean(message, LINE)}", file=sys.stderr)
    return code


def missing(settings: Any, at: str = "") -> None:
    """ConfigError for a key that must be given and was not."""
    if settings == "???":
        raise ConfigError(f"{at}: is not set; give it on the command line: {at}=... (--help has examples)")
    if isinstance(settings, dict):
        for key, value in settings.items():
            missing(value, f"{at}.{key}" if at else str(key))


def explained(error: Exception, config_name: str) -> str:
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
    if others := elsewhere(key):
        return f"{key}: belongs to {' or '.join(others)}; choose {'one of them' if others[1:] else 'it'}, too"
    return f"{key}: no such key{nearest(key, known_keys(config_name))} (`--cfg job` shows all keys)"


def elsewhere(key: str) -> list[str]:
    """The options that have a key which was given without them, such as source=files for source.paths."""
    group, _, rest = key.partition(".")
    name, _, inner = rest.partition(".")
    if (FOLDER / group / f"{name}.yaml").is_file() and inner:  # of several at once: sink.csv.path
        return [f"{group}={name}"] if inner in keys_of(group, name) else []
    if group == "sink":  # whose keys stand under the option's name
        return []
    return [f"{group}={option}" for option in options(group) if name in keys_of(group, option)]


def keys_of(group: str, option: str) -> list[str]:
    """What an option can be told, also what has no default."""
    return [str(key) for key in OmegaConf.load(FOLDER / group / f"{option}.yaml").keys()]  # noqa: SIM118


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration as the command line chose its groups, dotted, and the groups."""
    known = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    chosen = [argument for argument in sys.argv[1:] if argument.partition("=")[0] in known and not swept(argument)]
    return [*flat(OmegaConf.to_container(composed(config_name, chosen))), *group_names(config_name)]


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    """A configuration as such a command line would make it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose(config_name, overrides)


def swept(argument: str) -> bool:
    """Whether an argument is several, for --multirun: it has a comma outside of brackets."""
    return "," in re.sub(r"\[.*?\]", "", argument)


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


def flat(config: Any, at: str = "") -> list[str]:
    """Dotted keys of nested dictionaries."""
    if not isinstance(config, dict):
        return [at]
    return [name for key, value in config.items() for name in flat(value, f"{at}.{key}" if at else str(key))]
