"""Each attention, with each cache: right against eager in float32, and in force in a real measurement."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionMaskInterface, LogitsProcessor, LogitsProcessorList
from transformers.masking_utils import flex_attention_mask

from hfbench.core.record import OK, Settings
from hfbench.measure import loading
from hfbench.measure.compiling import describe_compilation
from hfbench.measure.generation import generation_config
from hfbench.measure.loading import load_model, sdpa_backend
from hfbench.measure.prompt import Prompt
from tests.measure.stage_process import Bench
from tests.measure.test_support import point

CLOSE = 1e-4  # of the logits in float32: as far as another order of the same sums takes them apart, and more
STEPS = 8
ROWS = torch.arange(1, 41).reshape(2, 20)
FORCED = torch.arange(100, 100 + 2 * STEPS).reshape(2, STEPS)
SHAPES = [(1, 0), (2, 0), (2, 5)]  # rows, and tokens of padding before the second one's prompt
CACHES = {"dynamic": "DynamicCache", "static": "StaticCache"}
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:_compile flag on create_block")
MINUTES = 600.0  # where other work keeps the cores busy, flex attention takes minutes to compile


class Forced(LogitsProcessor):
    """Makes `generate` take the next token of `FORCED`, whatever the model says."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        done = input_ids.shape[1] - ROWS.shape[1]
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter(1, FORCED[: len(scores), done : done + 1], 0.0)  # type: ignore[return-value]


def decoded(folder: Path, shape: tuple[int, int], **asked: object) -> tuple[torch.Tensor, str]:
    """Return the logits (row, step, vocabulary) of a point's own call of `generate`, and its kind of cache."""
    configuration = point(**{"dtype": "float32", "max_new_tokens": STEPS, "batch_size": shape[0], **asked})
    model = load_model(folder, configuration, torch.device("cpu"), trust_remote_code=False)[0]
    rows = ROWS[: shape[0]]
    mask = torch.ones_like(rows)
    mask[1:, : shape[1]] = 0
    config = generation_config(configuration, Settings(), Prompt(rows, mask, pad_token_id=0))
    config.update(return_dict_in_generate=True, output_logits=True)
    with sdpa_backend(configuration.attn_implementation):
        output: Any = model.generate(  # type: ignore[operator]
            rows, attention_mask=mask, generation_config=config, logits_processor=LogitsProcessorList([Forced()])
        )
    return torch.stack(output.logits, dim=1), type(output.past_key_values).__name__


@cache
def eager(folder: Path, shape: tuple[int, int]) -> torch.Tensor:
    return decoded(folder, shape, attn_implementation="eager")[0]


def assert_like_eager(folder: Path, shape: tuple[int, int], kind: str, **asked: object) -> None:
    logits, kind_seen = decoded(folder, shape, cache_implementation=kind, **asked)
    assert kind_seen == CACHES[kind]
    assert (logits - eager(folder, shape)).abs().max() < CLOSE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("attention", "kind"),
    [
        ("eager", "static"),
        *((attention, kind) for attention in ("sdpa", "sdpa:math", "sdpa:flash_attention") for kind in CACHES),
    ],
)
def test_attention_decodes_like_eager(tiny_model: Path, attention: str, kind: str, shape: tuple[int, int]) -> None:
    assert_like_eager(tiny_model, shape, kind, attn_implementation=attention)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", CACHES)
def test_masks_of_flex_attention(tiny_model: Path, kind: str, shape: tuple[int, int]) -> None:
    with torch.compiler.set_stance("force_eager"):  # the same masks, without a minute of compiling
        assert_like_eager(tiny_model, shape, kind, attn_implementation="flex_attention")


def test_a_mask_that_reads_the_length_of_the_cache_would_be_noticed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mask_of_a_live_length(**arguments: Any) -> Any:
        mask = flex_attention_mask(**arguments)
        mask.__class__ = loading.ContiguousBlockMask
        return mask

    monkeypatch.setattr(loading, "static_cache_mask", mask_of_a_live_length)
    with torch.compiler.set_stance("force_eager"), pytest.raises(AssertionError):
        assert_like_eager(tiny_model, (1, 0), "static", attn_implementation="flex_attention")
    monkeypatch.undo()
    loading.register_flex_attention()
    assert AttentionMaskInterface()[loading.FLEX_FOR_STATIC_CACHE] is loading.static_cache_mask


@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_kernels_of_flex_attention(tiny_model: Path) -> None:
    # Its prefill runs what flex attention compiles for itself, and its decoding steps the model's one graph.
    assert_like_eager(tiny_model, (2, 0), "static", attn_implementation="flex_attention", compile_mode="default")
    compilation = describe_compilation()
    assert (compilation["graphs"], compilation["recompiles"], compilation["fell_back"]) == (1, [], [])


def test_compiled_flex_attention_is_measured(bench: Bench) -> None:
    record = bench.measure(attn_implementation="flex_attention", compile_mode="default", timeout_seconds=MINUTES)
    assert record.status == OK, record.reason
    effective = record.effective
    assert effective["attn_implementation"] == record.requested["attn_implementation"] == "flex_attention"
    assert effective["attention_registered_as"] == "hfbench_flex_attention"
    assert list(effective["attention_functions"]) == ["transformers.integrations.flex_attention.flex_attention_forward"]
    assert effective["cache"] == "StaticCache"
    assert effective["cache_layers"] == {"StaticLayer": 2}
    assert effective["compilation"]["graphs"] == 2  # the checks compile flex attention otherwise: all is compiled anew
    assert effective["compilation"]["compiled_calls"] == 1  # a decoding step; the prefill enters flex's own only
