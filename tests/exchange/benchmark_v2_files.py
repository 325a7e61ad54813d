"""Files as transformers' benchmark_v2 writes them, made by the formulas of its framework/ from known token times."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WALL_TIME_0 = 40_000.123  # seconds of uptime: eleven hours


def config(**changes: Any) -> dict[str, Any]:
    """`BenchmarkConfig.to_dict()` of the version with `compile_kwargs`."""
    content = {
        "name": "w3_i2-unmonitored-b1_s128_n4-sdpa-uncompiled-unkernelized-generate",
        "warmup_iterations": 3,
        "measurement_iterations": 2,
        "gpu_monitoring": False,
        "continuous_batching": False,
        "batch_size": 1,
        "sequence_length": 128,
        "num_tokens_to_generate": 4,
        "attn_implementation": "sdpa",
        "compile_kwargs": None,
        "kernelize": False,
    }
    return content | changes


def metadata(**changes: Any) -> dict[str, Any]:
    """`BenchmarkMetadata.to_dict()`."""
    content = {
        "model_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "timestamp": "2025-11-20T10:00:00.000001+00:00",
        "branch_name": "main",
        "commit_id": "03f79f6a3107b96087d2869b07dc9d78f8309748",
        "commit_message": "a message",
        "hardware_info": {
            "gpu_name": "NVIDIA A10G",
            "gpu_memory_total_gb": 22.05,
            "python_version": "3.10.12",
            "torch_version": "2.9.0+cu128",
        },
        "success": True,
    }
    return content | changes


def measurements(
    iterations: Sequence[tuple[float, Sequence[Sequence[float]]]],
    tokens: int,
    summarised: bool = False,
    float32: bool = False,
) -> dict[str, Any]:
    """`BenchmarkResult.to_dict()` of iterations of (seconds of the call, the streamer's seconds of each list).

    With `float32` the readings lose what benchmark_v2 loses of them.
    """
    stamps = [np.array(lists) for _, lists in iterations]
    if float32:
        stamps = [(each + WALL_TIME_0).astype(np.float32) - np.float32(WALL_TIME_0) for each in stamps]
    return {
        "e2e_latency": [seconds for seconds, _ in iterations],
        "time_to_first_token": [float(np.min(each[:, 0])) for each in stamps],
        "inter_token_latency": [float(np.mean(each[:, -1] - each[:, 0]) / (each.shape[1] - 1)) for each in stamps],
        "shape_and_decoded_outputs": [f"{(len(each), tokens)} | and so on" for each in stamps],
        "gpu_metrics": None,
        "timestamps": None if summarised else [each.astype(float).tolist() for each in stamps],
    }


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """Write the entries under the hashes of their configs, as `BenchmarkRunner.save_results` does."""
    content = {hashlib.sha256(json.dumps(entry["config"]).encode()).hexdigest(): entry for entry in entries}
    path.write_text(json.dumps(content, indent=4))
    return path


def entry(measured: dict[str, Any], **parts: dict[str, Any]) -> dict[str, Any]:
    """An entry with a config and metadata unless they are given."""
    return {"metadata": metadata(), "measurements": measured, "config": config(), **parts}
