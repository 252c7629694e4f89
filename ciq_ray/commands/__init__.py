"""Any command as an objective: a build line, a benchmark line, and where the score comes from."""

from ciq_ray.commands.objective import CommandObjective

__all__ = ["CommandObjective"]
