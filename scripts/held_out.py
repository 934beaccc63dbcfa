"""How the held-out splits of every shipped dataset relate to its training data, as a Markdown table.

python scripts/held_out.py --datasets sara brown_pos --output results/data/held_out.md
"""

from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from interleaved import paragraphs, run, table_of, write
from omegaconf import DictConfig, OmegaConf

from sparse_bench.config import CONF, choices, register
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
#: Datasets of a user's own files need their names.
SHIPPED = tuple(name for name in choices("dataset") if "???" not in (CONF / f"dataset/{name}.yaml").read_text())
COLUMNS = ("its split", "held out", "what is compared", "number", "with a twin in training", "unknown tokens")
BEFORE = """
A twin is a training example of which a model is given the very same. Unknown tokens are those that the vocabulary
lacks; of a translation, those of the language that has more of them. The settings are those in `conf/dataset`.
Written by `python scripts/held_out.py`.
"""
AFTER = """
Published splits stay as they are. In the project's own splits of messages and stories no test example is a training
example again (`duplicates: features`); the rows of `duplicates: exact` show what was repaired. Splits of the Brown
corpus are by document: what recurs there are short sentences and pieces of sentences, as in any two texts. The turns
before an action recur in all dialogues, also in those whose stories are all different, because many stories begin
alike: a policy is tested on whole stories, one action after the other.
"""


def composed(dataset: str, *overrides: str) -> DictConfig:
    """A dataset's shipped configuration."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[f"dataset={dataset}", *overrides]).dataset


def cells(node: DictConfig) -> Iterator[tuple[str, ...]]:
    """What the table says of each split of a dataset."""
    task = task_of({"dataset": OmegaConf.to_container(node, resolve=True)})
    for split in task.splits:
        shares, number = task.shares[split], len(task.inputs(split))
        unknown = f"{shares['unknown_tokens']:.1%}" if "unknown_tokens" in shares else ""
        yield split, COMPARED[task.name], *_twins(shares["twins"], number), unknown
    if isinstance(task, DialogueTask):
        slots = task.corpus.featurized_slots
        train, test = ([s.course(slots) for s in part] for part in (task.corpus.stories, task.corpus.test_stories))
        yield "test", "whole stories, as a policy sees them", *_twins(twin_share(train, test), len(test)), ""


def _twins(share: float, number: int) -> tuple[str, str]:
    return f"{number:,}", f"{share * number:,.0f} ({share:.1%})"


def main(*, datasets: tuple[str, ...] = SHIPPED, output: Path | None = None) -> None:
    """Print the table and write it; a dataset has further rows with exact duplicates alone left out."""
    register()
    rows = []
    for dataset in datasets:
        node = composed(dataset)
        variants = [(dataset, "published" if dataset in PUBLISHED else "the project's", node)]
        for key in ("duplicates", "corpus.duplicates"):
            if OmegaConf.select(node, key) is not None:
                exact = composed(dataset, f"dataset.{key}=exact")
                variants.append((f"{dataset}, `duplicates: exact`", "the project's, as it was", exact))
        for name, whose, variant in variants:
            rows += [dict(zip(("dataset", *COLUMNS), (name, whose, *row), strict=True)) for row in cells(variant)]
    title = "# What held-out examples have in common with training"
    write("\n\n".join([title, *paragraphs(BEFORE), table_of(rows), *paragraphs(AFTER)]) + "\n", output)


if __name__ == "__main__":
    run(main)
