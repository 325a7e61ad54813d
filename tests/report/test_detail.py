"""`hfbench show --point`: all that is known of one point, at several widths, and the pictures in its lines."""

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from hfbench.core.errors import UserError
from hfbench.report.detail import slowest_of_each, span_bar, sparkline
from hfbench.report.point_facts import asked_and_ran, differing_rounds, evidence
from tests.report.report_records import LONG, full_record, run_show, save_mixed_results, save_results
from tests.tables.hand_records import ok_record, point

WARM = {"first_call_seconds": 3.25, "compile_seconds": 2.5, "cache_hits": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    save_mixed_results(folder)
    return folder


def _point(results: Path, key: str, width: int, monkeypatch: pytest.MonkeyPatch, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, force_terminal=color or None)
    monkeypatch.setattr("hfbench.report.show.standard_output", lambda: console)
    run_show(results, "--point", key)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_point_at_several_widths(results: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = _point(results, "tiny sdpa b1 s10 n8", width, monkeypatch)
    lines = text.splitlines()
    assert lines[:2] == ["tiny sdpa b1 s10 n8", "Fast CPU · 3 of 3 rounds ok"]
    assert max(map(cell_len, lines)) <= width
    rounds = [line for line in lines if re.match(r"[123] +[▁-█]{8} ", line)]
    assert len(rounds) == 3
    assert all(line.rstrip().endswith("target_precision reached") for line in rounds)
    assert "".join(rounds).count("█") >= 1  # one scale over all rounds: its highest is in one of them
    phases = next(line for line in lines if re.match(r"load +\d", line))
    assert phases.split()[:4] == ["load", "0.500", "0.500", "0.500"]
    asked = next(line for line in lines if line.startswith("SDPA backend"))
    assert asked.split() == ["SDPA", "backend", "any", "math", "(60", "calls)"]
    assert "“and the river ran on”" in text
    assert "300, 300, 300 MiB (resident set of the worker process)" in text
    cpu = next(line for line in lines if line.startswith("cpu "))
    assert cpu.split()[:5] == ["cpu", "%", "10.0", "90.0", "100"]
    throttled = next(line for line in lines if line.startswith("quota throttled"))
    assert throttled.split()[2:6] == ["s", "1.00", "1.00", "1.00"]
    assert "Warnings" in lines
    assert "→ " in text


def test_iterations_that_are_not_counted_are_dim_and_not_in_the_numbers(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _point(results, "tiny sdpa b1 s10 n8", 120, monkeypatch, color=True)
    assert len(re.findall(r"\x1b\[2m[▁-█]\x1b\[0m", text)) == 6  # each fourth of eight, in three rounds
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    row = next(line for line in plain.splitlines() if re.match(r"1 +[▁-█]", line))
    assert row.split()[2] == "6"


def test_a_point_of_which_a_round_failed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _point(results, "sdpa b2", 100, monkeypatch)
    assert "2 of 3 rounds ok" in text
    assert "Round 3: failed\n  RuntimeError: no kernel (phase: sample)" in text
    assert "    Traceback (most recent call last):" in text
    assert "\x1b" not in text
    assert re.search(r"^3 +0 +– +– +– +failed", text, re.MULTILINE)


def test_a_point_that_never_ran(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _point(results, "tiny a-b b16 s10 n8", 80, monkeypatch)
    assert "Rounds 1, 2, 3: unsupported\n  ImportError: <a|b> is *not* there (phase: load)" in text
    assert "Metrics" not in text


def test_a_difference_between_asked_and_ran_stands_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"status": "rejected", "reason": "not what was asked", "differences": ["it ran on mps"]}
    first = full_record(point(round=2, **LONG))
    other = {**first.effective, "sdpa_backends": {"flash_attention": 60}}
    third = full_record(point(round=3, **LONG), effective=other)
    save_results(tmp_path, full_record(point(**LONG), **asked), first, third)
    text = _point(tmp_path, "tiny", 80, monkeypatch)
    assert "≠ it ran on mps" in text
    assert "≠ something else ran in round 3" in text


def test_a_record_a_stage_or_words_name_a_point(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = point(round=2, attn_implementation="eager", batch_size=16, **LONG).file_name
    stage = f"measure@{name.replace('-false', '-False')}"  # as DVC spells booleans in names
    for key in (name, stage, f"results/measurements/{name}.json"):
        text = _point(results, key, 80, monkeypatch)
        assert text.startswith("tiny eager b16 s10 n8\nFast CPU · 1 of 1 round ok\n")
    assert _point(results, "b16 eager", 80, monkeypatch).startswith("tiny eager b16 s10 n8\n")
    for key in ("b16", ""):
        with pytest.raises(UserError, match=f"(?s)--point '{key}' fits .*\n  tiny eager b16 s10 n8"):
            run_show(results, "--point", key)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("--measurements", "nowhere"), "`dvc checkout` or `dvc pull`"), (("--sort", "decode"), "goes with none of")],
)
def test_a_point_without_its_record_or_with_a_choice_of_results(
    results: Path, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_show(results, "--point", "eager b1", *words)


def test_a_terminal_without_unicode_gets_other_marks(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    console = Console(file=stream, width=80, highlight=False)
    monkeypatch.setattr("hfbench.report.show.standard_output", lambda: console)
    run_show(results, "--point", "sdpa b1")
    stream.flush()
    text = stream.buffer.getvalue().decode()
    assert re.search(r"^1 +\|?[_.:=+*#-]{8} ", text, re.MULTILINE), text


def test_rounds_that_took_different_times_to_compile_ran_the_same() -> None:
    records = []
    for number, calls in ((1, 3), (2, 3), (3, 2)):
        compilation = {"graphs": 1, "seconds": 10.0 + number, "compiled_calls": calls}
        axes = point(round=number, compile_mode="default")
        records.append(ok_record(axes, effective={"compilation": compilation}))
    assert differing_rounds(records) == [3]
    assert "compiled in 11.0 s" in dict(evidence(records[0]))["compilation"]


def test_a_point_tells_what_was_asked_beside_the_mode_and_how_it_started_again() -> None:
    config = {"fullgraph": True, "dynamic": None, "backend": "inductor", "mode": None, "options": {"dce": True}}
    record = ok_record(point(compile_mode="default"), requested={"compile_config": config}, warm_start=WARM)
    asked = next(asked for setting, asked, _ in asked_and_ran(record) if setting == "compile")
    assert asked == "default, fullgraph True, options {'dce': True}"
    assert dict(evidence(record))["warm start"] == "first call in 3.25 s, 2.50 s of it compiling, 1 cache hit"
    record.warm_start = {"reason": "timed_out: exceeded"}
    assert dict(evidence(record))["warm start"] == "not measured: timed_out: exceeded"


def test_an_axis_that_the_record_names_among_what_ran_has_a_row_by_itself() -> None:
    settings = {"prefill_chunk_size": 8, "use_kernels": True}
    rows = asked_and_ran(ok_record(point(), requested=settings, effective=settings))
    assert ("prefill chunk", "8", "8") in rows
    assert ("kernels", "yes", "–") in rows  # of these, what was replaced tells
    assert not any(setting == "prefill chunk" for setting, _, _ in asked_and_ran(ok_record(point())))


def test_quantised_weights_drafts_and_ranks_are_told_in_words() -> None:
    effective = {
        "quantization": {"modules": {"Linear of Int8Tensor int8": 14}},
        "ranks": [{"weight_bytes": 2**20}, {"weight_bytes": 3 * 2**19}],
    }
    counts = {"generator": "PromptLookupCandidateGenerator", "steps": 3, "proposed_tokens": 9, "accepted_tokens": 5}
    asked = point(quantization="int8", assistant="prompt_lookup", tp_size=2)
    rows = asked_and_ran(ok_record(asked, effective=effective, output={"drafting": counts}))
    assert ("quantization", "int8", "Linear of Int8Tensor int8 (14 modules)") in rows
    told = "PromptLookupCandidateGenerator: 5 of 9 tokens accepted in 3 steps"
    assert ("assistant", "prompt_lookup", told) in rows
    assert ("tensor parallel", "2", "2 ranks with 1.00, 1.50 MiB of weights") in rows
    usual = {setting for setting, *_ in asked_and_ran(ok_record(point(), effective={"quantization": {"modules": {}}}))}
    assert not usual & {"quantization", "assistant", "tensor parallel"}


def test_each_value_has_a_mark_of_its_height_on_a_scale_that_is_not_left() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 0, 8) == "▁▂▃▄▅▆▇██"
    assert sparkline([2, None, 4], 2, 4, marks="_#") == "_ #"
    assert sparkline([5, 5], 0, 10, marks="_-#") == "--"
    assert sparkline([-9, 99], 0, 10, marks="_-#") == "_#"
    assert sparkline([3, 3], 3, 3) == "▁▁"


def test_many_values_keep_their_slowest() -> None:
    assert slowest_of_each([1, 9, 2, 3, 4], 3) == ([9, 3, 4], 2)
    assert slowest_of_each([1, 2], 3) == ([1, 2], 1)
    assert slowest_of_each([], 3) == ([], 1)


@pytest.mark.parametrize(
    ("span", "bar"),
    [
        ((0, 5, 10), "#####"),
        ((5, 10, 10), "     #####"),
        ((9.99, 10, 10), "         #"),
        ((2, 2.001, 10), "  #"),
        ((0, 1, 0), ""),
    ],
)
def test_a_bar_is_where_and_as_long_as_the_span(span: tuple[float, float, float], bar: str) -> None:
    assert span_bar(*span, 10, "#") == bar
