"""The table of results: its columns, its rows, and its form as CSV.

One row an evaluation. Numbers are written so that reading gives the same ones; a failure has empty
score cells; `params` is JSON.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray._types.enums import INVALID_SCORE
from ciq_ray.errors import ResultError
from searchers.outcome import OK, STATUSES

if TYPE_CHECKING:
    from ciq_ray.utils.validation import Score

__all__ = [
    "METRICS",
    "clean",
    "csv_header",
    "csv_line",
    "make_row",
    "raw_columns",
    "read_csv",
    "score_names",
    "table_columns",
]

_SCORE: Final = re.compile(r"(norm_)?score(_[0-9]+)?")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_TEXTS: Final = ("metadata", "status", "message")
_NAN: Final = math.nan
METRICS: Final = (
    "tflops",
    "gbs",
    "peak_percent",
    "registers",
    "spill_stores",
    "spill_loads",
    "shared",
)
"""Further columns, of a search of a kernel; `ciq_ray.kernels.figures` says more."""


def raw_columns(num_scores: int, prefix: str = "score") -> list[str]:
    """The columns of the scores: ``score``, or ``score_0``, ``score_1``, ... of several."""
    return [prefix] if num_scores == 1 else [f"{prefix}_{position}" for position in range(num_scores)]


def score_names(columns: Iterable[Any]) -> list[str]:
    """Those of some columns that hold scores, raw or normalized."""
    return [name for name in columns if isinstance(name, str) and _SCORE.fullmatch(name)]


def table_columns(num_scores: int, normalized: bool) -> list[str]:
    """All columns, in order."""
    norm = raw_columns(num_scores, "norm_score") if normalized else []
    return ["generation", "param_id", *raw_columns(num_scores), *norm, "params", *_TEXTS]


def make_row(
    score: Score, generation: int, num_scores: int, normalize: bool, status: str | None, message: str
) -> dict[str, Any]:
    """One row; a failure, also one that only `status` tells of, has NaN for scores.

    Raises:
        ResultError: The score is not one of `num_scores` objectives, or the status is unknown.
    """
    if score.num_objectives != num_scores:
        raise ResultError(
            f"`score` has {score.num_objectives} objectives; these results have {num_scores} for each row"
        )
    if status is not None and status not in STATUSES:
        raise ResultError(f"`status` is {status!r}; it must be one of {', '.join(STATUSES)}")
    if status in (None, OK):
        status = "invalid_result" if score.failed else OK
    failed = status != OK
    row: dict[str, Any] = {"generation": generation, "param_id": score.param_id}
    row.update(zip(raw_columns(num_scores), _numbers(score.score, num_scores, failed), strict=True))
    if normalize:
        norm = _numbers(score.norm_score, num_scores, failed)
        row.update(zip(raw_columns(num_scores, "norm_score"), norm, strict=True))
    row.update(params=score.params, metadata=score.metadata, status=status, message=message)
    return row


def _numbers(values: Any, count: int, failed: bool) -> list[float]:
    if failed or values is None or values == INVALID_SCORE:
        return [_NAN] * count
    listed = values if isinstance(values, (list, tuple)) else [values]
    return [_NAN if value == INVALID_SCORE else float(value) for value in listed]


def csv_header(columns: Iterable[str]) -> bytes:
    """The first line."""
    return _line(columns)


def csv_line(columns: Iterable[str], values: Iterable[Any], lost: set[str]) -> bytes:
    """The line of one row.

    Args:
        columns: Their names, in order.
        values: The row's values, in the same order.
        lost: Gets the names of the types of parameter values that had no JSON form.
    """
    return _line(_cell(name, value, lost) for name, value in zip(columns, values, strict=True))


def _line(cells: Iterable[str]) -> bytes:
    quoted = [f'"{c.replace(chr(34), chr(34) * 2)}"' if _NEEDS_QUOTES(c) else c for c in cells]
    return (",".join(quoted) + "\n").encode("utf-8", "backslashreplace")


_NEEDS_QUOTES: Final = re.compile(r'[",\r\n]').search


def _cell(name: str, value: Any, lost: set[str]) -> str:
    if name == "params":
        return _params_json(value, lost)
    if _is_missing(value):
        return ""
    if isinstance(value, float):
        return repr(float(value))
    return str(value)


def _params_json(params: Any, lost: set[str]) -> str:
    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):  # NumPy's
            return value.tolist()
        lost.add(type(value).__name__)
        return repr(value)

    try:
        return json.dumps(params, default=plain)
    except (TypeError, ValueError, RecursionError):
        lost.add(type(params).__name__)
        return json.dumps(repr(params))


def read_csv(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV file, checked and converted as `clean` does.

    Raises:
        ResultError: The file cannot be read or is not a table of results; the message says where.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    limit = csv.field_size_limit(sys.maxsize)  # the text of a compiler's options may be long
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            if header is None:
                raise ResultError(f"{path} is empty; a table of results has at least a header line")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ResultError(
                        f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}"
                    )
                lines.append(reader.line_num)
                rows.append(row)
    except UnicodeDecodeError as error:
        raise ResultError(f"{path} is not UTF-8 text, so no table of results") from error
    except csv.Error as error:
        raise ResultError(f"{path}, line {reader.line_num}: {error}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ResultError):
            raise
        raise ResultError(f"cannot read {str(path)!r}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ResultError(f"{path} has the column {twice!r} twice")
    columns: dict[str, list[Any]] = {
        name: [row[position] for row in rows] for position, name in enumerate(header)
    }
    for index in ("", "Unnamed: 0"):  # what pandas writes for an index
        columns.pop(index, None)
    known = {"generation", "params", *_TEXTS, *score_names(columns)}
    for name, cells in columns.items():
        if name == "param_id":
            columns[name] = _integers(cells) or cells  # an id such as 12e4 is no number
        elif name not in known:
            columns[name] = _guessed(cells, numbers=name in METRICS)
    return clean(columns, lambda row: f"{path}, line {lines[row]}", params_are_json=True)


def _guessed(cells: list[str], *, numbers: bool) -> list[Any]:
    """Integers or numbers if every cell is one, else text; what empty cells alone are, `numbers` says."""
    try:
        found = [float(cell) if cell else _NAN for cell in cells] if numbers or any(cells) else None
    except ValueError:
        found = None
    return _integers(cells) or found or cells


def _integers(cells: list[str]) -> list[int] | None:
    return [int(cell) for cell in cells] if all(map(_INTEGER.fullmatch, cells)) else None


def clean(
    columns: Mapping[str, Sequence[Any]], place: Callable[[int], str], *, params_are_json: bool
) -> dict[str, list[Any]]:
    """Check the columns of a table of results, and convert their cells.

    Args:
        columns: Cells by column, as text or as values.
        place: Where a row is, for messages.
        params_are_json: Whether `params` must be JSON texts; else they are taken for JSON only if
            all of them are.

    Returns:
        All columns; the known ones converted, and those that may be missing added.

    Raises:
        ResultError: A column is missing, or a cell cannot be what its column is for.
    """
    for needed in ("generation", "params"):
        if needed not in columns:
            raise ResultError(
                f"the column {needed!r} is missing; a table of results has generation, params and score "
                f"(or score_0, score_1, ...); this one has {', '.join(map(str, columns)) or 'none'}"
            )
    scores = score_names(columns)
    _check_scores(scores)
    count = len(columns["params"])

    def convert(name: str, function: Callable[[Any], Any], what: str) -> list[Any]:
        cells = []
        for row, value in enumerate(columns[name]):
            try:
                cells.append(function(value))
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise ResultError(f"{place(row)}: {name!r} is {_short(value)}, which is no {what}") from error
        return cells

    table: dict[str, list[Any]] = {name: list(cells) for name, cells in columns.items()}
    table["generation"] = convert("generation", _integer, "whole number")
    table.setdefault("param_id", list(range(count)))
    for name in scores:
        table[name] = convert(name, _score, 'number, nor "*" or empty for a failure')
    if params_are_json or _all_json(columns["params"]):
        table["params"] = convert("params", _params_from_json, "JSON text of a parameter set")
    else:
        table["params"] = convert("params", _params, "parameter set: a dict, a text or a list of these")
    for name in _TEXTS:
        if name in columns:
            table[name] = convert(name, _text, "text")
    if "status" not in table:
        passed = zip(*(map(math.isfinite, table[name]) for name in scores), strict=True)
        table["status"] = ["ok" if all(row) else "invalid_result" for row in passed]
    for name in _TEXTS:
        table.setdefault(name, [""] * count)
    wanted = table_columns(_count_of(scores), any(name.startswith("norm_") for name in scores))
    return {name: table[name] for name in [*wanted, *(name for name in table if name not in wanted)]}


def _count_of(scores: Iterable[str]) -> int:
    return sum(not name.startswith("norm_") for name in scores)


def _check_scores(names: Sequence[str]) -> None:
    count = _count_of(names)
    raw = raw_columns(count) if count else []
    norm = raw_columns(count, "norm_score") if count else []
    if not count or set(names) not in ({*raw}, {*raw, *norm}):
        raise ResultError(
            f"the score columns are {', '.join(names) or 'missing'}; there must be score, or score_0, "
            "score_1, ... without a gap, and as many norm_score ones or none"
        )


def _number(value: Any) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise TypeError
    return float(value)


def _integer(value: Any) -> int:
    number = _number(value)
    if not number.is_integer() or abs(number) > 2**53:
        raise ValueError
    return int(number)


def _score(value: Any) -> float:
    if _is_missing(value) or (isinstance(value, str) and value in ("", INVALID_SCORE)):
        return _NAN
    number = _number(value)
    return number if math.isfinite(number) else _NAN


def _is_missing(value: Any) -> bool:
    """``None``, NaN, or the like of pandas."""
    if isinstance(value, str):
        return False
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("<NA>", "NaT")


def _params_from_json(value: str) -> Any:
    params = json.loads(value)
    if not isinstance(params, (dict, str, list)):
        raise TypeError
    return params


def _all_json(cells: Sequence[Any]) -> bool:
    try:
        return all(isinstance(cell, str) and _params_from_json(cell) is not None for cell in cells)
    except (TypeError, ValueError, RecursionError):
        return False


def _params(value: Any) -> Any:
    if not isinstance(value, (dict, str, list)):
        raise TypeError
    return value


def _text(value: Any) -> str:
    return "" if _is_missing(value) else str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
