"""The recorded landscapes of this folder."""

from __future__ import annotations

from pathlib import Path

from ciq_ray.landscape import Landscape

__all__ = ["FOLDER", "load", "names"]

FOLDER = Path(__file__).resolve().parent / "landscapes"


def names() -> list[str]:
    """All landscapes there are."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load(name: str) -> Landscape:
    """Read one."""
    return Landscape.load(FOLDER / f"{name}.csv")
