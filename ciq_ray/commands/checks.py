"""Whether a command and a search space fit, before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ciq_ray.commands.templates import CONFIG_FILE, Placeholder, Template
from ciq_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ciq_ray.commands.objective import CommandObjective
    from searchers.space import Space

__all__ = ["check_programs", "check_space"]


def check_space(objective: CommandObjective, space: Space) -> list[str]:
    """Refuse a command that does not use a space as it is.

    Args:
        objective: The command.
        space: The space.

    Returns:
        Warnings: what is possible, but hardly meant.

    Raises:
        ConfigurationError: A placeholder is for nothing in the space, a parameter is in no word, or a
            parameter that may be absent would take other things with it.
    """
    encoding = space.encoding
    tree = _visible(encoding.tree, encoding.renders, ())
    groups = objective.words
    for templates in groups.values():
        for template in templates:
            template.check(tree)
    used = [
        _keys(found, tree)
        for templates in groups.values()
        for template in templates
        for found in template.placeholders
    ]
    unused = [
        leaf.name for leaf in encoding.leaves if not any(leaf.path[: len(keys)] == keys for keys in used)
    ]
    # a part that is rendered into a text is used as a whole
    rendered = [path for path in encoding.renders if any(keys == path for keys in used)]
    unused = [
        leaf.name
        for leaf in encoding.leaves
        if leaf.name in unused and not any(leaf.path[: len(path)] == path for path in rendered)
    ]
    if unused:
        raise ConfigurationError(
            f"the parameter {unused[0]} is in no word of the command, so that its values would make no "
            f"difference; write {{{unused[0]}}} where it belongs, or take it out of the space"
        )
    absent = {leaf.path for leaf in encoding.leaves if leaf.can_be_absent}
    return [
        warning for what in ("build", "command") for warning in _absent_warnings(groups[what], tree, absent)
    ]


def check_programs(objective: CommandObjective) -> None:
    """Refuse a program that is not there. One that a build makes cannot be looked for.

    Raises:
        ConfigurationError: It is not there, or cannot be executed.
    """
    groups = objective.words
    for name in ("build", "command"):
        if not groups[name] or (name == "command" and groups["build"]):
            continue
        first = groups[name][0]
        if first.placeholders:
            continue
        program = "".join(part for part in first.parts if isinstance(part, str))
        if "/" not in program:
            if shutil.which(program) is None:
                raise ConfigurationError(
                    f"there is no program {program!r} on PATH; for one in this directory write ./{program}"
                )
        elif not os.access(objective.directory / program, os.X_OK):
            there = (objective.directory / program).exists()
            what = f"is not executable: chmod +x {program}" if there else f"is not in {objective.directory}"
            raise ConfigurationError(f"the program {program!r} {what}")


def _visible(tree: Any, renders: Mapping[Any, Any], path: tuple[str | int, ...]) -> Any:
    """The tree without what is inside parts that the objective gets as texts."""
    if path in renders:
        return 0
    if isinstance(tree, dict):
        return {name: _visible(child, renders, (*path, name)) for name, child in tree.items()}
    if isinstance(tree, list):
        return [_visible(child, renders, (*path, i)) for i, child in enumerate(tree)]
    return tree


def _keys(placeholder: Placeholder, tree: Any) -> tuple[str | int, ...]:
    """The path in the space that a placeholder stands for."""
    keys = placeholder.keys
    if isinstance(tree, Mapping) and keys[0] in tree:
        return keys
    if keys == (CONFIG_FILE,):
        return ()
    return keys[1:] if keys[0] in ("config", "parts") else keys


def _absent_warnings(templates: list[Template], tree: Any, absent: set[tuple[str | int, ...]]) -> list[str]:
    warnings = []
    for position, template in enumerate(templates):
        plain = [found for found in template.placeholders if not found.splat and _keys(found, tree) in absent]
        if not plain:
            continue
        text = plain[0].text
        if any(character.isspace() for character in template.word):
            raise ConfigurationError(
                f"{{{text}}} can be absent, and then all of {template.word!r} would be dropped; write "
                f"{{*{text}}} to leave out nothing else, or give it a word of its own"
            )
        before = templates[position - 1].word if position else ""
        is_option = before.startswith("-") and not set("={") & set(before)
        if template.word == f"{{{text}}}" and is_option:
            warnings.append(
                f"{{{text}}} can be absent, and {before} stays then; if they belong together, write "
                f"{before}={{{text}}} in one word"
            )
    return warnings
