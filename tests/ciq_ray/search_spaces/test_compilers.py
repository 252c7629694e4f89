"""The documented providers, the catalogue and folders of search spaces."""

import json
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces import compilers
from ciq_ray.search_spaces.compilers import (
    CATALOGUE,
    CompilerSearchSpaceBase,
    LocalSearchSpaceBin,
    NvccSearchSpace,
    PtxasSearchSpace,
    SearchSpaceProvider,
    load_provider,
)
from searchers.params import Range

ALL = [("ptxas", "default"), ("ptxas", "registers"), ("ptxas", "full"), ("nvcc", "default"), ("nvcc", "full")]
PROVIDERS = {"ptxas": PtxasSearchSpace, "nvcc": NvccSearchSpace}


def test_the_documented_arguments_and_defaults() -> None:
    provider = PtxasSearchSpace()
    assert (provider.version, provider.variant, provider.tag) == ("13.3", "default", "latest")
    assert (PtxasSearchSpace.compiler, NvccSearchSpace.compiler) == ("ptxas", "nvcc")
    assert repr(PtxasSearchSpace("13.0", "full", "1")) == "PtxasSearchSpace('13.0', 'full', '1')"
    assert isinstance(provider, SearchSpaceProvider)
    assert isinstance(LocalSearchSpaceBin("x"), SearchSpaceProvider)


@pytest.mark.parametrize(("compiler", "variant"), ALL)
@pytest.mark.parametrize("version", ["13.0", "13.1", "13.2", "13.3", "13.4", "13.5"])
def test_the_catalogue_has_every_variant_for_every_version(compiler: str, variant: str, version: str) -> None:
    path = PROVIDERS[compiler](version, variant).retrieve()
    content = json.loads(path.read_text())
    assert (content["compiler"], content["variant"]) == (compiler, variant)
    assert version in content["compiler_versions"]


def test_what_the_catalogue_lacks_is_said_with_what_it_has() -> None:
    with pytest.raises(SearchSpaceError, match=r"no ptxas version '12\.9'; there is 13\.0, 13\.1"):
        PtxasSearchSpace("12.9").retrieve()
    with pytest.raises(SearchSpaceError, match=r"no variant .* 'fast'; there is default, full, registers"):
        PtxasSearchSpace(variant="fast").retrieve()
    with pytest.raises(SearchSpaceError, match="`tag` is '9', but the catalogue of this package is release"):
        PtxasSearchSpace(tag="9").retrieve()


@pytest.mark.parametrize("arguments", [{"version": 13.3}, {"variant": ""}, {"tag": None}])
def test_arguments_are_text(arguments: dict[str, Any]) -> None:
    with pytest.raises(SearchSpaceError, match=f"`{next(iter(arguments))}` is"):
        PtxasSearchSpace(**arguments)


