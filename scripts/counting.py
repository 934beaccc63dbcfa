"""What counting alone reaches: a model that does no better has learned no more than counts.

python scripts/counting.py benchmark --output results/benchmark/baselines.csv
python scripts/counting.py ngrams --output results/demeester/ngram_reference.md
python scripts/counting.py ngrams --without-eos --output results/sparselang/ngram_reference.md
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from interleaved import run, table_of, write
from nltk.lm import WittenBellInterpolated
from nltk.util import everygrams
from omegaconf import OmegaConf

from sparse_bench.batch.translation import BOS
from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.data.dialogues import LISTEN
from sparse_bench.data.ptb import ptb
from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.run import task_of
from sparse_bench.sweeps import shipped_config
from sparse_bench.tasks.dialogue import action_metrics
from sparse_bench.tasks.intent_metrics import entity_metrics


def ngrams(*, without_eos: bool = False, output: Path | None = None) -> None:
    """Perplexities of unigrams and bigrams on the Penn Treebank, whole and reduced; SparseLang drops line ends."""
    rows = []
    for fraction, vocabulary in ((0.05, 2000), (0.25, 5000), (1.0, 10_000)):
        corpus = ptb(fraction, vocabulary, not without_eos)
        train, *held_out = ([str(n) for n in part.tokens] for part in (corpus.train, corpus.valid, corpus.test))
        for order, kind in enumerate(("unigrams", "bigrams"), start=1):
            valid, test = (f"{value:.1f}" for value in perplexities(train, held_out, order))
            sizes = {"training lines": f"{fraction:.0%}", "word types": f"{vocabulary:,}"}
            rows.append({**sizes, "": kind, "perplexity (valid)": valid, "perplexity (test)": test})
    text = (
        "Perplexities of word frequencies (unigrams) and of interpolated pairs (bigrams, Witten and Bell) on the Penn "
        f"Treebank, whole and reduced, {'without' if without_eos else 'with'} line ends. A model that does no "
        "better than unigrams has learned nothing of the order of words."
    )
    write(f"# What counting alone reaches\n\n{text}\n\n{table_of(rows)}", output)


def perplexities(train: list[str], texts: Sequence[list[str]], order: int) -> list[float]:
    """Of all tokens of each running text but its first, as interpolated n-grams of a training text predict them.

    A word that training lacks would have probability 0; there is none, as the vocabulary is counted there.
    """
    model = WittenBellInterpolated(order)
    model.fit([everygrams(train, max_len=order)], vocabulary_text=train)
    found = []
    for text in texts:
        nats = 0.0
        for (before, word), times in Counter(pairwise(text)).items():
            nats -= times * math.log(model.score(word, [before] if order == 2 else None))
        found.append(math.exp(nats / (len(text) - 1)))
    return found


def benchmark(*, output: Path | None = None) -> None:
    """Two scores of each task of the benchmark, on its data.

    "targets" counts the targets alone: the most frequent one, or their frequencies. It is score 0 of the benchmark.
    "pairs" counts each target with what it depends on most.
    """
    counted = {"translation": translation, "tagging": tagging, "entities": entities, "dialogue": dialogue}
    rows = []
    for task in TASKS:
        dataset = OmegaConf.to_container(shipped_config(task.experiment).dataset, resolve=True)
        values = counted.get(task.name, language)(task_of({"dataset": dataset}))
        for kind, value in zip(("targets", "pairs"), values, strict=True):
            rows.append({"task": task.name, "metric": task.metric, "counts": kind, "value": value})
    write(csv_text(pd.DataFrame(rows)), output)


def guesses(contexts: Sequence[Hashable], targets: Sequence[Any], asked: Sequence[Hashable]) -> np.ndarray:
    """The most frequent target of each context in ``asked``; of all, for a context that training lacks."""
    counts: dict[Hashable, Counter[Any]] = defaultdict(Counter)
    for context, target in zip(contexts, targets, strict=True):
        counts[context][target] += 1
    most, of_all = (
        {c: found.most_common(1)[0][0] for c, found in each.items()} for each in (counts, {0: Counter(targets)})
    )
    return np.array([most.get(context, of_all[0]) for context in asked])


def alone_and_paired(
    contexts: Sequence[Hashable], targets: Sequence[Any], asked: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Guesses without and with the context."""
    return guesses([0] * len(targets), targets, [0] * len(asked)), guesses(contexts, targets, asked)


def language(task: Any) -> list[float]:
    """Perplexities of unigrams and bigrams."""
    train, test = ([str(n) for n in part.tokens] for part in (task.corpus.train, task.corpus.test))
    return [perplexities(train, [test], order)[0] for order in (1, 2)]


def translation(task: Any) -> list[float]:
    """Accuracies of the next target token, by the one before."""
    return accuracies(
        *([p for p in pairwise(part.target.tokens) if p[1] != BOS] for part in (task.train, task.encoded.test))
    )


def tagging(task: Any) -> list[float]:
    """Accuracies of tags, by the word."""
    sides = (task.corpus.train, task.corpus.test)
    return accuracies(*([p for words, tags in part for p in zip(words, tags, strict=True)] for part in sides))


def accuracies(train: list[tuple[Hashable, Any]], test: list[tuple[Hashable, Any]]) -> list[float]:
    """Shares of the test's targets that are guessed, from pairs of a context and a target."""
    (contexts, targets), (asked, gold) = (tuple(zip(*side, strict=True)) for side in (train, test))
    return [float((found == np.array(gold)).mean()) for found in alone_and_paired(contexts, targets, asked)]


def entities(task: Any) -> list[float]:
    """F1 of entities: with the most frequent tag, which is that of no entity, and that of each word."""
    words, asked = ([word for text in task.inputs(split) for word in text] for split in ("train", "test"))
    found = alone_and_paired(words, task.train.tags.tolist(), asked)
    return [entity_metrics(task.test.tags, guess, task.test.lengths)["entity_f1"] for guess in found]


def dialogue(task: Any) -> list[float]:
    """Weighted F1 of actions, by the latest turn."""
    turns, asked = ([history[-1] for history in task.inputs(split)] for split in ("train", "test"))
    found, listen = alone_and_paired(turns, task.train.actions.tolist(), asked), task.corpus.actions.index(LISTEN)
    return [action_metrics(task.test.actions, guess, listen)["action_f1"] for guess in found]


if __name__ == "__main__":
    run(ngrams, benchmark)
