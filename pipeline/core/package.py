"""Weights that an optional package ships: found without importing the package, and held to their hash."""

import hashlib
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pipeline.core.errors import ConfigError


@dataclass(frozen=True)
class PackageFile:
    """``path`` and ``licence`` are relative to ``site-packages``; ``sha256`` is of the file at ``path``."""

    package: str
    version: str
    path: str
    sha256: str
    licence: str
    credit: str = ""  # whose weights they are, under which licence, and what was changed
    extra: str = "pretrained"  # requirements-EXTRA.txt

    @property
    def setup(self) -> str:
        """The command that installs it."""
        return f"make setup EXTRAS={self.extra}"

    def find(self, given: str | None, key: str) -> Path:
        """Where the file is. ``given``: the user's own copy, which ``key`` names; a warning tells if it differs.

        ConfigError if the package or the file is missing, or if the package's file is another one.
        """
        if given:
            path = Path(given).expanduser()
            if not path.is_file():
                raise ConfigError(f"{key}: there is no file {path}; leave the key out to use that of {self.package}")
            if (found := hash_of(path)) != self.sha256:
                warnings.warn(
                    f"{key}: {path} (sha256 {found}) is not the {Path(self.path).name} of {self.package} "
                    f"{self.version} (sha256 {self.sha256})",
                    stacklevel=2,
                )
            return path
        path = self.inside(self.path, key)
        if not path.is_file() or hash_of(path) != self.sha256:
            what = f"sha256 {hash_of(path)}" if path.is_file() else f"no {self.path}"
            raise ConfigError(
                f"{self.package} {distribution(self.package).version} is installed, with {what}; expected version "
                f"{self.version}, sha256 {self.sha256}. `{self.setup}` brings it; or set {key} to a copy of the file"
            )
        return path

    def inside(self, path: str, key: str) -> Path:
        """``path`` in the installed package. ConfigError if that is missing."""
        try:
            return Path(str(distribution(self.package).locate_file(path)))
        except PackageNotFoundError:
            raise ConfigError(
                f"the package {self.package} is not installed, whose weights this needs. `{self.setup}` brings it; or "
                f"set {key} to a copy of its {Path(self.path).name}"
            ) from None


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
