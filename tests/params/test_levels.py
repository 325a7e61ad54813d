"""The coverage presets: what each level measures, and how it stands in params.yaml."""

import shutil
from itertools import pairwise, product
from pathlib import Path

import pytest

from hfbench.cli import parse_arguments
from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.params.levels import LEVELS, Way, rewrite, ways, write_level
from hfbench.params.schema import load_params
from tests.conftest import ROOT


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def test_each_level_holds_those_below() -> None:
    found = [ways(level) for level in LEVELS]
    assert [len(level) for level in found] == [1, 4, 8, 32, 80]
    for lower, higher in pairwise(found):
        assert set(lower) < set(higher)
    assert all(len(set(level)) == len(level) for level in found)


def test_what_the_small_levels_hold() -> None:
    """As `get_config_by_level` of transformers' benchmark_v2 adds them."""
    assert ways(0) == [Way("flex_attention", "default")]
    assert set(ways(1)) - set(ways(0)) == {
        Way("flash_attention_2"),
        Way("eager", "default"),
        Way("flash_attention_2", continuous_batching=True),
    }
    assert set(ways(2)) - set(ways(1)) == {
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
    assert [line for line in params.read_text().splitlines() if line.lstrip().startswith("#")] == [
        line for line in (ROOT / "params.yaml").read_text().splitlines() if line.lstrip().startswith("#")
    ]


def test_a_level_replaces_another(params: Path) -> None:
    for level in (2, 3, 0, 4, 2):
        write_level(level, params)
    fresh = Path(shutil.copy(ROOT / "params.yaml", params.parent / "fresh.yaml"))
    write_level(2, fresh)
    assert measured(params) == measured(fresh)


def test_a_level_needs_values_of_the_axes_that_it_leaves_open(params: Path) -> None:
    write_level(2, params)
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
