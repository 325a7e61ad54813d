"""The head of the report: what was measured on what."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.core.point import AXIS_TABLE
from hfbench.core.record import OK, Manifest
from hfbench.report.frames import ReportData, varying_axes
from hfbench.report.html import element
from hfbench.report.words import Captions, axis_text, device_names

_PACKAGES = re.compile("torch|transformers|kernels")


def overview(
    text: Captions,
    points: pl.DataFrame,
    data: ReportData,
    environment: Mapping[str, Any],
    manifests: Sequence[Manifest],
) -> ET.Element:
    """Return the page's header: the title, and the facts as a list of names and values."""
    facts = [(name, value) for name, value in _facts(points, data, environment, manifests) if value]
    entries = [element("div", element("dt", name), element("dd", value)) for name, value in facts]
    sentences = [f"{line[0].upper()}{line[1:]}." for line in (text.counts, text.constants) if line]
    return element(
        "header",
        element("p", "hfbench", class_="brand"),
        element("h1", text.title),
        element("p", " ".join(sentences)),
        element("dl", *entries, class_="facts"),
    )


def _facts(
    points: pl.DataFrame, data: ReportData, environment: Mapping[str, Any], manifests: Sequence[Manifest]
) -> list[tuple[str, str]]:
    varied = [(AXIS_TABLE[axis].label, ", ".join(_values(points[axis]))) for axis in varying_axes(points)]
    started = sorted(time for time in points["started_at"] if time)
    return [
        ("device", ", ".join(device_names(points))),
        *((f"model {manifest.name}", _origin(manifest)) for manifest in manifests),
        *((f"measured: {name}", values) for name, values in varied),
        ("rounds", _rounds(points)),
        ("samples", f"{data.samples.height:,}" if data.samples.height else ""),
        ("libraries", ", ".join(_versions(environment))),
        ("measured", " to ".join(dict.fromkeys(map(_time, (started[0], started[-1])))) if started else ""),
    ]


def _time(text: str) -> str:
    """Return an ISO 8601 time as a person reads it."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def _values(column: pl.Series) -> list[str]:
    return [axis_text(value) for value in column.unique(maintain_order=True)]


def _rounds(points: pl.DataFrame) -> str:
    asked = points["round"].n_unique()
    ok = points.filter(pl.col("status") == OK)["round"].n_unique()
    return f"{asked}, each a fresh process" if ok == asked else f"{asked}, of which {ok} have a result"


def _origin(manifest: Manifest) -> str:
    """Return where a model comes from in one line: its kind of source, name and resolved revision."""
    kind = str(manifest.source.get("source", ""))
    name = next(
        (str(manifest.source[key]) for key in ("repository", "wheel", "path", "config") if key in manifest.source), ""
    )
    commit = str(manifest.provenance.get("commit", ""))[:12]
    return " ".join(filter(None, [manifest.architecture, f"({kind})" if kind else "", name, commit]))


def _versions(environment: Mapping[str, Any]) -> list[str]:
    packages = environment.get("packages")
    if not isinstance(packages, Mapping):
        return []
    found = [(name, package) for name, package in packages.items() if _PACKAGES.fullmatch(name)]
    return [_version(name, package) for name, package in found if isinstance(package, Mapping)]


def _version(name: str, package: Mapping[str, Any]) -> str:
    """Return name and version, with the commit of a checkout and whether it holds more than that."""
    commit = f" at commit {str(package['commit'])[:12]}" if package.get("commit") else ""
    return f"{name} {package.get('version', '')}{commit}" + " with uncommitted changes" * bool(
        package.get("uncommitted")
    )
