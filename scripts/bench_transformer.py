"""Time training steps of the transformer on Multi30k, from `torch.nn.Transformer` to ours improvement by improvement.

Every way of training does whole steps (forward, backward, Adam; d_model 512, d_inner 512, 2 + 2 layers, 64 sentence
pairs a batch) on real sentences of the report's files, in turn in one process; what is compared is real tokens of both
sides a second. Then the 1,000 test sentences are decoded, told on a page of its own (`…_decoding`).

    OMP_WAIT_POLICY=passive python scripts/bench_transformer.py --output results/performance/transformer.md

The ways in bfloat16 are left out on a processor that only emulates it.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from interleaved import Row, Step, bf16_is_native, interleave, parse, report
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.translation import EOS, PAD, TranslationBatch, TranslationSizes
from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.encoder_decoder import DecoderLayer
from sparse_bench.models.layers import sinusoids
from sparse_bench.models.transformer import Transformer
from sparse_bench.streams import Streams
from sparse_bench.tasks.translation import TranslationTask

#: Sentence pairs of a batch.
PAIRS = 64
_SIZE, _HEADS, _INNER, _LAYERS, _DROPOUT = 512, 8, 512, 2, 0.1


class TorchTransformer(nn.Module):
    """`torch.nn.Transformer` with default flags between embeddings and a vocabulary projection; all padded."""

    def __init__(self, sizes: TranslationSizes) -> None:
        super().__init__()
        self.source = nn.Embedding(sizes.source_vocabulary, _SIZE)
        self.target = nn.Embedding(sizes.target_vocabulary, _SIZE)
        self.transformer = nn.Transformer(_SIZE, _HEADS, _LAYERS, _LAYERS, _INNER, _DROPOUT)
        self.vocabulary = nn.Linear(_SIZE, sizes.target_vocabulary, bias=False)

    def forward(self, batch: TranslationBatch) -> Tensor:
        """Logits of every target cell [B · T, V]."""
        hidden, target_hidden = ~batch.source_mask, batch.target_input == PAD
        length = batch.target_input.shape[1]
        positions = sinusoids(max(length, batch.source.shape[1]), _SIZE, batch.source.device)[:, None]
        decoded = self.transformer(
            self.source(batch.source.t()) + positions[: batch.source.shape[1]],
            self.target(batch.target_input.t()) + positions[:length],
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=hidden,
            tgt_key_padding_mask=target_hidden,
            memory_key_padding_mask=hidden,
        )
        logits: Tensor = self.vocabulary(decoded.transpose(0, 1).reshape(-1, _SIZE))
        return logits


def every_cell(batch: TranslationBatch) -> TranslationBatch:
    """The batch as one that predicts every cell of the target's grid, padding included (and ignored by the loss)."""
    cells = torch.full((batch.target_input.numel(),), PAD)
    cells[batch.target_rows] = batch.target_output
    return dataclasses.replace(batch, target_rows=torch.arange(len(cells)), target_output=cells)


