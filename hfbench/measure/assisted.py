"""Assisted decoding: what drafts tokens, what it drafted, and whether what came out is what the model alone chooses.

Sources: Y. Leviathan et al., Fast Inference from Transformers via Speculative Decoding (2023); A. Saxena, Prompt Lookup
Decoding (2023). transformers calls the model that drafts the assistant.
"""

import dataclasses
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from hfbench.core.point import NONE, PROMPT_LOOKUP, Configuration
from hfbench.core.record import Manifest, Settings
from hfbench.measure.device import Device, Peaks
from hfbench.measure.loading import describe_loaded, load_model
from hfbench.measure.output import LogitsComparison, not_checked, tolerance
from hfbench.measure.plain_pass import chosen_margins, reference_of
from hfbench.measure.prompt import CACHE, Prompt
from hfbench.model.manifest import materialise

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Assistant:
    """What drafts tokens: `arguments` are those of `generate` for it, `model` is None where that is no model.

    `loading` has the names of weights that were missing, unexpected or of another shape.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    model: PreTrainedModel | None = None
    loading: Mapping[str, list[str]] = field(default_factory=dict)
    load_seconds: float = 0.0

    @property
    def is_universal(self) -> bool:
        """Whether drafts are translated from another tokenizer's tokens."""
        return "assistant_tokenizer" in self.arguments


def load_assistant(
    manifest: Manifest,
    target: Manifest,
    model: PreTrainedModel,
    configuration: Configuration,
    settings: Settings,
    device: Device,
) -> Assistant:
    """Load the model that drafts: in the dtype, on the device and with the attention of the one that it drafts for.

    It has its own weights as they are, without kernels of `kernels:`. `manifest` and `target` are of both models.
    Raises `NotImplementedError` where the two have another vocabulary of the same size, which transformers would take
    for the same, and where one of two that differ has a tokenizer that gives tokens which it does not know.
    """
    start = time.perf_counter()
    plain = dataclasses.replace(
        configuration,
        use_kernels=False,
        experts_implementation="auto",
        quantization=NONE,
        assistant=NONE,
        device_map=NONE,
    )
    folder = materialise(manifest)
    draft, loading = load_model(
        folder, plain, device.torch_device, bool(manifest.source.get("trust_remote_code", False))
    )
    device.synchronize()
    seconds = round(time.perf_counter() - start, 9)
    draft.generation_config = GenerationConfig(**settings.assisted_decoding or {})
    arguments: dict[str, Any] = {"assistant_model": draft}
    sizes = [each.config.get_text_config(decoder=True).vocab_size for each in (model, draft)]
    if sizes[0] != sizes[1]:
        arguments |= {"tokenizer": _tokenizer(target), "assistant_tokenizer": _tokenizer(manifest)}
        named = ((target, arguments["tokenizer"]), (manifest, arguments["assistant_tokenizer"]))
        for (its, tokenizer), size in zip(named, sizes, strict=True):
            if len(tokenizer) > size:
                raise NotImplementedError(
                    f"the tokenizer of {its.name} has {len(tokenizer)} tokens, and the model has room for {size}"
                )
    elif not _has_same_tokenizer(manifest, target):
        raise NotImplementedError(
            f"{manifest.name} has another tokenizer than {target.name} and as many tokens, {sizes[0]}: transformers "
            "tells tokenizers apart by that number alone, and would take one's tokens for the other's"
        )
    return Assistant(arguments, draft, loading, seconds)


def _has_same_tokenizer(one: Manifest, other: Manifest) -> bool:
    files = [{each.path: each.sha256 for each in manifest.files} for manifest in (one, other)]
    if _TOKENIZER in files[0] and files[0][_TOKENIZER] == files[1].get(_TOKENIZER):
        return True
    same: bool = _tokenizer(one).get_vocab() == _tokenizer(other).get_vocab()
    return same


def _tokenizer(manifest: Manifest) -> Any:
    trusts = bool(manifest.source.get("trust_remote_code", False))
    return AutoTokenizer.from_pretrained(materialise(manifest), local_files_only=True, trust_remote_code=trusts)


