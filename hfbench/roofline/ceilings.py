"""What the device can do at most: bytes copied and products multiplied a second, as torch reaches them here."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

_SECONDS_A_SIZE = 0.3
_COPY_BYTES = (1 << 26, 1 << 28, 1 << 30)
_MATRIX_SIZES = (512, 1024, 2048, 4096, 8192)
_CPU_MATRIX_SIZES = (256, 512, 1024, 2048)


def measure_ceilings(device: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Return the best rate over several sizes: `copy_bytes_per_second`, read plus written as McCalpin's STREAM counts
    them, and `matmul_flops_per_second` for each dtype, 2 n³ a product of two n × n matrices.

    `device` is as in params.yaml. A device or dtype that is not to be had has the value None.
    Source: J. D. McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers (1995).
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    target = torch.device(found.type if found else "cpu") if device == "auto" else torch.device(device)
    sizes = _CPU_MATRIX_SIZES if target.type == "cpu" else _MATRIX_SIZES
    return {
        "schema_version": 1,
        "device": target.type,
        "copy_bytes_per_second": _best(partial(_copy_rate, target), _COPY_BYTES),
        "matmul_flops_per_second": {dtype: _best(partial(_matmul_rate, target, dtype), sizes) for dtype in dtypes},
    }


def _best(rate: Callable[[int], float], sizes: Sequence[int]) -> float | None:
    measured = []
    for size in sizes:
        try:
            measured.append(rate(size))
        except (RuntimeError, AssertionError, NotImplementedError):  # no such device, no such dtype, too large
            continue
    return max(measured, default=None)


def _copy_rate(device: torch.device, size_bytes: int) -> float:
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size_bytes / _fastest_seconds(lambda: target.copy_(source), device)


def _matmul_rate(device: torch.device, dtype: str, size: int) -> float:
    left = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    right = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    output = torch.empty_like(left)
    return 2 * size**3 / _fastest_seconds(lambda: torch.matmul(left, right, out=output), device)


def _fastest_seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest time of one call, in seconds, after one call to warm up."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    timed()
    fastest, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS_A_SIZE:
        fastest = min(fastest, timed())
    return fastest
