"""`hfbench retry` on real DVC repositories, and which points it chooses."""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import CRASHED, FAILED, OK, OUT_OF_MEMORY, REJECTED, TIMED_OUT, UNAVAILABLE, UNSUPPORTED
from hfbench.core.results import sweep_stage
from hfbench.retry import RecordedPoint, choose
from hfbench.tables.doubts import POINT
from tests.model.fake_hub import FakeHub, read_folder
from tests.pipeline.checkout import Checkout, measurements, ran, start, tiny_point
from tests.tables.test_warnings import commands_of_remedies

SDPA, FLASH, EAGER = (sweep_stage(tiny_point(each)) for each in ("sdpa", "flash_attention_2", "eager"))
BY_STATUS = {
    "measure@1-m-eager-1": OK,
    "measure@1-m-flash-1": UNSUPPORTED,
    "measure@1-m-eager-2": REJECTED,
    "measure@1-m-sdpa:math-2": FAILED,
    "measure@2-m-eager-4": OUT_OF_MEMORY,
    "measure@2-m-flash-4": TIMED_OUT,
    "measure@2-owner/kernel@v1-4": CRASHED,
}
POINTS = [RecordedPoint(stage, Path("unused"), status, None) for stage, status in BY_STATUS.items()]


@pytest.mark.parametrize(
    ("names", "statuses", "expected"),
    [
        ([], [], [REJECTED, FAILED, OUT_OF_MEMORY, TIMED_OUT, CRASHED]),
        ([], ["failed", "unsupported"], [UNSUPPORTED, FAILED]),
        ([], ["ok"], [OK]),
        (["measure@1-m-sdpa:math-2"], [], [FAILED]),
        (["flash"], [], [UNSUPPORTED, TIMED_OUT]),  # named, so meant, though this machine could not run one of them
        (["1-m-*"], [], [UNSUPPORTED, REJECTED, FAILED]),
        (["measure@?-m-eager-[24]"], [], [REJECTED, OUT_OF_MEMORY]),
        (["owner/kernel@v1", "sdpa"], [], [FAILED, CRASHED]),
        (["eager"], ["ok", "rejected"], [OK, REJECTED]),
        (["measure@1-m-eager-1"], [], [OK]),  # named, and all of it ok: to be measured again
        (["measure@1-m-eager-1"], ["failed"], []),
    ],
)
def test_choice(names: Sequence[str], statuses: Sequence[str], expected: Sequence[str]) -> None:
    assert [point.status for point in choose(POINTS, names, statuses)] == expected


def test_a_name_that_matches_nothing_lists_what_failed() -> None:
    with pytest.raises(UserError) as raised:
        choose(POINTS, ["eager", "egaer"], [])
    assert "'egaer'" in str(raised.value)
    for stage, status in BY_STATUS.items():
        assert (stage in str(raised.value)) == (status != OK)


def test_a_word_that_is_no_status() -> None:
    with pytest.raises(UserError, match=r"'fail'.*failed.*crashed"):
        choose(POINTS, [], ["fail"])


def retry(checkout: Checkout, *words: str) -> str:
    return checkout.run("python", "-m", "hfbench.cli", "retry", *words).stdout


def record_path(checkout: Checkout, stage: str) -> Path:
    # DVC names stages by Python's False, and files by YAML's false.
    name = stage.removeprefix("measure@").replace("False", "false")
    return checkout.folder / "results/measurements" / f"{name}.json"


def record(checkout: Checkout, stage: str) -> dict[str, Any]:
    return dict(json.loads(record_path(checkout, stage).read_text()))


