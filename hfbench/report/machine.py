"""What the report says of the machine: its environment, and what it can do at most."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from hfbench.report.html import element, key_value_table
from hfbench.report.words import memory_unit, rate, significant

_UNSHOWN = ("schema_version",)


def environment_part(environment: Mapping[str, Any]) -> list[ET.Element]:
    """Return the environment as elements, a table in each part; none where nothing is known."""
    groups = environment_groups(environment)
    return [node for name, rows in groups for node in (element("h3", f"Environment: {name}"), key_value_table(rows))]


def ceilings_part(ceilings: Mapping[str, Any]) -> list[ET.Element]:
    """Return the roof's rates as elements; none where nothing was measured."""
    rows = ceiling_rows(ceilings)
    if not rows:
        return []
    device = f"The highest rates that torch reached on {ceilings.get('device', 'the device')}."
    return [element("h3", "What the device can do"), element("p", device), key_value_table(rows)]


def environment_groups(environment: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each part of environment.json as a heading with rows of name and value; nothing in it is required.

    What stands alone, outside of any part, comes first under one heading.
    """
    shown = {name: content for name, content in environment.items() if name not in _UNSHOWN}
    alone = {name: content for name, content in shown.items() if not isinstance(content, dict | list)}
    parts = {"general": alone, **{name: content for name, content in shown.items() if name not in alone}}
    groups = [(name.replace("_", " "), _rows(content)) for name, content in parts.items()]
    return [(name, rows) for name, rows in groups if rows]


def ceiling_rows(ceilings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of ceilings.json as name and rate; a rate that could not be measured is left out."""
    reads = {int(size): speed for size, speed in (ceilings.get("read_bytes_per_second_by_size") or {}).items()}
    rows = [(f"reading {_size(size)} over and over", rate(speed, "B")) for size, speed in sorted(reads.items())]
    copied = ceilings.get("copy_bytes_per_second")
    if copied is not None:
        rows.append(("memory copy, read plus written", rate(copied, "B")))
    for dtype, flops in (ceilings.get("matmul_flops_per_second") or {}).items():
        if flops is not None:
            rows.append((f"matrix product, {dtype}", rate(flops, "FLOP")))
    return rows


def _size(size_bytes: int) -> str:
    unit, unit_bytes = memory_unit(size_bytes)
    return f"{significant(size_bytes / unit_bytes)} {unit}"


def _rows(content: dict[str, Any] | list[Any]) -> list[tuple[str, str]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content, start=1)
    return [(str(name).replace("_", " "), text) for name, value in entries if (text := _text(value))]


def _text(value: Any) -> str:
    """Return a value in one line: the version of a package alone, a dictionary as its names and values."""
    if isinstance(value, dict):
        parts = [(name, _text(item)) for name, item in value.items()]
        return ", ".join(text if name in ("version", "name") else f"{name} {text}" for name, text in parts if text)
    if isinstance(value, list):
        return ("; " if any(isinstance(item, dict) for item in value) else ", ").join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
