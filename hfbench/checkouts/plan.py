"""What each step of a bisection is to do, as a file: `git bisect run` starts every step as a process of its own."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfbench.checkouts.repository import Commit
from hfbench.checkouts.verdicts import Rule
from hfbench.foundation.configuration import Configuration
from hfbench.foundation.files import read_json, write_json


@dataclass(frozen=True)
class Plan:
    """One bisection: where, which point and metric, against which commit, and by which rule.

    `command` is the point's measure stage as DVC would run it in this folder; `folder` takes records, logs and
    verdicts. `owner` is the process that bisects, without which no step goes on.
    """

    checkout: str
    folder: str
    good: Commit
    point: Configuration
    command: str
    metric: str
    higher_is_better: bool
    unit: str
    rule: Rule
    owner: int

    @property
    def path(self) -> Path:
        """Where the plan is."""
        return Path(self.folder) / "plan.json"

    @property
    def complaint(self) -> Path:
        """Where a step that cannot go on says why."""
        return Path(self.folder) / "complaint.txt"

    @property
    def verdicts(self) -> Path:
        """The folder of what is known of each commit."""
        return Path(self.folder) / "verdicts"

    def verdict(self, sha: str) -> Path:
        """Where the verdict on a commit is."""
        return self.verdicts / f"{sha}.json"

    def environment(self, commit: Commit) -> Path:
        """Where the environment of a commit is described."""
        return Path(self.folder) / "environments" / f"{commit.sha}.json"

    def has_owner(self) -> bool:
        """Whether the process that bisects is still there."""
        try:
            os.kill(self.owner, 0)
        except ProcessLookupError:
            return False
        return True

    def save(self) -> None:
        """Write the plan into its folder."""
        write_json(self.path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read what `save` wrote."""
        content: dict[str, Any] = read_json(path)
        types: dict[str, Any] = {"good": Commit, "point": Configuration, "rule": Rule}
        return cls(**{name: types[name](**value) if name in types else value for name, value in content.items()})
