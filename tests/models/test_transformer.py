import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparse_bench.batch.translation import EOS, TranslationSizes
from sparse_bench.errors import ConfigError
from sparse_bench.models.layer_norm import StdLayerNorm
from sparse_bench.models.transformer import Transformer
from tests.models.translation import batch_of, plain_logits

PAIRS = [([4, 5, 6], [7, 8]), ([9], [5, 4, 6, 10, 8]), ([4, 4, 7, 8, 5], []), ([6, 5], [9, 9, 4])]
NOISELESS = {"dropout": 0.0, "attention_dropout": 0.0, "source_dropout": 0.0}


def sizes(source: int = 10, target: int = 11) -> TranslationSizes:
    return TranslationSizes(source_vocabulary=source, target_vocabulary=target, longest=12)


def model(given: TranslationSizes | None = None, **settings: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(given or sizes(), **{"d_model": 8, "d_inner": 12, "heads": 2, **settings})


def perturbed(module: Transformer) -> Transformer:
    """With no bias at 0 and no gain at 1, so that a forgotten one is noticed; larger embeddings than at first."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.rand_like(parameter) - 0.5)
            elif "embedding" in name:
                parameter.mul_(20)
    return module


# ---- weights -----------------------------------------------------------------------------------------------------


def test_the_number_of_weights_by_hand():
    module = model(d_inner=16, encoder_layers=1, decoder_layers=1)
    attention, feed_forward, norm = 4 * 8 * 8 + 8, (8 * 16 + 16) + (16 * 8 + 8), 8 + 8
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert (encoder, decoder) == (576, 856)
    assert sum(p.numel() for p in module.parameters()) == 8 * (10 + 11) + encoder + decoder + 8 * 11 == 1_688
    assert sum(p.numel() for p in model(norm="pre").parameters()) == sum(p.numel() for p in model().parameters()) + 32


def test_the_numbers_of_weights_in_the_reports_groups():
    with torch.device("meta"):
        module = Transformer(TranslationSizes(5_000, 6_000, 60))
    groups = module.layer_groups()
    counted = {name: sum(module.get_parameter(weight).numel() for weight in groups[name]) for name in groups}
    square = 512 * 512
    assert counted == {
        "default": 6 * square,
        "encoder_self_attention_qkv": 6 * square,
        "encoder_self_attention": 8 * square,
        "decoder_self_attention": 8 * square,
        "cross_attention": 8 * square,
        "attention_qkv": 18 * square,
        "attention": 24 * square,
        "feed_forward": 8 * square,
        "everything": 32 * square,
        "embedding": 11_000 * 512,
        "vocabulary": 6_000 * 512,
    }


def test_the_groups_cover_every_matrix_once_and_hold_ordinary_layers():
    module = model()
    groups = module.layer_groups()
    assert tuple(groups) == Transformer.groups
    parts = groups["everything"] + groups["embedding"] + groups["vocabulary"]
    assert sorted(parts) == sorted(name for name, parameter in module.named_parameters() if parameter.dim() == 2)
    assert groups["everything"] == groups["attention"] + groups["feed_forward"]
    assert groups["default"] == [
        f"encoder.{layer}.self_attention.{name}.weight" for layer in (0, 1) for name in ("query", "key", "value")
    ]
    for name in groups["everything"] + groups["vocabulary"]:
        assert type(module.get_submodule(name.rpartition(".")[0])) is nn.Linear


def test_biases_are_where_the_report_has_them():
    found = {name for name, layer in model().named_modules() if isinstance(layer, nn.Linear) and layer.bias is not None}
    linear = {name for name, layer in model().named_modules() if isinstance(layer, nn.Linear)}
    assert {name.rpartition(".")[2] for name in found} == {"output", "hidden"}
    assert {name.rpartition(".")[2] for name in linear - found} == {"query", "key", "value", "vocabulary"}


def test_weights_start_as_in_keras():
    module = model(d_model=64, d_inner=32, heads=4)
    for name, parameter in module.named_parameters():
        if "embedding" in name:
            bound = 0.05
        elif parameter.dim() == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("norm.weight"))))
            continue
        assert 0.9 * bound < parameter.abs().max() <= bound, name


def test_widths_keep_the_proportion_of_the_inner_layer():
    assert Transformer.widths({"d_model": 6, "d_inner": 12, "heads": 2}) == [
        {"d_model": 2, "d_inner": 4},
        {"d_model": 4, "d_inner": 8},
        {"d_model": 6, "d_inner": 12},
    ]
    assert Transformer.widths({})[0] == {"d_model": 8, "d_inner": 8}
    assert Transformer.widths({})[-1] == {"d_model": 512, "d_inner": 512}
    assert len(Transformer.widths({})) == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 9}, "Nearest valid widths: 8, 10"),
        ({"encoder_layers": 0}, "at least 1"),
        ({"norm": "mid"}, "post, pre"),
        ({"norm_eps_on": "sigma"}, "std, variance"),
        ({"attention_scale": "sqrt_key"}, "sqrt_head, sqrt_model"),
        ({"attention": "flash"}, "auto, explicit, sdpa"),
        ({"padding": "others"}, "mixed, own"),
        ({"tie": "source"}, "all, none, target"),
        ({"tie": "all"}, "have 10 and 11 tokens"),
        ({"dropout": 1.0}, "dropout"),
        ({"target_dropout": -0.1}, "dropout"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        model(**settings)


# ---- ties --------------------------------------------------------------------------------------------------------


def test_tied_matrices_are_one_parameter():
    untied, target = model(), model(tie="target")
    shared = model(sizes(11, 11), tie="all")
    for module in (target, shared):
        assert module.vocabulary.weight is module.target_embedding.weight
        assert module.layer_groups()["vocabulary"] == [module.layer_groups()["embedding"][-1]]
        moved = copy.deepcopy(module).to(torch.float64)
        assert moved.vocabulary.weight is moved.target_embedding.weight
    assert shared.source_embedding.weight is shared.target_embedding.weight
    assert target.source_embedding.weight is not target.target_embedding.weight
    assert shared.layer_groups()["embedding"] == ["source_embedding.weight"]
    assert untied.layer_groups()["vocabulary"] == ["vocabulary.weight"]
    assert sum(p.numel() for p in target.parameters()) == sum(p.numel() for p in untied.parameters()) - 8 * 11


def test_a_tied_matrix_gets_the_gradients_of_all_its_uses():
    batch = batch_of(PAIRS)
    tied = model(tie="target", **NOISELESS)
    separate = model(**NOISELESS)
    separate.load_state_dict(tied.state_dict())
    for module in (tied, separate):
        module(batch).square().mean().backward()
    together = separate.vocabulary.weight.grad + separate.target_embedding.weight.grad
    torch.testing.assert_close(tied.vocabulary.weight.grad, together)


# ---- what it computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "explicit"])
@pytest.mark.parametrize(
    ("settings", "divisor"),
    [
        ({}, 8**0.5),
        ({"norm": "pre"}, 8**0.5),
        ({"attention_scale": "sqrt_head"}, 4**0.5),
        ({"norm_eps_on": "variance", "scale_embeddings": True}, 8**0.5),
        ({"norm": "pre", "norm_eps_on": "variance", "tie": "target", "heads": 4, "decoder_layers": 1}, 8**0.5),
    ],
)
def test_logits_and_gradients_are_those_of_the_equations(settings: dict, divisor: float, attention: str):
    module, batch = perturbed(model(attention=attention, **NOISELESS, **settings)), batch_of(PAIRS)
    pre = settings.get("norm") == "pre"
    expected = torch.cat([plain_logits(module, *pair, pre=pre, divisor=divisor) for pair in PAIRS])
    logits = module(batch)
    assert logits.shape == (len(batch.target_output), 11)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    names, parameters = zip(*module.named_parameters(), strict=True)
    found, right = (
        torch.autograd.grad(F.cross_entropy(given, batch.target_output), parameters) for given in (logits, expected)
    )
    for name, one, other in zip(names, found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
        assert one.abs().max() > 0, name


def test_norms_are_of_the_chosen_kind():
    for eps_on, kind in (("std", StdLayerNorm), ("variance", nn.LayerNorm)):
        norms = [
            m for m in model(norm="pre", norm_eps_on=eps_on).modules() if isinstance(m, StdLayerNorm | nn.LayerNorm)
        ]
        assert len(norms) == 2 * 2 + 2 * 3 + 2
        assert {type(norm) for norm in norms} == {kind}
        assert {norm.eps for norm in norms} == {1e-6}


def test_padding_changes_nothing():
    module = perturbed(model()).eval()
    tight, loose = batch_of(PAIRS), batch_of(PAIRS, extra=3)
    torch.testing.assert_close(module(tight), module(loose), rtol=1e-5, atol=1e-5)
    loose.source = torch.where(loose.source_mask, loose.source, 7)
    torch.testing.assert_close(module(tight), module(loose), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "explicit"])
def test_mixed_padding_is_a_fault_only_among_sentences_of_different_lengths(attention: str):
    own, mixed = (perturbed(model(padding=padding, attention=attention)).eval() for padding in ("own", "mixed"))
    alike = batch_of([([4, 5, 6], [6, 7]), ([7, 8, 9], [8, 9])], extra=2)
    torch.testing.assert_close(own(alike), mixed(alike), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(own(batch_of(PAIRS)), mixed(batch_of(PAIRS)), atol=1e-2)


def test_mixed_padding_has_no_position():
    module = perturbed(model(padding="mixed")).eval()
    real = torch.tensor([[True, True, False], [True, True, True]])
    positions = module._positions(real)
    assert positions.shape == (2, 3, module.size)
    torch.testing.assert_close(positions[1], model()._positions(real), rtol=0, atol=0)
    torch.testing.assert_close(positions[0, :2], positions[1, :2], rtol=0, atol=0)
    assert not positions[0, 2].any()


def test_no_position_sees_a_later_one():
    module = perturbed(model()).eval()
    one, other = (module(batch_of([([4, 5], [6, 7, last, 9])])) for last in (8, 10))
    torch.testing.assert_close(one[:3], other[:3], rtol=0, atol=0)
    assert (one[3:] != other[3:]).any(1).all()


def test_the_source_is_seen_everywhere():
    module = perturbed(model()).eval()
    one, other = (module(batch_of([([4, 5, last], [6, 7])])) for last in (8, 9))
    assert (one != other).any(1).all()


# ---- training ----------------------------------------------------------------------------------------------------


def test_the_report_drops_out_in_four_places_and_not_on_the_decoders_embedding():
    module = model()
    rates = {name: part.rate for name, part in module.named_modules() if type(part).__name__ == "Dropout"}
    assert rates.pop("target_dropout") == 0.0
    assert set(rates.values()) == {0.1}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in rates} == {
        "",
        "self_attention",
        "cross_attention",
        "self_attention_residual",
        "cross_attention_residual",
        "feed_forward_residual",
    }


@pytest.mark.parametrize("noisy", ["dropout", "attention_dropout", "source_dropout", "target_dropout", None])
def test_each_dropout_acts_in_training_alone(noisy: str | None):
    module, batch = perturbed(model(**{**NOISELESS, **({noisy: 0.5} if noisy else {})})), batch_of(PAIRS)
    training, evaluation = module(batch), module.eval()(batch)
    assert torch.allclose(training, evaluation, rtol=1e-4, atol=1e-5) == (noisy is None)
    torch.testing.assert_close(module(batch), evaluation, rtol=0, atol=0)


def test_a_step_without_a_device():
    with torch.device("meta"):
        module = model()
    loss = F.cross_entropy(
        module(batch_of(PAIRS).to(torch.device("meta"))), torch.empty(14, dtype=torch.long, device="meta")
    )
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in module.parameters())


@pytest.mark.parametrize("norm_eps_on", ["std", "variance"])
def test_bfloat16_is_close_to_full_precision(norm_eps_on: str):
    module, batch = perturbed(model(d_model=32, norm_eps_on=norm_eps_on, **NOISELESS)), batch_of(PAIRS)
    exact = module(batch)
    right = torch.autograd.grad(F.cross_entropy(exact, batch.target_output), list(module.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(batch)
        found = torch.autograd.grad(F.cross_entropy(rough.float(), batch.target_output), list(module.parameters()))
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).norm() < 0.02 * exact.norm()
    one, other = torch.cat([g.flatten() for g in found]), torch.cat([g.flatten() for g in right])
    assert one.dtype == torch.float32
    assert (one - other).norm() < 0.05 * other.norm()


def test_it_learns_to_reverse():
    torch.manual_seed(3)
    module = model(d_model=32, d_inner=32, encoder_layers=1, decoder_layers=1, attention_scale="sqrt_head", **NOISELESS)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    sentences = torch.randint(4, 10, (150, 32, 3)).tolist()
    for sources in sentences:
        batch = batch_of([(source, source[::-1]) for source in sources])
        loss = F.cross_entropy(module(batch), batch.target_output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    batch = batch_of([(source, source[::-1]) for source in sentences[0]])
    expected = torch.tensor([[*source[::-1], EOS] for source in sentences[0]])
    for beam in (1, 3):
        assert torch.equal(module.eval().translate(batch.source, batch.source_mask, beam, 6)[:, :4], expected)
