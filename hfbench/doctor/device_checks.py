"""Checks of the accelerators: one function each, from readings to a finding, or None where there is nothing to say."""

from hfbench.doctor.findings import Finding
from hfbench.doctor.readings import Readings

# What the version of torch ends in when it was built for a vendor; the build without an ending is NVIDIA's on Linux.
_BUILDS = {"nvidia": ("cu", ""), "amd": ("rocm",), "intel": ("xpu",), "apple": ("",)}


def check_device(readings: Readings) -> Finding | None:
    """Warn where params.yaml asks for a device that is not here."""
    asked = readings.plan.device
    kind, _, number = asked.partition(":")
    present = [accelerator for accelerator in readings.accelerators if accelerator.kind == kind]
    if kind in ("auto", "cpu"):
        name = readings.watched.name if readings.watched and _is_usable(readings) else "the CPU"
        return Finding("ok", f"device: {asked} means {name} here.")
    if kind == "cuda" and present and readings.hidden is not None:
        return Finding(
            "warning",
            f"CUDA_VISIBLE_DEVICES is {readings.hidden!r} and hides the {kind} devices that params.yaml asks for.",
            "unset CUDA_VISIBLE_DEVICES",
        )
    if int(number or 0) < len(present):
        return Finding("ok", f"device: {asked} is {present[int(number or 0)].name}.")
    found = f"{len(present)} {kind} device" + "s" * (len(present) > 1) if present else f"no {kind} device"
    return Finding(
        "warning",
        f"params.yaml asks for device {asked}, and {found} was found: every point would be recorded as unsupported.",
        "Set `device: auto` in params.yaml, or look whether the driver works (nvidia-smi, rocm-smi, xpu-smi).",
    )


def check_torch_build(readings: Readings) -> Finding | None:
    """Warn where torch cannot use the accelerator that is here."""
    version = readings.torch_version
    if version is None or not readings.accelerators or readings.plan.device == "cpu":
        return None
    if _is_usable(readings):
        return Finding("ok", f"torch {version} is built for this accelerator.")
    return Finding(
        "warning",
        f"torch {version} is not built for {readings.accelerators[0].name}: points would run on the CPU or not at all.",
        "Install the build of torch for it: pytorch.org says how, under Get Started.",
    )


def _is_usable(readings: Readings) -> bool:
    """Whether torch is built for any of the accelerators."""
    build = (readings.torch_version or "").partition("+")[2].rstrip(".0123456789")
    return any(build in _BUILDS.get(accelerator.vendor, ()) for accelerator in readings.accelerators)


def check_device_processes(readings: Readings) -> Finding | None:
    """Warn where others compute on the device."""
    watched = readings.watched
    if watched is None or watched.other_processes is None:
        return None
    if watched.other_processes == 0:
        return Finding("ok", f"No other process computes on {watched.name}.")
    count = watched.other_processes
    return Finding(
        "warning",
        f"{count} other process{'es' * (count > 1)} hold{'s' * (count == 1)} memory on {watched.name} "
        "and may compute on it.",
        f"End {'them' if count > 1 else 'it'}; `nvidia-smi` (or `rocm-smi --showpids`) shows which.",
    )


def check_persistence_mode(readings: Readings) -> Finding | None:
    """Warn where NVIDIA's driver lets go of the GPU between two processes."""
    states = [gpu.persistence_mode for gpu in readings.accelerators if gpu.persistence_mode is not None]
    if not states or readings.plan.device == "cpu":
        return None
    if all(states):
        return Finding("ok", "Persistence mode is on.")
    return Finding(
        "warning",
        "Persistence mode is off: the driver starts the GPU anew for each process, which takes seconds a point "
        "and forgets clocks that were set.",
        "sudo nvidia-smi -pm 1",
    )
