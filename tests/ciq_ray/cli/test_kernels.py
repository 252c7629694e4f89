"""Runs of kernels in the commands ``show``, ``best``, ``dispatch``, ``rerun``, ``report``, and in tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ciq_ray import Search, SearchResult
from ciq_ray.cli.formats import as_macros
from ciq_ray.errors import ConfigurationError, JournalError
from ciq_ray.kernels.dispatch import DispatchTable
from ciq_ray.kernels.pasting import as_triton

HOST_KERNEL = Path(__file__).parents[1] / "kernels" / "host_kernel.py"

SCRIPT = """\
from host_kernel import HostKernel

KERNEL = HostKernel(("ok", "wrong"), shapes={"4096": 4096, "8192": 8192})

if __name__ == "__main__":
    from ciq_ray import Search, SearchConfiguration

    search = Search(
        objective_function=KERNEL,
        search_config=SearchConfiguration(generations=1, pool_size=10),
        searcher="random",
        seed=1,
        dump_results="results.csv",
        disable_progress_bar=True,
        final_race=False,
    )
    search.start(num_workers=1, task_timeout=30)
"""

TRITON_SCRIPT = """\
import triton
import triton.language as tl

from ciq_ray.kernels import Output, Tensor, TritonKernel


@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at, mask=at < n), mask=at < n)


KERNEL = TritonKernel(
    double,
    arguments={"x_ptr": Tensor((4096,)), "y_ptr": Output((4096,)), "n": 4096},
    grid=lambda meta: (triton.cdiv(4096, meta["BLOCK"]),),
    space={"BLOCK": searchers.PowerOfTwo(64, 256), "num_warps": searchers.Choice([1, 4])},
    reference=lambda arrays: 2 * arrays["x_ptr"],
)
"""


CUDA_SCRIPT = """\
from ciq_ray.kernels import CudaKernel, Output, Tensor
from searchers import Choice, PowerOfTwo

print("importing")
KERNEL = CudaKernel(
    "extern \\"C\\" __global__ void copy(const float *x, float *y) { }",
    "copy",
    arguments={"x": Tensor(64), "y": Output(64)},
    grid=1,
    block=64,
    space={"BLOCK": PowerOfTwo(64, 256), "MAXREG": Choice([0, 64])},
    macros=["BLOCK"],
    flags=lambda config: [f"-maxrregcount={config['MAXREG']}"] if config["MAXREG"] else [],
    reference=lambda a: a["x"],
)
"""

RECORDED_SCRIPT = """\
from ciq_ray import Search, SearchConfiguration
from searchers import Choice


def recorded(config):
    return config["BLOCK"] / 64


if __name__ == "__main__":
    Search(
        objective_function=recorded,
        search_space={"BLOCK": Choice([64, 128]), "num_warps": Choice([4])},
        search_config=SearchConfiguration(generations=1, pool_size=6),
        searcher="random",
        disable_progress_bar=True,
    ).start(num_workers=1)
"""

COMMAND_SCRIPT = """\
from ciq_ray.kernels import CommandKernel
from searchers import Choice

