"""Hugging Face's Trainer with a small GPT-2 that is made from a configuration; nothing is downloaded."""

import tempfile
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import sparse_bench as sb

STEPS = 30


class Counting(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sequences of 16 tokens that count on from a random start."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, number: int) -> dict[str, Any]:
        tokens = (number + torch.arange(16)) % 64
        return {"input_ids": tokens, "labels": tokens}


def main() -> tuple[float, float]:
    """Train; returns the first and the last loss that the Trainer logs."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=64, n_layer=2, n_head=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # GPT-2's layers are of the kind Conv1D, whose weights are stored [in, out]. Masks work on any layer.
    scheme = sb.RigL(density=0.2, layers=["*mlp*weight", "*c_attn.weight"], interval=10)
    sparse = sb.sparsify(model, optimizer, scheme, steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=16, logging_steps=5, report_to=[], use_cpu=True
        )
        trainer = Trainer(model, arguments, train_dataset=Counting(), optimizers=(optimizer, None))  # type: ignore[arg-type]
        trainer.train()
    print(sparse.report())
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
