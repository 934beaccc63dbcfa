"""The content of a part of a page: text, facts, figures and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparse_bench.evidence.display import DisplayTable
from sparse_bench.figures.style import Figure


@dataclass
class SectionContent:
    """Content of a section.

    Attributes:
        heading, text, command: as in :class:`sparse_bench.papers.page.Section`.
        facts: a summary of the runs, name and text each.
        figures: in the order of the description.
        front: figures for the project's README, each with its caption there.
        main: figures of which the overview shows the first.
        tables: arms, comparisons, densities; each with a caption.
        lacking: sentences that list what was not run.
    """

    heading: str
    text: str = ""
    command: str = ""
    facts: Sequence[tuple[str, str]] = ()
    figures: list[Figure] = field(default_factory=list)
    front: list[tuple[Figure, str]] = field(default_factory=list)
    main: list[Figure] = field(default_factory=list)
    tables: list[DisplayTable] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
