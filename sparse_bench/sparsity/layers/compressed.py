"""The base of layers that store only the weights that exist, and what their copies must not be used for."""

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_bench.errors import ConfigError
from sparse_bench.kernels.structure import SparseStructure


class _Original:
    """Refers to the layer that a copy was made of, if it still exists. All copies share it, and none is pickled."""

    def __init__(self, layer: "CompressedLayer | None" = None) -> None:
        self._layer = None if layer is None else weakref.ref(layer)

    def __call__(self) -> "CompressedLayer | None":
        return None if self._layer is None else self._layer()

    def __deepcopy__(self, memo: Any) -> "_Original":
        return self

    def __reduce__(self) -> Any:
        return _Original, ()


class CompressedLayer(nn.Module):
    """Stores the existing weights of each matrix as a vector [entries], and their places as a structure.

    A rewiring moves values to other positions of the vector. So an average over positions, such as
    :class:`torch.optim.swa_utils.AveragedModel` makes in a copy of a model, is an average of different weights. A copy
    whose values have been changed by no training of its own, while the original has other places, refuses to be used.
    """

    #: Name of each weight → name of its structure.
    structures: ClassVar[Mapping[str, str]]
    execution: str
    _original = _Original()
    _watched = False

    def parts(self) -> dict[str, tuple[Tensor, SparseStructure]]:
        """Name of each matrix → the weights that exist [entries], and their places."""
        return {name: (getattr(self, name), getattr(self, places)) for name, places in self.structures.items()}

    def check_copy(self) -> None:
        """Look whether this layer's weights belong to its places, before it is used.

        Raises:
            ConfigError: it is a copy that holds averages of different weights.
        """
        original = self._original()
        if original is None or next(self.parameters()).is_meta:
            return
        own, others = self.parts(), original.parts()
        if torch.is_grad_enabled() and not self._watched:
            self._watched = True
            for values, _ in own.values():
                if values.requires_grad:
                    values.register_post_accumulate_grad_hook(self._detach_from_original)
        places = [(own[name][1].positions(), others[name][1].positions()) for name in own]
        moved = any(not torch.equal(mine, its.to(mine.device)) for mine, its in places)
        if moved and self._sums() != self._copied:
            raise ConfigError(
                f"The weights of this copied {type(self).__name__} were changed, as by a running average (EMA), and "
                f"the original has rewired since. Under execution={self.execution} a rewiring moves weights to other "
                "positions, so the average mixes different weights. Average exported models instead: "
                "AveragedModel(sparse.export()), with update_parameters(sparse.export()). Or use execution=masked."
            )

    def _detach_from_original(self, *hook: Any) -> None:
        self._original = _Original()  # it is trained itself, so its weights belong to its own places

    def _sums(self) -> list[float]:
        """A sum of each vector of weights, to detect whether they have changed."""
        return [float(values.detach().double().sum()) for values, _ in self.parts().values() if not values.is_meta]

    def __getstate__(self) -> dict[str, Any]:
        self.check_copy()
        return {**self.__dict__, "_original": _Original(self) if self._original() is None else self._original}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_watched": False})
        self._copied = self._sums()

    def _apply(self, *change: Any, **settings: Any) -> "CompressedLayer":
        unchanged = self._original() is not None and self._sums() == self._copied
        super()._apply(*change, **settings)
        if unchanged:  # another type rounds
            self._copied = self._sums()
        return self

    def _save_to_state_dict(self, *args: Any) -> None:
        self.check_copy()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize_to_saved(self, self.structures, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._copied = self._sums()


def compressed(full: Tensor, mask: Tensor) -> tuple[SparseStructure, Tensor]:
    """The structure of ``mask`` [out, in], and a copy of the weights of ``full`` [out, in] that exist in it [entries].

    For a matrix on the meta device, which has no numbers, the weights are zeros on the mask's device.
    """
    if full.is_meta:
        structure = SparseStructure(mask)
        return structure, torch.zeros(structure.entries, dtype=full.dtype, device=mask.device)
    structure = SparseStructure(mask.to(full.device))
    return structure, structure.gather(full.detach()).clone()


def resize_to_saved(module: nn.Module, names: Mapping[str, str], state_dict: dict[str, Any], prefix: str) -> None:
    """Resize parameters to saved values, because a rewired layer may have another number of weights than at first.

    The parameters stay the same objects, since an optimizer refers to them. A masked layer's checkpoint holds a matrix
    [out, in] and its mask; these are compressed first.

    Args:
        module: the layer that is about to load.
        names: name of each weight → name of its structure.
        state_dict: the saved values, changed in place.
        prefix: of the layer's names in ``state_dict``.
    """
    for name, structure in names.items():
        mask = state_dict.pop(f"{prefix}{name}_mask", None)
        if mask is not None:
            found, state_dict[prefix + name] = compressed(state_dict[prefix + name], mask)
            state_dict |= {f"{prefix}{structure}.{part}": held for part, held in found.state_dict().items()}
        parameter, saved = getattr(module, name), state_dict.get(prefix + name)
        if isinstance(saved, Tensor) and saved.dim() == 1 and saved.shape != parameter.shape:
            parameter.data = torch.empty_like(saved, device=parameter.device)
