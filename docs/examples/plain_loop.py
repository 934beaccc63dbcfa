"""A small GPT in a plain loop, with RigL at density 0.1. Runs in seconds on a CPU."""

import torch
from torch import Tensor, nn

import sparse_bench as sb

VOCABULARY, WIDTH, CONTEXT, STEPS = 64, 64, 32, 60


class GPT(nn.Module):
    """A causal transformer; tokens [B, T] in, scores of the next token [B, T, vocabulary] out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] → [B, T, vocabulary]."""
        length = tokens.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(tokens) + self.positions(torch.arange(length))
        return self.head(self.blocks(x, mask=causal, is_causal=True))


def main() -> list[float]:
    """Train on counting sequences; returns the loss of every step."""
    torch.manual_seed(0)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheme = sb.RigL(density=0.1, layers=["*linear1.weight", "*linear2.weight"], interval=10, execution="kernel")
    sparse = sb.sparsify(model, optimizer, scheme, steps=STEPS)
    losses = []
    for _ in range(STEPS):
        start = torch.randint(VOCABULARY, (16, 1))
        tokens = (start + torch.arange(CONTEXT + 1)) % VOCABULARY
        scores = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    print(sparse.report())
    return losses


if __name__ == "__main__":
    main()
