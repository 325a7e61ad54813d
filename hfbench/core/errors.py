"""Errors that a user can cause, how a command ends on them, and what it says meanwhile."""

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """What was given, what was expected and what to do, in one or two sentences; shown without a traceback."""


def say(text: str) -> None:
    """Write one line to standard error, at once: what is going on, beside what a command prints as its result."""
    print(text, file=sys.stderr, flush=True)


def run(command: Callable[[], None]) -> None:
    """Run a command's main function; a `UserError`, or a full disk, ends it with its sentences and exit status 1.

    Any other exception is hfbench's own bug and keeps its traceback.
    """
    try:
        command()
    except UserError as error:
        sys.exit(f"hfbench: {error}")
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        sys.exit(f"hfbench: the disk is full{where}. Free some space and run again; what was measured is kept.")
    except KeyboardInterrupt:
        sys.exit(130)
