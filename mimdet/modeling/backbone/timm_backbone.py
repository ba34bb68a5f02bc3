"""Any timm feature extractor as a Detectron2 backbone."""

from collections.abc import Sequence

from torch import Tensor, nn

from detectron2.modeling import Backbone
from mimdet.layers.layout import over_channels


class TimmBackbone(Backbone):
    """A timm model that gives its maps by stride: ``c2`` at 4 pixels, ``c5`` at 32.

    What the wanted maps do not need (head, later stages, unused norms) is removed from the model.

    Args:
        model: a timm model, built by its class or `timm.create_model`.
        out_features: which maps to return; where several have a stride, the last one counts.
        norm: ``""``: maps as they leave their stage; ``"final"``: the model's last one, which must
            be wanted, through its own final norm, as in pretraining; ``"fresh"``: each one through
            a new LayerNorm ``norm_c2``, ..., as Swin's detectors have it.
        checkpointing: recompute the activations of a block in the backward pass.

    Raises:
        ValueError: if the model cannot give intermediate maps, it has no map of the stride that an
            output stands for, or `norm` is another word or for a map that is not wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        out_features: Sequence[str] = ("c2", "c3", "c4", "c5"),
        norm: str = "",
        checkpointing: bool = False,
    ):
        super().__init__()
        if not hasattr(model, "prune_intermediate_layers"):
            raise ValueError(
                f"timm's {type(model).__name__} cannot give intermediate maps "
                "(forward_intermediates); choose another model (backbone.bottom_up.model)"
            )
        if norm not in ("", "final", "fresh"):
            raise ValueError(f"norm must be '', 'final' or 'fresh', got {norm!r}")
        strides = [info["reduction"] for info in model.feature_info]
        # A stride between powers of two, as of patches of 14 pixels, has no name.
        infos = {f"c{r.bit_length() - 1}": k for k, r in enumerate(strides) if r.bit_count() == 1}
        if unknown := set(out_features) - set(infos):
            raise ValueError(
                f"a map cN has the stride 2^N: {type(model).__name__}, whose strides are "
                f"{sorted(set(strides))}, gives the maps {sorted(infos)}, got out_features "
                f"{sorted(unknown)} besides (backbone.bottom_up.out_features)"
            )
        self.final_norm = norm == "final"
        self._out_features = sorted(out_features, key=infos.get)  # the order of the model
        self._indices = [infos[name] for name in self._out_features]
        if self.final_norm and len(strides) - 1 not in self._indices:
            # timm would leave the norm away without a word: its width is that of the last map.
            raise ValueError(
                f"norm 'final' is that of the last map of {type(model).__name__}, of stride "
                f"{strides[-1]}, got out_features {self._out_features} without it; add it, or "
                "choose norm '' or 'fresh' (backbone.bottom_up.norm)"
            )
        chosen = {name: model.feature_info[infos[name]] for name in self._out_features}
        self._out_feature_channels = {name: info["num_chs"] for name, info in chosen.items()}
        self._out_feature_strides = {name: info["reduction"] for name, info in chosen.items()}
        model.prune_intermediate_layers(self._indices, prune_norm=not self.final_norm)
        model.set_grad_checkpointing(checkpointing)
        self.model = model
        if norm == "fresh":
            for name, channels in self._out_feature_channels.items():
                self.add_module(f"norm_{name}", nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, height, width) -> the maps ``{name: (B, C, H, W)}`` of `out_features`."""
        maps = self.model.forward_intermediates(
            x, indices=self._indices, norm=self.final_norm, intermediates_only=True
        )
        return {
            name: self._normalized(name, x)
            for name, x in zip(self._out_features, maps, strict=True)
        }

    def _normalized(self, name: str, x: Tensor) -> Tensor:
        norm = getattr(self, f"norm_{name}", None)
        return x if norm is None else over_channels(norm, x)
