"""Files that are whole or not there, the lock by which one process at a time measures, and what points a word means."""

import json
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from hfbench.core.errors import UserError
from hfbench.core.files import (
    atomic_path,
    read_json,
    readable_json,
    require_readable_lock,
    write_json,
    write_text,
)
from hfbench.core.record import Iteration, Record, Sampling
from hfbench.core.results import configuration_meant, listed_stage, points_meant, sweep_stage
from hfbench.monitoring.devices import lock_folder, turn
from tests.tables.hand_records import point


def test_numbers_stay_on_one_line_and_keys_get_their_own() -> None:
    value = {"times": [i / 7 for i in range(100)], "nested": {"a": [{"b": "x" * 60}, {"b": "y" * 60}]}, "n": None}
    text = readable_json(value)
    assert json.loads(text) == value
    assert next(line for line in text.splitlines() if "times" in line).count(",") == 100
    assert len(text.splitlines()) > 5


def test_no_number_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="JSON"):
        readable_json({"a": float("nan")})


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208, hidden files too


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_records_survive_a_round_trip(tmp_path: Path) -> None:
    record = Record(
        point(attn_implementation="sdpa:math", use_kernels=True),
        "auto",
        Sampling("precision", 1, 5, 6, 30, 0.01, 12.0, 4, 100.0, 0.5),
        iterations=[Iteration("sample", True, 1.5, 0.123456789, 0.2, (2,), ((0.1, 0.123456789),))],
    )
    record.save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record
    assert (tmp_path / "r.json").read_text().startswith('{\n "schema_version": 2')


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"schema_version": 99})
    with pytest.raises(UserError, match="schema version 99"):
        Record.load(tmp_path / "r.json")


def held(started: Callable[[], None]) -> None:
    with turn(["cpu"], "the first"):
        started()
        time.sleep(600)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_another_process_has_its_turn_when_the_first_has_ended_however_it_ends(end: signal.Signals) -> None:
    context = multiprocessing.get_context("fork")
    has_it = context.Event()
    first = context.Process(target=held, args=(has_it.set,))
    first.start()
    assert has_it.wait(30)
    told: list[str] = []

    def end_it() -> None:
        assert first.pid is not None
        if first.exitcode is None:
            os.kill(first.pid, end)

    with turn(["cpu"], "the second", told.append, check=end_it) as its:
        assert its.waited_seconds > 0
    first.join(30)
    assert told == [f"waiting for the device, which process {first.pid}, the first in {Path.cwd()} has"]


def test_what_ends_the_wait_leaves_the_device_to_the_other() -> None:
    def give_up() -> None:
        raise KeyboardInterrupt

    with turn(["cpu"], "any"), pytest.raises(KeyboardInterrupt), turn(["cpu"], "another", lambda _: None, give_up):
        raise AssertionError("both have the device")
    with turn(["cpu"], "any") as its:
        assert its.waited_seconds == 0


def test_the_lock_is_for_every_user() -> None:
    with turn(["cpu"], "any"):
        (lock,) = lock_folder().glob("hfbench-cpu.lock")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o666


def test_a_machine_has_one_folder_of_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HFBENCH_LOCKS")
    found = lock_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lock_folder() == found
    assert os.access(found, os.W_OK)


def test_a_folder_of_locks_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HFBENCH_LOCKS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="where no file can be made"), turn(["cpu"], "any"):
        pass


def test_each_of_four_processes_has_one_of_four_devices_and_comes_back_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, folders = [f"GPU-{number}" for number in range(4)], [tmp_path / str(number) for number in range(4)]
    of_folder: dict[Path, str] = {}
    with ExitStack() as held:
        for folder in folders:
            folder.mkdir()
            monkeypatch.chdir(folder)
            its = held.enter_context(turn(devices, "measuring"))
            assert its.waited_seconds == 0
            (of_folder[folder],) = its.devices
    assert sorted(of_folder.values()) == devices
    for folder in reversed(folders):
        monkeypatch.chdir(folder)
        with turn(devices, "measuring") as its:
            assert its.devices == (of_folder[folder],)


def test_who_wants_several_devices_has_all_or_none() -> None:
    told: list[str] = []

    def meanwhile() -> None:
        with turn(["GPU-a"], "another"):  # who waits for both holds neither
            pass
        second.close()

    with ExitStack() as second:
        second.enter_context(turn(["GPU-b"], "the second"))
        with turn(["GPU-a", "GPU-b"], "both", told.append, check=meanwhile, wanted=2) as its:
            assert sorted(its.devices) == ["GPU-a", "GPU-b"]
    assert told[0].startswith("waiting for 2 of 2 devices")


