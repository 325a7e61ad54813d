"""`hfbench fleet`: the nodes of a Ray cluster that exists, what each is and has to measure, and the measuring itself.

Ray carries work to the nodes and results back, at once when a point is done; DVC's run cache is where they are kept.
"""

import json
import logging
import os
import socket
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hfbench.core.errors import UserError, say
from hfbench.core.results import PARAMS
from hfbench.environment.packages import describe_packages, differing_versions
from hfbench.fleet import node as on_node
from hfbench.fleet.across import PAGE, show_kinds
from hfbench.fleet.kinds import Kind, alone, name_of, open_kind, push_kinds, saved_kinds
from hfbench.fleet.schedule import Block, Machine, Node, Schedule, devices_wanted, machines_of
from hfbench.fleet.seen import Seen, last_status, show_status
from hfbench.git import prefix_of, run_git
from hfbench.params.schema import load_params
from hfbench.report.words import counted

_CONSTRAINTS = Path("constraints.txt")
_PATIENCE_SECONDS = 60.0  # with a node that is asked what it is
_INSTALL_SECONDS = 660.0  # where Ray makes an environment for that, for which it takes ten minutes at most
_LOOK_SECONDS = 5.0  # between two looks at which nodes there are
_WAIT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_FEWEST_FAILURES = 2  # of the head to answer, after which it is gone
_SAID_BY_RAY = Path(".dvc/tmp/hfbench-ray.log")  # of nodes in trouble, at length
_START = "Start one with `ray start --head`, or name another with --address."
# Where an uncommitted change is one that no node would have; what is left out is shipped apart, or a result.
_SHIPPED = (".", ":(exclude)params.yaml", ":(exclude)*dvc.lock", ":(exclude)results")


@dataclass
class _Task:
    """What runs on a node: a block, whose results come as a stream."""

    node: Node
    block: Block


