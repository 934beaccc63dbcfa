"""Time dense training steps of the transformer, from `torch.nn.Transformer` to ours improvement by improvement.

OMP_WAIT_POLICY=passive python scripts/bench_transformer.py

Passive waiting matters where other programs use the cores: threads that spin at barriers then wait for each other
several times as long.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from bench_models import multi30k, real_tokens, training_step, translation_loss
from interleaved import Row, Step, bf16_is_native, interleave, measure
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.translation import PAD, TranslationBatch, TranslationSizes
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.layers import sinusoids
from sparse_bench.models.transformer import Transformer


class TorchTransformer(nn.Module):
    """`torch.nn.Transformer` with default flags between embeddings and a vocabulary projection; all padded."""

    def __init__(self, sizes: TranslationSizes, size: int = 512) -> None:
        super().__init__()
        self.source = nn.Embedding(sizes.source_vocabulary, size)
        self.target = nn.Embedding(sizes.target_vocabulary, size)
        self.transformer = nn.Transformer(size, 8, 2, 2, dim_feedforward=512, dropout=0.1)
        self.vocabulary = nn.Linear(size, sizes.target_vocabulary, bias=False)

    def forward(self, batch: TranslationBatch) -> Tensor:
        """Logits of every target cell [B · T, V]."""
        hidden, length = ~batch.source_mask, batch.target_input.shape[1]
        size = self.vocabulary.in_features
        positions = sinusoids(max(length, batch.source.shape[1]), size, batch.source.device)[:, None]
        decoded = self.transformer(
            self.source(batch.source.t()) + positions[: batch.source.shape[1]],
            self.target(batch.target_input.t()) + positions[:length],
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=hidden,
            tgt_key_padding_mask=batch.target_input == PAD,
            memory_key_padding_mask=hidden,
        )
        logits: Tensor = self.vocabulary(decoded.transpose(0, 1).reshape(-1, size))
        return logits


def every_cell(batch: TranslationBatch) -> TranslationBatch:
    """The batch as one that predicts every cell of the target's grid, padding included (and ignored by the loss)."""
    cells = torch.full((batch.target_input.numel(),), PAD)
    cells[batch.target_rows] = batch.target_output
    return dataclasses.replace(batch, target_rows=torch.arange(len(cells)), target_output=cells)


def padded_loss(model: nn.Module, batch: TranslationBatch) -> Tensor:
    """Of every cell."""
    return F.cross_entropy(model(batch), batch.target_output, ignore_index=PAD)


def use_torch_dropout(model: nn.Module) -> None:
    """Put torch's own dropout in place of the cheap one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.rate))


_LEAN = {"bucketed": True, "lean": True}
#: Row of the table → how it trains. `lean`: fused Adam, and a loss on real tokens alone.
WAYS: dict[str, dict[str, Any]] = {
    "torch.nn.Transformer, random batches": {"attention": None},
    "ours written plainly, random batches": {},
    "+ batches of like length": {"bucketed": True},
    "+ SDPA, fused Adam, loss on real tokens alone": {"attention": "sdpa", **_LEAN},
    "+ bf16 autocast": {"attention": "sdpa", "bf16": True, **_LEAN},
    "+ attention outside bf16 SDPA": {"attention": "auto", "bf16": True, **_LEAN},
    "+ cheap dropout": {"attention": "auto", "bf16": True, "cheap_dropout": True, **_LEAN},
    "all of it in fp32": {"attention": "auto", "cheap_dropout": True, **_LEAN},
}


def transformer(
    *, batches: int = 8, seconds: float = 200.0, threads: int = torch.get_num_threads()
) -> Iterator[Row | str]:
    """Training with the transformer on Multi30k.

    Whole dense steps with 64 sentence pairs: forward, backward, Adam; d_model 512, d_inner 512, 2 + 2 layers, fp32
    unless said otherwise. Throughput is real tokens of both sides on batches that stand for an epoch; ratios are
    medians over rounds in which the ways take turns. Processor time counts all threads; it is the steadier of the two
    on a machine that others use.
    """
    data = {bucketed: multi30k(batches, bucketed) for bucketed in (False, True)}
    arms, tokens = dict[str, Step](), dict[str, int]()
    native = bf16_is_native(torch.device("cpu"))
    for name, way in WAYS.items():
        if way.get("bf16") and not native:
            yield f"“{name}” is left out, as this processor only emulates bfloat16."
            continue
        task, chosen = data[way.get("bucketed", False)]
        tokens[name] = sum(map(real_tokens, chosen))
        attention = way.get("attention", "explicit")
        model = Transformer(task.sizes, attention=attention) if attention else TorchTransformer(task.sizes)
        if not way.get("cheap_dropout"):
            use_torch_dropout(model)
        lean = way.get("lean", False)
        arms[name] = training_step(
            model,
            translation_loss(task) if lean else padded_loss,
            chosen if lean else [every_cell(batch) for batch in chosen],
            bf16=way.get("bf16", False),
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-4, fused=lean or None),
        )
    spent = interleave(arms, seconds)
    first = above = next(iter(arms))

    def faster(name: str, base: str, of: str) -> str:
        return f"{spent[base].over(spent[name], of) * tokens[name] / tokens[base]:.2f}"

    for name, times in spent.items():
        yield {
            "way": name,
            "× torch.nn.Transformer": faster(name, first, "clock"),
            "(processor)": faster(name, first, "processor"),
            "× row above (processor)": faster(name, above, "processor"),
            "real tokens/s": f"{1e3 * tokens[name] / times.ms():.0f}",
        }
        above = name


if __name__ == "__main__":
    measure(transformer)