def use_torch_dropout(model: nn.Module) -> None:
    """Put torch's own dropout in place of the cheap one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.rate))


@dataclass(frozen=True)
class Way:
    """One way to train: what differs between the rows of the table."""

    name: str
    bucketed: bool
    ours: bool = True
    attention: str = "explicit"
    fused: bool = False
    real_tokens: bool = False
    cheap_dropout: bool = False
    bf16: bool = False

    def epoch(self, task: TranslationTask, batches: list[TranslationBatch]) -> Step:
        """A training step on each batch."""
        torch.manual_seed(0)
        model = Transformer(task.sizes, attention=self.attention) if self.ours else TorchTransformer(task.sizes)
        if not self.cheap_dropout:
            use_torch_dropout(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True if self.fused else None)
        chosen = batches if self.real_tokens else [every_cell(batch) for batch in batches]

        def steps() -> None:
            for batch in chosen:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                    if self.real_tokens:
                        loss = task.loss(model, batch).total
                    else:
                        loss = F.cross_entropy(model(batch), batch.target_output, ignore_index=PAD)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return steps


_LEAN = {"bucketed": True, "fused": True, "real_tokens": True}
WAYS = (
    Way("torch.nn.Transformer, random batches", bucketed=False, ours=False),
    Way("ours written plainly, random batches", bucketed=False),
    Way("+ batches of like length", bucketed=True),
    Way("+ SDPA, fused Adam, loss on real tokens alone", attention="sdpa", **_LEAN),
    Way("+ bf16 autocast", attention="sdpa", bf16=True, **_LEAN),
    Way("+ attention outside bf16 SDPA", attention="auto", bf16=True, **_LEAN),
    Way("+ cheap dropout", attention="auto", bf16=True, cheap_dropout=True, **_LEAN),
    Way("all of it in fp32", attention="auto", cheap_dropout=True, **_LEAN),
)


@dataclass
class Batches:
    """A few batches that stand for an epoch: evenly spaced among all of them in order of size."""

    random: list[TranslationBatch]
    bucketed: list[TranslationBatch]


def multi30k(count: int) -> tuple[TranslationTask, Batches]:
    """The task with length buckets, and ``count`` batches with and without them."""
    corpus = multi30k_brouns()
    chosen = []
    for bucketed in (False, True):
        task = TranslationTask(corpus=corpus, tokenizer="tokenised", min_count=5, batch_size=PAIRS, bucketed=bucketed)
        batches = [batch for batch in task.epoch_batches(0, Streams(0)) if batch.source.shape[0] == PAIRS]
        batches.sort(key=real_tokens)
        middles = (np.arange(count) + 0.5) * len(batches) / count
        chosen.append([batches[int(middle)] for middle in middles])
    return task, Batches(*chosen)


def real_tokens(batch: TranslationBatch) -> int:
    """Tokens of both sides that are no padding."""
    return int(batch.source_mask.sum()) + int(batch.target_lengths.sum())


def throughputs(ways: list[Way], task: TranslationTask, batches: Batches, seconds: float) -> Iterator[Row]:
    """A row for each way; what is compared with the first one and the one above are tokens over time."""
    chosen = {way.name: batches.bucketed if way.bucketed else batches.random for way in ways}
    tokens = {name: sum(map(real_tokens, found)) for name, found in chosen.items()}
    spent = interleave({way.name: way.epoch(task, chosen[way.name]) for way in ways}, seconds)
    first = above = ways[0].name

    def faster(name: str, base: str, of: str) -> str:
        ratios = spent[base].ratios(spent[name], of)[0]
        return f"{statistics.median(ratios) * tokens[name] / tokens[base]:.2f}"

    for name, times in spent.items():
        yield {
            "way": name,
            "× torch.nn.Transformer": faster(name, first, "clock"),
            "(processor)": faster(name, first, "processor"),
            "× row above (processor)": faster(name, above, "processor"),
            "real tokens/s": f"{tokens[name] / times.median:.0f}",
        }
        above = name


def never_ending(sizes: TranslationSizes) -> Transformer:
    """An untrained model whose EOS is so improbable that every hypothesis runs to the longest length."""
    torch.manual_seed(0)
    model = Transformer(sizes).eval()
    last = model.decoder[-1]
    assert isinstance(last, DecoderLayer)
    with torch.no_grad():
        # One feature of the decoder's output is far above 0, and only EOS looks at it.
        last.get_parameter("feed_forward_residual.norm.bias")[0] = 100.0
        model.vocabulary.weight[:, 0] = 0.0
        model.vocabulary.weight[EOS, 0] = -1.0
    return model


def decode(task: TranslationTask, beams: list[int]) -> Iterator[Row]:
    """Time to decode all test sentences with each beam, up to two limits."""
    order = np.lexsort((task.encoded.test.target_lengths, task.encoded.test.source.lengths))
    batches = [task.encoded.test.batch(pairs) for pairs in np.split(order, range(PAIRS, len(order), PAIRS))]
    model = never_ending(task.sizes)
    for limit in (None, task.sizes.longest):
        for beam in beams:
            tokens, begin, begin_processor = 0, time.perf_counter(), time.process_time()
            for batch in batches:
                longest = limit or batch.target_input.shape[1]
                translated = model.translate(batch.source, batch.source_mask, beam, longest)
                tokens += int((translated != PAD).sum())
            seconds, processor = time.perf_counter() - begin, time.process_time() - begin_processor
            yield {
                "limit": f"{limit} words, as in a run" if limit else "longest reference of the batch",
                "beam": beam,
                "seconds": f"{seconds:.1f}",
                "processor seconds": f"{processor:.1f}",
                "tokens/s": f"{tokens / seconds:.0f}",
            }


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        batches=(8, "of a round, for each way"),
        seconds=200.0,
        beams=([1, 4], "none: do not decode"),
        threads=torch.get_num_threads(),
    )
    task, batches = multi30k(given.batches)
    native = bf16_is_native(torch.device("cpu"))
    ways = [way for way in WAYS if native or not way.bf16]
    rows = list(throughputs(ways, task, batches, given.seconds))
    text = f"""
Processor time counts all threads; it is the steadier of the two on a machine that others use.

Whole dense steps with {PAIRS} sentence pairs (d_model {_SIZE}, d_inner {_INNER}, {_LAYERS} + {_LAYERS} layers, fp32
unless said otherwise). Throughput is real tokens of both sides on {given.batches} batches that stand for an epoch;
ratios are medians over rounds in which the ways take turns.
"""
    left_out = "; ".join(way.name for way in WAYS if way not in ways)
    notes = [f"Left out, as this processor only emulates bfloat16: {left_out}."] if left_out else []
    report(given.output, "Training with the transformer on Multi30k", text, rows, notes=notes)
    if given.beams:
        text = f"""
        Decoding the 1,000 test sentences in fp32, {PAIRS} at a time. Untrained weights, set so that no hypothesis ends
        before the limit. Trained ones end about where references do. The second limit is what a run allows each
        sentence, an upper bound of its time.
        """
        output = given.output and given.output.with_stem(f"{given.output.stem}_decoding")
        report(output, "Decoding with the transformer on Multi30k", text, list(decode(task, given.beams)))


if __name__ == "__main__":
    main()
