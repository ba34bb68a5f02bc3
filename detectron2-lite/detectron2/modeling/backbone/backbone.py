from abc import ABCMeta, abstractmethod

from torch import Tensor, nn

from detectron2.layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network that turns images into named feature maps.

    Subclasses set `_out_features` (names in order), `_out_feature_channels` and
    `_out_feature_strides` (dicts by name), or override `output_shape`.
    """

    @abstractmethod
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            image: (B, 3, H, W) normalised and padded images.

        Returns:
            Name -> (B, C, H / stride, W / stride), finest first.
        """

    @property
    def size_divisibility(self) -> int:
        """Number of which H and W of the input must be multiples; 0 or 1 if they need not."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further rules of padding the input.

        `size_divisibility` replaces the property of that name; a positive `square_size` pads both
        sides to that length.
        """
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in the order of the outputs."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