class Fleet:
    """The nodes of a cluster, surveyed, and what they measure."""

    def __init__(self, ray: Any, dashboard: str, per_node: int, runtime: Mapping[str, Any] | None) -> None:
        self._ray = ray
        self._per_node = per_node
        self._runtime = runtime
        self._order = make_order()
        self._shared = ray.put(self._order)
        self._machines: dict[str, Machine] = {}
        self._surveys: dict[Any, Machine] = {}
        self._asked_at: dict[Any, float] = {}
        self._late = set[Any]()  # what was told to take long; surveys among it are waited for no more
        self._readying: dict[Any, tuple[Machine, bytes]] = {}
        self._tasks: dict[Any, _Task] = {}
        self._looked_at = -_LOOK_SECONDS
        self._packages = describe_packages()
        self.kinds: dict[str, Kind] = {}
        self.schedule = Schedule()
        self.seen = Seen(dashboard)

    def survey(self) -> None:
        """Find out of each node what it is, and of each kind what is measured already."""
        self._ask()
        while self._is_asking():
            self._take_ready([*self._surveys, *self._readying])
        self._require_nodes()

    def _ask(self) -> None:
        self._look()
        if not self._machines:
            raise UserError("the Ray cluster has no node that is alive. Start some with `ray start`.")
        self.seen.say(f"asking {counted(len(self._machines), 'node')} what it is: {', '.join(self.devices())}")

    def _is_asking(self) -> bool:
        """Whether nodes are to answer, or to get ready; who takes long is told, and no answer is waited for longer."""
        late = time.monotonic() - (_PATIENCE_SECONDS if self._runtime is None else _INSTALL_SECONDS)
        silent = "has not answered yet; other work may hold what it needs"
        said = {each: f"{machine.name} {silent}" for each, machine in self._surveys.items()}
        said |= {each: f"{its.name} still gets models and inputs ready" for each, (its, _) in self._readying.items()}
        for reference in said.keys() - self._late:
            if self._asked_at[reference] < late:
                self._late.add(reference)
                self.seen.say(f"{said[reference]}. The others go on.")
        return bool(self._awaited())

    def _awaited(self) -> list[Any]:
        """What nodes are to answer, without those that are waited for no more."""
        return [*(reference for reference in self._surveys if reference not in self._late), *self._readying]

    def _require_nodes(self) -> None:
        if not self.schedule.nodes:
            raise UserError("none of the nodes can measure; why stands above.")

    def run(self) -> str | None:
        """Measure until nothing waits; nodes may come and go. Return why some points are left, or None."""
        self._ask()
        while self._is_asking() or not self.schedule.is_done:
            self._look()
            self._begin_blocks()
            self.seen.show(self.kinds, self.schedule)
            if self.schedule.is_stuck and not (self._tasks or self._awaited()):
                break
            self._take_ready([*self._tasks, *self._surveys, *self._readying])
        self.seen.show(self.kinds, self.schedule, is_last=True)
        if not self.kinds:
            self._require_nodes()
        if not self.schedule.is_done:
            return self._why_stuck()
        silent = sorted(self._surveys[reference].name for reference in self._late if reference in self._surveys)
        return f"{', '.join(silent)} never answered, and measured nothing." if silent else None

    def devices(self) -> dict[str, str]:
        """Return, in words, what each node gives out, by its name."""
        return {
            machine.name: f"{machine.accelerators} GPU{'s' * (machine.accelerators > 1)}"
            if machine.accelerators
            else "CPU"
            for machine in self._machines.values()
        }

    def _look(self) -> None:
        """Survey the nodes that are new, and give up those that are gone; not more often than needed."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        alive = {machine.id: machine for machine in machines_of(self._ray.nodes(), self._machines)}
        for gone in self._machines.keys() - alive.keys():
            machine = self._machines.pop(gone)
            self.seen.say(f"{machine.name} is gone")
            self.schedule.remove_node(machine.name)
        for new in alive.keys() - self._machines.keys():
            self._machines[new] = alive[new]
            reference = self._on(alive[new], on_node.survey).remote(self._shared)
            self._surveys[reference], self._asked_at[reference] = alive[new], time.monotonic()

    def _on(self, machine: Machine, function: Callable[..., Any], devices: int = 1, **options: Any) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        runtime = {} if self._runtime is None else {"runtime_env": self._runtime}
        return self._ray.remote(function).options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.id, soft=False),
            num_cpus=0,
            # To describe the node takes one as well: Ray hides accelerators from whoever asks for none.
            num_gpus=min(devices, machine.accelerators),
            max_retries=0,
            **runtime,
            **options,
        )

    def _take_ready(self, waiting: Sequence[Any]) -> None:
        """Take what is ready of what is waited for, for a second at most."""
        ready, _ = self._ray.wait(waiting, timeout=_WAIT_SECONDS) if waiting else ([], [])
        for each in ready:
            if each in self._surveys:
                self._take_survey(each)
            elif each in self._readying:
                self._take_node(each)
            else:
                self._take(each)

    def _take_survey(self, reference: Any) -> None:
        """Take what a node is, and have it get the models where it may measure."""
        machine = self._surveys.pop(reference)
        try:
            environment: bytes = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self.seen.refuse(machine.name, reason_of(error))
            return
        different = differing_versions(json.loads(environment)["packages"], self._packages)
        if different:
            self.seen.refuse(machine.name, f"it has {'; '.join(different)}")
            return
        self.seen.say(f"{machine.name} is of the kind {name_of(environment)}; it gets models and inputs ready")
        getting_ready = self._on(machine, on_node.make_ready).remote(self._shared)
        self._readying[getting_ready], self._asked_at[getting_ready] = (machine, environment), time.monotonic()

    def _take_node(self, reference: Any) -> None:
        """Take what a node found out about models and inputs; from now on it measures."""
        machine, environment = self._readying.pop(reference)
        name = name_of(environment)
        try:
            ready = self._ray.get(reference)
            kind = self.kinds.get(name) or open_kind(environment, self._order, ready)
            kind.require_same(ready)
        except (self._ray.exceptions.RayError, UserError) as error:
            self.seen.refuse(machine.name, reason_of(error))
            return
        if name not in self.kinds:
            self.kinds[name] = kind
            self.schedule.add_kind(name, kind.rounds())
        if machine.id not in self._machines:  # gone meanwhile
            return
        self.schedule.add_node(machine.name, name, machine.places(self._per_node, self._order["devices"]))

    def _begin_blocks(self) -> None:
        by_name = {machine.name: machine for machine in self._machines.values()}
        while (found := self.schedule.next_block()) is not None:
            node, block = found
            machine = by_name[node.name]
            described = {"node": node.name, "per_node": node.places}
            task = self._on(machine, on_node.measure, self._order["devices"], num_returns="streaming")
            kind = on_node.md5_of(self.kinds[block.kind].environment)
            self._tasks[task.remote(self._shared, tuple(block.waiting), described, kind)] = _Task(node, block)

    def _take(self, stream: Any) -> None:
        """Take the next result of a stream, or its end."""
        task = self._tasks[stream]
        node, block, kind = task.node, task.block, self.kinds[task.block.kind]
        try:
            result = self._ray.get(next(stream))
            kind.take(result)
        except StopIteration:
            del self._tasks[stream]
            self.schedule.end_block(node, block)
            return
        except (self._ray.exceptions.RayError, UserError) as error:
            del self._tasks[stream]
            if isinstance(error, UserError):  # the node would go on
                self._ray.cancel(stream, force=True)
            self.schedule.end_block(node, block, reason_of(error))
            if node.name in self.schedule.nodes:
                self.seen.say(f"{node.name} gave up round {block.round}: {reason_of(error)}")
            return
        self.schedule.finish_stage(node, block, result["stage"])
        self.seen.point(node, block, result["stage"])

    def _why_stuck(self) -> str:
        refused = "; ".join(f"{node.name}: {node.refused}" for node in self.schedule.nodes.values() if node.refused)
        waiting = sum(block.points_waiting for block in self.schedule.blocks)
        return f"{waiting} points wait, and no node is left to measure them. {refused}".strip()


def fleet(arguments: Namespace) -> None:
    """Do what the command line asks for. Raises `UserError`."""
    match arguments.action:
        case "report":
            show_kinds(arguments.kinds or list(last_status()["kinds"]))
        case "status":
            show_status()
        case "run":
            run_fleet(arguments.address, arguments.per_node, installs=arguments.install, pushes=arguments.push)
        case _:
            list_fleet(arguments.address)


def list_fleet(address: str) -> None:
    """Print the kinds of machines in the cluster, their nodes and devices, and what each kind still has to measure."""
    with alone(), connected(address) as (ray, dashboard):
        its = Fleet(ray, dashboard, per_node=1, runtime=None)
        its.survey()
    its.seen.print_plan(its.kinds, its.schedule, its.devices())


def run_fleet(address: str, per_node: int, *, installs: bool, pushes: bool) -> None:
    """Measure what the cluster's nodes have to, and make an experiment of each kind's results. Raises `UserError`."""
    if per_node < 1:
        raise UserError(f"--per-node is {per_node}. Expected 1 or more points at a time on a node.")
    runtime = {"pip": _CONSTRAINTS.read_text().splitlines()} if installs else None
    with alone():
        with connected(address) as (ray, dashboard):
            its = Fleet(ray, dashboard, per_node, runtime)
            failure = its.run()
        kinds, failures = saved_kinds(its.kinds.values())
    if pushes:
        push_kinds(kinds)
    if kinds:
        show_kinds([kind.name for kind in kinds])
        say(f"This page, with a chart: {PAGE}")
    if len(kinds) > 1:
        say(f"More on two of them: hfbench compare {kinds[0].name} {kinds[1].name} --across-environments")
    if told := [*failures, *filter(None, [failure])]:
        raise UserError(" ".join(told))


@contextmanager
def connected(address: str) -> Iterator[tuple[Any, str]]:
    """Yield Ray, connected to the cluster at the address, and where its dashboard is; nothing is started.

    Raises `UserError`.
    """
    try:
        import ray
        from ray import cloudpickle
    except ImportError:
        raise UserError("hfbench fleet needs Ray. Install it in this checkout: pip install -e '.[fleet]'") from None
    if (os.environ.get("RAY_ADDRESS", "") if address == "auto" else address).startswith("ray://"):
        raise UserError(
            "hfbench fleet streams results, which Ray's client (ray://) cannot. Run it on a machine of the cluster, "
            "with the head's own address, HOST:6379."
        )
    _require_answer(address)
    try:
        context = ray.init(address=address, namespace="hfbench", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({str(error).splitlines()[0].rstrip('.')}). {_START}"
        ) from None
    cloudpickle.register_pickle_by_value(on_node)  # type: ignore[no-untyped-call]
    head, is_done = str(ray.get_runtime_context().gcs_address), threading.Event()
    if _no_answer(head) is None:  # it may be out of reach for who drives through a proxy
        threading.Thread(target=_end_without_head, args=(head, is_done), daemon=True).start()
    try:
        with _SAID_BY_RAY.open("w") as said, redirect_stdout(said):
            yield ray, str(context.dashboard_url or "")
    finally:
        is_done.set()
        ray.shutdown()


def _end_without_head(head: str, is_done: threading.Event) -> None:
    """End this process when nothing has answered at the cluster's head twice, for which Ray would wait and then abort.

    Once the process is done with the cluster, this ends as well. Workers and what they started end with their raylets,
    which end without a head too. What came back is kept.
    """
    failures = 0
    while failures < _FEWEST_FAILURES:
        if is_done.wait(_LOOK_SECONDS):
            return
        failures = failures + 1 if _no_answer(head) else 0
    Console(stderr=True).show_cursor()  # the table that is drawn anew had hidden it
    say(
        f"hfbench: the head of the cluster, {head}, does not answer any more. What came back is kept; start the "
        "cluster again, and `hfbench fleet run` goes on."
    )
    os._exit(1)


def _require_answer(address: str) -> None:
    """Raise `UserError` where nothing listens at the address, for which Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # as `auto`, for which Ray looks on this machine
    if error := _no_answer(f"{host}:{port}"):
        raise UserError(f"no Ray cluster answers at {address} ({error}). {_START}")


