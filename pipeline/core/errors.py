"""Errors that a user can cause. Each message says what came, what was expected and which key to change."""

from typing import Literal, TypeAlias

FAILED, USAGE, UNWRITABLE = 1, 2, 74  # exit codes
FailOn: TypeAlias = Literal["errors", "warnings", "never"]  # which results of files make the exit code 3


class UserError(Exception):
    """A foreseen error: printed as one message, without a traceback; ``exit_code`` ends the program."""

    exit_code = FAILED


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used."""

    exit_code = USAGE


class ModelError(UserError):
    """A model file that cannot be used."""

    exit_code = USAGE


class SnapshotError(UserError):
    """A snapshot of a stream that cannot be used."""

    exit_code = USAGE


class MediaError(UserError):
    """A file that cannot be used; ``code`` is from a closed list."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


class NotFiniteError(ValueError):
    """NaN or infinity in a memory, from which it would never leave."""


class DivergedError(UserError):
    """A training whose loss is no longer a number."""
