"""The recorded landscapes of this folder."""

from __future__ import annotations

from pathlib import Path

from ciq_ray.landscape import Landscape

__all__ = ["FOLDER", "load", "names", "unseen"]

FOLDER = Path(__file__).resolve().parent / "landscapes"


def names() -> list[str]:
    """The eight that searchers are compared on."""
    return [
        "attention_causal",
        "conv_17",
        "hub_conv_A4000",
        "hub_conv_MI250X",
        "hub_gemm_RTX3090",
        "hub_pnpoly_RTX3090",
        "matmul_4096",
        "rmsnorm_8k",
    ]


def unseen() -> list[str]:
    """The six by which no default was set: what is learnt on the eight has to hold on these too."""
    return ["heat_256", "matrix_vector_8k", "nbody_8k", "ptx_spectrum", "sgemm_1k", "transpose_8k"]


def load(name: str) -> Landscape:
    """Read one."""
    return Landscape.load(FOLDER / f"{name}.csv")
