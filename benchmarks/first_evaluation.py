"""A script as a user writes it; `benchmarks.startup` starts it and reads when its objective first ran."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import choice, range


def objective(config: dict[str, Any], seen: Path = Path(sys.argv[-1])) -> float:
    """Note the time of the first call."""
    now = time.time()
    try:
        with seen.open("x", encoding="utf-8") as file:
            file.write(repr(now))
    except FileExistsError:
        pass
    return float(config["tile"] + config["unroll"])


def main() -> None:
    """Search among 30 configurations."""
    search = Search(
        objective_function=objective,
        search_space={"tile": choice([8, 16, 32, 64, 128]), "unroll": range(1, 6, 1)},
        search_config=SearchConfiguration(generations=1, pool_size=8, cull_size=4),
        disable_progress_bar=True,
    )
    search.start(num_workers=2)


if __name__ == "__main__":
    main()
