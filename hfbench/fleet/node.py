"""What runs on a node of the fleet: a clone of the commit that is measured, and DVC in it.

Ray ships this file as it is, so that a node needs hfbench's dependencies and not hfbench: it imports nothing of
hfbench, and gives back dictionaries. What is measured, and how, is the commit's own code, in processes of its own.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import yaml

_POLL_SECONDS = 0.2
_SAID_LINES = 15  # of a command that failed
_RESULTS = "results/"
_ENVIRONMENT = f"{_RESULTS}environment.json"
_POINTS = f"{_RESULTS}logs/points.json"
_POINT = "measure"  # how the stages of points begin
_UNAVAILABLE = "unavailable"  # the status of a point that is to be tried again
_BEFORE_POINTS = ("stages/dvc.yaml:environment", "model", "assistant", "inputs")
_LASTING = ("model", "assistant", "ceilings")
FOLDER = ".dir"  # how DVC's md5 of a folder ends
_LOCKS = ("dvc.lock", "stages/dvc.lock")
_NO_LOCKS = "its file system has no locks, so start Ray with XDG_CACHE_HOME in another one"
_LEFT_BY_KILLED = (".dvc/tmp/rwlock", ".git/index.lock")  # the first may be cut off, and DVC then refuses to start
# Ray chooses a task's accelerators by these.
_CHOSEN_DEVICES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR",
    "ZE_AFFINITY_MASK",
)
# A command that the kernel kills with the process that started it, however that ended.
_WITH_PARENT = """
import ctypes, os, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
sys.path[0] = ""
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class NodeError(Exception):
    """A command failed on a node; the message is what it said."""


