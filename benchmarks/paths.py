"""Many architectures by every path that `generate` and continuous batching have: does each cell end well?

`python -m benchmarks.paths [FAMILY …] [--skip PATH] [--jobs N] [--write docs/architectures.md]` measures each small
random model in float32 on the CPU, in a process forked for each cell, by the worker's own phases. A cell is well where
it is `ok` and gives the tokens of eager attention, or `unsupported` or `rejected` with a reason. Nothing is timed, so
that several families may run at a time. Compiling takes most of it: some twenty minutes on two cores, and five without.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from hfbench.core.point import USUAL, Configuration
from hfbench.core.record import OK, REJECTED, UNSUPPORTED, Sampling, Settings
from hfbench.core.results import inputs_path, manifest_path
from hfbench.measure.process import Reporter, worker_environment
from hfbench.measure.task import Task
from hfbench.measure.worker import run
from tests.conftest import save_tokenizer
from tests.families import FAMILIES, family_model
from tests.measure.conftest import save_manifest

PATHS: dict[str, dict[str, Any]] = {
    "eager": {},
    "sdpa": {"attn_implementation": "sdpa"},
    "static cache": {"cache_implementation": "static"},
    "compiled": {"compile_mode": "default"},
    "continuous batching": {"continuous_batching": True},
    "chunks": {"prefill_chunk_size": 16},
    "context": {"context_depth": 24, "sequence_length": 16},
    "padded": {"request_lengths": "mixed"},
}
_SAMPLING = Sampling("fixed", 0, 1, 1, 1, 0.05, 60.0, 0, 300.0, 0.5)
_ROWS, _LENGTH, _NEW_TOKENS = 2, 40, 12
_SHORT_ROW = 29  # tokens of the second row where lengths differ


@dataclass(frozen=True)
class Cell:
    """How one path of one family ended. `tokens` are those that were generated first."""

    status: str
    reason: str
    tokens: tuple[int, ...] = ()
    agrees: bool | None = None

    def is_good(self, reference: "Cell") -> bool:
        """Return whether it agrees with one plain forward pass and with eager attention, or says why not."""
        if self.status != OK:
            return self.status in (UNSUPPORTED, REJECTED) and bool(self.reason)
        same = reference.status != OK or self.tokens == reference.tokens
        return self.agrees is True and same


def prepare(family: str, folder: Path) -> None:
    """Write the family's model with its manifest to `folder`, and the inputs of both kinds."""
    model_folder = folder / "model"
    model = family_model(family)
    model.save_pretrained(model_folder)
    save_tokenizer(model_folder)
    save_manifest(folder, model_folder, type(model).__name__, family)
    (folder / manifest_path("tiny")).parent.mkdir(parents=True)
    (folder / "manifest.json").rename(folder / manifest_path("tiny"))
    rows = torch.randint(1, 600, (_ROWS, _LENGTH), generator=torch.Generator().manual_seed(1))
    for axes in PATHS.values():
        path, mask = folder / inputs_path(_point(axes)), torch.ones_like(rows)
        content = {"input_ids": rows, "attention_mask": mask}
        if "request_lengths" in axes:
            mask[1, : _LENGTH - _SHORT_ROW] = 0
            content["new_tokens"] = torch.tensor([_NEW_TOKENS, _NEW_TOKENS - 4])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, path, metadata={"pad_token_id": "0"})


def _point(axes: dict[str, Any]) -> Configuration:
    lengths = {"batch_size": _ROWS, "sequence_length": _LENGTH, "max_new_tokens": _NEW_TOKENS}
    values = {"round": 1, "model": "tiny", "attn_implementation": "eager", **USUAL, **lengths, "dtype": "float32"}
    return Configuration(**{**values, **axes})


