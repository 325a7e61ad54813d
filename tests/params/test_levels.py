"""The coverage presets, what each level measures and how it stands in params.yaml; and how that file is edited."""

import subprocess
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from hfbench.cli import parse_arguments
from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.params.levels import LEVELS, Way, rewrite, way_back, ways, write_level
from hfbench.params.schema import load_params, read_yaml
from tests.conftest import ROOT
from tests.tables.hand_records import point

AS_SHIPPED = (ROOT / "params.yaml").read_text()


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def comments(text: str) -> list[str]:
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return write(tmp_path, AS_SHIPPED)


def test_each_level_holds_those_below_and_adds_what_get_config_by_level_of_benchmark_v2_adds() -> None:
    found = [ways(level) for level in LEVELS]
    assert [len(level) for level in found] == [1, 4, 8, 32, 80]
    for lower, higher in pairwise(found):
        assert set(lower) < set(higher)
    assert all(len(set(level)) == len(level) for level in found)
    assert found[0] == [Way("flex_attention", "default")]
    assert set(found[1]) - set(found[0]) == {
        Way("flash_attention_2"),
        Way("eager", "default"),
        Way("flash_attention_2", continuous_batching=True),
    }
    assert set(found[2]) - set(found[1]) == {
        Way("sdpa", "default"),
        Way("flex_attention", "default", use_kernels=True),
        Way("flash_attention_2", use_kernels=True),
        Way("sdpa", continuous_batching=True),
    }


def measured(path: Path) -> list[Configuration]:
    return load_params(path).points()


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_measured_and_the_other_axes_stay(params: Path, level: int) -> None:
    before = load_params(params).sweep
    count = write_level(level, params)
    points = measured(params)
    found = {
        (Way(each.attn_implementation, each.compile_mode, each.use_kernels, each.continuous_batching), each.batch_size)
        for each in points
    }
    assert found == set(product(ways(level), before.batch_size))
    assert len(points) == count * len(before.round) == len(ways(level)) * len(before.batch_size) * len(before.round)
    assert {each.sequence_length for each in points} == set(before.sequence_length)
    assert comments(params.read_text()) == comments(AS_SHIPPED)


def test_a_level_replaces_another(params: Path) -> None:
    for level in (2, 3, 0, 4, 2):
        write_level(level, params)
    after_others = measured(params)
    params.write_text(AS_SHIPPED)
    write_level(2, params)
    assert measured(params) == after_others
    rewrite(params, {"sweep.batch_size": []})
    with pytest.raises(UserError, match=r"sweep\.batch_size is empty"):
        write_level(2, params)


