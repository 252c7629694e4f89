"""The report: one file, in a real browser without a network."""

from __future__ import annotations

import html
import json
import re

import pytest

from ciq_ray import SearchResult
from ciq_ray.errors import ConfigurationError
from ciq_ray.race import Plan
from ciq_ray.report.data import ReportData
from ciq_ray.report.html import check_target, data_script, write_report
from ciq_ray.search_spaces.compilers import PtxasSearchSpace
from searchers import Choice, Range, Space

RACE = Plan(finalists=2, pick_blocks=1, verdict_blocks=6, windows=1)
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def opened(watched_page, path, **options):
    """The page, drawn; it must have fetched nothing, run nothing else, and complained of nothing."""
    watched = watched_page(offline=True, **options)
    watched.page.goto(path.as_uri())
    watched.page.wait_for_selector("body[data-drawn]")
    assert watched.errors == []
    assert watched.requests == [path.as_uri()]
    assert watched.page.evaluate("window.hacked") is None
    return watched.page


def headings(page):
    return page.locator("h2").all_inner_texts()


def column(page, name):
    names = [text.split(" ")[0] for text in page.locator("#evaluations thead th").all_inner_texts()]
    place = names.index(name) + 1
    return page.locator(f"#evaluations tbody tr.row td:nth-child({place})").all_inner_texts()


class TestInABrowser:
    def test_a_search_with_failures_and_hostile_texts(self, searched, page, watched_page, screenshots):
        result = searched(final_race=False)
        assert result.report(page) == page
        seen = opened(watched_page, page)
        assert headings(seen) == [
            "Best configuration",
            "Convergence",
            "Which parameters matter",
            "Configurations side by side",
            "Devices and times",
            "All evaluations",
            "About this search",
        ]
        assert seen.locator("svg.main-svg").count() > 6
        assert "resource_exceeded" in seen.inner_text("#convergence")
        best = result.get_best_result()
        assert f"{best['score']:.6g}" in seen.inner_text(".tiles")
        assert f"'BLOCK': {best['params']['BLOCK']}" in seen.inner_text("#best")
        # sorted by the score at first, failures last; then as clicked
        scores = column(seen, "score")
        passed = [float(text) for text in scores if text]
        assert passed == sorted(passed)
        assert passed[0] == pytest.approx(best["score"])
        assert "" not in scores[: len(passed)]
        block = seen.get_by_role("button", name="BLOCK", exact=True)
        block.click()
        assert column(seen, "BLOCK") == sorted(column(seen, "BLOCK"), key=int)
        seen.get_by_role("button", name="BLOCK ▲").click()
        assert column(seen, "BLOCK") == sorted(column(seen, "BLOCK"), key=int, reverse=True)
        # filtered by status and by words
        failed = sum(result.get_results()["status"] == "resource_exceeded")
        seen.select_option("#status", "resource_exceeded")
        assert seen.inner_text("#count") == f"{failed} of 100 evaluations"
        seen.select_option("#status", "")
        seen.fill("#filter", "three STAGES")
        assert set(column(seen, "status")) == {"run_error"}
        # a row's details have the whole message, as text
        seen.fill("#filter", "resource_exceeded")
        seen.locator("#evaluations tbody tr.row").first.click()
        detail = seen.inner_text("tr.detail")
        assert HOSTILE in detail
        assert "ciq show" in detail
        seen.fill("#filter", "")
        seen.screenshot(path=screenshots / "report_desktop.png", full_page=True)
        phone = opened(watched_page, page, width=390, height=844, dark=True)
        assert phone.evaluate("document.documentElement.scrollWidth") == 390
        phone.screenshot(path=screenshots / "report_phone.png", full_page=True)

    def test_several_scores_and_the_dark(self, searched, page, watched_page, screenshots):
        result = searched(_two_scores, num_objectives=2, generations=3)
        result.report(page)
        seen = opened(watched_page, page, dark=True)
        assert "Pareto front" in headings(seen)
        points = {(row["score_0"], row["score_1"]) for row in result.pareto_front()}
        assert len(points) == int(seen.locator(".tile b").first.inner_text())
        assert "--id" in seen.inner_text("#best")
        seen.screenshot(path=screenshots / "report_front_dark.png", full_page=True)

    @pytest.mark.slow
    def test_ten_thousand_evaluations(self, made, page, watched_page):
        configs = [{f"p{j}": (i * (j + 3)) % 17 for j in range(60)} for i in range(10_000)]
        data = made(configs, [float(c["p0"] + c["p1"]) if c["p2"] else None for c in configs])
        write_report(data, page)
        seen = opened(watched_page, page)
        assert seen.inner_text("#count") == "10000 evaluations"
        took = seen.evaluate(
            "() => { const begun = performance.now(); const filter = document.getElementById('filter');"
            "filter.value = 'p3=5 ok'; filter.dispatchEvent(new Event('input'));"
            "return performance.now() - begun; }"
        )
        assert took < 3000
        assert seen.locator("#evaluations tbody tr.row").count() == 100
        seen.click("#more")
        assert seen.locator("#evaluations tbody tr.row").count() == 200
        assert "Of 57 parameters the 11 most important" in seen.inner_text("#parallel")


