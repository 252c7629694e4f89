"""The documented types: enums, the worker base, the configurations."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ciq_ray.types as types
from ciq_ray.errors import ConfigurationError, ScoreError, UnsupportedError
from ciq_ray.types import (
    INVALID_SCORE,
    BaseTracker,
    DefaultTrackerConfig,
    DisabledTrackerConfig,
    InternalSearchConfiguration,
    LoguruTrackerConfig,
    MLflowTrackerConfig,
    MultiScoreComparison,
    ProblemType,
    Score,
    SearchConfiguration,
    TrackerConfig,
    TrackerTypes,
    Worker,
    WorkerTypes,
)


def test_exported_names_are_pinned() -> None:
    assert types.__all__ == [
        "INVALID_SCORE",
        "BaseTracker",
        "DefaultTrackerConfig",
        "DisabledTrackerConfig",
        "InternalSearchConfiguration",
        "LoguruTrackerConfig",
        "MLflowTrackerConfig",
        "MultiScoreComparison",
        "Params",
        "ProblemType",
        "Score",
        "ScoreValue",
        "Scores",
        "SearchConfiguration",
        "TrackerConfig",
        "TrackerTypes",
        "Worker",
        "WorkerTypes",
    ]
    assert all(getattr(types, name) is not None for name in types.__all__)
    with pytest.raises(AttributeError, match="Wroker"):
        types.Wroker  # noqa: B018


def test_the_invalid_score_costs_no_heavy_import() -> None:
    code = (
        "import sys; from ciq_ray.types import INVALID_SCORE, Worker, BaseTracker, WorkerTypes; "
        "print([m for m in ('pydantic', 'pandas', 'numpy', 'ray', 'loguru', 'moocore') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_enum_values() -> None:
    assert [kind.value for kind in ProblemType] == ["min", "max"]
    assert (MultiScoreComparison.AVERAGE, MultiScoreComparison.STDDEV, MultiScoreComparison.PARETO) == (
        "avg",
        "stddev",
        "pareto_front",
    )
    assert (TrackerTypes.LOGURU, TrackerTypes.MLFLOW, TrackerTypes.DISABLED) == (
        "loguru",
        "mlflow",
        "disabled",
    )
    assert [kind.value for kind in WorkerTypes] == ["native", "isolated", "ray", "async"]
    assert WorkerTypes.DEFAULT is WorkerTypes.NATIVE
    assert INVALID_SCORE == "*"


def test_worker_types_give_their_classes() -> None:
    names = {
        WorkerTypes.DEFAULT: "MultiProcessWorker",
        WorkerTypes.ISOLATED: "IsoMultiProcessWorker",
        WorkerTypes.ASYNC: "AsyncWorker",
    }
    for kind, name in names.items():
        found = kind.worker_type()
        assert issubclass(found, Worker)
        assert found.__name__ == name


class Echo(Worker):
    """The least a worker can be."""

    def run(
        self,
        *,
        function: Any,
        params_pool: Any,
        params_ids: Any,
        num_function_returns: int = 1,
        num_workers: int = 1,
        **kwargs: Any,
    ) -> list[Score]:
        return [
            Score(score=function(params), params=params, param_id=number, num_objectives=num_function_returns)
            for params, number in zip(params_pool, params_ids, strict=True)
        ]

    @classmethod
    def create(cls, cache_folder: Any, normalize: bool, tracker: BaseTracker | None) -> Echo:
        return cls(cache_folder, normalize, tracker)


class TestWorker:
    def test_properties_and_their_defaults(self, tmp_path: Path) -> None:
        worker = Echo(tmp_path)
        assert worker.cache_dir == tmp_path
        assert (worker.normalize, worker.respects_num_workers, worker.supports_timeout) == (
            False,
            False,
            False,
        )
        assert worker.baseline_score is None
        assert worker.current_generation == 0
        assert worker.tracker.tracker_type is TrackerTypes.DISABLED
        worker.baseline_score, worker.current_generation = 2.0, 3
        assert (worker.baseline_score, worker.current_generation) == (2.0, 3)

    def test_arguments_arrive(self, tmp_path: Path) -> None:
        worker = Echo(str(tmp_path), True, None, True, True)
        assert (worker.normalize, worker.respects_num_workers, worker.supports_timeout) == (True, True, True)
        assert Echo.create(tmp_path, True, None).normalize

    def test_run_and_create_must_be_implemented(self) -> None:
        with pytest.raises(TypeError, match="abstract"):
            Worker("x")  # type: ignore[abstract]

    def test_a_cache_folder_must_be_a_path(self) -> None:
        with pytest.raises(ConfigurationError, match="`cache_folder` is 3"):
            Echo(3)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("current", "baseline", "expected"),
        [
            (3.0, 2, 1.5),
            ("*", 2, "*"),
            ([3, "*"], [2, 4.0], [1.5, "*"]),
            ((3, 8), [2, 4], (1.5, 2.0)),
            (1e308, 1e-300, "*"),
            (10**400, 3, "*"),
        ],
    )
    def test_normalized_is_current_over_baseline(self, current: Any, baseline: Any, expected: Any) -> None:
        found = Worker.normalize_scores(current, baseline)
        assert found == expected
        assert type(found) is type(expected)

    @pytest.mark.parametrize(
        ("current", "baseline", "named"),
        [
            (1.0, 0, "baseline_score"),
            ("*", 0, "baseline_score"),
            (1.0, "*", "baseline_score"),
            (1.0, float("nan"), "baseline_score"),
            (1.0, True, "baseline_score"),
            (1.0, 10**400, "baseline_score"),
            (True, 1.0, "current_score"),
            ("1", 1.0, "current_score"),
            ([1.0], 1.0, "both must be one score"),
            ([1.0, 2.0], [1.0], "as many"),
        ],
    )
    def test_what_cannot_be_normalized(self, current: Any, baseline: Any, named: str) -> None:
        with pytest.raises(ScoreError, match=named):
            Worker.normalize_scores(current, baseline)

    def test_invalid_scores(self) -> None:
        assert Worker.invalidate_score(1) == "*"
        assert Worker.invalidate_score(3) == ("*", "*", "*")
        for bad in (0, True, 1.0, "2"):
            with pytest.raises(ConfigurationError, match="`num_objectives`"):
                Worker.invalidate_score(bad)  # type: ignore[arg-type]


class TestTrackerConfigs:
    def test_defaults(self) -> None:
        assert TrackerConfig(type="loguru").type is TrackerTypes.LOGURU
        assert TrackerConfig(type=TrackerTypes.MLFLOW).enqueue is True
        assert DisabledTrackerConfig().type is TrackerTypes.DISABLED
        assert DefaultTrackerConfig(type="disabled").type is TrackerTypes.DISABLED
        assert isinstance(DefaultTrackerConfig(), DisabledTrackerConfig)
        loguru = LoguruTrackerConfig()
        assert (loguru.type, loguru.sink, loguru.enqueue, loguru.level) == ("loguru", None, True, "INFO")
        assert loguru.format == (
            "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {extra[task_id]} | {message}"
        )
        mlflow = MLflowTrackerConfig()
        assert mlflow.model_dump() == {
            "type": "mlflow",
            "enqueue": True,
            "experiment_name": None,
            "run_name": None,
            "tracking_uri": None,
            "description": None,
            "score_names": [],
            "log_config": True,
            "live_runs": False,
        }

    def test_a_sink_is_shared_not_copied(self) -> None:
        stream = io.StringIO()
        assert LoguruTrackerConfig(sink=stream).sink is stream

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: TrackerConfig(), "`type` is missing"),
            (lambda: TrackerConfig(type="print"), "`type` is 'print'; it should be 'loguru'"),
            (lambda: DisabledTrackerConfig(type="loguru"), "`type` is"),
            (lambda: LoguruTrackerConfig(sink=3), "3 is no sink"),
            (lambda: LoguruTrackerConfig(sink=[]), "empty list"),
            (lambda: LoguruTrackerConfig(sink=""), "must not be empty"),
            (lambda: LoguruTrackerConfig(snik="x"), "`snik` is not a field .* Did you mean `sink`"),
            (lambda: LoguruTrackerConfig(enqueue=1), "`enqueue` is 1"),
            (lambda: MLflowTrackerConfig(score_names="a"), "`score_names` is 'a'"),
        ],
    )
    def test_bad_ones(self, make: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            make()


class TestSearchConfiguration:
    def test_defaults(self) -> None:
        assert SearchConfiguration(generations=3).to_json_dict() == {
            "problem_type": "min",
            "normalize": False,
            "num_objectives": 1,
            "generations": 3,
            "pool_size": None,
            "cull_size": None,
            "mutate_rate": 0.25,
            "objective_weights": None,
            "init_with_true_random_threshold": 0.9,
            "enable_large_fail_pool": True,
        }

    def test_problem_types_by_name_and_member(self) -> None:
        for given_as in ("max", ProblemType.MAX):
            config = SearchConfiguration(generations=1, problem_type=given_as)
            assert config.problem_type is ProblemType.MAX

    @pytest.mark.parametrize(
        ("fields", "pool", "cull"),
        [
            ({}, 32, 16),
            ({"num_objectives": 2}, 48, 24),
            ({"pool_size": 6}, 6, 2),
            ({"pool_size": 10}, 10, 4),
            ({"pool_size": 10, "cull_size": 8}, 10, 8),
            ({"cull_size": 30}, 32, 30),
        ],
    )
    def test_sizes_follow_when_they_are_not_given(self, fields: Any, pool: int, cull: int) -> None:
        config = SearchConfiguration(generations=1, **fields)
        assert (config.resolved_pool_size, config.resolved_cull_size) == (pool, cull)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"generations": 0}, "`generations` is 0; it should be greater than 0"),
            ({"generations": "10"}, "`generations` is '10'; it should be a valid integer"),
            ({"generations": True}, "`generations` is True"),
            ({"generations": 2.0}, "`generations` is 2.0"),
            ({"generations": 10**5000}, "`generations` is a int"),
            ({"num_objectives": 0}, "`num_objectives` is 0"),
            ({"pool_size": 5}, "`pool_size` is 5; it should be greater than 5"),
            ({"cull_size": 0}, "`cull_size` is 0"),
            ({"cull_size": 3}, "`cull_size` is 3; it should be a multiple of 2"),
            ({"pool_size": 8, "cull_size": 8}, "`cull_size` is 8; it must be below `pool_size`, which is 8"),
            ({"cull_size": 32}, "must be below `pool_size`, which is 32"),
            ({"mutate_rate": 0}, "`mutate_rate` is 0; it should be greater than 0"),
            ({"mutate_rate": 1.0}, "`mutate_rate` is 1.0; it should be less than 1"),
            ({"mutate_rate": float("nan")}, "`mutate_rate` is nan"),
            ({"objective_weights": [1, 2]}, "`objective_weights` has 2 weights; `num_objectives` is 1"),
            ({"objective_weights": [0.0]}, r"`objective_weights\[0\]` is 0.0"),
            ({"objective_weights": [float("inf")]}, r"`objective_weights\[0\]` is inf"),
            ({"objective_weights": ["1"]}, r"`objective_weights\[0\]` is '1'"),
            ({"init_with_true_random_threshold": 1.5}, "`init_with_true_random_threshold` is 1.5"),
            ({"init_with_true_random_threshold": -0.1}, "`init_with_true_random_threshold` is -0.1"),
            ({"problem_type": "minimize"}, "`problem_type` is 'minimize'; it should be 'min' or 'max'"),
            ({"normalize": "yes"}, "`normalize` is 'yes'"),
            ({"enable_large_fail_pool": 1}, "`enable_large_fail_pool` is 1"),
            ({"pool": 10}, "`pool` is not a field .* Did you mean `pool_size`.*fields are problem_type"),
        ],
    )
    def test_bad_fields(self, fields: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            SearchConfiguration(**{"generations": 1, **fields})
        with pytest.raises(ConfigurationError, match=message):
            SearchConfiguration.model_validate({"generations": 1, **fields})

    def test_generations_are_required(self) -> None:
        with pytest.raises(ConfigurationError, match="`generations` is missing"):
            SearchConfiguration()  # type: ignore[call-arg]

    def test_every_fault_is_named_at_once(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            SearchConfiguration(generations=0, pool_size=1, extra=2)  # type: ignore[call-arg]
        assert len(str(caught.value).splitlines()) == 3

    def test_a_refused_assignment_changes_nothing(self) -> None:
        config = SearchConfiguration(generations=1, pool_size=8)
        for name, value in (("cull_size", 20), ("generations", "3"), ("pool", 3)):
            with pytest.raises(ConfigurationError, match=f"`{name}`"):
                setattr(config, name, value)
        assert config == SearchConfiguration(generations=1, pool_size=8)
        config.generations = 7
        assert config.generations == 7

    def test_load(self, tmp_path: Path) -> None:
        config = SearchConfiguration(generations=4, num_objectives=2, objective_weights=[2.0, 1.0])
        legacy, as_json = tmp_path / "a.config", tmp_path / "b.config"
        legacy.write_text(config.to_legacy())
        as_json.write_text(json.dumps(config.to_json_dict()))
        assert SearchConfiguration.load(config) is config
        for source in (config.to_json_dict(), legacy, str(legacy), as_json):
            assert SearchConfiguration.load(source) == config

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"(generations 1", "line 1, column 1"),
            (b'{"generations": 1,\n "generations": 2}', "`generations` appears for the second time"),
            (b'{"generations": 1,\n "pool_size" 2}', "line 2, column 14"),
            (b'{"mutate_rate": NaN}', "NaN"),
            (b'{"generations": "1"}', "`generations` is '1'"),
            (b"{" * 100_000, "line 1, column 2"),
            (b'{"a":' * 100_000, "not a configuration in JSON"),
            (b"\xff\xfe", "not UTF-8"),
            (b"", "`generations` is missing"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "search.config"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=message) as caught:
            SearchConfiguration.load(path)
        assert "search.config" in str(caught.value)

    def test_what_cannot_be_loaded(self, tmp_path: Path) -> None:
        for source, message in (
            (tmp_path / "none", "there is no configuration file"),
            (tmp_path, "there is no configuration file"),
            ("a\0b", "configuration file"),
            (3, "cannot be made of 3"),
            ({3: 4}, "the key 3"),
            (None, "cannot be made of None"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                SearchConfiguration.load(source)  # type: ignore[arg-type]
        big = tmp_path / "big"
        big.write_bytes(b" " * (2 << 20))
        with pytest.raises(ConfigurationError, match="more than"):
            SearchConfiguration.load(big)

    def test_internal_configuration(self) -> None:
        config = InternalSearchConfiguration(generations=1, dna_config=["a", "b"])
        assert (config.dna_config, config.enable_result_file) == (["a", "b"], False)
        assert InternalSearchConfiguration.from_legacy(config.to_legacy()) == config
        assert InternalSearchConfiguration(generations=1).dna_config == ""
        with pytest.raises(ConfigurationError, match="`dna_config` is not a field"):
            SearchConfiguration(generations=1, dna_config="a")  # type: ignore[call-arg]

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.dictionaries(
            st.sampled_from([*SearchConfiguration.model_fields, "typo"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(max_size=5),
                st.lists(st.floats(), max_size=3),
            ),
        )
    )
    def test_any_fields_give_a_configuration_or_our_error(self, fields: dict[str, Any]) -> None:
        message = ""
        try:
            config = SearchConfiguration(**fields)
        except ConfigurationError as error:
            message = str(error)
        if message:
            assert any(f"`{name}" in message for name in [*fields, "generations"])
        else:
            assert config.resolved_cull_size % 2 == 0
            assert 2 <= config.resolved_cull_size < config.resolved_pool_size


def test_unsupported_legacy_fields_raise() -> None:
    for name, value in (("dna_config", '"x"'), ("enable_result_file", "true")):
        with pytest.raises(UnsupportedError, match=f"`{name}`"):
            SearchConfiguration.from_legacy(f"(generations 1)\n({name} {value})")
