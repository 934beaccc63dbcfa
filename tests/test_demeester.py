"""The paper's models at both scales: as many weights as the paper, or its arithmetic, says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from sparse_bench.batch.language import LanguageSizes
from sparse_bench.config import build, run_id
from sparse_bench.model_factory import ModelFactory
from sparse_bench.sparsity.counting import count
from sparse_bench.streams import Streams

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("experiment", "vocabulary", "expected"),
    [
        ("awd_dense", 10000, 24_221_600),
        ("awd_sparse", 10000, 23_822_900),
        ("awd_random", 10000, 23_822_900),
        ("lm_small/dense", 5000, 1_776_136),
        ("lm_small/sparse", 5000, 1_752_144),
        ("lm_small/random", 5000, 1_752_144),
        ("lm_small/selfish_rnn", 5000, 1_752_144),
        ("recite_dense", 10000, 24_221_600),
        ("recite_reduced", 10000, 7_068_300),
        ("recite_sparse", 10000, 7_068_304),
        ("recite_sparse_embedding", 10000, 7_070_160),
        ("recite_small/dense", 6786, 1_956_522),
        ("recite_small/reduced", 6786, 665_222),
        ("recite_small/sparse", 6786, 665_562),
        ("recite_small/sparse_embedding", 6786, 665_466),
    ],
)
def test_number_of_weights(experiment: str, vocabulary: int, expected: int, compose_config: Compose) -> None:
    plain: Any = OmegaConf.to_container(compose_config(f"experiment=demeester/{experiment}"), resolve=True)
    scheme = build(plain["sparsity"])
    sizes = LanguageSizes(vocabulary, tuple(range(vocabulary, 0, -1)))
    with torch.device("meta"):
        model = scheme.build(ModelFactory(plain["model"], sizes))
    scheme.attach(model, Streams(0))
    assert count(model, scheme).trainable == expected


@pytest.mark.parametrize("arm", ["awd", "awd_sparse", "lm_small/dense", "lm_small/sparse"])
def test_finetuning_changes_the_training_alone(arm: str, compose_config: Compose) -> None:
    """What a run must share with the one that it starts from is shared."""
    second = compose_config(f"experiment=demeester/{arm}_finetune")
    first = compose_config(f"experiment={second.start_from}")
    assert first.trainer.keep == "weights"
    for part in ("seed", "model", "dataset", "sparsity"):
        assert first[part] == second[part]
    assert dict(second.optimizer) == {**first.optimizer, "averaging": True}
    assert run_id(first) != run_id(second)
