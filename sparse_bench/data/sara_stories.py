"""Sara's stories: conversations with the assistant that answers questions about Rasa."""

from sparse_bench.data.dialogues import DialogueCorpus
from sparse_bench.data.download import corpus_files
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.data.splits import Duplicates, split_stories
from sparse_bench.limits import Part, Seed, checked

#: Intents whose answers are stored with the training messages, not in the domain.
RETRIEVAL_INTENTS = ("chitchat", "faq", "out_of_scope")
_DOMAIN = "domain.yml"


@checked
def sara_stories(test_fraction: Part = 0.2, split_seed: Seed = 0, duplicates: Duplicates = "exact") -> DialogueCorpus:
    """Sara's 294 stories, downloaded first if absent. Rules are left out, since TED is not trained on them.

    Sara has no test stories for TED, so a random part of the stories is held out; see :func:`split_stories`.

    Args:
        test_fraction: share of the stories that is held out.
        split_seed: seed of the split.
        duplicates: rule for stories to leave out as duplicates, ``features`` or ``exact``.

    Raises:
        ConfigError: ``test_fraction`` is not between 0 and 1, or the rule for duplicates is unknown.
        DataError: the corpus is not available.
    """
    files = corpus_files("sara")
    domain = read_domain(_DOMAIN, files[_DOMAIN], RETRIEVAL_INTENTS)
    found = read_yaml_stories({n: p for n, p in sorted(files.items()) if n.startswith("data/stories/")}, domain)

    train, test = split_stories(found.stories, test_fraction, split_seed, domain.featurized_slots, duplicates)
    return domain.corpus(train, test, domain.checksums | found.checksums)
