"""The splits of a corpus from a user's files: each split has a file, or is a share of the training file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sparse_bench.data.text_files import TextFile, read_text
from sparse_bench.errors import ConfigError, DataError

T = TypeVar("T")
P = TypeVar("P")  # a path, or several
#: A split → the numbers of its examples.
Split = Mapping[str, Sequence[int]]


@dataclass
class OwnFiles:
    """Reads a user's files, and keeps their checksums."""

    checksums: dict[str, str] = field(default_factory=dict)

    def read(self, path: str, use: str) -> TextFile:
        """Read a file.

        Args:
            path: its path, also its name in errors.
            use: what it is for, in front of its name among the checksums.

        Raises:
            DataError: there is no such file, or it cannot be read.
        """
        found = read_text(existing(path), path)
        self.checksums[f"{use}: {Path(path).name}"] = found.sha256
        return found


def existing(path: str) -> Path:
    """The file or folder at a path, of which ``~`` is the user's home.

    Raises:
        DataError: it does not exist, or cannot be a path.
    """
    try:
        found = Path(path).expanduser()
        exists = found.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such user, a null character
        raise DataError(f"'{path[:100]}' cannot be a path: {getattr(error, 'strerror', None) or error}.") from error
    if not exists:
        raise DataError(f"'{path}' does not exist" + ("." if found.is_absolute() else f" in {Path.cwd()}."))
    return found


def split_up(
    train: P,
    given: Mapping[str, P | float],
    read: Callable[[P, str], list[T]],
    draw: Callable[[Sequence[T], Mapping[str, float]], Split],
) -> list[list[T]]:
    """Read the training examples, and read or draw the held-out ones.

    Args:
        train: where the training examples are.
        given: held-out split → where its examples are, or its share of the training examples.
        read: reads examples for a split.
        draw: chooses shares of the training examples.

    Returns:
        The examples of ``train`` and of each split of ``given``.
    """
    shares = {split: float(share) for split, share in given.items() if isinstance(share, int | float)}
    if sum(shares.values()) >= 1:
        raise ConfigError(f"The shares {shares} leave nothing for training: together they have to be less than 1.")
    examples = {"train": read(train, "train")}
    for split, path in given.items():
        if split not in shares:
            examples[split] = read(path, split)  # type: ignore[arg-type]  # not a share
    for split, found in examples.items():
        if not found:
            raise DataError(f"{train if split == 'train' else given[split]} is empty.")
    if shares:
        try:
            chosen = draw(examples["train"], shares)
        except DataError as error:
            raise DataError(f"{train}: {error}") from error
        examples |= {split: [examples["train"][number] for number in numbers] for split, numbers in chosen.items()}
    return [examples[split] for split in ("train", *given)]