def test_who_waits_for_one_of_several_devices_takes_the_first_that_is_free() -> None:
    told: list[str] = []
    with turn(["GPU-a"], "the first"), ExitStack() as second:
        second.enter_context(turn(["GPU-b"], "the second"))
        with turn(["GPU-a", "GPU-b"], "the third", told.append, check=second.close) as its:
            assert its.devices == ("GPU-b",)
    (text,) = told
    assert text.startswith("waiting for one of 2 devices, which process ")
    assert "the first" in text
    assert "the second" in text


@pytest.mark.parametrize("content", ["{", '{"read": {', "\0" * 20])
def test_a_lock_of_dvc_that_a_dead_machine_left_is_told_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rwlock"
    require_readable_lock(path)
    path.write_text(content)
    with pytest.raises(UserError, match=r"DVC cannot start: .*rwlock is broken.*delete it: rm .*rwlock$"):
        require_readable_lock(path)
    path.write_text('{"read": {}, "write": {}}')
    require_readable_lock(path)


SWEEP = [
    point(round=number, model="m", attn_implementation=way, batch_size=size, sequence_length=128, max_new_tokens=32)
    for number, way, size in product((1, 2), ("eager", "sdpa:math"), (1, 16))
]
LISTED = replace(SWEEP[0], batch_size=4)
NAMES = {
    point: (f"m {point.attn_implementation.replace(':', '-')} b{point.batch_size} s128 n32", point.file_name, stage)
    for point, stage in {**{point: sweep_stage(point) for point in SWEEP}, LISTED: listed_stage(1, 0)}.items()
}
MATH_16 = "1-m-sdpa:math-off-auto-{0}-auto-none-{0}-0-none-1-none-bfloat16-uniform-inf-16-128-32-0"


def _meant(text: str) -> list[tuple[int, str, int]]:
    return [(point.round, point.attn_implementation, point.batch_size) for point in points_meant(text, NAMES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m eager b1 s128 n32", [(1, "eager", 1), (2, "eager", 1)]),  # a whole key, also a part of no other
        ("b1 eager", [(1, "eager", 1), (2, "eager", 1)]),  # whole words come first: b1 is also a part of b16
        ("eager b16 s1", [(1, "eager", 16), (2, "eager", 16)]),
        ("16", [(1, "eager", 16), (1, "sdpa:math", 16), (2, "eager", 16), (2, "sdpa:math", 16)]),  # of keys: bfloat16
        (MATH_16.format("false"), [(1, "sdpa:math", 16)]),
        (f"./results/measurements/{MATH_16.format('false')}.json", [(1, "sdpa:math", 16)]),
        (f" measure@{MATH_16.format('False')} ", [(1, "sdpa:math", 16)]),
        (
            "sdpa:math-off-auto-False-auto-none-False-0-none-1-none-bfloat16-uniform-inf-16",
            [(1, "sdpa:math", 16), (2, "sdpa:math", 16)],
        ),
        ("2-m-eager-*-uniform-inf-1-*", [(2, "eager", 1)]),
        ("measure@[2]-m-sdpa:math-*-16-???-32-0", [(2, "sdpa:math", 16)]),
        ("measure_listed@1-is0", [(1, "eager", 4)]),
        ("listed", [(1, "eager", 4)]),
        ("b2", []),
        ("eager b17", []),
        ("", []),
        (" ", []),
        (".json", []),
    ],
)
def test_the_points_that_a_word_means(text: str, expected: list[tuple[int, str, int]]) -> None:
    assert _meant(text) == expected


def test_all_names_of_one_kind_are_looked_at_before_those_of_the_next() -> None:
    names = {1: ("a-1", "stage@x"), 2: ("b-1", "stage@a-1-b")}
    assert points_meant("a-1", names) == [1]
    assert points_meant("a", names) == [1]  # also a part of the other's stage
    assert points_meant("x", names) == [1]
    assert points_meant("a", {}) == []


def test_one_configuration_is_meant_with_all_its_rounds_or_with_the_one_named() -> None:
    assert [each.round for each in configuration_meant("b1 eager", NAMES, among="params.yaml")] == [1, 2]
    assert [each.round for each in configuration_meant("2-m-eager-*-1-128-32-0", NAMES, among="params.yaml")] == [2]


def test_a_word_of_several_configurations_or_none_lists_the_candidates() -> None:
    with pytest.raises(UserError) as several:
        configuration_meant("b16", NAMES, among="params.yaml")
    assert str(several.value) == (
        "--point 'b16' fits several points. Name one of:\n  m eager b16 s128 n32\n  m sdpa-math b16 s128 n32"
    )
    many = {number: (f"key {number}",) for number in range(25)}
    with pytest.raises(UserError) as none:
        configuration_meant("gpt2", many, among="the results", asked="POINT")
    first, *listed, last = str(none.value).splitlines()
    assert first == "POINT 'gpt2' fits no point of the results. There are:"
    assert listed == [f"  key {number}" for number in range(20)]
    assert last == "  and 5 more"
