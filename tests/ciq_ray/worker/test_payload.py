"""What reaches a worker process: helpers under `functools.cache`, which cloudpickle alone leaves behind."""

import functools
import pickle
import subprocess
import sys
import tokenize

from ciq_ray.worker.payload import Pickler

SCRIPT = """
import functools
from ciq_ray import Search, SearchConfiguration
from searchers import Range

@functools.cache
def table():
    return {n: n * n for n in range(10)}

@functools.lru_cache(maxsize=3)
def steps(n):
    return 0 if n == 0 else 1 + steps(n - 1)

def objective(config):
    return table()[config["x"]] + steps(config["x"]) + (steps.cache_parameters()["maxsize"] != 3)

if __name__ == "__main__":
    result = Search(
        objective_function=objective,
        search_space={"x": Range(2, 9)},
        search_config=SearchConfiguration(generations=1),
        disable_progress_bar=True,
    ).start(num_workers=1)
    print(result.get_best_result()["score"])
"""


def test_cached_helpers_of_the_script_go_along_also_recursive_ones(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == 2 * 2 + 2


def test_a_cache_goes_along_empty():
    calls = []

    @functools.cache
    def helper(x):
        calls.append(x)
        return x + 1

    helper(1)
    copy = pickle.loads(Pickler(lambda config: helper(config)).function)
    assert copy(1) == 2
    assert calls == [1]  # the copy has a list of its own
    assert copy.__closure__[0].cell_contents.cache_info().misses == 1


def test_a_cached_function_of_a_module_goes_by_name():
    assert pickle.loads(Pickler(tokenize._compile).function) is tokenize._compile
