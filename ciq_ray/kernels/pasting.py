"""A configuration as source to paste, known from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ciq_ray.errors import ConfigurationError

__all__ = ["TRITON_OPTIONS", "as_triton"]

TRITON_OPTIONS: Final = ("num_warps", "num_stages", "num_ctas", "maxnreg")
"""Parameters of a Triton kernel's space that are the compiler's, and not ``tl.constexpr`` arguments."""


def as_triton(config: Any) -> str:
    """A `triton.Config` for the list of ``@triton.autotune``.

    Raises:
        ConfigurationError: It is no configuration of a Triton kernel.
    """
    if not isinstance(config, Mapping) or any(isinstance(v, (Mapping, list)) for v in config.values()):
        raise ConfigurationError(
            "only flat configurations can be a triton.Config, and this is none; use --format json or flags"
        )
    constants = {name: value for name, value in config.items() if name not in TRITON_OPTIONS}
    # absent, None and 0 leave the choice to Triton, as `TritonKernel` does
    options = [f"{name}={config[name]!r}" for name in TRITON_OPTIONS if config.get(name)]
    return f"triton.Config({', '.join([repr(constants), *options])})"
