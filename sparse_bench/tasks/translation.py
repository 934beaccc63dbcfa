"""The translation task, with the losses and metrics of the report on SET in the Transformer and of the field."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_bench.batch import Batch, Loss
from sparse_bench.batch.translation import BOS, PAD, TranslationBatch, TranslationSizes
from sparse_bench.data.moses import TOKENIZERS, words_of
from sparse_bench.data.parallel import ParallelCorpus, ParallelText
from sparse_bench.limits import Count, Few, Many, NotNegative, Rate, checked, one_of
from sparse_bench.streams import Streams
from sparse_bench.tasks.base import Chance, Task
from sparse_bench.tasks.bucketing import bucketed_batches, random_batches
from sparse_bench.tasks.cross_entropy import weighted_cross_entropy
from sparse_bench.tasks.epoch_cache import EpochCache
from sparse_bench.tasks.held_out import Ordered
from sparse_bench.tasks.shares import refuse_unknown
from sparse_bench.tasks.translation_data import PairArrays, encode_corpus
from sparse_bench.tasks.translation_metrics import TranslationScores, teacher_forced_metrics

_LOSSES = ("sentence", "token")


class TranslationModel(Protocol):
    """What the task requires of a model."""

    def __call__(self, batch: TranslationBatch) -> Tensor:
        """Logits of every target token at each real target position [N, V], in the order of ``target_rows``."""

    def translate(
        self, source: Tensor, source_mask: Tensor, *, beam: int, longest: int, length_penalty: float
    ) -> Tensor:
        """Translations [B, at most ``longest``], int64: tokens without BOS, then EOS, then PAD.

        Args:
            source: token numbers [B, S], as in :class:`TranslationBatch`.
            source_mask: True at real positions [B, S].
            beam: hypotheses kept for each sentence; 1 is greedy decoding.
            longest: largest number of positions of a translation, EOS included.
            length_penalty: how much long hypotheses are favoured.
        """


class TranslationTask(Task):
    """Translate sentences of one language into another.

    The loss is token cross-entropy. ``sentence`` (the report's) averages it over each sentence's tokens, then over
    sentences; ``token`` averages it over all tokens of the batch. Padding never counts; UNK is an ordinary target. The
    metrics are :func:`teacher_forced_metrics` on both splits, and on the test split :class:`TranslationScores` of the
    model's translations.

    Args:
        corpus: the sentence pairs, or a function that reads them.
        tokenizer: ``moses`` for raw text; ``tokenised`` for tokenised text, which is split on single spaces.
        bpe: number of pieces of a byte-pair encoding, for each language, or for both together with
            ``joint_vocabulary``; None: words are tokens.
        min_count: least number of occurrences in the training sentences of a known token.
        joint_vocabulary: one vocabulary for both languages, as tied embeddings need it.
        batch_size: sentence pairs in a training batch.
        bucketed: batches of pairs with similar lengths (:func:`bucketed_batches`). Otherwise training batches are
            random, and held-out batches follow the order of the corpus.
        pool: see :func:`bucketed_batches`.
        loss: ``sentence`` or ``token``.
        label_smoothing: label smoothing of the training loss, from 0 to less than 1.
        evaluate_batch_size: sentences in a batch of :meth:`evaluate`.
        translate: whether the test split is translated and scored.
        beam: hypotheses kept for each sentence; 1 is greedy decoding.
        length_penalty: how much the search favours long translations.
        detokenise: score detokenised sentences against the raw references; otherwise score words between spaces against
            tokenised references.

    Raises:
        ConfigError: a setting outside its range.
        DataError: the corpus is not available.
    """

    name: ClassVar[str] = "translation"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("sentence_accuracy", "max")
    metrics: ClassVar[tuple[str, ...]] = ("sentence_accuracy", "token_accuracy", "loss", "perplexity")
    splits: tuple[str, ...] = ("valid", "test")
    sizes: TranslationSizes

    @checked
    def __init__(
        self,
        *,
        corpus: ParallelCorpus | Callable[[], ParallelCorpus],
        tokenizer: Annotated[str, one_of(*TOKENIZERS)] = "moses",
        bpe: Many | None = None,
        min_count: Count = 1,
        joint_vocabulary: bool = False,
        batch_size: Count = 64,
        bucketed: bool = True,
        pool: Count | None = None,
        loss: Annotated[str, one_of(*_LOSSES)] = "sentence",
        label_smoothing: Rate = 0.0,
        evaluate_batch_size: Count = 128,
        translate: bool = True,
        beam: Few = 4,
        length_penalty: NotNegative = 0.6,
        detokenise: bool = True,
    ) -> None:
        self.corpus = corpus if isinstance(corpus, ParallelCorpus) else corpus()
        self._batch_size, self._bucketed, self._pool = batch_size, bucketed, pool
        self._loss, self._label_smoothing = loss, label_smoothing
        self._translate, self._detokenise = translate, detokenise
        self._beam, self._length_penalty = beam, length_penalty

        self.encoded = encode_corpus(self.corpus, tokenizer, bpe, min_count, joint_vocabulary)
        self.train = self.encoded.train
        self.unknown_tokens = {split: getattr(self.encoded, split).unknown_tokens for split in ("train", *self.splits)}
        refuse_unknown(self.unknown_tokens, f"dataset.min_count={min_count}")
        self.sizes = self.encoded.sizes
        self._held_out: dict[str, Ordered[TranslationBatch]] = {}
        for split in self.splits:
            pairs = self._pairs(split)
            by_length = np.lexsort((pairs.target_lengths, pairs.source.lengths))
            order = by_length if bucketed else np.arange(len(pairs))
            self._held_out[split] = Ordered(pairs.batch, order, evaluate_batch_size)
        self._epoch_cache = EpochCache[list[np.ndarray]]()

    def inputs(self, split: str) -> tuple[str, ...]:
        """The source sentences."""
        text: ParallelText = getattr(self.corpus, split)
        return text.source

    def epoch_batches(self, epoch: int, streams: Streams) -> Iterator[TranslationBatch]:
        for pairs in self._epoch_pairs(epoch, streams):
            yield self.train.batch(pairs)

    def epoch_steps(self, epoch: int, streams: Streams) -> int:
        return len(self._epoch_pairs(epoch, streams))

    def _epoch_pairs(self, epoch: int, streams: Streams) -> list[np.ndarray]:
        """Numbers of the training pairs in each batch."""

        def batches(generator: np.random.Generator) -> list[np.ndarray]:
            if self._bucketed:
                lengths = self.train.source.lengths, self.train.target_lengths
                return bucketed_batches(*lengths, self._batch_size, generator, self._pool)
            return random_batches(len(self.train), self._batch_size, generator)

        return self._epoch_cache.get(epoch, streams, batches)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(batch, TranslationBatch)
        scores = cast(TranslationModel, model)(batch)
        sentences, tokens = batch.source.shape[0], batch.target_output.shape[0]
        if self._loss == "sentence":
            weights = (1.0 / (sentences * batch.target_lengths))[batch.target_sentence]
        else:
            weights = torch.full((tokens,), 1.0 / tokens, device=scores.device)
        total, nll = weighted_cross_entropy(scores, batch.target_output, weights, self._label_smoothing)
        return Loss(total=total, parts={"token_nll": nll.mean()}, examples=sentences, tokens=tokens)

    def _pairs(self, split: str) -> PairArrays:
        pairs: PairArrays = getattr(self.encoded, split)
        return pairs

    def measure(self, model: nn.Module, split: str, few: bool) -> dict[str, float]:
        held_out = self._held_out[split].few() if few else self._held_out[split]
        translation_scores: TranslationScores | None = None
        if split == "test" and self._translate:
            translation_scores = self._scores_of(np.sort(held_out.order)) if few else self.scores
        translator = cast(TranslationModel, model)
        measured: list[Tensor] = []
        translations: list[Tensor] = []
        for batch in held_out.on_device_of(model):
            scores = translator(batch)
            nll = F.cross_entropy(scores.float(), batch.target_output, reduction="none")
            measured.append(torch.stack([nll, (scores.argmax(dim=1) == batch.target_output).to(nll.dtype)]))
            if translation_scores is not None:
                translations.append(self._translations(translator, batch))
        # Results are copied from the device only now, so the host never waits in the loop.
        nll, right = torch.cat(measured, dim=1).cpu().numpy()
        metrics = teacher_forced_metrics(nll, right, self._pairs(split).target_lengths[held_out.order])
        if translation_scores is not None:
            found = torch.cat(translations).cpu().numpy()
            metrics |= translation_scores.score(self._sentences(found, held_out.order))
        return metrics

    def _translations(self, model: TranslationModel, batch: TranslationBatch) -> Tensor:
        """Translations of a batch, padded to the same length for all batches [B, longest].

        All sentences have the same length limit, so that no translation depends on the rest of its batch.
        """
        longest = self.sizes.longest
        found = model.translate(
            batch.source, batch.source_mask, beam=self._beam, longest=longest, length_penalty=self._length_penalty
        )
        return F.pad(found, (0, longest - found.shape[1]), value=PAD)

    def _sentences(self, translations: np.ndarray, order: np.ndarray) -> list[str]:
        """Translations as text, reordered from the order of the batches to that of the corpus."""
        target = self.encoded.target
        join = target.words.join if self._detokenise else " ".join
        return [join(target.translation(translations[row])) for row in np.argsort(order)]

    @cached_property
    def scores(self) -> TranslationScores:
        """Scores of translations of all test sentences against their references."""
        return self._scores_of(range(len(self.encoded.test)))

    def _scores_of(self, pairs: Iterable[int]) -> TranslationScores:
        """Scores of translations of the test sentences with these numbers against their references."""
        language = self.corpus.languages[1]
        if self._detokenise:
            references = [self.corpus.references[pair] for pair in pairs]
            return TranslationScores(references, words_of("moses", language).split, language, tokenised=False)
        references = [" ".join(self.encoded.test_words[pair]) for pair in pairs]
        return TranslationScores(references, str.split, language, tokenised=True)

    def chance(self, split: str) -> Chance:
        """Accuracies of always predicting the most frequent training token, and perplexity of a uniform distribution.

        EOS counts as a token.
        """
        pairs = {"valid": self.encoded.valid, "test": self.encoded.test}[split]
        gold = pairs.target.tokens[pairs.target.tokens != BOS]
        guess = np.bincount(self.train.target.tokens[self.train.target.tokens != BOS]).argmax()
        nll = np.full(len(gold), math.log(self.sizes.target_vocabulary))
        found = teacher_forced_metrics(nll, gold == guess, pairs.target_lengths)
        return {
            "sentence_accuracy": (found["sentence_accuracy"], "max"),
            "token_accuracy": (found["token_accuracy"], "max"),
            "perplexity": (found["perplexity"], "min"),
        }

    def notes(self) -> dict[str, str]:
        """The tokenizer, and the signature of every score if translations are scored."""
        notes = {"tokenizer": self.encoded.target.words.describe()}
        return notes | self.scores.signatures() if self._translate else notes
