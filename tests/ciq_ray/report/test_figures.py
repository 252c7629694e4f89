"""The figures that a result can be asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ciq_ray import SearchResult
from ciq_ray.errors import ResultError
from ciq_ray.report.figures import convergence_figure, importance_figure, pareto_figure
from ciq_ray.report.panels import device_figure, parallel_figure


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def titles(figure, axis):
    return [figure.layout[key].title.text for key in figure.layout if key.startswith(axis)]


@pytest.mark.parametrize(("mode", "best"), [("min", [5, 3, 2, 2]), ("max", [5, 5, 9, 9])])
def test_convergence(made, mode, best):
    data = made(
        [{"x": i} for i in range(6)], [5.0, None, 3.0, 2.0 if mode == "min" else 9.0, 4.0, None], mode
    )
    figure = convergence_figure(data)
    (line,) = traces(figure, "best so far")
    steps = dict(zip(line.x.tolist(), line.y.tolist(), strict=True))
    at = [max(place for place in steps if place <= number) for number in (1, 3, 4, 6)]
    assert [steps[place] for place in at] == best
    (points,) = traces(figure, "evaluation")
    assert points.x.tolist() == [1, 3, 4, 5]
    (failed,) = traces(figure, "run_error")
    assert failed.x.tolist() == [2, 6]
    assert any(
        "less" in str(title) if mode == "min" else "more" in str(title) for title in titles(figure, "yaxis")
    )
    assert "evaluation" in titles(figure, "xaxis")


def test_convergence_of_several_scores_and_many_points(made):
    rng = np.random.default_rng(0)
    scores = [tuple(row) for row in rng.lognormal(size=(10_000, 2)).tolist()]
    figure = convergence_figure(made([{"x": i} for i in range(10_000)], scores, "min", "max"))
    assert len(traces(figure, "best so far")) == 2
    for points in traces(figure, "evaluation"):
        assert len(points.x) < 5000
    assert figure.layout.yaxis.type == "log"  # of several magnitudes
    assert traces(figure, "best so far")[1].y[-1] == max(second for _, second in scores)
    assert traces(figure, "best so far")[0].y[-1] == min(first for first, _ in scores)


def test_pareto_of_two(made):
    scores = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (1.0, 0.5), (4.0, 4.0), None]
    figure = pareto_figure(made([{"x": i} for i in range(6)], scores, "min", "max"))
    (front,) = traces(figure, "Pareto front")
    assert list(zip(front.x, front.y, strict=True)) == [(1, 1), (2, 3), (4, 4)]
    (others,) = traces(figure, "beaten by another")
    assert sorted(others.x) == [1, 3]


@pytest.mark.parametrize(("count", "panels"), [(3, 3), (4, 6), (6, 6)])
def test_pareto_of_more(made, count, panels):
    rng = np.random.default_rng(0)
    scores = [tuple(row) for row in rng.random((30, count)).tolist()]
    figure = pareto_figure(made([{"x": i} for i in range(30)], scores, *["min"] * count))
    assert len(traces(figure, "Pareto front")) == panels


def test_importance_of_several_scores(made):
    configs = [{"x": i % 7, "y": i % 5} for i in range(70)]
    scores = [(float(c["x"]), float(c["y"])) for c in configs]
    figure = importance_figure(made(configs, scores, "min", "min"))
    first, second = figure.data
    assert first.y[int(np.argmax(first.x))] == "x"
    assert second.y[int(np.argmax(second.x))] == "y"


def test_texts_are_shown_as_they_are(made):
    hostile = "<b>bold</b><a href='https://example.org'>x</a>%{x}"
    configs = [{hostile: i, "text": hostile} for i in range(20)]
    data = made(configs, [float(i) for i in range(20)])
    for figure in (
        convergence_figure(data),
        importance_figure(data),
        parallel_figure(data, data.parameters()),
    ):
        assert "<a href" not in figure.to_json().replace("\\u003c", "<")
    # what is no template is not filled in
    assert all(hostile not in (trace.hovertemplate or "") for trace in convergence_figure(data).data)


def test_parallel_of_nothing_to_compare(made):
    assert parallel_figure(made([{"x": 1}], [1.0]), []) is None
    data = made([{"x": 1}] * 3, [1.0] * 3)
    assert parallel_figure(data, data.parameters()) is None
    assert device_figure(data) is None


def test_parallel_shows_the_best_on_top_and_absent_values_below(made):
    configs = [{"x": i, **({"flag": "-x"} if i % 2 else {})} for i in range(1000)]
    data = made(configs, [float(abs(i - 300)) for i in range(1000)])
    figure = parallel_figure(data, data.parameters())
    best = figure.data[-1]
    assert best.y[0] == pytest.approx(300 / 999)
    assert best.y[1] < 0
    assert best.y[2] == 0
    # a gap ends each line
    assert sum(int(np.isnan(trace.x).sum()) for trace in figure.data[:-1]) == 399


class TestOfResults:
    def test_of_a_table(self, tmp_path):
        path = tmp_path / "results.csv"
        rows = "\n".join(f'{i // 10},{abs(i - 30)},"{{""x"": {i}, ""y"": {i % 3}}}"' for i in range(60))
        path.write_text(f'generation,score,params\n{rows}\n1,*,"{{""x"": 99, ""y"": 0}}"\n')
        result = SearchResult.from_csv(path, "min")
        assert traces(result.plot_convergence(), "best so far")[0].y[-1] == 0
        assert len(traces(result.plot_convergence(), "invalid_result")[0].x) == 1
        assert result.plot_importance().data[0].y[-1] == "x"

    def test_with_a_folder_names_are_those_of_the_run(self, searched, tmp_path):
        result = searched(lambda c: (float(c["BLOCK"]), 1.0), num_objectives=2, generations=1)
        assert titles(result.plot_pareto(), "xaxis")[0].startswith("score_0 ")
        folder, result.folder = result.folder, tmp_path / "gone"
        assert len(result.plot_pareto().data) == 2
        (folder / "journal.jsonl").write_text("torn\n")
        result.folder = folder
        assert len(result.plot_pareto().data) == 2

    def test_nothing_there(self):
        result = SearchResult(None, "min", 2)
        for plot in (result.plot_convergence, result.plot_pareto, result.plot_importance):
            with pytest.raises(ResultError, match="nothing has been evaluated"):
                plot()

    def test_one_score_has_no_front(self):
        with pytest.raises(ResultError, match=r"at least two scores.*`?plot_convergence`?"):
            SearchResult(None, "min", 1).plot_pareto()

    def test_all_failed(self, made):
        data = made([{"x": 1}] * 3, [None] * 3)
        with pytest.raises(ResultError, match=r"all 3 evaluations failed \(3 run_error\)"):
            convergence_figure(data)

    def test_importance_of_noise_is_refused(self, made):
        rng = np.random.default_rng(0)
        data = made([{"x": i % 9} for i in range(90)], rng.random(90).tolist())
        with pytest.raises(ResultError, match="cannot be said"):
            importance_figure(data)

    def test_importance_of_texts_is_refused(self, made):
        data = made(["-O1", "-O2"], [1.0, 2.0])
        with pytest.raises(ResultError, match="texts"):
            importance_figure(data)

    def test_scores_without_a_spread(self, made):
        figure = convergence_figure(made([{"x": 1}], [math.pi]))
        assert figure.layout.yaxis.type == "linear"
