"""The dialogues with sub-dialogues of the TED paper (Vlasov, Mosig, Nichol 2019): booking restaurants and hotels.

The stories are downloaded; the domain is defined here.
"""

from sparse_bench.data.dialogues import DialogueCorpus, Story
from sparse_bench.data.download import corpus_files
from sparse_bench.data.rasa_domain import DEFAULT_ACTIONS, Domain, Slot
from sparse_bench.data.rasa_markdown import read_markdown_stories

_INTENTS = (
    "request_restaurant",
    "request_hotel",
    "inform",
    "request_info",
    "about",
    "affirm",
    "correct",
    "chitchat",
    "explain",
    "did_that_work",
)
_ENTITIES = (
    "location",
    "info",
    "people",
    "price",
    "cuisine",
    "outdoor_seating",
    "reservations",
    "date_suitable",
    "has_gym",
    "has_spa",
    "breakfast",
    "startdate",
    "enddate",
)
_ACTIONS = (
    *(f"utter_ask_{x}" for x in ("cuisine", "people", "location", "price", "startdate", "enddate", "details")),
    "utter_search",
    "utter_finish",
    "utter_suggest_restaurant",
    "utter_suggest_hotel",
    "utter_happy",
    "utter_chitchat",
    "utter_filled_slots",
    *(f"utter_explain_{x}_hotel" for x in ("details", "startdate", "enddate", "location", "people", "price")),
    *(f"utter_explain_{x}_restaurant" for x in ("details", "location", "people", "price", "cuisine")),
    *(f"utter_correct_{x}_hotel" for x in ("price", "people", "location", "enddate", "startdate")),
    *(f"utter_correct_{x}_restaurant" for x in ("price", "people", "cuisine", "location")),
    "utter_worked_hotel",
    "utter_worked_restaurant",
    "utter_more_info_hotel",
    "utter_more_info_restaurant",
    "action_search_hotel",
    "action_search_restaurant",
)
#: The domain of the stories, with 40 actions of its own and the 11 actions of every assistant.
DOMAIN = Domain(
    intents=dict.fromkeys(_INTENTS),
    entities=_ENTITIES,
    slots={name: Slot("any") for name in _ENTITIES} | {name: Slot("text") for name in ("restaurant", "hotel")},
    actions=DEFAULT_ACTIONS + _ACTIONS,
)


def ted() -> DialogueCorpus:
    """The 147 training and 30 test stories, downloaded first if absent.

    They have 3,560 training and 977 test predictions. 38 % of the test predictions are to wait for the user. 8 intents
    and 36 other actions occur. The best possible test accuracy is 99.9 % with the latest 10 states, and 98.3 % with the
    latest 5.

    Raises:
        DataError: the corpus is not available.
    """
    files = corpus_files("ted")

    def part(folder: str) -> tuple[tuple[Story, ...], dict[str, str]]:
        found = read_markdown_stories({n: p for n, p in sorted(files.items()) if n.startswith(f"{folder}/")}, DOMAIN)
        return tuple(story for paths in found.stories for story in paths), found.checksums

    (train, train_checksums), (test, test_checksums) = part("train"), part("test")
    return DOMAIN.corpus(train, test, train_checksums | test_checksums)
