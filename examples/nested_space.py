"""Choose between three ways to convolve an image, each with parameters of its own.

A search space may hold further dicts. `when` makes a parameter exist only where it means something, so that
two configurations that differ in nothing real are never both tried; constraints read nested parameters as
`tile["rows"]`. Each result is compared with a reference before it is timed: a wrong one is a failure of the
kind "wrong", from which the search learns.

    python examples/nested_space.py --generations 4
"""

import argparse
import functools
import time
from typing import Any

from ciq_ray import ObjectiveFailure, Search, SearchConfiguration
from searchers import Choice, PowerOfTwo, Space

N = 256
TAPS = 9

SPACE = Space(
    {
        "method": Choice(["shifts", "windows", "fft"]),
        "tile": {
            "rows": PowerOfTwo(4, 256, when='method != "fft"'),
            "columns": PowerOfTwo(4, 256, when='method != "fft"'),
        },
        "fft": {
            "length": Choice(["exact", "even", "power_of_two"], when='method == "fft"'),
            "precision": Choice(["single", "double"], when='method == "fft"'),
        },
    },
    # the windows of a tile are copied, TAPS * TAPS numbers for each of its elements
    constraints=[
        'method == "fft" or tile["rows"] * tile["columns"] >= 1024',
        'method != "windows" or tile["rows"] * tile["columns"] <= 16384',
    ],
    default={"method": "shifts", "tile": {"rows": 256, "columns": 256}, "fft": {}},
)


@functools.cache
def problem() -> tuple[Any, Any, Any]:
    """Image, filter and the result to compare with."""
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.random((N + TAPS - 1, N + TAPS - 1))
    taps = rng.random((TAPS, TAPS)) / TAPS**2
    return image, taps, by_shifts(image, taps, N, N)


def by_shifts(image: Any, taps: Any, rows: int, columns: int) -> Any:
    """Add up shifted images, a tile at a time."""
    import numpy as np

    result = np.zeros((N, N))
    for i in range(0, N, rows):
        for j in range(0, N, columns):
            tile = result[i : i + rows, j : j + columns]
            height, width = tile.shape
            for di in range(TAPS):
                for dj in range(TAPS):
                    tile += taps[di, dj] * image[i + di : i + di + height, j + dj : j + dj + width]
    return result


def by_windows(image: Any, taps: Any, rows: int, columns: int) -> Any:
    """Gather the window of each element of a tile, then one matrix product."""
    import numpy as np

    windows = np.lib.stride_tricks.sliding_window_view(image, (TAPS, TAPS))
    result = np.empty((N, N))
    for i in range(0, N, rows):
        for j in range(0, N, columns):
            tile = windows[i : i + rows, j : j + columns]
            gathered = tile.reshape(-1, TAPS * TAPS)
            result[i : i + rows, j : j + columns] = (gathered @ taps.ravel()).reshape(tile.shape[:2])
    return result


def by_fft(image: Any, taps: Any, length: str, precision: str) -> Any:
    """Multiply in the frequency domain."""
    import numpy as np

    exact = len(image)
    size = {"exact": exact, "even": exact + exact % 2, "power_of_two": 1 << (exact - 1).bit_length()}[length]
    kind = np.float32 if precision == "single" else np.float64
    spectrum = np.fft.rfft2(image.astype(kind), (size, size))
    spectrum *= np.fft.rfft2(taps[::-1, ::-1].astype(kind), (size, size))
    full = np.fft.irfft2(spectrum, (size, size))
    return full[TAPS - 1 : TAPS - 1 + N, TAPS - 1 : TAPS - 1 + N]


def convolution_ms(config: dict[str, Any]) -> float:
    """The objective: milliseconds for one convolution."""
    import numpy as np

    image, taps, expected = problem()
    if config["method"] == "fft":
        run = functools.partial(by_fft, image, taps, **config["fft"])
    else:
        run = functools.partial(
            by_shifts if config["method"] == "shifts" else by_windows, image, taps, **config["tile"]
        )
    error = float(np.abs(run() - expected).max())
    if error > 1e-5:
        raise ObjectiveFailure("wrong", f"off by {error:.1e}")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generations", type=int, default=4, help="of 16 candidates each (default: 4)")
    parser.add_argument("--workers", type=int, default=1, help="evaluations at once (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="what the random choices start from")
    arguments = parser.parse_args()

    result = Search(
        objective_function=convolution_ms,
        search_space=SPACE,
        search_config=SearchConfiguration(generations=arguments.generations, pool_size=16),
        seed=arguments.seed,
    ).start(num_workers=arguments.workers, task_timeout=30)

    table = result.get_results()
    methods = table["params"].map(lambda params: params["method"])
    print(f"{len(table)} of {SPACE.size} configurations tried; the best of each method:\n")
    for method in ("shifts", "windows", "fft"):
        rows = table[(methods == method) & (table["status"] == "ok")]
        if len(rows):
            row = rows.loc[rows["score"].idxmin()]
            part = row["params"]["fft" if method == "fft" else "tile"]
            print(f"  {method:<8} {row['score']:7.2f} ms  {part}")
    default = table[table["params"].map(lambda params: params == SPACE.default)].iloc[0]
    best = result.get_best_result()
    print(f"\ndefault   {default['score']:7.2f} ms  {default['params']}")
    print(f"best      {best['score']:7.2f} ms  {best['params']}")


if __name__ == "__main__":
    main()
