"""Replace the parameters of an optimizer after layers of its model were replaced."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_bench.sparsity.structured import StructuredWeight
from sparse_bench.sparsity.weights import CompressedWeight, SparseWeight


def replace_parameters(
    optimizer: Optimizer, before: Mapping[str, Tensor], model: nn.Module, weights: Mapping[str, SparseWeight]
) -> None:
    """Replace the optimizer's parameters ``before`` by those that ``model`` has now, and keep their state."""
    after = dict(model.named_parameters())
    for name, weight in weights.items():
        old, new = before[name], after.get(name)
        state = optimizer.state.pop(old, {})
        if isinstance(weight, StructuredWeight):
            state = {}  # its weights are stored in another shape, and may be others
        for key, moment in state.items():
            if isinstance(moment, Tensor) and moment.shape == old.shape:
                whole = moment if weight.held > weight.active else moment * weight.mask
                state[key] = weight.structure.gather(whole) if isinstance(weight, CompressedWeight) else whole
            elif isinstance(moment, Tensor) and moment.dim() and isinstance(weight, CompressedWeight):
                state = {}  # factored by rows and columns, which a vector of weights does not have
                break
        if new is not None and state:
            optimizer.state[new] = state
    given = set[str]()
    for group in optimizer.param_groups:
        group["params"] = list(_renewed(group["params"], before, after, given))
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for parameter in [parameter for parameter in optimizer.state if parameter not in held]:
        del optimizer.state[parameter]  # of a layer that is gone


def _renewed(
    parameters: list[Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor], given: set[str]
) -> Iterator[Tensor]:
    """The parameters of a group, each as it is now; those of a replaced module give way to that module's own.

    A weight gives way to weights and a bias to biases, by their attributes. ``given`` collects the names of new ones.
    """
    names = {id(parameter): name for name, parameter in before.items()}
    for parameter in parameters:
        name = names.get(id(parameter))
        if name is None:  # of another model
            yield parameter
        elif name in after:
            yield after[name]
        else:
            path, _, attribute = name.rpartition(".")
            for new, own in after.items():
                kind = new.rpartition(".")[2]
                fits = kind == attribute or f"{path}.{kind}" not in before
                if fits and new.startswith(f"{path}.") and new not in before and new not in given:
                    given.add(new)
                    yield own
