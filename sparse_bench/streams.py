"""Named random streams: one seed, independent streams for data order, topology, initial weights and noise.

The seed of a stream is a hash of (run seed, name, keys). No stream depends on how much another one was used. Changing
the sparsity scheme therefore changes neither the order of the data nor the dropout noise. Most streams are derived
again for each epoch, layer or rewiring, and a resumed run needs no state for them.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """Factory of the random streams of one run.

    Names in use: ``data`` (order of the batches), ``topology`` (masks and rewiring), ``init`` (initial weights) and
    ``noise`` (dropout and sampled negatives). The last is torch's global generator, whose state is checkpointed.
    """

    seed: int

    def derive(self, name: str, *keys: int | str) -> int:
        """A 63-bit seed for stream ``name``. ``keys`` split the stream further: epoch, layer name, rewiring number."""
        text = "/".join([str(self.seed), name, *map(str, keys)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def numpy(self, name: str, *keys: int | str) -> np.random.Generator:
        """A fresh NumPy generator."""
        return np.random.default_rng(self.derive(name, *keys))

    def torch(self, name: str, *keys: int | str) -> torch.Generator:
        """A fresh generator on the CPU. Its numbers are copied to the device, so they are the same on every device."""
        return torch.Generator(device="cpu").manual_seed(self.derive(name, *keys))
