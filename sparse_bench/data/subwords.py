"""Subwords by byte-pair encoding (Sennrich et al. 2016), learned from the training sentences only.

The library is sentencepiece, which torchtext needs anyway. It gets words between single spaces and is set to change no
character. So joining the pieces gives exactly the original words.
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

#: Sentencepiece's character for the space before a word.
SPACE = "▁"
#: By default, sentencepiece leaves out training sentences of more bytes than this.
_LONGEST = 4192
#: Sentencepiece leaves out training sentences with this character, which it uses for unknown characters.
_RESERVED = "▅"


class Subwords:
    """Words ↔ pieces.

    Args:
        model: a trained sentencepiece model, as the bytes of its file.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def split(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """The pieces of each sentence's words. A character outside the training data becomes a piece of its own."""
        pieces: list[list[str]] = self._processor.encode([" ".join(words) for words in sentences], out_type=str)
        return pieces

    def join(self, pieces: Sequence[str]) -> list[str]:
        """The words that these pieces form; empty if there are no pieces."""
        return "".join(pieces).replace(SPACE, " ").split()

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())


def train_subwords(sentences: Iterable[Sequence[str]], size: int, folder: Path | None = None) -> Subwords:
    """Learn a byte-pair encoding from sentences. The same sentences always give the same pieces.

    Sentences of any length are used. A sentence with the character U+2585 is left out, because sentencepiece reserves
    this character; the log reports how many there are. Models are cached on disk by a hash of settings and sentences.

    Args:
        sentences: words of the training sentences.
        size: number of pieces, including single characters and four special pieces.
        folder: folder of the cached models; by default ``derived/`` in the cache of corpora.

    Raises:
        ConfigError: ``size`` exceeds the number of pieces that the sentences give, or is below that of characters.
    """
    lines = [" ".join(words) for words in sentences]
    # Settings under which pieces join to exactly the original text.
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
            "Subwords are learned without %d of %d training sentences, which contain U+2585: sentencepiece reserves "
            "this character.",
            reserved,
            len(lines),
        )
    # Look for a cached model of the same library version, settings and sentences.
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
        # Rename a finished file, so that no other process reads an incomplete one.
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        temporary.write_bytes(model.getvalue())
        temporary.replace(path)
    return Subwords(path.read_bytes())
