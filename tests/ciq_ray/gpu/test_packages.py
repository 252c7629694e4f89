"""What is said of packages that kernels on GPUs need, and that are missing."""

from __future__ import annotations

import sys
import types

import pytest

from ciq_ray.errors import UnsupportedError
from ciq_ray.gpu.packages import CUDA_BINDINGS, TORCH, Package, check_installed


def test_what_is_installed_is_found_without_importing_it():
    there = Package("numpy", "no_such_package.of_it", "counting", "pip install numpy")
    assert not there.installed
    assert there.version
    there = Package("no-such-package", "xml.dom", "reading", "")
    assert (there.installed, there.version) == (True, "")


def test_a_module_made_by_hand_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert TORCH.installed


def test_all_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    for name in ("torch", "cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError) as caught:
        check_installed([TORCH, CUDA_BINDINGS])
    for part in ("needs torch, which is not there", "pytorch.org", "cuda-bindings", "ciq-ray[gpu]"):
        assert str(caught.value).count(part) == 1