class TestWhatIsInIt:
    def text(self, path):
        content = path.read_text()
        content = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", content, flags=re.DOTALL)
        return re.sub(r"<[^>]+>", " ", content)

    def test_plotly_is_in_it_once(self, made, page):
        write_report(made([{"x": 1}], [1.0]), page)
        content = page.read_text()
        assert content.count("plotly.js v") == 1
        assert "<script src" not in content
        assert "<link" not in content

    def test_no_results(self, page):
        SearchResult(None, "min", 1).report(page)
        assert "No evaluation has ended so far" in self.text(page)

    def test_everything_failed(self, searched, page):
        searched(_always_fails, generations=1, exit_on_failure=False).report(page)
        content = page.read_text()
        assert "<h2>Every evaluation failed</h2>" in content
        assert HOSTILE not in content
        assert html.escape(f"no luck {HOSTILE}") in content

    def test_a_single_evaluation(self, searched, page):
        searched(max_evaluations=1).report(page)
        assert "no parameter takes more than one value" in self.text(page)

    def test_a_list_of_parts(self, searched, page):
        spaces = [Space({"x": Range(0, 9)}), Space({"y": Choice(["a", "bb"])})]
        searched(lambda c: float(c[0]["x"] + len(c[1]["y"])), spaces, generations=2).report(page)
        text = self.text(page)
        assert "Part 0" in text
        assert "parts[0][&quot;x&quot;]" in text

    def test_options_of_a_compiler(self, searched, page):
        result = searched(lambda text: float(len(text)), PtxasSearchSpace(), generations=2)
        result.report(page)
        assert "opt_level" in self.text(page)
        assert "--format flags &gt; options.txt" in self.text(page)
        result.folder = None  # only the texts are left
        result.report(page)
        assert "nothing on single parameters" in self.text(page)

    def test_normalized(self, searched, page):
        space = Space({"x": Range(0, 30)}, default={"x": 20})
        searched(lambda c: 1.0 + c["x"], space, normalize=True).report(page)
        assert "the baseline&#x27;s score" in self.text(page)

    def test_the_verdict_of_a_race(self, searched, page):
        space = Space({"x": Range(0, 30)}, default={"x": 20})
        result = searched(lambda c: 1.0 + c["x"], space, final_race=RACE, generations=1)
        result.report(page)
        text = self.text(page)
        assert result.verdict.words[10:60] in text
        assert "winner of the final race" in text

    def test_metrics_and_devices(self, searched, page):
        searched(_with_clock, {"x": Range(0, 30)}, generations=1).report(page)
        text = self.text(page)
        assert "sm_clock_mhz" in text
        assert "native-0" in text

    def test_of_a_table_alone(self, searched, page, tmp_path):
        searched().save(tmp_path / "results.csv")
        SearchResult.from_csv(tmp_path / "results.csv", "min").report(page)
        text = self.text(page)
        assert "Results of a search" in text
        assert "BLOCK" in text


class TestTheFile:
    def test_an_earlier_report_is_replaced(self, made, page):
        write_report(made([{"x": 1}], [1.0]), page)
        SearchResult(None, "min", 1).report(page)
        assert "No evaluation has ended" in page.read_text()

    def test_another_file_is_not(self, page):
        page.write_text("my thesis")
        with pytest.raises(ConfigurationError, match=r"`path` is .*exists and is no report.*force"):
            SearchResult(None, "min", 1).report(page)
        assert page.read_text() == "my thesis"
        SearchResult(None, "min", 1).report(page, force=True)
        assert "my thesis" not in page.read_text()

    def test_where_it_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path, message in (
            (tmp_path, "a folder"),
            (tmp_path / "no" / "report.html", "there is no folder"),
            (tmp_path / "file" / "report.html", "there is no folder"),
            ("/proc/report.html", "cannot be written"),
            (3, "cannot be written"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                SearchResult(None, "min", 1).report(path)

    def test_it_is_checked_before_any_work(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ReportData, "of_result", lambda result: pytest.fail("too late"))
        with pytest.raises(ConfigurationError):
            SearchResult(None, "min", 1).report(tmp_path)

    def test_an_empty_file_is_fine(self, page):
        page.touch()
        assert check_target(page) == page

    def test_what_has_no_utf8_form(self, made, page):
        write_report(
            made([{"x": "\udc80\x00", "\ud800": i} for i in range(20)], [float(i) for i in range(20)]), page
        )
        assert page.stat().st_size > 4_000_000

    def test_data_cannot_end_its_element(self):
        script = data_script("x", {"a": "</script><!--<script>&"})
        body = script.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
        assert "<" not in body
        assert json.loads(body) == {"a": "</script><!--<script>&"}


def _two_scores(config):
    return float(config["BLOCK"]), 1000 / config["BLOCK"] + config["stages"]


def _always_fails(config):
    raise ValueError(f"no luck {HOSTILE}")


def _with_clock(config):
    from searchers import Outcome

    return Outcome("ok", (float(config["x"]),), metrics={"sm_clock_mhz": 1410 + config["x"], "ok": True})


def test_devices_are_nodes_and_gpus_not_actors(searched, page):
    result = searched(_with_clock, {"x": Range(0, 30)}, generations=1, pool_size=6)
    journal = result.folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for number, line in enumerate(line for line in lines if line.get("t") == "outcome"):
        line["place"] = {"node": "n1", "gpu": f"GPU-{number % 2}", "actor": str(number)}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ReportData.of_run(result.folder)
    assert {row.device for row in data.rows} == {"node n1 gpu GPU-0", "node n1 gpu GPU-1"}
    write_report(data, page)
    assert "node n1 gpu GPU-1" in page.read_text()
