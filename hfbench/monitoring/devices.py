"""The accelerators of the machine, whatever their vendor: what they are, and the one that is measured on, held.

One measurement at a time on a device: a lock that all processes of the machine share. Two at a time would halve what
each finds, and neither would know. Whoever ends, however, lets its lock go.
"""

import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.results import STANDS_FOR
from hfbench.core.system import FILESYSTEM
from hfbench.monitoring import amd, apple, intel, nvidia
from hfbench.monitoring.gauges import WatchedDevice, visible_device

_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # whatever TMPDIR says; the first is on some systems for root alone
_CHOSEN = "HFBENCH_LOCKS"  # names another folder
_POLL_SECONDS = 0.2
_MOST_BYTES = 1000  # of what the holder says of itself


def lock_folder() -> Path:
    """Return the folder of the locks, which is the same for every user of the machine.

    Raises `UserError` where the one that was chosen cannot be written to.
    """
    if chosen := os.environ.get(_CHOSEN):
        if not os.access(chosen, os.W_OK | os.X_OK):
            raise UserError(f"{_CHOSEN} is {chosen}, where no file can be made. Name a folder that may be written to.")
        return Path(chosen)
    shared = (folder for folder in _FOLDERS if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH)
    return next((folder for folder in shared if os.access(folder, os.W_OK)), Path(tempfile.gettempdir()))


@dataclass(frozen=True)
class Turn:
    """The devices that a process has alone, of those that would do, and the seconds that it waited for them."""

    devices: tuple[str, ...]
    waited_seconds: float


@contextmanager
def turn(
    devices: Sequence[str],
    who: str,
    say: Callable[[str], None] = say,
    check: Callable[[], None] = lambda: None,
    wanted: int = 1,
) -> Iterator[Turn]:
    """Hold as many of the devices as are wanted alone inside, as soon as no other process has them.

    Of several that are free it is the one that was used from this folder before, so that what is compared was measured
    on one, or else the one that was left alone for longest. The names are the same for all processes; `who` says what
    this one is for, to those that wait. `say` is told once for whom this one waits, and `check` is called while it
    does; what it raises ends the wait.
    """
    locks = {_open(lock_folder() / f"hfbench-{device}.lock"): device for device in devices}
    whose = f" in {Path.cwd()}"
    try:
        order = sorted(locks, key=lambda lock: (not _holder(lock).endswith(whose), os.fstat(lock).st_mtime))
        held, waited = _wait(order, wanted, say, check)
        for lock in held:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()}, {who}{whose}".encode()[-_MOST_BYTES:], 0)
        yield Turn(tuple(locks[lock] for lock in held), waited)
    finally:
        for descriptor in locks:
            os.close(descriptor)  # and with it the lock


def _holder(lock: int) -> str:
    """Return what the process that has the lock, or had it last, says of itself."""
    return os.pread(lock, _MOST_BYTES, 0).decode(errors="replace")


def _open(path: Path) -> int:
    # In a folder that is sticky, Linux lets nobody open with O_CREAT what another user made (fs.protected_regular).
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        try:
            descriptor = os.open(path, flags, 0o666)
        except (FileNotFoundError, FileExistsError):
            continue
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o666)  # whatever the umask is: others have to say that they hold it
        return descriptor
    raise FileNotFoundError(path)


def _wait(
    locks: Sequence[int], wanted: int, say: Callable[[str], None], check: Callable[[], None]
) -> tuple[list[int], float]:
    start, has_told = time.perf_counter(), False
    while True:
        held = list[int]()
        for lock in locks:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(lock)
            if len(held) == wanted:
                return held, time.perf_counter() - start if has_told else 0.0
        for lock in held:  # two that wait for each other's would wait for ever
            fcntl.flock(lock, fcntl.LOCK_UN)
        if not has_told:
            holders = [_holder(lock) or "another process" for lock in locks]
            one_of = "the device" if len(locks) == 1 else f"{wanted if wanted > 1 else 'one'} of {len(locks)} devices"
            say(f"waiting for {one_of}, which {'; '.join(holders)} ha{'s' if len(locks) == 1 else 've'}")
            has_told = True
        check()
        time.sleep(_POLL_SECONDS)


@dataclass(frozen=True)
class Vendor:
    """What differs between vendors. Numbers are torch's; identities are what every process can call a device.

    `describe` returns each device by its identity, in a stable order: vendor, torch_device, name, memory_bytes, … It
    has none where the vendor's driver or library is not here; what could not be read although it is here, it adds to
    the list that it is given. `identify` says which one torch numbers so, from the variables that hide devices: None
    where it is hidden or not there, `LookupError` where that cannot be told. `open_device` opens it to be read.
    """

    torch_device: str
    build: str | None  # what torch must be built for, as its version.py names it; None: its usual build has it
    describe: Callable[[list[str]], dict[str, dict[str, Any]]]
    identify: Callable[[int, Mapping[str, str], Path], str | None]
    open_device: Callable[[int, Mapping[str, str], Path], WatchedDevice | None]


