"""What a searcher evaluates before it has learnt anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from searchers.encoding import Matrix
from searchers.errors import OptionError
from searchers.space import Space

__all__ = ["InitialPopulation", "InitialPopulationStrategy"]


class InitialPopulationStrategy(StrEnum):
    """Where an initial population comes from. Configurations given as `initial_configs` go first in each."""

    FROM_RANDOM = "from_random"
    """Random configurations; those of `initial_configs` count as members."""
    FROM_DEFAULT = "from_default"
    """The space's default configuration and no random ones."""
    FROM_BEST_AVAILABLE = "from_best_available"
    """The default configuration and `initial_configs`, which is where whoever keeps a cache of earlier
    results puts the best of it (up to 20). Where there is neither, random configurations."""


@dataclass(frozen=True)
class InitialPopulation:
    """A strategy and a size, checked.

    Attributes:
        strategy: Where the members come from.
        size: How many there are, if random ones are among them.
        filled: Whether what is missing FROM_BEST_AVAILABLE is filled up with random configurations, for
            an algorithm that needs a population of full size.
    """

    strategy: InitialPopulationStrategy
    size: int
    filled: bool = False

    @classmethod
    def of(
        cls,
        strategy: InitialPopulationStrategy | str | None,
        size: int,
        space: Space | None,
        *,
        n_given: int,
        filled: bool = False,
    ) -> InitialPopulation:
        """Check what a searcher's constructor is given.

        Args:
            strategy: The strategy or its text; ``None`` for FROM_RANDOM.
            size: See `InitialPopulation`.
            space: The space, if it is known already.
            n_given: How many `initial_configs` there are.
            filled: See `InitialPopulation`.

        Raises:
            OptionError: There is no such strategy, or it starts from a default the space does not have.
        """
        try:
            known = InitialPopulationStrategy("from_random" if strategy is None else strategy)
        except ValueError as error:
            raise OptionError(
                f"`initial_population_strategy` is {strategy!r}; it must be None or one of "
                f"{', '.join(InitialPopulationStrategy)}"
            ) from error
        population = cls(known, size, filled)
        if space is not None:
            population.missing(space, n_given)
        return population

    def missing(self, space: Space, n_given: int) -> tuple[Matrix, int]:
        """What has to be proposed once the `n_given` initial configurations are.

        Returns:
            Rows, shape (0 or 1, columns), and the number of random ones after them.

        Raises:
            OptionError: The strategy starts from a default the space does not have.
        """
        none = np.empty((0, space.encoding.n_columns), dtype=np.int32)
        rows = none if space.default_row is None else space.default_row[None, :]
        n_known = n_given + len(rows)
        if self.strategy is InitialPopulationStrategy.FROM_RANDOM:
            return none, max(0, self.size - n_given)
        if self.strategy is InitialPopulationStrategy.FROM_DEFAULT:
            if not n_known:
                raise OptionError(
                    "`initial_population_strategy` is 'from_default', but the space has no default; give "
                    "Space(..., default=...) or `initial_configs`"
                )
            return rows, 0
        return rows, max(0, self.size - n_known) if self.filled or not n_known else 0
