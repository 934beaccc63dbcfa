"""How the held-out splits of every shipped dataset relate to its training data, as a Markdown table.

    python scripts/held_out.py [--datasets sara brown_pos ...] [--output results/data/held_out.md]

Corpora are fetched where they are absent; a dataset whose corpus cannot be had has a row that says so.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import CONF, choices, register
from sparse_bench.errors import DataError
from sparse_bench.run import task_of
from sparse_bench.tasks.dialogue import DialogueTask
from sparse_bench.tasks.shares import twin_share

#: What is compared, by the name of the task.
COMPARED = {
    "dialogue": "turns before an action",
    "intent": "messages, as they are counted",
    "language_modelling": "lines",
    "tagging": "sentences",
    "text_typing": "texts",
    "translation": "source sentences",
}
#: Splits that belong to their corpora; the others are the project's own.
PUBLISHED = {"multi30k", "multi30k_brouns", "ptb", "ptb_pos", "ted"}
COLUMNS = (
    "dataset",
    "its split",
    "held out",
    "what is compared",
    "number",
    "with a twin in training",
    "unknown tokens",
)
TEXT = """\
# What held-out examples have in common with training

A twin is a training example of which a model is given the very same. Unknown tokens are those that the vocabulary
lacks; of a translation, those of the language that has more of them. The settings are those in `conf/dataset`.
Written by `python scripts/held_out.py`.

{table}

Published splits stay as they are. In the project's own splits of messages and stories no test example is a training
example again (`duplicates: features`); the rows of `duplicates: exact` show what was repaired. Splits of the Brown
corpus are by document: what recurs there are short sentences and pieces of sentences, as in any two texts. The turns
before an action recur in all dialogues, also in those whose stories are all different, because many stories begin
alike: a policy is tested on whole stories, one action after the other.
"""


def rows(dataset: str) -> Iterator[tuple[str, ...]]:
    """The table's rows of one dataset, and of the same with exact duplicates alone left out."""
    node = compose("config", overrides=[f"dataset={dataset}"]).dataset
    yield from _rows(dataset, "published" if dataset in PUBLISHED else "the project's", node)
    for part in (node, node.corpus):
        if "duplicates" in part:
            part.duplicates = "exact"
            yield from _rows(f"{dataset}, `duplicates: exact`", "the project's, as it was", node)


def _rows(name: str, whose: str, node: DictConfig) -> Iterator[tuple[str, ...]]:
    try:
        task = task_of({"dataset": OmegaConf.to_container(node, resolve=True)})
    except DataError as error:
        print(f"{name}: {error}")
        yield (name, whose, *["not available"] * (len(COLUMNS) - 2))
        return
    for split in task.splits:
        shares, number = task.shares[split], len(task.inputs(split))
        unknown = f"{shares['unknown_tokens']:.1%}" if "unknown_tokens" in shares else "–"
        yield name, whose, split, COMPARED[task.name], *_twins(shares["twins"], number), unknown
    if isinstance(task, DialogueTask):
        slots = task.corpus.featurized_slots
        train, test = ([s.course(slots) for s in part] for part in (task.corpus.stories, task.corpus.test_stories))
        yield (
            name,
            whose,
            "test",
            "whole stories, as a policy sees them",
            *_twins(twin_share(train, test), len(test)),
            "–",
        )


def _twins(share: float, number: int) -> tuple[str, str]:
    return f"{number:,}", f"{share * number:,.0f} ({share:.1%})"


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=choices("dataset"), default=choices("dataset"))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    register()
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in arguments.datasets:
            lines += rows(name)
    text = TEXT.format(table="\n".join(f"| {' | '.join(line)} |" for line in lines))
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
