"""What only an accelerator can run, run once on one: does each row of docs/axes.md prove itself there?

`make test-device`, or `python -m benchmarks.device [--device cuda] [--minutes 10] [--write docs/devices.md]`, measures
a small model of random weights with each value of the axes that a CPU does not have, by the stage's own command,
without any network; then as many architectures as there is time for, by each path that compiles nothing. It ends with
1 where a row is not what its proof asks for. `--device cpu` tries the rows that a CPU has.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.paths import PATHS, Cell, cells, markdown
from hfbench.core.files import write_json
from hfbench.core.point import Configuration
from hfbench.core.record import OK, UNSUPPORTED, Record, Sampling
from hfbench.environment.describe import describe
from hfbench.environment.settings import settings_of
from hfbench.measure.task import Task
from hfbench.params.schema import checked_params, read_yaml
from hfbench.profile.outcome import Profile
from hfbench.tables.facts import machine_facts
from tests.conftest import ROOT, TINY, save_tokenizer
from tests.families import FAMILIES
from tests.measure.conftest import save_batch, save_manifest
from tests.measure.stage_process import AXES, SAMPLING, Bench

_BATCHED: dict[str, Any] = {"continuous_batching": True}
_LONG = {"batch_size": 4, "sequence_length": 1024}
# Enough for a device to be busy in, and to be watched: the tiny model of the tests takes no time.
_MODEL = {
    **TINY,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "max_position_embeddings": 2048,
}
_WATCHED = {"stopping_rule": "precision", "min_watched_seconds": 2, "max_seconds": 8, "max_iterations": 100_000}


@dataclass(frozen=True)
class Row:
    """One measurement: `params` are sections of params.yaml, and `proof` finds what it is not, in words.

    `kinds` are those of the devices that have it.
    """

    name: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    proof: Callable[[Record], str | None] = lambda _: None
    params: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("cpu", "cuda", "xpu", "mps")


def _entry(path: str, is_met: Callable[[Any], bool]) -> Callable[[Record], str | None]:
    """Return the proof that an entry of `effective`, such as `compilation.graphs`, is as it must be."""

    def proof(record: Record) -> str | None:
        value: Any = record.effective
        for name in path.split("."):
            value = (value or {}).get(name)
        return None if is_met(value) else f"effective.{path} is {value}"

    return proof


def _energy(record: Record) -> str | None:
    energy = machine_facts(json.loads(json.dumps(record.to_json())))["energy_joules_per_token"]
    return None if energy else f"no energy is known: {record.monitoring['devices'] or record.monitoring['unavailable']}"


def _replaced(record: Record) -> str | None:
    layers = record.effective["kernelized_layers"]
    return None if any("path" in each and each["replaced"] for each in layers) else f"kernels replaced {layers}"


def _rows(kernel: Path) -> list[Row]:
    cuda, devices = ("cuda",), ("cuda", "xpu", "mps")
    uncompiled = _entry("compilation.graphs", lambda graphs: not graphs)
    compiled = _entry("compilation.graphs", bool)
    graphs = _entry("continuous_batching_config.use_cuda_graph", any)
    local = {"layer": "RMSNorm", "path": str(kernel), "layer_name": "RMSNorm"}
    flex = {"attn_implementation": "flex_attention"}
    fused = {f"sdpa:{name}": cuda for name in ("efficient_attention", "cudnn_attention")}
    return [
        *(Row(f"dtype {dtype}", {"dtype": dtype}) for dtype in ("bfloat16", "float16", "float32")),
        Row("attention eager", {"attn_implementation": "eager"}),
        *(Row(f"attention {name}", {"attn_implementation": name}) for name in ("sdpa:math", "sdpa:flash_attention")),
        *(Row(f"attention {name}", {"attn_implementation": name}, kinds=kinds) for name, kinds in fused.items()),
        Row("flex attention", flex, kinds=cuda),
        Row(
            "flex attention, static cache", {"attn_implementation": "flex_attention", "cache_implementation": "static"}
        ),
        Row("static cache, uncompiled", {"cache_implementation": "static"}, uncompiled),
        Row("compile mode default", {"compile_mode": "default"}, compiled),
        Row("compile mode reduce-overhead", {"compile_mode": "reduce-overhead"}, compiled, kinds=cuda),
        Row("continuous batching", _BATCHED),
        Row("continuous batching, CUDA graphs", _BATCHED, graphs, _batching(use_cuda_graph=True), kinds=cuda),
        Row("continuous batching, offloading", _BATCHED, params=_batching(cpu_offload_space=0.25), kinds=cuda),
        Row("kernel of a local folder", {"use_kernels": True}, _replaced, {"kernels": [local]}, kinds=("cpu", *cuda)),
        Row("energy", _LONG, _energy, sampling=_WATCHED, kinds=devices),
    ]


def _batching(**values: Any) -> dict[str, Any]:
    return {"continuous_batching": values}


class Machine:
    """A folder with a model, its inputs and the description of this machine, in which rows are measured on a device."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        model = folder / "model"
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(**_MODEL)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(model)
        save_tokenizer(model)
        save_manifest(folder, model, "LlamaForCausalLM", "llama")
        for rows, length in ((2, 16), (_LONG["batch_size"], _LONG["sequence_length"])):
            ids = torch.randint(1, 600, (rows, length), generator=torch.Generator().manual_seed(1))
            save_batch(folder / f"b{rows}-s{length}.safetensors", ids)
        write_json(folder / "environment.json", describe(device))
        self._bench = Bench(folder, folder / "environment.json")
        self.kernel = folder / "kernel"
        shutil.copytree(ROOT / "examples" / "kernels" / "rmsnorm-cpu", self.kernel)
        (metadata,) = self.kernel.glob("build/*/metadata.json")
        content = json.loads(metadata.read_text())
        write_json(metadata, {**content, "backend": {"type": device.partition(":")[0]}})

    def _bench_of(self, row: Row) -> Bench:
        content = read_yaml(ROOT / "params.yaml")
        for section, change in row.params.items():
            if section == "kernels":
                content[section] = [{**each, "device": self.device.partition(":")[0]} for each in change]
            else:
                content[section].update(change)
        params = checked_params(ROOT / "params.yaml", content)
        settings = settings_of(_point(row), params, on_cpu=self.device == "cpu")
        return dataclasses.replace(self._bench, settings=settings)

    def measure(self, row: Row) -> Record:
        """Measure a row by the stage's command."""
        flags = [f"--{name}" for name, value in row.axes.items() if value is True]
        values = {name: value for name, value in row.axes.items() if value is not True}
        return self._bench_of(row).measure(*flags, **{**values, **row.sampling, "device": self.device})

    def profile(self) -> Profile:
        """Profile the plain point, as `hfbench profile` does in a process of its own."""
        row, folder = Row("profile"), self._bench.folder
        bench = self._bench_of(row)
        bench.command()  # which puts what the point needs where it is looked for
        paths = (bench.environment, bench.output, bench.log)
        task = Task(_point(row), Sampling(**SAMPLING), bench.settings, self.device, *paths)
        found = folder / "profile.json"
        command = [sys.executable, "-m", "hfbench.profile.session", str(folder / "trace.json.gz"), str(found)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        content = json.dumps(task.to_json())
        subprocess.run(command, input=content, text=True, cwd=folder, env=variables, check=True)
        return Profile.load(found)


def _point(row: Row) -> Configuration:
    return Configuration(**{**AXES, **row.axes})


@dataclass(frozen=True)
class Outcome:
    """How a row ended: `ok`, `unsupported` with the reason, or `wrong` with what is not as it must be."""

    name: str
    word: str
    told: str = ""


def outcomes(machine: Machine, deadline: float) -> Iterator[Outcome]:
    """Measure the rows that the device has, while there is time."""
    kind = machine.device.partition(":")[0]
    for row in (row for row in _rows(machine.kernel) if kind in row.kinds):
        if time.monotonic() > deadline:
            yield Outcome(row.name, "left out", "there was no time left")
            continue
        record = machine.measure(row)
        wrong = row.proof(record) if record.status == OK else record.reason
        word = OK if wrong is None else UNSUPPORTED if record.status == UNSUPPORTED else "wrong"
        yield Outcome(row.name, word, wrong or _what(record))
    yield _memory(machine)
    if kind != "cpu":
        profile = machine.profile()
        has_times = profile.status == OK and profile.device and profile.device_seconds > 0
        yield Outcome("profile, device times", OK if has_times else "wrong", profile.reason)
    doctor = subprocess.run([sys.executable, "-m", "hfbench.cli", "doctor"], cwd=ROOT, capture_output=True, text=True)
    is_told = doctor.returncode == 0 and (kind == "cpu" or "can use" in doctor.stdout)
    yield Outcome("doctor", OK if is_told else "wrong", "" if is_told else doctor.stdout + doctor.stderr)


def _what(record: Record) -> str:
    path = record.output.get("path", {})
    agrees = {True: "logits agree", False: "logits differ", None: "output not compared"}[path.get("agrees")]
    return f"{record.effective.get('attn_implementation')}, {record.effective.get('cache')}, {agrees}"


def _memory(machine: Machine) -> Outcome:
    """Compare the peak of eager attention's prefill, which holds a matrix of all pairs of tokens, with SDPA's."""
    peaks = {}
    for name in ("eager", "sdpa"):
        record = machine.measure(Row(name, {**_LONG, "attn_implementation": name}))
        peaks[name] = record.memory.get("prefill_peak_bytes", 0)
    told = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in peaks.items())
    is_known = peaks["eager"] > peaks["sdpa"] > 0
    return Outcome("prefill memory differs by attention", OK if is_known else "wrong", told)


