"""Recorded landscapes: the file, the space it makes, and the scores."""

from __future__ import annotations

import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.landscape import Landscape, aggregate
from searchers import ConfigError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "landscapes"
HEADER = "tile,kind,status,time_ms,std_ms,compile_s\n"
SMALL = HEADER + (
    "16,row,ok,2.0,0.1,1.0\n"
    "2,row,ok,1.0,,0.004\n"
    "16,col,compile_error,,,3.0\n"
    "4,col,wrong,,,\n"
    "4,row,ok,5.0,0.5,2.0\n"
)


@pytest.fixture
def load(tmp_path):
    def write(text, name="small.csv"):
        (tmp_path / name).write_text(text)
        return Landscape.load(tmp_path / name)

    return write


class TestLoad:
    def test_what_is_in_the_file(self, load):
        land = load(SMALL)
        assert (land.name, land.parameters, len(land)) == ("small", ("tile", "kind"), 5)
        assert land.keys[0] == (16, "row")
        assert land.statuses == ("ok", "ok", "compile_error", "wrong", "ok")
        np.testing.assert_array_equal(land.times, [2.0, 1.0, math.nan, math.nan, 5.0])
        np.testing.assert_array_equal(land.deviations, [0.1, 0, 0, 0, 0.5])
        assert (land.optimum, land.worst) == (1.0, 5.0)

    def test_cache_hits_and_gaps_take_the_median_of_real_compilations(self, load):
        np.testing.assert_array_equal(load(SMALL).compile_s, [1.0, 2.0, 3.0, 2.0, 2.0])

    def test_nothing_was_compiled(self, load):
        assert load("x,status,time_ms,std_ms,compile_s\n1,ok,1,,\n2,ok,2,,0\n").compile_s.tolist() == [0, 0]

    def test_the_space_has_the_rows_and_no_others(self, load):
        land = load(SMALL)
        assert land.space.size == 5
        for key in itertools.product((2, 4, 16), ("row", "col")):
            config = dict(zip(land.parameters, key, strict=True))
            if key in land.keys:
                assert land.keys[land.row(config)] == key
                land.space.encode(config)
            else:
                assert land.find(key) is None
                with pytest.raises(ConfigurationError, match="is not in small"):
                    land.row(config)
                with pytest.raises(ConfigError):
                    land.space.encode(config)

    def test_numbers_are_sorted_and_ordered_and_text_is_not(self, load):
        tile, kind = (leaf.param for leaf in load(SMALL).space.encoding.leaves)
        assert (tile.choices, tile.ordered) == ([2, 4, 16], True)
        assert (kind.choices, kind.ordered) == (["row", "col"], False)

    def test_switches_stay_numbers_and_mixtures_become_text(self, load):
        land = load("on,r,m,status,time_ms,std_ms,compile_s\n0,1,1,ok,1,,\n1,2.5,x,ok,2,,\n")
        assert [repr(value) for value in land.keys[1]] == ["1", "2.5", "'x'"]
        assert [repr(value) for value in land.keys[0]] == ["0", "1.0", "'1'"]

    def test_odd_names_values_and_layout(self, load):
        land = load(
            '\ufeffstatus, a b ,config,"x""y",time_ms,std_ms,compile_s\n'
            'ok,1,"it\'s",u,1,,\n\nok,2,"say ""no""",v,2,,\nok,1,é,v,3,,\n'
        )
        assert land.parameters == ("a b", "config", 'x"y')
        assert land.space.size == len(land) == 3

    def test_the_space_knows_its_rows_in_every_process(self, load):
        land = load(SMALL)
        less = load(SMALL.replace("4,row,ok,5.0,0.5,2.0\n", ""), "less.csv")
        assert less.space.fingerprint != land.space.fingerprint
        assert pickle.loads(pickle.dumps(land)).space.fingerprint == land.space.fingerprint

    def test_a_product_too_large_to_walk_through(self, load):
        """60 million combinations, of which what pairs exclude leaves 1,500."""
        chains = [(start,) for start in range(6)]
        for _ in range(9):
            chains = [(*c, n) for c in chains for n in (c[-1], c[-1] + 1) if n < 6]
        names = [f"p{i}" for i in range(10)]
        lines = [",".join(map(str, [*chain, "ok", 1 + i, "", ""])) for i, chain in enumerate(chains)]
        land = load(",".join([*names, "status,time_ms,std_ms,compile_s"]) + "\n" + "\n".join(lines) + "\n")
        assert land.space.size == len(chains)

    @pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.stem)
    def test_the_landscapes_of_the_benchmarks(self, path):
        land = Landscape.load(path)
        assert land.space.size == len(land) == len(path.read_text().splitlines()) - 1
        assert np.nanmin(land.times) > 0
        assert (land.compile_s >= 0.01).all()
        assert {leaf.param.ordered for leaf in land.space.encoding.leaves} <= {True, False}


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            (HEADER, "has a header and no rows"),
            ("tile,status,time_ms,std_ms\n1,ok,1,1\n", "has no column 'compile_s'"),
            ("status,time_ms,std_ms,compile_s\nok,1,1,1\n", "has no parameters, only status"),
            (
                "a," + HEADER + "1,1,x,fine,1,1,1\n",
                "line 2: `status` is 'fine'; it must be one of ok, compile",
            ),
            (HEADER + "1,x,throttled,1,1,1\n", "`status` is 'throttled'"),
            (HEADER + "1,x,ok,1,1,1\n\n1,x,ok,2,1,1\n", "line 4: the configuration of line 2 again"),
            (HEADER + "1,x,ok,1,1,1\n1.0,x,ok,2,1,1\n", "line 3: the configuration of line 2 again"),
            (HEADER + "1,x,ok,fast,1,1\n", "line 2: `time_ms` is 'fast', which is no number"),
            (
                HEADER + "1,x,ok,,1,1\n",
                "line 2: `time_ms` is ''; where `status` is 'ok' it must be more than 0",
            ),
            (HEADER + "1,x,ok,0,1,1\n", "line 2: `time_ms` is '0'"),
            (HEADER + "1,x,ok,nan,1,1\n", "line 2: `time_ms` is 'nan'; it must be a finite number"),
            (
                HEADER + "1,x,ok,1,-1,1\n",
                "line 2: `std_ms` is '-1'; it must be a finite number of at least 0",
            ),
            (HEADER + "1,x,wrong,,,inf\n", "line 2: `compile_s` is 'inf'"),
            (HEADER + "1,x,ok,1\n", "line 2 has 4 columns; the header has 6"),
            (HEADER + "1,x,wrong,,,\n", "has no row whose `status` is 'ok'"),
            ("tile,tile," + HEADER + "1,1,1,x,ok,1,1,1\n", "line 1 has the column 'tile' twice"),
            (",kind" + HEADER[9:] + "1,x,ok,1,1,1\n", "line 1 has no name for column 1"),
            (HEADER + '1,"x,ok,1,1,1\n', "cannot be read as CSV"),
        ],
    )
    def test_with_the_file_and_the_line(self, load, text, message):
        with pytest.raises(ConfigurationError) as refused:
            load(text)
        assert message in str(refused.value)
        assert "small.csv" in str(refused.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"none\.csv cannot be read: No such file or directory$"):
            Landscape.load(tmp_path / "none.csv")
        with pytest.raises(ConfigurationError, match=r"cannot be read: Is a directory$"):
            Landscape.load(tmp_path)

    def test_no_text(self, tmp_path):
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigurationError, match="cannot be read as CSV"):
            Landscape.load(tmp_path / "binary.csv")


