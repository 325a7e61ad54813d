"""A kind of machine: nodes whose environment.json is the same, and what this repository's DVC cache has of it.

The results of a kind come together in a clone of its own, where DVC runs the pipeline with the kind's environment.json
in place of this machine's: each point comes from DVC's run cache, and one that is not there is refused, not measured.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfbench.compare.side import LOCK
from hfbench.core.errors import UserError, say
from hfbench.core.files import atomic_path
from hfbench.core.results import CEILINGS, ENVIRONMENT, PARAMS, POINTS, RESULTS, STANDS_FOR
from hfbench.core.system import usable_cores
from hfbench.fleet import node
from hfbench.git import run_git

CEILINGS_STAGE = "ceilings"
_CLONES = Path(".dvc/tmp/hfbench-fleet")
_DIGITS = 4  # of the digest in a kind's name
_RUN = re.compile(r"runs/[0-9a-f]{2}/[0-9a-f]+/[0-9a-f]+")


@dataclass
class Kind:
    """Machines that are the same to a measurement; `folder` is the clone in which their results come together.

    `commit` is the one that is measured; `stages` has the round of each point, by the stage that measures it, in the
    sweep's order. `has_taken` is whether a node gave anything.
    """

    name: str
    environment: bytes
    commit: str
    folder: Path
    cache: Path
    stages: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    has_taken: bool = False
    _md5s: dict[str, str | None] = field(default_factory=dict)

    def rounds(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each round with the stages that are not done yet; the ceilings are in the first."""
        rest = [CEILINGS_STAGE] if not self._has_ceilings() else []
        for number in dict.fromkeys(self.stages.values()):
            stages = [stage for stage, its in self.stages.items() if its == number]
            yield number, [*(stage for stage in stages if stage not in self.done), *rest]
            rest = []

    def take(self, result: Mapping[str, Any]) -> None:
        """Put what a node has done into the DVC cache of this repository, or the ceilings into the clone.

        Raises `UserError` where it was found with another environment than the kind's, or came damaged.
        """
        (out,) = result["entry"]["outs"]
        content, md5 = result["outs"][out["path"]], out["md5"]
        known = {each["path"]: each["md5"] for each in result["entry"]["deps"]}
        if known[str(ENVIRONMENT)] != node.md5_of(self.environment):
            raise UserError(f"its environment is no longer that of the kind {self.name}")
        if others := self._differing(result["entry"]):
            raise UserError(f"it measured with another {others[0]} than the one of the kind {self.name}")
        if node.md5_of(content) != md5:
            raise UserError(f"{out['path']} came damaged: it is not the {md5} that it is said to be")
        self.has_taken = True
        if result["stage"] == CEILINGS_STAGE:
            _store(self.folder / CEILINGS, content)
            self._lock({CEILINGS_STAGE: result["entry"]})
            return
        name, entry = result["run"]
        if not _RUN.fullmatch(name):
            raise UserError(f"it names {name} as an entry of DVC's run cache, and not runs/ and three digests")
        self._keep(md5, content)
        _store(self.cache / name, entry)
        self.done.add(result["stage"])

    def take_models(self, ready: Mapping[str, Any]) -> None:
        """Put what a node found out about models and inputs into the cache and the clone; see `node.make_ready`.

        Raises `UserError` where something of it came damaged, or belongs to no results.
        """
        for md5, content in ready["objects"].items():
            if node.md5_of(content, is_folder=md5.endswith(node.FOLDER)) != md5:
                raise UserError(f"a part of the inputs came damaged: it is not the {md5} that it is said to be")
            self._keep(md5, content)
        for path, content in ready["files"].items():
            if not (self.folder / path).resolve().is_relative_to((self.folder / RESULTS).resolve()):
                raise UserError(f"{path} is no file of {RESULTS}/, and is not taken from a node")
            _store(self.folder / path, content)
        self._lock(ready["entries"])

    def require_same(self, ready: Mapping[str, Any]) -> None:
        """Raise `UserError` where another node found out something else about models and inputs."""
        known = self._locked()
        for name, entry in ready["entries"].items():
            if name in known and _outs(known[name]) != _outs(entry):
                raise UserError(f"its {name} is another than that of the first node of the kind {self.name}")

    def _md5_here(self, path: str) -> str | None:
        """Return the md5 of a file in the clone, None where it is not there."""
        if path not in self._md5s:
            file = self.folder / path
            self._md5s[path] = node.md5_of(file.read_bytes()) if file.is_file() else None
        return self._md5s[path]

    def _locked(self) -> dict[str, Any]:
        """Return the entries of the clone's dvc.lock."""
        return node.entries_of(self.folder / LOCK) or {}

    def _keep(self, md5: str, content: bytes) -> None:
        """Put a file into the DVC cache of this repository."""
        _store(self.cache / "files" / "md5" / md5[:2] / md5[2:], content)

    def _lock(self, entries: Mapping[str, Any]) -> None:
        """Put entries of stages into the clone's dvc.lock."""
        _store(self.folder / LOCK, node.lock_of(self._locked() | dict(entries)))

    @property
    def is_complete(self) -> bool:
        """Whether all that the kind has to measure is here."""
        return self.done >= self.stages.keys() and self._has_ceilings()

    def _has_ceilings(self) -> bool:
        """Whether the clone has them, made from what this run measures with."""
        entry = self._locked().get(CEILINGS_STAGE)
        return entry is not None and (self.folder / CEILINGS).exists() and not self._differing(entry)

    def _differing(self, entry: Mapping[str, Any]) -> list[str]:
        """Return the results that an entry of dvc.lock was made from and that are others here, but the environment."""
        known = {each["path"]: each["md5"] for each in entry["deps"] if each["path"].startswith(f"{RESULTS}/")}
        return [path for path, md5 in known.items() if path != str(ENVIRONMENT) and md5 != self._md5_here(path)]

    @property
    def lacks_experiment(self) -> bool:
        """Whether there is no experiment of its name that has the commit, the params and all that is known."""
        if self.has_taken:
            return True
        params = run_git(Path(), "show", f"{self.reference}:{PARAMS}")
        return params.returncode != 0 or params.stdout.encode() != (self.folder / PARAMS).read_bytes()

    def make_experiment(self) -> None:
        """Make tables and report of the kind in its clone, and the DVC experiment that is named after it; see `main`.

        Raises `UserError` where DVC cannot.
        """
        self._run(__name__, self.name)

    def fetch_experiment(self) -> None:
        """Have the kind's experiment in this repository. Raises `UserError` where git cannot."""
        fetched = run_git(Path(), "fetch", "--quiet", str(self.folder), "+refs/exps/*:refs/exps/*")
        if fetched.returncode:
            raise UserError(
                f"the experiment {self.name} could not be fetched from {self.folder}: {fetched.stderr.strip()}"
            )

    @property
    def reference(self) -> str:
        """Where git has the experiment of this name that was made from the commit."""
        return f"refs/exps/{self.commit[:2]}/{self.commit[2:]}/{self.name}"

    def find_what_is_known(self) -> None:
        """Have the clone ready for the kind, and find out which points the DVC cache has of it."""
        self._run("dvc", "repro", "--quiet", "inputs", "assistant")
        points = json.loads((self.folder / POINTS).read_bytes())
        self.stages = {each["stage"]: each["point"]["round"] for each in points}
        self.done = _in_run_cache(self.folder, self.stages)

    def _run(self, *words: str) -> None:
        """Run a module in the clone, in which the stages take this kind's description for that of the machine."""
        variables = {
            **os.environ,
            STANDS_FOR: str((self.folder / ".git" / "environment.json").resolve()),
            "HFBENCH_TABLE": "off",
        }
        Path(variables[STANDS_FOR]).write_bytes(self.environment)
        command = [sys.executable, "-m", *words]
        ended = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        if ended.returncode:
            lines = f"{ended.stdout}\n{ended.stderr}".strip().splitlines()
            raise UserError(f"`{' '.join(words)}` failed for {self.name}: {lines[-1] if lines else ended.returncode}")


