"""The examples on GPUs: what they do without one, and that their kernels really compile."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ciq_ray import ObjectiveFailure, SearchResult
from ciq_ray.kernels.protocol import Target
from ciq_ray.landscape import Landscape
from searchers.outcome import Outcome

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
H100 = Target(90, "NVIDIA H100 80GB HBM3", 227 << 10, 1024, 65536)
RECORDED = {
    "triton_matmul": "matmul_4096",
    "triton_attention": "attention_causal",
    "cuda_convolution": "conv_17",
    "ptx_spill_runtime": "ptx_spectrum",
}
BEST = {
    "triton_matmul": {
        "BLOCK_M": 128,
        "BLOCK_N": 256,
        "BLOCK_K": 64,
        "GROUP_M": 8,
        "num_warps": 8,
        "num_stages": 4,
    },
    "triton_attention": {
        "BLOCK_M": 64,
        "BLOCK_N": 64,
        "num_warps": 4,
        "num_stages": 3,
        "PRE_SCALE": 0,
        "FUSE_MASK": 0,
    },
    "cuda_convolution": {
        "BX": 32,
        "BY": 8,
        "TX": 4,
        "TY": 8,
        "SHMEM": 1,
        "PAD": 0,
        "UNROLL": 1,
        "MAXREG": 64,
    },
    "ptx_spill_runtime": {
        "maxrregcount": 128,
        "opt_level": 3,
        "register_usage_level": 10,
        "def_load_cache": "cs",
        "def_store_cache": "cs",
    },
}


def kernel_of(name: str, variable: str = "RECORDED") -> Any:
    """An example's kernel, with the space that was recorded if it has another one."""
    if name.startswith("triton"):
        pytest.importorskip("triton")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, variable, module.KERNEL)


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints on a machine without a GPU."""
    environment = {**os.environ, "CIQ_RUNS_DIR": str(folder / "runs"), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def status_of(kernel: Any, config: dict[str, Any]) -> str:
    """How compiling ends, with a look at what it needs."""
    try:
        needs = kernel.compile(config, H100).resources
    except ObjectiveFailure as failure:
        return failure.status
    return (
        "ok"
        if needs.shared <= 227 << 10 and needs.registers * needs.threads <= 65536
        else "resource_exceeded"
    )


def landscape_of(name: str) -> Landscape:
    return Landscape.load(ROOT / "benchmarks" / "landscapes" / f"{RECORDED[name]}.csv")


def configs_of(landscape: Landscape) -> list[dict[str, Any]]:
    return [dict(zip(landscape.parameters, key, strict=True)) for key in landscape.keys]


@pytest.mark.parametrize(
    "name",
    [
        "ptx_spill_runtime",
        "triton_matmul",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cuda_convolution", "triton_attention")),
    ],
)
def test_without_a_gpu_the_recorded_times_are_searched(name: str, tmp_path: Path) -> None:
    if name.startswith("triton"):
        pytest.importorskip("triton")
    output = run(name, tmp_path, "--max-evaluations", "48", "--seed", "1", "--output", "out")
    assert "No GPU can be used" in output
    landscape = landscape_of(name)
    assert f"The {len(landscape)} recorded times of an H100 are searched instead" in output
    assert ("a part of it was recorded" in output) == (name == "ptx_spill_runtime")
    assert f"48 of {len(landscape)} configurations looked at" in output
    times = landscape.times[~np.isnan(landscape.times)]
    shown = re.search(r"^ +best +([\d.]+) ", output, re.MULTILINE)
    assert shown is not None
    assert any(f"{time:.4f}" == shown[1] for time in times)
    result = SearchResult.from_csv(tmp_path / "out" / "results.csv", "min")
    assert f"{result.get_best_result()['score']:.4f}" == shown[1]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_space_is_what_was_recorded(name: str) -> None:
    space, landscape = kernel_of(name).space, landscape_of(name)
    configs = configs_of(landscape)
    assert space.size == len(configs)
    for config in configs:
        space.encode(config)  # raises if it breaks a constraint
    landscape.row(space.default_config())  # likewise if it is not there


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_best_and_the_default_compile_without_a_gpu(name: str) -> None:
    kernel = kernel_of(name)
    for config in (BEST[name], kernel.space.default_config()):
        artefact = kernel.compile(config, H100)
        assert artefact.binary.startswith(b"\x7fELF")
        assert artefact.resources.registers is not None
        assert artefact.resources.registers * artefact.resources.threads <= 65536
        assert artefact.resources.shared <= 227 << 10


def test_what_did_not_fit_then_does_not_fit_now() -> None:
    """Shared memory of those that failed to launch when the space was measured."""
    kernel = kernel_of("triton_matmul")
    config = {**BEST["triton_matmul"], "BLOCK_K": 128, "num_stages": 3}
    landscape = landscape_of("triton_matmul")
    assert landscape.statuses[landscape.row(config)] == "run_error"
    assert status_of(kernel, config) == "resource_exceeded"


def test_the_options_of_the_part_that_was_recorded() -> None:
    kernel = kernel_of("ptx_spill_runtime")
    assert kernel.space.size == 840
    default = kernel.space.default_config()
    common = ["--override-directive-values", "--maxrregcount=64", "--opt-level=3"]
    assert kernel.option_text(default).split() == [*common, "--register-usage-level=5"]
    assert kernel.option_text(BEST["ptx_spill_runtime"]).split() == [
        "--override-directive-values",
        "--maxrregcount=128",
        "--opt-level=3",
        "--register-usage-level=10",
        "--def-load-cache=cs",
        "--def-store-cache=cs",
    ]
    as_it_is = kernel_of("ptx_spill_runtime", "KERNEL").compile("", H100).resources
    assert kernel.compile(default, H100).resources == as_it_is
    for row in kernel.space.sample(20, np.random.default_rng(0)):
        config = kernel.space.decode(row)
        assert kernel.compile(config, H100).resources.registers <= config["maxrregcount"], config


@pytest.mark.parametrize("name", ["triton_attention", "triton_matmul"])
def test_without_triton_it_says_what_to_install(name: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['triton'] = None; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert "pip install 'ciq-ray[gpu]'" in line


def test_why_there_is_no_gpu_is_said_once(
    fake_nvml: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_nvml().state.init_error = 9
    monkeypatch.syspath_prepend(EXAMPLES)
    from _kernel_example import usable_gpus

    assert usable_gpus(SimpleNamespace(devices=None)) == []
    out = capsys.readouterr().out
    assert out.startswith("No GPU can be used: nvmlInit: ")
    assert out.count("can be used") == 1


def test_workers_that_compile_do_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import triton_matmul, triton_attention; "
        "import cuda_convolution, ptx_spill_runtime; print('torch' in sys.modules)"
    )
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch is imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert process.stdout.strip() == "False", process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_sample_of_the_space_compiles_as_it_did(name: str) -> None:
    kernel = kernel_of(name)
    landscape = landscape_of(name)
    configs = configs_of(landscape)
    for place in np.random.default_rng(0).choice(len(configs), 40, replace=False):
        config = configs[place]
        expected = {
            "ok": ("ok",),
            "compile_error": ("compile_error", "resource_exceeded"),
            "run_error": ("resource_exceeded", "ok"),  # whoever failed for another reason
        }
        assert status_of(kernel, config) in expected[landscape.statuses[place]], config


def test_the_table_at_the_end_has_what_the_race_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from _kernel_example import say_what_came_out

    import ciq_ray.kernels

    took = {"LIBRARY": 0.8, "slow": 2.0, "fast": 1.0}

    def timed(kernel: Any, config: Any, device: Any) -> Outcome:
        name = "LIBRARY" if config == ciq_ray.kernels.LIBRARY else config["x"]
        return Outcome("ok", (took[name],), metrics={"gbs": 10.0})

    monkeypatch.setattr(ciq_ray.kernels, "time_kernel", timed)
    verdict = SimpleNamespace(kind="win", ratio=0.4, words="candidate 1 beats the baseline")
    library = SimpleNamespace(ratio=1.25, words="candidate 1 is worse than the library")
    chosen = SimpleNamespace(config={"x": "fast"})
    race = SimpleNamespace(verdict=verdict, library=library, chosen=chosen)
    result = SimpleNamespace(race=race, get_results=lambda: [1, 2])
    arguments = SimpleNamespace(output=None, devices=["0"])
    say_what_came_out(SimpleNamespace(initial_configs=[{"x": "slow"}]), result, arguments, "cuBLAS")
    lines = capsys.readouterr().out.splitlines()
    assert {verdict.words, library.words} <= set(lines)
    table = [line.split() for line in lines[lines.index("") + 1 :] if line]
    assert ["default", "2.0000", "-", "10.0", "-", "1.00", "1.00"] in table
    assert ["chosen", "1.0000", "-", "10.0", "-", "2.00", "2.50"] in table
    assert ["cuBLAS", "0.8000", "-", "10.0", "-", "2.50", "3.12"] in table


class TestDocumentation:
    """The page on kernels: what it shows can be run, as far as that needs no GPU."""

    PAGE = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

    @pytest.mark.parametrize("kind", ["TritonKernel", "CudaKernel", "PtxKernel", "CommandKernel"])
    def test_each_kind_is_shown_and_compiles(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if kind == "TritonKernel":
            pytest.importorskip("triton")
        # where its paths begin; a build is copied with all of its directory
        monkeypatch.chdir(tmp_path if kind == "CommandKernel" else ROOT)
        kernel = self.shown(tmp_path, f"KERNEL = {kind}(")
        assert type(kernel).__name__ == kind
        if kind == "CommandKernel":
            return  # there is no bench.cu
        if kind == "PtxKernel":  # any ptxas since 12.0 takes it
            kernel.source = kernel.source.replace(".version 9.3", ".version 8.0")
        config = [*kernel.initial_configs, kernel.space.default_config()][0]
        if config == {}:
            config = kernel.space.decode(kernel.space.sample(1, np.random.default_rng(0))[0])
        artefact = kernel.compile(config, H100)
        assert artefact.resources.registers
        assert kernel.space.size is None or kernel.space.size > 1

    def shown(self, tmp_path: Path, call: str) -> Any:
        code = next(block for block in self.BLOCKS if call in block)
        (tmp_path / "shown.py").write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"shown_{tmp_path.name}", tmp_path / "shown.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.KERNEL

    def test_the_kernel_of_several_shapes_compiles(self, tmp_path: Path) -> None:
        pytest.importorskip("triton")
        kernel = self.shown(tmp_path, "    row_sum,")
        artefact = kernel.compile(kernel.space.default_config(), H100)
        assert artefact.meta["grids"] == {"tall": [65536, 1, 1], "square": [4096, 1, 1], "wide": [64, 1, 1]}
        assert kernel.bytes["wide"] == 4 * (64 * 524288 + 64)

    def test_the_kernel_of_ones_own_is_right(self, tmp_path: Path) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        from ciq_ray.gpu.host import HostRuntime
        from ciq_ray.kernels.bench import Bench
        from ciq_ray.kernels.jobs import CANDIDATE, Job, TimingOptions

        kernel = self.shown(tmp_path, "KERNEL = Transpose(")
        quick = TimingOptions(budget_ms=1.0, warmup_ms=1.0, min_samples=2)
        bench, config = Bench(kernel, HostRuntime(1 << 16), options=quick), {"ROWS": 64, "COLUMNS": 4}
        artefact = kernel.compile(config, H100)
        outcome = bench.evaluate(Job(CANDIDATE, config, artefact.to_bytes()), artefact, None)
        assert outcome.ok, outcome.message
        assert list(outcome.metrics["timing"])[1] == "1000x1000"
        assert outcome.metrics["gbs"] > 0

    def test_every_status_is_explained(self) -> None:
        from searchers.outcome import OK, STATUSES

        explained = re.findall(r"^\| `(\w+)` \|", self.PAGE, re.MULTILINE)
        assert set(STATUSES) - {OK} <= set(explained)

    def test_every_option_of_start_is_named(self) -> None:
        from ciq_ray.kernels.options import OPTIONS

        named = set(re.findall(r"`(\w+)`", self.PAGE)) | set(re.findall(r"`(\w+)=", self.PAGE))
        assert set(OPTIONS) - {
            "mem_clock_mhz",
            "power_watts",
            "wait_for_device_s",
            "max_resends",
            "start_timeout",
        } <= (named)

    def test_every_column_is_explained(self) -> None:
        from ciq_ray.kernels.figures import COLUMNS

        assert all(f"`{name}`" in self.PAGE for name in COLUMNS)
