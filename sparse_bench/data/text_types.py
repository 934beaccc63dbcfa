"""Short fragments of text of five types: substitutes for the data of "Efficient Embedding Models With PyTorch".

That post classifies fragments of very few tokens into five types of very different frequency: a common type has about
31 %, a rare one 2.6 %. There are about 30 thousand word types. Its data are not public.
"""

import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from sklearn.model_selection import train_test_split

from sparse_bench.data.brown_pos import read_brown
from sparse_bench.data.download import checksums, corpus_files
from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.sara import sara
from sparse_bench.data.sara_like import sara_like
from sparse_bench.data.text_files import decode, lines_of
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import ConfigError, DataError
from sparse_bench.limits import Count, Many, Seed, checked
from sparse_bench.streams import Streams

#: A fragment's tokens, and its type.
TypedText = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class TextTypeCorpus:
    """A corpus for text typing.

    Attributes:
        train: training fragments.
        valid: validation fragments.
        test: test fragments.
        types: every type, in the order of their numbers.
        checksums: file (or generator) name → SHA-256 of what the corpus was made from.
    """

    train: tuple[TypedText, ...]
    valid: tuple[TypedText, ...]
    test: tuple[TypedText, ...]
    types: tuple[str, ...]
    checksums: dict[str, str] = field(default_factory=dict)


#: The 15 categories of the Brown corpus in five groups, with 18, 32, 3, 22 and 25 % of its documents.
BROWN_GROUPS = {
    "press": ("news", "editorial", "reviews"),
    "general": ("hobbies", "lore", "belles_lettres"),
    "religion": ("religion",),
    "informative": ("government", "learned"),
    "imaginative": ("fiction", "mystery", "science_fiction", "adventure", "romance", "humor"),
}

_SMALL_TALK = ("chitchat", "greet", "affirm", "deny")
_QUESTIONS = ("faq", "technical_question", "source_code", "next_step", "explain")
#: Sara's intents in five groups, with 27, 37, 15, 12 and 9 % of the different messages.
SARA_GROUPS = {
    "small_talk": (*_SMALL_TALK, "bye", "thank", "react_positive", "react_negative"),
    "question": (
        *_QUESTIONS,
        "how_to_get_started",
        "install_rasa",
        "nlu_info",
        "switch",
        "ask_how_contribute",
        "why_rasa",
        "ask_question_in_forum",
        "ask_why_contribute",
        "pipeline_recommendation",
        "nlu_generation_tool_recommendation",
    ),
    "data": ("enter_data",),
    "request": (
        "contact_sales",
        "signup_newsletter",
        "ask_which_events",
        "human_handoff",
        "need_help_broad",
        "canthelp",
        "restart",
    ),
    "out_of_scope": ("out_of_scope",),
}
#: The same groups for the generated corpus, whose intents have other names.
SARA_LIKE_GROUPS = {
    "small_talk": (*_SMALL_TALK, "goodbye", "thanks", "praise", "complain"),
    "question": (
        *_QUESTIONS,
        "get_started",
        "install_help",
        "extraction_info",
        "migrate",
        "how_to_contribute",
        "why_foliary",
        "where_to_ask",
        "why_contribute",
        "model_recommendation",
        "annotation_tool",
    ),
    "data": ("enter_data",),
    "request": (
        "book_sales_call",
        "newsletter",
        "ask_meetups",
        "talk_to_human",
        "need_help",
        "give_up",
        "restart",
    ),
    "out_of_scope": ("out_of_scope",),
}


@checked
def brown_types(shortest: Count = 3, longest: Count = 8, seed: Seed = 0) -> TextTypeCorpus:
    """Fragments of the Brown corpus: pieces of sentences of random length. Their type is the group of their genre.

    Whole documents are assigned to splits, so that no document has pieces in two splits. Of every ten, in the order of
    their names, eight are for training, the ninth for validation and the tenth for the test. Case is kept.

    Args:
        shortest: least number of tokens in a fragment; a shorter rest of a sentence is dropped.
        longest: largest number of tokens in a fragment.
        seed: seed of the lengths.

    Raises:
        ConfigError: ``shortest`` exceeds ``longest``.
        DataError: the corpus is not available.
    """
    if shortest > longest:
        raise ConfigError(f"shortest ({shortest}) has to be at most longest ({longest}).")
    archive = corpus_files("brown")["brown.zip"]
    documents = read_brown(archive)
    with zipfile.ZipFile(archive) as opened:
        categories = decode(opened.read("brown/cats.txt"), "brown/cats.txt")
    pairs = sorted(line.split() for line in lines_of(categories))
    type_of = group_of(BROWN_GROUPS)
    splits: tuple[list[TypedText], ...] = ([], [], [])
    for number, (document, (_, category)) in enumerate(zip(documents, pairs, strict=True)):
        lengths = random.Random(Streams(seed).derive("data", "fragments", number))
        split = splits[max(0, number % 10 - 7)]
        for words, _ in document:
            start = 0
            while len(words) - start >= shortest:
                end = start + lengths.randint(shortest, longest)
                split.append((words[start:end], type_of[category]))
                start = end
    train, valid, test = map(tuple, splits)
    return TextTypeCorpus(train, valid, test, tuple(BROWN_GROUPS), checksums("brown"))


@checked
def sara_types(split_seed: Seed = 0) -> TextTypeCorpus:
    """Sara's messages; the type of a message is the group of its intent.

    Raises:
        DataError: the corpus is not available.
    """
    return messages_by_group(sara(), SARA_GROUPS, split_seed)


@checked
def text_types_like(seed: Seed = 0, examples: Many = 4971, split_seed: Seed = 0) -> TextTypeCorpus:
    """Messages of the generated corpus Sara-like; the type of a message is the group of its intent. No download.

    Raises:
        ConfigError: fewer than three examples for each intent.
    """
    return messages_by_group(sara_like(seed, examples), SARA_LIKE_GROUPS, split_seed)


def messages_by_group(corpus: NluCorpus, groups: Mapping[str, tuple[str, ...]], split_seed: int = 0) -> TextTypeCorpus:
    """Messages in lower case, without duplicate texts. Of each type, 10 % are for validation and 20 % for the test.

    A text with several intents gets the type of the first.

    Raises:
        DataError: an intent in no group, or too few messages.
    """
    type_of = group_of(groups)
    unknown = sorted({message.intent for message in corpus.messages} - set(type_of))
    if unknown:
        raise DataError(f"The intents {', '.join(unknown)} belong to no type of text.")
    texts: dict[tuple[str, ...], str] = {}
    for message in corpus.messages:
        texts.setdefault(tokenize(message.text).words, type_of[message.intent])
    examples = list(texts.items())
    try:
        train, held_out = _split(examples, 0.3, split_seed)
        valid, test = _split(held_out, 2 / 3, split_seed)
    except ValueError as error:
        raise DataError(f"Cannot split {len(examples)} different messages by type: {error}") from error
    return TextTypeCorpus(tuple(train), tuple(valid), tuple(test), tuple(groups), dict(corpus.checksums))


def group_of(groups: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Member → its group."""
    return {member: group for group, members in groups.items() for member in members}


def _split(examples: list[TypedText], share: float, seed: int) -> tuple[list[TypedText], list[TypedText]]:
    types = [kind for _, kind in examples]
    first, second = train_test_split(range(len(examples)), test_size=share, stratify=types, random_state=seed)
    return [examples[number] for number in sorted(first)], [examples[number] for number in sorted(second)]
