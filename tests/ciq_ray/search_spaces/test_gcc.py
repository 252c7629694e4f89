"""The spaces of the compilers that are installed, against these compilers."""

import json
import re
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciq_ray import Search, SearchConfiguration
from ciq_ray.compilers import run_tool
from ciq_ray.errors import ObjectiveFailure, SearchSpaceError, UnsupportedError
from ciq_ray.search_spaces.compilers import SearchSpaceProvider, load_provider
from ciq_ray.search_spaces.gcc import ClangSearchSpace, GccSearchSpace, InstalledSearchSpace
from ciq_ray.search_spaces.installed import inspect_compiler
from ciq_ray.utils.helpers import save_compiler_config
from searchers.space import Space

KERNELS = sorted((Path(__file__).parents[3] / "examples" / "kernels").glob("[a-z]*.c"))
ROUNDING = (
    "-fcx-limited-range",
    "-fexcess-precision",
    "-ffast-math",
    "-ffinite-math-only",
    "-ffp-contract",
    "-fmath-errno",
    "-freciprocal-math",
    "-frounding-math",
    "-fsigned-zeros",
    "-fsingle-precision-constant",
    "-ftrapping-math",
    "-funsafe-math-optimizations",
)
TRUST = ("-fallow-store-data-races", "-fdelete-null-pointer-checks", "-fstrict-aliasing", "-fwrapv")
PROVIDERS: dict[str, Callable[..., InstalledSearchSpace]] = {"gcc": GccSearchSpace, "clang": ClangSearchSpace}


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    """A cache that the tests of this module share: making a space takes seconds."""
    monkeypatch.setenv("CIQ_CACHE_DIR", str(shared_cache))


def need(compiler: str) -> str:
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"needs {compiler}: apt install {compiler}")
    return found


def options_of(provider: InstalledSearchSpace) -> dict[str, dict[str, Any]]:
    data = json.loads(provider.retrieve().read_text())
    return {option["flag"]: option for option in data["options"]}


def wrapper(folder: Path, compiler: str, script: str = "") -> Path:
    """A compiler with a peculiarity; in `script`, ``$options`` is what its response files hold."""
    path = folder / f"my-{compiler}"
    read = 'options=; for a; do case "$a" in @*) options="$options $(cat "${a#@}")";; esac; done'
    path.write_text(f'#!/bin/sh\n{read}\n{script}\nexec {need(compiler)} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def complaints(compiler: str, folder: Path, texts: list[str]) -> list[tuple[str, str]]:
    """The candidates that the compiler refuses or warns of on one of the kernels, with what it says."""

    def complaint(number: int) -> str:
        options = save_compiler_config(folder / f"{number}.options", texts[number])
        kernel = KERNELS[number % len(KERNELS)]
        command: list[str | Path] = [compiler, "-std=c11", f"@{options}", kernel]
        try:
            return run_tool([*command, "-o", folder / f"{number}.out"], timeout=120).stderr
        except ObjectiveFailure as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(complaint, range(len(texts))))
    return [(text, answer) for text, answer in zip(texts, said, strict=True) if answer]


def candidates(space: Space, count: int, seed: int = 0) -> list[str]:
    return [space.decode(row) for row in space.sample(count, np.random.default_rng(seed))]


def checksum(program: Path) -> str:
    return run_tool([program, "0", "1"], timeout=60).stdout


@pytest.mark.usefixtures("cached")
def test_the_default_variant_of_gcc() -> None:
    need("gcc")
    provider = GccSearchSpace()
    assert isinstance(provider, SearchSpaceProvider)
    options = options_of(provider)
    assert 80 <= len(options) <= 120
    assert options["-O"]["values"]["choices"] == ["1", "2", "3", "s"]
    assert options["-funroll-loops"]["off"] == "-fno-unroll-loops"
    assert options["-funroll-loops"]["doc"].startswith("Perform loop unrolling")
    assert options["-fvect-cost-model"]["values"]["choices"][:2] == ["unlimited", "dynamic"]
    assert options["--param=max-unroll-times"]["values"]["choices"] == [2, 4, 8, 16, 32]
    assert sum(flag.startswith("--param=") for flag in options) >= 25
    # not one that changes results, and the one that would comes with what keeps it from that
    assert not [flag for flag, option in options.items() if option.get("changes_results")]
    assert not [flag for flag in options if re.search("math|contract|aliasing|wrapv|zeros|trap", flag)]
    assert options["-march"]["with"] == ["-ffp-contract=off"]