VENDORS = {
    "nvidia": Vendor("cuda", "cuda", nvidia.describe, nvidia.identify, nvidia.open_device),
    "amd": Vendor("cuda", "hip", amd.describe, amd.identify, amd.open_device),  # torch names ROCm's devices so
    "intel": Vendor("xpu", "xpu", intel.describe, intel.identify, intel.open_device),
    "apple": Vendor("mps", None, apple.describe, apple.identify, apple.open_device),
}
# A path or an address would differ between equal machines.
_PLACE = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])/[^\s'\":,]+")


def every_accelerator(vendors: Mapping[str, Vendor] = VENDORS) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the description of each device found, and a note for each thing that could not be read. Raises nothing."""
    notes: list[str] = []
    found = [each for name, vendor in vendors.items() for each in _described(name, vendor, notes).values()]
    return found, [_PLACE.sub("…", note) for note in notes]


def _described(name: str, vendor: Vendor, notes: list[str]) -> dict[str, dict[str, Any]]:
    try:
        return vendor.describe(notes)
    except Exception as error:  # a vendor's broken driver must not stop a measurement on the CPU
        notes.append(f"{name}: {type(error).__name__}: {error}")
        return {}


def measured_accelerators(
    device: str,
    build: Mapping[str, str],
    variables: Mapping[str, str] = os.environ,
    vendors: Mapping[str, Vendor] = VENDORS,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the accelerator that `device` of params.yaml means to a torch of this build, and notes as above.

    It is one, with the `count` of its kind in the machine, whatever its number or the variables that choose it: equal
    devices are one to a measurement. There is none for the CPU, and for `auto` where torch has no device; and all of
    the vendor's where it cannot be told which of them torch takes. Raises nothing.
    """
    kind, _, number = device.partition(":")
    notes: list[str] = []
    found: list[dict[str, Any]] = []
    for name, vendor in vendors.items():
        is_usable = vendor.build is None or vendor.build in build
        if not found and is_usable and kind in (vendor.torch_device, "auto"):
            found = _measured(name, vendor, int(number or 0), variables, notes)
    return found, [_PLACE.sub("…", note) for note in notes]


def _measured(
    name: str, vendor: Vendor, number: int, variables: Mapping[str, str], notes: list[str]
) -> list[dict[str, Any]]:
    described = _described(name, vendor, notes)
    kinds = [each["name"] for each in described.values()]
    counted = {identity: {**each, "count": kinds.count(each["name"])} for identity, each in described.items()}
    try:
        identity = vendor.identify(number, variables, FILESYSTEM) if counted else None
    except LookupError as error:
        notes.append(f"{name}: {error}")
        return list(counted.values())
    except Exception as error:
        notes.append(f"{name}: {type(error).__name__}: {error}")
        return []
    return [counted[identity]] if identity in counted else []


def open_devices(
    device: str,
    variables: Mapping[str, str] = os.environ,
    root: Path = FILESYSTEM,
    among: Collection[str] = VENDORS.keys(),
) -> tuple[list[WatchedDevice], dict[str, str]]:
    """Return the device that torch calls so, ready to be read, or why it cannot be, by vendor or device.

    Without a number it is any of the kind that the first one has, and all of them are returned. Both are empty for the
    CPU. The vendor is one `among` those that torch uses here. Raises nothing.
    """
    kind, _, number = device.partition(":")
    unavailable: dict[str, str] = {}
    for name, vendor in VENDORS.items():
        if vendor.torch_device != kind or name not in among:
            continue
        try:
            if found := _opened(vendor, number, variables, root):
                return found, {}
        except Exception as error:  # a vendor's broken driver must not stop a measurement
            unavailable[name] = str(error) if type(error) is LookupError else f"{type(error).__name__}: {error}"
    if kind != "cpu" and not unavailable:
        unavailable[device] = "no driver for it tells of such a device"
    return [], unavailable


def vendors_of(accelerators: Sequence[Mapping[str, Any]]) -> Collection[str]:
    """Return the vendors that torch uses here, by the `accelerators` of environment.json; all where it has none."""
    return {each["vendor"] for each in accelerators} or VENDORS.keys()


def _opened(vendor: Vendor, number: str, variables: Mapping[str, str], root: Path) -> list[WatchedDevice]:
    if number:
        found = vendor.open_device(int(number), variables, root)
        return [] if found is None else [found]
    devices = (vendor.open_device(index, variables, root) for index in count())
    present = [each for each in takewhile(lambda each: each is not None, devices) if each is not None]
    return [each for each in present if each.name == present[0].name]


@dataclass(frozen=True)
class TakenDevice:
    """The device that this process has alone, as torch calls it, and how it is watched; see `open_devices`.

    Of several, `device` is their kind.
    """

    device: str
    watched: list[WatchedDevice]
    unavailable: dict[str, str]
    waited_seconds: float


@contextmanager
def take_device(
    device: str,
    who: str,
    say: Callable[[str], None] = say,
    check: Callable[[], None] = lambda: None,
    first: int = 1,
    among: Collection[str] = VENDORS.keys(),
) -> Iterator[TakenDevice]:
    """Hold what torch calls `device` alone inside, any of its kind where there is no number; see `turn`.

    Where more than one is asked for, they are the `first` of the kind: each rank has that of its number, and layers are
    dealt out to all. `among` is that of `open_devices`.

    Raises `UserError` where this process puts together what another machine has measured.
    """
    if STANDS_FOR in os.environ:
        raise UserError(f"{who} has not been measured on the machine that {os.environ[STANDS_FOR]} describes.")
    found, unavailable = open_devices(device, among=among)
    several = first > 1 and device != "cpu"
    by_name = {each.identity: each for each in (found[:first] if several else found)}
    numbered = [f"{device}:{number}" for number in range(first)] if several else [device]
    names = list(by_name) or list(map(_name_without_driver, numbered))
    with turn(names, who, say, check, len(names) if several else 1) as its:
        seen = [by_name[name] for name in names if name in its.devices and name in by_name]
        yield TakenDevice(seen[0].device if len(seen) == 1 else device, seen, unavailable, its.waited_seconds)


def _name_without_driver(device: str, variables: Mapping[str, str] = os.environ) -> str:
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return kind
    visible = visible_device(int(number or 0), variables.get("CUDA_VISIBLE_DEVICES") if kind == "cuda" else None)
    return f"{kind}-{visible or number or 0}"
