"""What the report says of the machine: its environment, and what it can do at most."""

from typing import Any

from hfbench.reporting.numbers import rate

_UNSHOWN = ("schema_version",)


def environment_groups(environment: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each part of environment.json as a heading with rows of name and value; nothing in it is required.

    What stands alone, outside of any part, comes first under one heading.
    """
    shown = {name: content for name, content in environment.items() if name not in _UNSHOWN}
    alone = {name: content for name, content in shown.items() if not isinstance(content, dict | list)}
    parts = {"general": alone, **{name: content for name, content in shown.items() if name not in alone}}
    groups = [(name.replace("_", " "), _rows(content)) for name, content in parts.items()]
    return [(name, rows) for name, rows in groups if rows]


def ceiling_rows(ceilings: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of ceilings.json as name and rate; a rate that could not be measured is left out."""
    copied = ceilings.get("copy_bytes_per_second")
    rows = [] if copied is None else [("memory copy, read plus written", rate(copied, "B"))]
    for dtype, flops in (ceilings.get("matmul_flops_per_second") or {}).items():
        if flops is not None:
            rows.append((f"matrix product, {dtype}", rate(flops, "FLOP")))
    return rows


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
