import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_bench.batch import Attribute, DialogueBatch, DialogueSizes, Layout
from sparse_bench.errors import ConfigError
from sparse_bench.models.dropout import Dropout
from sparse_bench.models.similarity import draw_negatives, similarity_loss
from sparse_bench.models.ted import TED, look_up
from sparse_bench.sparsity.counting import count
from sparse_bench.sparsity.schemes.random_connected import RandomConnected
from sparse_bench.streams import Streams
from tests.models.test_rasa_transformer import one_sequence

ACTIONS = 7
#: Everything that is penalised: all weight matrices but those of attention and feed-forward blocks.
PENALISED = [
    *(f"attributes.{name}.projection.weight" for name in ("intent", "previous_action", "entities", "slots", "loop")),
    *(f"attributes.{name}.encoding.linear.weight" for name in ("intent", "previous_action")),
    "action_encoding.linear.weight",
    "encoder.input.weight",
    "dialogue_embed.weight",
    "action_embed.weight",
]


def sizes(actions: int = ACTIONS, *, loop: bool = True, slots: bool = True) -> DialogueSizes:
    attributes = {
        "intent": Attribute(torch.eye(3)),
        "previous_action": Attribute(torch.eye(actions)),
        "entities": Attribute(torch.tensor([[1.0, 0, 0], [1, 0, 1]])),
        "slots": Attribute(torch.tensor([[1.0, 1]])),
        "loop": Attribute(torch.eye(2)),
    }
    kept = {name: attribute for name, attribute in attributes.items() if (loop or name != "loop")}
    return DialogueSizes({name: a for name, a in kept.items() if slots or name != "slots"}, actions)


def model(**settings: object) -> TED:
    torch.manual_seed(0)
    return TED(sizes(), **{"transformer_size": 8, "dense_dim": 4, "encoding_dim": 6, "embedding_dim": 3, **settings})


def absent(module: TED) -> list[int]:
    return [attribute.values.shape[0] for attribute in module.attributes.values()]


def conversation(seed: int, length: int) -> tuple[Tensor, int]:
    """Random turns, latest first [length, 5], and the action; about a third of the attributes are absent."""
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, values * 3 // 2 + 1, length).clip(max=values) for values in (3, ACTIONS, 2, 1, 2)]
    return torch.from_numpy(np.stack(columns, axis=1)), int(generator.integers(ACTIONS))


def batch_of(conversations: list[tuple[Tensor, int]]) -> DialogueBatch:
    lengths = np.array([len(turns) for turns, _ in conversations])
    return DialogueBatch(
        turns=torch.cat([turns for turns, _ in conversations]),
        layout=Layout.of(lengths),
        latest_rows=torch.from_numpy(np.cumsum(lengths) - lengths),
        actions=torch.tensor([action for _, action in conversations]),
    )


def conversations(*lengths: int) -> list[tuple[Tensor, int]]:
    return [conversation(seed, length) for seed, length in enumerate(lengths)]


