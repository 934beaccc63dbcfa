import shutil
from pathlib import Path

import pytest

from sparse_bench.data.rasa_project import rasa_nlu, rasa_stories
from sparse_bench.errors import DataError

PROJECT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "data" / "assistant"


def test_messages_of_a_project() -> None:
    corpus = rasa_nlu(str(PROJECT), test=0.2)
    assert len(corpus.messages) + len(corpus.test) == 29
    assert len(corpus.test) == 6
    assert {message.intent for message in corpus.messages} == {"greet", "bye", "order", "thank", "faq"}
    assert list(corpus.checksums) == ["train: data/nlu.yml"]
    whole = rasa_nlu(str(PROJECT / "data" / "nlu.yml"), test=str(PROJECT))
    assert len(whole.messages) == len(whole.test) == 29


def test_stories_of_a_project() -> None:
    corpus = rasa_stories(str(PROJECT), test=0.2)
    assert len(corpus.stories) == 8
    assert len(corpus.test_stories) == 2
    assert "utter_faq" in corpus.actions  # answers the retrieval intent of the messages
    assert set(corpus.checksums) == {"train: data/stories.yml", "domain.yml"}


def test_the_shipped_corpus_is_read_as_a_project(shared_data: Path) -> None:
    stories = rasa_stories(str(shared_data / "sara"))
    assert len(stories.stories) > 200
    assert {"utter_faq", "utter_chitchat", "utter_out_of_scope"} <= set(stories.actions)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("domain.yml", r"The domain '.*domain\.yml' is not a file\. Name the file: dataset\.domain=PATH"),
        ("data/stories.yml", "begins a section 'stories:'"),
    ],
)
def test_what_a_project_lacks(tmp_path: Path, gone: str, message: str) -> None:
    project = shutil.copytree(PROJECT, tmp_path / "assistant")
    (project / gone).unlink()
    with pytest.raises(DataError, match=message):
        rasa_stories(str(project))


def test_malformed_files_are_named(tmp_path: Path) -> None:
    project = shutil.copytree(PROJECT, tmp_path / "assistant")
    stories = project / "data" / "stories.yml"
    stories.write_text(stories.read_text().replace("utter_bye", "utter_by", 1))
    with pytest.raises(DataError, match=r"data/stories\.yml, story 1 .*step 8: Unknown action 'utter_by'"):
        rasa_stories(str(project))


def test_an_intent_of_the_test_needs_training_messages(tmp_path: Path) -> None:
    test = tmp_path / "test.yml"
    test.write_text('version: "3.1"\nnlu:\n- intent: dance\n  examples: |\n    - let us dance\n')
    with pytest.raises(DataError, match="no training message: dance"):
        rasa_nlu(str(PROJECT), test=str(test))
