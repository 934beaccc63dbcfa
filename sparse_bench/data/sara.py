"""Sara, the assistant that answers questions about Rasa: the corpus of the sparse DIET experiments.

The blog post about those experiments names the assistant but no version. This corpus is the assistant's repository at
the commit nearest in time to the post.
"""

from sparse_bench.data.download import corpus_files
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.rasa_nlu import read_nlu


def sara(merge_retrieval: bool = True) -> NluCorpus:
    """Sara's training messages, downloaded first if absent.

    There are 4,971 examples (4,965 different pairs of text and intent), 1,097 entities of 10 types, 76 synonyms of 24
    values, 2 regexes and 2 lookups.

    Args:
        merge_retrieval: merge the sub-intents of ``faq``, ``chitchat`` and ``out_of_scope`` to one intent each, as DIET
            does. That gives 32 intents; otherwise there are 62.

    Raises:
        DataError: the corpus is not available.
    """
    # The folder also holds the texts of the assistant's answers, which are not training messages.
    files = {
        name: path
        for name, path in corpus_files("sara").items()
        if name.startswith("data/nlu/") and not name.startswith("data/nlu/responses/")
    }
    return read_nlu(files, merge_retrieval)
