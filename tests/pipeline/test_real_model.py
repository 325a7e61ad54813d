"""The embedded default model through the whole pipeline, as a newcomer measures it."""

import json
from pathlib import Path
from typing import Any

from tests.pipeline.checkout import QUICK_SAMPLING, clone


def test_the_default_model_is_measured(tmp_path: Path) -> None:
    checkout = clone(tmp_path / "checkout")

    def one_round(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa"], batch_size=[2])
        content["sweep"].update(sequence_length=[64], max_new_tokens=[16])
        content["sampling"].update(QUICK_SAMPLING)

    checkout.change_params(one_round)
    output = checkout.run("dvc", "repro").stdout
    assert "TTFT" in output
    assert "report: results/report.html" in output
    records = [json.loads(path.read_text()) for path in (checkout.folder / "results/measurements").glob("*.json")]
    assert [record["status"] for record in records] == ["ok", "ok"]
    for record in records:
        # Nats a token: a model whose weights or tokenizer are not its own is far above.
        assert record["output"]["prompt_nll"] < 4.5
        assert len(record["output"]["text"].split()) > 5
        assert record["effective"]["parameters"] == 134_515_008
    first, second = (record["output"]["prompt_top1"] for record in records)
    agreement = sum(left == right for left, right in zip(first, second, strict=True)) / len(first)
    assert agreement > 0.9
