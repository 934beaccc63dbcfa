"""Time training steps of the transformer on Multi30k, from `torch.nn.Transformer` to ours improvement by improvement.

Every way of training does whole steps (forward, backward, Adam; d_model 512, d_inner 512, 2 + 2 layers, 64 sentence
pairs a batch) on real sentences of the report's files, in turn in one process; what is compared is real tokens of both
sides a second. Then the 1,000 test sentences are decoded. Writes a table in Markdown.

    OMP_WAIT_POLICY=passive python scripts/bench_transformer.py --output results/performance/transformer.md

The ways in bfloat16 are left out on a processor that only emulates it (`--bf16 yes` measures them all the same).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from interleaved import bf16_is_native, describe_machine, write
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.translation import EOS, PAD, TranslationBatch, TranslationSizes
from sparse_bench.data.multi30k import multi30k_brouns
from sparse_bench.environment import tune_process
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.encoder_decoder import DecoderLayer
from sparse_bench.models.layers import sinusoids
from sparse_bench.models.transformer import Transformer
from sparse_bench.streams import Streams
from sparse_bench.tasks.translation import TranslationTask
from sparse_bench.training import checkpoint

_BATCH = 64
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

    def trainer(self, task: TranslationTask) -> Callable[[TranslationBatch], None]:
        """A function that makes one training step."""
        torch.manual_seed(0)
        ours = Transformer(task.sizes, attention=self.attention) if self.ours else None
        model = ours or TorchTransformer(task.sizes)
        if not self.cheap_dropout:
            use_torch_dropout(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True if self.fused else None)

        def step(batch: TranslationBatch) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                if self.real_tokens:
                    loss = task.loss(model, batch).total
                else:
                    loss = F.cross_entropy(model(batch), batch.target_output, ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    def prepared(self, batches: Batches) -> list[TranslationBatch]:
        """The batches that this way trains on."""
        chosen = batches.bucketed if self.bucketed else batches.random
        return chosen if self.real_tokens else [every_cell(batch) for batch in chosen]


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


# ---- timing ------------------------------------------------------------------------------------------------------


@dataclass
class Batches:
    """A few batches that stand for an epoch: evenly spaced among all of them in order of size."""

    random: list[TranslationBatch]
    bucketed: list[TranslationBatch]

    @classmethod
    def of(cls, tasks: dict[bool, TranslationTask], count: int) -> Batches:
        """``count`` batches of each kind, from tasks with and without length buckets."""
        chosen = {}
        for bucketed, task in tasks.items():
            batches = [batch for batch in task.epoch_batches(0, Streams(0)) if batch.source.shape[0] == _BATCH]
            batches.sort(key=real_tokens)
            middles = (np.arange(count) + 0.5) * len(batches) / count
            chosen[bucketed] = [batches[int(middle)] for middle in middles]
        return cls(random=chosen[False], bucketed=chosen[True])


def real_tokens(batch: TranslationBatch) -> int:
    """Tokens of both sides that are no padding."""
    return int(batch.source_mask.sum()) + int(batch.target_lengths.sum())


@dataclass
class Rates:
    """Real tokens of each round, over seconds of the clock and over seconds of all threads' processor time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def throughputs(ways: Sequence[Way], task: TranslationTask, batches: Batches, rounds: int) -> dict[str, Rates]:
    """What each way reaches; the ways take turns batch by batch."""
    steps = {way.name: way.trainer(task) for way in ways}
    prepared = {way.name: way.prepared(batches) for way in ways}
    tokens = {name: sum(real_tokens(batch) for batch in chosen) for name, chosen in prepared.items()}
    found = {way.name: Rates() for way in ways}
    for name, step in steps.items():
        step(prepared[name][0])
    for number in range(rounds):
        clock, processor = dict.fromkeys(steps, 0.0), dict.fromkeys(steps, 0.0)
        for place in range(len(batches.random)):
            for name, step in steps.items():
                begin, begin_processor = time.perf_counter(), time.process_time()
                step(prepared[name][place])
                clock[name] += time.perf_counter() - begin
                processor[name] += time.process_time() - begin_processor
        for name, rates in found.items():
            rates.clock.append(tokens[name] / clock[name])
            rates.processor.append(tokens[name] / processor[name])
            print(f"round {number + 1}: {rates.clock[-1]:.0f} tokens/s, {name}", flush=True)
    return found