def survey(order: Mapping[str, Any]) -> bytes:
    """Return what the node is, as the stage `environment` of the commit writes it.

    `order` has the `commit` and a git `bundle` that holds it, the bytes of `params`, and the `project`, which names the
    folder on the node. Raises `NodeError`, also where its accelerators are of several kinds, of which a task would get
    one or the other.
    """
    with _clone(order) as folder:
        _run(folder, _variables(), "stages.environment")
        content = (folder / _ENVIRONMENT).read_bytes()
    kinds = dict.fromkeys(each["name"] for each in json.loads(content)["accelerators"])
    if len(kinds) > 1:
        raise NodeError(
            f"it has accelerators of several kinds ({', '.join(kinds)}); start a raylet for each, which names its own "
            "in CUDA_VISIBLE_DEVICES by UUID (nvidia-smi -L), or with CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return content


def make_ready(order: Mapping[str, Any]) -> dict[str, Any]:
    """Have the models and the inputs of the params here, and return what DVC found out about them.

    Who drives the fleet so needs no model. It has the `entries` of these stages in dvc.lock, by their names; the
    `objects` that DVC's cache has of their outs, by their md5; and the `files` that it has not, by their paths. Raises
    `NodeError`, also where a model cannot be had here.
    """
    with _clone(order) as folder:
        # Without --quiet, with which DVC keeps its own errors to itself.
        _run(folder, _variables(), "dvc", "repro", "--single-item", *_BEFORE_POINTS)
        stages = entries_of(folder / "dvc.lock") or {}
        entries = {name: entry for name, entry in stages.items() if name.partition("@")[0] in _BEFORE_POINTS}
        for path in (out["path"] for name, entry in entries.items() if "inputs" not in name for out in entry["outs"]):
            if reason := json.loads((folder / path).read_bytes()).get("unavailable"):
                (folder / path).unlink()  # so that DVC looks for the model again
                raise NodeError(f"{path}: {reason}")
        objects, files = dict[str, bytes](), dict[str, bytes]()
        for out in (out for entry in entries.values() for out in entry["outs"]):
            found = _objects(_cache_of(folder), out["md5"])
            objects |= found
            if not found:
                files[out["path"]] = (folder / out["path"]).read_bytes()
        return {"entries": entries, "objects": objects, "files": files}


def _objects(cache: Path, md5: str) -> dict[str, bytes]:
    """Return what DVC's cache has of an out, by md5: a file, or a folder's list with its files; nothing without it."""
    path = cache / "files" / "md5" / md5[:2] / md5[2:]
    if not path.exists():
        return {}
    content = path.read_bytes()
    found = {md5: content}
    for member in json.loads(content) if md5.endswith(FOLDER) else ():
        found |= _objects(cache, member["md5"])
    return found


def measure(
    order: Mapping[str, Any], stages: Sequence[str], node: Mapping[str, Any], environment: str
) -> Iterator[dict[str, Any]]:
    """Run these stages, of points and `ceilings`, in order, and yield each as soon as it is done.

    A point that the node has measured before comes from its cache. `node` is what the records are to say of it, and
    `environment` the md5 of its kind's description: an earlier run may have left results of another. Each
    has its `stage`, its `entry` in dvc.lock, and the bytes of its `outs`, by their paths; a point its entry in DVC's
    run cache as well (`run`: where it lies in the cache, and its bytes). Raises `NodeError`.
    """
    variables = _variables() | {"HFBENCH_NODE": json.dumps(node, sort_keys=True), "HFBENCH_TABLE": "off"}
    with _clone(order) as folder:
        _forget_points(folder)
        log = folder / ".git" / "hfbench-fleet.log"
        with log.open("wb") as said:
            words = ("dvc", "repro", "--quiet", "--single-item", *_targets(folder, stages))
            process = subprocess.Popen(_with_parent(words), cwd=folder, env=variables, stdout=said, stderr=said)
        try:
            waiting, has_ended, seen = list(stages), False, 0.0
            while waiting and not has_ended:
                has_ended = process.poll() is not None
                written = _written(folder / "dvc.lock")
                if has_ended or written != seen:  # to read it takes a core from the measurement
                    for result in _finished(folder, waiting, environment, is_last=has_ended):
                        waiting.remove(result["stage"])
                        yield result
                seen = written
                time.sleep(0 if has_ended else _POLL_SECONDS)
            process.wait()
        finally:
            process.kill()
            process.wait()
        if waiting and md5_of((folder / _ENVIRONMENT).read_bytes()) != environment:
            raise NodeError("its environment is no longer that of its kind")
        if process.returncode or waiting:
            raise NodeError(_end_of(log) or f"dvc ended, and not with {', '.join(waiting)}")


@contextmanager
def _clone(order: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a clone of the commit with its params, which nobody else uses; its cache has what it measured before."""
    project = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hfbench" / "fleet" / order["project"]
    # Nodes may share the home folder, whose locks hold on each of them alone on some file systems.
    home = project / platform.node()
    home.mkdir(parents=True, exist_ok=True)
    for number in count():
        with (home / f"{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError as error:
                raise NodeError(f"{home}: {error.strerror}; {_NO_LOCKS}") from None
            folder = home / str(number)
            prepare(folder, order, project / "cache")
            yield folder
            return


def prepare(folder: Path, order: Mapping[str, Any], cache: Path) -> None:
    """Have the commit and the params in the folder, and no results but those of a run of the same.

    Of other params of the commit, what is known of models stays, and the ceilings; DVC looks whether they still hold.
    Nobody else may use the folder: what a process left there that was killed is cleared away.
    """
    folder, cache = folder.resolve(), cache.resolve()
    commit, params = order["commit"], order["params"]
    mark, holds = folder / ".git" / "hfbench-fleet", f"{commit} {hashlib.sha256(params).hexdigest()}"
    locked = [entries_of(folder / name) for name in _LOCKS]
    held = mark.read_text() if mark.is_file() and None not in locked else ""
    if held == holds:
        for name in _LEFT_BY_KILLED:
            (folder / name).unlink(missing_ok=True)
        return
    entries, files = _lasting(folder, locked[0] or {}) if held.startswith(commit) else ({}, {})
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    bundle = folder.with_suffix(".bundle")
    bundle.write_bytes(order["bundle"])
    for words in (("init", "--quiet"), ("fetch", "--quiet", str(bundle), "HEAD"), ("checkout", "--quiet", commit)):
        _check(subprocess.run(("git", *words), cwd=folder, capture_output=True, text=True, check=False))
    bundle.unlink()
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n")
    (folder / "params.yaml").write_bytes(params)
    for name in _LOCKS:  # what was committed was measured elsewhere
        (folder / name).unlink(missing_ok=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    if entries:
        (folder / "dvc.lock").write_bytes(lock_of(entries))
    mark.write_text(holds)


def lock_of(entries: Mapping[str, Any]) -> bytes:
    """Return the lock file that has these entries, by stage."""
    text: str = yaml.dump({"schema": "2.0", "stages": dict(entries)}, Dumper=yaml.CSafeDumper, sort_keys=False)
    return text.encode()


def _lasting(folder: Path, stages: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what other params leave as it is, of the entries in dvc.lock, and the files of these, by their paths."""
    entries = {name: entry for name, entry in stages.items() if name.partition("@")[0] in _LASTING}
    paths = (out["path"] for entry in entries.values() for out in entry.get("outs") or ())
    return entries, {path: (folder / path).read_bytes() for path in paths if (folder / path).is_file()}


def _forget_points(folder: Path) -> None:
    """Take the points of other rounds out of dvc.lock, which DVC parses and writes anew after each point."""
    entries = entries_of(folder / "dvc.lock") or {}
    kept = {name: entry for name, entry in entries.items() if not name.startswith(_POINT)}
    if len(kept) < len(entries):
        (folder / "dvc.lock").write_bytes(lock_of(kept))


def _targets(folder: Path, stages: Sequence[str]) -> list[str]:
    """Return what DVC is asked for. It parses its files anew for each target, and for all points of a round once."""
    path = folder / _POINTS
    rounds: dict[int, list[str]] = {}
    for each in json.loads(path.read_bytes()) if path.exists() else ():
        rounds.setdefault(each["point"]["round"], []).append(each["stage"])
    for number, points in rounds.items():
        if set(points) <= set(stages):
            others = [stage for stage in stages if stage not in points]
            if not any(stage.startswith(_POINT) for stage in others):
                # As a pattern: a stage's name with a colon is none to --glob.
                return ["--glob", *_BEFORE_POINTS, f"{_POINT}*@{number}-*", *others]
    return [*_BEFORE_POINTS, *stages]


def entries_of(lock: Path) -> dict[str, Any] | None:
    """Return the entries of a lock file, by stage; None where it is cut off, as while DVC writes it, or was killed."""
    try:
        content = yaml.load(lock.read_bytes(), yaml.CSafeLoader)
        stages: dict[str, Any] = (content or {}).get("stages") or {}
        files = [each for entry in stages.values() for kind in ("deps", "outs") for each in entry.get(kind) or ()]
        return stages if all(each["path"] for each in files) else None
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None


def _finished(folder: Path, stages: Sequence[str], environment: str, *, is_last: bool) -> Iterator[dict[str, Any]]:
    """Yield those of the stages that are done in this environment, by its md5.

    DVC may be writing dvc.lock meanwhile, and stages what they describe: an entry counts when it names what is on the
    disk, of the results that it was made from as well. A point that was `unavailable` in an earlier run is tried again,
    and one that is counts at the last look.
    """
    entries = entries_of(folder / "dvc.lock") or {}
    for stage in tuple(stages):
        entry = entries.get(stage) or {}
        outs = {each["path"]: each.get("md5") for each in entry.get("outs") or ()}
        deps = {each["path"]: each.get("md5") for each in entry.get("deps") or ()}
        if not outs or deps.get(_ENVIRONMENT) != environment:
            continue
        try:
            made_from = {path: md5_of((folder / path).read_bytes()) for path in deps if path.startswith(_RESULTS)}
            contents = {path: (folder / path).read_bytes() for path in outs}
        except FileNotFoundError:
            continue
        made = {path: md5_of(content) for path, content in contents.items()}
        if made != outs or not made_from.items() <= deps.items():
            continue
        is_point = stage.startswith(_POINT)
        if is_point and not is_last and json.loads(*contents.values())["status"] == _UNAVAILABLE:
            continue
        result = {"stage": stage, "entry": entry, "outs": contents}
        if is_point:
            result["run"] = _in_run_cache(_cache_of(folder), entry)
        if result.get("run", ()) is not None:
            yield result


def _written(path: Path) -> float:
    """Return when a file was last written; 0 where it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _in_run_cache(cache: Path, entry: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """Return where DVC's run cache has what dvc.lock has of a stage, and its bytes; None where it has not."""
    entries = (path for path in (cache / "runs").glob("*/*/*") if path.suffix != ".tmp")  # which DVC is writing
    for path in sorted(entries, key=_written, reverse=True):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # another clone has forgotten it
            continue
        known = yaml.load(content, yaml.CSafeLoader) or {}
        if all(known.get(name) == entry.get(name) for name in ("cmd", "deps", "outs")):
            return path.relative_to(cache).as_posix(), content
    return None


def md5_of(content: bytes, *, is_folder: bool = False) -> str:
    """Return the name that DVC's cache has for a file with this content, or for a folder whose list it is."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + FOLDER * is_folder


def _cache_of(folder: Path) -> Path:
    return Path((folder / ".dvc" / "config.local").read_text().partition("dir = ")[2].strip())


def _variables() -> dict[str, str]:
    """Return the environment variables of the node: what Ray was started with, and the accelerators of this task.

    Ray adds some to its workers, as OMP_NUM_THREADS, and others to the raylet that starts them, as LD_PRELOAD with an
    allocator: either would change what is measured. What both have is the node's own.
    """
    raylet, known = Path(f"/proc/{os.getppid()}/environ"), dict(os.environ)
    if raylet.exists():
        names = {each.partition("=")[0] for each in raylet.read_bytes().decode(errors="replace").split("\0")}
        known = {name: value for name, value in known.items() if name in names}
    known |= {name: os.environ[name] for name in _CHOSEN_DEVICES if name in os.environ}
    known["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), known.get("PATH", os.defpath)))
    return known


def _with_parent(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", _WITH_PARENT, str(os.getpid()), *words]


def _run(folder: Path, variables: Mapping[str, str], *words: str) -> None:
    """Run a module in the clone. Raises `NodeError` where it fails."""
    command = _with_parent(words)
    _check(subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False))


def _check(process: "subprocess.CompletedProcess[str]") -> None:
    if process.returncode:
        lines = f"{process.stdout}\n{process.stderr}".strip().splitlines()
        raise NodeError("\n".join(lines[-_SAID_LINES:]) or f"exit status {process.returncode}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-_SAID_LINES:])
