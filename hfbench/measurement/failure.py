"""What an exception in the worker means: not possible here, out of memory, not what was asked, or failed.

It imports no torch: importing torch may be what failed.
"""

import errno
import os

from hfbench.foundation.records import FAILED, OUT_OF_MEMORY, REJECTED, UNSUPPORTED

_LONGEST_REASON = 400
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# How torch and transformers say that a combination is not to be had, in exceptions of general types.
_REFUSALS = (
    "no viable backend for scaled_dot_product_attention",
    "no available kernel",
    "is not supported for continuous batching",
    "does not support",
    "not supported",
    "cannot use prefill chunking without a cache",
    "invalidcxxcompiler",
    "no working c++ compiler",
)
_FETCHING = ("an error occurred while trying to load from", "could not verify publisher", "offline mode")


# How torch's allocator on the CPU, the system and its loader say that there is no memory.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "failed to map segment from shared object")


class DeviceMissingError(Exception):
    """The device that was asked for is not there."""


class WrongTokenCountError(Exception):
    """An iteration gave another number of tokens than was asked for."""


def status_of(error: BaseException, phase: str) -> str:
    """Return the record's status for an exception in `phase`."""
    text = str(error).lower()
    # By name: torch's OutOfMemoryError is no MemoryError.
    is_memory_error = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory_error or any(words in text for words in _NO_MEMORY):
        return OUT_OF_MEMORY
    if isinstance(error, WrongTokenCountError):
        return REJECTED
    if isinstance(error, DeviceMissingError | ImportError | NotImplementedError):
        return UNSUPPORTED
    if any(words in text for words in _REFUSALS) or (phase == "load" and any(words in text for words in _FETCHING)):
        return UNSUPPORTED
    return FAILED


def is_full_disk(error: BaseException) -> bool:
    """Return whether there was no room for a file; a compiler tells it in the text of its messages only."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return os.strerror(errno.ENOSPC).lower() in str(error).lower()


def reason_of(error: BaseException) -> str:
    """Return the exception in one line."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 1] + "…"
    if any(words in text.lower() for words in _FETCHING):
        text = f"a kernel could not be fetched; is the hub reachable? {text}"
    name = type(error).__name__
    return f"{name}: {text}" if text else name
