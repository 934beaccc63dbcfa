"""A translation model of a few lines, a corpus of a few sentences, and a model that knows all answers."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch.translation import EOS, PAD, TranslationBatch, TranslationSizes
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.models.base import Model
from sparse_bench.tasks.translation import TranslationTask

TRAIN = ParallelText(
    source=("a man runs .", "a dog runs fast .", "two men", "a man", "the dog sleeps .", "two dogs", "a dog"),
    target=("ein Mann läuft .", "ein Hund läuft .", "zwei Männer", "ein Mann", "der Hund schläft .", "Hunde", "Hund"),
)
VALID = ParallelText(source=("a man", "a cat runs ."), target=("ein Mann", "eine Katze läuft ."))
TEST = ParallelText(
    source=("a dog sleeps .", "two men", "a man"), target=("ein Hund schläft .", "zwei Männer", "ein Mann")
)


def small_corpus() -> ParallelCorpus:
    references = ("ein Hund schläft.", "zwei Männer", "ein Mann")
    return ParallelCorpus(("en", "de"), TRAIN, VALID, TEST, references, {"small": "0" * 64})


def make(**settings: Any) -> TranslationTask:
    return TranslationTask(**({"corpus": small_corpus, "tokenizer": "tokenised", "batch_size": 2} | settings))


class TinyTranslator(Model):
    """The next target token from the last one and the mean of the source; greedy decoding."""

    tasks: ClassVar = ("translation",)
    groups: ClassVar = ("default",)

    def __init__(self, sizes: TranslationSizes, *, width: int = 8) -> None:
        super().__init__()
        self.source = nn.Embedding(sizes.source_vocabulary, width)
        self.target = nn.Embedding(sizes.target_vocabulary, width)
        self.output = nn.Linear(width, sizes.target_vocabulary)

    def context(self, source: Tensor, mask: Tensor) -> Tensor:
        weights = mask / mask.sum(1, keepdim=True)
        return (self.source(source) * weights[:, :, None]).sum(1)

    def forward(self, batch: TranslationBatch) -> Tensor:
        states = self.target(batch.target_input) + self.context(batch.source, batch.source_mask)[:, None]
        return self.output(states.flatten(0, 1).index_select(0, batch.target_rows))

    def translate(self, source: Tensor, source_mask: Tensor, beam: int, longest: int, length_penalty: float) -> Tensor:
        context, last, said = self.context(source, source_mask), torch.full_like(source[:, 0], 2), []
        done = torch.zeros_like(last, dtype=torch.bool)
        for _ in range(longest):
            last = self.output(self.target(last) + context).argmax(1).masked_fill(done, PAD)
            done = done | (last == EOS)
            said.append(last)
        return torch.stack(said, dim=1)

    def layer_groups(self) -> dict[str, list[str]]:
        return {"default": ["output.weight"]}


class Oracle(nn.Module):
    """Says what is right; where ``wrong`` is set, the first token of every sentence is UNK instead."""

    def __init__(self, task: TranslationTask, wrong: bool = False) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.size, self.wrong = task.sizes.target_vocabulary, wrong
        self.asked: list[dict[str, Any]] = []
        self._answers = {
            tuple(row): answer
            for pairs in (task.encoded.test,)
            for row, answer in zip(self._rows(pairs.source), self._rows(pairs.target), strict=True)
        }

    @staticmethod
    def _rows(sentences: Any) -> list[list[int]]:
        return [sentences.tokens[s : s + n].tolist() for s, n in zip(sentences.starts, sentences.lengths, strict=True)]

    def forward(self, batch: TranslationBatch) -> Tensor:
        said = batch.target_output.clone()
        if self.wrong:
            said[batch.target_lengths.cumsum(0) - batch.target_lengths] = 1
        return F.one_hot(said, self.size) * 100.0

    def translate(self, source: Tensor, source_mask: Tensor, **settings: Any) -> Tensor:
        self.asked.append({"shape": tuple(source.shape), **settings})
        answers = [self._answers[tuple(row[mask].tolist())][1:] for row, mask in zip(source, source_mask, strict=True)]
        width = max(map(len, answers))
        return torch.tensor([[*answer, *[PAD] * (width - len(answer))] for answer in answers])
