"""What a search of a kernel is besides: compared with a baseline, and by ratios to it between devices."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.ciq import Search
    from ciq_ray.kernels.stations import Stations

__all__ = ["has_baseline", "must_normalize"]

logger = logging.getLogger(__name__)


def has_baseline(search: Search) -> bool:
    """Whether anybody has said what the kernel's configuration is today."""
    return bool(search.initial_configs) or search.space.default_row is not None


def must_normalize(search: Search, stations: Stations, *, resumed: bool) -> bool:
    """Whether to set `normalize`: times of several devices compare as ratios to the baseline's on each.

    Args:
        search: Of a kernel.
        stations: Its devices.
        resumed: Whether it goes on with scores that there are.

    Raises:
        ConfigurationError: There are times already that ratios would have to compare with.
    """
    if search.search_config.normalize or not stations.multiple or not stations.compares_times:
        return False
    if not has_baseline(search):
        logger.warning(
            "times of several devices are compared as they are, since the kernel has no baseline whose time "
            "on each they could be divided by: give a `default` of the space, or `initial_configs`"
        )
        return False
    for name, said, given in (
        ("target", "is a time", search.target is not None),
        ("resume", "goes on with scores that are times", resumed),
    ):
        if given:
            raise ConfigurationError(
                f"`{name}` {said}, and several devices compare by ratios to the baseline's time on each; "
                "choose one of them with `devices`, or search with `normalize=True`"
            )
    return True
