"""What importing costs, and what is exported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ciq_ray
import searchers

HEAVY = (
    "ray",
    "mlflow",
    "torch",
    "pymoo",
    "matplotlib",
    "plotly",
    "sklearn",
    "pandas",
    "pydantic",
    "loguru",
    "tqdm",
    "scipy",
)


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ciq_ray",
        "import searchers",
        "import ciq_ray, searchers; dir(ciq_ray), dir(searchers), ciq_ray.__version__",
        "from searchers import Space, Range; Space({'x': Range(0, 9)}, ['x > 3']).size",
        "import ciq_ray.errors, ciq_ray.journal, ciq_ray.settings, ciq_ray.engine, ciq_ray.worker.child",
    ],
)
def test_light_things_load_nothing_heavy(code):
    assert not set(HEAVY) & modules_after(code)


def test_search_loads_no_ray_before_it_starts():
    loaded = modules_after("from ciq_ray import Search, SearchConfiguration, WorkerTypes")
    assert not {"ray", "mlflow", "torch", "pymoo", "plotly", "sklearn", "pandas"} & loaded


def test_searchers_know_no_ciq_ray():
    loaded = modules_after("import searchers\nfor name in searchers.__all__: getattr(searchers, name)")
    assert "searchers.genetic" in loaded
    assert not {name for name in loaded if name.split(".")[0] == "ciq_ray"}


def test_names_of_ciq_ray():
    assert sorted(ciq_ray.__all__) == [
        "CiqError",
        "INVALID_SCORE",
        "ObjectiveFailure",
        "Search",
        "SearchConfiguration",
        "SearchResult",
        "WorkerTypes",
        "__version__",
    ]


def test_names_of_searchers():
    assert sorted(searchers.__all__) == [
        "AutoSearch",
        "BayesianSearch",
        "Boolean",
        "Candidate",
        "Choice",
        "ConfigError",
        "ConstraintError",
        "DESurrogateHybrid",
        "DifferentialEvolutionSearch",
        "FAILURES",
        "FiniteSearch",
        "GeneticSearch",
        "InitialPopulationStrategy",
        "LFBOPatternSearch",
        "LFBOTreeSearch",
        "ListOf",
        "Literal",
        "LogRange",
        "OptionError",
        "Outcome",
        "PatternSearch",
        "Permutation",
        "PowerOfTwo",
        "RandomSearch",
        "Range",
        "STATUSES",
        "SearcherError",
        "Space",
        "SpaceError",
        "SpaceSearcher",
        "StateError",
        "compute_leaf_similarity",
        "create",
    ]


@pytest.mark.parametrize("package", [ciq_ray, searchers])
def test_every_exported_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)


@pytest.mark.parametrize("package", [ciq_ray, searchers])
def test_unknown_name(package):
    with pytest.raises(AttributeError, match="has no attribute 'Serch'"):
        package.Serch  # noqa: B018
