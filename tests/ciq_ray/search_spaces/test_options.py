"""The form of compiler spaces, and the text of a candidate."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from ciq_ray.errors import SearchSpaceError
from ciq_ray.search_spaces.options import CompilerSpace, option_line, parse_version
from searchers.errors import ConfigError
from searchers.space import Space


def space_of(data: dict[str, Any], **selection: str) -> Space:
    return CompilerSpace.from_json(data, "toy.json").select(**selection).to_space()


def text_of(space: Space, config: dict[str, Any]) -> Any:
    return space.decode(space.encode(config))


def test_the_text_has_a_line_for_each_option_that_is_not_at_its_default(tiny: dict[str, Any]) -> None:
    config = {"level": 3, "spread": "far", "quiet": True, "fuse": False}
    expected = "--level=3\n--override\n--spread=far\n-q\n--fuse=false\n"
    assert text_of(space_of(tiny), config) == expected


def test_the_compilers_defaults_are_the_empty_text_and_the_spaces_default(tiny: dict[str, Any]) -> None:
    space = space_of(tiny)
    assert text_of(space, {"level": 2, "quiet": False, "fuse": True}) == ""
    assert space.default_row is not None
    assert space.decode(space.default_row) == ""


def test_a_companion_of_two_options_is_written_once(tiny: dict[str, Any]) -> None:
    del tiny["options"][2]["when"]
    config = {"level": 2, "limit": 8, "spread": "near", "quiet": False, "fuse": True}
    assert text_of(space_of(tiny), config) == "--override\n--limit=8\n--spread=near\n"


def test_every_candidate_is_found_again_from_its_text(tiny: dict[str, Any]) -> None:
    space = space_of(tiny)
    rows = space.sample(300, np.random.default_rng(1))
    texts = [space.decode(row) for row in rows]
    assert [space.decode(space.encode(text)) for text in texts] == texts
    keys = space.keys(np.array([space.encode(text) for text in texts]))
    assert keys.tolist() == space.keys(rows).tolist()
    assert len(set(keys.tolist())) == len(set(texts))


def test_the_size_counts_texts(tiny: dict[str, Any]) -> None:
    # (level, quiet): 4 * 2 less (0, on); limit or else spread: 4 + 3; fuse: 2
    assert space_of(tiny).size == (8 - 1) * (4 + 3) * 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("--level=9\n", "line 1: '--level=9'"),
        ("--other\n", "line 1: '--other'"),
        ("\n--level=1\n--level=3\n", "line 3"),
        ("--limit=8\n", "--override must be there exactly when"),
        ("--override\n", "--override must be there exactly when"),
        (7, "not the text"),
    ],
)
def test_a_text_of_another_space_is_refused(tiny: dict[str, Any], text: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        space_of(tiny).encode(text)


def test_the_renderer_survives_pickling_and_has_a_fingerprint(tiny: dict[str, Any]) -> None:
    space = space_of(tiny)
    again = pickle.loads(pickle.dumps(space.render))
    assert again({"level": 1}) == "--level=1\n"
    assert again.fingerprint == space.render.fingerprint  # type: ignore[union-attr]
    tiny["options"][0]["flag"] = "--effort"
    assert space_of(tiny).render.fingerprint != again.fingerprint  # type: ignore[union-attr]


def test_options_are_selected_by_version(tiny: dict[str, Any]) -> None:
    tiny["options"][0]["since"] = "1.1"
    tiny["options"][3]["until"] = "1.1"
    tiny["constraints"] = []
    names = {
        version: [option.name for option in CompilerSpace.from_json(tiny, "t").select(version).options]
        for version in (*tiny["compiler_versions"], None)
    }
    rest = ["limit", "spread", "fuse"]
    assert names == {
        "1.0": ["limit", "spread", "quiet", "fuse"],
        "1.1": ["level", "limit", "spread", "quiet", "fuse"],
        "2.0": ["level", *rest],
        None: rest,
    }


def test_options_are_selected_by_architecture(tiny: dict[str, Any]) -> None:
    tiny["options"][3]["architectures"] = ["sm_90", "sm_100"]

    def has_quiet(architecture: str | None) -> bool:
        chosen = CompilerSpace.from_json(tiny, "t").select(architecture=architecture).options
        return "quiet" in [option.name for option in chosen]

    assert has_quiet("sm_90")
    assert not has_quiet("sm_75")
    assert not has_quiet(None)


def test_a_dropped_option_counts_as_absent_in_expressions(tiny: dict[str, Any]) -> None:
    tiny["options"][1]["since"] = "2.0"  # `spread` is there when limit is None
    tiny["constraints"] = ["limit is not None or level < 3"]
    old, new = space_of(tiny, version="1.0"), space_of(tiny, version="2.0")
    assert (old.size, new.size) == (3 * 3 * 2 * 2, (4 * 4 + 3 * 3) * 2 * 2)
    assert tiny["options"][2]["when"] == "limit is None"


def test_versions_are_compared_as_numbers(tiny: dict[str, Any]) -> None:
    tiny["compiler_versions"] = ["13.9", "13.10"]
    tiny["options"][0]["since"] = "13.10"
    tiny["constraints"] = []
    assert len(CompilerSpace.from_json(tiny, "t").select("13.9").options) == 4
    assert len(CompilerSpace.from_json(tiny, "t").select("13.10").options) == 5


def test_an_unknown_version_is_refused_with_the_known_ones(tiny: dict[str, Any]) -> None:
    with pytest.raises(SearchSpaceError, match=r"'3\.0'.*1\.0, 1\.1, 2\.0"):
        space_of(tiny, version="3.0")


DELETE = object()


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("format",), "other", "`format`: is 'other'"),
        (("version",), 2, "`version`: is 2; this release reads version 1"),
        (("version",), True, "`version`: is true; it must be a whole number"),
        (("compiler",), "", "`compiler`: is empty"),
        (("compiler",), DELETE, "`compiler`: missing"),
        (("compiler_versions",), [], "`compiler_versions`: is empty"),
        (("compiler_versions",), ["13"], "has '13'; a version is of the form"),
        (("compiler_versions",), ["1.0", "1.0"], "has an entry twice"),
        (("optoins",), [], "`optoins`: unknown; there are format, version"),
        (("options",), [], "`options`: is empty"),
        (("options",), {}, "`options`: is {}; it must be a list"),
        (("options", 0), "--level", r"`options\[0\]`: \"--level\" stands where an object"),
        (("options", 0, "name"), "a b", r"`options\[0\]\.name`: is 'a b'"),
        (("options", 1, "name"), "level", r"`options\[1\]\.name`: is 'level', as of an earlier"),
        (("options", 1, "flag"), "--level", r"`options\[1\]\.flag`: is '--level', as of an earlier"),
        (("options", 0, "flag"), "--level x", r"`options\[0\]\.flag`"),
        (("options", 0, "flag"), "rm", r"`options\[0\]\.flag`"),
        (("options", 1, "with"), ["--a\n--b"], r"`options\[1\]\.with`"),
        (("options", 0, "dco"), "x", r"`options\[0\]\.dco`: unknown"),
        (("options", 0, "doc"), DELETE, r"`options\[0\]\.doc`: missing"),
        (("options", 0, "default"), 9, r"`options\[0\]\.default`: 9 is not a value"),
        (("options", 0, "default"), DELETE, r"`options\[0\]`: needs either `default`"),
        (("options", 1, "default"), 8, r"`options\[1\]`: needs either `default`"),
        (("options", 3, "default"), False, "a switch is off by default"),
        (("options", 3, "knockout_prob"), 0.5, "a switch can be off already"),
        (("options", 1, "knockout_prob"), 1.5, r"`options\[1\]`: .*knockout_prob.* is 1\.5"),
        (("options", 1, "knockout_prob"), "0.5", r"`options\[1\]`: .*knockout_prob"),
        (("options", 0, "values"), 3, r"`options\[0\]\.values`: is 3; it must be an object"),
        (("options", 0, "values", "type"), "floats", r"`options\[0\]\.values\.type`: is 'floats'"),
        (("options", 0, "values", "setp"), 1, r"`options\[0\]`: .*setp"),
        (("options", 0, "values", "step"), 0.5, "whole numbers or booleans"),
        (("options", 0, "values", "end"), 10**9, "more than 65536 values"),
        (("options", 0, "values", "knockout_prob"), 0.1, "belongs beside `values`"),
        (("options", 2, "values", "choices"), ["near", 'a"b'], r"`options\[2\]\.values`"),
        (("options", 2, "values", "choices"), ["near", "a\nb"], r"`options\[2\]\.values`"),
        (("options", 2, "values", "choices"), ["1", 1], "look the same"),
        (("options", 2, "values", "choices"), [["near"]], "an option's values are"),
        (("options", 3, "flag"), "--override", r"`options\[3\]`: makes the line '--override', as another"),
        (("options", 3, "flag"), "--level=3", r"`options\[3\]`: makes the line '--level=3', as another"),
        (("options", 0, "since"), "new", r"`options\[0\]\.since`: is 'new'"),
        (("options", 0, "changes_results"), "yes", r"`options\[0\]\.changes_results`"),
        (("options", 0, "when"), "limit is None", r"`options\[0\]\.when`: needs `knockout_prob`"),
        (("options", 2, "when"), "limt is None", "limt"),
        (("options", 2, "when"), "limit is", "limit is"),
        (("constraints",), ["__import__('os')"], "__import__"),
        (("constraints",), ["level > 5"], "level > 5"),
        (("constraints",), ["level != 2 or quiet"], "default"),
        (("constraints",), "level > 1", "`constraints`"),
    ],
)
def test_bad_files_are_refused_with_the_place(
    tiny: dict[str, Any], path: tuple[str | int, ...], value: Any, complaint: str
) -> None:
    data: Any = copy.deepcopy(tiny)
    node = data
    for key in path[:-1]:
        node = node[key]
    if value is DELETE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    with pytest.raises(SearchSpaceError, match=complaint):
        space_of(data)


@pytest.mark.parametrize("text", ["13", "13.3.1", "v13.3", "13.x", "", "013.3", "13. 3", "\u0661.\u0662"])
def test_what_is_not_a_version(text: str) -> None:
    assert parse_version(text) is None


def test_lines_quote_what_needs_it() -> None:
    assert option_line("-O", 3) == "-O=3"
    assert option_line("-x", True) == "-x=true"
    assert option_line("-f", "/a b/c") == '-f="/a b/c"'
    for bad in ("", 'a"b', "a\nb", "a\\b", "\x00"):
        with pytest.raises(SearchSpaceError, match="cannot be a value of -f"):
            option_line("-f", bad)
