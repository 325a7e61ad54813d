"""Git: the commits of a repository, what differs between them, and a checkout that is switched between them.

Nothing else of hfbench runs git, but what describes the packages of the environment.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hfbench.core.errors import UserError

ENDS_BY = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back while something is switched or put back, also from commands that are run; they come later."""
    numbers = (signal.SIGINT, *ENDS_BY)
    held: list[int] = []
    handlers = {number: signal.signal(number, lambda held_back, _: held.append(held_back)) for number in numbers}
    # A command inherits what this thread blocks; another thread of this process may still take a signal.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


_SHORT = 10  # digits of a commit that are shown
_LISTED = 5  # files in an error message


@dataclass(frozen=True)
class Commit:
    """A commit by its full hash, and the first line of its message."""

    sha: str
    subject: str = field(compare=False)

    @property
    def short(self) -> str:
        """The digits of the hash that are shown."""
        return self.sha[:_SHORT]

    def __str__(self) -> str:
        return f"{self.short} ({self.subject})"


class Repository:
    """A checkout that can be switched from commit to commit. Raises `UserError` where `folder` is in no repository."""

    def __init__(self, folder: Path) -> None:
        top = try_git(folder, "rev-parse", "--show-toplevel")
        if top is None:
            raise UserError(
                f"--checkout {folder} is no git checkout. Give the folder of a package that is installed with "
                "`pip install --editable`."
            )
        self.folder = Path(top)

    def commit(self, name: str) -> Commit:
        """Return the commit that git calls `name`. Raises `UserError` where there is none."""
        sha = find_commit(self.folder, name)
        if sha is None:
            raise UserError(
                f"{self.folder} has no commit {name!r}. Expected a commit, tag or branch; `git fetch` gets what is new."
            )
        return Commit(sha, self.git("show", "--no-patch", "--format=%s", sha))

    def switch(self, commit: Commit) -> None:
        """Check the commit out, without a branch."""
        with uninterrupted():  # half a checkout would look like changes
            self.git("checkout", "--quiet", "--detach", commit.sha)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Give the checkout away to be switched, and put it back on its branch or commit, whatever happens.

        Raises `UserError` where it has changes, which would be measured as part of every commit, or is in the middle of
        a bisection.
        """
        self._require_untouched()
        branch = try_git(self.folder, "symbolic-ref", "--quiet", "--short", "HEAD")
        commit = self.git("rev-parse", "HEAD")
        try:
            yield
        finally:
            with uninterrupted():
                self.git("checkout", "--quiet", *([branch] if branch else ["--detach", commit]))

    def git(self, *words: str) -> str:
        """Return what git prints. Raises `UserError` with its own message where it fails."""
        result = run_git(self.folder, *words)
        if result.returncode:
            raise UserError(f"`git {' '.join(words)}` failed in {self.folder}: {result.stderr.strip()}")
        return result.stdout.strip()

    def _require_untouched(self) -> None:
        if self.git("rev-parse", "--verify", "HEAD") and try_git(self.folder, "bisect", "log") is not None:
            raise UserError(f"{self.folder} is being bisected. End that with `git bisect reset`, and run this again.")
        changed = self.git("status", "--porcelain", "--untracked-files=all").splitlines()
        if changed:
            more = [f"and {len(changed) - _LISTED} more"] if len(changed) > _LISTED else []
            listed = "".join(f"\n  {line.strip()}" for line in [*changed[:_LISTED], *more])
            raise UserError(
                f"{self.folder} has changes that are in no commit, and would be measured with each:{listed}\n"
                "Commit them, or put them aside with `git stash --include-untracked`."
            )


def try_git(folder: Path, *words: str) -> str | None:
    """Return what git prints, or None where it is missing or fails."""
    try:
        result = run_git(folder, *words)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def run_git(folder: Path, *words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run git in a folder, in English, and without the variables by which a hook would point it elsewhere.

    `stdin` is what it reads from its standard input. Raises `OSError` where there is no git.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", "-C", str(folder), *words],
        env=variables,
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def find_commit(folder: Path, name: str) -> str | None:
    """Return the full hash of the commit that git calls `name`, or None where there is none."""
    return try_git(folder, "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}") or None


def references(folder: Path, *prefixes: str) -> dict[str, str]:
    """Return what each reference below these prefixes (refs/heads, refs/tags) stands for, by its full name."""
    listed = try_git(folder, "for-each-ref", "--format=%(objectname) %(refname)", *prefixes) or ""
    return {name: sha for sha, _, name in (line.partition(" ") for line in listed.splitlines())}


def find_objects(folder: Path, names: Sequence[str]) -> list[str | None]:
    """Return the object that git has under each name, such as COMMIT:PATH; in one call for thousands of them."""
    listed = run_git(folder, "cat-file", "--batch-check=%(objectname)", stdin="\n".join(names)).stdout.splitlines()
    return [None if line.endswith(" missing") else line for line in listed]


def prefix_of(folder: Path) -> str:
    """Return where a folder lies below the top of its repository, such as `bench/marks/`; empty at the top."""
    return try_git(folder, "rev-parse", "--show-prefix") or ""


def changed_lines(
    folder: Path, old: str | None, new: str | None, paths: Sequence[str]
) -> dict[str, tuple[int, int]] | None:
    """Return how many lines each file below `paths` gained and lost from one commit to another, None being the files
    of the workspace; None where git cannot tell. Files that are not text count no lines, nor do those that git does
    not know yet.
    """
    if old is None and new is None:
        return {}
    commits = [commit for commit in (old, new) if commit is not None]
    reverse = ["-R"] if old is None else []
    listed = try_git(folder, "diff", "--numstat", "--no-renames", *reverse, *commits, "--", *paths)
    if listed is None:
        return None
    files = {}
    for gained, lost, name in (line.split("\t") for line in listed.splitlines()):
        files[name] = (0, 0) if gained == "-" else (int(gained), int(lost))
    if len(commits) == 1:
        unknown = try_git(folder, "ls-files", "--others", "--exclude-standard", "--", *paths) or ""
        files |= dict.fromkeys(unknown.splitlines(), (0, 0))
    return files