def test_a_provider_of_ones_own_names_its_compiler(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nameless(CompilerSearchSpaceBase):
        pass

    class Hipcc(CompilerSearchSpaceBase):
        compiler = "hipcc"

    with pytest.raises(SearchSpaceError, match="Nameless has no `compiler`"):
        Nameless()
    with pytest.raises(SearchSpaceError, match="no compiler 'hipcc'; there is nvcc, ptxas"):
        Hipcc("6.4").retrieve()


def marked(compiler: str, variant: str) -> tuple[set[str], dict[str, Any]]:
    path = PROVIDERS[compiler](variant=variant).retrieve()
    options = {option["name"]: option for option in json.loads(path.read_text())["options"]}
    names = {name for name, o in options.items() if o.get("changes_results") or o.get("limits_launch")}
    return names, options


@pytest.mark.parametrize("compiler", ["ptxas", "nvcc"])
def test_default_leaves_out_what_changes_results_and_nothing_else(compiler: str) -> None:
    none, default = marked(compiler, "default")
    names, full = marked(compiler, "full")
    assert not none
    assert set(full) - set(default) - names <= {
        "position_independent_code",
        "ptxas_position_independent_code",
    }
    assert set(default) <= set(full)
    for name, option in default.items():
        assert option["doc"] == full[name]["doc"]


def test_registers_is_a_part_of_default() -> None:
    _, default = marked("ptxas", "default")
    _, registers = marked("ptxas", "registers")
    assert {name: default[name] for name in registers} == registers
    assert set(default) - set(registers) == {"def_load_cache", "def_store_cache"}


def test_a_folder_takes_the_place_of_the_catalogue(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIQ_SEARCH_SPACES_DIR", str(mirror))
    assert PtxasSearchSpace().retrieve() == mirror / "ptxas-13-default.json"


def test_a_folder_goes_before_a_release(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIQ_SEARCH_SPACES_DIR", str(mirror))
    monkeypatch.setenv("CIQ_SEARCH_SPACES_REPO", "https://localhost:9/nothing-is-here")
    assert PtxasSearchSpace().retrieve().parent == mirror


def test_a_changed_file_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIQ_SEARCH_SPACES_DIR", str(mirror))
    file = mirror / "ptxas-13-default.json"
    content = file.read_text()
    file.write_text(content.replace('"start": 1', '"start": 0'))
    with pytest.raises(SearchSpaceError, match=r"ptxas-13-default\.json: its sha256 is"):
        PtxasSearchSpace().retrieve()
    file.write_text(content + " ")
    with pytest.raises(SearchSpaceError, match="bytes, but its manifest says"):
        PtxasSearchSpace().retrieve()
    file.unlink()
    with pytest.raises(SearchSpaceError, match=r"cannot be read .*lists it.*No such file"):
        PtxasSearchSpace().retrieve()


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIQ_SEARCH_SPACES_DIR", str(tmp_path / "none"))
    with pytest.raises(SearchSpaceError, match=r"manifest\.json: cannot be read \(CIQ_SEARCH_SPACES_DIR"):
        PtxasSearchSpace().retrieve()


def test_the_record_says_what_was_found() -> None:
    provider = NvccSearchSpace("13.1", "full")
    record = provider.resolution_metadata()
    path = CATALOGUE / "nvcc-13-full.json"
    sha256 = record.pop("sha256")
    assert isinstance(sha256, str)
    assert len(sha256) == 64
    assert record == {
        "provider": "NvccSearchSpace",
        "compiler": "nvcc",
        "version": "13.1",
        "variant": "full",
        "tag": "latest",
        "release": "1",
        "source": str(CATALOGUE),
        "path": str(path),
        "size": path.stat().st_size,
    }
    json.dumps(record)


def test_a_single_file_needs_no_manifest(tiny: dict[str, Any], write: Any, tmp_path: Path) -> None:
    path = write(tiny, "toy.bin")
    provider = LocalSearchSpaceBin(str(path))
    assert provider.retrieve() == path
    space, record = load_provider(provider)
    assert space.encoding.n_parameters == 5
    assert (record["provider"], record["path"]) == ("LocalSearchSpaceBin", str(path))
    assert (record["size"], record["compiler"]) == (path.stat().st_size, None)
    with pytest.raises(SearchSpaceError, match="no such file"):
        LocalSearchSpaceBin(tmp_path / "none.bin").retrieve()
    with pytest.raises(SearchSpaceError, match="`path` is 7"):
        LocalSearchSpaceBin(7)  # type: ignore[arg-type]


def test_a_provider_selects_the_options_of_its_version() -> None:
    old, _ = load_provider(PtxasSearchSpace("13.4", "full"))
    new, _ = load_provider(PtxasSearchSpace("13.5", "full"))
    assert old.encoding.n_parameters == new.encoding.n_parameters + 1


def test_a_providers_space_may_be_a_dict() -> None:
    class Own:
        def retrieve(self) -> dict[str, Any]:
            return {"x": Range(0, 9)}

    space, record = load_provider(Own())
    assert (space.size, record) == (10, {"provider": "Own"})


def test_a_provider_that_returns_something_else_is_refused() -> None:
    class Odd:
        def retrieve(self) -> Any:
            return 3

    with pytest.raises(SearchSpaceError, match=r"Odd\.retrieve\(\) returned int"):
        load_provider(Odd())


def test_a_release_address_never_leaves_https() -> None:
    from ciq_ray.search_spaces.release import release_url

    github = "https://github.com/owner/name/releases"
    assert release_url("owner/name", "latest") == f"{github}/latest/download"
    assert release_url("owner/name", "v1.2") == f"{github}/download/v1.2"
    assert release_url("https://a.example/spaces/", "latest") == "https://a.example/spaces/latest"
    assert release_url("http://127.0.0.1:80/x", "1") == "http://127.0.0.1:80/x/1"
    for repo in (
        "http://a.example/x",
        "ftp://a.example/x",
        "file:///etc",
        "https://",
        "https://user:word@a.example",
        "https://a.example/?x=1",
        "http://127.0.0.1.example/x",
        "owner",
        "a/b/c",
        "https://[::1",
    ):
        with pytest.raises(SearchSpaceError, match="CIQ_SEARCH_SPACES_REPO is"):
            release_url(repo, "latest")
    for tag in ("../1", "a/b", "", "?", "."):
        with pytest.raises(SearchSpaceError, match="`tag` is"):
            release_url("owner/name", tag)


def test_looking_up_a_file_is_light() -> None:
    source = Path(compilers.__file__).read_text()
    assert "\nimport urllib" not in source
    assert "\nfrom searchers" not in source
