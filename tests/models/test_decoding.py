import itertools
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_bench.batch.translation import BOS, EOS, PAD, UNK, TranslationSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.decoding import CHECK_EVERY, beam_search, greedy
from sparse_bench.models.transformer import Transformer, _Stepper
from tests.models.translation import batch_of

CPU = torch.device("cpu")
VOCABULARY = 6
#: Tokens that a sentence may hold.
TOKENS = (UNK, 4, 5)

Prefix = tuple[int, ...]


class RandomLanguage:
    """A next-token model whose logits are random, but a function of the sentence's number and all tokens read."""

    def __init__(self, sentences: list[int], beam: int = 1, end: float = 0.0) -> None:
        self._sentence = [sentence for sentence in sentences for _ in range(beam)]
        self._read: list[Prefix] = [()] * len(self._sentence)
        self._end = end

    def __call__(self, tokens: Tensor) -> Tensor:
        self._read = [(*read, token) for read, token in zip(self._read, tokens.tolist(), strict=True)]
        return torch.stack([logits(*key, self._end) for key in zip(self._sentence, self._read, strict=True)])

    def reorder(self, rows: Tensor) -> None:
        assert [self._sentence[row] for row in rows.tolist()] == self._sentence
        self._read = [self._read[row] for row in rows.tolist()]


class Scripted(RandomLanguage):
    """One sentence; a table says what was read behind BOS → probabilities of the next token. UNK goes on for ever."""

    def __init__(self, table: dict[Prefix, dict[int, float]], beam: int) -> None:
        super().__init__([0], beam)
        self._table = table

    def __call__(self, tokens: Tensor) -> Tensor:
        super().__call__(tokens)
        rows = torch.full((len(self._read), VOCABULARY), 1e-9)
        for row, read in zip(rows, self._read, strict=True):
            for token, probability in self._table.get(read[1:], {UNK: 1.0}).items():
                row[token] = probability
        return rows.log()


@cache
def logits(sentence: int, read: Prefix, end: float) -> Tensor:
    generator = torch.Generator().manual_seed(hash((sentence, read)) % 2**32)
    drawn = 2 * torch.randn(VOCABULARY, generator=generator)
    drawn[EOS] += end
    return drawn


def log_probability(sentence: int, tokens: Prefix, end: float = 0.0) -> float:
    total = 0.0
    for number, token in enumerate(tokens):
        total += float(logits(sentence, (BOS, *tokens[:number]), end).log_softmax(0)[token])
    return total


def normalised(sentence: int, tokens: Prefix, exponent: float, end: float = 0.0) -> float:
    return log_probability(sentence, tokens, end) / ((5 + len(tokens)) / 6) ** exponent


def plain_greedy(sentence: int, longest: int, end: float = 0.0) -> Prefix:
    found: Prefix = ()
    while len(found) < longest and (not found or found[-1] != EOS):
        scores = logits(sentence, (BOS, *found), end).tolist()
        found = (*found, max((*TOKENS, EOS), key=lambda token: scores[token]))
    return found


def plain_beam_search(sentence: int, beam: int, longest: int, exponent: float, end: float) -> Prefix:
    """One sentence, with lists, until `beam` hypotheses have ended: no early stop by a bound."""
    live: list[Prefix] = [()]
    ended: list[Prefix] = []
    for _ in range(longest):
        if len(ended) >= beam:
            break
        extended = [(*read, token) for read in live for token in (*TOKENS, EOS)]
        extended.sort(key=lambda tokens: -log_probability(sentence, tokens, end))
        ended += [tokens for tokens in extended[:beam] if tokens[-1] == EOS]
        live = [tokens for tokens in extended[: 2 * beam] if tokens[-1] != EOS][:beam]
    return max(ended, key=lambda tokens: normalised(sentence, tokens, exponent, end)) if ended else live[0]


