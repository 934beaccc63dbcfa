"""Subwords by byte-pair encoding (Sennrich et al. 2016), learned on the training sentences alone.

The library is sentencepiece, which torchtext needs anyway. It is given words between single spaces and told to change
no character, so that putting pieces together again gives exactly the words that were split.
"""

import hashlib
import io
import logging
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sentencepiece

from sparse_bench.cache import corpora_folder
from sparse_bench.errors import ConfigError

_LOG = logging.getLogger(__name__)

#: What sentencepiece writes for the space before a word.
SPACE = "▁"
#: Sentencepiece leaves out training sentences of more bytes, unless told otherwise, ...
_LONGEST = 4192
#: ... and those with this character, which it writes for unknown ones.
_RESERVED = "▅"


class Subwords:
    """Words ↔ pieces.

    Args:
        model: a trained sentencepiece model, as its file holds it.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def split(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """The pieces of each sentence's words. A character that was not in the training data is a piece of its own."""
        pieces: list[list[str]] = self._processor.encode([" ".join(words) for words in sentences], out_type=str)
        return pieces

    def join(self, pieces: Sequence[str]) -> list[str]:
        """The words that these pieces make up; none for no pieces."""
        return "".join(pieces).replace(SPACE, " ").split()

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())


def train_subwords(sentences: Iterable[Sequence[str]], size: int, folder: Path | None = None) -> Subwords:
    """Byte-pair encoding of these sentences' words. The same sentences always give the same pieces.

    No sentence is too long. One with the character U+2585 is left out, as sentencepiece needs it for itself; the log
    says how many are.

    What was learned is kept on disk under the hash of what it was learned from, and read from there the next time.

    Args:
        sentences: words of the training sentences.
        size: number of pieces, single characters and four special ones included.
        folder: where models are kept; by default ``derived/`` in the cache of corpora.

    Raises:
        ConfigError: more pieces than the sentences give, or fewer than they have characters.
    """
    lines = [" ".join(words) for words in sentences]
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": size,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": 2,
        "eos_id": 3,
    }
    encoded = [line.encode() for line in lines]
    if (longest := max(map(len, encoded), default=0)) > _LONGEST:
        settings["max_sentence_length"] = longest
    if reserved := sum(_RESERVED in line for line in lines):
        _LOG.warning(
            "Subwords are learned without %d of %d training sentences, which hold U+2585: sentencepiece needs this "
            "character for itself.",
            reserved,
            len(lines),
        )
    content = hashlib.sha256(repr((version("sentencepiece"), sorted(settings.items()))).encode())
    for line in encoded:
        content.update(line + b"\n")
    path = (folder or corpora_folder() / "derived") / f"bpe-{content.hexdigest()[:16]}.model"
    if not path.exists():
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                shuffle_input_sentence=False,
                num_threads=1,
                minloglevel=2,
                **settings,
            )
        except RuntimeError as error:
            raise ConfigError(f"bpe={size} does not fit these {len(lines)} training sentences: {error}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        temporary.write_bytes(model.getvalue())
        temporary.replace(path)
    return Subwords(path.read_bytes())
