"""The HTML report: well-formed, whole in itself, and nothing in it acts as markup or code that was not meant to."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import altair
import pytest
import vl_convert

from hfbench.core import results
from hfbench.core.files import write_json
from hfbench.core.record import Manifest, ModelFile, Record
from hfbench.report.html import CHARTS, environment_groups
from hfbench.report.templates import VEGA_LITE, as_script
from hfbench.tables.build import Tables
from hfbench.tables.metrics import METRICS
from tests.conftest import run_stage
from tests.report.report_records import CEILINGS, measured, page_of, sweep_records
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of, unobserved

NASTY = "<script>alert(\"1\")</script> & </td></table> 'quoted' <img src=x onerror=alert(1)> \x1b[31m ]]>"
ENVIRONMENT = {
    "schema_version": 1,
    "system": {"name": "Linux", "kernel": "6.1"},
    "cpu": {"brand": "Fast <b>CPU</b>", "physical_cores": 2},
    "memory": {"total_gib": 24},
    "accelerators": [{"vendor": "nvidia", "name": "H200", "memory_bytes": None}],
    "python": "3.11.9",
    "compiler": None,
    "packages": {"torch": {"version": "2.13.0", "build": "cpu"}, "polars": {"version": "2.1.0"}},
    "variables": {},
}
MANIFEST = Manifest(
    schema_version=2,
    name="tiny",
    source={"source": "hub", "repository": "OWNER/TINY", "revision": "main"},
    provenance={"commit": "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"},
    architecture="LlamaForCausalLM",
    model_type="llama",
    vocab_size=100,
    max_position_embeddings=64,
    files=(ModelFile("model.safetensors", 1234567, "ab" * 32),),
)
PARAMS = {"sweep": {"round": [1], "batch_size": [2]}, "device": "auto"}
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and fails where an element is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)


def page_of_records(folder: Path, *records: Record, ceilings: dict[str, Any] | None = None) -> str:
    return page_of(tables_of(folder, *records, ceilings=ceilings), {}, ceilings)


def text_of(page: str, section: str = "") -> str:
    """The words of the page, or of one of its sections, with one blank between them."""
    part = page[page.index(f'<section id="{section}">') :].split("</section>")[0] + "</section>" if section else page
    return " ".join(" ".join(Reader(part).texts).split())


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Those of two attentions that were measured and of one whose reason is markup."""
    device: dict[str, Any] = {"effective": {"device_name": "Fast <b>CPU</b>"}}
    times = ("2025-03-01T10:00:00+00:00", "2025-03-01T10:05:00+00:00")
    records = [
        ok_record(point(), observed([0.5, 0.6, 0.8, 1.1]), started_at=times[0]),
        ok_record(point(attn_implementation="eager"), observed([0.5, 0.7, 0.9, 1.3]), started_at=times[1], **device),
        failed_record(point(attn_implementation="flex_attention"), NASTY),
    ]
    return tables_of(tmp_path_factory.mktemp("measurements"), *records)


@pytest.fixture(scope="module")
def page(tables: Tables) -> str:
    return page_of(tables, ENVIRONMENT, CEILINGS)


def test_the_page_says_what_was_measured_on_what(page: str) -> None:
    text = text_of(page)
    for wanted in (
        "tiny · Fast <b>CPU</b> · bfloat16",
        "3 configurations, 2 of 3 records ok.",
        "2025-03-01 10:00:00 UTC to 2025-03-01 10:05:00 UTC",
        "1.10*",
        "2.13.0",
        "vendor nvidia, H200",
        "21.3 GB/s",
        "1.10 TFLOP/s",
        "reading 64.0 MiB over and over",
        *(metric.name for metric in METRICS),
    ):
        assert wanted in text
    assert "matrix product, float16" not in text  # that could not be measured


