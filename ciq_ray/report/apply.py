"""How to use the configuration that a search found."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ciq_ray.errors import CiqError
from ciq_ray.parameter_values import Parameter, from_configs, text_of
from ciq_ray.report.data import ReportData

__all__ = ["Recipe", "changes", "recipes"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Something to copy.

    Attributes:
        title: What to do with it.
        text: What is copied.
    """

    title: str
    text: str


def recipes(data: ReportData, config: Any, name: str | None) -> list[Recipe]:
    """Ways to apply a configuration, the most direct one first.

    Args:
        data: Where it comes from.
        config: The configuration.
        name: The candidate's id if ``ciq best`` would not print it by itself, else ``None``.
    """
    found = [Recipe(f"Run the {step} with it", line) for step, line in _command_lines(data, config)]
    if isinstance(config, str):
        text = config if config.strip() else "(no option: what the compiler does by itself)"
        found.append(Recipe("The options, to put into a file", text))
    elif isinstance(config, Mapping):
        found.append(Recipe("As Python", f"config = {_python(config)}"))
        found.append(Recipe("As JSON", json.dumps(config, default=repr, ensure_ascii=False)))
    else:
        for position, part in enumerate(config if isinstance(config, list) else [config]):
            text = part if isinstance(part, str) else _python(part)
            found.append(Recipe(f"Part {position}", text))
    if data.view is not None:
        run = shlex.quote(str(data.view.folder))
        chosen = "" if name is None else f" --id {shlex.quote(name)}"
        into = "flags > options.txt" if isinstance(config, str) else "json"
        found.append(Recipe("In a script", f"ciq best {run}{chosen} --format {into}"))
    return found


def changes(data: ReportData, config: Any) -> list[tuple[str, str, str]]:
    """Where a configuration differs from the space's default: name, default, and the value it has.

    Empty if there is no default, or nothing differs.
    """
    space = data.space
    if space is None or space.default_row is None:
        return []
    default = space.default_config()
    if isinstance(config, str) or isinstance(default, str):
        return [("options", text_of(default), text_of(config))] if config != default else []
    pairs = from_configs([default, config])
    return [(p.name, _shown(p, 0), _shown(p, 1)) for p in pairs if p.values[0] != p.values[1]]


def _python(config: Any) -> str:
    """A dict as Python source, a line for each entry."""
    if not isinstance(config, Mapping):
        return repr(config)
    return "".join(["{\n", *(f"    {name!r}: {value!r},\n" for name, value in config.items()), "}"])


def _shown(parameter: Parameter, row: int) -> str:
    value = parameter.values[row]
    return "absent" if value is None else text_of(value)


def _command_lines(data: ReportData, config: Any) -> list[tuple[str, str]]:
    """The build and the command with the configuration filled in, quoted for a shell."""
    if data.view is None or data.view.command is None:
        return []
    from ciq_ray.cli.formats import environment_words
    from ciq_ray.commands import CommandObjective

    try:
        # it only fills in words here: where it would run does not matter
        objective = CommandObjective.from_dict({**data.view.command, "directory": "/", "copy": False})
        prefix = environment_words(objective.variables(config))
        lines = objective.argv(config)
    except CiqError:
        return []
    return [(step, shlex.join([*prefix, *words])) for step, words in lines.items()]
