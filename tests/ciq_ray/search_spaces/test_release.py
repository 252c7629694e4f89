"""Fetching a release from a real server on this machine."""

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces import release
from ciq_ray.search_spaces.compilers import CATALOGUE, PtxasSearchSpace

FILE = "ptxas-13-default.json"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, keeps a list of requests, and misbehaves where a file tells it to."""

    def log_message(self, format: str, *args: Any) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        behaviour = Path(self.translate_path(self.path) + ".behaviour")
        if not behaviour.exists():
            return super().do_GET()
        kind, _, argument = behaviour.read_text().partition(" ")
        self.log_request(200)
        if kind == "redirect":
            self.send_response_only(302)
            self.send_header("Location", argument)
            self.end_headers()
        elif kind == "cut":
            self.send_response_only(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"{")
        elif kind == "endless":
            self.send_response_only(200)
            self.end_headers()
            while True:
                self.wfile.write(b" " * 65536)
        return None


class Server(http.server.ThreadingHTTPServer):
    """Keeps quiet about clients that hang up."""

    seen: list[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        return None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Server]]:
    """The folder of a release named 1, also served as the latest one."""
    for tag in ("1", "latest"):
        shutil.copytree(CATALOGUE, tmp_path / "site" / tag)
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "site")))
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("CIQ_SEARCH_SPACES_REPO", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # loopback never goes through a proxy
    try:
        yield tmp_path / "site", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def misbehave(path: Path, behaviour: str) -> None:
    path.with_name(path.name + ".behaviour").write_text(behaviour)


def test_a_file_is_fetched_once_and_kept(site: tuple[Path, Server], tmp_path: Path) -> None:
    _, server = site
    path = PtxasSearchSpace().retrieve()
    assert path.is_relative_to(tmp_path / "cache")
    assert path.read_bytes() == (CATALOGUE / FILE).read_bytes()
    PtxasSearchSpace().retrieve()
    assert server.seen == ["/latest/manifest.json", f"/latest/{FILE}", "/latest/manifest.json"]
    assert [found.name for found in path.parent.iterdir()] == [FILE]


def test_a_named_release_needs_no_server_the_second_time(site: tuple[Path, Server]) -> None:
    _, server = site
    PtxasSearchSpace(tag="1").retrieve()
    count = len(server.seen)
    assert PtxasSearchSpace(tag="1").retrieve().name == FILE
    assert len(server.seen) == count


def test_the_record_has_the_release_and_its_address(site: tuple[Path, Server]) -> None:
    _, server = site
    record = PtxasSearchSpace(tag="1").resolution_metadata()
    assert record["release"] == "1"
    assert record["source"] == f"http://127.0.0.1:{server.server_port}/1"


def test_a_damaged_cache_is_fetched_again(site: tuple[Path, Server]) -> None:
    path = PtxasSearchSpace().retrieve()
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert PtxasSearchSpace().retrieve().read_bytes() == whole


def test_what_differs_from_the_manifest_is_not_kept(site: tuple[Path, Server], tmp_path: Path) -> None:
    folder, _ = site
    file = folder / "latest" / FILE
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"start": 1', b'"start": 0'))
    with pytest.raises(SearchSpaceError, match="its sha256 is"):
        PtxasSearchSpace().retrieve()
    file.write_bytes(content + b" ")
    with pytest.raises(SearchSpaceError, match="larger than the"):
        PtxasSearchSpace().retrieve()
    assert not list((tmp_path / "cache").rglob(FILE))


def test_an_unknown_release_is_refused(site: tuple[Path, Server]) -> None:
    with pytest.raises(
        SearchSpaceError, match=r"/2/manifest\.json: HTTP status 404; check CIQ_SEARCH_SPACES"
    ):
        PtxasSearchSpace(tag="2").retrieve()


def test_a_release_under_another_name_is_refused(site: tuple[Path, Server]) -> None:
    folder, _ = site
    shutil.copytree(folder / "1", folder / "2")
    with pytest.raises(SearchSpaceError, match="this is release '1', not '2'"):
        PtxasSearchSpace(tag="2").retrieve()


def test_a_body_that_is_cut_short_is_refused(site: tuple[Path, Server], tmp_path: Path) -> None:
    folder, _ = site
    misbehave(folder / "latest" / FILE, "cut")
    with pytest.raises(SearchSpaceError, match=f"{FILE}: "):
        PtxasSearchSpace().retrieve()
    misbehave(folder / "latest" / "manifest.json", "cut")
    with pytest.raises(SearchSpaceError, match=r"manifest\.json: "):
        PtxasSearchSpace().retrieve()
    assert not list((tmp_path / "cache").rglob(FILE))


def test_an_endless_body_ends_at_the_limit(
    site: tuple[Path, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = site
    misbehave(folder / "latest" / FILE, "endless")
    with pytest.raises(SearchSpaceError, match="larger than the"):
        PtxasSearchSpace().retrieve()
    monkeypatch.setattr(release, "DEADLINE_S", 0.0)
    with pytest.raises(SearchSpaceError, match="not complete after 0 s"):
        PtxasSearchSpace().retrieve()


def test_redirects_are_followed_on_this_machine_and_not_to_elsewhere(site: tuple[Path, Server]) -> None:
    folder, server = site
    manifest = folder / "latest" / "manifest.json"
    misbehave(manifest, f"redirect http://127.0.0.1:{server.server_port}/1/manifest.json")
    assert PtxasSearchSpace().retrieve().name == FILE
    for target in ("http://a.example/manifest.json", "file:///etc/passwd", "ftp://a.example/x"):
        misbehave(manifest, f"redirect {target}")
        with pytest.raises(SearchSpaceError, match=r"cannot be fetched|HTTP status 302"):
            PtxasSearchSpace().retrieve()


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, site: tuple[Path, Server]) -> None:
    monkeypatch.setenv("CIQ_SEARCH_SPACES_REPO", "http://127.0.0.1:9")
    with pytest.raises(SearchSpaceError, match=r"cannot be fetched: .*unset it"):
        PtxasSearchSpace().retrieve()


def test_a_cache_that_cannot_be_written(
    site: tuple[Path, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIQ_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(SearchSpaceError, match=r"cannot be written: .*; set CIQ_CACHE_DIR"):
        PtxasSearchSpace().retrieve()


def test_nothing_is_fetched_unless_asked(site: tuple[Path, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = site
    monkeypatch.delenv("CIQ_SEARCH_SPACES_REPO")
    assert PtxasSearchSpace().retrieve().parent == CATALOGUE
    assert server.seen == []


def test_a_fetched_opaque_binary_is_refused_when_it_is_read(site: tuple[Path, Server]) -> None:
    import hashlib

    from ciq_ray.search_spaces.compilers import load_provider

    folder, _ = site
    data = b"\x00\x01vendor" * 40
    (folder / "latest" / FILE).write_bytes(data)
    manifest = json.loads((folder / "latest" / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["file"] == FILE:
            entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    (folder / "latest" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SearchSpaceError, match="opaque binary"):
        load_provider(PtxasSearchSpace())