def test_provenance_names_model_params_digests_and_the_way_to_the_commit(tmp_path: Path) -> None:
    digests = {"environment": "e" * 64, "manifest": "f" * 64, "input_tensors": "0" * 64}
    tables = tables_of(tmp_path, measured(point(), 0.6, provenance=digests))
    text = text_of(page_of(tables, manifests=[MANIFEST], params=PARAMS), "provenance")
    for wanted in (
        *digests.values(),
        "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d",
        "OWNER/TINY",
        "model.safetensors, 1,234,567 bytes, sha256 " + "ab" * 32,
        '{"round": [1], "batch_size": [2]}',
        'git log --oneline -S "$(md5sum < results/report.html | cut -c1-32)" -- dvc.lock',
    ):
        assert wanted in text


def test_the_sections_stand_in_the_order_of_the_questions(page: str) -> None:
    assert re.findall("<h2>(.*?)</h2>", page[: page.index("<script")]) == [
        "Which way is fastest",
        "Throughput against latency",
        "Decode and prefill beside the roofline",
        "Every sample, by round",
        "Between tokens, along the sequence",
        "Percentiles of single times",
        "From process start to first token",
        "Memory",
        "Results",
        "Warnings",
        "Not ok",
        "Environment and provenance",
        "How the numbers are defined",
    ]


@pytest.mark.parametrize("environment", [{}, {"packages": None, "accelerators": [], "cpu": {}}, {"packages": ["a", 1]}])
def test_the_environment_may_lack_anything(tables: Tables, environment: dict[str, Any]) -> None:
    reader = Reader(page_of(tables, environment, {}))
    assert "Results" in reader.texts
    assert "What the device can do" not in reader.texts


def test_the_environment_is_grouped() -> None:
    caches = [{"level": 1, "size": "48K"}, {"level": 2, "size": "2M"}]
    assert environment_groups({"schema_version": 1, "cpu": {"smt": False, "caches": caches}, "compiler": "g++"}) == [
        ("general", [("compiler", "g++")]),
        ("cpu", [("smt", "no"), ("caches", "level 1, size 48K; level 2, size 2M")]),
    ]


def test_the_cost_of_observing_is_that_of_all_records(tmp_path: Path) -> None:
    records = [
        ok_record(point(round=number), observed([0.1, 0.2], end_to_end=cost), unobserved(1.0))
        for number, cost in ((1, 0.5), (2, 1.0), (3, 4.0))
    ]
    text = text_of(page_of_records(tmp_path, *records), "definitions")
    assert "is 1.00 in the middle record, 0.500 in the lowest and 4.00 in the highest" in text


def test_nothing_measured(tmp_path: Path) -> None:
    page = page_of(tables_of(tmp_path, failed_record(point(), NASTY)), ENVIRONMENT, CEILINGS)
    reader = Reader(page)
    assert "data-chart" not in page
    assert len(page) < 100_000  # and nothing that draws
    assert "No point could be measured." in reader.texts
    assert NASTY.replace("\x1b", "") in reader.texts


def test_the_stage_writes_the_page_and_the_same_input_makes_the_same_bytes(tables: Tables, tmp_path: Path) -> None:
    write_json(tmp_path / results.ENVIRONMENT, ENVIRONMENT)
    MANIFEST.save(tmp_path / results.MODELS / "tiny.json")
    write_json(tmp_path / "params.yaml", {"models": {}, **PARAMS})
    tables.write(tmp_path / results.TABLES)
    result = run_stage("report", tmp_path, HFBENCH_TABLE="off")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / results.REPORT).read_text() == page_of(
        tables, ENVIRONMENT, {}, manifests=[MANIFEST], params=PARAMS
    )


