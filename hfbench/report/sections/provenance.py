"""The report's section on where its numbers come from: models, params, digests, and how to find the commit."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.core.files import readable_json
from hfbench.core.record import Manifest
from hfbench.report.charts.chart import text_column
from hfbench.report.html import element, folded, key_value_table, text_table

_COMMIT = (
    "The page names no commit of its own repository: it would have to be made again for a commit that changed nothing "
    "in it. dvc.lock holds the digest of this page and of all that it was made from; this command, run in the "
    "repository, prints the commit that recorded it:"
)
_COMMAND = 'git log --oneline -S "$(md5sum < results/report.html | cut -c1-32)" -- dvc.lock'
_DIGESTS = {
    "environment_sha256": "environment (results/environment.json)",
    "manifest_sha256": "model (results/models/)",
    "inputs_sha256": "token batches (results/inputs/)",
}
_MANY_FILES = 3


def provenance_section(
    points: pl.DataFrame, manifests: Sequence[Manifest], params: Mapping[str, Any], *parts: ET.Element
) -> ET.Element:
    """Return the section; `parts` stand at its end. `params` is what params.yaml holds, as far as it is given."""
    nodes = [element("p", _COMMIT), element("pre", element("code", _COMMAND))]
    for manifest in manifests:
        whole = element("pre", readable_json(dataclasses.asdict(manifest)))
        nodes += [element("h3", f"Model {manifest.name}"), key_value_table(manifest_rows(manifest))]
        nodes.append(folded("The whole manifest", whole, class_="numbers"))
    if params:
        nodes += [element("h3", "Params"), key_value_table([(name, _value(value)) for name, value in params.items()])]
    digests = digest_rows(points)
    if digests:
        what, values, counts = zip(*digests, strict=True)
        columns = [
            text_column("measured with", what, is_number=False),
            text_column("sha256", values, is_number=False),
            text_column("records", [str(count) for count in counts]),
        ]
        nodes += [element("h3", "Digests in the records"), text_table(columns)]
    return element("section", element("h2", "Environment and provenance"), *nodes, *parts, id="provenance")


def manifest_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what a manifest says, as rows of name and value, but for what is no single value."""
    files = [f"{file.path}, {file.size_bytes:,} bytes, sha256 {file.sha256}" for file in manifest.files]
    return [
        ("architecture", manifest.architecture),
        *((f"source: {name}", str(value)) for name, value in manifest.source.items()),
        *(
            (f"resolved: {name}".replace("_", " "), str(value))
            for name, value in manifest.provenance.items()
            if not isinstance(value, dict | list)
        ),
        ("files", "\n".join(files)),
    ]


def digest_rows(points: pl.DataFrame) -> list[tuple[str, str, int]]:
    """Return what the records were measured with: what, its sha256, and how many records say so."""
    rows = []
    for column, what in _DIGESTS.items():
        counts = points.drop_nulls(column).group_by(column, maintain_order=True).len()
        rows += [(what, digest, count) for digest, count in counts.iter_rows()]
    return rows


def _value(value: Any) -> str:
    return value if isinstance(value, str) else readable_json(value)
