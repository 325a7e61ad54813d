"""What differs between devices: finding one, waiting for it, and how much of its memory was taken."""

import ctypes
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from hfbench.core.errors import UserError


class Device(Protocol):
    """A device that a model runs on."""

    torch_device: torch.device
    name: str
    memory_kind: str  # what `peak_bytes` counts

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""

    def peak_bytes(self) -> int:
        """Return the most memory that this process has held since the last reset, in bytes."""

    def reset_peak(self) -> bool:
        """Let the peak begin anew with what is held now; return whether the device can."""

    def release_memory(self) -> None:
        """Give back what nothing holds: what a check took is not to be there for the measured calls."""


class Cpu:
    """The CPU; its memory is the process's resident set."""

    torch_device = torch.device("cpu")
    name = "cpu"
    memory_kind = "resident set of the worker process"

    def synchronize(self) -> None:
        """Do nothing: the CPU's work is done when a call returns."""

    def peak_bytes(self) -> int:
        """Return the process's largest resident set since the last reset, in bytes."""
        with suppress(OSError):
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # kilobytes but on macOS

    def reset_peak(self) -> bool:
        """Give back to the system what was freed, and reset the peak as proc(5) says; only Linux can."""
        try:
            with suppress(AttributeError):  # of glibc alone
                ctypes.CDLL(None).malloc_trim(0)
            _CLEAR_REFS.write_text("5")
        except OSError:
            return False
        return True

    def release_memory(self) -> None:
        """Do nothing: resetting the peak gives back what was freed."""


_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Accelerator:
    """A device behind `torch.accelerator`: cuda (NVIDIA and ROCm), xpu, mps, …"""

    memory_kind = "device memory allocated by torch"

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device
        torch.accelerator.set_device_index(torch_device.index or 0)
        module = torch.get_device_module(torch_device)
        self.name = module.get_device_name(torch_device) if hasattr(module, "get_device_name") else torch_device.type

    def synchronize(self) -> None:
        """Wait for the device's queue."""
        torch.accelerator.synchronize(self.torch_device)

    def peak_bytes(self) -> int:
        """Return the most memory that torch's allocator has held on the device since the last reset, in bytes."""
        if self.torch_device.type == "mps":  # keeps no peak; what the driver gave so far never shrinks between calls
            return torch.mps.driver_allocated_memory()
        return torch.accelerator.max_memory_allocated(self.torch_device)

    def reset_peak(self) -> bool:
        """Reset the allocator's peak."""
        if self.torch_device.type == "mps":
            return False
        torch.accelerator.reset_peak_memory_stats(self.torch_device)
        return True

    def release_memory(self) -> None:
        """Have the allocator give back the blocks that it keeps."""
        torch.accelerator.empty_cache()


class Accelerators:
    """All devices of a kind that torch sees, over which the layers of one model are dealt out.

    `torch_device` is the first, where prompts and logits are. Memory is the sum of what each held at its own peak.
    Raises `NotImplementedError` where they are of several models: no number would be of any of them.
    """

    memory_kind = f"{Accelerator.memory_kind}, the peaks of all devices together"

    def __init__(self, kind: str) -> None:
        numbers = range(torch.accelerator.device_count())
        # The first comes last: torch takes the device that was opened last for those that name no number.
        self.devices = [Accelerator(torch.device(kind, number)) for number in reversed(numbers)][::-1]
        self.torch_device, self.name = self.devices[0].torch_device, self.devices[0].name
        if others := {each.name for each in self.devices} - {self.name}:
            raise NotImplementedError(
                f"device_map auto deals layers out to all devices that torch sees, and beside {self.name} there is "
                f"{', '.join(sorted(others))}; hide those (CUDA_VISIBLE_DEVICES and its like)"
            )

    def synchronize(self) -> None:
        """Wait for the queue of each device."""
        for each in self.devices:
            each.synchronize()

    def peaks(self) -> list[int]:
        """Return the peak of each device in bytes, in torch's order."""
        return [each.peak_bytes() for each in self.devices]

    def peak_bytes(self) -> int:
        """Return the sum of the devices' peaks, in bytes."""
        return sum(self.peaks())

    def reset_peak(self) -> bool:
        """Reset the peak of each device."""
        can_reset = [each.reset_peak() for each in self.devices]
        return all(can_reset)

    def release_memory(self) -> None:
        """Have the allocator, which is one for all, give back the blocks that it keeps."""
        self.devices[0].release_memory()


class Peaks:
    """Watches the memory of one call of `generate`: what the prefill takes, and what the decoding steps take."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._can_reset = True
        self.prefill_bytes = 0
        self.decode_bytes = 0

    def begin(self) -> None:
        """Say that the call begins now."""
        self._can_reset &= self._device.reset_peak()

    def arguments(self, *_: Any) -> dict[str, Any]:
        """Return the arguments of `generate` that say where the prefill ends; it begins now."""
        self.begin()
        return {"logits_processor": LogitsProcessorList([_AtFirstLogits(self.end_prefill)])}

    def take(self, output: Any) -> torch.Tensor:
        """Note what the decoding steps took; return the output, which is the sequences."""
        self.decode_bytes = max(self.decode_bytes, self._device.peak_bytes())
        sequences: torch.Tensor = output
        return sequences

    def describe(self) -> dict[str, int]:
        """Return both peaks in bytes, ready for JSON; empty where no call was watched, or the peak cannot be reset."""
        if not self._can_reset or not self.decode_bytes:
            return {}
        return {"prefill_peak_bytes": self.prefill_bytes, "decode_peak_bytes": self.decode_bytes}

    def end_prefill(self) -> None:
        """Note what the prefill took."""
        self._device.synchronize()
        self.prefill_bytes = max(self.prefill_bytes, self._device.peak_bytes())
        self._device.reset_peak()


class _AtFirstLogits(LogitsProcessor):
    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: ARG002
        if self._tell is not None:
            self._tell()
            self._tell = None
        return scores


def open_device(name: str) -> Device:
    """Return the device that params.yaml names; `auto` is the accelerator where there is one.

    Raises `UserError` with torch's reason where it is not there: whoever asks knows that the machine has it.
    """
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "cpu" or (name == "auto" and present is None):
        return Cpu()
    asked = torch.device(name if present is None or name != "auto" else present.type)
    count = torch.accelerator.device_count() if present is not None and present.type == asked.type else 0
    try:
        if (asked.index or 0) < count:
            return Accelerator(torch.device(asked.type, asked.index or 0))
    except RuntimeError:  # a driver that counts devices and opens none
        pass
    raise UserError(
        f"this machine has the device {name}, and torch {torch.__version__} cannot use it: {_refusal(asked)} "
        "Mend that, or set `device: cpu` in params.yaml to measure the CPU."
    )


def open_all_devices(name: str) -> Device:
    """Return all devices of the kind that params.yaml names, as one. Raises as `open_device`."""
    first = open_device(name)
    return Accelerators(first.torch_device.type) if isinstance(first, Accelerator) else first


def _refusal(device: torch.device) -> str:
    """Return the first line of what torch says when the device is used."""
    try:
        torch.empty(1, device=device)
    except Exception as error:  # torch's devices raise what they like
        return f"{str(error).splitlines()[0].rstrip('.')}." if str(error) else f"{type(error).__name__}."
    return "it finds fewer of them."
