"""DistributedDataParallel: every rank draws the same topology from the seed and ranks the same gradients.

torchrun --standalone --nproc-per-node 2 docs/examples/data_parallel.py
"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import sparse_bench as sb

STEPS = 20


def main() -> torch.Tensor:
    """Train on this rank's part of the data; returns the mask of the sparse layer."""
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # First the model becomes sparse, then it is wrapped.
    sparse = sb.sparsify(model, optimizer, sb.RigL(density=0.1, layers=["0.weight"], interval=5), steps=STEPS)
    parallel = DistributedDataParallel(model)
    draw = torch.Generator().manual_seed(distributed.get_rank())
    for _ in range(STEPS):
        x = torch.randn(16, 32, generator=draw)
        loss = nn.functional.cross_entropy(parallel(x), x[:, :4].argmax(dim=1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    mask = sparse.scheme.weights["0.weight"].mask
    every = [torch.empty_like(mask, dtype=torch.uint8) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, mask.to(torch.uint8))
    assert all(torch.equal(one, every[0]) for one in every)
    if distributed.get_rank() == 0:
        print(sparse.report())
        print("All ranks have the same topology.")
    distributed.destroy_process_group()
    return mask


if __name__ == "__main__":
    main()
