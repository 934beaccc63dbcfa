"""What counting alone reaches on the benchmark's tasks, on the same data.

    python scripts/benchmark_baselines.py --output results/benchmark/baselines.csv

"targets" counts the targets alone: the most frequent one, or their frequencies. It is score 0 of the benchmark. "pairs"
counts each target with what it depends on most. This is the word before it (translation; language, as interpolated
bigrams), the word (tagging, entities), or the latest turn (dialogue). A model that does no better has learned no more
than counts.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from interleaved import parse
from ngram_reference import fitted, perplexity
from omegaconf import OmegaConf

from sparse_bench.batch.translation import BOS
from sparse_bench.benchmark.tasks import TASKS, Task
from sparse_bench.data.dialogues import LISTEN
from sparse_bench.evidence.csv_tables import csv_text
from sparse_bench.record import write_atomically
from sparse_bench.run import task_of
from sparse_bench.sweeps import shipped_config
from sparse_bench.tasks.dialogue import action_metrics
from sparse_bench.tasks.intent_metrics import entity_metrics


def guesses(contexts: Sequence[Hashable], targets: Sequence[int], asked: Sequence[Hashable]) -> np.ndarray:
    """The most frequent target of each context in ``asked``; of all, for a context that training lacks."""
    counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for context, target in zip(contexts, targets, strict=True):
        counts[context][int(target)] += 1
    most, all_of_them = {context: found.most_common(1)[0][0] for context, found in counts.items()}, Counter(targets)
    return np.array([most.get(context, int(all_of_them.most_common(1)[0][0])) for context in asked])


def translation(task: Any) -> tuple[float, float]:
    """Accuracies of the next target token."""
    sides = []
    for pairs in (task.train, task.encoded.test):
        tokens = pairs.target.tokens
        sides.append([(int(a), int(b)) for a, b in pairwise(tokens) if b != BOS])
    (before, after), (asked, gold) = (tuple(zip(*side, strict=True)) for side in sides)
    return accuracy(before, after, asked, gold)


def language(task: Any) -> tuple[float, float]:
    """Perplexities of unigrams and bigrams."""
    train, test = ([str(n) for n in part.tokens] for part in (task.corpus.train, task.corpus.test))
    one, two = (perplexity(fitted(train, order), test, order) for order in (1, 2))
    return one, two


def tagging(task: Any) -> tuple[float, float]:
    """Accuracies of tags."""
    sides = [
        [pair for words, tags in part for pair in zip(words, tags, strict=True)]
        for part in (task.corpus.train, task.corpus.test)
    ]
    numbers = {tag: number for number, tag in enumerate(task.corpus.tags)}
    (words, tags), (asked, gold) = (tuple(zip(*side, strict=True)) for side in sides)
    return accuracy(words, [numbers[tag] for tag in tags], asked, [numbers[tag] for tag in gold])


def entities(task: Any) -> tuple[float, float]:
    """F1 of entities: with the most frequent tag, which is that of no entity, and that of each word."""
    words, asked = ([word for text in task.inputs(split) for word in text] for split in ("train", "test"))
    gold, tags, lengths = task.test.tags, task.train.tags, task.test.lengths
    found = (guesses([0] * len(words), tags, [0] * len(asked)), guesses(words, tags, asked))
    one, two = (entity_metrics(gold, guess, lengths)["entity_f1"] for guess in found)
    return one, two


def dialogue(task: Any) -> tuple[float, float]:
    """Weighted F1 of actions."""
    turns, asked = ([found[-1] for found in task.inputs(split)] for split in ("train", "test"))
    gold, actions = task.test.actions, task.train.actions
    found = (guesses([0] * len(turns), actions, [0] * len(asked)), guesses(turns, actions, asked))
    listen = task.corpus.actions.index(LISTEN)
    one, two = (action_metrics(gold, guess, listen)["action_f1"] for guess in found)
    return one, two


def accuracy(
    contexts: Sequence[Hashable], targets: Sequence[int], asked: Sequence[Hashable], gold: Sequence[int]
) -> tuple[float, float]:
    """Shares of ``gold`` that the most frequent target, and the most frequent one of each context, get right."""
    alone = guesses([0] * len(targets), targets, [0] * len(gold))
    paired = guesses(contexts, targets, asked)
    return float((alone == np.array(gold)).mean()), float((paired == np.array(gold)).mean())


COUNTED = {
    "translation": translation,
    "lstm": language,
    "awd_lstm": language,
    "tagging": tagging,
    "entities": entities,
    "dialogue": dialogue,
}


def rows(task: Task) -> list[dict[str, object]]:
    """Both rows of a task."""
    dataset = OmegaConf.to_container(shipped_config(task.experiment).dataset, resolve=True)
    values = COUNTED[task.name](task_of({"dataset": dataset}))
    return [
        {"task": task.name, "metric": task.metric, "counts": kind, "value": value}
        for kind, value in zip(("targets", "pairs"), values, strict=True)
    ]


def main() -> None:
    """Count, print and write."""
    given = parse(__doc__ or "")
    text = csv_text(pd.DataFrame([row for task in TASKS for row in rows(task)]))
    print(text, end="")
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.output, text.encode())


if __name__ == "__main__":
    main()
