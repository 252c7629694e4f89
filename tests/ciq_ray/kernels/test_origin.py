"""How a kernel, which has no name of its own, is found again."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ciq_ray import origin
from ciq_ray.errors import JournalError
from tests.ciq_ray.kernels.host_kernel import HostKernel

SCRIPT = """\
from pathlib import Path

from tests.ciq_ray.kernels.host_kernel import HostKernel

KERNEL = HostKernel()
KERNEL.source = (Path(__file__).parent / "kernel.c").read_text()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a kernel whose source is in another file."""
    (tmp_path / "kernel.c").write_text("void f(void) {}\n")
    (tmp_path / "my_kernels.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_kernels", raising=False)
    monkeypatch.delitem(sys.modules, "__ciq_script__", raising=False)
    module = importlib.import_module("my_kernels")
    yield module
    sys.modules.pop("my_kernels", None)


def test_the_variable_is_recorded(module: ModuleType) -> None:
    found = origin.describe(module.KERNEL)
    assert (found["kind"], found["class"]) == ("kernel", "HostKernel")
    assert (found["module"], found["qualname"], found["importable"]) == ("my_kernels", "KERNEL", True)
    assert found["script"] == module.__file__
    assert origin.load(found) is module.KERNEL


def test_where_it_is_defined_and_not_the_script_that_imported_it(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "MINE", module.KERNEL, raising=False)
    assert origin.describe(module.KERNEL)["module"] == "my_kernels"


def test_of_the_script_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = HostKernel()
    monkeypatch.setattr(sys.modules["__main__"], "MINE", kernel, raising=False)
    found = origin.describe(kernel)
    assert (found["module"], found["qualname"]) == ("__main__", "MINE")


def test_a_kernel_in_no_variable_cannot_be_had_again() -> None:
    found = origin.describe(HostKernel())
    assert found["importable"] is False
    with pytest.raises(JournalError, match="in no variable at module level"):
        origin.load(found)


def test_its_source_in_another_file_has_changed(module: ModuleType, tmp_path: Path) -> None:
    found = origin.describe(module.KERNEL)
    (tmp_path / "kernel.c").write_text("void g(void) {}\n")
    del sys.modules["my_kernels"]
    with pytest.raises(JournalError, match="the source of the kernel 'KERNEL' has changed"):
        origin.load(found)
    assert origin.load(found, force=True).source.startswith("void g")
