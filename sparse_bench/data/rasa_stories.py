"""Stories of a Rasa assistant, from written steps to the conversations that a policy is trained on (Rasa 2.6).

A step that names several messages (OR) makes a story for each of them, as Rasa's checkpoints behind an OR do, and two
such steps make one for every pair. Checkpoints that are written out, which join stories by name, are refused. So is a
form that runs again after nothing but messages to it: Rasa erases everything since its first run, and such steps are
better not written. A form to which the conversation comes back from another answer (an unhappy path) is read as it
stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from sparse_bench.data.dialogues import Action, Event, LoopChange, Story, UserMessage
from sparse_bench.errors import DataError

#: What happens in a step: one or more ways, each some events.
Step = tuple[tuple[Event, ...], ...]
CHECKPOINT = (
    "a checkpoint joins this story to others; that is not supported, because of the paths that it makes a policy is "
    "trained on a random part. Write the paths out as stories"
)


@dataclass(frozen=True)
class WrittenStory:
    """A story as it is written."""

    name: str
    steps: tuple[Step, ...]

    def paths(self) -> tuple[Story, ...]:
        """A conversation for every choice among the steps' ways.

        Raises:
            DataError: a form runs again after nothing but messages to it.
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
    """What was read from some files.

    Attributes:
        stories: in the order of the files; of each, all its paths.
        checksums: file name → SHA-256.
    """

    stories: list[tuple[Story, ...]] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)


def _repeated_form(events: Sequence[Event]) -> str | None:
    """The first form that runs again although, since it ran, it has not ended and no message got another answer."""
    forms = {event.name for event in events if isinstance(event, LoopChange)}
    waiting: set[str] = set()  # forms that have run and would be expected to deal with the next message
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
