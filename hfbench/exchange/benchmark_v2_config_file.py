"""Reads the configuration files of transformers' benchmark_v2.

Source: `BenchmarkConfig.from_dict` in huggingface/transformers, benchmark_v2/framework/benchmark_config.py, for keys
and defaults, and run_benchmarks.py (`--config-file`) for the files: one configuration in a .json file, one a line in a
.jsonl file, where lines that do not begin with `{` are skipped. A list of configurations, and files of results, whose
entries hold a configuration each, are read too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hfbench.exchange.benchmark_v2_layout import EXTENSION
from hfbench.foundation.configuration import USUAL
from hfbench.foundation.errors import UserError
from hfbench.foundation.values import Count, CountOrNone


class Config(BaseModel):
    """`BenchmarkConfig` with the defaults of its `from_dict`, in any of its versions, and the keys that exports add."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: str | None = None
    # Of no meaning here: benchmark_v2 takes these three from its command line, and hfbench from `sampling:`.
    warmup_iterations: int | None = None
    measurement_iterations: int | None = None
    gpu_monitoring: bool | None = None
    continuous_batching: bool = False
    batch_size: Count = 1
    sequence_length: Count = 128
    num_tokens_to_generate: Count = 128
    attn_implementation: str = "eager"
    compile_kwargs: dict[str, Any] | None = None
    kernelize: bool = False
    sdpa_backend: str | None = None
    compile_mode: str | None = None
    compile_options: dict[str, Any] | None = None
    dtype: str = USUAL["dtype"]
    cache_implementation: str = USUAL["cache_implementation"]
    prefill_chunk_size: CountOrNone = USUAL["prefill_chunk_size"]
    request_lengths: str = USUAL["request_lengths"]
    context_depth: CountOrNone = USUAL["context_depth"]


def config_contents(path: Path) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Return the name of each configuration in messages, its content, and the axes that an export of hfbench tells.

    Raises `UserError` where the file is missing, no JSON, or holds no configuration.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.startswith("{")]
            found = [(f"line {number}", json.loads(line)) for number, line in lines]
        else:
            found = _entries(json.loads(text))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name a .json or .jsonl file of configurations.") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is no JSON: {error}. Expected a .json file, or a .jsonl file.") from None
    if not found:
        raise UserError(f"{path} holds no configuration. Expected JSON objects with keys such as attn_implementation.")
    return [(where, *_config_in(entry, path, where)) for where, entry in found]


def _entries(content: Any) -> list[tuple[str, Any]]:
    items = content if isinstance(content, list) else [content]
    if isinstance(content, dict) and content and all(_is_result(value) for value in content.values()):
        items = list(content.values())
    return [(f"entry {number}", item) for number, item in enumerate(items, 1)]


def _is_result(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("config"), dict)


def _config_in(entry: Any, path: Path, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the configuration of an entry, which may be of results, and the axes that an export of hfbench tells."""
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {where} is {entry!r}, no JSON object. Expected one, such as {{}} for all defaults.")
    if not _is_result(entry):
        return entry, {}
    extension = (entry.get("metadata") or {}).get(EXTENSION) or {}
    return entry["config"], extension.get("configuration") or {}
