"""What a person sees of slow steps: short lines on standard error instead of the libraries' bars and warnings."""

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Write one line to standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def size_text(size_bytes: float) -> str:
    """Return a size for people, in decimal units as the hub shows them."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} GB" if size_bytes < 1000 else f"{size_bytes:.0f} GB"


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, short enough for a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what transformers, tqdm and Python's warnings write to standard error away from the person.

    GGUF's dequantisation opens a tqdm bar that no setting of transformers turns off, hence the redirection.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


class DownloadLines:
    """Stands where huggingface_hub expects a tqdm class, and writes a line every ten seconds."""

    def __init__(self, *_: Any, desc: str = "", total: float | None = None, initial: float = 0, **__: Any) -> None:
        self.desc, self.total, self.n = desc, total, initial
        self._last_line = time.monotonic()

    def __enter__(self) -> "DownloadLines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        # huggingface_hub also sets postfixes, refreshes and closes, which lines have no use for.
        return lambda *_, **__: None

    def update(self, n: float | None = 1) -> None:
        """Count `n` more bytes."""
        self.n += n or 0
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(f"  {self.desc}: {size_text(self.n)}" + (f" of {size_text(self.total)}" if self.total else ""))
