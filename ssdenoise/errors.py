"""Errors a user can act on.

SsdenoiseError
├── ConfigError(ValueError)              the configuration, the sheet or an option is wrong
├── FormatError(ValueError)              a file is not what its name, axes or metadata promise
├── MissingInputError(FileNotFoundError) a file, a store or a download is not there
├── DamagedStore(RuntimeError)           a store is not what was committed
├── InUseError(RuntimeError)             another job writes the same product
├── TooLittleMemory(RuntimeError)        a network does not fit into the memory there is
└── TrainingDiverged(RuntimeError)       the loss stopped being a number

Each message says what was found, what was needed and what to do, with names and paths. The command line prints it as
one line; the first three end with exit code 2 (the input is wrong), the others with 1.
"""


class SsdenoiseError(Exception):
    """Base of all errors that ssdenoise raises on purpose."""


class ConfigError(SsdenoiseError, ValueError):
    """The configuration, the sheet or an option is wrong."""


class FormatError(SsdenoiseError, ValueError):
    """A file is not what its name, axes or metadata promise."""


class MissingInputError(SsdenoiseError, FileNotFoundError):
    """A file, a store or a download is not there."""


class DamagedStore(SsdenoiseError, RuntimeError):
    """A store is not what was committed."""


class InUseError(SsdenoiseError, RuntimeError):
    """Another job writes the same product."""


class TooLittleMemory(SsdenoiseError, RuntimeError):
    """A network does not fit into the memory there is."""


class TrainingDiverged(SsdenoiseError, RuntimeError):
    """The training loss stopped being a finite number."""
