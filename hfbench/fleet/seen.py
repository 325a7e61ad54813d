"""What a person sees of a fleet while it measures: a live table on a terminal, a line a point in a log, and a file.

The file is what `hfbench fleet status` shows in another terminal.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json, write_json
from hfbench.core.results import LOGS
from hfbench.fleet.kinds import Kind
from hfbench.fleet.schedule import Block, Node, Schedule

STATUS = LOGS / "fleet.json"
_TELL_SECONDS = 1.0


class Seen:
    """How far the fleet is, told as it goes on."""

    def __init__(self, dashboard: str) -> None:
        self._dashboard = dashboard
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._refused: dict[str, str] = {}
        self._began = time.monotonic()
        self._told = 0.0
        self._finished = 0

    def say(self, text: str) -> None:
        """Say what happened, above the table where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def refuse(self, node: str, reason: str) -> None:
        """Tell that a node measures nothing, and why."""
        self._refused[node] = reason
        self.say(f"{node} is left out: {reason}")

    def print_plan(self, kinds: Mapping[str, Kind], schedule: Schedule, devices: Mapping[str, str]) -> None:
        """Print, as the result of the command, what there is and what would be measured; `devices` are by node."""
        table = Table("kind", "nodes", "still to measure", box=None, pad_edge=False, header_style="bold")
        for name, kind in kinds.items():
            nodes = [f"{node.name} ({devices[node.name]})" for node in schedule.nodes.values() if node.kind == name]
            rounds = [block for block in schedule.blocks if block.kind == name and block.points_waiting]
            waiting = sum(block.points_waiting for block in rounds)
            rest = f"{waiting} of {len(kind.stages)} points, in {len(rounds)} rounds" if waiting else "nothing"
            table.add_row(name, ", ".join(nodes), rest)
        Console().print(table)

    def point(self, node: Node, block: Block, stage: str) -> None:
        """Tell that a node has run one more stage of its round."""
        self._finished += 1
        if not self._console.is_terminal:
            what = "a point" if stage.startswith("measure") else stage
            self.say(f"{node.name} · round {block.round} · {what} is done, {block.points_waiting} to go · {block.kind}")

    def show(self, kinds: Mapping[str, Kind], schedule: Schedule, *, is_last: bool = False) -> None:
        """Bring the table and the file up to date, at most once a second."""
        if not is_last and time.monotonic() - self._told < _TELL_SECONDS:
            return
        self._told = time.monotonic()
        status = self.status(kinds, schedule)
        write_json(STATUS, status)
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(status_shown(status), refresh=True)
            if is_last:
                self._live.stop()

    def status(self, kinds: Mapping[str, Kind], schedule: Schedule) -> dict[str, Any]:
        """Return how far each kind and each node is, ready for JSON."""
        waiting = {name: sum(block.points_waiting for block in schedule.blocks if block.kind == name) for name in kinds}
        a_point = (time.monotonic() - self._began) / self._finished if self._finished else None
        nodes = [
            {
                "node": node.name,
                "kind": node.kind,
                "rounds": [block.round for block in node.running],
                "finished": node.finished,
                "refused": node.refused,
            }
            for node in schedule.nodes.values()
        ]
        refused: list[dict[str, Any]] = [
            {"node": name, "kind": None, "rounds": [], "finished": 0, "refused": why}
            for name, why in self._refused.items()
        ]
        return {
            "process": os.getpid(),
            "at": time.time(),
            "dashboard": self._dashboard,
            "kinds": {name: {"points": len(kind.stages), "waiting": waiting[name]} for name, kind in kinds.items()},
            "nodes": [*nodes, *refused],
            "seconds_left": None if a_point is None else a_point * sum(waiting.values()),
        }


def status_shown(status: Mapping[str, Any]) -> Group:
    """Return how far each kind is and about how long all will take, and a table of the nodes with their rounds."""
    lines = [
        f"{name}: {each['points'] - each['waiting']} of {each['points']} points"
        for name, each in status["kinds"].items()
    ]
    if left := status["seconds_left"]:
        lines.append(f"about {max(1, round(left / 60))} min left")
    if status["dashboard"]:
        lines.append(f"Ray's dashboard: http://{status['dashboard']}")
    return Group(*map(Text, lines), "", _nodes(status))


def _nodes(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("node", "kind", "measures", "points"):
        table.add_column(head, justify="right" if head == "points" else "left")
    for each in status["nodes"]:
        rounds = ", ".join(f"round {number}" for number in each["rounds"])
        table.add_row(each["node"], each["kind"] or "", each["refused"] or rounds or "nothing", str(each["finished"]))
    return table


def last_status() -> dict[str, Any]:
    """Return how far the last fleet of this repository is, or was. Raises `UserError` where there was none."""
    if not STATUS.exists():
        raise UserError("no fleet has measured for this repository. Start one with `hfbench fleet run`.")
    status: dict[str, Any] = read_json(STATUS)
    return status


def show_status() -> None:
    """Print how far the fleet is that measures for this repository. Raises `UserError` where none does."""
    status = last_status()
    Console().print(status_shown(status))
    if any(each["waiting"] for each in status["kinds"].values()) and not psutil.pid_exists(status["process"]):
        say("It has ended; `hfbench fleet run` goes on with what waits.")
