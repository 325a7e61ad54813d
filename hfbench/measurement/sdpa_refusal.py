"""Why SDPA has no backend for a call: torch warns of the reasons, and raises only that there is none."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_REFUSAL = "No available kernel"
# Headings, and what follows from hfbench's allowing one backend only.
_NO_REASONS = re.compile(r"(kernel not used because:|has been runtime disabled\.)$")
_ORIGIN = re.compile(r"\s*\(Triggered internally at .*\)$")


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Add to torch's refusal what it warned of inside; warnings go on to where they were going."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except RuntimeError as error:
            reasons = _reasons([str(each.message) for each in caught])
            if _REFUSAL not in str(error) or not reasons:
                raise
            raise RuntimeError(f"{_REFUSAL}: {reasons}") from error
        finally:
            told = list(caught)
    for each in told:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _reasons(messages: Sequence[str]) -> str:
    """Return what torch's warnings say of why a backend cannot run, each once and in their order."""
    plain = dict.fromkeys(_ORIGIN.sub("", message).strip() for message in messages)
    return " ".join(message for message in plain if not _NO_REASONS.search(message))