def test_the_command(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def level(word: str) -> None:
        arguments = parse_arguments(["level", word, "--params", str(params)])
        arguments.run(arguments)

    level("1")
    assert capsys.readouterr().out == f"{params}: level 1, 8 configurations in each round\n"
    with pytest.raises(UserError, match="'5' is none"):
        level("5")


LENGTHS: dict[str, Any] = {"batch_size": 1, "sequence_length": 128, "max_new_tokens": 32}
LISTED = point(model="stories-15m-random", attn_implementation="sdpa:math", continuous_batching=True, **LENGTHS)
ENTRY = {axis: value for axis, value in vars(LISTED).items() if axis != "round"}
CHANGES: dict[str, Any] = {
    "sweep.model": ["stories-15m-random"],
    "sweep.attn_implementation": [],
    "configurations": [ENTRY, {**ENTRY, "dtype": "float32"}],
    "compile.fullgraph": True,
    "compile.dynamic": False,
    "compile.options": {"shape_padding": True},
}
_LISTED = ", ".join(f"{axis}: {str(value).lower()}" for axis, value in ENTRY.items())
_KERNEL = "{layer: RMSNorm, path: x, layer_name: Norm, device:"
# Lists as DVC's own `-S` and as a person may write them, with comments, and a null that is not written out.
OTHERWISE = (
    AS_SHIPPED.replace("model: [smollm2-135m-instruct]", "model:\n  - smollm2-135m-instruct  # mine\n")
    .replace("attn_implementation: [eager, sdpa]  ", "attn_implementation:   # two\n    - eager\n\n    - sdpa\n")
    .replace("dynamic: null ", "dynamic:")
    .replace("configurations: []", f"configurations:   # none\n- {{{_LISTED}}}")
    .replace("kernels: []", f"kernels:\n  - {_KERNEL} cpu}}\n  # the fast one\n  - {_KERNEL} cuda}}   # ours")
)


@pytest.mark.parametrize("text", [AS_SHIPPED, OTHERWISE])
def test_values_change_and_comments_stay(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    wanted = read_yaml(path)
    for key, value in CHANGES.items():
        section, _, last = key.rpartition(".")
        (wanted[section] if section else wanted)[last] = value
    assert rewrite(path, CHANGES)
    assert read_yaml(path) == wanted
    assert comments(path.read_text()) == comments(text)


def test_a_comment_stays_above_what_it_is_about(tmp_path: Path) -> None:
    """Also below a list of lines, to which YAML counts it, when that becomes one line, and the other way round."""
    about = "# Where it runs.\ndevice:"
    listed = f"configurations:   # mine\n  - {{{_LISTED}}}  # first\n\n{about}"
    path = write(tmp_path, AS_SHIPPED.replace("configurations: []\n\ndevice:", listed))
    model = {"model": "smollm2-135m-instruct"}
    for entries in ([], [ENTRY | model], [ENTRY | model, ENTRY | model | {"batch_size": 2}], [], [ENTRY | model]):
        rewrite(path, {"configurations": entries})
        text = path.read_text()
        assert f"\n\n{about}" in text
        assert len([line for line in text.splitlines() if line.startswith("  - {model")]) == len(entries)
        assert text.index("# mine") < text.index("# first") < text.index(about)
        assert comments(text) == comments(AS_SHIPPED.replace("configurations: []\n\ndevice:", listed))


def test_nothing_else_changes_and_back_is_as_before(params: Path) -> None:
    path, before = params, read_yaml(params)
    listed = {**ENTRY, "model": before["sweep"]["model"][0]}
    rewrite(path, {"sweep.attn_implementation": [], "configurations": [listed]})
    changed = set(path.read_text().splitlines()) - set(AS_SHIPPED.splitlines())
    assert [line.split()[0] for line in sorted(changed)] == ["-", "attn_implementation:", "configurations:"]
    rewrite(path, {"sweep.attn_implementation": before["sweep"]["attn_implementation"], "configurations": []})
    assert path.read_text() == AS_SHIPPED
    assert not rewrite(path, {"configurations": []})


@pytest.mark.parametrize(
    ("text", "values", "words"),
    [
        (AS_SHIPPED, {"sweep.dtype": ["half"]}, ["sweep.dtype.0", "'half'"]),
        (AS_SHIPPED, {"compile.colour": 1}, ["no key compile.colour", "Add it"]),
        (AS_SHIPPED.replace("[1, 2]", "&two [1, 2]").replace("[1, 2, 3]", "*two"), {"sweep.round": [1]}, ["YAML"]),
        (
            AS_SHIPPED.replace("[1, 2, 3]", "&two [1, 2]").replace("batch_size: [1, 2]", "batch_size: *two"),
            {"sweep.batch_size": [1]},
            ["sweep.batch_size", "plainly"],
        ),
    ],
)
def test_what_cannot_be_written_changes_nothing(
    tmp_path: Path, text: str, values: dict[str, Any], words: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as raised:
        rewrite(path, values)
    for word in words:
        assert word in str(raised.value)
    assert path.read_text() == text


def test_the_way_back_from_a_commit_and_from_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(Path(), AS_SHIPPED)
    assert way_back(path) is None  # no git repository
    for words in ("init --quiet", "add params.yaml", "-c user.name=t -c user.email=t@t commit --quiet -m params"):
        subprocess.run(["git", *words.split()], check=True)
    for text in (AS_SHIPPED, OTHERWISE):
        path.write_text(text)
        command = way_back(path)
        assert command is not None
        path.write_text("spoilt")
        subprocess.run(command, shell=True, check=True)
        assert path.read_text() == text
