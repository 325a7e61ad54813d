"""What a system tells of itself: the small files of the Linux kernel, installed packages, libraries that compute."""

import hashlib
import os
import re
import sys
from functools import cache
from pathlib import Path

FILESYSTEM = Path("/")
# A file of /sys holds one page at most. The kernel makes those of /proc as they are read: of a long one, such as
# cpuinfo, all but the beginning costs time.
_BYTES = 2**16


def read_text(path: Path | str) -> str | None:
    """Return the beginning of a file, stripped, or None where it is missing, unreadable or empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, _BYTES).decode(errors="replace").strip() or None
    except OSError:  # a folder, or a driver that refuses while its device sleeps
        return None
    finally:
        os.close(descriptor)


def read_integer(path: Path | str) -> int | None:
    """Return the integer that a file holds, or None."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


_METADATA = (".dist-info", ".egg-info")


def installed_packages() -> dict[str, str]:
    """Return the version of each package that Python finds, by its name as its folder spells it.

    The names of the folders tell it, in a hundredth of the time that reading their metadata takes; a checkout in
    development mode may have no version there, and has an empty one.
    """
    found: dict[str, str] = {}
    for folder in map(Path, dict.fromkeys(sys.path)):
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.suffix in _METADATA:
                name, _, version = entry.stem.partition("-")
                found.setdefault(name, version.partition("-")[0])
    return found


# What computes below torch: products and convolutions, threads, memory, devices. By the beginning of the names of their
# files, of Linux.
_COMPUTING = re.compile(
    r"lib(cublas|cudnn|cudart|cufft|curand|cusolver|cusparse|nvrtc|nvJitLink|nccl|cuda\.|cupti|nvinfer"
    r"|amdhip64|hiprtc|hipblas|rocblas|MIOpen|rccl|hsa-runtime64|sycl|ze_loader|ze_intel_gpu|dnnl|ccl\."
    r"|mkl|iomp5|gomp|omp\.|openblas|scipy_openblas|blis|tbb|jemalloc|tcmalloc|mimalloc)[^/]*\.so[^/]*"
)


def is_computing_library(name: str) -> bool:
    """Return whether a file of this name is a library that numbers depend on."""
    return _COMPUTING.fullmatch(name) is not None


@cache
def code_sha256(*rooms: str) -> str:
    """Return a digest of hfbench's own code in these rooms."""
    folder, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(path for room in rooms for path in (folder / room).rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
