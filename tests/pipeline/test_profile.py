"""`hfbench profile`, run as a person runs it on points that were and were not measured."""

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.pipeline.checkout import Checkout


def _profile(checkout: Checkout, *words: str, succeeds: bool = True) -> str:
    result = checkout.run("hfbench", "profile", *words, check=succeeds)
    assert (result.returncode == 0) is succeeds, result.stdout
    assert "Traceback" not in result.stderr
    return result.stdout if succeeds else result.stderr


def _events(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return events


def _line(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The spans of one of our lines, which are in order and apart."""
    (thread,) = {
        event["tid"] for event in events if event["ph"] == "M" and event["args"].get("name") == f"hfbench: {name}"
    }
    spans = [event for event in events if event["ph"] == "X" and event["tid"] == thread]
    assert all(one["ts"] + one["dur"] <= other["ts"] + 1 for one, other in pairwise(spans))  # a microsecond: rounding
    return spans


def _products(events: list[dict[str, Any]], within: dict[str, Any]) -> list[dict[str, Any]]:
    """The matrix products that lie in a span."""
    start, end = within["ts"], within["ts"] + within["dur"]
    return [each for each in events if each["name"] == "aten::mm" and start <= each["ts"] < end]


def test_profiles_of_generate_and_of_generate_batch(fresh: Checkout) -> None:
    def both(content: Any) -> None:
        content["sweep"].update(continuous_batching=[False, True], sequence_length=[16, 12])

    fresh.change_params(both)  # none of the points below is measured
    printed = _profile(fresh, "tiny sdpa b1 s12 n4")
    assert "times of the host only" in printed
    assert "aten::mm" in printed
    (trace,) = (fresh.folder / "results/profiles").rglob("*.json.gz")
    assert str(trace.relative_to(fresh.folder)) in printed
    assert "ui.perfetto.dev" in printed
    events = _events(trace)
    phases = _line(events, "phases")
    before = ["prepare", "load", "first call", "verify", "warm-up"]
    assert [span["name"] for span in phases] == [*before, "prefill", "decode"]
    by_name = {span["name"]: span for span in phases}
    # 2 layers of 7 matrices, and the head, in the prefill and in each of 3 decoding steps;
    assert len(_products(events, by_name["decode"])) == 3 * len(_products(events, by_name["prefill"])) > 0
    assert not _products(events, by_name["first call"])  # only one iteration is traced
    loading = by_name["load"]
    assert any(
        loading["ts"] <= each["ts"] <= loading["ts"] + loading["dur"] for each in events if each.get("cat") == "cpu_op"
    )

    printed = _profile(fresh, "sdpa continuous b1 s12", "--output", "batch.json.gz")
    assert "aten::mm" in printed
    events = _events(fresh.folder / "batch.json.gz")
    prefill, decode = _line(events, "phases")[-2:]
    assert (prefill["name"], decode["name"]) == ("prefill", "decode")
    in_prefill = _products(events, prefill)
    assert len(_products(events, decode)) == 3 * len(in_prefill) > 0
    (iteration,) = (event for event in events if event["name"] == "iteration" and event.get("cat") == "user_annotation")
    assert {event["tid"] for event in in_prefill} != {
        iteration["tid"]
    }  # generate_batch computes in a thread of its own


def test_what_cannot_be_profiled_is_said(fresh: Checkout) -> None:
    said = _profile(fresh, "nothing like it", succeeds=False)
    assert "POINT 'nothing like it' fits no point of params.yaml. There are:\n  tiny sdpa b1 s16 n4" in said
    said = _profile(fresh, "flash_attention_2", succeeds=False)
    assert "tiny flash_attention_2 b1 s16 n4 cannot run here, so there is nothing to profile" in said
    assert "does not run on the CPU" in said
    fresh.change_params(lambda content: content["sweep"].update(use_kernels=[True]))
    said = _profile(fresh, "sdpa", succeeds=False)
    assert "could not be profiled, rejected in the phase verify: use_kernels replaced no layer" in said
    assert not list((fresh.folder / "results/profiles").rglob("*.gz"))
