"""What an exception in the worker means: not possible here, out of memory, not what was asked, or failed.

It imports no torch: importing torch may be what failed.
"""

import errno
import os
import re

from hfbench.core.record import FAILED, OUT_OF_MEMORY, REJECTED, UNAVAILABLE, UNSUPPORTED

_LONGEST_REASON = 400
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# How torch and transformers say that a combination is not to be had, in exceptions of general types.
_REFUSALS = (
    "no viable backend for scaled_dot_product_attention",
    "no available kernel",
    "cannot find a build variant for this system",
    "is not supported for continuous batching",
    "was called without a paged attention cache",  # by a model that does not hand it on to its attention
    "invalid layer type",  # which the paged cache does not know
    "async batching requires a device type",
    "no pinned memory allocator is available",
    "strides should be multiple of 16 bytes",  # grouped_mm, of experts whose sizes do not suit it
    "does not support",
    "not supported",
    "cannot use prefill chunking without a cache",
    "object has no attribute 'past_key_values'",  # of what the model returns, when the prompt goes in by chunks
    "invalidcxxcompiler",
    "no working c++ compiler",
    "assisted decoding requires a cache",
    # Of quantisation, what it needs and this machine lacks (transformers 5.22, quantizers/).
    "no gpu found",
    "no gpu or xpu found",
    "gpu is required",
    "requires a gpu",
    "requires an apple silicon gpu",
    "requires a **blackwell gpu**",
    "requires triton",
    "is only supported on",
)
# How torch.compile, and transformers of an attention, go on after what they say.
_ADVICE = re.compile(r"\nSet TORCHDYNAMO_VERBOSE=1| yet\. Please request the support for this architecture")
_FETCHING = ("an error occurred while trying to load from", "could not verify publisher", "offline mode")
_SAMPLING_PHASES = ("sample", "conclude")  # what ran until then is supported
_PASSING_ANSWERS, _SERVER_ERRORS = (408, 429), 500  # of HTTP
_TRANSPORT = ("httpx", "httpx2", "httpcore")  # whose exceptions say that the hub cannot be reached

# How torch's allocators, the system and its loader say that there is no memory. On the CPU, on Apple's GPUs and from
# the thread of `generate_batch` it comes in exceptions of general types.
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment from shared object",
    "out of memory",
    "cublas_status_alloc_failed",
    "memory allocation still failed",  # OpenBLAS, which then ends the process
)


# How torch says that a device, its driver or its memory failed. Of the first, that it has no code for the device.
_NO_CODE = ("no kernel image is available", "invalid device function")
_DEVICE_ERRORS = (
    "cuda error:",
    "hip error:",
    "xpu error",
    "ur error",
    "level_zero error",
    "cudnn_status_internal_error",
)


class UnavailableError(Exception):
    """What the measurement needs cannot be had now."""


class NoExpertsError(Exception):
    """The model has no experts that could compute as asked."""


class NotFiniteError(Exception):
    """The model computes no numbers."""


class WrongTokenCountError(Exception):
    """An iteration gave another number of tokens than was asked for."""


def status_of(error: BaseException, phase: str) -> str:
    """Return the record's status for an exception in `phase`."""
    text = str(error).lower()
    # By name: torch's OutOfMemoryError is no MemoryError.
    is_memory_error = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory_error or tells_no_memory(text):
        return OUT_OF_MEMORY
    if isinstance(error, WrongTokenCountError | NotFiniteError):
        return REJECTED
    # Of a backend of torch.compile, the exception is an attribute.
    cause = getattr(error, "inner_exception", error)
    if isinstance(cause, NoExpertsError | NotImplementedError):
        return UNSUPPORTED
    if isinstance(cause, UnavailableError | ImportError):  # a package may be installed, mended or brought up to date
        return UNAVAILABLE
    if _is_broken_graph(error):  # whose text may hold the words of a refusal
        return FAILED
    if any(words in text for words in _NO_CODE):
        return UNSUPPORTED
    if _is_about_fetching(error) or any(words in text for words in _DEVICE_ERRORS):
        return UNAVAILABLE
    if any(words in text for words in _REFUSALS) and phase not in _SAMPLING_PHASES:
        return UNSUPPORTED
    return FAILED


def tells_no_memory(text: str) -> bool:
    """Return whether a message, or the end of a log, says that there was no memory."""
    return any(words in text.lower() for words in _NO_MEMORY)


def _is_about_fetching(error: BaseException) -> bool:
    """Return whether the hub was asked for a kernel and gave no answer; the worker asks it for nothing else."""
    package = type(error).__module__.partition(".")[0]
    status = getattr(getattr(error, "response", None), "status_code", 0)
    is_passing = status in _PASSING_ANSWERS or status >= _SERVER_ERRORS
    return package in _TRANSPORT or is_passing or any(words in str(error).lower() for words in _FETCHING)


def is_full_disk(error: BaseException) -> bool:
    """Return whether there was no room for a file; a compiler tells it in the text of its messages only."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return os.strerror(errno.ENOSPC).lower() in str(error).lower()


def reason_of(error: BaseException) -> str:
    """Return the exception in one line."""
    text = " ".join(_ADVICE.split(str(error), maxsplit=1)[0].split())
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 1] + "…"
    if _is_about_fetching(error):
        text = f"a kernel could not be fetched; is the hub reachable? {text}"
    name = type(error).__name__
    reason = f"{name}: {text}" if text else name
    broken = "compile.fullgraph is true, and torch cannot make one graph. " if _is_broken_graph(error) else ""
    return broken + reason


def _is_broken_graph(error: BaseException) -> bool:
    """Return whether torch.compile gives up on one whole graph, for which it raises with fullgraph only."""
    return any(kind.__name__ == "Unsupported" for kind in type(error).__mro__)
