"""Messages and stories of a user's own Rasa project, in version 2 or 3 of Rasa's YAML format.

In a project's folder the training data are below ``data``, and the domain is ``domain.yml``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparse_bench.data.dialogues import DialogueCorpus, Story
from sparse_bench.data.featurizers import counted_words
from sparse_bench.data.messages import Message, NluCorpus
from sparse_bench.data.rasa_domain import Domain
from sparse_bench.data.rasa_domain_file import read_domain
from sparse_bench.data.rasa_nlu import read_nlu
from sparse_bench.data.rasa_yaml import read_yaml_stories
from sparse_bench.data.split_files import Split, existing, split_up
from sparse_bench.data.splits import Duplicates, held_out, merged_intent, split_stories
from sparse_bench.data.text_files import read_text
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.errors import DataError
from sparse_bench.limits import Name, Part, Seed, checked

_YAML = (".yml", ".yaml", ".yml.gz", ".yaml.gz")


@checked
def rasa_nlu(train: Name, test: Name | Part = 0.2, merge_retrieval: bool = True, split_seed: Seed = 0) -> NluCorpus:
    """Training messages of a Rasa project.

    A share is drawn at random, with the same share of each intent. Messages with equal words, apart from case and
    numbers, are in the same split.

    Args:
        train: path of a file with messages, or of a folder: the project, or its data.
        test: the same for the test messages, or their share of the training messages.
        merge_retrieval: merge sub-intents (``faq/ask_price``) to one intent each, as DIET does.
        split_seed: seed of the share.

    Raises:
        ConfigError: a setting outside its range.
        DataError: there are no messages, a file is malformed, or an intent does not occur in training.
    """
    corpora: dict[str, NluCorpus] = {}

    def read(path: str, use: str) -> list[Message]:
        corpora[use] = read_nlu(_files(path, "nlu"), merge_retrieval)
        return list(corpora[use].messages)

    def draw(messages: Sequence[Message], shares: Mapping[str, float]) -> Split:
        inputs = [counted_words(tokenize(message.text)) for message in messages]
        return held_out(inputs, shares, split_seed, [merged_intent(message.intent) for message in messages])

    messages, tested = split_up(train, {"test": test}, read, draw)
    known = {message.intent for message in messages}
    if unknown := sorted({message.intent for message in tested} - known):
        raise DataError(f"{test}: these intents have no training message: {', '.join(unknown)}.")
    given = corpora["train"]
    checksums = {f"{use}: {name}": sha for use, found in corpora.items() for name, sha in found.checksums.items()}
    return NluCorpus(tuple(messages), given.synonyms, given.regexes, given.lookups, checksums, tuple(tested))


@checked
def rasa_stories(
    train: Name,
    test: Name | Part = 0.2,
    domain: Name | None = None,
    split_seed: Seed = 0,
    duplicates: Duplicates = "features",
) -> DialogueCorpus:
    """Stories of a Rasa project. Rules are left out, since TED is not trained on them.

    Args:
        train: path of the project's folder, or of a file with stories.
        test: path of a file or folder with test stories, or a share; see :func:`split_stories`.
        domain: path of the domain; None: ``domain.yml`` in the project's folder.
        split_seed: seed of the share.
        duplicates: rule for stories to leave out as duplicates when a share is drawn, ``features`` or ``exact``.

    Raises:
        ConfigError: a setting outside its range.
        DataError: there are no stories or there is no domain, a file is malformed, or no story is left for a split.
    """
    root = existing(train)
    known = _domain(root, domain)
    found = read_yaml_stories(_files(train, "stories"), known)
    checksums = {f"train: {name}": sha for name, sha in found.checksums.items()} | known.checksums
    stories: tuple[Story, ...]
    tested: tuple[Story, ...]
    if isinstance(test, str):
        held = read_yaml_stories(_files(test, "stories"), known)
        stories, tested = (tuple(story for paths in part.stories for story in paths) for part in (found, held))
        checksums |= {f"test: {name}": sha for name, sha in held.checksums.items()}
    else:
        stories, tested = split_stories(found.stories, test, split_seed, known.featurized_slots, duplicates)
    if not stories or not tested:
        raise DataError(f"{train}: {len(found.stories)} stories are too few for a split with test={test}.")
    return known.corpus(stories, tested, checksums)


def _domain(root: Path, domain: str | None) -> Domain:
    """The domain of the project in folder ``root``, with the actions that answer its retrieval intents."""
    path = existing(domain) if domain is not None else root / "domain.yml"
    if not path.is_file():
        raise DataError(f"The domain '{path}' is not a file. Name the file: dataset.domain=PATH.")
    messages = _yaml_files(root, "nlu") if root.is_dir() else {}
    every = read_nlu(messages, merge_retrieval=False).messages
    retrieval = {merged_intent(message.intent) for message in every if "/" in message.intent}
    return read_domain(path.name, path, sorted(retrieval))


def _files(path: str, section: str) -> dict[str, Path]:
    """The file at a path, or the files of a folder that have a section. Names start at the folder.

    Raises:
        DataError: there is none.
    """
    there = existing(path)
    if there.is_file():
        return {there.name: there}
    if not (found := _yaml_files(there, section)):
        raise DataError(f"No YAML file below '{path}' begins a section '{section}:'.")
    return found


def _yaml_files(folder: Path, section: str) -> dict[str, Path]:
    inside = folder / "data" if (folder / "data").is_dir() else folder
    paths = sorted(path for path in inside.rglob("*") if path.name.endswith(_YAML) and path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    begins = re.compile(rf"^['\"]?{section}['\"]?\s*:", re.MULTILINE)
    return {name: path for name, path in names.items() if begins.search(read_text(path, name).text)}
