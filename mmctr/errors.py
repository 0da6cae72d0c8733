"""Errors a user can cause.

Every message is one sentence: what was found, where, what was expected, what to do. The command
line prints it without a traceback and exits with status 1.
"""


class MMCTRError(Exception):
    """Base of every error that a user can cause and mend."""


class DataError(MMCTRError):
    """A data file or folder is missing or not in the documented form."""


class ConfigError(MMCTRError):
    """A parameter has a value that cannot be used."""


class RunError(MMCTRError):
    """A run folder is missing, unfinished or does not fit the data."""


class ModelNotFoundError(MMCTRError):
    """A pretrained encoder could not be found on this machine or fetched."""


def first_line(error: BaseException) -> str:
    """What a library's error says first, as a part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
