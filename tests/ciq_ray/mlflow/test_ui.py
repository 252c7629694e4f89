"""A finished search, as MLflow's own pages show it in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciq_ray import SearchConfiguration

OF_MLFLOW = ("AG Grid: since", "GL Driver Message", "the server responded with a status of 404")
"""What its pages say without us; of what was not found we look at the addresses."""


def two(config: dict[str, Any]) -> tuple[float, float]:
    return float(config["x"]), float(10000 - config["x"] ** 2)


@pytest.mark.timeout(300)
def test_a_search_in_the_pages_of_mlflow(
    server: Any,
    config: Any,
    search: Any,
    watched_page: Callable[..., Any],
    screenshots: Path,
) -> None:
    from tests.ciq_ray.mlflow.conftest import Looking

    fields = {"search_config": SearchConfiguration(generations=3, pool_size=8, num_objectives=2)}
    wanted = config(
        server.uri,
        run_name="seen in a browser",
        description="Tiles of *gemm*.",
        score_names=["time_ms", "energy_mj"],
    )
    search(two, wanted, **fields).start(num_workers=2)
    looking = Looking(server.uri)
    [parent] = [run for run in looking.runs() if run.info.run_name == "seen in a browser"]
    children = looking.runs(parent)
    assert len(children) == 24

    watched = watched_page(1800, 1000)
    page = watched.page
    missing: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    page.set_default_timeout(45_000)
    links = dict(re.findall(r"\[([^\]]+)\]\(([^)]+)\)", parent.data.tags["mlflow.note.content"]))

    page.goto(links["All evaluations in a table"])
    row = page.get_by_role("link", name="seen in a browser", exact=True).first
    row.wait_for()
    first = children[0].info.run_name
    expander = page.locator("[role=gridcell]", has=row).locator("button").first
    assert page.get_by_role("link", name=first, exact=True).count() == 0
    page.screenshot(path=screenshots / "mlflow-1-searches.png")
    expander.click()
    page.get_by_role("link", name=first, exact=True).first.wait_for()
    page.screenshot(path=screenshots / "mlflow-2-evaluations.png")

    page.goto(links["This search"])
    page.get_by_text("Tiles of").first.wait_for()
    page.get_by_text("hypervolume").first.wait_for()
    page.screenshot(path=screenshots / "mlflow-3-search.png", full_page=True)

    page.goto(links["This search"].replace("?", "/artifacts?"))
    page.get_by_text("figures", exact=True).first.click()
    page.get_by_text("pareto.html", exact=True).first.click()
    figure = page.frame_locator("iframe").first.locator(".plot-container .main-svg").first
    figure.wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "mlflow-4-figure.png")
    page.get_by_text("front.csv", exact=True).first.click()
    page.get_by_text("energy_mj").first.wait_for()
    page.screenshot(path=screenshots / "mlflow-5-front.png")

    [compare] = [address for name, address in links.items() if name.startswith("Compare")]
    page.goto(compare)
    page.get_by_text("Comparing", exact=False).first.wait_for()
    page.get_by_text("time_ms").first.wait_for()
    page.screenshot(path=screenshots / "mlflow-6-compare.png")

    page.goto(f"{server.uri}/#/experiments/{looking.experiment_id}/runs/{children[0].info.run_id}")
    page.get_by_text("energy_mj").first.wait_for()
    page.screenshot(path=screenshots / "mlflow-7-evaluation.png")

    assert [text for text in watched.errors if not any(known in text for known in OF_MLFLOW)] == []
    assert [address for address in missing if "artifact" in address or "/runs/" in address] == []