def architectures(device: str, deadline: float) -> dict[str, dict[str, Cell]]:
    """Return how each path that compiles nothing ends for as many families as there is time for."""
    found: dict[str, dict[str, Cell]] = {}
    paths = [path for path in PATHS if path != "compiled"]
    for family, row in cells(list(FAMILIES), paths, device):
        found[family] = row
        if time.monotonic() > deadline:
            break
    return found


def page(device: str, rows: list[Outcome], table: dict[str, dict[str, Cell]]) -> str:
    """Return the page that docs/ has of a device."""
    name = torch.get_device_module(device).get_device_name() if device.startswith(("cuda", "xpu")) else device
    lines = [
        f"# {name}",
        "",
        f"Measured on {date.today().isoformat()} with torch {torch.__version__} and transformers",
        f"{transformers.__version__}, by `make test-device`: a llama of random weights, in bfloat16 unless named.",
        "",
        "| row | outcome | what ran, or why not |",
        "|---|---|---|",
        *(f"| {row.name} | {row.word} | {' '.join(row.told.split()).replace('|', '/')} |" for row in rows),
        "",
    ]
    return "\n".join(lines) + (f"\n{markdown(table, name)}" if table else "")


def main() -> int:
    """Measure and print; return 1 where anything is not as its proof asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="as torch calls it (the accelerator that torch finds)")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which no family is begun (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="for the tables as a page")
    arguments = parser.parse_args()
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = arguments.device or (present.type if present else None)
    if device is None:
        print("torch finds no accelerator here; `hfbench doctor` says why. --device cpu tries what a CPU has.")
        return 2
    # Ending takes a family, or one row.
    deadline = time.monotonic() + 60 * arguments.minutes - 45
    console, rows = Console(), list[Outcome]()
    with tempfile.TemporaryDirectory(prefix="hfbench-device-") as folder:
        for row in outcomes(Machine(Path(folder), device), deadline):
            rows.append(row)
            console.print(f"{row.word:<12} {row.name}: {row.told}", soft_wrap=True)
    table = architectures(device, deadline)
    if arguments.write:
        arguments.write.write_text(page(device, rows, table))
    bad = [row for row in rows if row.word in ("wrong", "left out")]
    bad += [
        Outcome(f"{family}, {path}", cell.status, cell.reason or "other tokens than eager")
        for family, row in table.items()
        for path, cell in row.items()
        if not cell.is_good(row["eager"])
    ]
    shown = Table("row", "outcome", "why")
    for each in bad:
        shown.add_row(each.name, each.word, each.told)
    console.print(
        shown if bad else f"✓ {len(rows)} rows and {len(table)} architectures are as they must be on {device}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
