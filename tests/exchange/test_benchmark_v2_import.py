"""Files of transformers' benchmark_v2 as a side of a comparison: what they say, and what they only seem to say."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hfbench.compare.side import read_side
from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.exchange.import_results import Imported, import_benchmark_v2
from hfbench.tables.store import read_table
from tests.exchange.benchmark_v2_files import config, entry, measurements, metadata, write

# Four tokens: the first after 0.5 s, the others 0.1 s, 0.1 s and 0.4 s later; generate ends at 1.101 s.
STAMPS = [0.5, 0.6, 0.7, 1.1, 1.101]
GENERATE = [(1.25, [STAMPS]), (1.5, [[at + 0.01 for at in STAMPS]])]


def _import(tmp_path: Path, *entries: dict[str, Any], **options: Any) -> Imported:
    return import_benchmark_v2([write(tmp_path / "run.json", *entries)], tmp_path / "side", **options)


def _samples(imported: Imported) -> pl.DataFrame:
    return read_table(imported.folder / "tables", "samples")


def test_the_axes_are_those_of_the_config(tmp_path: Path) -> None:
    compiled = {"fullgraph": True, "dynamic": None, "backend": "inductor", "mode": "max-autotune", "options": None}
    changes = config(compile_kwargs=compiled, kernelize=True, attn_implementation="flex_attention", batch_size=2)
    imported = _import(tmp_path, entry(measurements(GENERATE, 4), config=changes))
    assert read_table(imported.folder / "tables", "points").row(0, named=True) | {
        "round": 1,
        "model": "smollm2-135m-instruct",
        "attn_implementation": "flex_attention",
        "compile_mode": "max-autotune",
        "use_kernels": True,
        "continuous_batching": False,
        "dtype": "bfloat16",
        "batch_size": 2,
        "sequence_length": 128,
        "max_new_tokens": 4,
        "status": "ok",
        "device_name": "NVIDIA A10G",
        "load_seconds": None,
        "peak_memory_bytes": None,
        "inputs_sha256": None,
    } == read_table(imported.folder / "tables", "points").row(0, named=True)
    assert any("labelled compiled and kernelized" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("changes", "attention", "compile_mode"),
    [
        ({"compile_kwargs": {}}, "sdpa", "reduce-overhead"),  # CompileConfig's own default
        ({"attn_implementation": "paged|sdpa"}, "sdpa", "off"),
        ({"sdpa_backend": "math", "compile_mode": "default"}, "sdpa:math", "default"),  # an earlier version
        ({"sdpa_backend": None, "compile_mode": None}, "sdpa", "off"),
    ],
)
def test_other_spellings(tmp_path: Path, changes: dict[str, Any], attention: str, compile_mode: str) -> None:
    imported = _import(tmp_path, entry(measurements(GENERATE, 4), config=config(**changes)))
    row = read_table(imported.folder / "tables", "points").row(0, named=True)
    assert (row["attn_implementation"], row["compile_mode"]) == (attention, compile_mode)


def test_the_end_of_generate_is_no_token(tmp_path: Path) -> None:
    samples = _samples(_import(tmp_path, entry(measurements(GENERATE, 4))))
    assert samples["end_to_end_seconds"].to_list() == [1.25, 1.5]
    assert samples["token_seconds"].to_list()[0] == [STAMPS[:4]]
    assert samples["time_to_first_token_seconds"].to_list() == pytest.approx([0.5, 0.51])
    assert samples["inter_token_seconds"].to_list() == pytest.approx([0.2, 0.2])  # (1.1 - 0.5) / 3
    assert samples["decode_tokens_per_second"][0] == pytest.approx(5)
    assert samples["prefill_tokens_per_second"][0] == pytest.approx(128 / 0.5)
    assert set(samples["phase"]) == {"sample"}
    assert samples["start_seconds"].null_count() == 2


def test_a_summarised_file_gets_its_inter_token_latency_corrected(tmp_path: Path) -> None:
    measured = measurements(GENERATE, 4, summarised=True)
    assert measured["inter_token_latency"][0] == pytest.approx(0.601 / 4)  # a quarter low
    imported = _import(tmp_path, entry(measured, config=config(batch_size=3)))
    samples = _samples(imported)
    assert samples["inter_token_seconds"].to_list() == pytest.approx([0.601 / 3] * 2)
    assert samples["time_to_first_token_seconds"].to_list() == pytest.approx([0.5, 0.51])
    assert samples["decode_tokens_per_second"][0] == pytest.approx(3 * 3 / 0.601)
    assert samples["prefill_tokens_per_second"][0] == pytest.approx(3 * 128 / 0.5)
    assert samples["token_seconds"].list.len().to_list() == [0, 0]
    assert any("multiplied by 1.333" in note for note in imported.notes)
    summary = read_table(imported.folder / "tables", "summary")
    assert "inter_token_gap_seconds" not in summary["metric"].to_list()  # nobody knows the single gaps


def test_earlier_versions_divided_by_one_more(tmp_path: Path) -> None:
    measured = measurements(GENERATE, 4)
    del measured["timestamps"]
    measured["inter_token_latency"] = [(stamps[-1] - stamps[0]) / len(stamps) for _, (stamps,) in GENERATE]
    measured["shape_and_decoded_outputs"] = ["(1, 132) | text"] * 2
    imported = _import(tmp_path, entry(measured))
    assert _samples(imported)["inter_token_seconds"].to_list() == pytest.approx([0.601 / 3] * 2)


def test_float32_readings_are_known_by_their_step(tmp_path: Path) -> None:
    exact = _import(tmp_path, entry(measurements(GENERATE, 4)))
    assert not any("float32" in note for note in exact.notes)
    imported = _import(tmp_path, entry(measurements(GENERATE, 4, float32=True)))
    # At 40,000 s of uptime, between 2^15 and 2^16, a float32 of 24 bits steps by 2^-8 s.
    points = read_table(imported.folder / "tables", "points")
    assert points["clock_resolution_seconds"].to_list() == [2**-8]
    assert any("known to 3.91 ms only" in note for note in imported.notes)
    assert _samples(imported)["end_to_end_seconds"].to_list() == [1.25, 1.5]
    warnings = read_json(imported.folder / "tables" / "warnings.json")["warnings"]
    assert "timer_resolution" in {warning["code"] for warning in warnings}


def test_requests_of_continuous_batching(tmp_path: Path) -> None:
    requests = [[0.5, 0.6, 0.7, 0.8], [0.9, 1.1, 1.3, 1.5]]
    cb = config(continuous_batching=True, batch_size=2)
    samples = _samples(_import(tmp_path, entry(measurements([(1.75, requests)], 4), config=cb)))
    assert samples["end_to_end_seconds"].to_list() == [1.5]  # the last token; the call also stops its thread
    assert samples["call_seconds"].to_list() == [1.75]
    assert samples["time_to_first_token_seconds"].to_list() == pytest.approx([0.7])  # the median, not the earliest
    assert samples["inter_token_seconds"].to_list() == pytest.approx([0.15])
    summarised = _import(tmp_path, entry(measurements([(1.75, requests)], 4, summarised=True), config=cb))
    row = _samples(summarised).row(0, named=True)
    assert row["call_seconds"] == 1.75
    assert [row[name] for name in ("end_to_end_seconds", "time_to_first_token_seconds", "inter_token_seconds")] == [
        None
    ] * 3
    assert any("only the length of the call is known" in note for note in summarised.notes)


def test_a_label_beyond_the_prompt_is_not_believed(tmp_path: Path) -> None:
    labels = [entry(measurements(GENERATE, 4), config=config(sequence_length=length)) for length in (128, 512, 2048)]
    imported = _import(tmp_path, *labels)
    assert _samples(imported)["sequence_length"].unique().to_list() == [128]
    assert any(note.startswith("2 entries left out, of sequence_length 512, 2048") for note in imported.notes)
    with pytest.raises(UserError, match="--prompt-tokens"):
        _import(tmp_path, *labels[1:])


def test_told_the_length_of_the_prompt_the_labels_are_mended(tmp_path: Path) -> None:
    labels = [entry(measurements(GENERATE, 4), config=config(sequence_length=length)) for length in (128, 512, 2048)]
    imported = _import(tmp_path, *labels, whole_prompt_tokens=462)
    samples = _samples(imported)
    # The two wrong labels were the same work in one process: one round.
    assert samples.group_by("sequence_length", "round").len().sort("sequence_length").rows() == [
        (128, 1, 2),
        (462, 1, 4),
    ]
    assert any("2 entries of sequence_length 512, 2048 had 462 prompt tokens" in note for note in imported.notes)


def test_earlier_versions_tell_the_length_by_the_shape(tmp_path: Path) -> None:
    measured = measurements(GENERATE, 4) | {"shape_and_decoded_outputs": ["(1, 466) | text"] * 2}
    imported = _import(tmp_path, entry(measured, config=config(sequence_length=512)))
    assert _samples(imported)["sequence_length"].unique().to_list() == [462]


def test_a_configuration_that_failed_is_one(tmp_path: Path) -> None:
    empty: dict[str, Any] = {name: [] for name in measurements(GENERATE, 4)}
    empty |= {"gpu_metrics": None, "timestamps": None}
    failed = entry(empty, metadata=metadata(success=False), config=config(attn_implementation="flash_attention_2"))
    imported = _import(tmp_path, entry(measurements(GENERATE, 4)), failed)
    points = read_table(imported.folder / "tables", "points")
    assert points.select("attn_implementation", "status").rows() == [("sdpa", "ok"), ("flash_attention_2", "failed")]
    assert "not why" in points["reason"][1]


def test_several_files_are_several_rounds_and_lines_are_read_too(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", entry(measurements(GENERATE, 4)))
    row = {"benchmark_config_hash": "0" * 64, **entry(measurements(GENERATE[:1], 4))}
    second = tmp_path / "b.jsonl"
    second.write_text(json.dumps(row))
    imported = import_benchmark_v2([first, second], tmp_path / "side")
    assert (imported.configurations, imported.rounds) == (1, 2)
    assert _samples(imported)["round"].to_list() == [1, 1, 2]


def test_entries_of_different_machines_do_not_mix(tmp_path: Path) -> None:
    other = metadata()["hardware_info"] | {"gpu_name": "NVIDIA H100"}
    first = write(tmp_path / "a.json", entry(measurements(GENERATE, 4)))
    second = write(tmp_path / "b.json", entry(measurements(GENERATE, 4), metadata=metadata(hardware_info=other)))
    with pytest.raises(UserError, match="different machines"):
        import_benchmark_v2([first, second], tmp_path / "side")


def test_it_is_a_side_that_says_where_it_is_from(tmp_path: Path) -> None:
    imported = _import(tmp_path, entry(measurements(GENERATE, 4)), model="mine")
    side = read_side(str(imported.folder), tmp_path)
    assert side.environment["accelerators"] == [{"name": "NVIDIA A10G", "memory_bytes": round(22.05 * 2**30)}]
    assert side.environment["packages"]["torch"] == {"version": "2.9.0+cu128"}
    assert side.environment["packages"]["transformers"]["commit"].startswith("03f79f6")
    assert side.params["sweep"]["batch_size"] == [1]
    assert side.params["imported"]["files"] == ["run.json"]
    assert side.params["imported"]["notes"] == list(imported.notes)
    assert side.points["model"].to_list() == ["mine"]


def test_keys_of_a_later_version_are_named(tmp_path: Path) -> None:
    measured = measurements(GENERATE, 4)
    unused = _import(tmp_path, entry(measured, config=config(parallel_plan=None, device="cuda")))
    assert not any("Not known here" in note for note in unused.notes)
    used = _import(tmp_path, entry(measured, config=config(parallel_plan="auto")))
    assert any(note.startswith("Not known here") and "parallel_plan" in note for note in used.notes)