@pytest.fixture(scope="module")
def crashed(measured: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone where the worker of one point, `EAGER`, was killed."""
    folder = tmp_path_factory.mktemp("crashed")
    shutil.copytree(measured.folder, folder / "checkout", symlinks=True)
    checkout = Checkout(folder / "checkout")
    checkout.change_params(lambda content: content["sweep"]["attn_implementation"].append("eager"))
    dvc = start(checkout, folder / "stderr", "dvc", "repro")
    dvc.worker().kill()
    assert dvc.process.wait(timeout=60) == 0
    assert record(checkout, EAGER)["status"] == CRASHED
    return checkout


def test_dry_only_says_what_it_would_do(crashed: Checkout) -> None:
    before = record(crashed, EAGER)
    output = retry(crashed, "--dry")
    assert EAGER in output
    assert "crashed" in output
    assert FLASH not in output
    assert FLASH in retry(crashed, "--dry", "--status", "unsupported")
    assert record(crashed, EAGER) == before


def test_what_was_retried_in_another_stage_stays_so(crashed: Checkout, tmp_path: Path) -> None:
    checkout = Checkout(Path(shutil.copytree(crashed.folder, tmp_path / "checkout", symlinks=True)))

    def listed(content: Any) -> None:
        content["sweep"]["attn_implementation"].remove("eager")
        content["configurations"] = [{key: value for key, value in vars(tiny_point("eager")).items() if key != "round"}]

    def swept(content: Any) -> None:
        content["sweep"]["attn_implementation"].append("eager")
        content["configurations"] = []

    checkout.change_params(listed)
    checkout.repro()
    assert record(checkout, EAGER)["status"] == CRASHED
    retry(checkout)
    again = record(checkout, EAGER)
    assert again["status"] == OK
    checkout.change_params(swept)
    checkout.repro()
    assert record(checkout, EAGER) == again


def test_what_crashed_is_measured_again_and_stays_so(crashed: Checkout) -> None:
    # As in an interrupted retry: DVC removes a record before it measures the point.
    record_path(crashed, EAGER).unlink()
    output = retry(crashed)
    assert measurements(ran(output)) == [EAGER]
    assert [stage for stage in ran(output) if stage in {"tables", "report"}] == ["tables", "report"]
    measured_again = record(crashed, EAGER)
    assert measured_again["status"] == OK
    assert json.loads((crashed.folder / "results/metrics.json").read_text())["points_ok"] == 2
    assert retry(crashed) == "Nothing to retry.\n"

    # Under other params, and back: the run cache must give the new record, not the failure.
    crashed.change_params(lambda content: content["sampling"].update(timeout_seconds=0.1))
    assert len(measurements(crashed.repro())) == 3
    _shuffle_run_cache(crashed)
    crashed.change_params(lambda content: content["sampling"].update(timeout_seconds=1800))
    assert measurements(crashed.repro()) == []
    assert record(crashed, EAGER) == measured_again


def _shuffle_run_cache(checkout: Checkout) -> None:
    """Make the oldest entry the newest, as `dvc pull --run-cache` may, which copies the entries in any order."""
    entries = sorted(checkout.folder.glob(".dvc/cache/runs/*/*/*"), key=lambda path: path.stat().st_mtime)
    assert entries
    for entry in reversed(entries):
        entry.touch()


def test_a_wrong_name_ends_without_a_traceback(crashed: Checkout) -> None:
    result = crashed.run("python", "-m", "hfbench.cli", "retry", "egaer", check=False)
    assert result.returncode == 1
    assert re.search(r"hfbench: no point .*'egaer'", result.stderr)
    assert "Traceback" not in result.stderr


def test_a_model_that_cannot_be_had_leaves_the_others_and_is_tried_again(
    fresh: Checkout, tmp_path: Path, tiny_model: Path
) -> None:
    def add_model(content: Any) -> None:
        content["models"]["away"] = {"source": "hub", "repository": "someone/tiny", "revision": "main"}
        content["sweep"].update(model=["away", "tiny"], attn_implementation=["sdpa", "eager"])

    hub = FakeHub()
    try:
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "huggingface")}
        hub.commit("someone/tiny", read_folder(tiny_model))
        hub.repositories["someone/tiny"].gated = True
        fresh.change_params(add_model)
        first = fresh.repro(**variables)
        assert [stage for stage in first if stage.startswith("model@")] == ["model@away"]
        away, tiny = (f"measure@1-{model}-eager" for model in ("away", "tiny"))
        (eager,) = [stage for stage in first if stage.startswith(tiny)]
        (missing,) = [stage for stage in first if stage.startswith(away)]
        assert record(fresh, eager)["status"] == OK
        assert record(fresh, missing)["status"] == UNAVAILABLE
        assert "the hub's repository someone/tiny is gated. Accept its conditions" in record(fresh, missing)["reason"]
        assert "unavailable" in fresh.run("python", "-m", "hfbench.cli", "show").stdout
        assert missing in retry(fresh, "--dry"), "without a name"
        refused = fresh.run("hfbench", "profile", "away eager", check=False, **variables)
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
        assert "nothing to profile: the hub's repository someone/tiny is gated" in refused.stderr

        again = fresh.repro(**variables)
        assert len(measurements(again)) == 2, "what could not be had is tried again, and nothing else"
        assert record(fresh, missing)["status"] == UNAVAILABLE

        hub.repositories["someone/tiny"].gated = False
        assert {stage for stage in measurements(fresh.repro(**variables)) if stage.startswith(away)} == {missing}
        assert record(fresh, missing)["status"] == OK
        assert fresh.repro(**variables) == []

        # As on a machine where only the results of another were pulled: a stage that needs the files gets them.
        for needing, change in (("inputs@away", {"sequence_length": [7]}), (None, {"dtype": ["float32"]})):
            shutil.rmtree(tmp_path / "huggingface")
            fresh.change_params(partial(_update_sweep, model=["away"], **change))
            again = fresh.repro(**variables)
            assert "model@away" not in again
            assert needing in {None, *again}
            statuses = json.loads((fresh.folder / "results/metrics.json").read_text())
            assert (statuses["points_ok"], statuses["points_not_ok"]) == (2, 0)
    finally:
        hub.close()


def _update_sweep(content: Any, **axes: list[Any]) -> None:
    content["sweep"].update(axes)


def test_each_command_of_a_remedy_does_what_the_remedy_says(fresh: Checkout) -> None:
    """Of an ok point, which is what warnings are of."""
    (key,) = json.loads((fresh.folder / "results/metrics_by_point.json").read_text())
    before = record(fresh, SDPA)["started_at"]
    commands = sorted(commands_of_remedies() | {"hfbench compare --metric first_call_seconds HEAD workspace"})
    assert [each.split()[1] for each in commands] == ["repro", "repro", "compare", "doctor", "retry", "retry", "show"]
    for command in commands:
        words = shlex.split(command.replace(POINT, f"'{key}'"))
        program = ["python", "-m", "hfbench.cli"] if words[0] == "hfbench" else ["dvc"]
        output = fresh.run(*program, *words[1:]).stdout
        if words[:3] == ["hfbench", "retry", key]:
            assert measurements(ran(output)) == [SDPA]
    assert record(fresh, SDPA)["started_at"] > before
