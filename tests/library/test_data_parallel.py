"""Two processes with gloo and DistributedDataParallel keep the same topology."""

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import sparse_bench as sb


class Branches(nn.Module):
    """Two layers side by side, of which a batch may take only one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.at_times = nn.Linear(12, 8), nn.Linear(12, 8)

    def forward(self, x: Tensor, both: bool) -> Tensor:
        y = self.always(x)
        return (y + self.at_times(x) if both else y).tanh()


def _begin(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    # A rank that waits for one that has taken another way gives up, instead of hanging.
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=timedelta(seconds=30))


def _rank(rank: int, port: int, execution: str, folder: str) -> None:
    _begin(rank, port)
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


def _rank_without_gradient(rank: int, port: int, execution: str, folder: str) -> None:
    _begin(rank, port)
    model = Branches()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheme = sb.RigL(density=0.3, layers=["*weight"], interval=1, execution=execution)
    sparse = sb.sparsify(model, optimizer, scheme, steps=20)
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    seen, grown = [], []
    for step in range(6):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2 * step + rank))
        parallel(x, rank == 0 and step < 4).square().mean().backward()  # in the end no rank takes that layer
        optimizer.step()
        optimizer.zero_grad()
        seen.append(sparse.scheme.weights["at_times.weight"].mask.clone())
        grown.append(sparse.scheme.weights["always.weight"].mask.clone())
    torch.save({"at times": torch.stack(seen), "always": torch.stack(grown)}, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def _spawn(work: Callable[..., None], execution: str, folder: Path) -> list[dict[str, Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, args=(port, execution, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_a_rank_whose_loss_does_not_reach_a_weight_takes_part(execution: str, tmp_path: Path) -> None:
    one, other = _spawn(_rank_without_gradient, execution, tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["at times"][0], one["at times"][3]), "it has rewired"


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["masked", "kernel"])
def test_ranks_keep_the_same_topology_and_weights(execution: str, tmp_path: Path) -> None:
    one, other = _spawn(_rank, execution, tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["mask"], one["first"]), "RigL has rewired"
