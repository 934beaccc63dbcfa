"""A LightningModule that is sparse from its optimizer on."""

import lightning
import torch
from torch import Tensor, nn

import sparse_bench as sb

STEPS = 40


class Classifier(lightning.LightningModule):
    """Two layers; the first has a tenth of its weights."""

    sparse: sb.SparseTraining

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 4))
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Cross-entropy of a batch: x [B, 32], classes [B]."""
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer, which drives the scheme."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        scheme = sb.SET(density=0.1, layers=["layers.0.weight"])
        self.sparse = sb.sparsify(self, optimizer, scheme, steps=STEPS, steps_per_epoch=8)
        return optimizer


def main() -> Classifier:
    """Train for five epochs of eight batches."""
    torch.manual_seed(0)
    x = torch.randn(128, 32)
    data = torch.utils.data.TensorDataset(x, x[:, :4].argmax(dim=1))
    model = Classifier()
    trainer = lightning.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=16))
    print(model.sparse.report())
    return model


if __name__ == "__main__":
    main()
