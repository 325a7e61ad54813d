"""The command line: what it lists, and what --help costs."""

import subprocess
import sys

import pytest

from hfbench.cli import parse_arguments

COMMANDS = [
    *("check", "level", "doctor", "show", "report", "compare", "profile"),
    *("retry", "interleave", "fleet", "bisect", "export", "import"),
]


def test_help_lists_the_commands_and_loads_nothing_that_takes_time() -> None:
    script = (
        "import sys\n"
        "from hfbench.cli import parse_arguments\n"
        "try:\n"
        "    parse_arguments(['--help'])\n"
        "finally:\n"
        "    heavy = {'torch', 'polars', 'pydantic', 'ruamel', 'dvc', 'rich', 'ray'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    process = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    listed = [line.split()[0] for line in process.stdout.splitlines() if line.startswith("    ") and line[4] != " "]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("words", [[], ["measure"], ["import", "benchmark-v2", "file.json"], ["level"]])
def test_what_is_no_command_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(words)
    assert ended.value.code == 2
    assert "usage: hfbench" in capsys.readouterr().err
