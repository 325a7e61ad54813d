"""One measurement at a time on a device, shown with real processes."""

import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hfbench.core.turn import lock_folder, shared_name, turn


def held(started: Callable[[], None]) -> None:
    with turn("cpu", "the first"):
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

    with turn("cpu", "the second", told.append, check=end_it) as waited:
        assert waited > 0
    first.join(30)
    assert told == [f"process {first.pid}, the first"]


def test_who_does_not_wait_has_waited_for_no_time() -> None:
    with turn("cpu", "any") as waited, turn("cuda-0", "any") as other:
        assert waited == other == 0


def test_what_ends_the_wait_leaves_the_device_to_the_other() -> None:
    def give_up() -> None:
        raise KeyboardInterrupt

    with turn("cpu", "any"), pytest.raises(KeyboardInterrupt), turn("cpu", "another", lambda _: None, give_up):
        raise AssertionError("both have the device")
    with turn("cpu", "any") as waited:
        assert waited == 0


def test_the_lock_is_for_every_user() -> None:
    with turn("cpu", "any"):
        (lock,) = lock_folder().glob("hfbench-cpu.lock")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o666


def test_a_machine_has_one_folder_of_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HFBENCH_LOCKS")
    found = lock_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lock_folder() == found
    assert os.access(found, os.W_OK)


@pytest.mark.parametrize(
    ("kind", "index", "visible", "name"),
    [
        ("cpu", 0, "2,3", "cpu"),
        ("cuda", 1, None, "cuda-1"),
        ("cuda", 1, "2, 3", "cuda-3"),
        ("cuda", 0, "GPU-5ba2", "cuda-GPU-5ba2"),
        ("xpu", 1, "2,3", "xpu-1"),
    ],
)
def test_a_device_has_the_name_that_its_driver_has_for_it(
    kind: str, index: int, visible: str | None, name: str
) -> None:
    assert shared_name(kind, index, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == name