@pytest.mark.usefixtures("cached")
def test_the_full_variant_of_gcc_marks_what_changes_results() -> None:
    need("gcc")
    options, default = options_of(GccSearchSpace(variant="full")), options_of(GccSearchSpace())
    assert set(default) <= set(options)
    assert len(options) > 300
    marked = {flag for flag, option in options.items() if option.get("changes_results")}
    assert set(ROUNDING + TRUST) <= marked
    assert marked & set(default) == {"-march"}
    assert "with" not in options["-march"]
    # options for checks, debugging, interfaces and libraries are in no variant
    others = re.compile("-(fstack-prot|-param=asan|fprofile-|fpack-struct|fvar-track|g|ftree-parallelize)")
    assert not [flag for flag in options if others.match(flag)]
    assert options["-flifetime-dse"]["values"] == {"type": "choice", "choices": [0, 1, 2], "ordered": True}


@pytest.mark.usefixtures("cached")
def test_the_variants_of_clang() -> None:
    need("clang")
    default, full = options_of(ClangSearchSpace()), options_of(ClangSearchSpace(variant="full"))
    assert 30 <= len(default) < len(full)
    assert default["-fvectorize"]["off"] == "-fno-vectorize"
    assert 225 in default["-mllvm -inline-threshold"]["values"]["choices"]
    assert default["-march"]["with"] == ["-ffp-contract=off"]
    assert not [flag for flag, option in default.items() if option.get("changes_results")]
    assert {"-ffast-math", "-ffp-contract", "-fmath-errno"} <= set(full) - set(default)
    assert full["-ffast-math"]["changes_results"]


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_empty_text_is_the_default_and_levels_are_candidates(compiler: str) -> None:
    need(compiler)
    space, _ = load_provider(PROVIDERS[compiler]())
    assert space.default_row is not None
    assert space.decode(space.default_row) == ""
    for text in ("-O1\n", "-O3\n", "-O3\n-march=native\n"):
        given = text.replace("-march", "-ffp-contract=off\n-march")
        assert space.decode(space.encode(given)) == given
    levels = {text.splitlines()[0] for text in candidates(space, 60)}
    assert levels == {"-O1", "-O2", "-O3", "-Os"}


def test_the_same_compiler_gives_the_same_file_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    script = wrapper(tmp_path, "gcc", f'[ -n "$options" ] && echo probe >> {log}')
    first = GccSearchSpace(str(script)).retrieve()
    made = log.read_text()
    assert GccSearchSpace(script).retrieve() == first
    assert log.read_text() == made, "a compiler that did not change was asked again"
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "other"))
    second = GccSearchSpace(script).retrieve()
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()

    whole = second.read_bytes()
    second.write_bytes(whole[:1000])
    assert GccSearchSpace(script).retrieve().read_bytes() == whole, "a damaged file was used"
    wrapper(tmp_path, "gcc", "# another compiler now")
    assert GccSearchSpace(script).retrieve() != second


def test_options_that_the_compiler_does_not_take_are_left_out(tmp_path: Path) -> None:
    refuse = 'case " $options " in *{0}*) echo "no {0}" >&2; exit 1;; esac\n'
    script = "options=$(echo $options)\n" + "".join(
        refuse.format(text)
        for text in ("-fweb", "-fno-ivopts", "-fgcse", "-fno-gcse", "max-unroll-times=16", "-O1", "=native")
    )
    options = options_of(GccSearchSpace(wrapper(tmp_path, "gcc", script)))
    assert not {"-fgcse", "-march", "-mtune"} & set(options)
    assert options["-fno-web"]["values"] == {"type": "switch"}
    assert options["-fno-web"]["name"] == "web"
    assert options["-fivopts"]["values"] == {"type": "switch"}
    assert options["--param=max-unroll-times"]["values"]["choices"] == [2, 4, 8, 32]
    assert options["-O"]["values"]["choices"] == ["2", "3", "s"]
    assert options["-funroll-loops"]["values"] == {"type": "boolean"}


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_record_says_which_compiler_it_was(compiler: str) -> None:
    path = need(compiler)
    provider = PROVIDERS[compiler](compiler, variant="default")
    record = provider.resolution_metadata()
    assert record["source"] == path
    assert record["compiler"] == compiler
    assert str(record["version"]) in run_tool([path, "--version"], timeout=20).stdout
    assert record["provider"] == type(provider).__name__
    assert record["path"] == str(provider.retrieve())
    assert record["size"] == provider.retrieve().stat().st_size
    assert len(str(record["compiler_sha256"])) == 64
    assert record["target"] == run_tool([path, "-dumpmachine"], timeout=20).stdout.strip()
    assert repr(provider) == f"{type(provider).__name__}({compiler!r}, 'default')"


