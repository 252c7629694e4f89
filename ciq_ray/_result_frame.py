"""Tables of results as pandas data frames: checked, made from rows, looked into."""

from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ciq_ray._result_table import clean, score_names, table_columns
from ciq_ray.errors import ResultError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cleaned", "columns_of", "key_of", "load_pandas", "plain", "reasons"]


def load_pandas() -> ModuleType:
    """Loaded here and not with this module: it takes longer than all else a search starts with."""
    import pandas

    return pandas


def cleaned(df: pd.DataFrame) -> pd.DataFrame:
    """A copy whose columns are those of a table of results, with their types.

    Raises:
        ResultError: It is no such table.
    """
    if not isinstance(df, load_pandas().DataFrame):
        raise ResultError(f"`df` is a {type(df).__name__}; it must be a pandas DataFrame")
    if not df.columns.is_unique:
        raise ResultError("`df` has a column twice")
    df = df.reset_index(drop=True)
    given = {name: df[name].tolist() for name in df.columns}
    columns: dict[str, Any] = dict(clean(given, lambda row: f"row {row} of the table", params_are_json=False))
    known = set(table_columns(1, False)) - {"param_id"} | set(score_names(columns))
    for name in columns:
        if name in df.columns and name not in known:
            columns[name] = df[name]  # a column that is none of ours keeps its type
    table: pd.DataFrame = load_pandas().DataFrame(columns)
    return table


def columns_of(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """Score columns are floats also when there are no rows, or none that has them."""
    table: dict[str, Any] = {name: [row.get(name, np.nan) for row in rows] for name in columns}
    table["generation"] = np.array(table["generation"], dtype=np.int64)
    for name in score_names(columns):
        table[name] = np.array(table[name], dtype=np.float64)
    return table


def key_of(params: Any) -> str:
    """Equal for equal parameters: the order of names does not count, the types of values do."""
    try:
        return json.dumps(params, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(params)


def plain(value: Any) -> Any:
    """A cell as a value of Python."""
    return value.item() if isinstance(value, np.generic) else value


def reasons(table: pd.DataFrame) -> str:
    """The most frequent kind of failure, with its first message."""
    if "status" not in table.columns:
        return ""
    status = str(table["status"].mode().iloc[0])
    first = table[table["status"] == status].iloc[0]
    message = str(first.get("message", "")).strip().splitlines()
    return f", most of them with {status}" + (f": {message[0][:200]}" if message else "")
