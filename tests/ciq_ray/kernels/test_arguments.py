import ctypes
import math

import numpy as np
import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.gpu.host import HostRuntime
from ciq_ray.kernels.arguments import Output, Scalar, Tensor, packed, plain, resolve
from ciq_ray.kernels.workload import ArrayWorkload


def test_a_tensor_knows_its_size():
    tensor = Tensor((np.int64(3), 5), "float16")
    assert tensor.shape == (3, 5)
    assert all(type(size) is int for size in tensor.shape)
    assert (tensor.numel(), tensor.nbytes) == (15, 30)
    assert Tensor(7).shape == (7,)
    assert Output((2, 2), "int32") == Tensor((2, 2), "int32", "zeros", "out")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (((2.5,),), "`shape`"),
        (((2, -1),), "`shape`"),
        (((2,), "float31"), "`dtype`"),
        (((2,), "float32", "random"), "`init`"),
        (((2,), "float32", "normal", "output"), "`role`"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        Tensor(*arguments)


@pytest.mark.parametrize(
    ("value", "dtype", "named"),
    [(1 << 31, "int32", "int64"), (-1, "uint8", "-1"), (2.5, "int32", "2.5"), (1, "int31", "`dtype`")],
)
def test_a_scalar_that_its_type_does_not_hold_is_refused(value, dtype, named):
    with pytest.raises(ConfigurationError, match=named):
        Scalar(value, dtype)


def test_numbers_get_the_types_of_c():
    found = resolve({"n": 7, "far": 1 << 40, "a": 0.5, "on": True, "k": np.int64(3)}, None)
    assert {name: (value.value, value.dtype) for name, value in found.items()} == {
        "n": (7, "int32"),
        "far": (1 << 40, "int64"),
        "a": (0.5, "float32"),
        "on": (True, "bool"),
        "k": (3, "int32"),
    }
    assert plain(found)["far"] == 1 << 40


def test_arguments_may_depend_on_the_shape():
    assert resolve(lambda shape: {"x": Tensor(shape), "n": shape}, 12)["x"] == Tensor(12)
    with pytest.raises(ConfigurationError, match="`arguments`"):
        resolve(lambda shape: [shape], 12)


def test_values_are_packed_as_c_has_them():
    assert bytes(packed(258, "int64")) == (258).to_bytes(8, "little")
    assert packed(1.0, "float16").value == 0x3C00
    assert ctypes.sizeof(packed(True, "bool")) == 1


# --- the arrays of a problem ---


def made(arguments, reference, seed=0, **options):
    return ArrayWorkload(HostRuntime(1 << 20), resolve(arguments, None), reference, seed, **options)


def doubling(seed=0, dtype="float32", **options):
    arguments = {"x": Tensor((64, 8), dtype), "out": Output((64, 8), dtype)}
    return made(arguments, lambda a: 2 * a["x"], seed, **options)


def test_the_right_answer_passes_and_poison_does_not():
    work = doubling()
    work.poison()
    assert "512 of 512 elements differ" in work.check()
    work.arrays["out"][...] = 2 * work.arrays["x"]
    assert work.check() == ""
    work.arrays["out"][3, 5] += 0.01
    assert "(3, 5)" in work.check()


def test_a_seed_decides_the_arrays_and_each_array_is_another():
    one, same, other = doubling(3), doubling(3), doubling(4)
    assert np.array_equal(one.arrays["x"], same.arrays["x"])
    assert not np.array_equal(one.arrays["x"], other.arrays["x"])
    two = made({"x": Tensor(9), "y": Tensor(9), "out": Output(9)}, lambda a: a["x"] + a["y"])
    assert not np.array_equal(two.arrays["x"], two.arrays["y"])


def test_writes_just_outside_of_an_output_are_found():
    work = doubling()
    work.poison()
    work.arrays["out"][...] = 2 * work.arrays["x"]
    beyond = np.lib.stride_tricks.as_strided(work.arrays["out"], (513,), (4,))
    beyond[512] = 1.0
    assert work.check() == "out: the kernel wrote outside of the array, behind it"
    work.poison()
    work.arrays["out"][...] = 2 * work.arrays["x"]
    ctypes.c_float.from_address(work.arrays["out"].ctypes.data - 4).value = 1.0
    assert work.check() == "out: the kernel wrote outside of the array, before it"


def test_arrays_that_are_read_and_written_are_restored():
    work = made({"x": Tensor(16, "float64", role="inout")}, lambda a: a["x"] + 1)
    assert work.in_place
    for _ in range(2):
        work.poison()
        work.arrays["x"] += 1
        assert work.check() == ""
    work.arrays["x"] += 1
    assert "16 of 16" in work.check()


def test_a_reference_that_writes_into_its_arguments_spoils_nothing():
    def reference(a):
        a["x"] += 1
        return a["x"]

    work = made({"x": Tensor(16, "float64", role="inout")}, reference)
    work.poison()
    work.arrays["x"] += 1
    assert work.check() == ""


@pytest.mark.parametrize("part", [slice(None), slice(2, None)])
def test_a_reference_may_return_what_it_was_given(part):
    arguments = {"x": Tensor(16), "out": Output(len(range(16)[part]))}
    work = made(arguments, lambda a: a["x"][part])
    work.poison()
    work.arrays["out"][...] = work.arrays["x"][part] + 1
    work.arrays["x"] += 1  # a kernel that spoils its input, and copies what it has made of it
    assert "elements differ" in work.check()


def test_several_outputs_go_by_name():
    arguments = {"x": Tensor(8), "low": Output(8), "high": Output(8), "by": 2.0}
    work = made(arguments, lambda a: {"low": a["x"] - a["by"], "high": a["x"] + a["by"]})
    work.poison()
    work.arrays["low"][...] = work.arrays["x"] - 2
    assert work.check().startswith("high: ")
    with pytest.raises(ConfigurationError, match="2 outputs"):
        made(arguments, lambda a: a["x"])
    with pytest.raises(ConfigurationError, match="low, high"):
        made(arguments, lambda a: {"low": a["x"]})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tolerances_are_those_of_the_type(dtype):
    work = doubling(dtype=dtype)
    error = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-9}[dtype] * 2  # relative to an rms of 2
    work.poison()
    exact = 2 * work.arrays["x"].astype("float64")
    exact[0, 0] += 0.5 * error
    work.arrays["out"][...] = exact
    assert work.check() == ""
    exact[0, 0] += 30 * error
    work.arrays["out"][...] = exact
    assert "1 of 512 element differs" in work.check()


def test_integers_must_be_equal_and_tolerances_can_be_given():
    work = made({"x": Tensor(8, "int32", "integers"), "out": Output(8, "int32")}, lambda a: a["x"])
    work.poison()
    work.arrays["out"][...] = work.arrays["x"]
    assert work.check() == ""
    work.arrays["out"][0] += 1
    assert "1 of 8" in work.check()
    loose = doubling(atol=0.5, rtol=0.0)
    loose.poison()
    loose.arrays["out"][...] = 2 * loose.arrays["x"] + 0.4
    assert loose.check() == ""


def test_infinities_in_the_reference_do_not_make_everything_right():
    def reference(a):
        expected = 2 * a["x"]
        expected[0] = math.inf
        return expected

    work = made({"x": Tensor(64), "out": Output(64)}, reference)
    work.poison()
    work.arrays["out"][...] = 2 * work.arrays["x"] + 1
    work.arrays["out"][0] = math.inf
    assert "63 of 64" in work.check()
