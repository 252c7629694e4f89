"""Ray Tune's domains: each value it can draw is one of ours, and the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray import tune

from searchers import Choice, Literal, Range, SpaceError
from searchers.tune_domains import CONTINUOUS_LEVELS, from_domain, from_param_space


def values(domain: Any) -> list[Any]:
    param = from_domain(domain)
    return [param.value(level) for level in range(param.n_levels)]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (tune.choice(["x", (1, 2), None]), ["x", (1, 2), None]),
        (tune.grid_search([1, 2]), [1, 2]),
        (tune.randint(1, 4), [1, 2, 3]),
        (tune.randint(3, 4), [3]),
        (tune.qrandint(0, 20, 5), [0, 5, 10, 15, 20]),
        (tune.qrandint(1, 10, 4), [4, 8]),
        (tune.qrandint(1, 5, 1), [1, 2, 3, 4]),
        (tune.quniform(0, 1, 0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (tune.uniform(2, 2), [2]),
        (tune.lograndint(5, 6), [5]),
        (tune.qlograndint(10, 30, 10), [10, 20, 30]),
    ],
)
def test_values(domain: Any, expected: list[Any]) -> None:
    assert values(domain) == expected


@pytest.mark.parametrize(
    "domain",
    [
        tune.randint(-3, 3),
        tune.qrandint(3, 17, 5),
        tune.quniform(-1, 1, 0.5),
        tune.quniform(0.1, 0.7, 0.1),
    ],
)
def test_what_ray_tune_draws_is_what_there_is(domain: Any) -> None:
    drawn = domain.sample(size=500, random_state=np.random.default_rng(0))
    assert sorted({round(value, 9) for value in drawn}) == [round(value, 9) for value in values(domain)]


@pytest.mark.parametrize(
    "domain", [tune.loguniform(1e-4, 1e-1), tune.qloguniform(0.01, 100, 0.01), tune.lograndint(1, 10**6)]
)
def test_logarithmic_domains_are_evenly_spaced(domain: Any) -> None:
    found = values(domain)
    assert 2 < len(found) <= CONTINUOUS_LEVELS
    assert found == sorted(found)
    assert found[0] == pytest.approx(domain.lower)
    assert found[-1] == pytest.approx(domain.upper, rel=1e-5)
    steps = np.diff(np.log(found[len(found) // 2 :]))
    assert steps.max() < 1.3 * steps.min()


def test_continuous_domains_are_cut_evenly() -> None:
    found = values(tune.uniform(0, 1))
    assert (found[0], found[-1], len(found)) == (0.0, 1.0, CONTINUOUS_LEVELS)
    assert np.allclose(np.diff(found), 1 / 64)


def test_a_whole_param_space() -> None:
    tree = from_param_space(
        {"a": {"b": tune.randint(0, 3)}, "list": [tune.choice([1, 2]), 5], "constant": [1, 2], "text": "x"}
    )
    assert isinstance(tree["a"]["b"], Range)
    assert [type(part) for part in tree["list"]] == [Choice, Literal]
    assert tree["constant"].value(0) == [1, 2]
    assert tree["text"].value(0) == "x"


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (tune.randn(0, 1), "Normal"),
        (tune.qrandn(0, 1, 0.5), "Normal"),
        (tune.sample_from(lambda _: 1), "Function"),
        (tune.choice([1, tune.uniform(0, 1)]), "inside a choice"),
        (tune.choice([{"a": tune.uniform(0, 1)}]), "inside a choice"),
        (tune.grid_search([tune.uniform(0, 1)]), "inside a choice"),
        (tune.qrandint(1, 3, 5), "no value"),
        (
            tune.randint(0, 2**40),
            "Integer domain from 0 to 1099511627776 has more than the 2147483647 values",
        ),
        (tune.qrandint(0, 2**40, 2), "Integer domain from 0 to 1099511627776 has more than the 2147483647"),
        (tune.quniform(0, 1e6, 1e-5), r"Float domain from 0 to 1000000\.0 has more than the 2147483647"),
    ],
)
def test_what_has_no_values_is_refused(domain: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        from_domain(domain)
