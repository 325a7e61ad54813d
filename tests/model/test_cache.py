"""hfbench's cache folder: what lies in it is whole, and built once."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfbench.core.errors import UserError
from hfbench.model.cache import build_once, built_folder, cache_folder
from tests.conftest import some

# Builds the folder "key" slowly, as a process of its own; each writes its id into the folder that it builds.
BUILDER = """
import os, sys, time
from pathlib import Path
from hfbench.model.cache import build_once

def make(folder):
    (folder / "started").write_text(str(os.getpid()))
    print("started", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "weights").write_text(str(os.getpid()))

print((build_once("key", make, lambda folder: (folder / "weights").exists()) / "weights").read_text())
"""


def _whole(folder: Path) -> bool:
    return (folder / "weights").exists()


def _make(folder: Path) -> None:
    (folder / "weights").write_text("made here")


def _builder(seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("HFBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/hfbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/hfbench")
    monkeypatch.setenv("HFBENCH_CACHE", "~/big-disk")
    assert cache_folder() == Path("/home/someone/big-disk")


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(own_cache: Path) -> None:
    process = _builder(60)
    assert some(process.stdout).readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not built_folder("key").exists()
    assert [path.name for path in own_cache.glob("models/.key.*/*")] == ["started"]
    folder = build_once("key", _make, _whole)
    assert (folder / "weights").read_text() == "made here"
    assert list((own_cache / "models").iterdir()) == [folder]


@pytest.mark.usefixtures("own_cache")
def test_two_processes_build_once() -> None:
    first, second = _builder(0.5), _builder(0.5)
    outputs = [process.communicate(timeout=30) for process in (first, second)]
    builders = {stdout.split()[-1] for stdout, _ in outputs}
    assert len(builders) == 1, "both got the folder of one of them"
    assert sum("started" in stdout for stdout, _ in outputs) == 1
    assert sum("waiting for another process" in stderr for _, stderr in outputs) == 1


@pytest.mark.usefixtures("own_cache")
def test_what_is_whole_is_not_built_again_and_what_is_damaged_is() -> None:
    folder = build_once("key", _make, _whole)
    before = folder.stat().st_ino
    assert build_once("key", _make, _whole).stat().st_ino == before
    (folder / "weights").unlink()
    assert _whole(build_once("key", _make, _whole))


def test_a_full_disk_is_said_in_a_sentence(own_cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_with_safetensors(_: Path) -> None:
        raise ValueError(f"Error while serializing: {os.strerror(errno.ENOSPC)} (os error 28)")

    for maker in (make, make_with_safetensors):
        with pytest.raises(UserError, match=r"the disk is full: .* HFBENCH_CACHE"):
            build_once("key", maker, _whole)
    assert list((own_cache / "models").iterdir()) == []


@pytest.mark.usefixtures("own_cache")
def test_who_can_read_the_cache_can_read_what_is_built_in_it() -> None:
    def make(folder: Path) -> None:
        _make(folder)
        (folder / "weights").chmod(0o600)  # as safetensors writes them

    folder = build_once("key", make, _whole)
    mode = folder.parent.stat().st_mode & 0o777
    assert folder.stat().st_mode & 0o777 == mode
    assert (folder / "weights").stat().st_mode & 0o777 == mode & 0o666


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HFBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .* Set HFBENCH_CACHE"):
        build_once("key", _make, _whole)


@pytest.mark.usefixtures("own_cache")
def test_the_lock_of_a_killed_process_holds_nobody_up() -> None:
    process = _builder(60)
    some(process.stdout).readline()
    process.kill()
    process.wait()
    start = time.perf_counter()
    build_once("key", _make, _whole)
    assert time.perf_counter() - start < 5
