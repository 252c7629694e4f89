"""What `ciq_ray` raises.

::

    CiqError                              root; everything below is also one of Python's own kinds
    ├── ConfigurationError (ValueError)   an argument, a configuration field, a file of settings
    │   ├── ScoreError                    what an objective returned does not fit `num_objectives`
    │   └── SearchSpaceError              a search-space file, provider or catalogue
    ├── StatisticsError (ValueError)      numbers that cannot be compared
    ├── ResultError (ValueError)          a result that cannot be read, or has nothing to report
    ├── JournalError (RuntimeError)       a journal that cannot be read, or belongs to another search
    ├── WorkerError (RuntimeError)        a worker that cannot start or cannot go on
    │   └── BaselineError                 the baseline of a normalised search failed
    ├── SearchFailedError (RuntimeError)  every candidate of the first generation failed
    ├── UnsupportedError (RuntimeError)   something this version does not have
    └── ObjectiveFailure (Exception)      raised *by an objective* to say how a candidate failed

The searchers raise their own family, drawn in `searchers.errors`; bad spaces and searcher options
arrive from there unchanged.
"""

from __future__ import annotations

__all__ = [
    "BaselineError",
    "CiqError",
    "ConfigurationError",
    "JournalError",
    "ObjectiveFailure",
    "ResultError",
    "ScoreError",
    "SearchFailedError",
    "SearchSpaceError",
    "StatisticsError",
    "UnsupportedError",
    "WorkerError",
]


class CiqError(Exception):
    """Root of everything this package raises on purpose."""


class ConfigurationError(CiqError, ValueError):
    """An argument or a configuration field has a value it cannot have."""


class ScoreError(ConfigurationError):
    """What an objective returned does not fit the number of objectives."""


class SearchSpaceError(ConfigurationError):
    """A search-space file, provider or catalogue cannot be used."""


class ResultError(CiqError, ValueError):
    """Results cannot be read, or there is nothing to report."""


class StatisticsError(CiqError, ValueError):
    """Numbers cannot be compared: too few of them, or without a ratio."""


class JournalError(CiqError, RuntimeError):
    """A journal cannot be read, or belongs to another search."""


class WorkerError(CiqError, RuntimeError):
    """A worker cannot start, or cannot go on."""


class BaselineError(WorkerError):
    """The baseline of a normalised search failed."""


class SearchFailedError(CiqError, RuntimeError):
    """Every candidate of the first generation failed."""


class UnsupportedError(CiqError, RuntimeError):
    """This version does not have what was asked for."""


class ObjectiveFailure(CiqError):
    """Raised by an objective to say how a candidate failed.

    Any exception with such a `status` attribute does the same.

    Args:
        status: One of `searchers.outcome.FAILURES`, for example ``"compile_error"``.
        message: For people; kept in the journal and the results.
    """

    def __init__(self, status: str, message: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message or self.status