KERNEL = CommandKernel(
    "gcc -O{level} x.c", "./a.out {level}", space={"level": Choice([1, 2])}, needs_gpu=False, env={"A": "b"}
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 1 in ``runs``: ten candidates of a kernel for the CPU, over two shapes, some of them wrong."""
    folder = tmp_path_factory.mktemp("kernel")
    shutil.copy(HOST_KERNEL, folder)
    (folder / "tune.py").write_text(SCRIPT)
    environment = {**os.environ, "CIQ_RUNS_DIR": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, "tune.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


RACE_SCRIPT = """\
from host_kernel import HostKernel

KERNEL = HostKernel()
KERNEL.has_library = True

if __name__ == "__main__":
    from ciq_ray import Search, SearchConfiguration
    from ciq_ray.race import Plan

    search = Search(
        objective_function=KERNEL,
        search_config=SearchConfiguration(generations=1, pool_size=6),
        searcher="random",
        seed=1,
        disable_progress_bar=True,
        final_race=Plan(finalists=1, pick_blocks=1, verdict_blocks=6, windows=1),
    )
    result = search.start(num_workers=1, task_timeout=30, budget_ms=2.0, warmup_ms=2.0, window_ms=2.0)
    result.report("report.html")
    print(result.race.library.words)
"""


@pytest.mark.slow
def test_the_library_is_in_all_that_shows_a_verdict(ciq, tmp_path, monkeypatch):
    for name in ("host_kernel", "__ciq_script__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(HOST_KERNEL, tmp_path)
    (tmp_path / "tune.py").write_text(RACE_SCRIPT)
    environment = {**os.environ, "CIQ_RUNS_DIR": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "tune.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[-1]
    assert "the library" in words
    run = tmp_path / "runs" / "1"
    assert f"Against the library: {words}" in (tmp_path / "report.html").read_text()
    ciq("report", run, "-o", tmp_path / "later.html")
    assert f"Against the library: {words}" in (tmp_path / "later.html").read_text()
    assert re.sub(r"\s+", " ", words) in re.sub(r"\s+", " ", ciq("show", run).stdout)
    assert json.loads(ciq("show", run, "--json").stdout)["library"]["words"] == words
    raced = ciq("race", run).stdout.splitlines()
    assert [line.partition(":")[0] for line in raced[:2]] == ["verdict", "library"]


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, with the script where it was; nothing of it stays in `sys.modules`."""
    for name in ("tune", "host_kernel", "__ciq_script__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder / "runs" / "1"


def outcomes(run: Path) -> dict[str, dict]:
    records = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return {record["id"]: record["outcome"] for record in records if record["t"] == "outcome"}


class TestTables:
    def test_show(self, ciq, run):
        shown = ciq("show", run).stdout
        assert "KERNEL (tune.py)" in shown
        assert re.search(r"^time +[\d.]+ m?s timing, [\d.]+ m?s compiling *$", shown, re.MULTILINE)
        head = next(line for line in shown.splitlines() if line.startswith("best"))
        assert re.split(r"  +", head.strip()) == [
            "best",
            "score",
            "TFLOP/s",
            "GB/s",
            "registers",
        ]
        best = next(name for name, found in outcomes(run).items() if found["status"] == "ok")
        one = ciq("show", run, best).stdout
        assert re.search(r"^registers +16 *$", one, re.MULTILINE)
        gbs = outcomes(run)[best]["metrics"]["gbs"]
        assert re.search(rf"^GB/s +{gbs:.4g} *$", one, re.MULTILINE)

    def test_the_table_of_results(self, folder, run):
        live = SearchResult.from_csv(folder / "results.csv", "min", clear_duplicates=False)
        table = live.df_results
        names = ["tflops", "gbs", "peak_percent", "registers", "spill_stores", "spill_loads", "shared"]
        assert list(table.columns)[-7:] == names
        for name in names:
            assert table[name].dtype.kind in "fi"
        found = outcomes(run)
        for _, row in table.iterrows():
            metrics = found[str(row["param_id"])]["metrics"]
            if row["status"] == "ok":
                assert row["gbs"] == pytest.approx(metrics["gbs"])
                assert row["registers"] == metrics["registers"]
        assert set(table["status"]) == {"ok", "wrong"}
        assert table.loc[table["status"] == "wrong", "gbs"].isna().all()

    def test_report(self, ciq, run, tmp_path):
        ciq("report", run, "-o", tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        section = page[page.index('<section id="kernel">') :]
        section = section[: section.index("</section>")]
        for what in ("mean ratio to the default", "TFLOP/s", "GB/s", "By shape", "4096", "8192"):
            assert what in section
        assert "blocks/SM" not in section  # no multiprocessor there
        assert '"GB/s"' in page[page.index('id="table-data"') :]


class TestBest:
    def test_triton(self, ciq, run):
        config = json.loads(ciq("best", run).stdout)
        assert ciq("best", run, "--format", "triton").stdout == f"triton.Config({config!r})\n"

    def test_options_of_triton_are_told_from_parameters(self):
        config = {
            "BLOCK_M": 128,
            "num_warps": 8,
            "EVEN": True,
            "num_stages": 4,
            "maxnreg": 0,  # no limit, as `None`
            "num_ctas": None,
            "TYPE": "fp16",
        }
        text = as_triton(config)
        assert (
            text == "triton.Config({'BLOCK_M': 128, 'EVEN': True, 'TYPE': 'fp16'}, num_warps=8, num_stages=4)"
        )
        triton = pytest.importorskip("triton")
        made = eval(text, {"triton": triton})
        assert made.kwargs == {"BLOCK_M": 128, "EVEN": True, "TYPE": "fp16"}
        assert (made.num_warps, made.num_stages) == (8, 4)

    @pytest.mark.parametrize("config", ["-O3\n", {"a": {"b": 1}}, [{"a": 1}]])
    def test_what_is_no_configuration_of_triton(self, config):
        with pytest.raises(ConfigurationError, match=r"can be a triton\.Config"):
            as_triton(config)

    def test_macros(self):
        assert as_macros({"BX": 16, "PAD": True, "T": "a b"}) == "-DBX=16 -DPAD=1 '-DT=a b'"

    def test_flags_of_a_kernel_are_what_its_compiler_gets(self, ciq, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "__ciq_script__", raising=False)
        script = tmp_path / "tune.py"
        script.write_text(CUDA_SCRIPT)
        run = as_if_run(tmp_path, {"BLOCK": 128, "MAXREG": 64}, "CudaKernel")
        assert ciq("best", run, "--format", "flags").stdout == "-DBLOCK=128 -maxrregcount=64\n"
        script.write_text(CUDA_SCRIPT + "# changed\n")
        found = ciq("best", run, "--format", "flags")
        assert found.stdout == "-DBLOCK=128 -DMAXREG=64\n"
        assert "has changed since the run began" in found.stderr

    def test_the_command_of_a_kernel_that_is_one(self, ciq, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "__ciq_script__", raising=False)
        (tmp_path / "tune.py").write_text(COMMAND_SCRIPT)
        run = as_if_run(tmp_path, {"level": 2}, "CommandKernel")
        assert ciq("best", run, "--format", "command").stdout == "env A=b gcc -O2 x.c\nenv A=b ./a.out 2\n"
        assert ciq("best", run, "--format", "flags").stdout == "--level 2\n"

    def test_of_a_command_there_is_no_triton_config(self, ciq, space):
        ciq("tune", space(), "--max-evaluations", 1, "--", "echo", "{x}")
        refused = ciq("best", 1, "--format", "triton", code=2).stderr
        assert "is a command, not a Triton kernel; use --format json or flags" in refused

    def test_of_another_kind_of_kernel_there_is_no_triton_config(self, ciq, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "__ciq_script__", raising=False)
        (tmp_path / "tune.py").write_text(CUDA_SCRIPT)
        run = as_if_run(tmp_path, {"BLOCK": 128, "MAXREG": 64}, "CudaKernel")
        refused = ciq("best", run, "--format", "triton", code=2).stderr
        assert "is a CudaKernel, not a Triton kernel; use --format json or flags" in refused

    def test_triton_of_recorded_times(self, ciq, tmp_path):
        (tmp_path / "tune.py").write_text(RECORDED_SCRIPT)
        subprocess.run([sys.executable, "tune.py"], cwd=tmp_path, check=True, timeout=120)
        text = ciq("best", 1, "--format", "triton").stdout
        assert text == "triton.Config({'BLOCK': 64}, num_warps=4)\n"


class TestDispatch:
    def test_forms(self, ciq, run, tmp_path):
        text = ciq("dispatch", run, "--entries", 2).stdout
        assert text.splitlines()[0].startswith("shape")
        assert "entry 0: candidate" in text
        data = json.loads(ciq("dispatch", run, "-k", 1, "--format", "json").stdout)
        assert len(data["configs"]) == 1
        assert (
            ciq("dispatch", run, "--format", "json", "-o", tmp_path / "t.json").stdout
            == f"{tmp_path}/t.json\n"
        )
        table = DispatchTable.load(tmp_path / "t.json")
        assert table.lookup(4096)["behaviour"] == "ok"
        names: dict = {}
        exec(ciq("dispatch", run, "--format", "python").stdout, names)
        assert names["config_for"](8000) == table.lookup(8192)

    def test_refusals(self, ciq, run, tmp_path, space):
        assert "cannot be written" in ciq("dispatch", run, "-o", tmp_path / "no" / "t", code=2).stderr
        ciq("dispatch", run, "--entries", 0, code=2)
        ciq("dispatch", tmp_path, code=3)
        ciq("tune", space(), "--max-evaluations", 1, "--", "echo", "{x}")
        assert "only searches of a kernel" in ciq("dispatch", 1, code=2).stderr


class TestAgain:
    def test_rerun_keeps_what_the_compiler_made(self, ciq, run):
        name = next(name for name, found in outcomes(run).items() if found["status"] == "ok")
        shown = ciq("rerun", run, name, "--keep").stdout
        assert re.search(rf"^candidate {name}: [\d.]+ \(in the run: [\d.]+\)$", shown, re.MULTILINE)
        kept = Path(re.search(r"^what was made: (.*)$", shown, re.MULTILINE)[1])
        assert kept == run / "reruns" / f"{name}-1"
        assert "#define PASSES" in (kept / "kernel.c").read_text()
        assert (kept / "messages.txt").exists()
        data = json.loads(ciq("rerun", run, name, "--json").stdout)
        assert data["status"] == "ok"
        assert "kept" not in data["metrics"]
        # a ratio to the default, as in the run
        assert 0.01 < data["values"][0] / data["before"]["values"][0] < 100

    def test_rerun_of_a_wrong_one(self, ciq, run):
        name = next(name for name, found in outcomes(run).items() if found["status"] == "wrong")
        shown = ciq("rerun", run, name, code=1).stdout
        assert f"candidate {name}: wrong: " in shown

    def test_without_a_gpu_it_is_compiled_and_kept(self, ciq, tmp_path, run, monkeypatch):
        pytest.importorskip("triton")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        (tmp_path / "tune.py").write_text(f"import searchers\n{TRITON_SCRIPT}")
        folder = as_if_run(tmp_path, {"BLOCK": 128, "num_warps": 4}, "TritonKernel")
        refused = ciq("rerun", folder, 0, code=1).stderr
        assert "With --keep the candidate is compiled all the same" in refused
        shown = ciq("rerun", folder, 0, "--keep").stdout
        assert "candidate 0: ok, only compiled, for sm_90: " in shown
        kept = folder / "reruns" / "0-2"
        assert f"what was made: {kept}" in shown
        assert ".visible .entry double" in (kept / "kernel.ptx").read_text()
        assert (kept / "messages.txt").exists()
        assert any(path.suffix == ".sass" for path in kept.iterdir())

    def test_what_placed_a_run_on_a_cluster_is_not_used_again(self, ciq, tmp_path, monkeypatch):
        pytest.importorskip("triton")
        monkeypatch.delitem(sys.modules, "__ciq_script__", raising=False)
        (tmp_path / "tune.py").write_text(f"import searchers\n{TRITON_SCRIPT}")
        given = {"worker_type": "ray", "worker_options": {"devices": 1, "num_cpus": 2, "min_samples": 4}}
        folder = as_if_run(tmp_path, {"BLOCK": 128, "num_warps": 4}, "TritonKernel", **given)
        shown = ciq("rerun", folder, 0, "--keep").stdout
        assert "only compiled, for sm_90: no NVIDIA GPU" in shown

    def test_resume_finds_the_kernel_by_its_variable(self, run):
        search = Search.resume(run)
        assert type(search.objective_function).__name__ == "HostKernel"
        header = json.loads((run / "journal.jsonl").read_text().splitlines()[0])
        objective = header["objective"]
        assert (objective["kind"], objective["class"]) == ("kernel", "HostKernel")
        assert (objective["module"], objective["qualname"]) == ("__main__", "KERNEL")
        assert objective["shapes"] == ["4096", "8192"]

    def test_resume_of_what_changed(self, run, folder):
        script = folder / "tune.py"
        try:
            script.write_text(SCRIPT + "# changed\n")
            with pytest.raises(JournalError, match="has changed since the run began"):
                Search.resume(run)
            script.write_text(SCRIPT.replace("KERNEL = Host", "OTHER = Host").replace("=KERNEL", "=OTHER"))
            with pytest.raises(JournalError, match="has no 'KERNEL' at module level"):
                Search.resume(run, force=True)
            script.write_text("KERNEL = len\n")
            with pytest.raises(JournalError, match=r"'KERNEL' of .* is not a kernel any more"):
                Search.resume(run, force=True)
        finally:
            script.write_text(SCRIPT)


def as_if_run(
    folder: Path,
    config: object,
    kind: str,
    *,
    worker_type: str = "native",
    worker_options: dict | None = None,
) -> Path:
    """A run's folder as a search on a machine with a GPU would have left it."""
    from ciq_ray import SearchConfiguration, origin
    from ciq_ray.run_header import run_header

    kernel = origin.load(
        {
            "kind": "kernel",
            "qualname": "KERNEL",
            "module": "__main__",
            "importable": True,
            "script": str(folder / "tune.py"),
        },
        force=True,
    )
    described = origin.describe(kernel)
    assert (described["qualname"], described["class"]) == ("KERNEL", kind)
    search = Search(
        objective_function=kernel,
        search_config=SearchConfiguration(generations=1, pool_size=10),
        worker_type=worker_type,
    )
    header = run_header(
        search,
        seed=0,
        options={},
        cached_rows=[],
        num_workers=1,
        task_timeout=None,
        worker_options=worker_options or {},
    )
    row = search.space.encode(config).tolist()
    candidate = {"id": "0", "row": row, "generation": None, "config": search.space.decode(row)}
    outcome = {"status": "ok", "values": [0.01], "metrics": {"gpu": {"uuid": "GPU-1", "name": "H100"}}}
    records = [
        {"t": "header", "version": 1, **header, "run_id": 1},
        {"t": "ask", "n": 1, "candidates": [candidate]},
        {"t": "outcome", "id": "0", "outcome": outcome, "at": 0.0},
    ]
    run = folder / "runs" / "1"
    run.mkdir(parents=True)
    (run / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run
