"""The configuration's schema, its checks, and the identity of a run.

Hydra composes the YAML files under ``conf/``. A dataclass here is the schema of the common settings. For a node with
``_target_``, the signature of the target is the schema. Unknown settings, values of the wrong type and combinations
that cannot work are refused before any data are read.
"""

from sparse_bench.config.checks import check
from sparse_bench.config.command_line import as_typed, check_command_line
from sparse_bench.config.identifier import NOT_IDENTITY, NOT_IDENTITY_TRAINER, identity, recorded_identity, run_id
from sparse_bench.config.nodes import LABEL, build, target_of
from sparse_bench.config.own_code import own_code
from sparse_bench.config.schema import CONF, Config, TrainerConfig, choices, register

__all__ = [
    "CONF",
    "LABEL",
    "NOT_IDENTITY",
    "NOT_IDENTITY_TRAINER",
    "Config",
    "TrainerConfig",
    "as_typed",
    "build",
    "check",
    "check_command_line",
    "choices",
    "identity",
    "own_code",
    "recorded_identity",
    "register",
    "run_id",
    "target_of",
]
