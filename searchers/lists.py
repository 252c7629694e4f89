"""Parameters whose values are lists."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from searchers.errors import SpaceError
from searchers.param import Param
from searchers.params import Literal
from searchers.values import first_repeated, is_count

__all__ = ["ListOf", "Permutation"]


class Permutation(Param):
    """An order of some items, as a list.

    Levels number the orders lexicographically (the factorial number system). Neighbours are the
    orders in which two adjacent items have changed places.

    Args:
        items: The items, all different, or a number n for ``0 .. n-1``; at most 12.
        knockout_prob: See `Param`.
        when: See `Param`.
        important: See `Param`.

    Raises:
        SpaceError: No items, too many, or one of them twice.
    """

    kind = "permutation"
    ordered = False

    def __init__(
        self,
        items: int | Sequence[Any],
        *,
        knockout_prob: float | None = None,
        when: str | None = None,
        important: bool = False,
    ) -> None:
        super().__init__(knockout_prob=knockout_prob, when=when, important=important)
        if isinstance(items, Integral) and not isinstance(items, bool):
            if not 1 <= int(items) <= 12:
                raise SpaceError(f"`items` is {items}; a permutation has 1 to 12 items")
            items = list(range(int(items)))
        if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
            raise SpaceError(f"`items` is {items!r}; it must be a list, or how many there are")
        if not 1 <= len(items) <= 12:
            raise SpaceError(f"`items` has {len(items)} entries; a permutation has 1 to 12 items")
        twice = first_repeated(list(items))
        if twice is not None:
            raise SpaceError(f"`items` holds {items[twice]!r} twice; each item may appear once")
        self.items = list(items)
        self.n_levels = math.factorial(len(self.items))

    def value(self, level: int) -> list[Any]:
        """The order with this number."""
        rest, order = list(self.items), []
        for left in range(len(self.items) - 1, -1, -1):
            position, level = divmod(level, math.factorial(left))
            order.append(rest.pop(position))
        return order

    def level(self, value: Any) -> int:
        """The number of this order."""
        rest, level = list(self.items), 0
        if isinstance(value, (list, tuple)) and len(value) == len(rest):
            for item in value:
                matches = [i for i, other in enumerate(rest) if type(other) is type(item) and other == item]
                if not matches:
                    break
                level = level * len(rest) + matches[0]
                rest.pop(matches[0])
            else:
                return level
        raise self._refuse(value)

    def neighbours(self, level: int, radius: int = 1) -> list[int]:
        """Orders that `radius` or fewer swaps of adjacent items lead to."""
        seen, frontier = {level}, {level}
        for _ in range(radius):
            reached = set()
            for current in frontier:
                order = self.value(current)
                for left in range(len(order) - 1):
                    swapped = [*order[:left], order[left + 1], order[left], *order[left + 2 :]]
                    reached.add(self.level(swapped))
            frontier = reached - seen
            seen |= reached
        return sorted(seen - {level})

    def _fields(self) -> dict[str, Any]:
        return {"items": self.items}


class ListOf:
    """`length` parameters of the same kind, given to the objective as one list.

    Args:
        param: The kind of each element; it cannot itself be absent.
        length: How many elements.
        knockout_prob: How often an initial candidate lacks the whole list.
        important: Marks `param`: see `Param`.

    Raises:
        SpaceError: `length` is not a positive whole number, or `param` is not a parameter that is
            always there.
    """

    kind = "list_of"

    def __init__(
        self, param: Param, length: int, *, knockout_prob: float | None = None, important: bool = False
    ) -> None:
        if not isinstance(param, Param):
            raise SpaceError(f"`param` is {param!r}; it must be a parameter such as PowerOfTwo(16, 128)")
        if param.knockout_prob is not None or param.when is not None:
            raise SpaceError(
                "`param` has `knockout_prob` or `when`; give `knockout_prob` to the ListOf itself"
            )
        if not is_count(length):
            raise SpaceError(f"`length` is {length!r}; it must be a whole number, at least 1")
        Literal(0, knockout_prob=knockout_prob, important=important)  # checks them
        if important and not param.important:
            param = copy.copy(param)  # it may be used elsewhere, too
            param.important = True
        self.param, self.length, self.knockout_prob = param, int(length), knockout_prob

    def to_dict(self) -> dict[str, Any]:
        """As `Param.to_dict`."""
        data: dict[str, Any] = {"type": self.kind, "param": self.param.to_dict(), "length": self.length}
        if self.knockout_prob is not None:
            data["knockout_prob"] = self.knockout_prob
        return data

    def __repr__(self) -> str:
        return f"ListOf({self.param!r}, {self.length}, knockout_prob={self.knockout_prob!r})"
