import numpy as np
import pytest
import torch
from bench_diet import plain_losses
from torch import Tensor
from torch.nn import functional as F

from sparse_bench.batch import IntentBatch, IntentSizes, Layout, SparseRows
from sparse_bench.errors import ConfigError
from sparse_bench.models.diet import DIET
from sparse_bench.models.dropout import Dropout

GROUPS = {
    "default",
    "encoder_input",
    "attention_qkv",
    "attention_output",
    "attention",
    "feed_forward",
    "feature_projections",
    "embedding",
    "embeds",
    "transitions",
}
#: Everything that is penalised: all weight matrices but those of attention and feed-forward blocks.
PENALISED = [
    "token_projection.weight",
    "sentence_projection.weight",
    "encoder.input.weight",
    "text_embed.weight",
    "label_projection.weight",
    "label_embed.weight",
    "tag_embed.weight",
    "transitions",
]


def sizes(tags: int = 5, intents: int = 4) -> IntentSizes:
    names = SparseRows(torch.arange(intents), torch.arange(intents), torch.ones(intents))
    return IntentSizes(token_features=30, sentence_features=20, intent_features=intents, intents=names, tags=tags)


def model(tags: int = 5, **settings: object) -> DIET:
    torch.manual_seed(0)
    return DIET(sizes(tags), **{"transformer_size": 8, "dense_dim": 6, "embedding_dim": 3, **settings})


#: Settings under which a training step has no noise but the negatives.
NOISELESS = {"dropout": 0.0, "sparse_dropout": 0.0}


class Message:
    """One random message: its tokens' features, its sentence's, its intent and tags."""

    def __init__(self, seed: int, length: int) -> None:
        generator = np.random.default_rng(seed)
        self.tokens = [np.sort(generator.choice(30, generator.integers(0, 6), replace=False)) for _ in range(length)]
        self.sentence = np.sort(generator.choice(20, 4, replace=False))
        self.intent = int(generator.integers(4))
        self.tags = generator.integers(0, 5, length)


def rows_of(rows: list[np.ndarray]) -> SparseRows:
    counts = np.array([len(row) for row in rows])
    return SparseRows(
        indices=torch.from_numpy(np.concatenate(rows)),
        offsets=torch.from_numpy(np.cumsum(counts) - counts),
        values=torch.ones(int(counts.sum())),
    )


def batch_of(messages: list[Message]) -> IntentBatch:
    lengths = np.array([len(message.tokens) for message in messages])
    token_rows, sentence_rows, row = [], [], 0
    for length in lengths:
        token_rows += range(row, row + length)
        sentence_rows.append(row + length)
        row += length + 1
    return IntentBatch(
        tokens=rows_of([token for message in messages for token in message.tokens]),
        sentences=rows_of([message.sentence for message in messages]),
        layout=Layout.of(lengths + 1),
        token_rows=torch.tensor(token_rows),
        sentence_rows=torch.tensor(sentence_rows),
        token_layout=Layout.of(lengths),
        intents=torch.tensor([message.intent for message in messages]),
        tags=torch.from_numpy(np.concatenate([message.tags for message in messages])),
    )


def messages(*lengths: int) -> list[Message]:
    return [Message(seed, length) for seed, length in enumerate(lengths)]


