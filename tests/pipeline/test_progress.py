"""What a person sees of a real `dvc repro`: how far it is, how long it takes, and what is known so far."""

import os
import pty
import re
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from hfbench.measure.progress import Done, duration, known_so_far
from tests.pipeline.checkout import Checkout


def three_rounds(content: Any) -> None:
    content["sweep"].update(round=[1, 2, 3], attn_implementation=["sdpa"])


@pytest.fixture
def begun(fresh: Checkout) -> Checkout:
    """A clone with a sweep of three rounds, of which the first was measured."""
    fresh.change_params(three_rounds)
    return fresh


def test_a_log_has_how_much_there_is_and_a_line_a_point(begun: Checkout) -> None:
    said = begun.run("dvc", "repro").stderr
    lines = [line for line in said.splitlines() if "point" in line]
    assert len(lines) == 3, said
    assert re.fullmatch(r"2 points to measure, about \d+ s", lines[0])
    assert re.fullmatch(
        r"point 1 of 2 · round 2 · sdpa · batch 1  [\d.]+ s end to end, median of 2  about \d+ s left", lines[1]
    )
    assert re.fullmatch(r"point 2 of 2 · round 3 · sdpa · batch 1  [\d.]+ s end to end, median of 2", lines[2])
    assert "warm-up" not in said
    assert "point" not in begun.run("dvc", "repro").stderr, "there was nothing to do"


def test_the_estimate_learns_from_the_points_before(fresh: Checkout) -> None:
    """What `max_seconds` allows is all that is known of the first point, and much more than it takes."""

    def unlike(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa:math"])
        content["sampling"]["max_seconds"] = 300

    fresh.change_params(unlike)
    said = fresh.run("dvc", "repro").stderr
    assert re.search(r"^2 points to measure, about \d+ min$", said, re.MULTILINE), said
    assert re.search(r"^point 1 of 2 .* about \d+ s left$", said, re.MULTILINE), said


def test_verbose_brings_the_phases_back(begun: Checkout) -> None:
    begun.change_params(lambda content: content["sweep"].update(round=[1, 2]))
    said = begun.run("dvc", "repro", "--verbose").stderr
    for phase in ("import", "load", "verify", "sample"):
        assert re.search(rf"round 2 · tiny · sdpa .*  {phase}$", said, re.MULTILINE)
    assert re.search("^point 1 of 1 · round 2", said, re.MULTILINE)


def test_a_run_imports_the_libraries_once_and_in_no_stage(fresh: Checkout) -> None:
    """Python writes what it imports to the standard error of each process; the server of workers has none."""

    def imports(workers: str, *stages: str) -> int:
        environment = {"PYTHONPROFILEIMPORTTIME": "1", "HFBENCH_WORKERS": workers}
        said = fresh.run("dvc", "repro", "--force", "--single-item", *stages, check=True, **environment).stderr
        return len(re.findall(r"\| +torch$", said, re.MULTILINE))

    assert imports("auto", "inputs", "ceilings") == 0
    assert imports("fresh", "inputs") == 1


def test_only_what_was_asked_for_is_counted(begun: Checkout) -> None:
    stage = next(name for name in begun.stages() if "measure@3" in name)
    said = begun.run("dvc", "repro", stage).stderr
    assert re.search("^1 point to measure", said, re.MULTILINE)
    said = begun.run("dvc", "repro", "--force", "--glob", "measure@[13]-*").stderr
    assert re.search("^2 points to measure", said, re.MULTILINE)
    assert re.search("^point 2 of 2", said, re.MULTILINE)


def test_a_terminal_shows_what_is_known_so_far(begun: Checkout) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["dvc", "repro", "--quiet"], cwd=begun.folder, env=begun.variables(), stdout=theirs, stderr=theirs
    ) as dvc:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # by which Linux says that the other end is closed
            while received := os.read(ours, 65536):
                shown += received
        os.close(ours)
    assert dvc.returncode == 0
    text = shown.decode()
    assert "2 points to measure, about" in text
    assert re.search(r"point 1 of 2 · about \d+ s left · round 2 .*  load", text)
    before, _, after = text.partition("so far")
    assert "point 1 of 2 · round 2 · sdpa · batch 1" in before, "the first point ended before there was a table"
    assert re.search(r"sdpa · batch 1 +1 +[\d.]+ s", after)
    assert "\x1b[J" in after, "the table is taken away before what stays is written"


def test_the_table_has_a_line_for_each_configuration_and_fits() -> None:
    done = [
        Done("eager · batch 1", 1, "ok", 2.0, took_seconds=9.0),
        Done("flex_attention · batch 1", 1, "failed", None, took_seconds=1.0),
        Done("eager · batch 1", 2, "ok", 3.0, took_seconds=9.0),
    ]
    lines = [line.split() for line in re.sub(r"\x1b\[[\d;]*m", "", known_so_far(done, (80, 24))).splitlines()]
    assert lines[1] == ["eager", "·", "batch", "1", "2", "2.5", "s", "2", "…", "3"]
    assert lines[2] == ["flex_attention", "·", "batch", "1", "0", "failed"]
    assert known_so_far([], (80, 24)) == ""
    many = [Done(f"batch {number}", 1, "ok", 1.0, took_seconds=9.0) for number in range(50)]
    assert known_so_far(many, (80, 24)).count("\n") < 24


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "10 s"), (44, "40 s"), (94, "90 s"), (170, "3 min"), (3600, "60 min"), (7900, "2 h 10 min")],
)
def test_durations_are_no_more_exact_than_they_are_known(seconds: float, text: str) -> None:
    assert duration(seconds) == f"about {text}"
