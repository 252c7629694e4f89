"""What the commands share: exit statuses, errors without tracebacks, tables, numbers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ciq_ray.errors import CiqError, ConfigurationError, JournalError, StatisticsError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "UNUSABLE_RUN",
    "USAGE",
    "Force",
    "Json",
    "Run",
    "ago",
    "clean_errors",
    "console",
    "duration",
    "escaped",
    "numbers",
    "params_text",
    "print_json",
    "stdout_to_stderr",
]

FAILED: Final = 1
USAGE: Final = 2
UNUSABLE_RUN: Final = 3
INTERRUPTED: Final = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run's folder or journal, or its number in CIQ_RUNS_DIR (by default ./ciq_runs).",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Go on although the script or program that is measured has changed since."),
]


@contextlib.contextmanager
def clean_errors() -> Iterator[None]:
    """Turn what is raised on purpose into one message and an exit status."""
    from searchers.errors import SearcherError

    try:
        yield
    except JournalError as error:
        _fail(error, UNUSABLE_RUN)
    except (ConfigurationError, StatisticsError, SearcherError) as error:
        _fail(error, USAGE)
    except CiqError as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        print("interrupted; the run can be resumed", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _fail(error: Exception, status: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(status) from error


def stdout_to_stderr(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """What a script prints while it is imported must not end up in the JSON."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def print_json(data: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(data, default=repr))


def console() -> Console:
    """Where text and tables go."""
    from rich.console import Console

    return Console(highlight=False)


def escaped(text: str) -> str:
    """A text whose brackets are no markup."""
    from rich.markup import escape

    return escape(text)


def params_text(params: Any, *, one_line: bool = False) -> str:
    """A configuration for people: a text as it is, anything else as JSON."""
    text = params if isinstance(params, str) else json.dumps(params, default=repr, ensure_ascii=False)
    return " ".join(text.split()) if one_line else text


def numbers(values: Sequence[float]) -> str:
    """Scores for people."""
    return "  ".join(f"{value:.6g}" for value in values)


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def ago(created: str) -> str:
    """The moment a run was begun, for people."""
    return created[:16].replace("T", " ")
