"""Diagnostics of a topology that is rewired: turnover, exploration, overlap with the first topology, degrees.

A weight matrix [out, in] is a bipartite graph. The out-degree of an input is the number of connections in its column;
the in-degree of an output is the number in its row. Rows are called outputs in every matrix, also in an embedding
[words, width] and in matrices that a model stores transposed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from sparse_bench.sparsity import power_law
from sparse_bench.sparsity.power_law import PowerLaw
from sparse_bench.sparsity.weights import SparseWeight

SIDES = ("in_degree", "out_degree")
#: A likelihood ratio is significant if its p-value is below this, as in Clauset et al. 2009.
DECIDED = 0.1


def degrees(mask: Tensor) -> dict[str, np.ndarray]:
    """The in-degree of each output [out] and the out-degree of each input [in]."""
    return {"in_degree": mask.sum(1).cpu().numpy(), "out_degree": mask.sum(0).cpu().numpy()}


def describe_degrees(degree: np.ndarray) -> dict[str, Any]:
    """Describe the degrees of some units in plain values.

    Args:
        degree: the degree of each unit [units].

    Returns:
        ``degrees`` and ``counts``: the histogram. ``dead``: number of units without a connection.
        ``variance_to_mean``: 1 for a Poisson distribution, larger with hubs. ``skew``: the third standardised moment.
        ``power_law``: the fit to the units that are not dead, with the result of :func:`favours_power_law` as
        ``favoured``; None if there are too few units.
    """
    values, counts = np.unique(degree, return_counts=True)
    mean, variance = float(degree.mean()), float(degree.var())
    third = float(((degree - mean) ** 3).mean())
    alive = values > 0
    fitted = power_law.fit(values[alive], counts[alive])
    return {
        "dead": int(counts[~alive].sum()),
        "mean": mean,
        "variance_to_mean": variance / mean if mean else 0.0,
        "skew": third / variance**1.5 if variance else 0.0,
        "power_law": None if fitted is None else asdict(fitted) | {"favoured": favours_power_law(fitted)},
        "degrees": values.tolist(),
        "counts": counts.tolist(),
    }


def favours_power_law(fitted: PowerLaw) -> bool:
    """Whether the power law is significantly likelier than both the exponential and the Poisson distribution."""
    against = (fitted.exponential, fitted.poisson)
    return all(comparison.ratio > 0 and comparison.p < DECIDED for comparison in against)


class Evolution:
    """Tracks the topology of some layers. All attributes are in the state dict, so that a resumed run continues."""

    def __init__(self, weights: Mapping[str, SparseWeight]) -> None:
        self._first = {name: weight.mask.flatten().clone() for name, weight in weights.items()}
        #: Places that have ever held a connection.
        self._ever = {name: mask.clone() for name, mask in self._first.items()}
        self._begin_epoch()
        #: Whether the topology has changed since :meth:`describe_if_changed` last reported it.
        self._changed = True
        self._described: dict[str, Any] | None = None

    def _begin_epoch(self) -> None:
        self._rewirings = 0
        #: For each layer, sums over the epoch's rewirings: connections before, and those of them gone afterwards.
        self._before = dict.fromkeys(self._first, 0)
        self._lost = dict.fromkeys(self._first, 0)

    def mark_changed(self) -> None:
        """Make :meth:`describe_if_changed` report the topology once more, even if it has not changed."""
        self._changed = True

    def record(self, name: str, active: int, occupied: Tensor, removed: Tensor, grown: Tensor) -> None:
        """Record a rewiring of one layer, before it is made.

        Args:
            name: the layer's weight matrix.
            active: how many connections it has now.
            occupied: where its connections are now, boolean [size].
            removed: places of the removed connections, int64 [removed].
            grown: places of the new connections, int64 [grown]; some may be among the removed ones.
        """
        ever = self._ever[name] = self._ever[name].to(occupied.device)
        ever.index_fill_(0, grown, True)
        self._before[name] += active
        self._lost[name] += removed.numel() - int(occupied.index_select(0, grown).count_nonzero())
        self._changed, self._described = True, None

    def count_rewiring(self) -> None:
        """Count one rewiring of all layers."""
        self._rewirings += 1

    def end_epoch(self, weights: Mapping[str, SparseWeight]) -> dict[str, float]:
        """Diagnostics of the epoch over all layers, by name with the prefix ``topology/``.

        ``density``: share of all places that hold a connection now. ``rewirings``: their number in this epoch.
        ``turnover``: share of the connections that a rewiring removed without restoring them, mean over the epoch's
        rewirings. ``exploration``: share of all places that ever held a connection (the rate R_s of Liu et al. 2021,
        "Do we actually need dense over-parameterization?"). ``overlap``: share of the first topology's connections
        that exist now. ``dead_inputs`` and ``dead_outputs``: share of units without a connection.

        For ``in_degree`` and ``out_degree``: ``variance_to_mean`` and ``skew``, means over layers. ``alpha`` and
        ``tail``, the exponent and the share of units in the tail, medians over layers with a fit. ``power_law``, the
        share of layers for which :func:`favours_power_law` holds.
        """
        layers = self._describe(weights).values()
        entry = {
            "density": _share((v["active"] for v in layers), (v["size"] for v in layers)),
            "rewirings": float(self._rewirings),
            "turnover": _share(self._lost.values(), self._before.values()),
            "exploration": _share((v["ever"] for v in layers), (v["size"] for v in layers)),
            "overlap": _share((v["kept"] for v in layers), (v["first"] for v in layers)),
            "dead_inputs": _share((v["out_degree"]["dead"] for v in layers), (v["inputs"] for v in layers)),
            "dead_outputs": _share((v["in_degree"]["dead"] for v in layers), (v["outputs"] for v in layers)),
        }
        for side in SIDES if layers else ():
            of_layers = [layer[side] for layer in layers]
            fits = [described["power_law"] for described in of_layers if described["power_law"]]
            for name in ("variance_to_mean", "skew"):
                entry[f"{side}/{name}"] = float(np.mean([described[name] for described in of_layers]))
            if fits:
                entry[f"{side}/alpha"] = float(np.median([fitted["alpha"] for fitted in fits]))
                tails = [d["power_law"]["tail"] / sum(d["counts"]) for d in of_layers if d["power_law"]]
                entry[f"{side}/tail"] = float(np.median(tails))
            entry[f"{side}/power_law"] = sum(fitted["favoured"] for fitted in fits) / len(of_layers)
        self._begin_epoch()
        return {f"topology/{name}": value for name, value in entry.items()}

    def describe_if_changed(self, weights: Mapping[str, SparseWeight]) -> dict[str, Any]:
        """Describe every layer in plain values if the topology has changed since the last call; else empty.

        For each layer ``outputs``, ``inputs``, ``size`` (places) and ``active`` (connections now). ``first``, ``kept``
        and ``ever`` count connections of the first topology, those of them that still exist, and all that ever existed.
        ``in_degree`` and ``out_degree`` are described by :func:`describe_degrees`.
        """
        if not self._changed:
            return {}
        self._changed = False
        return self._describe(weights)

    def _describe(self, weights: Mapping[str, SparseWeight]) -> dict[str, Any]:
        if self._described is None:
            self._described = {name: self._layer(name, weight) for name, weight in weights.items()}
        return self._described

    def _layer(self, name: str, weight: SparseWeight) -> dict[str, Any]:
        mask = weight.mask
        first = self._first[name] = self._first[name].to(mask.device)
        return {
            "outputs": mask.shape[0],
            "inputs": mask.shape[1],
            "size": weight.size,
            "active": weight.active,
            "first": int(first.count_nonzero()),
            "kept": int((first & mask.flatten()).count_nonzero()),
            "ever": int(self._ever[name].count_nonzero()),
            **{side: describe_degrees(degree) for side, degree in degrees(mask).items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values and tensors."""
        return {
            "first": self._first,
            "ever": self._ever,
            "rewirings": self._rewirings,
            "before": self._before,
            "lost": self._lost,
            "untold": self._changed,  # the key in checkpoints, which stays readable
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._first, self._ever = dict(state["first"]), dict(state["ever"])
        self._rewirings, self._changed = state["rewirings"], state["untold"]
        self._before, self._lost = dict(state["before"]), dict(state["lost"])
        self._described = None


def _share(parts: Iterable[int], wholes: Iterable[int]) -> float:
    whole = sum(wholes)
    return sum(parts) / whole if whole else 0.0
