from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.gpu.runtime import INITS
from ciq_ray.gpu.timing import measure

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "bool")


@pytest.fixture
def host() -> HostRuntime:
    return HostRuntime(flush_bytes=1 << 16)


class TestArrays:
    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    @pytest.mark.parametrize("init", INITS)
    def test_each_type_and_filling(self, host: HostRuntime, dtype: str, init: str) -> None:
        array = host.array((5, 3), dtype, init, 1)
        assert (array.shape, array.dtype.name) == ((5, 3), dtype)
        assert array.flags.c_contiguous
        assert host.pointer(array) == array.__array_interface__["data"][0]

    def test_the_seed_decides(self, host: HostRuntime) -> None:
        first, same, other = (host.array((50,), "float32", "normal", seed) for seed in (3, 3, 4))
        assert host.difference(first, same, 0, 0) == ""
        assert host.difference(first, other, 0.1, 0.1) != ""

    def test_integers_have_both_signs_and_are_small(self, host: HostRuntime) -> None:
        array = host.array((1000,), "int32", "integers", 0)
        assert (array.min(), array.max()) == (-8, 7)
        assert host.array((1000,), "uint8", "integers", 0).max() == 15

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (((2,), "float31", "zeros", 0), "dtype"),
            (((2,), "bfloat16", "zeros", 0), "dtype"),
            (((2,), "float32", "noise", 0), "init"),
            (((2, -1), "float32", "zeros", 0), "shape"),
        ],
    )
    def test_what_cannot_be_made(self, host: HostRuntime, arguments: Any, named: str) -> None:
        with pytest.raises(ConfigurationError, match=f"`{named}`"):
            host.array(*arguments)

    def test_a_copy_is_its_own(self, host: HostRuntime) -> None:
        array = host.array((4, 4), "float32", "arange", 0)
        copy = host.copy(array.T)
        assert copy.flags.c_contiguous
        host.assign(array, copy)
        assert array[0].tolist() == [0, 4, 8, 12]
        array[0] = 0
        assert copy[0].tolist() == [0, 4, 8, 12]


class TestPoison:
    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    def test_differs_from_what_any_kernel_writes(self, host: HostRuntime, dtype: str) -> None:
        for init in INITS:
            written = host.array((64,), dtype, init, 0)
            poisoned = host.copy(written)
            host.poison(poisoned)
            assert host.difference(poisoned, written, 0.01, 0.01).startswith("64 of 64 elements differ")


class TestDifference:
    def differ(
        self, actual: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0, *, dtype: Any = None
    ) -> str:
        return HostRuntime(1).difference(np.array(actual, dtype), np.array(expected, dtype), rtol, atol)

    def test_says_how_many_and_the_worst(self) -> None:
        text = self.differ([[1.0, 2.0], [3.0, 9.0]], [[1.0, 2.5], [3.0, 4.0]])
        assert text == "2 of 4 elements differ, the worst at (1, 1): 9.0 instead of 4.0"

    def test_of_one(self) -> None:
        assert self.differ([1.0], [2.0]) == "1 of 1 element differs, the worst at (0): 1.0 instead of 2.0"

    def test_tolerances_add_up(self) -> None:
        assert self.differ([10.2], [10.0], rtol=0.01, atol=0.11) == ""
        assert self.differ([10.2], [10.0], rtol=0.01, atol=0.05) != ""

    @pytest.mark.parametrize("tolerance", [0.0, 0.1, 1e9])
    def test_nan_and_infinity_equal_themselves_only(self, tolerance: float) -> None:
        odd = [np.nan, np.inf, -np.inf]
        assert self.differ(odd, odd, tolerance, tolerance) == ""
        for actual in odd:
            for expected in (*odd, 1.0):
                same = repr(actual) == repr(expected)
                assert (self.differ([actual], [expected], tolerance, tolerance) == "") is same
        assert self.differ([1.0], [np.inf], tolerance, tolerance) != ""
        assert self.differ([1.0], [np.nan], tolerance, tolerance) != ""

    def test_nan_is_worse_than_any_number(self) -> None:
        text = self.differ([1e30, np.nan, 0.0], [0.0, 1.0, 0.0])
        assert text == "2 of 3 elements differ, the worst at (1): nan instead of 1.0"

    def test_large_integers_are_compared_exactly(self) -> None:
        assert self.differ([2**62 + 1], [2**62], dtype=np.int64) != ""

    def test_half_precision_does_not_overflow(self) -> None:
        assert self.differ([60000.0], [-60000.0], 0.5, 0.5, dtype=np.float16) != ""

    def test_shapes(self) -> None:
        assert self.differ([1.0, 2.0], [1.0]) == "the shape is (2,) instead of (1,)"
        assert self.differ([], []) == ""
        assert self.differ(1.0, 2.0) == "1 of 1 element differs, the worst at (): 1.0 instead of 2.0"

    def test_finds_the_worst_of_a_large_array(self) -> None:
        expected = np.zeros(9_000_000, np.int8)
        actual = expected.copy()
        actual[[5, 8_999_999]] = (3, 4)
        text = HostRuntime(1).difference(actual, expected, 0, 0)
        assert text.startswith("2 of 9000000 elements differ, the worst at (8999999): 4")


class TestClock:
    def test_measures_what_passes(self, host: HostRuntime) -> None:
        begin, end = host.event(), host.event()
        begin.record()
        host.flush()
        end.record()
        assert 0 < host.elapsed_ms(begin, end) < 10_000

    def test_a_flush_changes_the_whole_buffer(self, host: HostRuntime) -> None:
        host.flush()
        before = host._buffer.copy()
        host.flush()
        assert (host._buffer != before).all()

    def test_a_real_function_is_measured(self, host: HostRuntime) -> None:
        array = host.array((100_000,), "float64", "normal", 0)
        timing = measure(lambda: np.sort(array).sum(), runtime=host, budget_ms=20)
        assert (timing.timer, timing.regime, timing.blocked) == ("host", "cold", False)
        assert 0 < timing.median_ms < 1000

    def test_has_a_name(self, host: HostRuntime) -> None:
        assert host.name
        assert host.device is None