class TestScores:
    def test_random_search_by_trying_all_draws(self, load):
        land = load(SMALL)
        times = [2.0, 1.0, 5.0, 5.0, 5.0]  # failures count as the worst
        for budget, found in enumerate(land.expected_best(5), 1):
            draws = [min(draw) for draw in itertools.combinations(times, budget)]
            assert found == pytest.approx(np.mean(draws))

    def test_random_search_over_many_rows_against_exact_numbers(self):
        land = Landscape.load(FOLDER / "hub_gemm_RTX3090.csv")
        times, rows = sorted(land.times.tolist()), len(land)
        found = land.expected_best(400)
        assert (np.diff(found) < 0).all()
        for budget in (1, 50, 400):
            total = math.comb(rows, budget)
            exact = sum(
                time * (math.comb(rows - i - 1, budget - 1) / total) for i, time in enumerate(times[:4000])
            )
            beyond = math.comb(rows - 4000, budget) / total
            assert exact * (1 - 1e-12) <= found[budget - 1] <= (exact + beyond * times[-1]) * (1 + 1e-12)

    def test_all_rows(self, load):
        land = load(SMALL)
        assert land.expected_best(5)[-1] == land.optimum
        for budget in (0, 6):
            with pytest.raises(ConfigurationError, match="has 1 to 5 evaluations"):
                land.expected_best(budget)

    def test_zero_is_random_search_and_one_the_optimum(self, load):
        land = load(SMALL)
        expected = land.expected_best(3)
        np.testing.assert_allclose(land.scores(expected), 0.0)
        np.testing.assert_allclose(land.scores([1.0, 1.0, 1.0]), 1.0)
        half = (expected + land.optimum) / 2
        np.testing.assert_allclose(land.scores(half), 0.5)

    def test_no_success_is_as_bad_as_the_worst(self, load):
        land = load(SMALL)
        np.testing.assert_array_equal(land.scores([math.nan] * 3), land.scores([5.0] * 3))
        assert land.scores([math.nan])[0] < 0

    def test_many_searches_at_once(self, load):
        land = load(SMALL)
        curves = np.array([[5.0, 2.0], [math.nan, 1.0]])
        np.testing.assert_array_equal(land.scores(curves), [land.scores(curve) for curve in curves])

    def test_nothing_to_gain(self, load):
        land = load(HEADER + "1,x,ok,3,,\n2,x,ok,3,,\n")
        assert land.scores([3.0, 3.0]).tolist() == [1.0, 1.0]

    def test_aggregate(self):
        scores = np.concatenate([np.full(9, -7.0), [0.0, 0.5, 1.0]])
        assert aggregate(scores) == pytest.approx(0.5)
        assert np.isnan(aggregate(scores[:9]))
        assert aggregate(np.stack([scores, scores + 1])).tolist() == pytest.approx([0.5, 1.5])
