"""Named random streams: one seed, independent streams for data order, topology, initial weights and noise.

A stream's seed is a hash of (run seed, name, keys), so no stream depends on how much another one was used: changing
the sparsity scheme changes neither the order of the data nor the dropout noise, and a resumed run needs no state
for any stream that is derived anew for each epoch, layer or rewiring.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """Factory of the random streams of one run.

    Names in use: ``data`` (order of the batches), ``topology`` (masks and rewiring), ``init`` (initial weights),
    ``noise`` (dropout and sampled negatives; this one is torch's global generator and is checkpointed).
    """

    seed: int

    def derive(self, name: str, *keys: int | str) -> int:
        """A 63-bit seed for stream ``name``; ``keys`` split it further (epoch, layer name, rewiring number)."""
        text = "/".join([str(self.seed), name, *map(str, keys)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def numpy(self, name: str, *keys: int | str) -> np.random.Generator:
        """A fresh NumPy generator."""
        return np.random.default_rng(self.derive(name, *keys))

    def torch(self, name: str, *keys: int | str) -> torch.Generator:
        """A fresh generator on the CPU: what it draws is the same on every device and is then copied there."""
        return torch.Generator(device="cpu").manual_seed(self.derive(name, *keys))