def as_tuples(decoded: Tensor) -> list[Prefix]:
    """Rows without the padding behind them; there must be none before it, and nothing after EOS."""
    rows = []
    for row in decoded.tolist():
        tokens = tuple(row[: row.index(EOS) + 1]) if EOS in row else tuple(row)
        assert all(token == PAD for token in row[len(tokens) :])
        assert set(tokens) <= {EOS, *range(4, 1000), UNK}
        rows.append(tokens)
    return rows


# ---- searches ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=4), st.integers(1, 9), st.sampled_from([-2.0, 0.0, 2.0]))
@settings(max_examples=30, deadline=None)
def test_greedy_takes_the_most_probable_token_until_the_end(sentences: list[int], longest: int, end: float):
    expected = [plain_greedy(sentence, longest, end) for sentence in sentences]
    model = RandomLanguage(sentences, end=end)
    assert as_tuples(greedy(model, len(sentences), longest, CPU)) == expected
    model = RandomLanguage(sentences, end=end)
    assert as_tuples(beam_search(model, len(sentences), 1, longest, CPU)) == expected


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.6, 2.0]),
    st.sampled_from([-3.0, 0.0, 2.0]),
)
@settings(max_examples=40, deadline=None)
def test_beam_search_is_that_of_lists(sentences: list[int], beam: int, longest: int, exponent: float, end: float):
    model = RandomLanguage(sentences, beam, end)
    decoded = beam_search(model, len(sentences), beam, longest, CPU, exponent)
    assert decoded.shape[1] <= longest
    assert as_tuples(decoded) == [plain_beam_search(s, beam, longest, exponent, end) for s in sentences]


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_wide_enough_beam_finds_the_best_of_all_sentences(exponent: float):
    longest, sentences = 4, [1, 2, 3, 4, 5]
    whole = [(*tokens, EOS) for length in range(longest) for tokens in itertools.product(TOKENS, repeat=length)]
    best = [max(whole, key=lambda tokens, s=s: normalised(s, tokens, exponent)) for s in sentences]
    beam = len(whole)
    found = beam_search(RandomLanguage(sentences, beam), len(sentences), beam, longest, CPU, exponent)
    assert as_tuples(found) == best
    assert len({len(tokens) for tokens in best}) > 1


def test_a_longer_translation_can_win_only_with_a_length_penalty():
    sentences = list(range(40))
    lengths = []
    for exponent in (0.0, 2.0):
        found = as_tuples(beam_search(RandomLanguage(sentences, 4), 40, 4, 8, CPU, exponent))
        lengths.append([len(tokens) for tokens in found])
    assert all(short <= long for short, long in zip(*lengths, strict=True))
    assert sum(lengths[0]) < sum(lengths[1])


@pytest.mark.parametrize(("second", "expected"), [(1.16, (4, EOS)), (1.18, (EOS,))])
def test_the_length_penalty_by_hand(second: float, expected: Prefix):
    """With exponent 1 two tokens are better than one if they are less than 7/6 times as improbable."""
    ending = math.exp(second * math.log(0.45)) / 0.55
    table = {(): {EOS: 0.45, 4: 0.55}, (4,): {EOS: ending, 5: 1 - ending}}
    assert as_tuples(beam_search(Scripted(table, 2), 1, 2, 6, CPU, 1.0)) == [expected]


def test_what_ends_after_a_sentence_is_done_does_not_count():
    """The longer sentence has the better score, but the only hypothesis of the beam has ended."""
    table = {(): {EOS: 0.55, 4: 0.45}, (4,): {5: 1.0}, (4, 5): {EOS: 1.0}}
    assert normalised_by_hand(0.45, 3) > normalised_by_hand(0.55, 1)
    assert as_tuples(beam_search(Scripted(table, 1), 1, 1, 6, CPU, 2.0)) == [(EOS,)]
    assert as_tuples(beam_search(Scripted(table, 2), 1, 2, 6, CPU, 2.0)) == [(4, 5, EOS)]


