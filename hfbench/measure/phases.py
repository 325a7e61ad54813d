"""One configuration, phase by phase, in the worker."""

import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from transformers import CompileConfig, PreTrainedModel

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.point import NONE
from hfbench.core.record import Manifest
from hfbench.core.results import assistant_path, inputs_path, manifest_path
from hfbench.measure import compiling, loading, verification
from hfbench.measure.accounting import describe_needs, fill_cache
from hfbench.measure.assisted import Assistant, Drafts, describe_assistant, first_not_greedy, load_assistant
from hfbench.measure.batching import (
    batching_differences,
    continuous_batching_config,
    count_shared_prefixes,
    effective_batching,
    kept_manager,
    prepare_generate_batch,
    requested_batching,
)
from hfbench.measure.compiling import check_compile_config, compile_config
from hfbench.measure.device import Accelerators, Device, Peaks, open_all_devices, open_device
from hfbench.measure.evidence import computing_libraries
from hfbench.measure.failure import UnavailableError, reason_of
from hfbench.measure.generation import Call, Run, prepare_generate
from hfbench.measure.kernels import (
    check_unedited,
    kernel_device,
    kernel_differences,
    kernelized_layers,
    loaded_kernels,
    open_kernels,
)
from hfbench.measure.loading import load_model, sdpa_backend
from hfbench.measure.output import Steps, path_differences
from hfbench.measure.plain_pass import Reference, check_prompt, scored_positions, steps_of
from hfbench.measure.process import Reporter
from hfbench.measure.prompt import (
    Prompt,
    describe_batches,
    describe_requests,
    expected_lengths,
    load_prompt,
    longest_row,
    new_tokens_of,
)
from hfbench.measure.quantization import quantization_differences
from hfbench.measure.ranks import Ranks, describe_shares, rank_differences, require_splittable
from hfbench.measure.sampling import Sampler
from hfbench.measure.support import refusals_explained
from hfbench.measure.task import Task
from hfbench.model.architecture import load_config
from hfbench.model.manifest import materialise

_SAMPLE_TOKENS = 64  # of the generated text, decoded into the record
# What compiling cost is told of the first call alone: later ones may compile again, and find it in the caches.
_OF_FIRST_CALL = ("seconds", "cache_hits")