def test_the_stage_without_tables_ends_with_a_sentence(tmp_path: Path) -> None:
    result = run_stage("report", tmp_path)
    assert result.returncode == 1
    assert ".parquet does not exist. Run `dvc repro`" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_prefill_alone_has_no_numbers_of_decoding(tmp_path: Path) -> None:
    alone = [ok_record(point(round=number, max_new_tokens=1), observed([0.5])) for number in (1, 2)]
    page = page_of_records(tmp_path, *alone)
    assert text_of(page).count("No configuration was measured that generates more than one token.") == 2
    results = text_of(page, "results")
    assert "40.0" in results  # 2 rows of 10 prompt tokens in 0.5 s
    assert "inter-token" not in results


def test_nothing_that_was_measured_becomes_markup(tables: Tables, page: str) -> None:
    nasty = page_of(tables, {**ENVIRONMENT, "variables": {NASTY: NASTY}}, {**CEILINGS, "device": NASTY})
    reader = Reader(nasty)
    assert not {"img", "b"} & set(reader.tags)
    assert reader.tags.count("script") == Reader(page).tags.count("script")
    assert "\x1b" not in nasty
    assert reader.texts.count(NASTY.replace("\x1b", "")) == 3  # the reason, the variable's name and its value


def test_no_name_ends_the_script_that_holds_the_charts(tmp_path: Path) -> None:
    names = (NASTY.replace("\x1b", ""), "</script><script>alert(2)</script>", "<!--<script>", "sdpa")
    records = [ok_record(point(attn_implementation=name), observed([0.5, 0.6, 0.8, 1.1])) for name in names]
    embedded, *_ = Reader(page_of_records(tmp_path, *records)).scripts
    assert "<" not in embedded
    rounds = next(chart for chart in json.loads(embedded) if chart["name"] == "rounds")
    assert {row[rounds["table"]["columns"].index("way")] for row in rounds["table"]["rows"]} == set(names)