@pytest.mark.parametrize("provider", [GccSearchSpace, ClangSearchSpace])
def test_a_missing_compiler_says_how_to_install_it(
    provider: type[GccSearchSpace | ClangSearchSpace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    name = provider.family
    with pytest.raises(UnsupportedError, match=f"`executable` is '{name}'.*install {name} with: apt install"):
        provider().retrieve()
    with pytest.raises(UnsupportedError, match="no-such-compiler"):
        provider("no-such-compiler").retrieve()


def test_another_compiler_is_refused(tmp_path: Path) -> None:
    gcc, clang = need("gcc"), need("clang")
    with pytest.raises(UnsupportedError, match="is clang, not gcc; use ClangSearchSpace"):
        GccSearchSpace(clang).retrieve()
    with pytest.raises(UnsupportedError, match="is gcc, not clang; use GccSearchSpace"):
        ClangSearchSpace(gcc).retrieve()
    with pytest.raises(UnsupportedError, match=r"true -dM .* failed|neither gcc nor clang"):
        GccSearchSpace("true").retrieve()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("gcc", "fast"), "`variant` is 'fast'; it must be one of default, full"),
        (("",), "`executable` is ''"),
        ((3,), "`executable` is 3"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(SearchSpaceError, match=re.escape(problem)):
        GccSearchSpace(*arguments)


def test_an_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("gcc")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(GccSearchSpace, "_make", lambda self, compiler: b"{}")
    with pytest.raises(SearchSpaceError, match=r"cannot be written.*set CIQ_CACHE_DIR"):
        GccSearchSpace().retrieve()


def test_probing_finds_the_one_bad_option() -> None:
    need("gcc")
    compiler = inspect_compiler("gcc", "gcc")
    lines = ["-funroll-loops", "-fno-such-thing", "-O3", "--param=max-unroll-times=-7", "-fweb"]
    assert compiler.usable([[line] for line in lines]) == {"-funroll-loops", "-O3", "-fweb"}
    # two lines of one option: the second does not hide the first
    assert compiler.usable([["-ffp-contract=bad", "-ffp-contract=off"]]) == {"-ffp-contract=off"}
    assert "no-such-thing" in compiler.complaint(["-fno-such-thing"])
    assert compiler.complaint([]) == ""


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(("compiler", "variant"), [("gcc", "default"), ("gcc", "full"), ("clang", "default")])
def test_candidates_compile_without_a_word(compiler: str, variant: str, tmp_path: Path) -> None:
    need(compiler)
    space, _ = load_provider(PROVIDERS[compiler](compiler, variant))
    assert complaints(compiler, tmp_path, candidates(space, 10)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("compiler", "variant", "count"),
    [("gcc", "default", 600), ("gcc", "full", 300), ("clang", "default", 300), ("clang", "full", 200)],
)
def test_hundreds_of_candidates_compile_without_a_word(
    compiler: str, variant: str, count: int, tmp_path: Path
) -> None:
    need(compiler)
    space, _ = load_provider(PROVIDERS[compiler](compiler, variant))
    assert complaints(compiler, tmp_path, candidates(space, count, seed=1)) == []


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("compiler", "count"),
    [
        ("gcc", 8),
        ("clang", 4),
        pytest.param("gcc", 400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param("clang", 200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_default_candidates_keep_results(compiler: str, count: int, tmp_path: Path) -> None:
    need(compiler)
    expected = []
    for kernel in KERNELS:
        program = tmp_path / kernel.stem
        run_tool([compiler, "-std=c11", "-O0", kernel, "-o", program], timeout=60)
        expected.append(checksum(program))
    space, _ = load_provider(PROVIDERS[compiler]())
    texts = candidates(space, count, seed=2)
    assert complaints(compiler, tmp_path, texts) == []
    changed = [
        text
        for number, text in enumerate(texts)
        if checksum(tmp_path / f"{number}.out") != expected[number % len(KERNELS)]
    ]
    assert changed == []


@pytest.mark.usefixtures("cached")
def test_the_checks_above_would_notice(tmp_path: Path) -> None:
    need("gcc")
    texts = ["-O2\n", "-O2\n-fno-such-thing\n", "-O2\n", "-Os\n-fprefetch-loop-arrays\n"]
    said = complaints("gcc", tmp_path, texts)
    assert [text for text, _ in said] == [texts[1], texts[3]]
    matmul = next(kernel for kernel in KERNELS if kernel.stem == "matmul")
    sums = []
    for flags in (
        ["-O0"],
        ["-O3", "-funsafe-math-optimizations", "-ffloat-store", "-fsingle-precision-constant"],
    ):
        run_tool(["gcc", "-std=c11", *flags, matmul, "-o", tmp_path / "program"], timeout=60)
        sums.append(checksum(tmp_path / "program"))
    assert sums[0] != sums[1]


@pytest.mark.usefixtures("cached")
def test_a_search_takes_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    need("gcc")
    search = Search(
        objective_function=len,
        search_space=GccSearchSpace(),
        search_config=SearchConfiguration(generations=1),
        initial_configs=["-O3 -funroll-loops"],
    )
    records = search.search_space_resolution_metadata
    assert records is not None
    assert records[0]["provider"] == "GccSearchSpace"
    assert all(isinstance(sample, str) for sample in search.sample(3))