def gradients(module: DIET, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


# ---- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "weights"), [(4, 896), (12, 4_992), (64, 106_496), (128, 409_600), (200, 985_600)])
def test_known_numbers_of_weights_in_the_layers_that_the_post_makes_sparse(size: int, weights: int):
    with torch.device("meta"):
        module = DIET(sizes(), transformer_size=size)
    assert sum(module.get_parameter(name).numel() for name in module.layer_groups()["default"]) == weights
    assert weights == 128 * size + 24 * size**2


def test_the_groups_cover_every_matrix_once():
    module = model()
    groups = module.layer_groups()
    assert set(groups) == set(DIET.groups) == GROUPS
    parts = groups["default"] + groups["feature_projections"] + groups["embeds"] + groups["transitions"]
    assert sorted(parts) == sorted(name for name, parameter in module.named_parameters() if parameter.dim() == 2)
    assert sorted(groups["default"]) == sorted(
        groups["encoder_input"] + groups["attention_qkv"] + groups["attention_output"] + groups["feed_forward"]
    )


def test_every_layer_of_the_default_group_is_an_ordinary_linear_layer():
    module = model()
    for name in module.layer_groups()["default"]:
        assert type(module.get_submodule(name.rpartition(".")[0])) is torch.nn.Linear


def test_widths_are_all_multiples_of_the_heads_up_to_its_own():
    assert DIET.widths({"transformer_size": 12}) == [{"transformer_size": width} for width in (4, 8, 12)]
    assert DIET.widths({"transformer_size": 12, "heads": 6}) == [{"transformer_size": width} for width in (6, 12)]
    assert DIET.widths({})[-1] == {"transformer_size": 256}


def test_the_intents_names_are_no_part_of_the_state():
    assert set(model().state_dict()) == {name for name, _ in model().named_parameters()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transformer_size": 10}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"sparse_dropout": -0.1}, "sparse_dropout"),
        ({"negatives": 0}, "negatives"),
        ({"regularization": -1.0}, "regularization"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        model(**settings)


# ---- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [5, 0])
def test_losses_and_gradients_are_those_of_the_plain_version(tags: int):
    module, batch = model(tags, **NOISELESS), batch_of(messages(3, 1, 7, 2))
    torch.manual_seed(1)
    ours = module(batch)
    torch.manual_seed(1)
    expected = plain_losses(module, batch)
    assert list(ours) == list(expected) == (["intent", "entity", "l2"] if tags else ["intent", "l2"])
    for name, loss in ours.items():
        assert loss.shape == ()
        torch.testing.assert_close(loss, expected[name])
    found = gradients(module, torch.stack(list(ours.values())).sum())
    right = gradients(module, torch.stack(list(expected.values())).sum())
    for name in found:
        torch.testing.assert_close(found[name], right[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_penalty_covers_exactly_the_listed_weights():
    module = model()
    loss = module(batch_of(messages(3, 1)))["l2"]
    expected = 0.002 * sum(module.get_parameter(name).square().sum() for name in PENALISED)
    torch.testing.assert_close(loss, expected)
    groups = module.layer_groups()
    matrices = {name for name, parameter in module.named_parameters() if parameter.dim() == 2}
    assert matrices - set(PENALISED) == {*groups["attention"], *groups["feed_forward"]}


def test_the_quirk_changes_no_loss_and_only_the_penalised_gradients():
    batch = batch_of(messages(3, 1, 4))
    found = {}
    for quirk in (False, True):
        module = model(regularize_rising_only=quirk, **NOISELESS)
        torch.manual_seed(1)
        losses = module(batch)
        found[quirk] = (losses, gradients(module, torch.stack(list(losses.values())).sum()))
    module = model(regularization=0.0, **NOISELESS)
    torch.manual_seed(1)
    prediction = gradients(module, torch.stack(list(module(batch).values())).sum())
    torch.testing.assert_close(found[True][0], found[False][0])
    for name, parameter in module.named_parameters():
        decay = 0.004 * parameter if name in PENALISED else torch.zeros(())
        torch.testing.assert_close(found[False][1][name], prediction[name] + decay, msg=name)
        gated = torch.where(prediction[name] > 0, decay, 0.0)
        torch.testing.assert_close(found[True][1][name], prediction[name] + gated, msg=name)


@pytest.mark.parametrize("settings", [{"entities": False}, {"tags": 1}, {"tags": 0}])
def test_without_entities_there_is_no_tagging_at_all(settings: dict[str, object]):
    module, batch = model(**settings), batch_of(messages(3, 1))
    assert set(module(batch)) == {"intent", "l2"}
    assert not any("tag" in name or "transition" in name for name, _ in module.named_parameters())
    assert module.layer_groups()["transitions"] == []
    assert module.eval().predict(batch)[1].tolist() == [0, 0, 0, 0]


def test_constrained_similarities_reach_the_loss():
    batch = batch_of(messages(3, 1, 4))
    losses = []
    for constrain in (False, True):
        module = model(constrain_similarities=constrain, **NOISELESS)
        torch.manual_seed(1)
        losses.append(module(batch)["intent"].item())
    assert losses[0] != losses[1]


# ---- the way through the model -----------------------------------------------------------------------------------


def test_the_sentence_stands_behind_its_tokens_and_a_gelu_behind_the_last_norm():
    module, batch = model().eval(), batch_of(messages(2, 1))
    seen: dict[str, Tensor] = {}
    module.encoder.register_forward_hook(lambda _, inputs, output: seen.update(input=inputs[0], output=output))
    module.encoder.norm.register_forward_hook(lambda _, inputs, output: seen.update(norm=output))
    module.text_embed.register_forward_hook(lambda _, inputs, output: seen.update(cls=inputs[0], message=output))
    assert module.tag_embed is not None
    module.tag_embed.register_forward_hook(lambda _, inputs, output: seen.update(tagged=inputs[0]))
    scores, _ = module.predict(batch)
    tokens, sentences = module.token_projection(batch.tokens), module.sentence_projection(batch.sentences)
    order = torch.stack([tokens[0], tokens[1], sentences[0], tokens[2], sentences[1]])
    torch.testing.assert_close(seen["input"], order)
    assert torch.equal(seen["output"], seen["norm"])
    torch.testing.assert_close(seen["tagged"], F.gelu(seen["norm"]))
    torch.testing.assert_close(seen["cls"], F.gelu(seen["norm"])[[2, 4]])
    names = module.label_embed(module.label_projection(module.intents))
    torch.testing.assert_close(scores, seen["message"] @ names.t())


def test_features_and_encoder_get_dropout_and_intent_names_get_none():
    module = model(layers=1)
    assert module.token_projection.dropout == module.sentence_projection.dropout == 0.2
    assert module.label_projection.dropout == 0
    seen: list[tuple[str, tuple[int, ...]]] = []
    for name, child in module.named_modules():
        if isinstance(child, Dropout):
            assert child.rate == 0.2
            child.register_forward_hook(lambda _, inputs, output, name=name: seen.append((name, tuple(output.shape))))
    module(batch_of(messages(3, 1)))
    assert seen == [
        ("input_dropout", (6, 6)),
        ("encoder.dropout", (6, 8)),
        ("encoder.layers.0.dropout", (6, 8)),
        ("encoder.layers.0.feed_forward.dropout", (6, 32)),
        ("encoder.layers.0.dropout", (6, 8)),
    ]


def test_a_prediction_depends_on_its_message_alone():
    module, some = model().eval(), messages(3, 1, 9, 2, 5)
    scores, tags = module.predict(batch_of(some))
    lengths = [len(message.tokens) for message in some]
    for number, (message, alone) in enumerate(zip(some, tags.split(lengths), strict=True)):
        own_scores, own_tags = module.predict(batch_of([message]))
        torch.testing.assert_close(own_scores[0], scores[number], rtol=1e-5, atol=1e-5)
        assert torch.equal(own_tags, alone)
    turned_scores, turned_tags = module.predict(batch_of(some[::-1]))
    torch.testing.assert_close(turned_scores.flip(0), scores, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat(turned_tags.split(lengths[::-1])[::-1]), tags)


def test_predictions_have_the_promised_shapes():
    scores, tags = model().eval().predict(batch_of(messages(3, 1)))
    assert scores.shape == (2, 4)
    assert tags.shape == (4,)
    assert tags.dtype == torch.int64


# ---- training ----------------------------------------------------------------------------------------------------


def step(module: DIET, batch: IntentBatch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    losses = module(batch)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("quirk", [False, True])
def test_a_whole_training_step_on_the_meta_device(quirk: bool):
    with torch.device("meta"):
        module = DIET(sizes(), transformer_size=8, attention_dropout=0.1, regularize_rising_only=quirk)
    batch = batch_of(messages(3, 1, 4)).to(torch.device("meta"))
    optimizer = torch.optim.Adam(module.parameters(), eps=1e-7)
    losses = module(batch)
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in module.parameters())
    optimizer.step()
    scores, tags = module.eval().predict(batch)
    assert scores.is_meta
    assert tags.shape == (8,)


def test_it_learns_a_few_messages_by_heart():
    module, batch = model(transformer_size=16, regularization=1e-4, **NOISELESS), batch_of(messages(3, 1, 4, 6, 2, 5))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, eps=1e-7)
    first = step(module, batch, optimizer)
    for _ in range(90):
        last = step(module, batch, optimizer)
    assert last["entity"] < 0.1 * first["entity"]
    assert last["intent"] < 0.5 * first["intent"]
    scores, tags = module.eval().predict(batch)
    assert torch.equal(scores.argmax(1), batch.intents)
    assert torch.equal(tags, batch.tags)


def test_restoring_the_random_state_repeats_a_step_bit_for_bit():
    batch = batch_of(messages(3, 1, 4))
    results = []
    for _ in range(2):
        module = model(attention_dropout=0.1)
        optimizer = torch.optim.Adam(module.parameters(), eps=1e-7)
        torch.manual_seed(2)
        for _ in range(3):
            losses = step(module, batch, optimizer)
        results.append((losses, module.state_dict()))
    assert all(torch.equal(results[0][0][name], results[1][0][name]) for name in results[0][0])
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_under_autocast(dtype: torch.dtype):
    module, batch = model(), batch_of(messages(3, 1, 4))
    with torch.autocast("cpu", dtype=dtype):
        losses = module(batch)
        predicted = module.predict(batch)
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())
    assert predicted[0].isfinite().all()


def test_double_precision_runs_too():
    module = model().double()
    batch = batch_of(messages(3, 1, 4)).map(lambda t: t.double() if t.is_floating_point() else t)
    assert all(loss.dtype == torch.float64 for loss in module(batch).values())
