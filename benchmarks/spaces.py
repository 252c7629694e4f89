"""The spaces that are searched: a kernel's, and mixed ones of any size."""

from __future__ import annotations

from typing import Any

import searchers

_KERNEL_CONSTRAINTS = (
    "(BLOCK_M + BLOCK_N) * BLOCK_K * stages * 2 <= 16000",
    "BLOCK_M * BLOCK_N >= 1024 * warps",
    "split == 1 or BLOCK_M * BLOCK_N <= 4096",
    "group * BLOCK_M <= 512",
    lambda c: c["vec"] <= 2 or c["order"] == "row",
)


def kernel() -> searchers.Space:
    """Ten parameters of a tiled matrix product and what they must satisfy: 20,480 configurations."""
    return searchers.Space(
        {
            "BLOCK_M": searchers.PowerOfTwo(16, 256),
            "BLOCK_N": searchers.PowerOfTwo(16, 256),
            "BLOCK_K": searchers.PowerOfTwo(16, 128),
            "stages": searchers.Range(1, 5, step=1),
            "warps": searchers.PowerOfTwo(1, 16),
            "group": searchers.Range(1, 4, step=1),
            "order": searchers.Choice(["row", "col"]),
            "fast_math": searchers.Boolean(),
            "split": searchers.PowerOfTwo(1, 8),
            "vec": searchers.PowerOfTwo(1, 4),
        },
        constraints=_KERNEL_CONSTRAINTS,
    )


def mixed(n_parameters: int) -> searchers.Space:
    """Half numbers, a quarter categories, a quarter flags; see `mixed_variables` for the same in pymoo."""
    parameters: dict[str, Any] = {}
    for i in range(n_parameters):
        if i % 2 == 0:
            parameters[f"p{i}"] = searchers.Range(0, 31, step=1)
        elif i % 4 == 1:
            parameters[f"p{i}"] = searchers.Choice(["a", "b", "c", "d"])
        else:
            parameters[f"p{i}"] = searchers.Boolean()
    return searchers.Space(parameters)


def mixed_variables(n_parameters: int) -> dict[str, Any]:
    """`mixed` in pymoo's terms."""
    from pymoo.core.variable import Binary, Choice, Integer

    variables: dict[str, Any] = {}
    for i in range(n_parameters):
        if i % 2 == 0:
            variables[f"p{i}"] = Integer(bounds=(0, 31))
        elif i % 4 == 1:
            variables[f"p{i}"] = Choice(options=["a", "b", "c", "d"])
        else:
            variables[f"p{i}"] = Binary()
    return variables
