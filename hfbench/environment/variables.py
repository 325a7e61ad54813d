"""The environment variables that change how fast, or with what code, a model runs."""

import re
from collections.abc import Mapping

_RELEVANT = re.compile(
    r"(OMP|MKL|KMP|GOMP|OPENBLAS|BLIS|VECLIB|ONEDNN|DNNL|TBB|IPEX"  # CPU libraries
    r"|PYTORCH|ATEN|TRITON|FLASH_ATTENTION|FLASH_ATTN|XFORMERS|BNB|ACCELERATE|TRANSFORMERS|KERNELS"
    r"|CUDA|CUDNN|NCCL|HIP|ROCR|HSA|AMD|GPU|MIOPEN|ROCBLAS|HIPBLASLT|TENSILE|ZE|SYCL|ONEAPI|UR|IGC|XPU"
    r"|MALLOC|TCMALLOC|MIMALLOC)_\w+"
    r"|(TORCH|CUBLAS|INDUCTOR)\w*"
    r"|NVIDIA_TF32_OVERRIDE|GLIBC_TUNABLES|LD_PRELOAD|LD_BIND_NOW|CC|CXX"
    r"|USE_HUB_KERNELS|LOCAL_KERNELS|DISABLE_KERNEL_MAPPING|HF_DEACTIVATE_ASYNC_LOAD|HF_ENABLE_PARALLEL_LOADING"
    r"|HF_PARALLEL_LOADING_WORKERS"
    r"|PYTHONMALLOC|PYTHONOPTIMIZE|PYTHONDEVMODE|PYTHONTRACEMALLOC|PYTHON_GIL|PYTHON_JIT"
)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL")
_LOCATION = re.compile(r"(?:^|_)(?:HOME|DIRS?|DIRECTORY|DIRECTORIES|PATHS?|FOLDER|ROOT|FILE)$")
# TORCHINDUCTOR_FX_GRAPH_CACHE=0 switches a cache off; TRANSFORMERS_CACHE=... says where one is.
_SWITCH = re.compile(r"\d*|true|false|on|off|yes|no", re.IGNORECASE)
# hfbench keeps every measurement off the network, and a launcher's run number is new at each start.
_WITHOUT_EFFECT = re.compile(r"TRANSFORMERS_OFFLINE|TORCHELASTIC_\w+")
_FOLDERS = re.compile(r"(^|[\s:;,='\"])(?:~[\w.-]*)?/(?:[^\s:;,='\"]*/)?")


def relevant_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter, sorted by name.

    None of them is a secret or only says where something is, and a path in a value is cut to its last part.
    """
    return {name: _FOLDERS.sub(r"\1", value) for name, value in sorted(variables.items()) if _is_kept(name, value)}


def _is_kept(name: str, value: str) -> bool:
    if not _RELEVANT.fullmatch(name) or _SECRET.search(name) or _WITHOUT_EFFECT.fullmatch(name):
        return False
    is_location = _LOCATION.search(name) or (name.endswith("_CACHE") and not _SWITCH.fullmatch(value))
    return not is_location
