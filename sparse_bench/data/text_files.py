"""Text as files hold it: UTF-8, with or without a byte-order mark; line feeds end its lines, and nothing else does.

Unicode knows other line ends (U+0085, U+2028), which occur inside sentences; Python's ``splitlines`` cuts there.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from sparse_bench.errors import DataError

#: What some programs begin a UTF-8 file with; it is no letter of the first word.
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class TextFile:
    """What a text file holds.

    Attributes:
        name: of the file, for errors.
        text: its characters, without a byte-order mark.
        sha256: of its bytes.
    """

    name: str
    text: str
    sha256: str

    @property
    def lines(self) -> list[str]:
        """Its lines; see :func:`lines_of`."""
        return lines_of(self.text)


def read_text(path: Path, name: str | None = None) -> TextFile:
    """Reads a text file, unpacked first where its name ends in ``.gz``.

    Args:
        path: the file.
        name: what errors call it; by default its own name.

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
    """The characters of UTF-8 bytes, without a byte-order mark.

    Raises:
        DataError: other bytes; names ``name`` and the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
    # Outside the handler: the decoder's error holds the whole content, and goes wherever this one is written out.
    raise DataError(f"{name} cannot be read: line {line} is not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.")


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended by LF or CR LF; a byte-order mark before the first is dropped."""
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
