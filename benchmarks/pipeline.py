"""How long the pipeline itself takes, against the figures that it is meant to keep.

`python -m benchmarks.pipeline [NAME …]` runs each figure (or those named) in a clone of this working tree in a
temporary folder, and prints a table. Times of a shared machine are noisy: read them against each other, in one run.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from rich.console import Console
from rich.table import Table

from hfbench.core.point import CONFIGURATION_AXES, USUAL
from hfbench.core.record import OK, Manifest, Record
from hfbench.core.results import MEASUREMENTS, PARAMS, manifest_path
from hfbench.core.system import usable_cores
from hfbench.measure.progress import label
from hfbench.model.manifest import materialise
from hfbench.params.schema import load_params
from tests.pipeline.checkout import QUICK_SAMPLING, Checkout, clone, ran

_REPEATS = 5


class Figure(NamedTuple):
    """What was measured, its value, and the most that it should be, in the same unit."""

    label: str
    value: float
    limit: float
    unit: str = "s"


def default_sweep(checkout: Checkout) -> Figure:
    """The sweep that params.yaml ships with, from nothing to its table, as `make bench` after it was set up."""
    limit = 180.0 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 360.0
    return Figure("the shipped sweep, 12 points", _seconds(checkout.repro), limit)


def nothing_to_do(checkout: Checkout) -> Figure:
    """`dvc repro` after the default sweep, with points that take no time to measure, over as many empty commands."""
    checkout.change_params(_impossible)
    return _nothing_to_do(checkout)


def nothing_to_do_400(checkout: Checkout) -> Figure:
    """`dvc repro` with nothing to do in a sweep of 400 points, over as many empty commands."""

    def many(content: Any) -> None:
        _impossible(content)
        content["sweep"].update(round=list(range(1, 11)), batch_size=list(range(1, 21)))

    checkout.change_params(many)
    return _nothing_to_do(checkout)


def unsupported_point(checkout: Checkout) -> Figure:
    """What a point costs that this machine cannot run: DVC's work for it, and a stage process that starts no other."""
    rounds = range(1, 6)

    def many(content: Any) -> None:
        _impossible(content)
        content["sweep"].update(round=list(rounds))

    checkout.change_params(many)
    checkout.run("dvc", "repro", "inputs")
    points = len(load_params(checkout.folder / "params.yaml").points())
    first, again = (_seconds(lambda: checkout.run("dvc", "repro", "measure")) for _ in range(2))
    return Figure(f"a point that cannot run, of {points}", (first - again) / points, 1.5)


