"""params.yaml edited in place: what was asked for changes, and not a byte besides."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, USUAL
from hfbench.params.levels import rewrite, way_back
from hfbench.params.schema import read_yaml
from tests.conftest import ROOT

ENTRY = {
    **dict.fromkeys(CONFIGURATION_AXES),
    **USUAL,
    "model": "stories-15m-random",
    "attn_implementation": "sdpa:math",
    "continuous_batching": True,
    "batch_size": 1,
    "sequence_length": 128,
    "max_new_tokens": 32,
}
CHANGES: dict[str, Any] = {
    "sweep.model": ["stories-15m-random"],
    "sweep.attn_implementation": [],
    "configurations": [ENTRY, {**ENTRY, "dtype": "float32"}],
    "compile.fullgraph": True,
    "compile.dynamic": False,
    "compile.options": {"shape_padding": True},
}
AS_SHIPPED = (ROOT / "params.yaml").read_text()
_LISTED = ", ".join(f"{axis}: {str(value).lower()}" for axis, value in ENTRY.items())
# The same content as DVC's own `-S` writes lists, as a person may, and with a null that is not written out.
OTHERWISE = (
    AS_SHIPPED.replace("model: [smollm2-135m-instruct]", "model:\n  - smollm2-135m-instruct  # mine\n")
    .replace("attn_implementation: [eager, sdpa]  ", "attn_implementation:   # two\n    - eager\n\n    - sdpa\n")
    .replace("dynamic: null ", "dynamic:")
    .replace("configurations: []", f"configurations:   # none\n- {{{_LISTED}}}")
)


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def comments(text: str) -> list[str]:
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


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


def test_nothing_else_changes_and_back_is_as_before(tmp_path: Path) -> None:
    path = write(tmp_path, AS_SHIPPED)
    before = read_yaml(path)
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
        (AS_SHIPPED.replace("[1, 4]", "&two [1, 4]").replace("[1, 2, 3]", "*two"), {"sweep.round": [1]}, ["YAML"]),
        (
            AS_SHIPPED.replace("[1, 2, 3]", "&two [1, 4]").replace("batch_size: [1, 4]", "batch_size: *two"),
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