def test_a_search_goes_on_while_a_longer_translation_can_still_win():
    """By its length of now what is in the beam is behind; at the length at which it will end it is ahead."""
    words = (4, 5, 5, 5, 5, 5, 5)
    table: dict[Prefix, dict[int, float]] = {(): {EOS: 0.5, 4: 0.3, 5: 0.2}}
    table |= {words[:read]: {word: 1.0} for read, word in enumerate((*words, EOS)) if read}
    assert math.log(0.3) / ((5 + CHECK_EVERY) / 6) < math.log(0.5) < math.log(0.3) / ((5 + 8) / 6)
    assert as_tuples(beam_search(Scripted(table, 2), 1, 2, 10, CPU, 1.0)) == [(*words, EOS)]


def test_a_search_ends_once_no_translation_can_win():
    """Nor by the greatest length: the beam goes on for ever, at a probability that no length makes up for."""
    table: dict[Prefix, dict[int, float]] = {(): {EOS: 0.9, 4: 0.05, 5: 0.05}}
    assert beam_search(Scripted(table, 2), 1, 2, 30, CPU, 0.5).tolist() == [[EOS, *[PAD] * (CHECK_EVERY - 1)]]


def normalised_by_hand(probability: float, length: int) -> float:
    return math.log(probability) / ((5 + length) / 6) ** 2


def test_what_does_not_end_is_cut_off():
    for beam in (1, 3):
        decoded = beam_search(RandomLanguage([1, 2], beam, end=-math.inf), 2, beam, 5, CPU)
        assert decoded.shape == (2, 5)
        assert (decoded > EOS).logical_or(decoded == UNK).all()
    assert greedy(RandomLanguage([1, 2], end=-math.inf), 2, 5, CPU).shape == (2, 5)


def test_all_ending_at_once_stops_early():
    for decoded in (
        greedy(RandomLanguage([1, 2], end=100.0), 2, 50, CPU),
        beam_search(RandomLanguage([1, 2], 3, end=100.0), 2, 3, 50, CPU),
    ):
        assert decoded.shape == (2, CHECK_EVERY)
        assert decoded[:, 0].tolist() == [EOS, EOS]
        assert (decoded[:, 1:] == PAD).all()