def test_only_the_scripts_of_the_page_may_run(page: str) -> None:
    reader = Reader(page)
    policy = next(value for name, value in reader.attributes if name == "content" and str(value).startswith("default"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in reader.scripts]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert len(allowed) == 3  # Vega, what draws with it, what sorts tables
    assert set(allowed) < set(digests)  # the data is no script that runs


def test_what_draws_is_what_the_charts_are_written_for_and_ends_no_script() -> None:
    assert VEGA_LITE in vl_convert.get_vegalite_versions()
    assert altair.SCHEMA_VERSION.startswith(f"v{VEGA_LITE}.")
    with pytest.raises(ValueError, match="end"):
        as_script("'</SCRIPT>'")


def test_the_page_needs_no_other_file(page: str) -> None:
    reader = Reader(page)
    assert not {"link", "img", "iframe"} & set(reader.tags)
    assert not {"src", "srcset"} & {name for name, _ in reader.attributes}
    assert all(str(value).startswith("#") for name, value in reader.attributes if name == "href")
    for text in reader.scripts:
        page = page.replace(text, "")
    assert not re.search(r"url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert ("name", "viewport") in reader.attributes


WARM = {"first_call_seconds": 3.25, "compile_seconds": 2.5, "cache_hits": 1}


def _steady(seconds: float, first_call: float, mode: str, **axes: Any) -> list[Record]:
    return [
        ok_record(
            point(round=number, compile_mode=mode, **axes),
            *(observed([0.1, 0.2, 0.3, 0.4], end_to_end=seconds) for _ in range(3)),
            first_call_seconds=first_call,
            warm_start=WARM if mode != "off" else {},
        )
        for number in (1, 2, 3)
    ]


def test_the_report_says_when_each_has_paid(tmp_path: Path) -> None:
    records = [
        *_steady(2.0, 3.0, "off"),
        *_steady(1.5, 21.5, "default"),  # 38 calls of 8 tokens, as in the test of the formula
        *_steady(2.5, 21.5, "max-autotune"),
        *_steady(1.5, 21.5, "default", dtype="float32"),
    ]
    text = text_of(page_of_records(tmp_path, *records), "startup")
    for wanted in (
        "What compiling costs, and when it has paid",
        "compile-default has paid for compiling after 304 new tokens (304 to 304).",
        "compile-max-autotune never pays for compiling: it is slower than the same uncompiled.",
        "compile-default float32: the same without compiling was not measured, or its output differs",
        *("first call", "warm first call", "warm compile time", "break-even", "3.25", "never"),
    ):
        assert wanted in text
    one_round = [record for mode in ("off", "default") for record in _steady(2.0, 3.0, mode)[:1]]
    unknown = page_of_records(tmp_path / "unknown", *one_round)
    assert "compile-default: whether compiling pays is not known" in text_of(unknown, "startup")
    uncompiled = page_of_records(tmp_path / "off", *_steady(2.0, 3.0, "off"))
    assert "compiling" not in text_of(uncompiled, "startup")


def test_every_chart_says_how_it_is_read_and_is_described_to_who_cannot_see_it(tmp_path: Path) -> None:
    axes: dict[str, Any] = {
        "attn_implementation": ["eager", "sdpa"],
        "context_depth": [0, 512],
        "max_new_tokens": [100],
        "request_rate": ["inf", "2", "4"],
    }
    page = page_of_records(tmp_path, *sweep_records(1, 60, batch_size=[1], **axes), ceilings=CEILINGS)
    figures = re.findall(
        r'<figure id="chart-(.*?)">.*?aria-label="([^"]{60,}\.) ([^"]*)\.">.*?"faint note">(.+?)</p>', page, re.DOTALL
    )
    assert {name for name, *_ in figures} == set(CHARTS)
    notes = {name: " ".join(note.split()) for name, _, _, note in figures}
    assert all(len(note) > 60 and note.endswith(".") for note in notes.values())
    # What is not drawn one by one is said.
    assert notes["rounds"].endswith("Of rounds with more than 40 samples, as many evenly spaced ones are drawn.")
    assert notes["tokens"].endswith("Neighbouring tokens are joined, so that there are at most 64 places.")


def test_every_warning_stands_on_the_page_and_margins_beside_its_numbers(tmp_path: Path) -> None:
    sizes = range(1, 8)
    records = [measured(point(batch_size=size), 0.6, machine_before={"cpu_percent": 40.0 + size}) for size in sizes]
    page = page_of_records(tmp_path, *records)
    assert all(f"{40 + size}% of the CPUs were busy" in page for size in sizes)
    assert "Give sweep.round at least 3 values." in page
    rounds = tables_of(tmp_path / "rounds", *(measured(point(round=n), s) for n, s in ((1, 0.99), (2, 1.0), (3, 1.01))))
    (row,) = rounds.summary.filter(metric="end_to_end_seconds").to_dicts()
    assert f"±{100 * (row['high'] - row['low']) / 2:.2g}%" in page_of(rounds)


def test_what_is_above_its_roof_is_not_known_and_an_emulated_dtype_is_told(tmp_path: Path) -> None:
    """Fakes ceilings far below what the records reach: no number above 100% stands anywhere, and each says why."""
    ceilings = {
        **CEILINGS,
        "read_bytes_per_second_by_size": {str(2**26): 2.9e10},
        "matmul_flops_per_second": {"bfloat16": 1.4e9, "float32": 5.4e10},
        "single_row_flops_per_second": {"bfloat16": 7e8, "float32": 1.8e10},
        "slower_than_float32": ["bfloat16"],
        "emulated_dtypes": ["bfloat16"],
    }
    page = page_of_records(tmp_path, *sweep_records(batch_size=[1], iterations=4), ceilings=ceilings)
    text = text_of(page, "roofline")
    assert "no instructions for bfloat16 products: products reach 1.40 GFLOP/s, and 54.0 GFLOP/s in float32" in text
    assert "MFU: it would be above what the device was measured to reach at most" in text
    assert "not known" in text_of(page, "results")
    shares = [float(share.replace(",", "")) for share in re.findall(r"([\d,.]+)%", text)]
    assert max(shares) <= 100
