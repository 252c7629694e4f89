"""The part of the report on what was searched, by what and where."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, Final

from ciq_ray.parameter_values import Parameter, text_of
from ciq_ray.report.data import ReportData
from ciq_ray.report.html import Section, element

__all__ = ["about_section", "duration"]

_MOST_PARAMETERS: Final = 300
_FIELDS: Final = (
    "specialization_key",
    "worker_type",
    "num_workers",
    "task_timeout",
    "max_evaluations",
    "time_budget_s",
    "target",
)


def about_section(data: ReportData, parameters: Sequence[Parameter]) -> Section:
    """What was searched, with all parameters and the values they had."""
    facts = _facts(data)
    listed = "".join(f"<tr>{element('td', name)}{element('td', text)}</tr>" for name, text in facts)
    parts = [f'<div class="scroll"><table class="data folded">{listed}</table></div>'] if facts else []
    if parameters:
        lines = "".join(
            f"<tr>{element('td', parameter.name)}{element('td', _kind(parameter))}"
            f"{element('td', _values(parameter))}</tr>"
            for parameter in parameters[:_MOST_PARAMETERS]
        )
        parts.append(
            f"<details><summary>{len(parameters)} parameters and the values that were tried</summary>"
            '<div class="scroll"><table class="data folded"><thead><tr><th>parameter</th><th>kind</th>'
            f"<th>tried</th></tr></thead>{lines}</table></div></details>"
        )
    elif data.rows:
        parts.append(
            element(
                "p",
                "The configurations are texts, and the search space that tells their parameters apart is not "
                "known here: so there is nothing on single parameters.",
                class_="note",
            )
        )
    return Section("about", "About this search", *parts)


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 0.1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def _facts(data: ReportData) -> list[tuple[str, str]]:
    view = data.view
    if view is None:
        return [("scores", _scores(data))]
    header, command = view.header, view.command
    facts: list[tuple[str, Any]] = [("folder", str(view.folder.absolute()))]
    reason = view.reason if view.reason not in ("", view.state) else ""
    facts.append(("state", f"{view.state}, {reason}" if reason else view.state))
    if command is not None:
        facts += [
            ("build", shlex.join(command["build"] or [])),
            ("command", shlex.join(command["command"])),
            ("environment", shlex.join(f"{name}={value}" for name, value in command["env"].items())),
            ("directory", command["directory"]),
        ]
    else:
        facts.append(("objective", view.what))
    facts.append(("scores", _scores(data)))
    searcher, config = header.get("searcher") or {}, header.get("search_config") or {}
    facts.append(("searcher", f"{searcher.get('name') or searcher.get('class')}, seed {header.get('seed')}"))
    facts.append(
        ("options", ", ".join(f"{k} {text_of(v)}" for k, v in (header.get("searcher_options") or {}).items()))
    )
    facts.append(
        ("generations", f"{config.get('generations')} of {config.get('pool_size') or 'default size'}")
    )
    facts += [(name.replace("_", " "), header.get(name)) for name in _FIELDS]
    constraints = header.get("constraints")
    facts.append(("constraints", "code" if constraints is None else "; ".join(constraints)))
    machine, versions = header.get("machine") or {}, header.get("versions") or {}
    facts.append(("machine", ", ".join(f"{name} {value}" for name, value in machine.items())))
    facts.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items())))
    return [(name, text_of(value)) for name, value in facts if value not in (None, "")]


def _scores(data: ReportData) -> str:
    named = zip(data.score_names, data.modes, strict=True)
    shown = ", ".join(f"{name} ({'less' if mode == 'min' else 'more'} is better)" for name, mode in named)
    return f"{shown}; ranked as multiples of the baseline's" if data.normalized else shown


def _kind(parameter: Parameter) -> str:
    if not parameter.varies:
        return "constant"
    if parameter.categories is not None:
        return "categories"
    return "numbers, logarithmic" if parameter.log else "numbers"


def _values(parameter: Parameter) -> str:
    absent = sum(value is None for value in parameter.values)
    some = f"; absent {absent} times" if absent else ""
    if parameter.categories is not None:
        shown = ", ".join(parameter.categories[:20])
        more = len(parameter.categories) - 20
        return f"{shown}{f' and {more} more' if more > 0 else ''}{some}"
    present = [value for value in parameter.values if value is not None]
    if not present:
        return "always absent"
    low, high = min(present), max(present)
    return (f"{json.dumps(low)} to {json.dumps(high)}" if low != high else json.dumps(low)) + some