class Drafts:
    """Watches the drafts of a call of `generate` that is not timed, and its memory where it is given `peaks`.

    Lists have an entry for each step: the tokens that were proposed, and those that were accepted. The first step takes
    in the prompt as well. Times are in seconds.
    """

    def __init__(
        self, model: PreTrainedModel, assistant: Assistant, device: Device, peaks: Peaks | None = None
    ) -> None:
        self._model = model
        self._draft = assistant.model
        self._device = device
        self._peaks = peaks
        self._handle: RemovableHandle | None = None
        self._start = 0.0
        self._steps_before = 0  # of the calls before this one
        self.generator = ""
        self.proposed: list[int] = []
        self.accepted: list[int] = []
        self.passes = 0  # of the model that drafts
        self.draft_seconds = 0.0
        self.call_seconds = 0.0

    def arguments(self, given: Mapping[str, Any], prompt: Prompt, new_tokens: int) -> dict[str, Any]:  # noqa: ARG002
        """Have what makes the drafts watched from now on; it takes no arguments beside the given."""
        made: Any = self._model._get_candidate_generator

        def watched(*positional: Any, **named: Any) -> Any:
            generator = made(*positional, **named)
            self._watch(generator)
            return generator

        setattr(self._model, "_get_candidate_generator", watched)  # noqa: B010, torch types attributes as modules
        self._handle = self._draft.register_forward_pre_hook(self._note_pass) if self._draft is not None else None
        self._steps_before = len(self.proposed)
        if self._peaks is not None:
            self._peaks.begin()
        self._start = time.perf_counter()
        return {}

    def take(self, output: Any) -> torch.Tensor:
        """End watching; return the sequences."""
        self.call_seconds += time.perf_counter() - self._start
        del self._model._get_candidate_generator  # the class's own again
        if self._handle is not None:
            self._handle.remove()
        if self._peaks is not None:
            if len(self.proposed) == self._steps_before + 1:
                self._peaks.end_prefill()
            self._peaks.take(output)
        sequences: torch.Tensor = output if isinstance(output, torch.Tensor) else output.sequences
        return sequences

    def describe(self) -> dict[str, Any]:
        """Return what was drafted, ready for JSON; empty where no call was watched."""
        if not self.proposed:
            return {}
        return {
            "generator": self.generator,
            "steps": len(self.proposed),
            "proposed_tokens": sum(self.proposed),
            "accepted_tokens": sum(self.accepted),
            "draft_passes": self.passes,
            "draft_seconds": round(self.draft_seconds, 9),
            "call_seconds": round(self.call_seconds, 9),
        }

    def _watch(self, generator: Any) -> None:
        self.generator = type(generator).__name__
        draft, update = generator.get_candidates, generator.update_candidate_strategy

        def get_candidates(input_ids: torch.Tensor, *positional: Any, **named: Any) -> Any:
            self._device.synchronize()
            if self._peaks is not None and len(self.proposed) == self._steps_before + 1:
                self._peaks.end_prefill()
            start = time.perf_counter()
            candidates = draft(input_ids, *positional, **named)
            self._device.synchronize()
            self.draft_seconds += time.perf_counter() - start
            self.proposed.append(candidates[0].shape[1] - input_ids.shape[1])
            return candidates

        def update_candidate_strategy(input_ids: torch.Tensor, scores: torch.Tensor, num_matches: Any) -> None:
            self.accepted.append(int(num_matches))
            update(input_ids, scores, num_matches)

        generator.get_candidates = get_candidates
        generator.update_candidate_strategy = update_candidate_strategy

    def _note_pass(self, *_: Any) -> None:
        self.passes += 1


class ShortDrafts(Drafts):
    """The same of a short call that hands out its logits, whose cache it keeps."""

    def __init__(self, model: PreTrainedModel, assistant: Assistant, device: Device, steps: int) -> None:
        super().__init__(model, assistant, device)
        self._steps = steps
        self._logits: tuple[torch.Tensor, ...] = ()
        self._tokens = torch.empty(0)
        self.cache: Any = None
        self.tokens_before = 0  # in the cache
        self.new_tokens = 0

    def arguments(self, given: Mapping[str, Any], prompt: Prompt, new_tokens: int) -> dict[str, Any]:
        """Return the generation config of the short call."""
        super().arguments(given, prompt, new_tokens)
        config = copy(given["generation_config"])
        config.max_new_tokens = self.new_tokens = min(self._steps, new_tokens)
        config.return_dict_in_generate = config.output_logits = True
        return {"generation_config": config}

    def take(self, output: Any) -> torch.Tensor:
        """Keep cache and logits of the call; return its sequences."""
        sequences = super().take(output)
        self.cache, self._logits = output.get(CACHE), output.logits
        self._tokens = sequences[:, -len(self._logits) :]
        return sequences

    def compare(self, model: PreTrainedModel, prompt: Prompt) -> dict[str, Any]:
        """Return how the logits by which tokens were accepted compare to those of one plain forward pass."""
        reference = reference_of(model, prompt, self._tokens)
        if reference.logits is None:
            return not_checked(str(reference.missing))
        comparison = LogitsComparison()
        for step, logits in enumerate(self._logits):
            comparison.add(logits, reference.logits[:, step], self._tokens[:, step])
        return comparison.describe(model, prompt, reference)


def first_not_greedy(model: PreTrainedModel, prompt: Prompt, chosen: Mapping[int, list[int]]) -> int | None:
    """Return which of the tokens chosen for these rows, counted from 1, is one that the model would not have chosen.

    One plain forward pass over prompt and tokens tells: greedy decoding takes the most likely token at each position.
    Where that is within what rounding explains (on both sides) of the chosen one, either is greedy. None where all are.
    """
    for row, tokens in chosen.items():
        for position, (margin, size) in enumerate(chosen_margins(model, prompt, row, tokens), start=1):
            if margin > 2 * tolerance(model) * size:
                return position
    return None


def describe_assistant(assistant: Assistant) -> dict[str, Any]:
    """Return what can be read off the model that drafts; empty where that is none."""
    draft = assistant.model
    if draft is None:
        return {}
    return {
        **describe_loaded(draft),
        "has_other_tokenizer": assistant.is_universal,
        "load_seconds": assistant.load_seconds,
        "loading": dict(assistant.loading),
    }


def assisted_differences(configuration: Configuration, drafting: Mapping[str, Any]) -> list[str]:
    """Return, in words, where nothing drafted as asked; `drafting` is of the short call."""
    if configuration.assistant == NONE:
        return []
    if not drafting.get("steps"):
        return [f"nothing drafted tokens, and the assistant is {configuration.assistant}"]
    looked_up = drafting["generator"] == "PromptLookupCandidateGenerator"
    if looked_up != (configuration.assistant == PROMPT_LOOKUP) or (not looked_up and not drafting["draft_passes"]):
        return [f"{drafting['generator']} drafted the tokens, not {configuration.assistant}"]
    return []