def _no_answer(address: str) -> OSError | None:
    """Return why nothing answers at HOST:PORT; None where something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        return error
    return None


def make_order() -> dict[str, Any]:
    """Return what a node needs to measure this: the commit in a git bundle, the params, and `devices` for each block.

    Raises `UserError`.
    """
    asked = load_params(PARAMS)
    devices = 0 if asked.device == "cpu" else devices_wanted(asked.stages())
    changed = run_git(Path(), "status", "--porcelain", "--untracked-files=no", "--", *_SHIPPED)
    if changed.returncode:
        raise UserError("a fleet measures a commit, and this is no git repository. Run `git init` and commit.")
    if prefix_of(Path()):
        raise UserError("a fleet needs the pipeline at the top of its git repository, and this is a folder within one.")
    if changed.stdout.strip():
        files = ", ".join(line[3:] for line in changed.stdout.splitlines())
        raise UserError(
            f"a fleet measures a commit, and these files have changes that are in none: {files}. Commit them."
        )
    if run_git(Path(), "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        raise UserError(
            "a fleet ships the commit with its history, of which this clone has a part. Run `git fetch --unshallow`."
        )
    commit = run_git(Path(), "rev-parse", "HEAD").stdout.strip()
    project = run_git(Path(), "rev-list", "--max-parents=0", "HEAD").stdout.split()[-1][:12]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        made = run_git(Path(), "bundle", "create", "--quiet", str(bundle), "HEAD")
        if made.returncode:
            raise UserError(f"git made no bundle of {commit[:12]}: {made.stderr.strip()}")
        content = bundle.read_bytes()
    params = PARAMS.read_bytes()
    return {"commit": commit, "project": project, "bundle": content, "params": params, "devices": devices}


def reason_of(error: BaseException) -> str:
    """Return why something failed on a node, in a line."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(cause).__name__
