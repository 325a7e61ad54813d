"""The processes over which a point is split: tensor parallelism as transformers has it under torchrun.

The worker is rank 0; it forks the others, before anything is on a device. All run the same phases, and so the same
calls of the model in the same order, whose layers then meet in collectives. What hangs on the clock is decided by rank
0, and rank 0 alone reports. A rank that dies ends the worker, and the worker that dies takes all ranks with it.
"""

import datetime
import json
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig, PreTrainedModel

from hfbench.core.record import CRASHED, FAILED
from hfbench.measure.device import Device
from hfbench.measure.process import USER_ERROR, Reporter
from hfbench.workers.forked import die_with_parent

# What torchrun says to the processes that it starts, which transformers reads.
_RANK, _LOCAL_RANK, _WORLD_SIZE = "RANK", "LOCAL_RANK", "WORLD_SIZE"
_THREADS = "OMP_NUM_THREADS"
_INTERFACE = "GLOO_SOCKET_IFNAME"  # else gloo looks for this machine by its name, which not every network has
_BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
_TIMEOUT = datetime.timedelta(hours=2)  # the point's own limit ends it before
_GRACE_SECONDS = 2.0  # in which it is found out that another rank died, of which this one's error is the echo
_HEADS = ("num_attention_heads", "num_key_value_heads")


class Ranks:
    """The ranks of a point, of which this process is number `rank` of `size`; a point that is not split has one."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.rank = 0
        self._others: dict[int, int] = {}  # process by rank

    def fork(self, reporter: Reporter, folder: Path) -> None:
        """Start the other ranks, each of which returns from here too, as one that reports nothing.

        `folder` is for what they leave of themselves. From now on the worker ends where one of them dies.
        """
        # A warm start has the same folder, and what its first process left there knows ranks that are gone.
        self._folder, self._worker = folder, os.getpid()
        for rank in range(1, self.size):
            process = os.fork()
            if not process:
                die_with_parent(self._worker)
                reporter.silence()
                self.rank, self._others = rank, {}
                break
            self._others[rank] = process
        threads = max(1, torch.get_num_threads() // self.size)  # together as many as one process has
        torch.set_num_threads(threads)
        told = {_THREADS: threads, _RANK: self.rank, _LOCAL_RANK: self.rank, _WORLD_SIZE: self.size}
        os.environ |= {name: str(value) for name, value in told.items()}
        if self._others:
            threading.Thread(target=self._watch, args=(reporter,), daemon=True).start()

    def join(self, device: Device) -> Device:
        """Have the ranks know each other, and return the device as one on which waiting waits for all of them."""
        if self.size == 1:
            return device
        kind = device.torch_device.type
        if kind == "cpu":
            os.environ.setdefault(_INTERFACE, "lo")
        dist.init_process_group(
            _BACKENDS[kind],
            init_method=f"file://{self._folder / f'ranks-{self._worker}'}",
            rank=self.rank,
            world_size=self.size,
            timeout=_TIMEOUT,
            device_id=device.torch_device if kind == "cuda" else None,
        )
        return cast("Device", _Together(device))

    def device_of(self, name: str) -> str:
        """Return this rank's device: each has the accelerator of its number."""
        kind = name.partition(":")[0]
        if self.size == 1 or kind == "cpu":
            return name
        if kind == "auto":
            present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            kind = "cpu" if present is None else present.type
        return kind if kind == "cpu" else f"{kind}:{self.rank}"

    def agreed(self, seconds: float) -> float:
        """Return what rank 0 says, so that all decide alike by it."""
        values = [seconds]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return the value of each rank, in their order."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def leave(self, status: str, reason: str | None) -> None:
        """End this process, if it is not rank 0, and have rank 0 say why: a status of a record, or `USER_ERROR`."""
        if self.rank:
            with suppress(OSError):  # of a full disk
                _left_by(self._folder, self.rank).write_text(json.dumps({"status": status, "reason": reason}))
            _end_now(1)

    def finish(self) -> None:
        """End this process in order, if it is not rank 0."""
        if self.rank:
            _end_now(0)

    def wait_for_cause(self) -> None:
        """Give it time to be found out that another rank died: an error of this one is then the echo of that."""
        if self._others:
            time.sleep(_GRACE_SECONDS)

    def _watch(self, reporter: Reporter) -> None:
        """Wait, asleep in the kernel, until a rank ends otherwise than in order; then say so, and end."""
        waiting = {os.pidfd_open(process): rank for rank, process in self._others.items()}
        while waiting:
            for descriptor in select.select(list(waiting), (), ())[0]:
                rank = waiting.pop(descriptor)
                _, status = os.waitpid(self._others[rank], 0)
                if code := os.waitstatus_to_exitcode(status):
                    word, reason = self._told(rank, code)
                    if word == USER_ERROR:
                        reporter.user_error(reason)
                    else:
                        reporter.end(word, reason)
                    _end_now(0)

    def _told(self, rank: int, code: int) -> tuple[str, str]:
        with suppress(OSError, ValueError):
            told = json.loads(_left_by(self._folder, rank).read_text())
            return told["status"], f"rank {rank}: {told['reason']}"
        if code < 0:
            return CRASHED, f"rank {rank} of {self.size} was killed by {signal.Signals(-code).name}"
        return FAILED, f"rank {rank} of {self.size} exited with status {code}"


def _left_by(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def _end_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Together:
    """A device on which waiting waits for every rank."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done, and until the other ranks are here as well."""
        self._device.synchronize()
        dist.barrier()


def require_splittable(config: PretrainedConfig, size: int) -> None:
    """Raise `NotImplementedError` where transformers cannot split the model, or its heads not evenly, over ranks."""
    text = config.get_text_config(decoder=True)
    if size > 1 and not getattr(text, "base_model_tp_plan", None):
        raise NotImplementedError(f"tp_size is {size}, and transformers has no plan of how to split {text.model_type}")
    heads = {name: getattr(text, name, None) for name in _HEADS}
    uneven = {name: count for name, count in heads.items() if isinstance(count, int) and count % size}
    if size > 1 and uneven:
        listed = " and ".join(f"{name} {count}" for name, count in uneven.items())
        raise NotImplementedError(f"tp_size is {size}, which does not divide the model's {listed}")


def describe_shares(model: PreTrainedModel) -> dict[str, Any]:
    """Return what this rank holds of the model: bytes, how many weights are split and how, and which are whole."""
    weights = list(model.parameters())
    dealt = [weight for weight in weights if isinstance(weight, DTensor)]
    split = sum(any(not each.is_replicate() for each in weight.placements) for weight in dealt)
    local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    return {
        "placements": dict(Counter(", ".join(map(str, weight.placements)) for weight in dealt)),
        "split_weights": split,
        "whole_weights": len(weights) - split,
        "weight_bytes": sum(weight.nbytes for weight in local),
    }


def rank_differences(size: int, shares: list[Mapping[str, Any]]) -> list[str]:
    """Return, in words, where the weights are not split over the ranks; `shares` has what each rank holds."""
    if size == 1:
        return []
    found = []
    for rank, share in enumerate(shares):
        if not share["split_weights"]:
            found.append(f"rank {rank} of {size} has no split weights: each is whole there")
    if len(shares) != size:
        found.append(f"{len(shares)} ranks took part, not {size}")
    return found
