"""One configuration, phase by phase, in the worker."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from hfbench.foundation.files import read_json
from hfbench.foundation.records import Manifest
from hfbench.measurement import compilation, verification
from hfbench.measurement.accounting import describe_needs, fill_cache
from hfbench.measurement.arguments import Task
from hfbench.measurement.batching import prepare_generate_batch
from hfbench.measurement.channel import Reporter
from hfbench.measurement.compile_settings import compile_config
from hfbench.measurement.device import Device, open_device
from hfbench.measurement.generation import Call, Prompt, prepare_generate
from hfbench.measurement.loading import load_model, sdpa_backend
from hfbench.measurement.output_check import check_prompt
from hfbench.measurement.sampling import Sampler
from hfbench.models.materialise import materialise

_SAMPLE_TOKENS = 64  # of the generated text, decoded into the record


class Point:
    """The state of one measurement; each method is one phase, in this order."""

    _device: Device
    _prompt: Prompt
    _model: PreTrainedModel
    _call: Callable[[bool], Call]
    _sampler: Sampler

    def __init__(self, task: Task, reporter: Reporter) -> None:
        self._task = task
        self._configuration = task.configuration
        self._settings = task.settings
        self._reporter = reporter
        self._manifest = Manifest.load(task.manifest)
        self._effective: dict[str, Any] = {}
        self._sdpa = ExitStack()

    def prepare(self) -> None:
        """Find the device, put the prompt on it, and have the model's folder ready."""
        wanted = verification.requested(
            self._configuration, self._task.device, compile_config(self._configuration, self._settings)
        )
        self._reporter.update(requested=wanted)
        self._device = open_device(self._task.device)
        with safe_open(self._task.inputs, framework="pt") as artifact:
            self._prompt = Prompt.of_rows(
                artifact.get_tensor("input_ids").to(self._device.torch_device),
                artifact.get_tensor("attention_mask").to(self._device.torch_device),
                int(artifact.metadata()["pad_token_id"]),
                self._configuration.context_depth,
            )
        self._folder = materialise(self._manifest)

    def load(self) -> None:
        """Load the model; the seconds are those of `from_pretrained` alone, with the weights on the device."""
        trusted = bool(self._manifest.source.get("trust_remote_code", False))
        self._sdpa.enter_context(sdpa_backend(self._configuration.attn_implementation))
        start = time.perf_counter()
        self._model, loading = load_model(self._folder, self._configuration, self._device.torch_device, trusted)
        self._device.synchronize()
        self._reporter.update(load_seconds=round(time.perf_counter() - start, 9))
        self._effective = {**verification.describe_model(self._model, self._device), "loading": loading}
        if self._device.name == "cpu":
            self._effective["device_name"] = read_json(self._task.environment)["cpu"]["brand"]

    def verify(self) -> list[str]:
        """Watch what a short call runs through and check the prompt's likelihood; return the differences."""
        watched, cache = verification.watch_short_call(self._model, self._configuration, self._settings, self._prompt)
        self._effective |= watched
        needs = describe_needs(self._model, fill_cache(self._model, self._prompt) if cache is None else cache)
        del cache  # it would count as memory
        self._reporter.update(effective=self._effective, accounting=needs)
        output = check_prompt(self._model, self._prompt, self._model.config.get_text_config().vocab_size)
        self._reporter.update(output=output)
        self._output = output
        return verification.differences(self._configuration, self._effective)

    def first_call(self) -> None:
        """Run the first iteration and keep the first tokens of its output."""
        prepare = prepare_generate_batch if self._configuration.continuous_batching else prepare_generate
        self._call = prepare(self._model, self._configuration, self._settings, self._prompt, self._device)
        self._sampler = Sampler(self._call, self._configuration.max_new_tokens, self._reporter)
        call = self._sampler.first_call()
        self._reporter.update(first_call_seconds=round(call.last_token - call.start, 9))
        self._output["tokens"] = call.tokens[0][:_SAMPLE_TOKENS]
        self._reporter.update(output=self._output)

    def warm_up(self) -> None:
        """Run the warm-up iterations."""
        self._reporter.update(warmup_steady=self._sampler.warm_up(self._task.sampling))
        self._compiled_before = compilation.describe_compilation()

    def sample(self) -> None:
        """Run the sampled iterations."""
        self._reporter.update(stopped_because=self._sampler.sample(self._task.sampling))

    def run_once(self) -> Call:
        """Run one iteration more, which is recorded nowhere, and return its call with the time of each token."""
        return self._call(True)

    def conclude(self) -> list[str]:
        """Report memory and what was compiled; return where that is not what was asked for."""
        memory = {"peak_bytes": self._device.peak_bytes(), "kind": self._device.memory_kind}
        self._output["text"] = self._decode(self._output["tokens"])  # only now: the tokenizer would count as memory
        self._reporter.update(memory=memory, output=self._output)
        compiled = compilation.describe_compilation()
        recompiles = compiled["recompiles"][len(self._compiled_before["recompiles"]) :]
        calls = None
        if self._configuration.compile_mode != "off" and not self._configuration.continuous_batching:
            calls = verification.watch_compiled_call(self._call)
        self._effective["compilation"] = {**compiled, "recompiles_while_sampling": recompiles, "compiled_calls": calls}
        self._reporter.update(effective=self._effective)
        return verification.compilation_differences(self._configuration, compiled, calls)

    def _decode(self, tokens: list[int]) -> str:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        known = [token for token in tokens if token < len(tokenizer)]
        return str(tokenizer.decode(known, skip_special_tokens=False))
