"""What the device can do at most, as torch reaches it here: bytes copied, bytes read and products a second."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any

import psutil
import torch

_SECONDS_A_SIZE = 0.2
_SECONDS_BETWEEN_SYNCHRONISATIONS = 0.02  # a thousand times what a launch or a synchronisation takes
_LONGEST_CALL_SECONDS = 0.15  # a size whose calls would take longer is left out
_COPY_BYTES = (1 << 28, 1 << 29)
# From what may stay in a large last-level cache to what cannot: a model of a few hundred MB may live in one.
_READ_BYTES = (1 << 26, 1 << 28, 1 << 30, 1 << 31)
_ROW = 4096  # elements of a row, and of the vector, of the product that reads
_MATRIX_SIZES = (512, 1024, 2048, 4096, 8192)
_SHARE_OF_MEMORY = 0.25  # of what is available on the CPU, whose allocations do not fail in time

_Calls = Sequence[Callable[[], Any]]  # different ways to do the same, of which the fastest counts


def measure_ceilings(device: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Return the best rates over several sizes, each of the fastest call; a rate that is not to be had is None.

    `copy_bytes_per_second` counts bytes read plus bytes written, as McCalpin's STREAM does.
    `read_bytes_per_second_by_size` is the rate of reading a buffer of so many bytes over and over, by summing it up or
    multiplying it by a vector; `read_bytes_per_second` is that of the largest buffer, which no cache holds. Decoding
    mostly reads (the weights), and reading alone is faster than copying or slower, depending on the device: these are
    its ceiling. `matmul_flops_per_second` has, for each dtype, 2 n³ FLOPs a product of two n × n matrices.

    `device` is as in params.yaml; `threads` are those of one operation on the CPU.
    Source: J. D. McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers (1995).
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    target = torch.device(found.type if found else "cpu") if device == "auto" else torch.device(device)
    reads = _rates(float, partial(_reads, target), _fitting(target, _READ_BYTES, buffers=1), target)
    copies = _rates(lambda size: 2 * size, partial(_copies, target), _fitting(target, _COPY_BYTES, buffers=2), target)
    products = {
        dtype: _rates(lambda n: 2 * n**3, partial(_products, target, dtype), _MATRIX_SIZES, target) for dtype in dtypes
    }
    return {
        "schema_version": 1,
        "device": target.type,
        "device_name": _name(target),
        "threads": torch.get_num_threads(),
        "copy_bytes_per_second": max(copies.values(), default=None),
        "read_bytes_per_second": reads[max(reads)] if reads else None,
        "read_bytes_per_second_by_size": {str(size): rate for size, rate in reads.items()},
        "matmul_flops_per_second": {dtype: max(rates.values(), default=None) for dtype, rates in products.items()},
    }


def _copies(device: torch.device, size_bytes: int) -> _Calls:
    source = torch.ones(size_bytes // 4, device=device)
    return [partial(torch.empty_like(source).copy_, source)]


def _reads(device: torch.device, size_bytes: int) -> _Calls:
    buffer, vector = torch.ones(size_bytes // 4, device=device), torch.ones(_ROW, device=device)
    return [partial(torch.mv, buffer.view(-1, _ROW), vector), buffer.sum]


def _products(device: torch.device, dtype: str, size: int) -> _Calls:
    left, right = (torch.rand(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return [partial(torch.matmul, left, right, out=torch.empty_like(left))]


def _rates(
    amount: Callable[[int], float], prepare: Callable[[int], _Calls], sizes: Sequence[int], device: torch.device
) -> dict[int, float]:
    """Return `amount(size)` a second of each size that can be had, smallest first, up to one whose calls take too long.

    `amount` counts the bytes or FLOPs of a call.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        if rates and amount(size) / max(rates.values()) > _LONGEST_CALL_SECONDS:
            break
        try:
            rates[size] = amount(size) / _fastest_of(prepare(size), device)
        except (RuntimeError, AssertionError, NotImplementedError):  # no such device, no such dtype, too large
            break
    return rates


def _fastest_of(calls: _Calls, device: torch.device) -> float:
    return min(_fastest_seconds(call, device, _SECONDS_A_SIZE / len(calls)) for call in calls)


def _fastest_seconds(call: Callable[[], Any], device: torch.device, budget_seconds: float) -> float:
    """Return the shortest time of one call.

    On an accelerator it is the mean of many calls between two synchronisations: launching them then costs nothing.
    """
    _seconds(call, device, 1)  # warms up
    began = time.perf_counter()
    fastest = _seconds(call, device, 1)
    calls = 1 if device.type == "cpu" else ceil(_SECONDS_BETWEEN_SYNCHRONISATIONS / fastest)
    while time.perf_counter() - began < budget_seconds:
        fastest = min(fastest, _seconds(call, device, calls) / calls)
    return fastest


def _seconds(call: Callable[[], Any], device: torch.device, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


def _fitting(device: torch.device, sizes: Sequence[int], buffers: int) -> list[int]:
    if device.type != "cpu":
        return list(sizes)  # what does not fit raises
    limit = _SHARE_OF_MEMORY * psutil.virtual_memory().available / buffers
    return [size for size in sizes if size <= limit]


def _name(device: torch.device) -> str | None:
    if device.type == "cpu":
        return None  # results/environment.json has it
    try:
        module = torch.get_device_module(device)
        return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else None
    except (RuntimeError, AssertionError):
        return None
