"""How the held-out splits of every shipped dataset relate to its training data, as a Markdown table.

    python scripts/held_out.py [--datasets sara brown_pos ...] [--output results/data/held_out.md]

Corpora are fetched where they are absent; a dataset whose corpus cannot be had has a row that says so.
"""

from collections.abc import Iterator

from hydra import compose, initialize_config_dir
from interleaved import paragraphs, parse, table_of, write
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


def rows(dataset: str) -> Iterator[dict[str, str]]:
    """The table's rows of one dataset, and of the same with exact duplicates alone left out."""
    node = compose("config", overrides=[f"dataset={dataset}"]).dataset
    yield from _rows(dataset, "published" if dataset in PUBLISHED else "the project's", node)
    for part in (node, node.corpus):
        if "duplicates" in part:
            part.duplicates = "exact"
            yield from _rows(f"{dataset}, `duplicates: exact`", "the project's, as it was", node)


def _rows(name: str, whose: str, node: DictConfig) -> Iterator[dict[str, str]]:
    def row(*cells: str) -> dict[str, str]:
        return {"dataset": name, **dict(zip(COLUMNS, (whose, *cells), strict=True))}

    try:
        task = task_of({"dataset": OmegaConf.to_container(node, resolve=True)})
    except DataError as error:
        print(f"{name}: {error}")
        yield row(*["not available"] * 5)
        return
    for split in task.splits:
        shares, number = task.shares[split], len(task.inputs(split))
        unknown = f"{shares['unknown_tokens']:.1%}" if "unknown_tokens" in shares else ""
        yield row(split, COMPARED[task.name], *_twins(shares["twins"], number), unknown)
    if isinstance(task, DialogueTask):
        slots = task.corpus.featurized_slots
        train, test = ([s.course(slots) for s in part] for part in (task.corpus.stories, task.corpus.test_stories))
        yield row("test", "whole stories, as a policy sees them", *_twins(twin_share(train, test), len(test)), "")


def _twins(share: float, number: int) -> tuple[str, str]:
    return f"{number:,}", f"{share * number:,.0f} ({share:.1%})"


def main() -> None:
    """Print the table and write it."""
    shipped = [name for name in choices("dataset") if "???" not in (CONF / "dataset" / f"{name}.yaml").read_text()]
    given = parse(__doc__ or "", datasets=shipped)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        table = table_of([row for name in given.datasets for row in rows(name)])
    title = "# What held-out examples have in common with training"
    write("\n\n".join([title, *paragraphs(BEFORE), table, *paragraphs(AFTER)]) + "\n", given.output)


if __name__ == "__main__":
    main()