def measure(family: str, path: str, folder: Path, device: str = "cpu") -> Cell:
    """Measure one cell in a process of its own, in `folder`, which `prepare` has filled."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.chdir(folder)
        log = folder / f"{path}.log"
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        environment, record = folder / "environment.json", folder / "record.json"
        task = Task(_point(PATHS[path]), _SAMPLING, Settings(), device, environment, record, log)
        os.environ |= worker_environment(task, folder)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        run(task, Reporter(write_end, time.perf_counter()))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        events = [json.loads(line) for line in pipe]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return _cell(events) if status == 0 else Cell("failed", f"{family}, {path}: the process ended with {status}")


def _cell(events: Sequence[dict[str, Any]]) -> Cell:
    output: dict[str, Any] = {}
    for event in events:
        output |= event.get("fields", {}).get("output", {})
    end = events[-1]
    if end["event"] != "end":
        return Cell("failed", str(end.get("message")))
    tokens = tuple(output.get("tokens", ()))[: _NEW_TOKENS - 4]
    return Cell(end["status"], end["reason"] or "", tokens, output.get("path", {}).get("agrees"))


def cells(families: Sequence[str], paths: Sequence[str], device: str = "cpu") -> Iterator[tuple[str, dict[str, Cell]]]:
    """Yield each family with the cell of each path."""
    for family in families:
        with tempfile.TemporaryDirectory(prefix="hfbench-paths-") as name:
            folder = Path(name)
            (folder / "environment.json").write_text(json.dumps({"cpu": {"brand": "any"}, "accelerators": []}))
            child = os.fork()  # the parent stays as it was when it had imported the libraries
            if child == 0:
                prepare(family, folder)
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                raise SystemExit(f"the model of {family} could not be made")
            yield family, {path: measure(family, path, folder, device) for path in paths}


def _save(table: dict[str, dict[str, Cell]], file: Path | None) -> None:
    if file is not None:
        rows = {family: {path: vars(cell) for path, cell in row.items()} for family, row in table.items()}
        file.write_text(json.dumps(rows))


def in_jobs(families: Sequence[str], skipped: Sequence[str], jobs: int) -> dict[str, dict[str, Cell]]:
    """Return the cells of the families, measured by so many processes at a time, in the order of the families."""
    with tempfile.TemporaryDirectory(prefix="hfbench-paths-") as name:
        files = [Path(name) / f"{job}.json" for job in range(jobs)]
        commands = [
            [
                *(sys.executable, "-m", "benchmarks.paths", *families[job::jobs], "--save", str(file)),
                *(word for path in skipped for word in ("--skip", path)),
            ]
            for job, file in enumerate(files)
        ]
        for process in [subprocess.Popen(command) for command in commands]:
            process.wait()
        found = {family: row for file in files for family, row in json.loads(file.read_text()).items()}
    return {family: {path: Cell(**cell) for path, cell in found[family].items()} for family in families}


def markdown(table: dict[str, dict[str, Cell]], where: str = "a CPU") -> str:
    """Return the page: the table, and each reason once below it."""
    reasons: dict[str, int] = {}
    paths = list(next(iter(table.values())))
    lines = [
        "# Architectures",
        "",
        f"Small models of random weights in float32, two rows of 40 tokens and 12 new ones, on {where}: how a point",
        "of each architecture ends by each path. `ok` says that the path gives the logits of one plain forward pass,",
        "as far as rounding allows, and the tokens of eager attention. A number leads to the reason below.",
        "",
        f"Measured on {date.today().isoformat()} with torch {torch.__version__} and transformers",
        f"{transformers.__version__}, by `python -m benchmarks.paths --write docs/architectures.md`.",
        *(f"The path {path} was left out (`--skip {path}`)." for path in PATHS if path not in paths),
        "",
        f"| model type | {' | '.join(paths)} |",
        f"|---|{'---|' * len(paths)}",
    ]
    for family, row in table.items():
        told = []
        for cell in row.values():
            number = reasons.setdefault(cell.reason, len(reasons) + 1) if cell.reason else 0
            told.append(f"{cell.status} {number}" if number else cell.status)
        lines.append(f"| `{family}` | {' | '.join(told)} |")
    lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items()), ""]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; return 1 where a cell ended otherwise than well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--skip", action="append", default=[], choices=list(PATHS)[1:], metavar="PATH")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="families that are measured at a time (1)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="for the table as a page")
    parser.add_argument("--save", type=Path, metavar="FILE", help="for the table as JSON")
    arguments = parser.parse_args()
    console = Console()
    families = arguments.families or list(FAMILIES)
    found = in_jobs(families, arguments.skip, min(arguments.jobs, len(families))) if arguments.jobs > 1 else {}
    paths = [path for path in PATHS if path not in arguments.skip]
    for family, row in () if found else cells(families, paths):
        found[family] = row
        _save(found, arguments.save)  # now, for a run that is interrupted
        console.print(f"{family}: " + ", ".join(f"{path} {cell.status}" for path, cell in row.items()), soft_wrap=True)
    bad = [
        (family, path, cell)
        for family, row in found.items()
        for path, cell in row.items()
        if not cell.is_good(row["eager"])
    ]
    _save(found, arguments.save)
    if arguments.write:
        arguments.write.write_text(markdown(found))
    table = Table("family", "path", "status", "reason")
    for family, path, cell in bad:
        table.add_row(family, path, cell.status, cell.reason or f"other tokens than eager: {cell.tokens}")
    console.print(table if bad else "✓ each cell is ok and agrees, or says why it does not run")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
