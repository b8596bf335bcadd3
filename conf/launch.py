"""How a program starts: Hydra composes the configuration, the program's signature checks it, errors become exit codes.

This is the only place that knows Hydra. ``launch(train, "train")`` composes ``conf/train.yaml`` with the command line's
overrides, turns it into plain values, refuses what ``train`` does not take, and calls it.
"""

import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.build import arguments_for, check, nearest
from pipeline.errors import UNWRITABLE, USAGE, ConfigError, UserError

OK, SOME_ROWS, INTERRUPTED, TERMINATED = 0, 3, 130, 143
FOLDER = Path(__file__).resolve().parent


def launch(program: Callable[..., int], config_name: str) -> None:
    """Run ``program`` under the configuration ``config_name`` and exit with its code (or that of its error)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing and exiting
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # file names need not be UTF-8
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(FOLDER), config_name=config_name)
    def run(config: DictConfig) -> None:
        codes.append(guarded(lambda: start(program, config)))

    try:
        run()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(failed(explained(error, config_name), USAGE))
    except OSError as error:
        sys.exit(failed(f"cannot write {error.filename or 'the output'}: {error.strerror}", UNWRITABLE))
    except KeyboardInterrupt:
        sys.exit(failed("interrupted", INTERRUPTED))
    sys.exit(max(codes, default=OK))


def start(program: Callable[..., int], config: DictConfig) -> int:
    """Call ``program`` with the configuration as checked, plain values."""
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(settings, dict)
    arguments = arguments_for(program, {str(key): value for key, value in settings.items()})
    missing(settings)
    check(settings)
    if HydraConfig.get().output_subdir is not None:
        arguments["out"] = Path(HydraConfig.get().runtime.output_dir)
    return program(**arguments)


def guarded(job: Callable[[], int]) -> int:
    """Run one job; a foreseen error becomes one clear message and its exit code."""
    try:
        return job()
    except UserError as error:
        return failed(str(error), error.exit_code)
    except OmegaConfBaseException as error:
        return failed(str(error), USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone
        return UNWRITABLE
    except OSError as error:
        return failed(f"cannot write {error.filename or 'the output'}: {error.strerror}", UNWRITABLE)


def failed(message: str, code: int) -> int:
    """Print an error for people; the code."""
    print(f"error: {message}", file=sys.stderr)
    return code


def missing(settings: Any, at: str = "") -> None:
    """ConfigError for a key that must be given and was not."""
    if settings == "???":
        raise ConfigError(f"{at}: is not set; give it on the command line: {at}=...")
    if isinstance(settings, dict):
        for key, value in settings.items():
            missing(value, f"{at}.{key}" if at else str(key))


def explained(error: Exception, config_name: str) -> str:
    """Hydra's message, with the nearest valid name where a key is unknown."""
    text = str(error)
    cause = error.__cause__
    if cause is not None and str(cause) not in text:
        text += f"\n{cause}"
    found = re.search(r"Could not override '([^']+)'", text)
    if not found or "Available options" in text:
        return text
    key = found.group(1)
    return f"{key}: no such key{nearest(key, known_keys(config_name))}. `--cfg job` shows all keys"


def known_keys(config_name: str) -> list[str]:
    """Every key of the configuration as the command line chose its groups, dotted."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    groups = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    chosen = [argument for argument in sys.argv[1:] if argument.partition("=")[0] in groups and "," not in argument]
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose(config_name, overrides=chosen)
    return list(flat(OmegaConf.to_container(config)))


def flat(config: Any, at: str = "") -> list[str]:
    """Dotted keys of nested dictionaries."""
    if not isinstance(config, dict):
        return [at]
    return [name for key, value in config.items() for name in flat(value, f"{at}.{key}" if at else str(key))]
