"""Reading of text files: UTF-8, with or without a byte-order mark. Only LF and CR LF end a line.

Unicode has other line ends (U+0085, U+2028), at which Python's ``splitlines`` would cut. They occur inside sentences.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.errors import DataError

#: Mark that some programs write at the start of a UTF-8 file. It does not belong to the first word.
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class TextFile:
    """The content of a text file.

    Attributes:
        name: name of the file, for errors.
        text: its characters, without a byte-order mark.
        sha256: SHA-256 of its bytes.
    """

    name: str
    text: str
    sha256: str

    @property
    def lines(self) -> list[str]:
        """Its lines; see :func:`lines_of`."""
        return lines_of(self.text)


def read_text(path: Path, name: str | None = None) -> TextFile:
    """Read a text file, decompressed if its name ends in ``.gz``. Errors call it ``name``, by default its own name.

    Raises:
        DataError: the file cannot be read or is not UTF-8. The message names the file and the line, not the content.
    """
    name = name or path.name
    try:
        content = path.read_bytes()
        plain = gzip.decompress(content) if path.suffix == ".gz" else content
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be unpacked: {error}.") from error
    return TextFile(name, decode(plain, name), hashlib.sha256(content).hexdigest())


def decode(content: bytes, name: str) -> str:
    """Decode UTF-8 bytes, and drop a byte-order mark.

    Raises:
        DataError: the bytes are not UTF-8. The message contains ``name`` and the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
    # Raised outside the handler: as its cause, the decoder's error would carry the whole content into every log.
    raise DataError(f"{name} cannot be read: line {line} is not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.")


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended by LF or CR LF. A byte-order mark before the first line is dropped."""
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