def ratio(values: list[float], base: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(value / other for value, other in zip(values, base, strict=True))


# ---- decoding ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoding:
    """Time to decode all test sentences."""

    what: str
    beam: int
    tokens: int
    seconds: float
    processor_seconds: float


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


def decode(model: Transformer, batches: list[TranslationBatch], limit: int | None, beams: list[int]) -> list[Decoding]:
    """Decode with each beam, at most ``limit`` positions; None: as many as the longest reference of a batch has."""
    found = []
    for beam in beams:
        tokens, begin, begin_processor = 0, time.perf_counter(), time.process_time()
        for batch in batches:
            longest = limit or batch.target_input.shape[1]
            translated = model.translate(batch.source, batch.source_mask, beam, longest)
            tokens += int((translated != PAD).sum())
        what = f"{limit} words, as in a run" if limit else "longest reference of the batch"
        seconds = time.perf_counter() - begin, time.process_time() - begin_processor
        found.append(Decoding(what, beam, tokens, *seconds))
        print(found[-1], flush=True)
    return found


def decodings(task: TranslationTask, weights: Path | None, beams: list[int]) -> tuple[str, list[Decoding]]:
    """What was decoded with, and the times."""
    order = np.lexsort((task.encoded.test.target_lengths, task.encoded.test.source.lengths))
    cuts = range(_BATCH, len(order), _BATCH)
    batches = [task.encoded.test.batch(pairs) for pairs in np.split(order, cuts)]
    if weights is not None:
        model = Transformer(task.sizes).eval()
        model.load_state_dict(checkpoint.load(weights)["model"])
        return "Trained weights.", decode(model, batches, task.sizes.longest, beams)
    model = never_ending(task.sizes)
    text = "Untrained weights, set so that no hypothesis ends before the limit. Trained ones end about "
    text += "where references do. The second limit is what a run allows each sentence, an upper bound of its time."
    return text, decode(model, batches, None, beams) + decode(model, batches, task.sizes.longest, beams)


def report(found: dict[str, Rates], left_out: list[str], batches: int, text: str, decoded: list[Decoding]) -> str:
    """Both tables as Markdown, ratios first."""
    first = above = next(iter(found.values()))
    lines = [
        "# Training and decoding with the transformer on Multi30k",
        "",
        "Made by `OMP_WAIT_POLICY=passive python scripts/bench_transformer.py --output FILE`. "
        f"{describe_machine()}. Processor time counts all threads; it is the "
        "steadier of the two on a machine that others use.",
        "",
        f"Whole dense steps with {_BATCH} sentence pairs (d_model {_SIZE}, d_inner {_INNER}, {_LAYERS} + {_LAYERS} "
        f"layers, fp32 unless said otherwise). Throughput is real tokens of both sides on {batches} batches that stand "
        f"for an epoch; ratios are medians over {len(first.clock)} rounds in which the ways take turns.",
        "",
        "| | × torch.nn.Transformer | (processor) | × row above (processor) | real tokens/s |",
        "|:--|--:|--:|--:|--:|",
    ]
    for name, rates in found.items():
        lines.append(
            f"| {name} | {ratio(rates.clock, first.clock):.2f} | {ratio(rates.processor, first.processor):.2f} "
            f"| {ratio(rates.processor, above.processor):.2f} | {statistics.median(rates.clock):.0f} |"
        )
        above = rates
    if left_out:
        lines += ["", f"Left out, as this processor only emulates bfloat16: {'; '.join(left_out)}."]
    if decoded:
        lines += [
            "",
            f"Decoding the 1,000 test sentences in fp32, {_BATCH} at a time. {text}",
            "",
        ]
        lines += ["| limit | beam | seconds | processor seconds | tokens/s |", "|:--|--:|--:|--:|--:|"]
    for run in decoded:
        times = f"{run.seconds:.1f} | {run.processor_seconds:.1f} | {run.tokens / run.seconds:.0f}"
        lines.append(f"| {run.what} | {run.beam} | {times} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="batches of a round, for each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument("--beams", type=int, nargs="*", default=[1, 4], help="none: do not decode")
    parser.add_argument("--weights", type=Path, help="weights.pt of a run with the default model, to decode with")
    parser.add_argument("--output", type=Path, help="file to write the tables to")
    arguments = parser.parse_args()
    tune_process()
    torch.set_num_threads(arguments.threads)

    corpus = multi30k_brouns()
    tasks = {
        bucketed: TranslationTask(
            corpus=corpus, tokenizer="tokenised", min_count=5, batch_size=_BATCH, bucketed=bucketed
        )
        for bucketed in (False, True)
    }
    batches = Batches.of(tasks, arguments.batches)
    native = arguments.bf16 == "yes" or (arguments.bf16 == "auto" and bf16_is_native(torch.device("cpu")))
    ways = [way for way in WAYS if native or not way.bf16]
    found = throughputs(ways, tasks[True], batches, arguments.rounds)
    text, decoded = decodings(tasks[True], arguments.weights, arguments.beams) if arguments.beams else ("", [])
    table = report(found, [way.name for way in WAYS if way not in ways], arguments.batches, text, decoded)
    write(table, arguments.output)


if __name__ == "__main__":
    main()
