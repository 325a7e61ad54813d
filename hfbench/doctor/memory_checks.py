"""Checks of memory and disks: one function each, from readings to a finding, or None where there is nothing to say."""

from hfbench.doctor.findings import Finding
from hfbench.doctor.readings import Readings

# Of the weights' size. Loaded in float32, files of bfloat16 take twice their size; loaded as they are, the cache of
# keys and values and the activations of a benchmark are well within as much again.
_MEMORY_FACTOR = 2.0
# Of the main memory. Less than this was written out long ago and is not missed.
_SWAP_SHARE = 0.01
# Compile caches, records and tables of a sweep stay well below; a model comes on top.
_LEAST_FREE_BYTES = 5 * 10**9


def check_memory(readings: Readings) -> Finding | None:
    """Compare the free memory with the largest model's need, as far as models are resolved."""
    if not readings.plan.model_bytes:
        return Finding(
            "note",
            "No model of the sweep is resolved yet, so that its need of memory is not known.",
            "dvc repro model, then hfbench doctor again",
        )
    name, weights = max(readings.plan.model_bytes.items(), key=lambda model: model[1])
    where, free = _memory_to_use(readings)
    if free is None:
        return None
    told = f"{where} has {_gb(free)} free; the weights of {name} take {_gb(weights)}"
    if free < weights:
        return Finding("warning", f"{told}: it does not fit.", "Free memory, or measure a smaller model.")
    if free < _MEMORY_FACTOR * weights:
        return Finding(
            "note",
            f"{told}: in the files' dtype it fits; float32, a large batch or a long sequence may not.",
            "Points that do not fit are recorded as out_of_memory.",
        )
    return Finding("ok", f"{told}.")


def check_swap(readings: Readings) -> Finding | None:
    """Warn where memory was written out to disk."""
    used = readings.memory.swap_used_bytes
    if used <= _SWAP_SHARE * readings.memory.total_bytes:
        return Finding("ok", "No swap is in use." if used == 0 else f"Little swap is in use ({_gb(used)}).")
    return Finding(
        "warning",
        f"{_gb(used)} of swap are in use: what was written out to disk is slow when it is needed again.",
        "sudo swapoff -a && sudo swapon -a  (needs as much free memory)",
    )


def check_hugepages(readings: Readings) -> Finding | None:
    """Note where the kernel gives no huge pages."""
    setting = readings.memory.transparent_hugepages
    if setting != "never":
        return None
    return Finding(
        "note",
        "Transparent huge pages are off: on the CPU, large weights cost more address translation.",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )


def check_disks(readings: Readings) -> Finding | None:
    """Warn where the fullest file system has little room."""
    if not readings.disks:
        return None
    disk = min(readings.disks, key=lambda disk: disk.free_bytes)
    told = f"{disk.path} ({disk.use}) has {_gb(disk.free_bytes)} free."
    if disk.free_bytes >= _LEAST_FREE_BYTES:
        return Finding("ok", told)
    move = f", or set {disk.move_with} to a folder on another disk" if disk.move_with else ""
    return Finding("warning", told, f"Free some space{move}.")


def _memory_to_use(readings: Readings) -> tuple[str, int | None]:
    watched = readings.watched
    if watched is None:
        return "The main memory", readings.memory.available_bytes
    if watched.memory_bytes is None or watched.memory_used_bytes is None:
        return watched.name, None
    return watched.name, watched.memory_bytes - watched.memory_used_bytes


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 10**9:.1f} GB"
