"""The language modelling task: predict the next word of running text from the words before it."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Batch, Loss
from sparse_bench.batch.language import IGNORED, HiddenState, LanguageBatch, LanguageOutput, LanguageSizes
from sparse_bench.data.text import EOS, UNK, NumberedText, TextCorpus
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.limits import Count, checked, one_of
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.cross_entropy import mean_cross_entropy
from sparse_bench.tasks.held_out import FEW, HeldOut
from sparse_bench.tasks.shares import refuse_unknown
from sparse_bench.tasks.text_batches import (
    Chunk,
    Sentences,
    beginning,
    columnise,
    evaluation_batches,
    line_starts,
    training_batches,
    training_chunks,
)

BATCHINGS = ("continuous", "sentences")


class LanguageModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, inputs: Tensor, state: HiddenState | None) -> LanguageOutput:
        """Scores of the tokens that follow ``inputs`` [T, B].

        ``state`` is the state that the previous call returned for the same streams; None at their beginning.
        """


class LanguageModellingTask(Task):
    """Predict every next token of a text.

    ``continuous``: the text is cut into ``batch_size`` parallel streams, which are read chunk by chunk. The hidden
    state is zero at the beginning of an epoch, and is then carried from chunk to chunk without gradient. The state
    belongs to the task, not to the model. The first batch of an epoch resets it, and a checkpoint restores it. So a
    task serves one run at a time.
    ``sentences``: every line is an independent sample with a zero initial state.

    Perplexity is exp of the mean cross-entropy over all predicted tokens. AWD-LSTM's code divides the sum by N instead
    of N − 1 in each stream, so its perplexities are very slightly lower.

    Where work is counted per example, an example is a token.

    Args:
        corpus: the text, or a function that reads it.
        batch_size: parallel streams, or sentences, in a training batch.
        bptt: nominal length of a chunk, and the length in evaluation.
        variable_length: draw the length of each chunk, and scale the step's learning rate by length / ``bptt`` (Merity
            et al. 2018, section 5). Otherwise every chunk has length ``bptt``.
        longest: upper limit of a variable length.
        batching: ``continuous`` or ``sentences``.
        evaluate_line_starts: whether evaluation counts the first word of each line. ``sentences`` never predicts one,
            so a comparison of the two batchings on the same words needs false.
        valid_batch_size: streams, or sentences, in a validation batch. Tokens that do not fill a stream are dropped.
        test_batch_size: the same for the test split.

    Raises:
        ConfigError: a setting outside its range.
        DataError: a text too short for so many streams.
    """

    name: ClassVar[str] = "language_modelling"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("perplexity", "min")
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "cross_entropy", "accuracy")
    splits: tuple[str, ...] = ("valid", "test")
    sizes: LanguageSizes

    @checked
    def __init__(
        self,
        *,
        corpus: TextCorpus | Callable[[], TextCorpus],
        batch_size: Count = 20,
        bptt: Annotated[int, Field(ge=2)] = 70,
        variable_length: bool = True,
        longest: Count = 110,
        batching: Annotated[str, one_of(*BATCHINGS)] = "continuous",
        evaluate_line_starts: bool = True,
        valid_batch_size: Count = 10,
        test_batch_size: Count = 1,
    ) -> None:
        if longest < bptt:
            raise ConfigError(f"longest ({longest}) has to be at least bptt ({bptt}).")
        self.corpus = corpus if isinstance(corpus, TextCorpus) else corpus()
        self.sizes = LanguageSizes(len(self.corpus.words), self.corpus.frequencies)
        self._batch_size, self._bptt, self._longest = batch_size, bptt, longest
        self._variable_length, self._batching = variable_length, batching
        self._evaluate_line_starts = evaluate_line_starts
        self._train = _layout("training", self.corpus.train, batch_size, batching, least=3)
        self._held_out = {
            "valid": self._evaluation_batches("validation", self.corpus.valid, valid_batch_size),
            "test": self._evaluation_batches("test", self.corpus.test, test_batch_size),
        }
        self._state: HiddenState | None = None
        self.unknown_tokens = {split: self._unknown(getattr(self.corpus, split)) for split in ("train", *self.splits)}
        refuse_unknown(self.unknown_tokens, f"dataset.corpus.vocabulary={len(self.corpus.words)}")

    def _unknown(self, text: NumberedText) -> float:
        """Share of ``<unk>`` among the words of a text, not counting ``<eos>``."""
        unknown, eos = (self.corpus.words.index(word) if word in self.corpus.words else -1 for word in (UNK, EOS))
        return float((text.tokens[text.tokens != eos] == unknown).mean())

    def inputs(self, split: str) -> list[bytes]:
        """The word numbers of every line."""
        text: NumberedText = getattr(self.corpus, split)
        ends = np.cumsum(text.lengths)
        return [text.tokens[end - length : end].tobytes() for end, length in zip(ends, text.lengths, strict=True)]

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[LanguageBatch]:
        if isinstance(self._train, Sentences):
            numbers = self._train.shuffled(self._batch_size, streams.numpy("data", epoch))
            yield from self._train.batches(numbers)
        else:
            yield from training_batches(self._train, self._chunks(self._train, epoch, streams), self._bptt)

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        if isinstance(self._train, Sentences):
            return len(self._train.ordered(self._batch_size))
        return len(self._chunks(self._train, epoch, streams))

    def _chunks(self, columns: Tensor, epoch: int, streams: Streams) -> list[Chunk]:
        draw = streams.numpy("data", epoch) if self._variable_length else None
        return training_chunks(columns.shape[0], self._bptt, self._longest, draw)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean cross-entropy per token, plus the model's penalties.

        The parts are ``cross_entropy``, ``accuracy`` of the next token before the update, and each penalty. The first
        two are weighted so that their average over the batches is the mean over the epoch's tokens.
        """
        assert isinstance(batch, LanguageBatch)
        if batch.starts:
            self.reset()
        output = cast(LanguageModel, model)(batch.inputs, _on(self._state, batch.inputs.device))
        self._state = tuple(tuple(tensor.detach() for tensor in layer) for layer in output.state)
        logits, targets = output.logits.flatten(0, 1), batch.targets.flatten()
        cross_entropy = mean_cross_entropy(logits, targets, IGNORED)
        # In bfloat16, torch's argmax takes several times as long on a CPU.
        correct = (logits.detach().max(dim=1).indices == targets).sum()
        total = cross_entropy
        for penalty in output.penalties.values():
            total = total + penalty
        return Loss(
            total=total,
            parts={
                "cross_entropy": cross_entropy.detach() * batch.weight,
                "accuracy": correct * (batch.weight / batch.tokens),
                **{name: penalty.detach() for name, penalty in output.penalties.items()},
            },
            examples=batch.tokens,
            tokens=batch.tokens,
            learning_rate_factor=batch.learning_rate_factor,
        )

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        batches: Sequence[LanguageBatch] = self._held_out[split].on_device_of(model)
        if few:
            batches = [beginning(batch, FEW) for batch in batches[:2]]
        state: HiddenState | None = None
        nats, correct = [], []
        for batch in batches:
            output = cast(LanguageModel, model)(batch.inputs, None if batch.starts else state)
            state = output.state
            logits, targets = output.logits.flatten(0, 1).float(), batch.targets.flatten()
            nats.append(F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum"))
            correct.append((logits.argmax(dim=1) == targets).sum())
        tokens = sum(batch.tokens for batch in batches)
        # The only synchronisation with the device. The host sums in double precision.
        mean = math.fsum(torch.stack(nats).tolist()) / tokens
        return {
            "perplexity": _exp(mean),
            "cross_entropy": mean,
            "accuracy": sum(torch.stack(correct).tolist()) / tokens,
        }

    def chance(self, split: str) -> Chance:
        """Accuracy of always predicting the most frequent training word, and perplexity of a uniform distribution.

        The latter equals the size of the vocabulary.
        """
        targets = torch.cat([batch.targets[batch.targets != IGNORED] for batch in self._held_out[split]])
        guess = self.sizes.frequencies.index(max(self.sizes.frequencies))
        return {
            "accuracy": ((targets == guess).double().mean().item(), "max"),
            "perplexity": (float(self.sizes.vocabulary), "min"),
        }

    def reset(self) -> None:
        """Reset the carried hidden state."""
        self._state = None

    def state_dict(self) -> dict[str, Any]:
        """The carried hidden state."""
        return {"hidden": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["hidden"]

    def _evaluation_batches(self, name: str, text: NumberedText, batch_size: int) -> HeldOut[LanguageBatch]:
        laid_out = _layout(name, text, batch_size, self._batching, least=2)
        if isinstance(laid_out, Sentences):
            return HeldOut(laid_out.batches(laid_out.ordered(batch_size)))
        if self._evaluate_line_starts:
            return HeldOut(evaluation_batches(laid_out, self._bptt))
        return HeldOut(evaluation_batches(laid_out, self._bptt, columnise(line_starts(text), batch_size)))


def _layout(name: str, text: NumberedText, streams: int, batching: str, least: int) -> Tensor | Sentences:
    """The text as sentences, or as parallel streams of at least ``least`` tokens."""
    if batching == "sentences":
        sentences = Sentences(text)
        if not sentences.ordered(streams):
            raise DataError(f"The {name} text has no line of two tokens or more.")
        return sentences
    columns = columnise(text.tokens, streams)
    if columns.shape[0] < least:
        raise DataError(
            f"The {name} text has {len(text.tokens)} tokens: too few for {streams} parallel streams of {least} or more."
        )
    return columns


def _on(state: HiddenState | None, device: torch.device) -> HiddenState | None:
    """Move ``state`` to ``device``, since a checkpoint is loaded onto the CPU."""
    return None if state is None else tuple(tuple(tensor.to(device) for tensor in layer) for layer in state)


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
