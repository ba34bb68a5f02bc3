"""How the `loss_weight` argument of RPN and Fast R-CNN is read."""

from collections.abc import Mapping
from numbers import Real

from torch import Tensor


class LossWeights:
    """One factor per named loss.

    Args:
        loss_weight: one factor for every loss, or a mapping from loss name to factor; a loss that
            the mapping does not name has factor 1.
        names: the losses that exist.

    Raises:
        ValueError: the mapping names a loss that does not exist.
        TypeError: `loss_weight` is neither a number nor a mapping.
    """

    def __init__(self, loss_weight: float | Mapping[str, float], names: tuple[str, ...]):
        if isinstance(loss_weight, Mapping):
            unknown = sorted(set(loss_weight) - set(names))
            if unknown:
                raise ValueError(f"loss_weight has unknown keys {unknown}; known: {list(names)}")
            self.factors = {name: float(loss_weight.get(name, 1.0)) for name in names}
        elif isinstance(loss_weight, Real):
            self.factors = dict.fromkeys(names, float(loss_weight))
        else:
            raise TypeError(
                f"loss_weight must be a number or a mapping with keys from {list(names)}, "
                f"got {loss_weight!r} of type {type(loss_weight).__name__}"
            )

    def apply(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply every loss by its factor; a loss unknown at construction keeps its value."""
        factors = {name: self.factors.get(name, 1.0) for name in losses}
        return {
            # A factor of 1 would be one more operator forward and backward.
            name: loss if factors[name] == 1.0 else loss * factors[name]
            for name, loss in losses.items()
        }