def four_points(checkout: Checkout) -> Figure:
    """Four points with all that the pipeline does for them, over what transformers' own benchmark does for the same."""

    def four(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa:math"], batch_size=[1])
        content["sweep"].update(sequence_length=[64, 128], max_new_tokens=[_NEW_TOKENS])
        content["sampling"].update(QUICK_SAMPLING, min_iterations=3, max_seconds=600)

    checkout.change_params(four)
    _prepare_models(checkout)
    folder = materialise(Manifest.load(checkout.folder / manifest_path(load_params(PARAMS).sweep.model[0])))
    as_theirs = ("env", f"OMP_NUM_THREADS={usable_cores()}", "python", "-c", _AS_BENCHMARK_V2, str(folder))
    theirs = _seconds(lambda: checkout.run(*as_theirs))
    ours = _seconds(checkout.repro)
    return Figure(f"four points ({ours:.0f} s) over benchmark_v2's way ({theirs:.0f} s)", ours / theirs, 0.95, "×")


def every_kind(checkout: Checkout) -> Figure:
    """A point of each kind that a CPU has beside attention and compiling, of the model with 15M parameters."""

    def one_each(content: Any) -> None:
        model, kinds = "stories-15m-random", list(_KINDS)
        content["quantization"] = _QUANTIZATION
        content["request_lengths"] = {"chat": {"requests": 12, "sigma": 0.0, "shared_prefix_tokens": 16}}
        content["continuous_batching"].update(allow_block_sharing=True, page_size=16)
        content["sweep"].update(round=[1], model=[model], attn_implementation=[], assistant=_ASSISTANTS)
        usual = {"model": model, "attn_implementation": "sdpa", **USUAL}
        lengths = {"batch_size": 1, "sequence_length": 64, "max_new_tokens": 32}
        listed = [{**usual, **lengths, **kind} for kind in kinds]
        content["configurations"] = [{axis: each[axis] for axis in CONFIGURATION_AXES} for each in listed]
        content["sampling"].update(max_seconds=3)

    checkout.change_params(one_each)
    _prepare_models(checkout)
    taken = _seconds(checkout.repro)
    records = [Record.load(path) for path in (checkout.folder / MEASUREMENTS).rglob("*.json")]
    others = "".join(f"; {label(each.configuration)}: {each.reason}" for each in records if each.status != OK)
    return Figure(f"one point of {len(records)} kinds{others or ', all ok'}", taken, 480.0)


_QUANTIZATION = {
    "int8": {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"},
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"},
}
_ASSISTANTS = ["none", "prompt_lookup", "stories-15m-random"]
_RATED: dict[str, Any] = {"continuous_batching": True, "request_lengths": "chat", "batch_size": 4}
_KINDS: tuple[dict[str, Any], ...] = (
    {"attn_implementation": "eager"},
    {"quantization": "int8"},
    {"quantization": "int8", "compile_mode": "default"},
    {"quantization": "nf4"},
    {"cache_implementation": "static"},
    {"cache_implementation": "quantized"},
    {"cache_implementation": "quantized", "context_depth": 64},
    {"assistant": "prompt_lookup"},
    {"assistant": "stories-15m-random"},
    {"tp_size": 2},
    {"tp_size": 3},
    {"request_rate": "4", **_RATED},
    {"request_rate": "16", **_RATED},
    _RATED,
)
_NEW_TOKENS = 32
# What `run_benchmarks.py --warmup 3 --iterations 3` of transformers/benchmark_v2 does for these points: all in one
# process, a trial call and the warm-up before the iterations, memory flushed after each call.
_AS_BENCHMARK_V2 = f"""
import gc, sys, time, torch, torch._dynamo
from contextlib import nullcontext
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.streamers import BaseStreamer

class Streamer(BaseStreamer):
    def __init__(self):
        self.timestamps = []
    def put(self, value):
        self.timestamps.append(time.perf_counter())
    def end(self):
        self.timestamps.append(time.perf_counter())

def flush():
    gc.collect()
    torch._dynamo.reset()
    gc.collect()

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
prompt = open("hfbench/inputs/standard_prompt.txt").read()
for length in (64, 128):
    for attention, context in (("eager", nullcontext()), ("sdpa", sdpa_kernel(SDPBackend.MATH))):
        inputs = tokenizer([prompt], return_tensors="pt", max_length=length, truncation=True)
        config = GenerationConfig(do_sample=False, max_new_tokens={_NEW_TOKENS}, eos_token_id=None, pad_token_id=0)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=attention)
        model.eval()
        with torch.no_grad(), context:
            flush()
            for _ in range(1 + 3 + 3):
                output = model.generate(**inputs, generation_config=config, streamer=Streamer())
                flush()
                assert output.shape[1] == length + {_NEW_TOKENS}
                tokenizer.decode(output[0])
        del model
        flush()
"""


def start_to_load(checkout: Checkout) -> Figure:
    """From the start of a measure stage to its worker's `from_pretrained`, of all points but the first."""

    def rounds(content: Any) -> None:
        content["sweep"].update(round=[1, 2, 3, 4, 5, 6], attn_implementation=["sdpa"], batch_size=[1])
        content["sampling"].update(QUICK_SAMPLING, min_iterations=1)

    checkout.change_params(rounds)
    checkout.repro()
    starts = sorted(record["timeline"]["load"] for record in _records(checkout))
    return Figure("stage start to from_pretrained, second point on", statistics.median(starts[:-1]), 0.5)


def verification(checkout: Checkout) -> Figure:
    """The time that checking a point takes, in iterations of it; the largest of several shapes and ways."""

    def shapes(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa"], batch_size=[1, 4])
        content["sweep"].update(sequence_length=[64, 256], max_new_tokens=[8, 32], model=["stories-15m-random"])
        content["sampling"].update(QUICK_SAMPLING, min_iterations=5, max_seconds=600)

    checkout.change_params(shapes)
    checkout.repro()
    shares = []
    for record in _records(checkout):
        samples = [item["end_to_end_seconds"] for item in record["iterations"] if item["phase"] == "sample"]
        took = record["timeline"]["warm-up"] - record["timeline"]["verify"]
        shares.append(took / statistics.median(samples))
    label = f"verification, in iterations (median {statistics.median(shares):.2f}), the most of {len(shares)} points"
    return Figure(label, max(shares), 2.0, "×")


def supervisor_memory(checkout: Checkout) -> Figure:
    """The peak resident memory of the process that watches a measurement, of the default model."""

    def one(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["sdpa"], batch_size=[1])

    checkout.change_params(one)
    checkout.run("dvc", "repro", "inputs")
    peaks: dict[int, float] = {}
    with subprocess.Popen(["dvc", "repro", "--quiet", "measure"], cwd=checkout.folder, env=checkout.variables()) as dvc:
        while dvc.poll() is None:
            for process in psutil.Process(dvc.pid).children(recursive=True):
                with suppress(psutil.Error, OSError):
                    if "stages.measure" in process.cmdline()[:3]:
                        status = Path(f"/proc/{process.pid}/status").read_text()
                        peaks[process.pid] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
            time.sleep(0.05)
    return Figure("supervisor's peak resident memory", max(peaks.values()), 80.0, "MiB")


FIGURES: dict[str, Callable[[Checkout], Figure]] = {
    function.__name__: function
    for function in (
        default_sweep,
        nothing_to_do,
        nothing_to_do_400,
        unsupported_point,
        four_points,
        every_kind,
        start_to_load,
        verification,
        supervisor_memory,
    )
}


def _impossible(content: Any) -> None:
    """Points that no CPU can run, which costs no time to find out: this is about DVC and the stages around."""
    content["device"] = "cpu"
    content["sweep"]["attn_implementation"] = ["flash_attention_2", "sdpa:cudnn_attention"]


def _prepare_models(checkout: Checkout) -> None:
    checkout.run("dvc", "repro", "model")


def _records(checkout: Checkout) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (checkout.folder / "results/measurements").rglob("*.json")]


def _nothing_to_do(checkout: Checkout) -> Figure:
    """Return how many times as long as that of a pipeline of as many empty commands a `dvc repro` takes, in turn."""
    checkout.repro()
    params = load_params(checkout.folder / PARAMS)
    points, models = len(params.points()), len(params.sweep.model)
    empty = _empty_pipeline(checkout.folder.parent / "empty", points, models)
    empty.repro()

    def repro(pipeline: Checkout) -> float:
        start = time.perf_counter()
        # With the byte code that a user has after the first run, and tests never keep.
        assert ran(pipeline.run("dvc", "repro", PYTHONDONTWRITEBYTECODE="").stdout) == []
        return time.perf_counter() - start

    pairs = [(repro(checkout), repro(empty)) for _ in range(_REPEATS)]
    ours, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    label = f"repro, nothing to do, {points} points ({ours:.1f} s), over empty commands ({theirs:.1f} s)"
    return Figure(label, ours / theirs, 1.8, "×")


def _empty_pipeline(folder: Path, points: int, models: int) -> Checkout:
    """Return a repository with the stages of this one, whose commands do nothing and depend on one small file."""
    folder.mkdir()
    (folder / "file").write_text("")
    counts = {"environment": 1, "model": models, "assistant": 1, "inputs": models, "measure": points}
    counts |= dict.fromkeys(("ceilings", "tables", "report"), 1)
    stages: dict[str, dict[str, Any]] = {
        name: {"cmd": "true", "deps": ["file"], "matrix": {"number": list(range(count))}}
        for name, count in counts.items()
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML
    pipeline = Checkout(folder)
    for words in (("git", "init", "--quiet"), ("dvc", "init", "--quiet")):
        pipeline.run(*words)
    return pipeline


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Run the figures named on the command line, or all, and print them."""
    table = Table("figure", "value", "at most", "")
    for name in sys.argv[1:] or FIGURES:
        with tempfile.TemporaryDirectory(prefix="hfbench-figures-") as folder:
            figure = FIGURES[name](clone(Path(folder) / "checkout"))
        cells = (f"{figure.value:.2f} {figure.unit}", f"{figure.limit:g} {figure.unit}")
        table.add_row(figure.label, *cells, "✓" if figure.value <= figure.limit else "✗")
    Console().print(table)


if __name__ == "__main__":
    main()
