"""Reads files of transformers' benchmark_v2 and checks that they are of its layout (`benchmark_v2_layout`)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfbench.foundation.errors import UserError

_ENTRY = ("config", "measurements", "metadata")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Config(_Part):
    """`BenchmarkConfig.to_dict`, in any of its versions; other keys are kept as they are."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    num_tokens_to_generate: int = Field(ge=1)
    attn_implementation: str
    continuous_batching: bool = False
    kernelize: bool = False
    warmup_iterations: int | None = None
    measurement_iterations: int | None = None
    compile_kwargs: dict[str, Any] | None = None
    compile_mode: str | None = None
    sdpa_backend: str | None = None
    dtype: str = "bfloat16"


class Measurements(_Part):
    """`BenchmarkResult.to_dict`, a value each iteration, in seconds; `timestamps` is null in a summarised file."""

    e2e_latency: list[float]
    time_to_first_token: list[float]
    inter_token_latency: list[float | None]
    shape_and_decoded_outputs: list[str] = []
    timestamps: list[list[list[float]]] | None = None

    @model_validator(mode="after")
    def _equally_long(self) -> "Measurements":
        for name in ("time_to_first_token", "inter_token_latency", "timestamps"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.e2e_latency):
                raise ValueError(f"{name} has {len(values)} values, and e2e_latency {len(self.e2e_latency)}")
        return self


class HardwareInfo(_Part):
    """`HardwareInfo.to_dict`; `gpu_memory_total_gb` is in GiB."""

    gpu_name: str | None = None
    gpu_memory_total_gb: float | None = None
    python_version: str | None = None
    torch_version: str | None = None


class Round(_Part):
    """Which of the measurements are of a round, in an export of hfbench; `facts` are columns of its table of points."""

    round: int = Field(ge=1)
    measurements: int = Field(ge=0)
    facts: dict[str, Any]


class Extension(_Part):
    """What an export of hfbench adds to the layout: the axes without the round, the rounds, environment.json."""

    configuration: dict[str, Any]
    rounds: list[Round]
    environment: dict[str, Any]


class Metadata(_Part):
    """`BenchmarkMetadata.to_dict`, and what an export of hfbench adds."""

    model_id: str
    timestamp: str | None = None
    commit_id: str | None = None
    hardware_info: HardwareInfo = HardwareInfo()
    success: bool = True
    hfbench: Extension | None = None


@dataclass(frozen=True)
class Entry:
    """One configuration of a file; the earlier versions have no `timestamps`, not even null."""

    source: Path
    config: Config
    measurements: Measurements
    metadata: Metadata
    has_timestamps_key: bool


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of a file of results (.json), or of lines as they are on the hub (.jsonl).

    Raises `UserError` where the file is missing or of another layout.
    """
    contents = _contents(path)
    if not contents or not all(isinstance(each, dict) and set(_ENTRY) <= each.keys() for each in contents):
        raise _other_layout(path, f"an entry has not all of {', '.join(_ENTRY)}" if contents else "it has no entries")
    return [_entry(path, each) for each in contents]


def _contents(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name a file that benchmark_v2 wrote.") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise _other_layout(path, "it is no text file") from None
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except ValueError as error:
        raise _other_layout(path, f"it is not valid JSON, {error}") from None
    return list(content.values()) if isinstance(content, dict) else []


def _entry(path: Path, content: dict[str, Any]) -> Entry:
    try:
        return Entry(
            source=path,
            config=Config.model_validate(content["config"]),
            measurements=Measurements.model_validate(content["measurements"]),
            metadata=Metadata.model_validate(content["metadata"]),
            has_timestamps_key="timestamps" in content["measurements"],
        )
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise _other_layout(path, f"{where or error.title}: {detail['msg']}") from None


def _other_layout(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is not in the layout of benchmark_v2: {what}. Expected an object with an entry for each "
        "configuration, each with config, measurements and metadata, as benchmark_v2/run_benchmarks.py of transformers "
        "writes it."
    )
