"""What `searchers` raises.

::

    SearcherError                  root; everything below is also one of Python's own kinds
    ├── SpaceError (ValueError)    a space, parameter or configuration that cannot be used
    │   ├── ConstraintError        a constraint that cannot be parsed, evaluated or satisfied
    │   └── ConfigError            a configuration that is not a member of its space
    ├── OptionError (ValueError)   a searcher's argument or option
    └── StateError (RuntimeError)  saved state that does not fit, a call at the wrong moment
"""

__all__ = ["ConfigError", "ConstraintError", "OptionError", "SearcherError", "SpaceError", "StateError"]


class SearcherError(Exception):
    """Root of everything this package raises on purpose."""


class SpaceError(SearcherError, ValueError):
    """A search space or one of its parameters cannot be used as given."""


class ConstraintError(SpaceError):
    """A constraint cannot be parsed, cannot be evaluated, or nothing satisfies it."""


class ConfigError(SpaceError):
    """A configuration is not a member of the space it was given for."""


class OptionError(SearcherError, ValueError):
    """An argument of a searcher is unknown or has a value it cannot have."""


class StateError(SearcherError, RuntimeError):
    """Saved state does not fit this searcher, or a call came at the wrong moment."""
