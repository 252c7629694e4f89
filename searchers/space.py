"""A search space: which configurations there are, and which of them are alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchers.constraints import Constraint
from searchers.encoding import Encoding, Matrix, Path, expression_name
from searchers.enumeration import Combinations, combinations, enumerate_states
from searchers.errors import ConfigError, ConstraintError, SpaceError
from searchers.tune_domains import from_domain, is_domain

__all__ = ["Space"]

logger = logging.getLogger(__name__)

ENUMERATION_LIMIT = 1 << 20
"""Spaces with more valid configurations than this are sampled, not enumerated."""

_SAMPLE_BATCH = 1024
_SAMPLE_BATCHES = 64
_SAMPLE_PROBES = 8192
"""If none of this many random rows is valid, drawing at random is not tried any more."""

ConstraintSource = str | Callable[[Any], Any]


class Space:
    """The configurations a search chooses from.

    Args:
        parameters: A dict from names to parameters (`Range`, `Choice`, ...), to further dicts, to
            lists of parameters or to other spaces; or a list of such parts, and then a configuration
            is a list of parts too. Ray Tune's domains are accepted in place of parameters.
        constraints: Expressions over parameter names (``"BLOCK_M * stages <= 512"``, nested ones as
            ``outer["inner"]``), or callables that take a configuration and return whether it is
            allowed. In both, a parameter that is knocked out is ``None`` or missing.
        default: The configuration in use today, if there is one. A value between those of a
            logarithmic range is replaced by the nearest, with a word in the log.
        render: What to make of a configuration before the objective gets it, for example a text; it
            may have a method ``parse`` that goes back.

    Attributes:
        parameters: As given.
        size: Number of valid configurations when they can be enumerated (up to about a million),
            else ``None``.
        encoding: The integer matrix behind it.

    Raises:
        SpaceError: A parameter or name cannot be used, or the default is not a member.
        ConstraintError: A constraint cannot be understood or evaluated, or nothing satisfies it.
    """

    def __init__(
        self,
        parameters: Any,
        constraints: Sequence[ConstraintSource] = (),
        default: Any = None,
        *,
        render: Callable[[Any], Any] | None = None,
    ) -> None:
        if isinstance(constraints, str) or callable(constraints):
            constraints = [constraints]
        if not isinstance(constraints, Iterable):
            raise ConstraintError(f"`constraints` is {constraints!r}; it must be a list")
        self.parameters = _with_tune_domains(parameters)
        self.constraint_sources = list(constraints)
        self.default = default
        self.render = render
        root = Encoding(self) if render is not None else Encoding(self.parameters)
        self.encoding = root
        self._scopes = _scopes(self)
        self._conditions = self._build_conditions()
        self._constraints = self._build_constraints()
        self._implied = self._build_implied()
        self._rows: Matrix | None = None
        self._combinations: Combinations | None = None
        self._drawing_works = True
        self._keys: npt.NDArray[np.uint64] | None = None
        self._by_key: npt.NDArray[np.int64] | None = None
        self.size: int | None = self._count()
        self._has_seeds = bool(root.n_bits) or any(
            leaf.param.seed_levels() != (0, leaf.param.n_levels - 1) for leaf in root.leaves
        )
        self.default_row: Matrix | None = None if default is None else self._check_default(default)

    # -- construction -----------------------------------------------------------------------------

    def _build_conditions(self) -> dict[int, Constraint]:
        conditions = {}
        for j, leaf in enumerate(self.encoding.leaves):
            if leaf.param.when is None:
                continue
            scope = max((p for p, _ in self._scopes if leaf.path[: len(p)] == p), key=len)
            condition = Constraint.build(leaf.param.when, self.encoding.sub_tree(scope), self.encoding.leaves)
            later = [k for k in condition.leaves or () if k >= j]
            if later:
                raise ConstraintError(
                    f"`when` of {leaf.name} is {leaf.param.when!r}, which reads "
                    f"{self.encoding.leaves[later[0]].name}; it may only read parameters declared earlier"
                )
            conditions[j] = condition
        return conditions

    def _build_constraints(self) -> list[Constraint]:
        built = []
        for path, space in self._scopes:
            for source in space.constraint_sources:
                if callable(source) and path:
                    source, tree = _Scoped(source, path), self.encoding.tree
                else:
                    tree = self.encoding.sub_tree(path)
                built.append(Constraint.build(source, tree, self.encoding.leaves))
        return built

    def _build_implied(self) -> list[Constraint]:
        """What conditions and shared bits mean for states, as constraints for the enumeration."""
        texts = []
        for j, condition in self._conditions.items():
            leaf = self.encoding.leaves[j]
            scope = max((p for p, _ in self._scopes if leaf.path[: len(p)] == p), key=len)
            name = expression_name(leaf.path[len(scope) :])
            if leaf.bit is None:
                text = f"({name} is not None) == (True if ({condition.text}) else False)"
            else:
                text = f"({name} is None) or ({condition.text})"
            texts.append((text, scope))
        first_of: dict[int, str] = {}
        for leaf in self.encoding.leaves:
            if leaf.bit is None:
                continue
            name = expression_name(leaf.path)
            first = first_of.setdefault(leaf.bit, name)
            if first != name:
                texts.append((f"({first} is None) == ({name} is None)", ()))
        return [
            Constraint.build(text, self.encoding.sub_tree(scope), self.encoding.leaves)
            for text, scope in texts
        ]

    def _count(self) -> int | None:
        if not self._constraints and not self._implied:
            product = math.prod(leaf.n_states for leaf in self.encoding.leaves)
            return product if product <= ENUMERATION_LIMIT else None
        self._enumerate()
        if self._rows is not None:
            return len(self._rows)
        self._combinations = combinations(self.encoding.leaves, [*self._implied, *self._constraints])
        rng = np.random.default_rng(0)
        drawn = self.valid(self._draw(_SAMPLE_PROBES, rng, None)).any()
        self._drawing_works = bool(drawn) or self._combinations is None
        self.sample(1, rng)  # refuses the space if nothing can be found
        return None

    def _check_default(self, default: Any) -> Matrix:
        try:
            row = self.encode(default, nearest=True)
        except ConfigError as error:
            raise SpaceError(f"`default` is not a member of the space: {error}") from error
        inactive = self.inactive(row[None, :])[0]
        self.default = self.encoding.decode(row.tolist(), inactive.tolist(), raw=True)
        if self.default != default and not self.encoding.renders:
            logger.warning(
                "the default %r lies between the values of a logarithmic range; the nearest is %r",
                default,
                self.default,
            )
        return row

    # -- enumeration ------------------------------------------------------------------------------

    @property
    def rows(self) -> Matrix | None:
        """All valid rows, canonical and in lexicographic order, or ``None`` for a larger space."""
        if self._rows is None and self.size is not None:
            self._enumerate()
        return self._rows

    def _enumerate(self) -> None:
        states = enumerate_states(
            self.encoding.leaves,
            [*self._implied, *self._constraints],
            self._config_of_states,
            limit=ENUMERATION_LIMIT,
        )
        if states is None:
            return
        self._rows = self.encoding.rows(states)
        keys = self.encoding.keys(self._rows)
        order = np.argsort(keys, kind="stable")
        self._by_key, self._keys = order.astype(np.int64), keys[order]

    def _config_of_states(self, states: npt.NDArray[Any]) -> Any:
        row = self.encoding.rows(states[None, :])[0]
        inactive = states >= self.encoding.n_levels[: self.encoding.n_parameters]
        return self.encoding.decode(row.tolist(), inactive.tolist(), raw=True)

    def index_of(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Positions in `rows` of the rows with these keys, -1 where there is none."""
        if self.rows is None or self._keys is None or self._by_key is None:
            raise SpaceError("this space is too large to be enumerated: rows have no positions")
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._by_key[places], -1)

    # -- rows -------------------------------------------------------------------------------------

    def inactive(self, rows: Matrix) -> npt.NDArray[np.bool_]:
        """Which parameters are absent: knocked out, or under a condition that is off; (n, n_parameters)."""
        out = self.encoding.knocked_out(rows)
        for j, condition in self._conditions.items():
            holds = condition.holds(self.encoding.states(rows, out), self._config_of_states)
            out[:, j] |= ~holds
        return out

    def canonical(self, rows: Matrix) -> Matrix:
        """`rows` with 0 in every inactive gene: equal rows are equal configurations."""
        if not self.encoding.n_bits and not self._conditions:
            return rows
        out = self.inactive(rows)
        canonical = rows.copy()
        canonical[:, : self.encoding.n_parameters][out] = 0
        self.encoding.set_bits(canonical, out)  # under a condition that is off, a bit says nothing
        return canonical

    def keys(self, rows: Matrix) -> npt.NDArray[np.uint64]:
        """A 64-bit hash of each row's configuration, the same in every process."""
        return self.encoding.keys(self.canonical(rows))

    def valid(self, rows: Matrix) -> npt.NDArray[np.bool_]:
        """Which rows satisfy every constraint."""
        if not self._constraints or not len(rows):
            return np.ones(len(rows), dtype=bool)
        if self._rows is not None:
            return np.asarray(self.index_of(self.keys(rows)) >= 0)
        states = self.encoding.states(rows, self.inactive(rows))
        valid = np.ones(len(rows), dtype=bool)
        for constraint in self._constraints:
            left = np.flatnonzero(valid)
            if not len(left):
                break
            valid[left] = constraint.holds(states[left], self._config_of_states)
        return valid

    def sample(self, n: int, rng: np.random.Generator, *, seed_share: float | None = None) -> Matrix:
        """`n` random valid rows; the same one may come twice.

        Args:
            n: How many.
            rng: Where randomness comes from.
            seed_share: How many of them, as a fraction, take their values from seed ranges; ``None``
                for none. Knockout bits are 1 with their probability in any case.

        Raises:
            ConstraintError: No valid row was found.
        """
        # a space with neither is enumerated when somebody wants its rows, which must not change what is drawn
        always = self._constraints or self._implied
        if self._rows is not None and always and not self._has_seeds:
            return self._rows[rng.integers(len(self._rows), size=n)]
        found: list[Matrix] = []
        count = 0
        if self._drawing_works:
            batch = n if not self._constraints else max(n, _SAMPLE_BATCH)
            for _ in range(_SAMPLE_BATCHES):
                rows = self._draw(batch, rng, seed_share)
                found.append(rows[self.valid(rows)])
                count += len(found[-1])
                if count >= n:
                    return np.concatenate(found)[:n]
        if self._rows is not None:
            found.append(self._rows[rng.integers(len(self._rows), size=n - count)])
            return np.concatenate(found)
        if self._combinations is not None:  # valid, but for functions that have to be called
            for _ in range(_SAMPLE_BATCHES):
                rows = self.encoding.rows(self._combinations.draw(max(n - count, _SAMPLE_BATCH), rng))
                found.append(rows[self.valid(rows)])
                count += len(found[-1])
                if count >= n:
                    return np.concatenate(found)[:n]
        if not count:
            names = "; ".join(constraint.text for constraint in self._constraints)
            raise ConstraintError(
                f"no configuration that satisfies the constraints ({names}) was found by drawing, and there "
                "are too many to try them all; narrow the ranges, or give constraints as expressions"
            )
        known = np.concatenate(found)
        return known[rng.integers(len(known), size=n)]

    def _draw(self, n: int, rng: np.random.Generator, seed_share: float | None) -> Matrix:
        encoding = self.encoding
        low: npt.NDArray[Any] = np.zeros(encoding.n_parameters, dtype=np.int32)
        high = encoding.n_levels[: encoding.n_parameters] - 1
        if seed_share is not None:
            seeded = rng.random((n, 1)) < seed_share
            seeds = np.array([leaf.param.seed_levels() for leaf in encoding.leaves])
            low, high = np.where(seeded, seeds[:, 0], low), np.where(seeded, seeds[:, 1], high)
        levels = rng.integers(low, high, size=(n, encoding.n_parameters), endpoint=True)
        bits = rng.random((n, encoding.n_bits)) < encoding.bit_probabilities
        return np.concatenate([levels, bits], axis=1).astype(np.int32)

    def neighbours(self, row: Matrix, radius: int = 1) -> Matrix:
        """Valid rows that differ from `row` in one parameter, by at most `radius` levels.

        A knocked-out parameter's neighbours are its return with each of its values.
        """
        encoding = self.encoding
        base = np.asarray(row, dtype=np.int32)
        rows = []
        out = self.inactive(base[None, :])[0]
        for j, leaf in enumerate(encoding.leaves):
            if out[j]:
                if leaf.bit is None or not base[leaf.bit]:
                    continue  # under a condition that is off: nothing would change
                levels = list(range(min(leaf.param.n_levels, 1024)))
            else:
                levels = leaf.param.neighbours(int(base[j]), radius)
            for level in levels:
                changed = base.copy()
                changed[j] = level
                if leaf.bit is not None:
                    changed[leaf.bit] = 0
                rows.append(changed)
        for bit in sorted({leaf.bit for leaf in encoding.leaves if leaf.bit is not None}):
            if not base[bit]:
                changed = base.copy()
                changed[bit] = 1
                rows.append(changed)
        if not rows:
            return np.empty((0, encoding.n_columns), dtype=np.int32)
        matrix = np.array(rows)
        matrix = matrix[self.valid(matrix)]
        keys = self.keys(matrix)
        _, first = np.unique(keys, return_index=True)
        kept = np.sort(first)
        own = self.keys(base[None, :])[0]
        result: Matrix = matrix[kept[keys[kept] != own]]
        return result

    # -- configurations ---------------------------------------------------------------------------

    def decode(self, row: Sequence[int] | Matrix) -> Any:
        """What the objective gets for a row, made anew at each call."""
        levels = row.tolist() if isinstance(row, np.ndarray) else list(row)
        if not self.encoding.n_bits and not self._conditions:
            inactive = [False] * self.encoding.n_parameters
        else:
            inactive = self.inactive(np.array([levels], dtype=np.int32))[0].tolist()
        return self.encoding.decode(levels, inactive)

    def encode(self, config: Any, *, nearest: bool = False) -> Matrix:
        """The row of a configuration.

        Args:
            config: The configuration.
            nearest: Take a value between those of a logarithmic range for the nearest one.

        Raises:
            ConfigError: It is not a member of this space, or breaks a constraint.
        """
        row, present = self.encoding.encode(config, nearest)
        inactive = self.inactive(row[None, :])[0]
        for j in np.flatnonzero(present == inactive):
            leaf = self.encoding.leaves[j]
            if present[j]:
                raise ConfigError(f"{leaf.name} is given, but its condition is off: {leaf.param.when}")
            raise ConfigError(f"the configuration has no {leaf.name}, which cannot be absent")
        for constraint in self._constraints:
            states = self.encoding.states(row[None, :], inactive[None, :])
            if not constraint.holds(states, self._config_of_states)[0]:
                raise ConfigError(f"{config!r} breaks the constraint {constraint.text}")
        return row

    def default_config(self) -> Any:
        """The default as the objective gets it; without one, a configuration that says nothing."""
        return self.empty_config() if self.default_row is None else self.decode(self.default_row)

    def empty_config(self) -> Any:
        """A configuration that says nothing, in the form the objective gets: ``{}``, or ``""`` for text."""
        renders = self.encoding.renders
        if () in renders:
            return ""
        if isinstance(self.encoding.tree, list):
            return ["" if (i,) in renders else {} for i in range(len(self.encoding.tree))]
        return {}

    @property
    def names(self) -> list[str]:
        """The parameters' names, nested ones as ``outer["inner"]``."""
        return [leaf.name for leaf in self.encoding.leaves]

    # -- identity ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data from which `from_dict` makes an equal space.

        Raises:
            SpaceError: A value, a constraint or `render` is an object of yours that JSON cannot hold.
        """
        from searchers.files import space_to_dict

        return space_to_dict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Space:
        """The inverse of `to_dict`; the form is described in `searchers.files`.

        Raises:
            SpaceError: `data` is not such data; the message says where.
        """
        from searchers.files import space_from_dict

        return space_from_dict(data)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that defines the space, 16 hexadecimal digits, stable across processes."""
        from searchers.files import fingerprint

        return fingerprint(self)

    def __repr__(self) -> str:
        size = f"{self.size} configurations" if self.size is not None else "too large to enumerate"
        return f"<Space of {len(self.encoding.leaves)} parameters, {size}>"


class _Scoped:
    """A part's constraint, called with the whole configuration."""

    def __init__(self, function: Callable[[Any], Any], path: Path) -> None:
        self.function, self.path = function, path
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__wrapped__ = function

    def __call__(self, config: Any) -> Any:
        for key in self.path:
            config = config[key]
        return self.function(config)


def _scopes(space: Space) -> list[tuple[Path, Space]]:
    """The space itself and every space inside it, with the path that leads there."""
    found: list[tuple[Path, Space]] = [((), space)]

    def visit(node: Any, path: Path) -> None:
        if isinstance(node, Space):
            found.append((path, node))
            node = node.parameters
        if isinstance(node, Mapping):
            for name, child in node.items():
                visit(child, (*path, name))
        elif isinstance(node, (list, tuple)):
            for position, child in enumerate(node):
                visit(child, (*path, position))

    visit(space.parameters, ())
    return found


def _with_tune_domains(node: Any) -> Any:
    if is_domain(node):
        return from_domain(node)
    if isinstance(node, Mapping):
        return {name: _with_tune_domains(child) for name, child in node.items()}
    if isinstance(node, (list, tuple)):
        return [_with_tune_domains(child) for child in node]
    return node
