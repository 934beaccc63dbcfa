"""Stories of a Rasa assistant: from written steps to the conversations on which a policy is trained (Rasa 2.6).

A step with several messages (OR) gives one story for each message, as in Rasa. Two such steps give one story for each
pair of messages.

Explicit checkpoints, which join stories by name, are refused. So is a form that runs again although only messages to it
came in between: Rasa would erase everything since its first run, so such steps should not be written. A form to which
the conversation returns after another answer (an unhappy path) is read as written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from sparse_bench.data.dialogues import Action, Event, LoopChange, Story, UserMessage
from sparse_bench.errors import DataError

#: A step: one or more alternatives, each a sequence of events.
Step = tuple[tuple[Event, ...], ...]
CHECKPOINT = (
    "a checkpoint joins this story to others; that is not supported, because Rasa trains a policy only on a random "
    "part of the resulting paths. Write the paths out as stories"
)


@dataclass(frozen=True)
class WrittenStory:
    """A story as written in a file."""

    name: str
    steps: tuple[Step, ...]

    def paths(self) -> tuple[Story, ...]:
        """One conversation for every combination of the steps' alternatives.

        Raises:
            DataError: a form runs again although only messages to it came in between.
        """
        ways = [sum(choice, ()) for choice in product(*self.steps)]
        names = (
            [self.name] if len(ways) == 1 else [f"{self.name} ({n} of {len(ways)})" for n in range(1, len(ways) + 1)]
        )
        for events in ways:
            if again := _repeated_form(events):
                raise DataError(f"story '{self.name}': the form '{again}' runs again after nothing but messages to it")
        return tuple(Story(name, events) for name, events in zip(names, ways, strict=True))


@dataclass
class StoryFiles:
    """The stories of several files.

    Attributes:
        stories: all paths of each story, in the order of the files.
        checksums: file name → SHA-256.
    """

    stories: list[tuple[Story, ...]] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)


def _repeated_form(events: Sequence[Event]) -> str | None:
    """The first form that runs again although, since its last run, it did not end and no message got another answer."""
    forms = {event.name for event in events if isinstance(event, LoopChange)}
    waiting: set[str] = set()  # forms that have run and are expected to handle the next message
    asked = False
    for event in events:
        match event:
            case UserMessage():
                asked = True
            case Action(name):
                if name in waiting:
                    return name
                if asked:
                    waiting.clear()
                if name in forms:
                    waiting.add(name)
                asked = False
            case LoopChange(None):
                waiting.clear()
    return None
