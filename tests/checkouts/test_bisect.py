"""`hfbench bisect` on a real git history, with a stand-in for an editable checkout of transformers."""

import re
import signal
import time
from pathlib import Path

from tests.checkouts.background import start, wait_for
from tests.checkouts.conftest import SLOW_SECONDS, Bench, read_state
from tests.pipeline.background import processes_in


def words(bench: Bench, good: str, bad: str, *more: str) -> list[str]:
    between = ["--good", bench.commits.get(good, good), "--bad", bench.commits.get(bad, bad)]
    rule = ["--threshold", "0.3", "--rounds", "3", "--max-rounds", "9"]
    return ["bisect", "--checkout", str(bench.stand_in.repository), *between, "--point", "tiny sdpa", *rule, *more]


def test_the_planted_commit_is_found(bench: Bench) -> None:
    before = read_state(bench)[:3]
    result = bench.hfbench(*words(bench, "Start", "Notes 4"))
    planted = bench.commits["Rework the mask"][:10]
    assert f"The first slower commit is {planted} (Rework the mask)." in result.stdout
    assert "Its end_to_end_seconds is 2." in result.stdout
    assert read_state(bench)[:3] == before
    measured = set(re.findall(r"round 1: .* s  (\w+)", result.stderr))
    # Between them, commits that differ in nothing that is measured; their verdicts cost no measurement.
    assert measured == {bench.commits[name][:10] for name in ("Start", "Notes 4", "Tidy up")}


def test_a_bad_commit_that_fails_is_no_slower_one(bench: Bench, tmp_path: Path) -> None:
    bench.stand_in.git("checkout", "--quiet", "-b", "broken", bench.commits["Notes 1"])
    broken = bench.stand_in.commit_code("Break", SLOW_SECONDS, "raise RuntimeError('broken on purpose')")
    bench.stand_in.git("checkout", "--quiet", "main")
    before = read_state(bench)[:3]
    records = tmp_path / "records"
    result = bench.hfbench(*words(bench, "Start", broken, "--records", str(records)), check=False)
    assert result.returncode == 1
    assert [path.name for path in (records / "records").iterdir()] == [broken]
    assert f"{broken[:10]} (Break) failed: " in result.stderr
    assert "broken on purpose" in result.stderr
    assert "Traceback" not in result.stderr
    assert read_state(bench)[:3] == before


def test_an_interruption_leaves_the_checkout_as_it_was(bench: Bench, tmp_path: Path) -> None:
    before = read_state(bench)[:3]
    process, log = start(bench, tmp_path, *words(bench, "Start", "Notes 4"))
    wait_for(process, log, r"round 1: ")
    deadline = time.monotonic() + 60
    while not any("hfbench.measure.worker" in each.cmdline() for each in processes_in(bench.pipeline.folder)):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert read_state(bench)[:3] == before
    assert not processes_in(bench.pipeline.folder)
    assert "Traceback" not in log.read_text()


def test_the_same_code_is_nothing_to_bisect(bench: Bench) -> None:
    result = bench.hfbench(*words(bench, "Rework the mask", "Notes 4"), check=False)
    assert result.returncode == 1
    assert "To a measurement" in result.stderr
    assert "are the same" in result.stderr


def test_wrong_arguments_are_told_before_anything_runs(bench: Bench) -> None:
    for changed, expected in (
        (words(bench, "Notes 4", "Start"), "is no ancestor"),
        (words(bench, "Start", "nowhere"), "no commit 'nowhere'"),
        (words(bench, "Start", "Notes 4", "--metric", "speed"), "--metric 'speed'"),
        (words(bench, "Start", "Notes 4", "--point", "gpt2"), "--point 'gpt2' fits no point"),
        (words(bench, "Start", "Notes 4", "--rounds", "1"), "at least 2 rounds"),
    ):
        result = bench.hfbench(*changed, check=False)
        assert result.returncode == 1
        assert expected in result.stderr
        assert "Traceback" not in result.stderr


def test_a_changed_checkout_is_refused(bench: Bench) -> None:
    extra = bench.stand_in.repository / "extra.py"
    extra.write_text("x = 1\n")
    try:
        result = bench.hfbench(*words(bench, "Start", "Notes 4"), check=False)
    finally:
        extra.unlink()
    assert result.returncode == 1
    assert "extra.py" in result.stderr
    assert "git stash" in result.stderr
