"""Which environment variables are kept, and how the compiler is found."""

from pathlib import Path

import pytest

from hfbench.environment.describe import relevant_variables
from hfbench.environment.packages import describe_compiler


def test_variables_that_change_performance_are_kept_sorted() -> None:
    kept = {
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_DEACTIVATE_ASYNC_LOAD": "1",
        "HSA_OVERRIDE_GFX_VERSION": "9.0.0",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "MALLOC_ARENA_MAX": "2",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "4",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
        "TRANSFORMERS_VERBOSITY": "debug",
        "USE_HUB_KERNELS": "0",
        "ZE_AFFINITY_MASK": "0.0",
    }
    others = {"EDITOR": "vi", "HOSTNAME": "host", "PATH": "/usr/bin", "SHLVL": "1", "NVIDIA_VISIBLE_DEVICES": "all"}
    result = relevant_variables({**dict(reversed(kept.items())), **others})
    assert result == kept
    assert list(result) == list(kept)


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HF_HUB_TOKEN", "TORCH_API_KEY", "CUDA_SECRET", "TRANSFORMERS_PASSWORD", "NCCL_CREDENTIALS"],
)
def test_secrets_stay_out(name: str) -> None:
    assert relevant_variables({name: "hidden"}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_CACHE_PATH",
        "CUDA_HOME",
        "CUDA_MPS_PIPE_DIRECTORY",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "NCCL_TOPO_FILE",
        "ONEAPI_ROOT",
        "TORCHINDUCTOR_CACHE_DIR",
        "TORCH_HOME",
        "TRANSFORMERS_CACHE",
        "TRITON_CACHE_DIR",
    ],
)
def test_places_stay_out(name: str) -> None:
    assert relevant_variables({name: "/data/somewhere"}) == {}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2:/opt/intel/lib/libiomp5.so", "libjemalloc.so.2:libiomp5.so"),
        ("LD_PRELOAD", "/usr/lib/a.so ~/b.so ~someone/lib/c.so", "a.so b.so c.so"),
        ("CXX", "/opt/gcc-14/bin/g++", "g++"),
        (
            "LOCAL_KERNELS",
            "kernels-community/activation=/home/someone/activation",
            "kernels-community/activation=activation",
        ),
        ("TORCH_TRACE", "/", ""),
    ],
)
def test_paths_in_values_are_cut_to_their_last_part(name: str, value: str, kept: str) -> None:
    assert relevant_variables({name: value}) == {name: kept}


def test_compiler_is_the_one_that_cxx_names(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'c++ (Sample) 15.1.0'\necho 'Copyright'\n")
    compiler.chmod(0o755)
    assert describe_compiler({"CXX": str(compiler)}) == "c++ (Sample) 15.1.0"
    assert describe_compiler({"CXX": f"ccache {compiler}"}) is None, "torch takes CXX for one command, too"
    compiler.write_text("#!/bin/sh\necho broken\nexit 1\n")
    assert describe_compiler({"CXX": str(compiler)}) is None
    assert describe_compiler({"CXX": str(tmp_path / "absent")}) is None


def test_compiler_choice_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    monkeypatch.delenv("CXX", raising=False)
    try:
        expected: str | None = get_cpp_compiler()
    except InvalidCxxCompiler:
        expected = None
    assert (describe_compiler({}) is None) == (expected is None)
    if expected is not None:
        assert describe_compiler({}) == describe_compiler({"CXX": expected})
