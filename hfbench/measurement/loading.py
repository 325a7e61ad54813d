"""Loading a model exactly as asked, and nothing else."""

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from hfbench.foundation.configuration import Configuration
from hfbench.measurement import flex_attention
from hfbench.measurement.kernel_mapping import Kernels

_SDPA_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash_attention": SDPBackend.FLASH_ATTENTION,
    "efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}


def split_attention(name: str) -> tuple[str, str | None]:
    """Split `sdpa:math` into transformers' name and torch's SDPA backend; other names have no backend."""
    implementation, _, backend = name.partition(":")
    return (implementation, backend) if implementation == "sdpa" and backend else (name, None)


def unpinned(name: str) -> str:
    """Return OWNER/NAME:FUNCTION of an attention in transformers' terms, OWNER/NAME@REVISION:FUNCTION."""
    return re.sub("@[^:]*", "", name)


def sdpa_backend(name: str) -> AbstractContextManager[Any]:
    """Return the context in which only the named SDPA backend is allowed: torch raises instead of taking another.

    torch keeps this setting for the whole process, threads included.
    """
    backend = split_attention(name)[1]
    return sdpa_kernel([_SDPA_BACKENDS[backend]]) if backend else nullcontext()


def load_model(
    folder: Path,
    configuration: Configuration,
    device: torch.device,
    trust_remote_code: bool,
    kernels: Kernels | None = None,
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """Load the model in `.eval()` mode; return it with the weights that were missing, unexpected or of another shape.

    The generation config of the checkpoint is replaced by an empty one: its penalties and temperatures would add work
    that the configuration does not name.
    """
    kernels = kernels or Kernels(configuration.attn_implementation)
    implementation = split_attention(kernels.attn_implementation)[0]
    if flex_attention.uses_static_flex_attention(configuration):
        implementation = flex_attention.register()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, configuration.dtype),
        attn_implementation=implementation,
        use_kernels=configuration.use_kernels,
        kernel_config=kernels.config,
        allow_all_kernels=kernels.trust_remote_code,
        device_map=None if device.type == "cpu" else {"": device},
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    model, info = loaded
    model.generation_config = GenerationConfig()
    return model.eval(), {
        name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
