"""What a record says of its machine and model beside the times, invented: as much of it as real records hold.

Nothing of it is worth a warning: the clock is steady, no other program runs, and the cards are cool.
"""

import hashlib
import random
from typing import Any

from hfbench.core.point import Configuration

INTERVAL_SECONDS = 0.5
_LAYERS, _VOCABULARY = 30, 49_152


def output(configuration: Configuration) -> dict[str, Any]:
    """Return what the model answers, which depends on model, prompt length and new tokens alone."""
    draw = random.Random(configuration.model)
    return {
        "prompt_nll": 2.5,
        "prompt_top1": [draw.randrange(_VOCABULARY) for _ in range(configuration.sequence_length)],
        "tokens": [draw.randrange(_VOCABULARY) for _ in range(configuration.max_new_tokens)],
        "text": "and so on, " * (configuration.max_new_tokens // 4),
    }


def effective(configuration: Configuration) -> dict[str, Any]:
    """Return what really ran: what was asked for."""
    return {
        "device": "cuda",
        "device_name": "Synthetic device",
        "architecture": "LlamaForCausalLM",
        "attn_implementation": configuration.attn_implementation,
        "parameters": 134_515_008,
        "weight_bytes": 269_030_016,
        "parameter_dtypes": {configuration.dtype: 272},
        "buffer_dtypes": {"float32": 2},
        "tensor_devices": {"cuda:0": 274},
        "training": False,
        "intra_op_threads": 2,
        "inter_op_threads": 2,
        "clock_resolution_seconds": 1e-9,
        "kernelized_layers": [
            {"layer": name, "modules": count, "replaced": 0} for name, count in (("RMSNorm", 61), ("SiLU", _LAYERS))
        ],
        "loading": {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []},
        "attention_functions": {"transformers.integrations.sdpa_attention.sdpa_attention_forward": 2 * _LAYERS},
        "cache": "DynamicCache",
        "compilation": {
            "graphs": 0,
            "seconds": 0,
            "graph_breaks": 0,
            "graph_break_reasons": [],
            "recompiles": [],
            "fell_back": [],
            "cache_hits": 0,
            "recompiles_while_sampling": [],
            "compiled_calls": None,
        },
    }


def accounting() -> dict[str, Any]:
    """Return what the model needs, as `hfbench.measure.accounting` counts it for SmolLM2-135M."""
    kind = {
        "layers": _LAYERS,
        "bytes_per_token_per_row": 768,
        "key_dim": 64,
        "value_dim": 64,
        "window_tokens": None,
        "query_heads": 9,
    }
    return {
        "dense_weight_bytes": 269_030_016,
        "repeated_weight_bytes": 0,
        "embedding_table_bytes": 0,
        "unread_weight_bytes": 0,
        "dense_matmul_parameters": 106_168_320,
        "head_matmul_parameters": 28_311_552,
        "routed_experts": [],
        "unknown": {},
        "cache": {"attention": [kind], "state_bytes_per_row": 0},
    }


def provenance(configuration: Configuration) -> dict[str, str]:
    """Return digests of the files that the record was measured with."""
    inputs = f"{configuration.model} {configuration.batch_size} {configuration.sequence_length}"
    texts = {"environment": "", "manifest": configuration.model, "input_tensors": inputs}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def machine_before(draw: random.Random) -> dict[str, Any]:
    """Return the state of the machine before the worker started."""
    return {
        "window_seconds": 0.04,
        "cpu_percent": round(draw.uniform(0, 5), 2),
        "steal_percent": 0.0,
        "load_averages": [round(draw.uniform(0.5, 2.0), 2) for _ in range(3)],
        "running_threads": 1,
        "swap_used_bytes": 0,
        "available_memory_bytes": draw.randrange(2**33, 2**34),
        "devices": [{"device": "cuda:0", "name": "Synthetic device", "other_processes": 0, "clock_mhz": 1980}],
    }


def monitoring(end_seconds: float, draw: random.Random) -> dict[str, Any]:
    """Return readings of a host and of one NVIDIA GPU from the start of the stage to `end_seconds`."""
    count = int(end_seconds / INTERVAL_SECONDS) + 1

    def between(low: float, high: float, digits: int = 2) -> list[float]:
        return [round(draw.uniform(low, high), digits) for _ in range(count)]

    power = between(300, 400, 3)
    host = {
        "cpu_percent": between(50, 52),
        "steal_percent": [0.0] * count,
        "swap_used_bytes": [0] * count,
        "quota_throttled_seconds": [0.0] * count,
        "worker_cpu_cores": between(1.0, 1.04, 3),
        "worker_rss_bytes": [draw.randrange(2**28, 2**29) for _ in range(count)],
    }
    device = {
        "utilisation_percent": [draw.randrange(60, 70) for _ in range(count)],
        "memory_utilisation_percent": [draw.randrange(40, 50) for _ in range(count)],
        "memory_used_bytes": [draw.randrange(2**30, 2**31) for _ in range(count)],
        "power_watts": power,
        "energy_joules": [round(1e6 + INTERVAL_SECONDS * sum(power[:index]), 3) for index in range(count)],
        "clock_mhz": [1980] * count,
        "memory_clock_mhz": [2619] * count,
        "temperature_celsius": [draw.randrange(40, 45) for _ in range(count)],
        "throttle_mask": [0] * count,
        "other_processes": [0] * count,
    }
    return {
        "interval_seconds": INTERVAL_SECONDS,
        "samples": count,
        "own_seconds": 0.0005 * count,
        "own_median_seconds": 0.0005,
        "own_cpu_seconds": 0.0005 * count,
        "own_share": 0.001,
        "time_seconds": [round(INTERVAL_SECONDS * (index + draw.uniform(0.99, 1.01)), 6) for index in range(count)],
        "host": {"logical_cores": 2, "series": host, "unavailable": {"cpu_clock_mhz": "the kernel has no cpufreq"}},
        "devices": [
            {
                "device": "cuda:0",
                "name": "Synthetic device",
                "throttled_samples": {},
                "throttle_reasons": {"gpu_idle": 1, "sw_power_cap": 4, "hw_thermal_slowdown": 64},
                "series": device,
                "unavailable": {},
            }
        ],
    }
