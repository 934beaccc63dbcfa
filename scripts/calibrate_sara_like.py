"""Hold Sara-like against Sara: statistics and two logistic regressions, as a Markdown table.

    python scripts/calibrate_sara_like.py [--seeds 0 1 2] [--splits 5] --output results/rasa/sara_like_calibration.md

Sara is fetched (or taken from the cache or the mirror); where it cannot be had, its column says so.
"""

from collections.abc import Callable
from statistics import mean, stdev

from interleaved import paragraphs, parse, table_of, write
from nlu_statistics import COUNTS, Figures, figures, logistic_regression_f1

from sparse_bench.data.messages import NluCorpus
from sparse_bench.data.sara import sara
from sparse_bench.data.sara_like import sara_like
from sparse_bench.errors import DataError

ROWS: dict[str, Callable[[Figures], str]] = {
    "examples": lambda f: f"{f.examples:,}",
    "different pairs of text and intent": lambda f: f"{f.unique:,}",
    "intents": lambda f: f"{len(f.class_sizes)}",
    "sizes of the intents, sorted": lambda f: " ".join(map(str, f.class_sizes)),
    "entity types": lambda f: f"{len(f.spans)}",
    "entity spans": lambda f: f"{sum(f.spans):,}",
    "spans by type, sorted": lambda f: " ".join(map(str, f.spans)),
    "messages with entities": lambda f: f"{f.annotated:,}",
    "spans that begin or end inside a token": lambda f: f"{f.split_spans}",
    "tokens a message, mean": lambda f: f"{f.mean_tokens:.2f}",
    "tokens a message, most": lambda f: f"{f.longest}",
    "word vocabulary": lambda f: f"{f.words:,}",
    "words that occur once": lambda f: f"{f.words_once:,}",
    "char_wb vocabulary (1-4)": lambda f: f"{f.char_ngrams:,}",
    "repeated but for capitals and punctuation": lambda f: f"{f.repeated:,}",
    "texts under two intents or more": lambda f: f"{f.ambiguous}",
    "messages with a question mark": lambda f: f"{f.questions:.0%}",
    "messages that begin with a capital": lambda f: f"{f.capitals:.0%}",
}


TEXT = """
Sara-like is the generated corpus that this project ships; Sara is the corpus that it stands in for.
Written by `python scripts/calibrate_sara_like.py`.

Tokens are what whitespace separates. Vocabularies: scikit-learn's CountVectorizer on all messages, lower-cased, words
`(?u)\\b\\w+\\b`. Logistic regression: messages that differ in more than capitals, punctuation and numbers, split 80/20
stratified by intent with split seeds from 0; vocabulary of the training part, raw counts,
`LogisticRegression(C=1, max_iter=1000)`; mean ± sample standard deviation over the split seeds.
"""


def column(corpus: NluCorpus | None, splits: int) -> list[str]:
    """The table's column for one corpus, or for none."""
    if corpus is None:
        return ["not available"] * (len(ROWS) + len(COUNTS))
    measured = figures(corpus)
    cells = [row(measured) for row in ROWS.values()]
    for counts in COUNTS:
        scores = logistic_regression_f1(corpus, counts, range(splits))
        cells.append(f"{mean(scores):.3f} ± {stdev(scores):.3f}")
    return cells


def main() -> None:
    """Print the table and write it."""
    given = parse(__doc__ or "", seeds=([0, 1, 2], "of the generator"), splits=(5, "number of split seeds, at least 2"))
    original: NluCorpus | None = None
    try:
        original = sara()
    except DataError as error:
        print(f"Sara is not available: {error}")
    columns = {
        "figure": [*ROWS, *(f"logistic regression on counts of {counts}, weighted F1" for counts in COUNTS)],
        "Sara": column(original, given.splits),
        **{f"Sara-like, seed {seed}": column(sara_like(seed), given.splits) for seed in given.seeds},
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    before, after = paragraphs(TEXT)
    write("\n\n".join(["# Sara-like against Sara", before, table_of(rows), after]) + "\n", given.output)


if __name__ == "__main__":
    main()
