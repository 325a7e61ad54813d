"""What a kind of machines takes from its nodes: what was measured as the others measured it, and nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.fleet import node
from hfbench.fleet.kinds import Kind, alone

ENVIRONMENT = json.dumps({"accelerators": [], "cpu": {"brand": "CPU", "available_physical_cores": 2}}).encode()
MANIFEST, RECORD = b"the manifest", b"the record"


@pytest.fixture
def kind(tmp_path: Path) -> Kind:
    """A kind in a folder that stands for its clone, in which the manifest of a model is."""
    folder = tmp_path / "clone"
    (folder / "results/models").mkdir(parents=True)
    (folder / "results/models/m.json").write_bytes(MANIFEST)
    return Kind("kind", ENVIRONMENT, "c" * 40, folder, tmp_path / "cache", {"measure@1-m": 1})


def result(manifest: bytes = MANIFEST, environment: bytes = ENVIRONMENT) -> Mapping[str, Any]:
    """A point as a node sends it, found with this manifest in this environment."""
    deps = {"results/environment.json": environment, "results/models/m.json": manifest, "stages/measure.py": b""}
    path, md5 = "results/measurements/1-m.json", node.md5_of(RECORD)
    entry = {
        "deps": [{"path": name, "md5": node.md5_of(content)} for name, content in deps.items()],
        "outs": [{"path": path, "md5": md5}],
    }
    run = (f"runs/{md5[:2]}/{md5}/{md5}", b"cmd: measure")
    return {"stage": "measure@1-m", "entry": entry, "outs": {path: RECORD}, "run": run}


def test_what_was_measured_with_another_model_is_not_taken(kind: Kind) -> None:
    with pytest.raises(UserError, match=r"with another results/models/m\.json than the one of the kind"):
        kind.take(result(manifest=b"a manifest that says unavailable"))
    with pytest.raises(UserError, match="its environment is no longer that of the kind"):
        kind.take(result(environment=b"{}"))
    assert not kind.done
    kind.take(result())
    assert kind.done == {"measure@1-m"}


def test_a_node_that_found_another_model_is_refused(kind: Kind) -> None:
    def ready(content: bytes) -> dict[str, Any]:
        out = {"path": "results/models/m.json", "md5": node.md5_of(content)}
        return {"entries": {"model@m": {"outs": [out]}}, "objects": {}, "files": {}}

    kind.take_models(ready(MANIFEST))
    kind.require_same(ready(MANIFEST))
    with pytest.raises(UserError, match="its model@m is another than that of the first node of the kind"):
        kind.require_same(ready(b"another commit of the branch"))


def test_one_fleet_at_a_time_works_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with alone(), pytest.raises(UserError, match="`hfbench fleet status` shows it"), alone():
        pass
    with alone():
        pass
