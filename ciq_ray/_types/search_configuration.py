"""How a search behaves."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BeforeValidator, Field, Strict, model_validator

from ciq_ray._model import Model
from ciq_ray._types import legacy as legacy_text
from ciq_ray._types.enums import ProblemType
from ciq_ray.errors import ConfigurationError, UnsupportedError
from searchers import effort

__all__ = ["InternalSearchConfiguration", "SearchConfiguration"]

_MAX_FILE_BYTES: Final = 1 << 20


def _as_problem_type(value: Any) -> Any:
    return ProblemType(value) if isinstance(value, str) and value in set(ProblemType) else value


_Bool = Annotated[bool, Strict()]
_Int = Annotated[int, Strict(), Field(le=2**31 - 1)]
_Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]


class SearchConfiguration(Model):
    """Supported values to configure your search behavior.

    Attributes:
        problem_type: Whether it is a minimization or a maximization problem: a `ProblemType`,
            ``"min"`` or ``"max"``.
        normalize: Whether scores are divided by those of a baseline. Mostly recommended for searches
            on several machines or GPUs.
        num_objectives: How many scores the objective function returns; at least 1.
        generations: The number of search iterations to run before halting; at least 1. The larger
            this value, the more solutions are evaluated, but it may also lead to better results.
        pool_size: The batch size of evaluations for each search iteration; above 5. ``None`` for one
            that follows from the number of objectives, see `resolved_pool_size`.
        cull_size: The number of parents in a given generation that become the progenitors of the
            next one; even, above 1 and below the pool size. The rest of the pool survives into the
            next generation. ``None`` for one that follows from the pool size, see
            `resolved_cull_size`.
        mutate_rate: The chance a sampled candidate is perturbed between iterations; above 0, below 1.
        objective_weights: For a search with several objectives, how much each of them matters: one
            number above 0 for each. Only their ratios count; they shape the algorithm's reference
            directions. ``None`` for equal ones.
        init_with_true_random_threshold: The share of the initial candidates, from 0 to 1, that take
            their values from between ``seed_low`` and ``seed_high``; the others take theirs from the
            normal range. With the default of 0.9, 90% come from the seed range and 10% from start to
            end. ``None`` takes all from the normal range.
        enable_large_fail_pool: A generation in which fewer than 20% of the solutions pass is not
            over: if true, a batch of the size of an entire pool is submitted in addition, else only
            the minimal number of samples that this generation needs to pass.

    Raises:
        ConfigurationError: A field has a value it cannot have, is missing, or is unknown. Numbers
            must be numbers: neither ``"10"`` nor ``True`` is taken for one.
    """

    problem_type: Annotated[ProblemType, BeforeValidator(_as_problem_type)] = ProblemType.MIN
    normalize: _Bool = False
    num_objectives: Annotated[_Int, Field(gt=0)] = 1
    generations: Annotated[_Int, Field(gt=0)]
    pool_size: Annotated[_Int, Field(gt=5)] | None = None
    cull_size: Annotated[_Int, Field(gt=1, multiple_of=2)] | None = None
    mutate_rate: Annotated[_Float, Field(gt=0.0, lt=1.0)] = 0.25
    objective_weights: list[Annotated[_Float, Field(gt=0.0)]] | None = None
    init_with_true_random_threshold: Annotated[_Float, Field(ge=0.0, le=1.0)] | None = 0.9
    enable_large_fail_pool: _Bool = True

    _unsupported: ClassVar[tuple[str, ...]] = ("dna_config", "enable_result_file")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.cull_size is not None and self.cull_size >= self.resolved_pool_size:
            raise ValueError(
                f"`cull_size` is {self.cull_size}; it must be below `pool_size`, which is "
                f"{self.resolved_pool_size}"
            )
        weights = self.objective_weights
        if weights is not None and len(weights) != self.num_objectives:
            raise ValueError(
                f"`objective_weights` has {len(weights)} weights; `num_objectives` is {self.num_objectives}: "
                "give one weight for each objective"
            )
        return self

    @property
    def resolved_pool_size(self) -> int:
        """`pool_size`, or ``16 * (num_objectives + 1)`` if it is ``None``: 32 for one objective."""
        return effort.pool_size(self.num_objectives) if self.pool_size is None else self.pool_size

    @property
    def resolved_cull_size(self) -> int:
        """`cull_size`, or half the pool, rounded down to an even number, if it is ``None``."""
        return effort.cull_size(self.resolved_pool_size) if self.cull_size is None else self.cull_size

    def to_json_dict(self) -> dict[str, Any]:
        """Convert the configuration into a dictionary of plain JSON values, all fields in it."""
        return self.model_dump(mode="json")

    def to_legacy(self) -> str:
        """Convert the configuration into the legacy format, all fields in it.

        Returns:
            One ``(name value)`` for each field, on a line of its own. The grammar is that of
            `from_legacy`.
        """
        return legacy_text.dumps(self.to_json_dict())

    @classmethod
    def from_legacy(cls, legacy: str) -> Self:
        r"""Convert the legacy, Lisp-like format into a configuration.

        Grammar::

            text    = { "(" name value ")" }
            name    = a field's name
            value   = number | "true" | "false" | "none" | string | "(" { value } ")"
            string  = a JSON string, in double quotes

        Blanks and line ends separate; ``;`` starts a comment that ends with its line. A list, as
        `objective_weights` is one, is its values in parentheses.

        Fields that are not available here are ignored, with a warning.

        Raises:
            ConfigurationError: The text is malformed (the message says in which line and column), or
                a field has a value it cannot have.
            UnsupportedError: The text sets a field that is known and not supported here:
                `dna_config`, `enable_result_file`.
        """
        if not isinstance(legacy, str):
            raise ConfigurationError(f"`legacy` is {legacy!r}; it must be the text of a configuration")
        fields = legacy_text.loads(legacy)
        refused = [name for name in cls._unsupported if name in fields]
        if refused:
            raise UnsupportedError(
                f"`{refused[0]}` is set by the search itself and not supported in a configuration: "
                "take it out of the text"
            )
        unknown = [name for name in fields if name not in cls.model_fields]
        if unknown:
            warnings.warn(
                f"ignored, since {cls.__name__} has no such field: {', '.join(unknown)}", stacklevel=2
            )
        return cls(**{name: value for name, value in fields.items() if name in cls.model_fields})

    @classmethod
    def load(cls, source: SearchConfiguration | Mapping[str, Any] | str | os.PathLike[str]) -> Self:
        """Make a configuration of whatever describes one.

        Args:
            source: A configuration, a dictionary of its fields, or the path of a ``.config`` file
                that holds either a JSON object or the legacy text.

        Raises:
            ConfigurationError: It describes none, or a file cannot be read.
            UnsupportedError: See `from_legacy`.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, SearchConfiguration):
            return cls(**dict(source))
        if isinstance(source, Mapping):
            return cls._from_mapping(source, "the dictionary")
        if isinstance(source, (str, os.PathLike)):
            text = _read(source)
            try:
                if text.lstrip()[:1] == "{":
                    return cls._from_mapping(_json_object(text), "the file")
                return cls.from_legacy(text)
            except ConfigurationError as error:
                raise ConfigurationError(f"{os.fspath(source)}: {error}") from error
        raise ConfigurationError(
            f"a search configuration cannot be made of {source!r}; use a SearchConfiguration, a dictionary "
            "of its fields, or the path of a file"
        )

    @classmethod
    def _from_mapping(cls, fields: Mapping[Any, Any], what: str) -> Self:
        for name in fields:
            if not isinstance(name, str):
                raise ConfigurationError(f"{what} has the key {name!r}; keys must be the names of fields")
        return cls(**fields)


class InternalSearchConfiguration(SearchConfiguration):
    """A search configuration with the fields that the search sets by itself; not for users.

    Attributes:
        dna_config: The search space, or one for each part of it.
        enable_result_file: Whether a result file is written.
    """

    dna_config: str | list[str] = ""
    enable_result_file: _Bool = False

    _unsupported: ClassVar[tuple[str, ...]] = ()


def _read(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    try:
        file = Path(name)
        if not file.is_file():
            raise ConfigurationError(f"there is no configuration file {name!r}")
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{name} has more than {_MAX_FILE_BYTES} bytes: no configuration file")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{name} is not UTF-8 text: no configuration file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cannot read the configuration file {name!r}: {error}") from error


def _json_object(text: str) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigurationError(f"`{twice}` appears for the second time")
        return fields

    try:
        value: dict[str, Any] = json.loads(text, object_pairs_hook=without_repeats, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"not a configuration in JSON: {error}") from error
    return value


def _refuse(constant: str) -> float:
    raise ConfigurationError(f"{constant} is not a number that a configuration can hold")
