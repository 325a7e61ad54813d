"""Which round goes to which device of which node: a pure account of blocks, without Ray and without a clock.

A block is a round of a kind of machine: all its points, in the sweep's order, on one device of one node, or on as many
as its widest point runs over, so that what is compared was measured on the same. Different rounds go to different nodes
of the kind.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfbench.core.point import Configuration

_MOST_FAILURES = 2  # of a node in a row, after which it gets nothing more


@dataclass(frozen=True)
class Machine:
    """A node as Ray tells of it: its id, a name that no other has, and how many accelerators it gives out."""

    id: str
    name: str
    accelerators: int

    def places(self, per_node: int, devices: int) -> int:
        """Return how many blocks it measures at a time where `per_node` are asked for, of so many accelerators each.

        On the CPU it is one: they would slow each other down.
        """
        if not self.accelerators or not devices:
            return 1
        return max(1, min(per_node, self.accelerators // devices))


def machines_of(nodes: Sequence[Mapping[str, Any]], known: Mapping[str, Machine] | None = None) -> list[Machine]:
    """Return the nodes that are alive, as `ray.nodes()` tells of them, each with a name of its own.

    Those that are `known`, by their ids, keep theirs. One that gives out neither processors nor accelerators, as the
    head of some clusters, is there for no work.
    """
    known = known or {}
    alive = sorted(
        (each for each in nodes if each["Alive"] and {"CPU", "GPU"} & each["Resources"].keys()),
        key=lambda each: str(each["NodeID"]),
    )
    found = [known[each["NodeID"]] for each in alive if each["NodeID"] in known]
    taken = {machine.name for machine in known.values()}
    for each in (each for each in alive if each["NodeID"] not in known):
        name = each.get("NodeName") or ""
        if not name or name == each["NodeManagerAddress"]:
            name = each["NodeManagerHostname"]
        if name in taken:
            name = f"{name}-{each['NodeID'][:6]}"
        taken.add(name)
        found.append(Machine(each["NodeID"], name, int(each["Resources"].get("GPU", 0))))
    return found


def devices_wanted(points: Iterable[Configuration]) -> int:
    """Return over how many accelerators the widest of the points runs; with a device map, over all there are."""
    return max((point.devices or sys.maxsize for point in points), default=1)


@dataclass
class Block:
    """A round of a kind, with the stages that are still to be run, in order: of its points, and once the ceilings."""

    kind: str
    round: int
    waiting: list[str]
    begun_by: list[str] = field(default_factory=list)  # nodes, of which one is enough where nothing goes wrong
    is_running: bool = False

    @property
    def points_waiting(self) -> int:
        """How many of its points are still to be measured."""
        return sum(stage.startswith("measure") for stage in self.waiting)


@dataclass
class Node:
    """A node of the fleet, how many points it measures at a time, and what keeps it from more."""

    name: str
    kind: str
    places: int
    running: list[Block] = field(default_factory=list)
    failures: int = 0
    refused: str | None = None
    finished: int = 0


class Schedule:
    """What each kind has to measure, and who measures it now."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.nodes: dict[str, Node] = {}

    def add_kind(self, kind: str, rounds: Iterable[tuple[int, Sequence[str]]]) -> None:
        """Add what a kind has to measure: for each round the stages that wait."""
        self.blocks += (Block(kind, number, list(waiting)) for number, waiting in rounds)

    def add_node(self, name: str, kind: str, places: int) -> None:
        """Add a node, or one that was gone and is back."""
        self.nodes[name] = Node(name, kind, places)

    def remove_node(self, name: str) -> None:
        """Give up what a node that is gone was measuring; what it has finished stays."""
        node = self.nodes.pop(name, None)
        for block in node.running if node else ():
            block.is_running = False
        if node:
            node.running = []

    def next_block(self) -> tuple[Node, Block] | None:
        """Return a block to begin now with the node that measures it, or None where nobody is free or nothing waits.

        A block that was begun and given up goes to the node that began it, if it is free. Of the nodes, the one with
        fewest running blocks comes first, then the one that has finished least.
        """
        free = [node for node in self.nodes.values() if len(node.running) < node.places and node.refused is None]
        for node in sorted(free, key=lambda node: (len(node.running), node.finished)):
            waiting = [
                block for block in self.blocks if block.kind == node.kind and block.waiting and not block.is_running
            ]
            if waiting:
                block = min(waiting, key=lambda block: self._preference(node, block))
                block.is_running = True
                node.running.append(block)
                if node.name not in block.begun_by:
                    block.begun_by.append(node.name)
                return node, block
        return None

    def _preference(self, node: Node, block: Block) -> int:
        if node.name in block.begun_by:
            return 0
        others = {name for name in block.begun_by if name in self.nodes and self.nodes[name].refused is None}
        return 2 if others else 1  # its own node may yet be free

    def finish_stage(self, node: Node, block: Block, stage: str) -> None:
        """Note that a stage is done and its result is here; a node that was given up may still tell of some."""
        points = block.points_waiting
        if stage not in block.waiting:
            return
        block.waiting.remove(stage)
        node.failures = 0
        node.finished += points - block.points_waiting

    def end_block(self, node: Node, block: Block, failure: str | None = None) -> None:
        """Note that the node is done with the block; with a failure, what is left of it waits again.

        Of a node that was given up it tells nothing: another may have the block by now.
        """
        if not any(each is block for each in node.running):
            return
        block.is_running = False
        node.running = [each for each in node.running if each is not block]
        if failure is not None:
            node.failures += 1
            if node.failures >= _MOST_FAILURES:
                node.refused = failure

    @property
    def is_done(self) -> bool:
        """Whether nothing waits, of kinds that have a node or not."""
        return not any(block.waiting or block.is_running for block in self.blocks)

    @property
    def is_stuck(self) -> bool:
        """Whether something waits, nothing runs, and no node would take it."""
        takers = {node.kind for node in self.nodes.values() if node.refused is None}
        is_running = any(block.is_running for block in self.blocks)
        return not is_running and not any(block.waiting and block.kind in takers for block in self.blocks)
