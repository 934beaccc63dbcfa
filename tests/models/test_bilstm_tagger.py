"""The tagger against torch's own bidirectional layer, and its regularisers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from sparse_bench.batch.base import Layout
from sparse_bench.batch.tagging import TaggingBatch, TaggingSizes
from sparse_bench.data.pos_like import pos_like
from sparse_bench.errors import ConfigError
from sparse_bench.models.bilstm_tagger import BiLSTMTagger
from sparse_bench.streams import Streams
from sparse_bench.tasks.tagging import TaggingTask

SIZES = TaggingSizes(vocabulary=30, frequencies=tuple(range(30, 0, -1)), tags=5)
LENGTHS = (6, 4, 4, 1)


def batch() -> TaggingBatch:
    generator = torch.Generator().manual_seed(0)
    tokens = sum(LENGTHS)
    return TaggingBatch(
        words=torch.randint(0, 30, (tokens,), generator=generator),
        layout=Layout.of(np.asarray(LENGTHS)),
        tags=torch.randint(0, 5, (tokens,), generator=generator),
    )


def tagger(**settings: float) -> BiLSTMTagger:
    torch.manual_seed(0)
    return BiLSTMTagger(SIZES, **settings)  # type: ignore[arg-type]


def test_parameters() -> None:
    model = tagger()
    lstms = [*model.forward_lstm.parameters(), *model.backward_lstm.parameters()]
    assert sum(parameter.numel() for parameter in lstms) == 2_560
    assert model.embedding.weight.numel() == 30 * 20
    assert model.intermediate.weight.shape == (10, 20)
    assert model.output.weight.shape == (5, 10)
    assert model.embedding.weight.abs().max() <= 0.1
    assert list(model.word_frequencies) == list(SIZES.frequencies)


def test_scores_and_gradients_equal_a_bidirectional_layer_on_packed_sentences() -> None:
    model, given = tagger().double(), batch()
    lstm = nn.LSTM(20, 10, bidirectional=True).double()
    with torch.no_grad():
        for suffix, part in (("", model.forward_lstm), ("_reverse", model.backward_lstm)):
            for name, parameter in part.named_parameters():
                getattr(lstm, name + suffix).copy_(parameter)
    sentences = model.embedding(given.words).split(LENGTHS)
    encoded, _ = lstm(pack_sequence(list(sentences)))
    encoded = torch.cat(unpack_sequence(encoded))
    expected = model.output(torch.tanh(model.intermediate(encoded)))
    nn.functional.cross_entropy(expected, given.tags).backward()
    embedding_gradient = model.embedding.weight.grad.clone()
    model.zero_grad()

    torch.testing.assert_close(model.scores(given), expected)
    losses = model(given)
    losses["cross_entropy"].backward()
    torch.testing.assert_close(model.embedding.weight.grad, embedding_gradient)
    torch.testing.assert_close(model.forward_lstm.weight_hh_l0.grad, lstm.weight_hh_l0.grad)
    torch.testing.assert_close(model.backward_lstm.weight_ih_l0.grad, lstm.weight_ih_l0_reverse.grad)
    assert torch.equal(model.predict(given), expected.argmax(1))


def test_dropout_of_words_and_of_dimensions() -> None:
    """What reaches the LSTMs: a word is dropped everywhere or nowhere, a dimension in a whole sentence."""
    model = tagger(dropout_input=0.5, dropout_words=0.3)
    seen: dict[str, torch.Tensor] = {}
    model.forward_lstm.register_forward_hook(lambda m, inputs, y: seen.update(forth=inputs[0]))
    model.backward_lstm.register_forward_hook(lambda m, inputs, y: seen.update(back=inputs[0]))
    given = batch()
    model(given)
    begin = 0
    for row, length in enumerate(LENGTHS):
        words = given.words[begin : begin + length]
        vectors = model.embedding(words)
        ratio = (seen["forth"][:length, row] / vectors).detach()
        assert torch.equal(seen["back"][:length, row], seen["forth"][:length, row].flip(0))
        kept = ratio != 0
        torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.5 / 0.7), rtol=1e-4, atol=0)
        alive = kept[kept.any(1)]
        assert (alive == alive[:1]).all()  # one mask of dimensions for the sentence
        for word in words.unique():
            assert kept[words == word].any(1).unique().numel() == 1
        begin += length
    model.eval()
    assert torch.equal(model.scores(given), model.scores(given))


def test_weight_drop_is_of_the_forward_direction_alone() -> None:
    model, given = tagger(weight_drop=0.5), batch()
    outputs: dict[str, list[torch.Tensor]] = {"forward_lstm": [], "backward_lstm": []}
    for name, found in outputs.items():
        model.get_submodule(name).register_forward_hook(lambda m, inputs, y, found=found: found.append(y[0].detach()))
    for _ in range(2):
        model(given)
    assert not torch.equal(*outputs["forward_lstm"])
    assert torch.equal(*outputs["backward_lstm"])


def test_hidden_dropout() -> None:
    model, given = tagger(dropout_hidden=0.5), batch()
    assert not torch.equal(model.scores(given), model.scores(given))


def test_a_narrower_model_has_shorter_vectors() -> None:
    widths = BiLSTMTagger.widths({"embedding_dim": 5})
    assert [width["embedding_dim"] for width in widths] == [1, 2, 3, 4, 5]
    assert BiLSTMTagger(SIZES, **widths[0]).embedding.weight.shape == (30, 1)


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"embedding_dim": 0}, {"dropout_words": 1.0}])
def test_settings_outside_their_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        tagger(**settings)


def test_it_learns() -> None:
    task = TaggingTask(corpus=pos_like(sentences=400, vocabulary=300))
    torch.manual_seed(0)
    model = BiLSTMTagger(task.sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    before = task.evaluate(model, "valid")["accuracy"]
    for epoch in range(4):
        for given in task.epoch_batches(epoch, Streams(0)):
            optimizer.zero_grad()
            task.loss(model, given).total.backward()
            optimizer.step()
    after = task.evaluate(model.eval(), "valid")
    assert after["accuracy"] > max(0.8, before)
    assert 0 <= after["accuracy_without_null"] <= 1