class Measurement:
    """The state of one measurement; each method is one phase, in this order."""

    _device: Device
    _prompt: Prompt
    _drafting_manifest: Manifest
    _model: PreTrainedModel
    _call: Run
    _chosen: list[list[int]]
    _sampler: Sampler
    _compile: CompileConfig | None
    _reference: IO[bytes]
    _first_compilation: dict[str, Any]
    _expected_seconds: float  # of an iteration, until one has run

    def __init__(self, task: Task, reporter: Reporter) -> None:
        self.ranks = Ranks(task.configuration.tp_size)
        self._task = task
        self._configuration = task.configuration
        self._settings = task.settings
        self._reporter = reporter
        self._manifest = Manifest.load(manifest_path(task.configuration.model))
        self._trusts_code = bool(self._manifest.source.get("trust_remote_code", False))
        self._effective: dict[str, Any] = {}
        self._memory: dict[str, Any] = {}
        self._peaks: Peaks | None = None
        self._output: dict[str, Any] = {}
        self._assistant: Assistant | None = None
        self._sdpa = ExitStack()
        compiling.remember_all()

    def prepare(self) -> None:
        """Find the device, put the prompt on it, import the kernels, and have the model's folder ready."""
        self._compile = compile_config(self._configuration, self._settings)
        if self._compile is not None:
            check_compile_config(self._compile)
        wanted = verification.requested(self._configuration, self._task.device, self._compile)
        try:
            self._folder = materialise(self._manifest)
            if self._configuration.has_draft_model:
                self._drafting_manifest = Manifest.load(assistant_path(self._configuration.assistant))
                materialise(self._drafting_manifest)
        except UserError as error:  # its files were here when the pipeline looked
            raise UnavailableError(str(error)) from error
        if self.ranks.size > 1:
            require_splittable(load_config(self._folder, self._trusts_code), self.ranks.size)
            self.ranks.fork(self._reporter, Path(os.environ["TMPDIR"]))
        own = self.ranks.device_of(self._task.device)
        self._device = self.ranks.join(open_device(own) if self._configuration.devices else open_all_devices(own))
        if len(names := set(self.ranks.gathered(self._device.name))) > 1:
            raise NotImplementedError(f"the ranks would run on unlike devices: {', '.join(sorted(names))}")
        self._prompt = load_prompt(inputs_path(self._configuration), self._device.torch_device, self._configuration)
        used = {name: getattr(self._settings, name) for name in ("kernels", "quantization", "assisted_decoding")}
        self._requested = {**wanted, **used, **describe_requests(self._prompt)}
        if self._configuration.continuous_batching:
            asked = continuous_batching_config(self._configuration, self._settings)
            self._requested["continuous_batching_config"] = requested_batching(asked)
        self._reporter.update(requested=self._requested)
        self._kernels = open_kernels(self._configuration, self._settings, self._device)

    def load(self) -> None:
        """Load the model; the seconds are those of `from_pretrained` alone, with the weights on the device."""
        self._sdpa.enter_context(sdpa_backend(self._configuration.attn_implementation))
        start = time.perf_counter()
        self._model, loading = load_model(
            self._folder,
            self._configuration,
            self._device.torch_device,
            self._trusts_code,
            self._kernels,
            self._settings.quantization,
        )
        self._device.synchronize()
        self._reporter.update(load_seconds=round(time.perf_counter() - start, 9))
        if self._configuration.assistant != NONE:
            self._assistant = self._load_assistant()
        self._memory = {"load_peak_bytes": self._device.peak_bytes()}
        self._device.reset_peak()
        check_unedited(self._settings)  # now that what was in its folder is imported
        self._effective = {
            **verification.describe_model(self._model, self._device),
            "kernelized_layers": kernelized_layers(self._model, self._settings),
            "loaded_kernels": loaded_kernels(self._settings),
            "loading": loading,
            "assistant": describe_assistant(self._assistant) if self._assistant else None,
            "ranks": self.ranks.gathered(describe_shares(self._model)) if self.ranks.size > 1 else None,
        }
        if self._device.name == "cpu":
            self._effective["device_name"] = read_json(self._task.environment)["cpu"]["brand"]

    def first_call(self) -> None:
        """Run the first iteration, the first that runs through the model at all, and keep the first row of its output.

        It holds whatever a process does once: compiling, tuning and loading kernels, making handles and pools.
        """
        self._call = self._prepare_call()
        new_tokens = new_tokens_of(self._prompt, self._configuration)
        self._sampler = Sampler(lambda *looked: self._call(*looked), new_tokens, self._reporter, self.ranks.agreed)
        with refusals_explained():
            call = self._sampler.first_call()
        self._reporter.update(first_call_seconds=round(call.last_token - call.start, 9))
        self._memory |= {"first_call_peak_bytes": self._device.peak_bytes()}  # compiling among it
        self._chosen = call.tokens
        self._output["tokens"] = max(call.tokens, key=len)  # of the first row, where all are alike
        self._reporter.update(output=self._output)
        self._first_compilation = compiling.describe_compilation()
        self._expected_seconds = call.last_token - call.start - self._first_compilation["seconds"]

    def _prepare_call(self) -> Run:
        prepared = (self._model, self._configuration, self._settings, self._prompt, self._device)
        if self._configuration.continuous_batching:
            return prepare_generate_batch(*prepared)
        return prepare_generate(*prepared, self._assistant.arguments if self._assistant else {})

    def _load_assistant(self) -> Assistant:
        if not self._configuration.has_draft_model:
            return Assistant()
        return load_assistant(
            self._drafting_manifest, self._manifest, self._model, self._configuration, self._settings, self._device
        )

    def verify(self) -> list[str]:
        """Watch what a short call runs through and check what it computes; return the differences.

        What `generate` compiles is compared in `conclude`, when it is.
        """
        start = time.perf_counter()
        is_compiled, is_batched = self._compile is not None, self._configuration.continuous_batching
        if is_batched:
            # The short call would run compiled through the first call's manager, and both caches would take memory.
            self._call = self._prepare_call()
            self._model.destroy_cached_continuous_batching_manager()  # type: ignore[operator]
        reference: Reference | None = None
        new_tokens = max(new_tokens_of(self._prompt, self._configuration))
        most_scored = scored_positions(self._model, self._configuration.batch_size, new_tokens)
        if is_batched or self._assistant is not None:  # which take no tokens of a reference
            output, _ = check_prompt(self._model, longest_row(self._prompt), 1, most_scored)
        else:
            steps = steps_of(self._model, self._prompt, new_tokens)
            output, reference = check_prompt(self._model, self._prompt, steps, most_scored)
        if is_compiled and reference is not None:
            self._reference, reference = reference.set_aside(), None
        self._output |= output
        self._reporter.update(output=self._output)
        watched, cache, path = verification.watch_short_call(
            self._model, self._configuration, self._settings, self._prompt, reference, self._assistant
        )
        del reference
        self._effective |= watched | describe_batches(self._prompt, self._configuration)
        shares = self.ranks.gathered(watched["kv_bytes_per_token"])
        self._effective["kv_bytes_per_token"] = None if None in shares else sum(shares)
        filled = fill_cache(self._model, self._prompt) if cache is None else cache
        needs = describe_needs(self._model, filled, self._prompt, self.ranks, self._effective["quantization"])
        del cache, filled  # it would count as memory
        self._reporter.update(effective=self._effective, accounting=needs)
        if loading.uses_static_flex_attention(self._configuration):
            # What that compiled, for a key length of its own, would make torch run the measured calls on code for any.
            torch.compiler.reset()
        found = self._differences()
        if self._assistant is not None:
            found += self._compare_with_greedy(path)
        if is_batched or not is_compiled:
            found += self._report_path(path)
        # The first call holds more than an iteration does, and checking takes no longer than two of them.
        self._expected_seconds = min(self._expected_seconds, (time.perf_counter() - start) / 2)
        self._device.release_memory()  # the logits of the check are not the model's memory
        self._device.reset_peak()
        # Compiling, which this call left out, decides on padding and graphs too: `conclude` looks at those.
        return found if is_compiled else [*found, *self._batching_differences()]

    def _compare_with_greedy(self, path: dict[str, Any]) -> list[str]:
        """Compare the tokens of the first call with those that the model alone would have chosen."""
        wrong = first_not_greedy(self._model, self._prompt, dict(enumerate(self._chosen)))
        path["timed_tokens_agree"] = wrong is None
        if wrong is None or self._configuration.dtype != "float32":  # rounding may have chosen, and the tables flag it
            return []
        return [f"new token {wrong} is not the one that greedy decoding chooses without the assistant"]

    def _differences(self) -> list[str]:
        kind = kernel_device(self._device)
        quantized = self._effective["quantization"]
        return [
            *verification.differences(self._configuration, self._effective),
            *kernel_differences(self._configuration, self._settings, kind, self._effective),
            *quantization_differences(
                self._configuration, self._settings.quantization, quantized, self._manifest.quant_method
            ),
            *rank_differences(self.ranks.size, self._effective["ranks"] or []),
        ]

    def _report_path(self, path: dict[str, Any]) -> list[str]:
        is_quantized = self._configuration.cache_implementation == "quantized"  # whose price in quality is by design
        self._output["path"] = path | ({"quantized_cache": True} if is_quantized else {})
        self._reporter.update(output=self._output)
        return path_differences(self._configuration.dtype, path, has_price=is_quantized)

    def warm_up(self) -> None:
        """Run the warm-up iterations; the first tells the memory of prefill and decode."""
        self._peaks = None if self._configuration.continuous_batching else Peaks(self._device)
        drafts = Drafts(self._model, self._assistant, self._device, self._peaks) if self._assistant else None
        # What verifying has thrown away is made anew in an iteration, which is to be no sample.
        is_cold = self._configuration.continuous_batching or loading.uses_static_flex_attention(self._configuration)
        steady = self._sampler.warm_up(
            self._task.sampling, drafts or self._peaks, self._expected_seconds, at_least=int(is_cold)
        )
        if drafts is not None:
            self._output["drafting"] = drafts.describe()
        self._reporter.update(warmup_steady=steady)
        self._compiled_before = compiling.compilations()

    def sample(self) -> None:
        """Run the sampled iterations; long enough for an accelerator to be watched, unless their number is fixed."""
        sampling = self._task.sampling
        is_watched = self._device.name != "cpu" and sampling.stopping_rule != "fixed"
        min_seconds = sampling.min_watched_seconds if is_watched else 0.0
        self._reporter.update(stopped_because=self._sampler.sample(sampling, min_seconds))

    def run_once(self) -> Call:
        """Run one iteration more, which is recorded nowhere, and return its call with the time of each token."""
        return self._call(True)

    def conclude(self) -> list[str]:
        """Report memory and what was compiled; return where that is not what was asked for."""
        split = self._peaks.describe() if self._peaks else {}
        peak = max(self._device.peak_bytes(), *split.values(), 0)
        if self.ranks.size > 1:
            self._memory["rank_peak_bytes"] = self.ranks.gathered(peak)
        if isinstance(self._device, Accelerators):
            self._memory["device_peak_bytes"] = self._device.peaks()
        memory: dict[str, Any] = {"peak_bytes": peak, **self._memory, **split, "kind": self._device.memory_kind}
        # Only now: the tokenizer would count as memory.
        self._output |= self._decoded(self._output["tokens"][:_SAMPLE_TOKENS])
        self._effective["libraries"] = computing_libraries()
        self._reporter.update(memory=memory, output=self._output)
        compiled = compiling.describe_compilation() | {name: self._first_compilation[name] for name in _OF_FIRST_CALL}
        compiled["recompiles_while_sampling"] = compiling.compiled_since(self._compiled_before)
        found, decoding_steps = list[str](), 0
        if self._configuration.continuous_batching:  # what sampled, where verifying had a manager of its own
            manager = kept_manager(self._model)
            self._effective["continuous_batching_config"] = ran = effective_batching(manager)
            if ran["allow_block_sharing"]:
                self._effective["prefix_sharing"] = count_shared_prefixes(manager, partial(self._call, False))
            found = self._compare_chosen()
        elif self._compile is not None:  # of continuous batching the thread is not watched
            steps = Steps(Reference.from_file(self._reference))
            compiled |= compiling.watch_compiled_call(self._model, partial(self._call, False, steps))
            self._effective |= verification.describe_held(self._prompt, self._configuration, steps)
            found = self._report_path(steps.describe(self._model, self._prompt))
            found += verification.held_differences(self._effective)
            decoding_steps = steps.decoding_steps
        return [*self._report_compilation(compiled, decoding_steps), *self._batching_differences(), *found]

    def _compare_chosen(self) -> list[str]:
        """Compare the tokens that the first call chose with those that were checked."""
        path = self._output["path"]
        checked = path.pop("tokens", [])
        pairs = enumerate(zip(self._chosen, checked, strict=False))
        others = {row: timed[: len(short)] for row, (timed, short) in pairs if timed[: len(short)] != short}
        # Batches of other rows round otherwise: of two tokens as likely, either may be chosen.
        same = not others or first_not_greedy(self._model, self._prompt, others) is None
        return self._report_path({**path, "timed_tokens_agree": same} if checked else path)

    def conclude_first_call(self) -> list[str]:
        """Report what the first call compiled, where it was all that was asked; return differences as `conclude`."""
        return self._report_compilation(self._first_compilation)

    def _report_compilation(self, compiled: dict[str, Any], decoding_steps: int = 0) -> list[str]:
        chunks = len(expected_lengths(self._configuration)) if self._configuration.prefill_chunk_size else 0
        self._effective["compilation"] = compiled
        self._reporter.update(effective=self._effective)
        return compiling.compilation_differences(
            decoding_steps + chunks, self._compile, compiled, self._configuration.attn_implementation
        )

    def _batching_differences(self) -> list[str]:
        asked, ran = (known.get("continuous_batching_config") for known in (self._requested, self._effective))
        return batching_differences(asked, ran) if asked and ran else []

    def _decoded(self, tokens: list[int]) -> dict[str, str]:
        """Return the `text` of the tokens, or why it is unavailable: what was measured does not depend on it."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=self._trusts_code
            )
            known = [token for token in tokens if token < len(tokenizer)]
            return {"text": str(tokenizer.decode(known, skip_special_tokens=False))}
        except Exception as error:  # a tokenizer's own code raises anything
            return {"text_unavailable": reason_of(error)}
