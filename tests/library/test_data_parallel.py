"""Two processes with gloo and DistributedDataParallel keep the same topology."""

import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import sparse_bench as sb


def _rank(rank: int, port: int, execution: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheme = sb.RigL(density=0.3, layers=["0.weight"], interval=2, execution=execution)
    sparse = sb.sparsify(model, optimizer, scheme, steps=10)
    first = sparse.scheme.weights["0.weight"].mask.clone()
    parallel = DistributedDataParallel(model)
    for step in range(8):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2 * step + rank))  # each rank has its own data
        parallel(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = sparse.scheme.weights["0.weight"]
    torch.save({"first": first, "mask": weight.mask, "dense": weight.dense()}, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_ranks_keep_the_same_topology_and_weights(execution: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_rank, args=(port, execution, str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["mask"], one["first"]), "RigL has rewired"
