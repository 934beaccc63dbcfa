"""Accuracies and losses by hand; scores of translations with their signatures."""

import math

import numpy as np
import pytest
import sacrebleu

from sparse_bench.data.moses import words_of
from sparse_bench.tasks.translation_metrics import TranslationScores, teacher_forced_metrics

REFERENCES = ["Ein Mann spielt Gitarre.", "Zwei Hunde laufen im Park.", "Eine Frau, die liest."]


def test_teacher_forced_by_hand():
    # two sentences of 1 and 4 tokens
    metrics = teacher_forced_metrics(np.array([2.0, 1.0, 1.0, 1.0, 3.0]), np.array([1, 0, 0, 1, 0]), np.array([1, 4]))
    assert metrics == {
        "sentence_accuracy": pytest.approx((1 + 1 / 4) / 2),
        "token_accuracy": pytest.approx(2 / 5),
        "loss": pytest.approx((2 + 6 / 4) / 2),
        "perplexity": pytest.approx(math.exp(8 / 5)),
    }


def test_a_hopeless_model_has_a_perplexity():
    assert teacher_forced_metrics(np.array([2000.0]), np.array([0]), np.array([1]))["perplexity"] == math.inf


@pytest.fixture(scope="module")
def scores() -> TranslationScores:
    return TranslationScores(REFERENCES, words_of("moses", "de").split, "de", tokenised=False)


def test_the_right_translations(scores):
    found = scores.score(REFERENCES)
    assert (found["bleu"], found["chrf"], found["ter"]) == pytest.approx((100, 100, 0))
    # of 5, 6 and 6 words, in one chunk each
    assert found["meteor"] == pytest.approx(100 * np.mean([1 - 0.5 / n**3 for n in (5, 6, 6)]))


def test_scores_are_those_of_sacrebleu(scores):
    translations = ["Ein Mann spielt eine Gitarre.", "Hunde laufen im Park.", "Eine Frau liest."]
    found = scores.score(translations)
    assert found["bleu"] == sacrebleu.corpus_bleu(translations, [REFERENCES]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(translations, [REFERENCES]).score
    assert found["ter"] == sacrebleu.corpus_ter(translations, [REFERENCES]).score
    assert 0 < found["bleu"] < 100
    assert scores.score(translations) == found


def test_no_translation_is_an_error_of_every_word(scores):
    found = scores.score(["", "", ""])
    assert (found["bleu"], found["chrf"], found["meteor"]) == (0, 0, 0)
    assert found["ter"] == 100


def test_signatures(scores):
    signatures = scores.signatures()
    version = f"version:{sacrebleu.__version__}"
    assert signatures["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert signatures["chrf"] == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"
    assert signatures["ter"] == f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{version}"
    assert signatures["meteor"].startswith("nrefs:1|case:lc|stem:snowball-german")


def test_tokenised_text_is_taken_as_it_is():
    references = ["Ein T @-@ Shirt ."]
    scores = TranslationScores(references, str.split, "de", tokenised=True)
    assert "tok:none" in scores.signatures()["bleu"]
    assert scores.score(references)["bleu"] == pytest.approx(100)
    assert scores.score(["Ein T@-@Shirt."])["bleu"] < 20
