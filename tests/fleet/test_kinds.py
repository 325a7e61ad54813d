"""A fleet without its nodes: which round goes where, what a kind takes of what nodes measured, and the page on kinds.

Blocks stay whole; nodes come, go and fail.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfbench.core.errors import UserError
from hfbench.fleet import node
from hfbench.fleet.across import kinds_page, write_html
from hfbench.fleet.kinds import Kind, alone
from hfbench.fleet.schedule import Machine, Schedule, devices_wanted, machines_of
from hfbench.report.charts.throughput import kinds_chart
from hfbench.report.frames import ReportData
from hfbench.report.pages import Table, markdown
from tests.environment.conftest import commit_all, git
from tests.measure.test_support import point
from tests.report.report_records import data_of, rounds_of

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


FAST, SLOW = [1.0, 1.01, 0.99], [2.0, 2.02, 1.98]


def kinds(folder: Path) -> dict[str, ReportData]:
    """A desktop, and a laptop that takes twice as long, and on which eager failed."""
    return {
        "desktop": data_of(folder / "desktop", rounds_of(eager=SLOW, sdpa=FAST)),
        "laptop": data_of(folder / "laptop", rounds_of(sdpa=SLOW)),
    }


def test_each_way_is_held_against_the_first_kind(tmp_path: Path) -> None:
    tables = [block for block in kinds_page(kinds(tmp_path)) if isinstance(block, Table)]
    times = next(table for table in tables if "as on desktop" in table.title)
    cells = {row[0].text: row[-1].text for row in times.rows}
    estimate, _, span = cells["sdpa"].partition(" ")
    assert float(estimate) == 0.5
    low, high = (float(each) for each in span.strip("()").split(" … "))
    assert 0.4 < low < 0.5 < high < 0.6
    assert cells["eager"] == "–", "it was measured on one of the kinds alone"


def test_one_kind_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    alone = {"desktop": kinds(tmp_path)["desktop"]}
    page = markdown(list(kinds_page(alone)))
    assert "How many times" not in page
    assert "sdpa" in page


def test_what_no_kind_tells_is_no_table(tmp_path: Path) -> None:
    page = markdown(list(kinds_page(kinds(tmp_path))))
    assert "Tokens a second" in page
    assert "Tokens a joule" not in page, "these machines count no energy"


def test_one_round_is_drawn_without_an_interval(tmp_path: Path) -> None:
    once = rounds_of(sdpa=[1.0])
    chart = kinds_chart({"desktop": data_of(tmp_path, once)})
    assert chart is not None
    assert "x2" not in str(chart.spec)


def test_a_fleet_that_measured_nothing_has_a_page_without_a_chart(tmp_path: Path) -> None:
    data = kinds(tmp_path)["laptop"]
    nothing = replace(data, rows=data.rows.clear(), points=data.points.clear(), samples=data.samples.clear())
    found = {"laptop": nothing}
    write_html(found, list(kinds_page(found)), tmp_path / "fleet.html")
    page = (tmp_path / "fleet.html").read_text()
    assert "laptop" in page
    assert "data-chart" not in page


def schedule(nodes: dict[str, int], rounds: int = 3, points: int = 2) -> Schedule:
    """A kind with rounds of so many points, and nodes that measure so many at a time."""
    made = Schedule()
    stages = [(number, [f"measure@{number}-{point}" for point in range(points)]) for number in range(1, rounds + 1)]
    made.add_kind("kind", stages)
    for name, places in nodes.items():
        made.add_node(name, "kind", places)
    return made


def begin_all(its: Schedule) -> list[tuple[str, int]]:
    """Begin what can begin, and return which node measures which round."""
    found = []
    while (pair := its.next_block()) is not None:
        found.append((pair[0].name, pair[1].round))
    return found


def measure_block(its: Schedule, name: str) -> None:
    node = its.nodes[name]
    (block,) = node.running
    for stage in tuple(block.waiting):
        its.finish_stage(node, block, stage)
    its.end_block(node, block)


def test_each_round_goes_whole_to_one_node_and_each_node_has_one() -> None:
    its = schedule({"a": 1, "b": 1})
    assert begin_all(its) == [("a", 1), ("b", 2)]
    measure_block(its, "b")
    assert begin_all(its) == [("b", 3)]
    measure_block(its, "a")
    measure_block(its, "b")
    assert its.is_done
    assert [block.begun_by for block in its.blocks] == [["a"], ["b"], ["b"]]


def test_a_node_with_places_takes_more_rounds_and_the_others_are_not_left_idle() -> None:
    assert begin_all(schedule({"a": 2, "b": 1})) == [("a", 1), ("b", 2), ("a", 3)]


def test_what_a_lost_node_has_finished_is_not_measured_again() -> None:
    its = schedule({"a": 1, "b": 1}, rounds=2)
    begin_all(its)
    (block,) = its.nodes["a"].running
    its.finish_stage(its.nodes["a"], block, "measure@1-0")
    lost = its.nodes["a"]
    its.remove_node("a")
    assert begin_all(its) == [], "b is busy"
    measure_block(its, "b")
    assert begin_all(its) == [("b", 1)]
    assert block.waiting == ["measure@1-1"]
    assert block.begun_by == ["a", "b"]
    its.end_block(lost, block, "the node is gone")
    its.finish_stage(lost, block, "measure@1-0")
    assert begin_all(its) == [], "it is b's now, whatever is still heard of a"


def test_a_round_that_was_given_up_waits_for_the_node_that_began_it() -> None:
    its = schedule({"a": 1, "b": 1}, rounds=3)
    begin_all(its)
    node, (block,) = its.nodes["a"], its.nodes["a"].running
    its.finish_stage(node, block, "measure@1-0")
    its.end_block(node, block, "the worker was killed")
    measure_block(its, "b")
    assert set(begin_all(its)) == {("a", 1), ("b", 3)}


def test_a_node_that_fails_twice_in_a_row_gets_nothing_more() -> None:
    its = schedule({"a": 1}, rounds=1)
    for _ in range(2):
        assert begin_all(its) == [("a", 1)]
        its.end_block(its.nodes["a"], its.blocks[0], "no space left on device")
    assert begin_all(its) == []
    assert its.nodes["a"].refused == "no space left on device"
    assert its.is_stuck
    assert not its.is_done
    its.add_node("late", "kind", 1)
    assert not its.is_stuck
    assert begin_all(its) == [("late", 1)]


def test_a_node_measures_nothing_of_another_kind() -> None:
    its = schedule({"a": 1}, rounds=1)
    its.add_node("other", "another kind", 1)
    assert begin_all(its) == [("a", 1)]


def test_a_block_has_as_many_devices_as_its_widest_point_runs_over() -> None:
    assert devices_wanted([point(), point(tp_size=4), point(tp_size=2)]) == 4
    assert devices_wanted([point(tp_size=2), point(device_map="auto")]) == sys.maxsize
    assert devices_wanted([]) == 1
    box = Machine("id", "box", accelerators=8)
    assert [box.places(8, devices) for devices in (1, 2, 3, sys.maxsize)] == [8, 4, 2, 1]
    assert box.places(3, 2) == 3
    assert Machine("id", "cpu", accelerators=0).places(2, 4) == 1, "side by side they would slow each other down"


def ray_node(number: int, name: str, **resources: float) -> dict[str, Any]:
    """A node as Ray tells of it."""
    told = {"NodeID": f"{number:06x}", "NodeName": name, "Alive": True, "Resources": resources}
    return told | {"NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "host"}


def test_no_two_nodes_have_one_name_whichever_comes_first() -> None:
    lab = ray_node(9, "lab", CPU=2.0)
    known = {machine.id: machine for machine in machines_of([lab])}
    newcomer = ray_node(1, "lab", CPU=2.0, GPU=4.0)
    found = {machine.id: machine for machine in machines_of([lab, newcomer], known)}
    assert {machine.name for machine in found.values()} == {"lab", "lab-000001"}
    assert found["000009"].name == "lab"
    assert found["000001"].accelerators == 4


def test_a_head_that_gives_out_nothing_measures_nothing() -> None:
    assert [each.name for each in machines_of([ray_node(1, "head"), ray_node(2, "worker", CPU=8.0)])] == ["worker"]