class Waits(TorchDispatchMode):
    """Counts how often the host asks for a value on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        assert function not in (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("beam", [1, 4])
def test_the_host_waits_once_in_a_few_steps(beam: int):
    module, batch = transformer().eval(), batch_of([([4, 5], []), ([6], [])])
    with Waits() as waits:
        module.translate(batch.source, batch.source_mask, beam, 12)
    assert 1 <= waits.count <= 12 // CHECK_EVERY


# ---- the transformer's cached decoding ---------------------------------------------------------------------------


PAIRS = [([4, 5, 6], [7, 8, 5, 5]), ([9], [5, 4, 6, 10]), ([4, 4, 7, 8, 5], [6, 6, 6, 6])]


def transformer(**given: object) -> Transformer:
    torch.manual_seed(0)
    module = Transformer(TranslationSizes(10, 11, 12), **{"d_model": 8, "d_inner": 12, "heads": 2, **given})
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "embedding" in name or "vocabulary" in name:
                parameter.mul_(5)
    return module


@pytest.mark.parametrize(
    "given", [{}, {"norm": "pre", "tie": "target", "scale_embeddings": True}, {"attention": "explicit", "heads": 4}]
)
def test_cached_decoding_is_uncached_decoding(given: dict[str, object]):
    module, batch = transformer(**given).eval(), batch_of(PAIRS)
    expected = module(batch).view(3, 5, 11)
    stepper = _Stepper(module, batch.source, batch.source_mask, 8)
    for position in range(5):
        found = stepper(batch.target_input[:, position])
        torch.testing.assert_close(found, expected[:, position], rtol=1e-4, atol=1e-5)


def test_reordered_decoding_goes_on_from_the_chosen_hypotheses():
    module, beam = transformer().eval(), 2
    source = [pair[0] for pair in PAIRS]
    batch = batch_of([(tokens, []) for tokens in source])
    stepper = _Stepper(module, batch.source, batch.source_mask, 8)
    histories = [[BOS] for _ in range(3 * beam)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        found = stepper(torch.tensor([history[-1] for history in histories]))
        full = batch_of([(source[row // beam], history[1:]) for row, history in enumerate(histories)])
        torch.testing.assert_close(found, module(full).view(3 * beam, -1, 11)[:, -1], rtol=1e-4, atol=1e-5)
        parents = torch.randint(beam, (3, beam), generator=generator)
        rows = (parents + torch.arange(3)[:, None] * beam).flatten()
        stepper.reorder(rows)
        words = torch.randint(4, 11, (3 * beam,), generator=generator).tolist()
        histories = [[*histories[row], word] for row, word in zip(rows.tolist(), words, strict=True)]


def uncached_greedy(module: Transformer, source: list[int], longest: int) -> Prefix:
    found: list[int] = []
    while len(found) < longest and (not found or found[-1] != EOS):
        scores = module(batch_of([(source, found)]))[-1]
        scores[[PAD, BOS]] = -torch.inf
        found.append(int(scores.argmax()))
    return tuple(found)


@pytest.mark.parametrize("given", [{}, {"norm": "pre"}])
def test_greedy_translation_is_that_of_the_whole_model_again_and_again(given: dict[str, object]):
    module, batch = transformer(**given).eval(), batch_of(PAIRS)
    translated = as_tuples(module.translate(batch.source, batch.source_mask, 1, 10))
    assert translated == [uncached_greedy(module, source, 10) for source, _ in PAIRS]
    assert as_tuples(beam_search(_Stepper(module, batch.source, batch.source_mask, 10), 3, 1, 10, CPU)) == translated


def test_a_wide_beam_finds_the_transformers_most_probable_translation():
    module, batch, longest = transformer().eval(), batch_of([(source, []) for source, _ in PAIRS]), 3
    tokens = [UNK, *range(4, 11)]
    whole = [list(words) for length in range(longest) for words in itertools.product(tokens, repeat=length)]
    expected = []
    for source, _ in PAIRS:
        full = batch_of([(source, words) for words in whole])
        said = module(full).log_softmax(1).gather(1, full.target_output[:, None])[:, 0]
        scores = torch.zeros(len(whole)).index_add(0, full.target_sentence, said.detach())
        expected.append((*whole[int(scores.argmax())], EOS))
    found = module.translate(batch.source, batch.source_mask, len(whole), longest, length_penalty=0.0)
    assert as_tuples(found) == expected


def test_a_sentence_is_translated_alike_in_any_batch():
    module, batch = transformer().eval(), batch_of(PAIRS, extra=2)
    together = as_tuples(module.translate(batch.source, batch.source_mask, 3, 10))
    alone = []
    for pair in PAIRS:
        single = batch_of([pair])
        alone += as_tuples(module.translate(single.source, single.source_mask, 3, 10))
    assert together == alone


def test_translation_runs_in_half_precision_and_leaves_no_gradient():
    module, batch = transformer().eval(), batch_of(PAIRS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        translated = module.translate(batch.source, batch.source_mask, 3, 10)
    assert translated.dtype == torch.int64
    assert not translated.requires_grad
    as_tuples(translated)


@pytest.mark.parametrize(
    ("given", "message"),
    [((0, 5, 0.6), "at least 1"), ((2, 0, 0.6), "at least 1"), ((2, 5, -1.0), "must not be negative")],
)
def test_searches_that_mean_nothing_are_refused(given: tuple[int, int, float], message: str):
    batch = batch_of(PAIRS)
    with pytest.raises(ConfigError, match=message):
        transformer().translate(batch.source, batch.source_mask, *given)
