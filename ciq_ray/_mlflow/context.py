"""MLflow's plugin that says which search a run belongs to that an objective starts by itself.

It is an entry point of the group ``mlflow.run_context_provider``: MLflow asks it for tags whenever
``mlflow.start_run`` makes a run, in every process of an environment that has ciq-ray. Outside of an
evaluation it has none to give.
"""

from __future__ import annotations

import os
from typing import Final

from mlflow.tracking.context.abstract_context import RunContextProvider

from ciq_ray._mlflow.objective import KEY, PARENT, current

__all__ = ["EvaluationContext"]

ORIGIN: Final = "ciq.origin"


class EvaluationContext(RunContextProvider):  # type: ignore[misc]  # it has no type information
    """Tags of the evaluation in which a run is started, in a program that the objective starts too."""

    def in_context(self) -> bool:
        """Whether there is such an evaluation."""
        return bool(self._variable(KEY))

    def tags(self) -> dict[str, str]:
        """The search's run as parent, and which evaluation it is."""
        key, parent = self._variable(KEY), self._variable(PARENT)
        tags = {"mlflow.runName": key, "ciq.key": key, ORIGIN: "objective"}
        return {**tags, "mlflow.parentRunId": parent} if parent else tags

    def _variable(self, name: str) -> str:
        evaluation = current()
        context = os.environ if evaluation is None else evaluation.context
        return context.get(name, "")
