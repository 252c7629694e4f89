"""The report as one HTML file: style, scripts, figures and data all in it, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import time
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray._files import write_atomic
from ciq_ray._version import __version__
from ciq_ray.errors import ConfigurationError
from ciq_ray.report.data import ReportData

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Section", "check_target", "data_script", "element", "figure_element", "write_report"]

_MARK: Final = "<!DOCTYPE html>\n<!-- ciq-ray report -->\n"


class Section:
    """A part of the page.

    Args:
        name: Its id, for links.
        title: Its heading.
        parts: HTML.
    """

    def __init__(self, name: str, title: str, *parts: str) -> None:
        self.name = name
        self.title = title
        self.parts = list(parts)

    @property
    def html(self) -> str:
        """The whole of it."""
        heading = element("h2", self.title)
        return f'<section id="{self.name}">{heading}{"".join(self.parts)}</section>'


def check_target(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """See that a report can be written before it is made.

    Args:
        path: Where to.
        force: Whether a file that is no report may be replaced.

    Raises:
        ConfigurationError: It cannot be written there, or something else is there.
    """
    try:
        target = Path(path)
        shown = repr(str(target))
        if target.is_dir():
            raise ConfigurationError(f"`path` is {shown}, a folder; name a file in it, such as report.html")
        if not target.parent.is_dir():
            raise ConfigurationError(f"`path` is {shown}; there is no folder {str(target.parent)!r}")
        if target.is_file():
            with target.open("rb") as file:
                is_ours = file.read(len(_MARK)) in (_MARK.encode(), b"")
            if not is_ours and not force:
                raise ConfigurationError(
                    f"`path` is {shown}, which exists and is no report; choose another name, or use force"
                )
        writable = target if target.exists() and not target.is_file() else target.parent
        if not os.access(writable, os.W_OK):
            raise ConfigurationError(f"`path` is {shown}, and {str(writable)!r} cannot be written")
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"`path` is {path!r}, which cannot be written: {error}") from error
    return target


def write_report(data: ReportData, path: Path) -> Path:
    """Make the report and write it, as a whole or not at all.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    from ciq_ray.report.sections import header, sections

    content = _page(data, header(data), sections(data))
    try:
        return write_atomic(path, [content.encode("utf-8", "backslashreplace")])
    except OSError as error:
        raise ConfigurationError(f"`path` is {str(path)!r}, which cannot be written: {error}") from error


def element(tag: str, text: object, **attributes: str) -> str:
    """An element that holds a text, which may be anything; ``class_`` stands for ``class``."""
    given = "".join(f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{given}>{html.escape(str(text))}</{tag}>"


def data_script(name: str, data: Any) -> str:
    """Data for the page's own script, in a form that cannot end the element it is in."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def figure_element(name: str, figure: go.Figure, label: str, *, least_width: int = 0) -> str:
    """A figure's place and its data.

    Args:
        name: Its id.
        figure: What is drawn.
        label: What it shows, for those who cannot see it.
        least_width: Pixels below which the page scrolls it sideways instead of making it narrower.
    """
    height = int(figure.layout.height)
    place = (
        f'<div class="scroll"><div class="figure" id="{name}" role="img" aria-label="{html.escape(label)}" '
        f'style="height:{height}px;min-width:{least_width}px"></div></div>'
    )
    return place + data_script(f"{name}-data", figure.to_json())


def _page(data: ReportData, header: str, sections: Iterable[Section]) -> str:
    from plotly.offline import get_plotlyjs

    parts = list(sections)
    links = "".join(f'<a href="#{part.name}">{html.escape(part.title)}</a>' for part in parts)
    title = "ciq-ray report" if data.view is None else f"ciq-ray run {data.view.folder.name}"
    plotly, own = get_plotlyjs(), _asset("page.js")
    # whatever else might get into this page, only these two scripts run, and nothing is fetched
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(own)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )
    made = f"Made by ciq-ray {__version__}, {time.strftime('%Y-%m-%d %H:%M')}. This file needs no network."
    return (
        f'{_MARK}<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{element('title', title)}<style>{_asset('page.css')}</style></head><body>"
        f"<header>{header}</header><nav>{links}</nav>"
        f"<main>{''.join(part.html for part in parts)}</main>{element('footer', made)}"
        f"<script>{plotly}</script><script>{own}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("ciq_ray.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
