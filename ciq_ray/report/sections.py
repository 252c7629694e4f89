"""The parts of the report, from the most to the least important."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ciq_ray.parameter_values import Parameter, text_of
from ciq_ray.report import importance
from ciq_ray.report.about import about_section, duration
from ciq_ray.report.apply import changes, recipes
from ciq_ray.report.data import Evaluated, ReportData
from ciq_ray.report.devices import device_section
from ciq_ray.report.figures import convergence_figure, importance_bars, pareto_figure
from ciq_ray.report.html import Section, element, figure_element
from ciq_ray.report.importance import Importance
from ciq_ray.report.kernel import kernel_section
from ciq_ray.report.panels import MOST_AXES, parallel_figure, race_figure
from ciq_ray.report.table import table_html
from searchers.outcome import OK

__all__ = ["header", "sections"]

_STATES: Final = {
    "running": ("still running: this is what there was so far", "good"),
    "ended": ("", ""),
    "stopped": ("stopped by its user; it can be resumed", "bad"),
    "failed": ("ended by an error", "bad"),
    "interrupted": ("interrupted; it can be resumed", "bad"),
}
_MOST_FRONT_ROWS: Final = 30
_MOST_SCORES_SHOWN: Final = 4


def header(data: ReportData) -> str:
    """Title, facts and the few numbers that matter most."""
    view = data.view
    if view is None:
        return element("h1", "Results of a search") + _tiles(data)
    note, colour = _STATES[view.state]
    badge = "" if view.state == "ended" else element("span", view.state, class_=f"badge {colour}".strip())
    facts = [f"run {view.folder.name}"]
    if view.header.get("created"):
        facts.append(f"begun {view.header['created'][:16].replace('T', ' ')}")
    machine, searcher = view.header.get("machine") or {}, view.header.get("searcher") or {}
    facts += [f"on {machine['host']}"] if machine.get("host") else []
    facts += [f"searcher {searcher['name']}"] if searcher.get("name") else []
    facts += [f"seed {view.header['seed']}"] if view.header.get("seed") is not None else []
    facts += [note] if note else []
    return (
        f"<h1>{html.escape(view.what)}{badge}</h1>{element('p', ' · '.join(facts), class_='facts')}"
        + _tiles(data)
    )


def sections(data: ReportData) -> list[Section]:
    """All parts for which there is something to show."""
    parameters = data.parameters()
    ranked, matter = _importance(data, parameters)
    found: list[Section | None] = [
        _verdict(data),
        _best(data),
        kernel_section(data),
        _convergence(data),
        _pareto(data),
        matter,
        _parallel(data, ranked),
        device_section(data),
        _table(data, ranked),
        about_section(data, parameters),
    ]
    return [section for section in found if section is not None]


def _tiles(data: ReportData) -> str:
    tiles: list[tuple[str, str]] = []
    front = data.front
    if data.num_scores == 1 and len(front):
        best = data.rows[front[0]]
        tiles.append((f"{best.values[0]:.6g}", f"best {data.score_names[0]}, candidate {best.id}"))
        if data.normalized:
            tiles.append((f"{best.ranked[0]:.4g} x", "the baseline's score"))
        else:
            tiles += _against_default(data, best)
    elif len(front):
        tiles.append((str(len(front)), "points on the Pareto front"))
        scores = data.scores[data.passed]
        for j, name in enumerate(data.score_names[:_MOST_SCORES_SHOWN]):
            best_score = scores[:, j].min() if data.modes[j] == "min" else scores[:, j].max()
            tiles.append((f"{best_score:.6g}", f"best {name}"))
    else:
        tiles.append(("none", "evaluation has passed"))
    failed = int((~data.passed).sum())
    again = sum(row.measured - 1 for row in data.rows)
    tiles.append((f"{len(data.rows):,}", "evaluations" + (f", {again} measured again" if again else "")))
    share = f" ({failed / len(data.rows):.0%})" if failed else ""
    tiles.append((f"{failed:,}{share}", "failed"))
    seconds = sum(row.run_s or 0.0 for row in data.rows)
    if seconds:
        tiles.append((duration(seconds), "spent evaluating, all workers together"))
    made = "".join(
        f'<div class="tile">{element("b", value)}{element("span", name)}</div>' for value, name in tiles
    )
    return f'<div class="tiles">{made}</div>'


def _against_default(data: ReportData, best: Evaluated) -> list[tuple[str, str]]:
    """How the best compares with the default, if that was evaluated."""
    if data.space is None or data.space.default_row is None:
        return []
    default = data.space.default_config()
    found = next((row for row in data.rows if row.values and row.config == default), None)
    if found is None or found is best or found.values[0] <= 0 or best.values[0] <= 0:
        return []
    change = best.values[0] / found.values[0] - 1
    return [(f"{change:+.1%}", f"against the default ({found.values[0]:.6g})")]


def _verdict(data: ReportData) -> Section | None:
    if data.verdict is None:
        return None
    verdict = data.verdict["verdict"]
    kind = {"win": "win", "loss": "loss"}.get(verdict["kind"], "")
    parts = [
        element("p", verdict["words"][:1].upper() + verdict["words"][1:], class_=f"verdict {kind}".strip()),
        figure_element("race", race_figure(data.verdict), "Intervals of the final race", least_width=300),
        element(
            "p",
            "The finalists and the baseline were measured again, side by side, in fresh processes. A search "
            "reports the luckiest of many single measurements; this is the number to rely on. “The baseline "
            "once more” shows what the machine cannot tell apart: it should be close to 1. Bars are 95% "
            "intervals; inside the grey band a difference is too small to count.",
            class_="note",
        ),
    ]
    ranking, dropped = data.verdict.get("ranking") or [], data.verdict.get("dropped") or {}
    if len(ranking) > 1 or dropped:
        lines = [f"<tr>{element('td', name)}{element('td', f'{ratio:.4f}')}</tr>" for name, ratio in ranking]
        lines += [f"<tr>{element('td', name)}{element('td', why)}</tr>" for name, why in dropped.items()]
        parts.append(
            "<details><summary>All finalists</summary>"
            '<div class="scroll"><table class="data"><thead><tr><th>candidate</th>'
            f"<th>multiple of the baseline, or why it was dropped</th></tr></thead>{''.join(lines)}"
            "</table></div></details>"
        )
    return Section("verdict", "Verdict", *parts)


def _best(data: ReportData) -> Section:
    if not data.passed.any():
        return _nothing_passed(data)
    if data.verdict is not None:
        chosen, name = data.verdict["config"], None
        won = data.verdict["verdict"]["kind"] == "win"
        said = (
            f"Candidate {data.verdict['chosen']}, the winner of the final race."
            if won
            else "Keep the baseline: no finalist was proved better in the final race."
        )
        return _one_best(data, chosen, name, said)
    front = data.front
    if data.num_scores == 1:
        best = data.rows[front[0]]
        times = f", the median of {best.measured} measurements" if best.measured > 1 else ""
        return _one_best(data, best.config, None, f"Candidate {best.id}{times}.")
    head = "".join(
        element("th", name, class_="number")
        for name in (f"{name} ({mode})" for name, mode in zip(data.score_names, data.modes, strict=True))
    )
    lines = []
    evenly = np.linspace(0, len(front) - 1, min(len(front), _MOST_FRONT_ROWS)).round().astype(np.int64)
    for place in front[evenly]:
        row = data.rows[place]
        values = "".join(element("td", f"{value:.6g}", class_="number") for value in row.values)
        config = " ".join(text_of(row.config).split())
        lines.append(
            f"<tr>{element('td', row.id)}{values}{element('td', config[:300], title=config[:2000])}</tr>"
        )
    more = len(front) - _MOST_FRONT_ROWS
    left = (
        element("p", f"… and {more} more; the table below has them all.", class_="note") if more > 0 else ""
    )
    first = data.rows[front[0]]
    return Section(
        "best",
        "Best configurations",
        element(
            "p", "No other configuration is better than one of these in every score. Choose by what matters."
        ),
        f'<div class="scroll"><table class="data wide"><thead><tr><th>candidate</th>{head}'
        "<th>configuration</th></tr>"
        f"</thead>{''.join(lines)}</table></div>{left}",
        element("h3", f"To use one of them, here {first.id}"),
        _recipes(data, first.config, first.id),
    )


def _one_best(data: ReportData, config: Any, name: str | None, said: str) -> Section:
    parts = [element("p", said)]
    changed = changes(data, config)
    if changed:
        lines = "".join(
            f"<tr>{''.join(element('td', cell[:400]) for cell in change)}</tr>" for change in changed
        )
        parts.append(
            '<div class="scroll"><table class="data folded"><thead><tr><th>parameter</th><th>default</th>'
            f"<th>best</th></tr></thead>{lines}</table></div>"
        )
    return Section("best", "Best configuration", *parts, _recipes(data, config, name))


def _recipes(data: ReportData, config: Any, name: str | None) -> str:
    return "".join(
        f'{element("h3", recipe.title)}<div class="recipe">{element("pre", recipe.text, class_="wrap")}</div>'
        for recipe in recipes(data, config, name)
    )


def _nothing_passed(data: ReportData) -> Section:
    if not data.rows:
        return Section("best", "Nothing yet", element("p", "No evaluation has ended so far."))
    first: dict[str, Evaluated] = {}
    for row in data.rows:
        first.setdefault(row.status, row)
    lines = "".join(
        f"<tr>{element('td', status)}{element('td', count, class_='number')}"
        f"{element('td', first[status].message.strip()[:1500] or 'no message', class_='lines')}</tr>"
        for status, count in data.statuses.items()
    )
    return Section(
        "best",
        "Every evaluation failed",
        element(
            "p", "There is no best configuration. These are the failures, each kind with its first message."
        ),
        '<div class="scroll"><table class="data folded"><thead><tr><th>status</th>'
        '<th class="number">times</th>'
        f"<th>first message</th></tr></thead>{lines}</table></div>",
    )


def _convergence(data: ReportData) -> Section | None:
    if not data.passed.any():
        return None
    failures = {status: count for status, count in data.statuses.items() if status != OK}
    said = ", ".join(f"{count} {status}" for status, count in failures.items())
    parts = [
        figure_element(
            "convergence-figure", convergence_figure(data), "Scores over the search", least_width=320
        )
    ]
    if said:
        parts.append(
            element("p", f"Failures: {said}. The crosses below the scores show when.", class_="note")
        )
    return Section("convergence", "Convergence", *parts)


def _pareto(data: ReportData) -> Section | None:
    if data.num_scores < 2 or not data.passed.any():
        return None
    figure = pareto_figure(data)
    return Section(
        "pareto",
        "Pareto front",
        figure_element("pareto-figure", figure, "Scores against each other", least_width=320),
    )


def _importance(data: ReportData, parameters: Sequence[Parameter]) -> tuple[list[Parameter], Section | None]:
    """The parameters, the most important first, and what there is to say of that."""
    if not parameters or not data.passed.any():
        return list(parameters), None
    found = [importance.of_score(data, j, parameters) for j in range(data.num_scores)]
    usable = [one for one in found if not one.reason]
    parts = []
    if usable:
        quality = ", ".join(f"{one.quality:.0%} for {one.of}" for one in usable)
        parts += [
            figure_element(
                "importance-figure", importance_bars(found), "Importance of parameters", least_width=300
            ),
            element(
                "p",
                "A model (random forest) of the evaluations that passed predicts where a configuration "
                "ranks. A bar says which share of the variation the parameter accounts for, by how much "
                "worse the model does without knowing it: near 0 it hardly mattered; what parameters do "
                "together counts for each of them. "
                f"Of configurations it had not seen the model explains {quality}.",
                class_="note",
            ),
            element(
                "p",
                "It speaks of what was tried: a search tries most around its best, and a parameter that was "
                "never varied much cannot show what it does. It is no proof of a cause.",
                class_="note",
            ),
        ]
    for one in found:
        if one.reason:
            about = f"{one.of}: " if len(found) > 1 else ""
            parts.append(element("p", f"Which parameters matter cannot be said: {about}{one.reason}."))
    parts += _failing(importance.of_failures(data, parameters))
    most = {name: 0.0 for one in usable for name in one.names}
    for one in usable:
        for name, share in zip(one.names, one.shares, strict=True):
            most[name] = max(most[name], share)
    ranked = sorted(parameters, key=lambda parameter: -most.get(parameter.name, -1.0))
    return ranked if usable else list(parameters), Section("importance", "Which parameters matter", *parts)


def _failing(found: Importance | None) -> list[str]:
    if found is None:
        return []
    heading = element("h3", "Which parameters make candidates fail")
    if found.reason:
        return [heading, element("p", f"That cannot be said: {found.reason}.")]
    bars = figure_element(
        "failing-figure", importance_bars([found]), "What makes candidates fail", least_width=300
    )
    note = f"The same for failing or not; the model explains {found.quality:.0%} of unseen cases."
    return [heading, bars, element("p", note, class_="note")]


def _parallel(data: ReportData, parameters: Sequence[Parameter]) -> Section | None:
    figure = parallel_figure(data, parameters) if data.passed.any() else None
    if figure is None:
        return None
    axes = int(np.sum([parameter.varies for parameter in parameters]))
    note = "Each line is an evaluation; blue ones are good, grey ones bad. The last axis is the score."
    if axes > MOST_AXES:
        note += f" Of {axes} parameters the {MOST_AXES} most important are shown."
    return Section(
        "parallel",
        "Configurations side by side",
        figure_element(
            "parallel-figure", figure, "Parallel coordinates", least_width=88 * (min(axes, MOST_AXES) + 1)
        ),
        element("p", note, class_="note"),
    )


def _table(data: ReportData, parameters: Sequence[Parameter]) -> Section | None:
    if not data.rows:
        return None
    note = element("p", "Click a heading to sort, a row for all there is to know about it.", class_="note")
    return Section("evaluations-section", "All evaluations", note, table_html(data, parameters))
