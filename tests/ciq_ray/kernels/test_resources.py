import pytest

from ciq_ray.errors import ObjectiveFailure
from ciq_ray.kernels import Resources, Target
from ciq_ray.kernels.resources import check_fits, combined, entry_report

H100 = Target(90, "H100", max_shared=232448, max_threads=1024, max_registers=65536)

REPORT = """\
ptxas info    : Compiling entry function '{name}' for 'sm_90'
ptxas info    : Function properties for {name}
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
"""


@pytest.mark.parametrize(
    "fits",
    [
        Resources(registers=128, shared=232448, threads=512),
        Resources(registers=64, threads=1024),
        Resources(registers=255, threads=256),
        Resources(),
    ],
)
def test_what_fits_passes(fits):
    check_fits(fits, H100)


@pytest.mark.parametrize(
    ("too_much", "said"),
    [
        (Resources(threads=1025), "1025 threads; H100 runs 1024"),
        (Resources(shared=232449), "232449 bytes of shared memory; H100 has 232448"),
        (Resources(registers=65, threads=1024), "73728 registers"),
        (Resources(registers=255, threads=288), "73728 registers"),
    ],
)
def test_what_does_not_fit_is_refused(too_much, said):
    with pytest.raises(ObjectiveFailure, match=said) as caught:
        check_fits(too_much, H100)
    assert caught.value.status == "resource_exceeded"


def test_nothing_is_refused_on_a_device_that_is_not_known():
    check_fits(Resources(255, 0, 0, 1 << 30, 4096), Target(0))


def test_a_kernel_is_found_by_its_name_or_its_mangled_name():
    assert entry_report(REPORT.format(name="saxpy"), "saxpy")[1].registers == 40
    name, report = entry_report(REPORT.format(name="_Z5saxpyiPf"), "saxpy")
    assert (name, report.spill_loads, report.shared) == ("_Z5saxpyiPf", 20, 1024)


@pytest.mark.parametrize("names", [[], ["other"], ["_Z5saxpyiPf", "_Z5saxpylPf"]])
def test_no_kernel_or_several_is_an_error_that_says_what_there_is(names):
    with pytest.raises(ObjectiveFailure, match=r'extern "C"') as caught:
        entry_report("".join(REPORT.format(name=name) for name in names), "saxpy")
    assert caught.value.status == "compile_error"
    assert all(name in str(caught.value) for name in names)


def test_several_variants_come_to_the_most_of_each():
    assert combined([Resources(10, 4), Resources(20, 0, 8), Resources()]) == Resources(20, 4, 8)
    assert combined([]) == Resources()
