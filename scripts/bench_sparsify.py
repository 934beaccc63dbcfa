"""Time training steps of a GPT that ``sparse_bench.sparsify`` has made sparse, against the dense one.

The model is written in plain PyTorch: 10 million weights in its blocks. Its attention and feed-forward weights are
sparse. A step is forward, backward and fused AdamW.

    python scripts/bench_sparsify.py --output results/performance/sparsify.md
"""

import torch
from interleaved import Step, bf16_is_native, interleave, parse, report
from torch import Tensor, nn

import sparse_bench as sb

VOCABULARY = 1000


class GPT(nn.Module):
    """Pre-norm causal transformer; tokens [B, T] → scores [B, T, vocabulary]."""

    def __init__(self, width: int, layers: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] → [B, T, vocabulary]."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(x)
        return scores


class Block(nn.Module):
    """Attention and feed-forward, each with a residual connection: [B, T, width] → [B, T, width]."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] → [B, T, width]."""
        query, key, value = self.attention(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        hidden: Tensor = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        return hidden


def training_step(execution: str, density: float, width: int, layers: int, tokens: Tensor) -> Step:
    """A step of one arm; ``dense`` and ``dense bf16`` are not sparse."""
    torch.manual_seed(0)
    model = GPT(width, layers, tokens.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    if not execution.startswith("dense"):
        scheme = sb.RigL(density=density, layers=["blocks.*"], execution=execution, interval=100)
        sb.sparsify(model, optimizer, scheme, steps=10_000)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=execution == "dense bf16"):
            scores = model(tokens[:, :-1])
        nn.functional.cross_entropy(scores.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure, print and write."""
    given = parse(
        __doc__ or "",
        density=0.1,
        width=(408, "of the residual stream; a multiple of 8"),
        layers=5,
        batch=(16, "sequences"),
        context=(128, "tokens of a sequence"),
        seconds=120.0,
        threads=torch.get_num_threads(),
    )
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (given.batch, given.context + 1), generator=draw)
    arms = ["dense", *(["dense bf16"] if bf16_is_native(torch.device("cpu")) else []), "masked", "kernel"]
    steps = {arm: training_step(arm, given.density, given.width, given.layers, tokens) for arm in arms}
    spent = interleave(steps, given.seconds)
    rows = []
    for arm, times in spent.items():
        ratios, quartiles = times.ratios(spent["dense"], of="clock")
        row = {"arm": arm, "time / dense": f"{sorted(ratios)[len(ratios) // 2]:.2f}", "quartiles": quartiles}
        rows.append({**row, "ms a step": f"{times.milliseconds:.1f}", "rounds": len(times.clock)})
    weights = sum(parameter.numel() for parameter in GPT(given.width, given.layers, 1).blocks.parameters())
    text = f"""
    Whole steps: forward, backward and fused AdamW. The arms take turns. Ratios are those of a round to its dense step,
    by the clock, median and quartiles over the rounds. The blocks have {weights:,} weights; a batch is {given.batch}
    sequences of {given.context} tokens. `masked` and `kernel`: RigL at density {given.density:g}.
    """
    report(given.output, "Training steps of a GPT that was made sparse by one call", text, rows)


if __name__ == "__main__":
    main()
