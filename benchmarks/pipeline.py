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
from rich.console import Console
from rich.table import Table

from hfbench.core.results import PARAMS
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
    """The sweep that params.yaml ships with, everything but the model's preparation included."""
    _prepare_models(checkout)
    return Figure("default sweep, 12 points", _seconds(checkout.repro), 300.0)


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
    """The four points that take transformers' own benchmark 33 s in one process, a fresh process each."""

    def four(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa:math"], batch_size=[1])
        content["sweep"].update(sequence_length=[64, 128])
        content["sampling"].update(QUICK_SAMPLING, min_iterations=3)

    checkout.change_params(four)
    _prepare_models(checkout)
    checkout.run("dvc", "repro", "ceilings")
    seconds = _seconds(checkout.repro)
    # The limit is from a machine whose iterations took 0.78 s: the share in generate tells how this one compares.
    generating = sum(item["call_seconds"] for record in _records(checkout) for item in record["iterations"])
    return Figure(f"four points, eager and sdpa:math ({generating:.1f} s of it in generate)", seconds, 30.0)


def start_to_generate(checkout: Checkout) -> Figure:
    """From the start of a measure stage to its worker's first call of `generate`."""

    def rounds(content: Any) -> None:
        content["sweep"].update(round=[1, 2, 3], attn_implementation=["sdpa"], batch_size=[1])
        content["sampling"].update(QUICK_SAMPLING, min_iterations=1)

    checkout.change_params(rounds)
    checkout.repro()
    starts = [record["timeline"]["first call"] for record in _records(checkout)]
    return Figure("stage start to first generate", statistics.median(starts), 4.0)


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
        start_to_generate,
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
    counts = {"environment": 1, "model": models, "inputs": models, "measure": points}
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
