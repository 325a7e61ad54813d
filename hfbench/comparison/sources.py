"""Where the files of a side are read from: a folder, or a git commit with DVC's cache and remote behind it."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hfbench.comparison.commit_files import open_commit
from hfbench.comparison.revisions import git
from hfbench.foundation.errors import UserError


class Files(Protocol):
    """The files of one side. `root` is the folder of params.yaml and `results` that of the results, in its paths."""

    root: str
    results: str

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises `FileNotFoundError` where there is none."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""

    def missing(self, path: str) -> UserError:
        """Return the error for a file that should be there: what to run to make it."""


class FolderFiles:
    """Files on this machine."""

    def __init__(self, root: Path, results: Path, remedy: str) -> None:
        self.root = str(root)
        self.results = str(results)
        self._remedy = remedy

    def read(self, path: str) -> bytes:
        """See `Files`."""
        return Path(path).read_bytes()

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        return [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []

    def missing(self, path: str) -> UserError:
        """See `Files`."""
        return UserError(f"{path} does not exist. {self._remedy}")


class RevisionFiles:
    """Files at a commit: those in git from git, those of DVC from its cache, or else its remote."""

    def __init__(self, folder: Path, results: str, name: str, commit: str, is_experiment: bool) -> None:
        # DVC's paths at a revision begin at the top of the git repository.
        prefix = (git(folder, "rev-parse", "--show-prefix") or "").rstrip("/")
        self.root = prefix or "."
        self.results = f"{prefix}/{results}" if prefix else results
        self._called = name if name.startswith(commit[:7]) else f"{name} ({commit[:7]})"
        take = "" if name == "HEAD" else f"dvc exp apply {name} && " if is_experiment else f"git checkout {name} && "
        self._make = f"{take}dvc repro"
        self._files = _open(folder, commit, prefix, self._called)

    def read(self, path: str) -> bytes:
        """See `Files`. Raises `UserError` where DVC knows the file, and neither cache nor remote has it."""
        with suppress(*_unreadable()):
            if self._files.isfile(path):
                with self._files.open(path, mode="rb") as file:
                    content: bytes = file.read()
                    return content
        if not self._was_made(path):
            raise FileNotFoundError(path)
        raise UserError(
            f"{self._called} has results, but {path} is neither in DVC's cache nor in a remote. `dvc pull` gets it "
            f"where a remote holds it; else make it again: `{self._make}`."
        )

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        if not self._files.isdir(folder):
            return []
        return [str(path).rsplit("/", 1)[-1] for path in self._files.ls(folder, detail=False)]

    def missing(self, path: str) -> UserError:
        """See `Files`."""
        return UserError(
            f"{self._called} has no results: {path} is not in it. To make them: `{self._make}`, then commit dvc.lock."
        )

    def _was_made(self, path: str) -> bool:
        """Whether DVC has a hash of the file, or of the folder that it lies in, of which no more may be known."""
        for known in (path, path.rpartition("/")[0]):
            with suppress(*_unreadable()):
                if self._files.info(known).get("md5"):
                    return True
        return False


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what DVC raises for a file that is not there, in git, cache or remote."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    return (DvcException, DataIndexDirError, OSError)


def _open(folder: Path, commit: str, below_top: str, called: str) -> Any:
    from dvc.exceptions import DvcException

    try:
        files = open_commit(folder, commit, below_top)
        files.exists("dvc.yaml")  # opens the repository
    except DvcException as error:
        raise UserError(f"DVC cannot read {called}: {error}.") from None
    return files
