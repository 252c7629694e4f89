"""Packages that kernels on GPUs need beside the requirements; they are looked for here, not imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ciq_ray.errors import UnsupportedError

__all__ = ["CUDA_BINDINGS", "TORCH", "TRITON", "Package", "check_installed"]


@dataclass(frozen=True, slots=True)
class Package:
    """A package that may be missing.

    Attributes:
        name: As pip calls it.
        module: What is imported of it.
        purpose: What does not work without it.
        advice: How to get it.
    """

    name: str
    module: str
    purpose: str
    advice: str

    @property
    def installed(self) -> bool:
        """Whether it can be imported, as far as can be seen without doing so."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):  # what it is a part of is missing; a module made by hand
            return sys.modules.get(self.module) is not None

    @property
    def version(self) -> str:
        """Its version; empty if it is installed under another name."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return ""


TORCH: Final = Package(
    "torch",
    "torch",
    "timing on a GPU",
    "install PyTorch with CUDA as https://pytorch.org/get-started/locally says",
)
TRITON: Final = Package("triton", "triton", "`TritonKernel`", "pip install 'ciq-ray[gpu]'")
CUDA_BINDINGS: Final = Package(
    "cuda-bindings",
    "cuda.bindings",
    "launching `TritonKernel`, `CudaKernel` and `PtxKernel`",
    "pip install 'ciq-ray[gpu]'",
)


def check_installed(packages: Sequence[Package]) -> None:
    """Say what is missing.

    Raises:
        UnsupportedError: One is not installed.
    """
    missing = [package for package in packages if not package.installed]
    if missing:
        raise UnsupportedError(
            "; ".join(
                f"{each.purpose} needs {each.name}, which is not there: {each.advice}" for each in missing
            )
        )