def gradients(module: TED, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


# ---- weights -----------------------------------------------------------------------------------------------------


def expected(inputs: int, outputs: int, density: float) -> float:
    """Expected number of weights of a randomly connected layer."""
    kept = max(inputs, outputs)
    return inputs * outputs if density == 1 else density * inputs * outputs + (1 - density) * kept


def expected_weights(size: int, density: float) -> tuple[float, float]:
    """Of the transformer (140 inputs, one layer), and of the encoding layers (51 actions)."""
    encodings = 2 * expected(20, 50, density) + expected(51, 50, density)
    blocks = 4 * expected(size, size, density) + 2 * expected(size, 4 * size, density)
    return expected(140, size, density) + blocks, encodings


def published(size: int) -> TED:
    return TED(sizes(51, loop=False), transformer_size=size)


def test_known_numbers_of_weights_of_the_dense_model():
    with torch.device("meta"):
        module = published(32)
    assert module.encoder.input.in_features == 140
    groups = {
        group: sum(module.get_parameter(name).numel() for name in names)
        for group, names in module.layer_groups().items()
    }
    assert (groups["default"], groups["transformer"], groups["encoding_layers"]) == (21_318, 16_768, 4_550)
    assert (groups["transformer"], groups["encoding_layers"]) == expected_weights(32, 1)
    assert [sum(expected_weights(size, 1)) for size in (4, 8, 16, 32, 64, 128, 256)] == [
        *(5_302, 6_438, 9_862, 21_318, 62_662, 219_078, 826_822)
    ]


def test_known_number_of_weights_at_density_a_fifth():
    assert round(sum(expected_weights(32, 0.2))) == 4_804
    found = []
    for seed in range(20):
        module = published(32)
        scheme = RandomConnected(density=0.2, layers=["default"])
        scheme.attach(module, Streams(seed))
        counts = count(module, scheme)
        assert counts.sparse_layers_size == 21_318
        found.append(counts.sparse_layers)
    # A standard deviation of a count is below √(21,318 · 0.2 · 0.8) = 58, of the mean of twenty below 14.
    assert np.mean(found) == pytest.approx(4_804, abs=3 * 14)


@pytest.mark.parametrize(("loop", "slots", "inputs"), [(False, True, 140), (False, False, 120), (True, True, 160)])
def test_inputs_of_the_transformer(loop: bool, slots: bool, inputs: int):
    with torch.device("meta"):
        module = TED(sizes(loop=loop, slots=slots))
    assert module.encoder.input.in_features == inputs


def test_the_groups_cover_every_matrix_once():
    module = model()
    groups = module.layer_groups()
    assert set(groups) == set(TED.groups)
    parts = groups["default"] + groups["feature_projections"] + groups["embeds"]
    assert sorted(parts) == sorted(name for name, parameter in module.named_parameters() if parameter.dim() == 2)
    assert groups["default"] == groups["transformer"] + groups["encoding_layers"]
    assert sorted(groups["transformer"]) == sorted(
        groups["encoder_input"] + groups["attention_qkv"] + groups["attention_output"] + groups["feed_forward"]
    )
    for name in groups["default"]:
        assert type(module.get_submodule(name.rpartition(".")[0])) is torch.nn.Linear


def test_widths_are_all_multiples_of_the_heads_up_to_its_own():
    assert TED.widths({"transformer_size": 12}) == [{"transformer_size": width} for width in (4, 8, 12)]
    assert TED.widths({})[-1] == {"transformer_size": 128}


def test_what_turns_can_have_is_no_part_of_the_state():
    assert set(model().state_dict()) == {name for name, _ in model().named_parameters()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transformer_size": 10}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"negatives": 0}, "negatives"),
        ({"encoding_dim": 0}, "encoding_dim"),
        ({"regularization": -1.0}, "regularization"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        model(**settings)


# ---- the way through the model -----------------------------------------------------------------------------------


def by_hand(module: TED, turns: Tensor) -> Tensor:
    """The embedding of one conversation in evaluation mode, turn by turn and attribute by attribute."""
    rows = []
    for turn in turns.tolist():
        parts = []
        for (name, attribute), number in zip(module.attributes.items(), turn, strict=True):
            if number == attribute.values.shape[0]:
                parts.append(torch.zeros(attribute.size, dtype=module.dialogue_embed.weight.dtype))
                continue
            part = F.linear(attribute.values[number], attribute.projection.weight, attribute.projection.bias)
            if name in ("intent", "previous_action"):
                part = F.gelu(F.linear(part, attribute.encoding.linear.weight, attribute.encoding.linear.bias))
            parts.append(part)
        rows.append(torch.cat(parts))
    latest = F.gelu(one_sequence(module.encoder, torch.stack(rows))[0])
    return F.linear(latest, module.dialogue_embed.weight, module.dialogue_embed.bias)


@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_the_written_out_model_for_each_conversation(layers: int):
    module = model(layers=layers).double().eval()
    for parameter in module.parameters():  # so that a missing bias or norm shows
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    some = conversations(4, 1, 7, 2)
    dialogues = torch.stack([by_hand(module, turns) for turns, _ in some])
    hidden = F.gelu(module.action_encoding.linear(torch.eye(ACTIONS, dtype=torch.float64)))
    actions = F.linear(hidden, module.action_embed.weight, module.action_embed.bias)
    torch.testing.assert_close(module.predict(batch_of(some)), dialogues @ actions.t())


def test_absent_attributes_are_exact_zeros_in_training_too():
    module, batch = model(), batch_of(conversations(5, 9, 3))
    seen: list[Tensor] = []
    module.encoder.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    module(batch)
    parts = seen[0].split([attribute.size for attribute in module.attributes.values()], dim=1)
    for part, column, number in zip(parts, batch.turns.unbind(1), absent(module), strict=True):
        assert (column == number).any()
        assert torch.equal(part[column == number], torch.zeros_like(part[column == number]))
        assert (part[column < number] != 0).any(1).all()


def test_looked_up_rows_and_the_row_of_zeros():
    table = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    rows = look_up(table, torch.tensor([1, 2, 1, 0]))
    assert rows.tolist() == [[3, 4], [0, 0], [3, 4], [1, 2]]
    rows.sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1, 1], [2, 2]]


def test_the_latest_turn_decides_by_its_place():
    """Turns that change places change the prediction, and so does the one at position 0 alone."""
    module = model().eval()
    turns = conversation(3, 4)[0]
    scores = module.predict(batch_of([(turns, 0), (turns.flip(0), 0), (turns[:1], 0)]))
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_a_prediction_depends_on_its_conversation_alone():
    module, some = model().eval(), conversations(3, 1, 9, 2)
    scores = module.predict(batch_of(some))
    assert scores.shape == (4, ACTIONS)
    for number, one in enumerate(some):
        torch.testing.assert_close(module.predict(batch_of([one]))[0], scores[number], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.predict(batch_of(some[::-1])).flip(0), scores, rtol=1e-5, atol=1e-5)


def test_dropout_is_drawn_for_each_turn_behind_encoding_layers_and_in_the_encoder():
    module = model()
    batch = batch_of([(conversation(1, 1)[0].repeat(6, 1), 0), *conversations(3)])
    shapes: list[tuple[str, tuple[int, ...]]] = []
    outputs: dict[str, Tensor] = {}
    for name, child in module.named_modules():
        if isinstance(child, Dropout):
            assert child.rate == 0.1

            def hook(_: Dropout, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
                shapes.append((name, tuple(output.shape)))
                outputs[name] = output

            child.register_forward_hook(hook)
    module(batch)
    assert shapes == [
        ("attributes.intent.encoding.dropout", (9, 6)),
        ("attributes.previous_action.encoding.dropout", (9, 6)),
        ("encoder.dropout", (9, 8)),
        ("encoder.layers.0.dropout", (2, 8)),
        ("encoder.layers.0.feed_forward.dropout", (2, 32)),
        ("encoder.layers.0.dropout", (2, 8)),
        ("action_encoding.dropout", (ACTIONS, 6)),
    ]
    equal_turns = outputs["attributes.previous_action.encoding.dropout"][:6]
    assert len({tuple(row) for row in equal_turns.tolist()}) > 1


# ---- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [True, False])
def test_the_loss_is_that_of_the_embeddings(scale: bool):
    module, batch = model(dropout=0.0, scale_loss=scale), batch_of(conversations(3, 1, 7, 2))
    torch.manual_seed(1)
    found = module(batch)
    torch.manual_seed(1)
    dialogues, actions = module._embed_dialogues(batch), module._embed_actions()
    drawn = draw_negatives(4, 20, ACTIONS, torch.device("cpu")), draw_negatives(4, 20, 4, torch.device("cpu"))
    expected_loss = similarity_loss(dialogues, actions, batch.actions, *drawn, scale_loss=scale)
    assert list(found) == ["action", "l2"]
    torch.testing.assert_close(found["action"], expected_loss)


def test_learned_examples_count_less_by_default():
    """With p > 0.5 somewhere, each loss is multiplied by ((1 − p) / 0.5)⁴; the gradient does not see the factor."""
    assert model().scale_loss
    inputs = torch.tensor([[4.0, 0], [0, 0.1]], requires_grad=True)
    labels = torch.eye(2)
    negatives = torch.tensor([[1], [0]])
    arguments = inputs, labels, torch.tensor([0, 1]), negatives, negatives
    plain = torch.stack(
        [
            similarity_loss(inputs, labels, torch.tensor([0, 1]), negatives, negatives),
            similarity_loss(*arguments, scale_loss=True),
        ]
    )
    # Similarities of the first: own label 4; other label 0, other input 0, other input 0, other label 0.
    losses = [math.log(1 + 4 * math.exp(-4)), math.log(1 + (2 * 1 + 1 + 1) * math.exp(-0.1))]
    factors = [((1 - math.exp(-loss)) / 0.5) ** 4 for loss in losses]
    assert math.exp(-losses[0]) > 0.5 > math.exp(-losses[1])
    assert plain[0].item() == pytest.approx(sum(losses) / 2)
    assert plain[1].item() == pytest.approx(sum(a * b for a, b in zip(losses, factors, strict=True)) / 2)
    slopes = [torch.autograd.grad(loss, inputs, retain_graph=True)[0] for loss in plain]
    torch.testing.assert_close(slopes[1][0, 0] / slopes[0][0, 0], torch.tensor(factors[0]))


def test_the_penalty_covers_exactly_the_listed_weights():
    module = model()
    loss = module(batch_of(conversations(3, 1)))["l2"]
    torch.testing.assert_close(loss, 0.001 * sum(module.get_parameter(name).square().sum() for name in PENALISED))
    groups = module.layer_groups()
    matrices = {name for name, parameter in module.named_parameters() if parameter.dim() == 2}
    assert matrices - set(PENALISED) == {*groups["attention"], *groups["feed_forward"]}


def test_the_quirk_changes_no_loss_and_only_the_penalised_gradients():
    batch = batch_of(conversations(3, 1, 4))
    found = {}
    for quirk in (False, True):
        module = model(regularize_rising_only=quirk, dropout=0.0)
        torch.manual_seed(1)
        losses = module(batch)
        found[quirk] = (losses, gradients(module, torch.stack(list(losses.values())).sum()))
    module = model(regularization=0.0, dropout=0.0)
    torch.manual_seed(1)
    prediction = gradients(module, torch.stack(list(module(batch).values())).sum())
    torch.testing.assert_close(found[True][0], found[False][0])
    for name, parameter in module.named_parameters():
        decay = 0.002 * parameter if name in PENALISED else torch.zeros(())
        torch.testing.assert_close(found[False][1][name], prediction[name] + decay, msg=name)
        gated = torch.where(prediction[name] > 0, decay, 0.0)
        torch.testing.assert_close(found[True][1][name], prediction[name] + gated, msg=name)


def test_what_nothing_depends_on_is_left_out_without_a_trace():
    """The encoder computes one position of its last layer; the gradients are those of the whole."""
    module, batch = model(dropout=0.0, layers=2), batch_of(conversations(3, 1, 6))
    torch.manual_seed(1)
    found = gradients(module, module(batch)["action"])
    forward = module.encoder.forward
    module.encoder.forward = lambda x, layout, wanted: forward(x, layout)[wanted]  # type: ignore[method-assign]
    torch.manual_seed(1)
    whole = gradients(module, module(batch)["action"])
    for name in found:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-4, atol=1e-5, msg=name)


# ---- training ----------------------------------------------------------------------------------------------------


def step(module: TED, batch: DialogueBatch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    losses = module(batch)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("quirk", [False, True])
def test_a_whole_training_step_on_the_meta_device(quirk: bool):
    with torch.device("meta"):
        module = TED(sizes(), transformer_size=8, attention_dropout=0.1, regularize_rising_only=quirk)
    batch = batch_of(conversations(3, 1, 4)).to(torch.device("meta"))
    optimizer = torch.optim.Adam(module.parameters(), eps=1e-7)
    step(module, batch, optimizer)
    assert module.eval().predict(batch).is_meta


def test_it_learns_a_few_conversations_by_heart():
    module = model(transformer_size=16, regularization=1e-4, dropout=0.0)
    batch = batch_of(conversations(3, 1, 4, 6, 2, 5, 9, 8))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, eps=1e-7)
    for _ in range(80):
        step(module, batch, optimizer)
    assert torch.equal(module.eval().predict(batch).argmax(1), batch.actions)


def test_restoring_the_random_state_repeats_a_step_bit_for_bit():
    batch = batch_of(conversations(3, 1, 4))
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
    module, batch = model(), batch_of(conversations(3, 1, 4))
    with torch.autocast("cpu", dtype=dtype):
        losses = module(batch)
        predicted = module.predict(batch)
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())
    assert predicted.isfinite().all()
