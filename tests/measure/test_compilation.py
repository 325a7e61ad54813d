"""What torch.compile does, and what hfbench says of it: real compilations, most with the quick backend eager."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoConfig, CompileConfig, GenerationMixin, PreTrainedModel, StaticCache

from hfbench.core.errors import UserError
from hfbench.core.record import FAILED, OK, UNAVAILABLE, Settings
from hfbench.measure.compiling import (
    check_compile_config,
    compilation_differences,
    compile_config,
    describe_compilation,
    watch_compiled_call,
)
from hfbench.measure.device import Cpu
from hfbench.measure.evidence import watch_functions
from hfbench.measure.failure import reason_of, status_of
from hfbench.measure.generation import generation_config, prepare_generate
from hfbench.measure.loading import load_model
from tests.conftest import TINY, some
from tests.measure.conftest import PROMPT
from tests.measure.stage_process import Bench
from tests.measure.test_faults import finish, samples, wait_for, worker_of
from tests.measure.test_support import point

COMPILE: dict[str, Any] = {
    "backend": "inductor",
    "fullgraph": False,
    "dynamic": None,
    "options": {},
    "measure_warm_start": True,
}
pytestmark = pytest.mark.usefixtures("nothing_compiled")
DEFAULT = point(compile_mode="default")
STEPS = DEFAULT.max_new_tokens - 1


def asked(mode: str = "default", **values: Any) -> CompileConfig:
    config = compile_config(point(compile_mode=mode), Settings(compile={**COMPILE, **values}))
    return some(config)


def test_a_compiled_point_and_its_second_start(bench: Bench) -> None:
    record = replace(bench, settings=Settings(compile=COMPILE)).measure(compile_mode="default")
    assert record.status == OK, record.reason
    compilation = record.effective["compilation"]
    assert compilation["graphs"] == 1
    assert (compilation["compiled_calls"], compilation["inductor_calls"]) == (1, 1)  # decoding steps after the prefill
    assert compilation["seconds"] > 0.5
    assert compilation["cache_hits"] == 0
    assert record.effective["cache"] == "StaticCache"
    first_call_seconds, warm = some(record.first_call_seconds), record.warm_start
    assert first_call_seconds > compilation["seconds"]
    assert warm["cache_hits"] == 1, "the first process had not written what it compiled"
    assert 0 < warm["compile_seconds"] < compilation["seconds"]
    assert warm["compile_seconds"] < warm["first_call_seconds"] < first_call_seconds
    assert [*record.timeline][-2:] == ["warm start", "end"]
    assert [iteration.phase for iteration in record.iterations].count("first") == 1
    assert not list(bench.folder.glob("hfbench-*")), "the compile cache was left behind"


@pytest.mark.parametrize(("mode", "compiles"), [("off", False), ("default", True)])
def test_on_an_accelerator_a_static_cache_compiles_only_where_it_is_asked_for(mode: str, compiles: bool) -> None:
    class OnCuda(GenerationMixin):  # stands in for a model on a device that is not here
        device = torch.device("cuda")
        config = AutoConfig.for_model(**TINY)

    asked = point(compile_mode=mode, cache_implementation="static")
    cache = {"past_key_values": StaticCache(OnCuda.config, max_cache_len=8)}
    config = generation_config(asked, Settings(compile=COMPILE), PROMPT)
    assert OnCuda()._valid_auto_compile_criteria(cache, config) is compiles  # type: ignore[misc]


def test_a_second_start_that_is_killed_loses_no_measurement(bench: Bench) -> None:
    settings = Settings(compile={**COMPILE, "backend": "eager"})  # which compiles with Dynamo, and so in no time
    process = replace(bench, settings=settings).start(compile_mode="default")
    wait_for(process, "warm start")
    worker_of(process).kill()
    record = finish(bench, process)
    assert (record.status, record.reason) == (OK, None)
    assert samples(record) == 5
    assert record.effective["compilation"]["compiled_calls"] == 1
    assert record.warm_start == {"reason": "crashed: the worker was killed by SIGKILL"}


@pytest.mark.parametrize(("backend", "fullgraph"), [("eager", True), ("aot_eager", False)])
def test_compiled_code_is_counted_whatever_the_backend(tiny_model: Path, backend: str, fullgraph: bool) -> None:
    values: dict[str, Any] = {"backend": backend, "fullgraph": fullgraph}
    model, settings = _model(tiny_model), Settings(compile={**COMPILE, **values})
    call = prepare_generate(model, DEFAULT, settings, PROMPT, Cpu())
    call(True)
    found = watch_compiled_call(model, partial(call, False))
    assert (found["compiled_calls"], found["inductor_calls"]) == (7, 0)
    compilation = describe_compilation() | found
    assert compilation_differences(STEPS, asked(**values), compilation) == []
    # The same under the name of another backend, and where transformers had changed fullgraph.
    assert compilation_differences(STEPS, asked(fullgraph=not fullgraph), compilation) == [
        "code that inductor compiled ran 0 times in 7 decoding steps",
        f"transformers compiled with fullgraph {fullgraph}, not {not fullgraph}",
        f"transformers compiled with backend {backend}, not inductor",
    ]


def test_compilation_that_transformers_skips(tiny_model: Path) -> None:
    model, config = _model(tiny_model), generation_config(DEFAULT, Settings(compile=COMPILE), PROMPT)
    config.compile_config = CompileConfig(mode="default")  # without hfbench's flag, the CPU is skipped with a log line

    def call() -> None:
        model.generate(PROMPT.input_ids, attention_mask=PROMPT.attention_mask, generation_config=config)  # type: ignore[operator]

    compilation = describe_compilation() | watch_compiled_call(model, call)
    assert compilation_differences(STEPS, asked(), compilation) == [
        "nothing was compiled",
        "compiled code ran 0 times in 7 decoding steps",
    ]


def test_running_past_the_recompile_limit_is_a_difference() -> None:
    double = torch.compile(lambda values: values * 2, backend="eager", dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2):
        for length in (2, 3, 4, 5):
            double(torch.ones(length))
    compilation = describe_compilation()
    assert compilation["graphs"] == 2
    assert "size mismatch" in compilation["recompiles"][0]
    (found,) = compilation_differences(STEPS, asked(backend="eager"), compilation)
    assert "gave up recompiling" in found


def test_a_broken_graph_is_counted_with_its_reason_and_refused_with_fullgraph() -> None:
    def broken(values: torch.Tensor) -> torch.Tensor:
        values = values + 1
        torch._dynamo.graph_break()
        return values * 2

    torch.compile(broken, backend="eager")(torch.ones(2))
    compilation = describe_compilation()
    assert (compilation["graphs"], compilation["graph_breaks"]) == (2, 1)
    assert "graph_break" in compilation["graph_break_reasons"][0]
    assert compilation_differences(STEPS, asked(backend="eager"), compilation) == []
    assert compilation_differences(STEPS, asked(backend="eager", fullgraph=True), compilation) != []
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported) as raised:
        torch.compile(broken, backend="eager", fullgraph=True)(torch.ones(2))
    assert status_of(raised.value, "first call") == FAILED
    assert reason_of(raised.value).startswith(
        "compile.fullgraph is true, and torch cannot make one graph. Unsupported:"
    )


def test_a_backend_whose_package_is_missing_is_unavailable() -> None:
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as raised:
        torch.compile(lambda values: values * 2, backend="tvm")(torch.ones(2))
    assert status_of(raised.value, "first call") == UNAVAILABLE
    assert "install apache-tvm" in reason_of(raised.value)
    assert "TORCHDYNAMO_VERBOSE" not in reason_of(raised.value)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_options_beside_a_mode_are_added_to_what_torch_makes_of_the_mode(mode: str, dynamic: bool | None) -> None:
    plain = asked(mode, dynamic=dynamic).to_dict()
    assert (plain["mode"], plain["options"]) == (mode, None)
    both = asked(mode, dynamic=dynamic, options={"epilogue-fusion": False}).to_dict()
    assert both["mode"] is None
    assert _inductor_config(both) == {**_inductor_config(plain), "epilogue_fusion": False}


def test_no_cuda_graph_where_the_mode_is_made_of_them() -> None:
    # No GPU is here: the counters are those of torch where it gave up on CUDA graphs.
    counters["inductor"]["cudagraph_skips"] = 3
    calls: dict[str, Any] = {"compiled_calls": 7, "inductor_calls": 7, "cuda_graph_replays": 0}
    calls |= {"config": asked("reduce-overhead").to_dict()}
    compilation = {**describe_compilation(), "graphs": 1, **calls}
    found = compilation_differences(STEPS, asked("reduce-overhead"), compilation)
    assert found == ["no CUDA graph was recorded; torch skipped 3: see the log"]
    counters["inductor"]["cudagraph_recorded_non_static_inputs"] += 0
    compilation |= {"cuda_graphs_recorded": describe_compilation()["cuda_graphs_recorded"]}
    assert compilation_differences(STEPS, asked("reduce-overhead"), compilation) == [
        "torch made no CUDA graph of 3 compiled graphs: see the log",
        "CUDA graphs were replayed 0 times in 7 decoding steps",
    ]
    compilation |= {"cuda_graphs_skipped": 0, "cuda_graph_replays": 7}
    assert compilation_differences(STEPS, asked("reduce-overhead"), compilation) == []


def test_replays_of_cuda_graphs_are_counted() -> None:
    # No GPU is here: a method of torch's name in a module of torch's name stands for a replay.
    source = "class CUDAGraphNode:\n    def run(self): pass\n"
    names: dict[str, Any] = {"__name__": "torch._inductor.cudagraph_trees"}
    exec(source, names)
    replay = names["CUDAGraphNode"]()
    with watch_functions() as evidence:
        replay.run()
        replay.run()
    assert evidence.cuda_graph_replays == 2


def test_eager_attention_that_inductor_made_sdpa_is_a_difference() -> None:
    counters["inductor"]["fuse_attention"] = 2
    compilation = {**describe_compilation(), "graphs": 1}
    assert compilation_differences(0, asked(), compilation, "eager") == [
        "inductor put scaled_dot_product_attention in place of eager attention, 2 times"
    ]
    assert compilation_differences(0, asked(), compilation, "sdpa") == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"backend": "inducktor"}, "compile.backend is 'inducktor', which torch .* Did you mean inductor"),
        (
            {"options": {"max_autotun": True}},
            "'max_autotun', which is no option of inductor.* Did you mean max_autotune",
        ),
        ({"options": {"max_autotune": 3}}, "Unexpected type of attr max_autotune, got int should be bool"),
    ],
)
def test_what_torch_does_not_know_is_said_before_anything_is_loaded(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_compile_config(asked(**values))


def test_what_torch_knows_is_let_through() -> None:
    for values in ({}, {"backend": "aot_eager"}, {"options": {"triton.cudagraphs": False, "max-autotune": True}}):
        check_compile_config(asked(**values))
    assert counters == {}, "something was compiled"


def _model(folder: Path) -> PreTrainedModel:
    return load_model(folder, DEFAULT, torch.device("cpu"), trust_remote_code=False)[0]


def _inductor_config(arguments: dict[str, Any]) -> dict[str, Any]:
    """What torch.compile sets in inductor for these arguments."""
    wrapper = torch._TorchCompileInductorWrapper(arguments["mode"], arguments["options"], arguments["dynamic"])
    return dict(wrapper.config)
