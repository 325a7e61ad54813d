"""Errors that a user can cause, how a command ends on them, and what it says meanwhile."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """What was given, what was expected and what to do, in one or two sentences; shown without a traceback."""


def say(text: str) -> None:
    """Write one line to standard error, at once: what is going on, beside what a command prints as its result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print inside: whoever reads the output, such as `head`, may have seen enough before it ends."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain again when it flushes


def run(command: Callable[[], None]) -> None:
    """Run a command's main function; a `UserError`, or a full disk, ends it with its sentences and exit status 1.

    Any other exception is hfbench's own bug and keeps its traceback.
    """
    try:
        with reader_may_leave():
            command()
    except UserError as error:
        sys.exit(f"hfbench: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        sys.exit(f"hfbench: the disk is full{where}. Free some space and run again; what was measured is kept.")
    except KeyboardInterrupt:
        sys.exit(130)
