"""Which round goes where: blocks that stay whole, nodes that come, go and fail."""

import sys
from typing import Any

from hfbench.fleet.schedule import Machine, Schedule, devices_wanted, machines_of
from tests.measure.test_support import point


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
