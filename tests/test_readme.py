"""What the project's README has to hold: few words, and the time of every command."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
TIME = re.compile(r"seconds|minutes?|hours|days")


def test_it_has_at_most_1200_words() -> None:
    assert len(README.split()) <= 1200


def test_every_command_says_how_long_it_takes() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [place for place, line in enumerate(lines) if line.startswith(("make", "python"))]
    assert commands
    for place in commands:
        assert TIME.search(" ".join(lines[max(place - 1, 0) : place + 1])), lines[place]


def test_the_loop_of_one_s_own_is_short() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in block.splitlines() if line]) == 6
