"""What differs between devices: finding one, waiting for it, and how much of its memory was taken."""

import resource
import sys
from typing import Protocol

import torch

from hfbench.measure.failure import DeviceMissingError


class Device(Protocol):
    """A device that a model runs on."""

    torch_device: torch.device
    name: str
    memory_kind: str  # what `peak_bytes` counts

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""

    def peak_bytes(self) -> int:
        """Return the most memory that this process has held so far, in bytes."""


class Cpu:
    """The CPU; its memory is the process's resident set."""

    torch_device = torch.device("cpu")
    name = "cpu"
    memory_kind = "resident set of the worker process"

    def synchronize(self) -> None:
        """Do nothing: the CPU's work is done when a call returns."""

    def peak_bytes(self) -> int:
        """Return the process's largest resident set, in bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # kilobytes but on macOS


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
        """Return the most memory that torch's allocator has held on the device, in bytes."""
        if self.torch_device.type == "mps":  # keeps no peak; what the driver gave so far never shrinks between calls
            return torch.mps.driver_allocated_memory()
        return torch.accelerator.max_memory_allocated(self.torch_device)


def open_device(name: str) -> Device:
    """Return the device that params.yaml names; `auto` is the accelerator where there is one.

    Raises `DeviceMissingError`.
    """
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "cpu" or (name == "auto" and present is None):
        return Cpu()
    if name == "auto":
        assert present is not None
        return Accelerator(torch.device(present.type, 0))
    asked = torch.device(name)
    count = torch.accelerator.device_count() if present is not None and present.type == asked.type else 0
    if (asked.index or 0) >= count:
        raise DeviceMissingError(
            f"device {name} was asked for, and torch {torch.__version__} finds {count or 'no'} {asked.type} device here"
        )
    return Accelerator(torch.device(asked.type, asked.index or 0))