def _outs(entry: Mapping[str, Any]) -> dict[str, str]:
    return {each["path"]: each["md5"] for each in entry["outs"]}


@contextmanager
def alone() -> Iterator[None]:
    """Hold this repository's clones alone inside. Raises `UserError` where another process has them."""
    _CLONES.mkdir(parents=True, exist_ok=True)
    with (_CLONES / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("a fleet works for this repository already; `hfbench fleet status` shows it.") from None
        yield


def open_kind(environment: bytes, order: Mapping[str, Any], ready: Mapping[str, Any]) -> Kind:
    """Return the kind of this description, with what is known of it here; `ready` is what a node of it has of models.

    Raises `UserError`.
    """
    from dvc.repo import Repo

    name = name_of(environment)
    folder = _CLONES / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Repo() as repo:
        cache = Path(repo.cache.legacy.path)
    try:
        node.prepare(folder, order, cache)
    except node.NodeError as error:
        raise UserError(f"no clone of this repository could be made in {folder}: {error}") from None
    kind = Kind(name, environment, order["commit"], folder, cache)
    kind.take_models(ready)
    kind.find_what_is_known()
    return kind


def saved_kinds(kinds: Iterable[Kind]) -> tuple[list[Kind], list[str]]:
    """Make an experiment of each kind that is complete; return those, and why others have none."""
    complete, saved, failures = [kind for kind in kinds if kind.is_complete], list[Kind](), list[str]()
    with ThreadPoolExecutor(usable_cores()) as pool:  # each in a clone of its own
        makings = {kind.name: pool.submit(kind.make_experiment) for kind in complete if kind.lacks_experiment}
    for kind in complete:
        try:
            if kind.name in makings:
                makings[kind.name].result()
                kind.fetch_experiment()
        except UserError as error:
            failures.append(str(error))
            continue
        saved.append(kind)
        say(f"{kind.name}: its results are the DVC experiment of that name")
    return saved, failures


def push_kinds(kinds: Sequence[Kind]) -> None:
    """Push the run cache and what the experiments of these kinds hold to the DVC remote. Raises `UserError`.

    With the run cache alone, DVC (3.67) pushes nothing of what its entries name.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    commits = [run_git(Path(), "rev-parse", kind.reference).stdout.strip() for kind in kinds]
    try:
        with Repo() as repo:
            repo.push(revs=commits, run_cache=True)
    except DvcException as error:
        raise UserError(f"what was measured is kept here, and could not be pushed: {error}") from None


def name_of(environment: bytes) -> str:
    """Return a name that is short, tells what computes, and is another for another description."""
    known = json.loads(environment)
    accelerators = known["accelerators"]
    if accelerators:
        words = f"{accelerators[0]['name']} {len(accelerators) if len(accelerators) > 1 else ''}"
    else:
        words = f"{known['cpu']['brand']} {known['cpu']['available_physical_cores']} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", words.lower())).strip("-")
    return f"{slug}-{hashlib.sha256(environment).hexdigest()[:_DIGITS]}"


def _in_run_cache(folder: Path, names: Iterable[str]) -> set[str]:
    """Return which of the stages DVC would take from its cache in this clone."""
    from dvc.repo import Repo
    from dvc.stage.cache import RunCacheNotFoundError

    found = set()
    with chdir(folder), Repo() as repo:
        for stage in _stages_of(repo, names):
            stage.save_deps()
            with suppress(RunCacheNotFoundError):
                repo.stage_cache.restore(stage, dry=True)
                found.add(stage.addressing)
    return found


def _stages_of(repo: Any, names: Iterable[str]) -> list[Any]:
    """Return DVC's stages of these names."""
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it tells of each
    by_name = {stage.addressing: stage for stage in repo.index.stages}
    return [by_name[name] for name in names]


def _store(path: Path, content: bytes) -> None:
    """Write a file whole, or leave the one that is there with this content."""
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def main() -> None:
    """Make the experiment that the command line names, in the clone that this runs in, of what DVC's cache has.

    All points get into dvc.lock at once: `dvc repro` would write it anew for each, which takes hours where there are
    thousands.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        with repo.lock:
            stages = _stages_of(repo, (each["stage"] for each in json.loads(POINTS.read_bytes())))
            for stage in stages:
                repo.stage_cache.restore(stage)
                stage.save(run_cache=False)
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
        repo.reproduce()
        run_git(Path(), "add", "--", "results", LOCK, "stages/dvc.lock", str(PARAMS))
        repo.experiments.save(name=sys.argv[1], force=True)


if __name__ == "__main__":
    main()
