"""What makes two searches the same, or alike: hardware, libraries, the objective, the specialisation."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
import math
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ciq_ray import settings
from ciq_ray._version import __version__
from ciq_ray.errors import ConfigurationError

__all__ = ["distance", "hardware", "libraries", "objective_identity", "specialization_text"]

_GPUS: Final = Path("/proc/driver/nvidia/gpus")
_SMI_LIMIT_S: Final = 5.0
_LIBRARIES: Final = ("numpy", "torch", "triton")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def hardware() -> str:
    """Architecture and model of the processor, and the names of the NVIDIA GPUs, if there are any.

    Where these are of several kinds, which of them CUDA is to see is a part of it.
    """
    kinds, visible = sorted(set(_gpus())), settings.visible_devices()
    if len(kinds) > 1 and visible is not None:
        kinds.append(f"{settings.ENV_VISIBLE_DEVICES}={visible}")
    return "; ".join([f"{platform.machine()} {_processor()}".strip(), *kinds])


@functools.cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^(?:model name|CPU part|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor()


@functools.cache
def _gpus() -> list[str]:
    """Names, from the driver's files, since asking its program takes tenths of a second at least."""
    files = sorted(_GPUS.glob("*/information"))
    if files:
        texts = [file.read_text(errors="replace") for file in files]
        return [found[1].strip() for text in texts if (found := re.search(r"Model:\s*(.+)", text))]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def libraries() -> dict[str, str]:
    """Versions of what a measurement depends on; of those of `_LIBRARIES` that are installed."""
    found = {"python": platform.python_version(), "ciq_ray": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def objective_identity(function: Callable[..., Any] | None) -> tuple[str, str | None]:
    """Name and source hash of an objective; the hash is ``None`` where no source can be had."""
    from ciq_ray import origin

    if function is None:
        return "", None
    described = origin.describe(function)
    if described.get("kind") == "command":
        command = " ".join(described["command"]["command"])
        return command, _hash(json.dumps(described, sort_keys=True))
    target = function.func if isinstance(function, functools.partial) else function
    bound = (function.args, function.keywords) if isinstance(function, functools.partial) else ()
    try:
        source = inspect.getsource(target if hasattr(target, "__code__") else type(target))
    except (OSError, TypeError, SyntaxError):
        return described["qualname"], described["source_sha256"]
    return described["qualname"], _hash(source + re.sub(r" at 0x[0-9a-f]+", "", repr(bound)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def specialization_text(key: Any) -> str:
    """A specialisation key as text: itself if it is one, else as JSON.

    Raises:
        ConfigurationError: JSON cannot hold it.
    """
    if isinstance(key, str):
        return key
    if key is None:
        return ""
    try:
        return json.dumps(key, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"`specialization_key` is {key!r}; it must be text, a number, or lists and dicts of them"
        ) from error


def distance(one: str, other: str) -> float:
    """How far two specialisation keys are apart: the Euclidean distance of the log2 of their numbers.

    Numbers are the runs of digits, those in names included: ``fp16`` and ``fp32`` are 1 apart. Keys with
    different text between the numbers are infinitely far apart. 0 counts as a half.
    """
    if _NUMBER.split(one) != _NUMBER.split(other):
        return math.inf
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return math.hypot(*(_log2(a) - _log2(b) for a, b in pairs))


def _log2(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        return float(len(text)) * math.log2(10)
    return math.log2(number) if number > 0 else -1.0
