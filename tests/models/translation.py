"""Small translation batches and a plain transformer, written from the equations, to compare with."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparse_bench.batch.translation import BOS, EOS, PAD, TranslationBatch
from sparse_bench.models.transformer import Transformer

Sentence = Sequence[int]


def padded(sentences: Sequence[Sentence], extra: int = 0) -> Tensor:
    """Token numbers [B, longest + extra], padded."""
    length = max(map(len, sentences)) + extra
    return torch.tensor([[*sentence, *[PAD] * (length - len(sentence))] for sentence in sentences])


def batch_of(pairs: Sequence[tuple[Sentence, Sentence]], extra: int = 0) -> TranslationBatch:
    """The batch of these pairs, given without special tokens; ``extra`` columns of padding on both sides."""
    source = padded([[BOS, *source, EOS] for source, _ in pairs], extra)
    target_input = padded([[BOS, *target] for _, target in pairs], extra)
    lengths = torch.tensor([len(target) + 1 for _, target in pairs])
    real = torch.arange(target_input.shape[1]) < lengths[:, None]
    return TranslationBatch(
        source=source,
        source_mask=source != PAD,
        target_input=target_input,
        target_output=torch.tensor([token for _, target in pairs for token in [*target, EOS]]),
        target_rows=real.flatten().nonzero()[:, 0],
        target_sentence=torch.arange(len(pairs)).repeat_interleave(lengths),
        target_lengths=lengths,
    )


def plain_logits(model: Transformer, source: Sentence, target: Sentence, *, pre: bool, divisor: float) -> Tensor:
    """Logits after BOS and each token of ``target`` [len + 1, V]: one sentence, no padding, no cache, head by head."""
    memory = _positions(model, model.source_embedding, [BOS, *source, EOS])
    for layer in model.encoder:
        memory = _block(
            memory, layer.self_attention_residual, lambda y, a=layer.self_attention: _attend(a, y, y, divisor), pre
        )
        memory = _block(memory, layer.feed_forward_residual, layer.feed_forward, pre)
    memory = _norm(model.encoder_norm, memory) if pre else memory
    x = _positions(model, model.target_embedding, [BOS, *target])
    for layer in model.decoder:
        x = _block(
            x,
            layer.self_attention_residual,
            lambda y, a=layer.self_attention: torch.stack(
                [_attend(a, y[i : i + 1], y[: i + 1], divisor)[0] for i in range(len(y))]
            ),
            pre,
        )
        x = _block(
            x, layer.cross_attention_residual, lambda y, a=layer.cross_attention: _attend(a, y, memory, divisor), pre
        )
        x = _block(x, layer.feed_forward_residual, layer.feed_forward, pre)
    x = _norm(model.decoder_norm, x) if pre else x
    return x @ model.vocabulary.weight.t()


def _positions(model: Transformer, embedding: nn.Embedding, tokens: Sentence) -> Tensor:
    size = embedding.weight.shape[1]
    table = torch.empty(len(tokens), size)
    for position in range(len(tokens)):
        for i in range(size):
            angle = position / 10000 ** (2 * (i // 2) / size)
            table[position, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
    return embedding.weight[list(tokens)] * model.embedding_scale + table


def _block(x: Tensor, residual: nn.Module, block: object, pre: bool) -> Tensor:
    if pre:
        return x + block(_norm(residual.norm, x))
    return _norm(residual.norm, x + block(x))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    divisor = (variance + 1e-6).sqrt() if isinstance(norm, nn.LayerNorm) else variance.sqrt() + 1e-6
    return norm.weight * (x - mean) / divisor + norm.bias


def _attend(attention: nn.Module, x: Tensor, memory: Tensor, divisor: float) -> Tensor:
    query, keys, values = attention.query(x), attention.key(memory), attention.value(memory)
    heads = []
    for q, k, v in zip(*(y.chunk(attention.heads, dim=1) for y in (query, keys, values)), strict=True):
        weights = (q @ k.t() / divisor).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ v)
    return attention.output(torch.cat(heads, dim=1))
