"""The report as text and elements, for tests that look into it."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hfbench.core.record import Manifest, ModelFile
from hfbench.report.page import report_page
from hfbench.tables.store import read_table
from hfbench.tables.warnings import read_warnings
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

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
CEILINGS = {
    "schema_version": 1,
    "device": "cpu",
    "copy_bytes_per_second": 2.13e10,
    "matmul_flops_per_second": {"bfloat16": 1.1e12, "float16": None},
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


def page_of(folder: Path, environment: dict[str, Any], ceilings: dict[str, Any], **more: Any) -> str:
    return report_page(
        samples=read_table(folder, "samples"),
        summary=read_table(folder, "summary"),
        points=read_table(folder, "points"),
        configurations=read_table(folder, "configurations"),
        warnings=read_warnings(folder),
        environment=environment,
        ceilings=ceilings,
        **more,
    )


def write_tables(folder: Path) -> Path:
    """Tables of two attentions that were measured and of one whose reason is markup."""
    records = [
        ok_record(point(), observed([0.5, 0.6, 0.8, 1.1]), started_at="2025-03-01T10:00:00+00:00"),
        ok_record(
            point(attn_implementation="eager"),
            observed([0.5, 0.7, 0.9, 1.3]),
            started_at="2025-03-01T10:05:00+00:00",
            effective={"device_name": "Fast <b>CPU</b>"},
        ),
        failed_record(point(attn_implementation="flex_attention"), NASTY),
    ]
    tables_of(folder / "measurements", *records).write(folder)
    return folder
