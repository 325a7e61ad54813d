"""What a kind of machines takes from its nodes: what was measured as the others measured it, and nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfbench.core.errors import UserError
from hfbench.fleet import node
from hfbench.fleet.kinds import Kind, alone
from tests.environment.conftest import commit_all, git

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


def test_ceilings_of_other_dtypes_are_measured_again(kind: Kind) -> None:
    def ask_for(dtypes: bytes) -> Kind:
        (kind.folder / "results/settings").mkdir(exist_ok=True)
        (kind.folder / "results/settings/dtypes.json").write_bytes(dtypes)
        return Kind("kind", ENVIRONMENT, kind.commit, kind.folder, kind.cache, kind.stages)

    deps = {"results/environment.json": ENVIRONMENT, "results/settings/dtypes.json": b"bfloat16"}
    path, content = "results/ceilings.json", b"the ceilings"
    entry = {
        "deps": [{"path": name, "md5": node.md5_of(each)} for name, each in deps.items()],
        "outs": [{"path": path, "md5": node.md5_of(content)}],
    }
    assert list(ask_for(b"bfloat16").rounds()) == [(1, ["measure@1-m", "ceilings"])]
    ask_for(b"bfloat16").take({"stage": "ceilings", "entry": entry, "outs": {path: content}})
    assert list(ask_for(b"bfloat16").rounds()) == [(1, ["measure@1-m"])]
    assert list(ask_for(b"float32").rounds()) == [(1, ["measure@1-m", "ceilings"])]


def test_a_clone_keeps_of_other_params_what_is_known_of_models_and_nothing_of_a_killed_dvc(tmp_path: Path) -> None:
    repository, folder = tmp_path / "repository", tmp_path / "clone"
    (repository / ".dvc").mkdir(parents=True)
    (repository / ".dvc/config").touch()
    git(repository, "init", "--quiet")
    orders = []
    for code in ("one", "two"):
        (repository / "code.py").write_text(code)
        commit_all(repository)
        git(repository, "bundle", "create", "--quiet", str(tmp_path / "bundle"), "HEAD")
        bundle = (tmp_path / "bundle").read_bytes()
        orders.append({"commit": git(repository, "rev-parse", "HEAD"), "bundle": bundle})

    def prepare(order: dict[str, Any], params: bytes) -> set[str]:
        node.prepare(folder, {**order, "params": params}, tmp_path / "cache")
        assert (folder / "params.yaml").read_bytes() == params
        lock = folder / "dvc.lock"
        locked = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
        return {*locked, *(path.name for path in folder.glob("results/*/*.json"))}

    assert prepare(orders[0], b"round: [1]") == set()
    outs = {"model@m": "results/models/m.json", "measure@1-m": "results/measurements/1-m.json"}
    for path in outs.values():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("{}")
    stages = {name: {"cmd": "python", "outs": [{"path": path, "md5": "0"}]} for name, path in outs.items()}
    (folder / "dvc.lock").write_text(json.dumps({"stages": stages}))
    assert len(prepare(orders[0], b"round: [1]")) == 4
    assert prepare(orders[0], b"round: [1, 2]") == {"m.json", "model@m"}
    # As where DVC was killed while it wrote these: it would not start any more.
    (folder / ".dvc/tmp").mkdir()
    (folder / ".dvc/tmp/rwlock").write_text('{"read": {"/a')
    assert prepare(orders[0], b"round: [1, 2]") == {"m.json", "model@m"}
    assert not (folder / ".dvc/tmp/rwlock").exists()
    for cut in ("schem", "stages:\n  model@m:\n", "stages:\n  model@m:\n    outs:\n    - pat", "stages: {"):
        (folder / "dvc.lock").write_text(cut)
        assert prepare(orders[0], b"round: [1, 2]") == set()
    assert prepare(orders[1], b"round: [1, 2]") == set()


def test_one_fleet_at_a_time_works_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with alone(), pytest.raises(UserError, match="`hfbench fleet status` shows it"), alone():
        pass
    with alone():
        pass
