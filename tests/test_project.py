"""README, documentation, Makefile and requirements: what they say is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ciq_ray import __version__, settings
from searchers import Space

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


class TestReadme:
    def test_the_example_prints_what_is_shown(self, tmp_path: Path) -> None:
        script = blocks(ROOT / "README.md", "python")[0]
        assert sum(bool(line.strip()) for line in script.splitlines()) <= 20
        (tmp_path / "tune.py").write_text(script)
        run = subprocess.run(
            [sys.executable, "tune.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "CIQ_RUNS_DIR": str(tmp_path / "runs")},
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout == blocks(ROOT / "README.md", "text")[0]

    def test_the_first_page_has_the_two_commands(self) -> None:
        first = (ROOT / "README.md").read_text().split("```python")[0]
        assert "make demo" in first
        assert "make test" in first

    def test_the_demo_that_is_shown_is_the_one_there_is(self) -> None:
        shown = blocks(ROOT / "README.md", "text")[1]
        source = (ROOT / "examples" / "ptxas_spill.py").read_text()
        for phrase in ("option sets in", "Least spilling for", "Applied again: ", "To use it:"):
            assert phrase in shown
            assert phrase in source


class TestDocuments:
    @pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
    def test_links_lead_somewhere(self, document: Path) -> None:
        for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text()):
            if not target.startswith(("https://", "http://")):
                assert (document.parent / target).exists(), target

    @pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
    def test_code_compiles_and_data_is_json(self, document: Path) -> None:
        for code in blocks(document, "python"):
            compile(code, str(document), "exec")
        for data in blocks(document, "json"):
            json.loads(data)

    @pytest.mark.parametrize(
        "name",
        [
            "search-spaces",
            "searchers",
            "workers",
            "runs-and-resume",
            "ray-tune",
            "cache",
            "migrating-from-helion",
        ],
    )
    def test_code_runs(self, name: str) -> None:
        namespace: dict[str, object] = {}
        for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
            exec(code, namespace)
        if name == "search-spaces":
            assert Space(namespace["parameters"]).size
            assert isinstance(namespace["space"], Space)
        if name == "workers":
            assert namespace["objective"]({"step": 4096}) > 0  # type: ignore[operator]

    def test_the_search_space_file_is_one(self) -> None:
        (data,) = blocks(ROOT / "docs" / "search-spaces.md", "json")
        space = Space.from_dict(json.loads(data))
        assert space.names == ["BLOCK", 'inner["x"]', "pair[0]", "pair[1]"]

    def test_every_kind_of_parameter_is_listed(self) -> None:
        from searchers import files

        text = (ROOT / "docs" / "search-spaces.md").read_text()
        for kind in [*files._KINDS.values(), files.ListOf]:
            assert f"`{kind.__name__}(" in text
            assert f"`{kind.kind}`" in text

    def test_every_searcher_has_its_paragraph(self) -> None:
        from searchers.registry import NAMES, searcher_class

        text = (ROOT / "docs" / "searchers.md").read_text()
        for name in NAMES:
            assert f"**`{name}`** (`{searcher_class(name).__name__}`)." in text, name

    def test_every_status_is_explained(self) -> None:
        from searchers import STATUSES

        text = (ROOT / "docs" / "workers.md").read_text()
        for status in STATUSES:
            assert re.search(rf"^\|.*`{status}`.* \|", text, re.MULTILINE), status

    def test_environment_variables_are_those_that_are_read(self) -> None:
        def table(text: str | None) -> list[str]:
            return re.findall(r"^\| `CIQ_.*\|$", text or "", re.MULTILINE)

        documented = table((ROOT / "docs" / "runs-and-resume.md").read_text())
        assert documented == table(settings.__doc__)
        read = set(re.findall(r"\"(CIQ_[A-Z_]+)\"", Path(settings.__file__).read_text()))
        assert read == {re.search("CIQ_[A-Z_]+", row)[0] for row in documented}  # type: ignore[index]

    def test_every_kind_of_record_in_a_journal_is_listed(self) -> None:
        from ciq_ray import journal

        written = re.findall(r'\{"t": "([a-z_]+)"', journal.__doc__ or "")
        text = (ROOT / "docs" / "runs-and-resume.md").read_text()
        table = re.findall(r"^\| `([a-z_]+)` \|", text.split("| `t` | meaning |")[1], re.MULTILINE)
        assert table == written
        assert len(written) == 9

    def test_every_field_of_a_search_that_is_ours_is_named(self) -> None:
        from ciq_ray import Search

        text = (ROOT / "docs" / "migrating-from-compileiq.md").read_text()
        documented = {
            "objective_function",
            "search_space",
            "search_config",
            "worker_type",
            "tracker_config",
            "debug",
            "cache_folder",
            "dump_results",
            "disable_progress_bar",
            "exit_on_failure",
            "run_id",
            "current_generation",
        }
        for name in set(Search.model_fields) - documented:
            assert f"`{name}`" in text

    def test_the_searcher_of_the_guide_passes_the_contract(self, tmp_path: Path) -> None:
        searcher, contract = blocks(ROOT / "CONTRIBUTING.md", "python")
        (tmp_path / "test_guide.py").write_text(searcher + contract)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_guide.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert run.returncode == 0, run.stdout[-3000:]
        assert "skipped" not in run.stdout


class TestRequirements:
    def test_everything_is_pinned(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        wanted = [*project["dependencies"], *extras["dev"], *extras["ptxas"]]
        pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
        for requirement in wanted:
            assert re.match(r"[a-z0-9-]+", requirement)[0] in pinned, requirement  # type: ignore[index]

    def test_the_compilers_are_of_one_release(self) -> None:
        pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
        compilers = {name: version for name, version in pinned.items() if name.startswith("nvidia-")}
        del compilers["nvidia-ml-py"]  # NVML's, which goes with drivers
        assert len(compilers) == 4
        assert {version.rsplit(".", 1)[0] for version in compilers.values()} == {"13.3"}

    def test_the_changelog_knows_the_version(self) -> None:
        text = (ROOT / "CHANGELOG.md").read_text()
        assert re.search(r"^## \[Unreleased\]$|^## \[" + re.escape(__version__), text, re.MULTILINE)

    def test_nothing_of_a_machine_is_in_the_files(self) -> None:
        traces = re.compile(
            "|".join(["/" + "root/", "/" + "work/", "/" + "opt/", "index" + "-url", "find" + "-links"])
        )
        files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / ".ci" / "run"]
        for folder in ("ciq_ray", "searchers", "tests", "examples", "benchmarks", "docs"):
            files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        found = []
        for path in [*files, *DOCUMENTS]:
            if path.suffix in (".pyc", ".so") or path.stat().st_size > 1 << 20:
                continue
            if match := traces.search(path.read_text(errors="replace")):
                found.append(f"{path.relative_to(ROOT)}: {match[0]}")
        assert not found


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class TestMakefile:
    """With a Python that only notes what it is called with."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, tmp_path)
        script(tmp_path / ".venv" / "bin" / "python", f'echo "$@" >> "{tmp_path}/calls"')
        return tmp_path

    def make(
        self, folder: Path, *arguments: str, path: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        (folder / "calls").unlink(missing_ok=True)
        environment = {**os.environ, "PATH": path or os.environ["PATH"]}
        for name in ("PYTHON", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
            environment.pop(name, None)
        return subprocess.run(
            [shutil.which("make") or "make", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )

    def calls(self, folder: Path) -> list[str]:
        return [line for line in (folder / "calls").read_text().splitlines() if line != "-c "]

    def test_installs_once_and_again_when_the_requirements_change(self, folder: Path) -> None:
        install = "-m pip install -qq --disable-pip-version-check --constraint constraints.txt"
        install += " --editable .[dev,ptxas]"
        test = "-m pytest -m not slow and not gpu -n 2 --dist loadfile"
        assert self.make(folder, "test").returncode == 0
        assert self.calls(folder) == [install, test]
        self.make(folder, "test")
        assert self.calls(folder) == [test]
        later = (folder / ".venv" / ".ready").stat().st_mtime + 2
        os.utime(folder / "constraints.txt", (later, later))
        self.make(folder, "test")
        assert self.calls(folder) == [install, test]

    def test_an_installation_that_failed_is_tried_again(self, folder: Path) -> None:
        broken = f'echo "$@" >> "{folder}/calls"; [ "$2" != pip ]'
        script(folder / ".venv" / "bin" / "python", broken)
        for _ in range(2):
            assert self.make(folder, "demo").returncode != 0
            assert any("pip install" in call for call in self.calls(folder))
            assert not any("ptxas_spill" in call for call in self.calls(folder))

    def test_demo_and_bench(self, folder: Path) -> None:
        self.make(folder, "demo")
        assert self.calls(folder)[-1] == "examples/ptxas_spill.py --output demo-out"
        self.make(folder, "bench")
        install = "-m pip install -qq --disable-pip-version-check --constraint constraints.txt"
        assert self.calls(folder) == [f"{install} --editable .[bench]", "-m benchmarks"]

    @pytest.fixture
    def bare(self, folder: Path) -> Path:
        """A PATH with a shell's tools and no Python."""
        shutil.rmtree(folder / ".venv")
        tools = folder / "tools"
        tools.mkdir()
        for name in ("sh", "make", "sed", "touch"):
            (tools / name).symlink_to(shutil.which(name) or name)
        return tools

    def test_a_python_that_is_too_old_is_refused(self, folder: Path, bare: Path) -> None:
        script(bare / "python3", "exit 1")  # what the version check of an old one answers
        run = self.make(folder, "test", path=str(bare))
        assert run.returncode == 2
        assert "Python 3.11 or later is needed" in run.stderr
        assert "make PYTHON=" in run.stderr
        assert not (folder / ".venv").exists()

    def test_the_version_check_knows_old_from_new(self) -> None:
        check = re.search(r"-c '(import sys; [^']+)'", (ROOT / "Makefile").read_text())
        assert check is not None
        for version, status in (((3, 10, 14), 1), ((3, 11, 0), 0), ((3, 13, 1), 0)):
            code = check[1].replace("sys.version_info", repr(version))
            assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status

    def test_a_python_without_venv_is_named(self, folder: Path, bare: Path) -> None:
        script(bare / "python3", '[ "$1" = -c ]')
        run = self.make(folder, "test", path=str(bare))
        assert run.returncode == 2
        assert "cannot make virtual environments" in run.stderr

    def test_help_names_every_target(self, folder: Path) -> None:
        shown = self.make(folder).stdout
        targets = re.search(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert targets is not None
        for target in targets[1].split():
            assert f"make {target} " in shown


class TestCi:
    CLOSING = "========= 3 passed, 1 skipped in 0.12s ========="

    def run(self, tmp_path: Path, make: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
        script(tmp_path / "bin" / "make", f'echo "make $1"\n{make}')
        return subprocess.run(
            [tmp_path / ".ci" / "run"],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        )

    def test_runs_tests_and_linters_and_repeats_pytests_last_line(self, tmp_path: Path) -> None:
        run = self.run(tmp_path, f'[ "$1" = lint ] || echo "{self.CLOSING}"')
        assert run.returncode == 0
        assert run.stdout.splitlines() == ["make test", self.CLOSING, "make lint", self.CLOSING]

    @pytest.mark.parametrize("broken", ["test", "lint"])
    def test_either_can_fail_it(self, tmp_path: Path, broken: str) -> None:
        run = self.run(tmp_path, f'[ "$1" != {broken} ]')
        assert run.returncode != 0
        assert "make lint" in run.stdout
