"""The command line: what it lists, what --help costs, and that it takes the commands and sweeps of our pages."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hfbench.cli import parse_arguments
from hfbench.params.schema import load_params, read_yaml
from tests.conftest import ROOT

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


WORKFLOW, PAGE = ROOT / "docs" / "github-actions.yml", ROOT / "docs" / "ci.md"
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {PAGE})


def steps() -> list[str]:
    return [step["run"] for step in read_yaml(WORKFLOW)["jobs"]["compare"]["steps"] if "run" in step]


def commands(text: str) -> list[list[str]]:
    """Return the words of each line that runs hfbench, up to a redirection or a comment."""
    lines = re.findall(r"^\s*(?:\$ )?hfbench (.+)$", text, re.MULTILINE)
    return [[word for word in shlex.split(line.split(" > ")[0], comments=True) if word] for line in lines]


def test_the_sweep_of_the_workflow_is_valid(tmp_path: Path) -> None:
    [params] = [found.group(1) for step in steps() if (found := re.search(r"<<'PARAMS'\n(.*?)PARAMS\n", step, re.S))]
    (tmp_path / "params.yaml").write_text(params)
    sweep = load_params(tmp_path / "params.yaml").sweep
    assert (len(sweep.attn_implementation), len(sweep.batch_size)) == (2, 2)  # as the page says


def test_every_command_of_the_page_and_the_workflow_is_understood() -> None:
    found = commands(PAGE.read_text()) + commands("\n".join(steps()).replace('"$ROUNDS"', "7"))
    for words in found:
        assert parse_arguments(words).run
    names = [words[0] for words in found]
    assert {"interleave", "compare", "bisect"} <= set(names)
    fails = [words for words in found if words[0] == "compare" and "--fail-on" in words]
    assert len(fails) == 2  # on the page, and in the workflow's last step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_understood(page: Path) -> None:
    console = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for words in commands("\n".join(console)):
        assert parse_arguments(words).run


def test_the_workflow_compares_what_it_measures() -> None:
    text = "\n".join(steps())
    [interleave] = [words for words in commands(text.replace('"$ROUNDS"', "7")) if words[0] == "interleave"]
    names = parse_arguments(interleave).names
    compared = [parse_arguments(words).names for words in commands(text) if words[0] == "compare"]
    assert compared == [names, names]


def test_what_it_installs_is_pinned() -> None:
    workflow = read_yaml(WORKFLOW)
    installs = re.findall(r"pip install (.+)", "\n".join(steps()))
    assert all("--constraint constraints.txt" in line or "--no-deps" in line for line in installs)
    assert len(installs) == 2
    actions = [step["uses"] for step in workflow["jobs"]["compare"]["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action) for action in actions)
    assert re.fullmatch(r"[0-9a-f]{40}", str(workflow["env"]["HFBENCH_REVISION"]))
