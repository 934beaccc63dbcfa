"""Sara's stories: what the assistant that answers questions about Rasa does in which conversation."""

from collections.abc import Sequence

from sparse_bench.data.dialogues import DialogueCorpus, Event, Story
from sparse_bench.data.download import corpus_files
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.errors import ConfigError
from sparse_bench.streams import Streams

#: Their answers stand with the training messages, not in the domain.
RETRIEVAL_INTENTS = ("chitchat", "faq", "out_of_scope")
_DOMAIN = "domain.yml"


def sara_stories(test_fraction: float = 0.2, split_seed: int = 0) -> DialogueCorpus:
    """Sara's 294 stories, fetched first where they are absent. Rules are no part of it: TED is not trained on them.

    Sara has no test stories for TED, so a random part of the stories is held out; see :func:`split_stories`.

    Args:
        test_fraction: share of the stories that is held out.
        split_seed: fixes the split.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1.
        DataError: the corpus cannot be had.
    """
    files = corpus_files("sara")
    domain = read_domain(_DOMAIN, files[_DOMAIN], RETRIEVAL_INTENTS)
    found = read_yaml_stories({n: p for n, p in sorted(files.items()) if n.startswith("data/stories/")}, domain)

    train, test = split_stories(found.stories, test_fraction, split_seed)
    return DialogueCorpus(
        stories=train,
        test_stories=test,
        intents=tuple(domain.intents),
        entities=domain.entities,
        actions=domain.actions,
        featurized_slots=domain.featurized_slots,
        checksums=domain.checksums | found.checksums,
    )


def split_stories(
    stories: Sequence[tuple[Story, ...]], test_fraction: float, seed: int
) -> tuple[tuple[Story, ...], tuple[Story, ...]]:
    """Training and test stories, each in the given order.

    Args:
        stories: the paths of each written story (its alternatives, OR); they stay together. Of stories with the same
            course, whatever their names, the first alone is kept.
        test_fraction: share of the written stories that is held out, rounded to a whole number of them.
        seed: of the random choice.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction is {test_fraction}; it has to lie between 0 and 1, both excluded.")
    courses: dict[tuple[tuple[Event, ...], ...], tuple[Story, ...]] = {}
    for paths in stories:
        courses.setdefault(tuple(story.events for story in paths), paths)
    different = list(courses.values())
    order = Streams(seed).numpy("data", "sara_stories").permutation(len(different)).tolist()
    held_out = round(test_fraction * len(different))

    def part(numbers: list[int]) -> tuple[Story, ...]:
        return tuple(story for number in sorted(numbers) for story in different[number])

    return part(order[held_out:]), part(order[:held_out])
