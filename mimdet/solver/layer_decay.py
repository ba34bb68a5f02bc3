"""Layer-wise learning-rate decay: the deeper a part of a pretrained network, the faster it learns.

A family of networks has a rule: a small function from the name of a parameter to the layer that it
belongs to, counted from 0, or None for what lies above the last layer and learns at full speed.
Names are those in the bare model.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

LayerRule = Callable[[str], int | None]


def vit_layer(name: str) -> int | None:
    """Rule of ViT detectors: patches and positions 0, block i is layer i + 1, as in ViTDet.

    It fits every backbone whose blocks are called ``blocks``: ViTDet, ViTAE-B, Benchmarking-ViT.
    Pyramids, adaptors, heads, shared tables of relative positions and the convolutions that carry
    information across windows (`residual`) are new in a detector and lie above the last layer.
    """
    if not name.startswith("backbone"):
        return None
    if ".pos_embed" in name or ".patch_embed" in name:
        return 0
    block = re.search(r"\.blocks\.(\d+)\.", name)
    return int(block[1]) + 1 if block and ".residual." not in name else None


def segmentor_layer(name: str) -> int | None:
    """Rule of FastMIM's segmentor: that of ViT detectors, with the class token in layer 0."""
    return 0 if name == "backbone.cls_token" else vit_layer(name)


def vitae_layer(name: str) -> int | None:
    """Rule of ViTAE-S: reduction cell s is layer s, normal cell j is layer 3 + j.

    With its 14 normal cells that makes 17 layers. (The released config says 12, by which late
    cells would learn faster than the heads; its training log shows that 17 were meant.)
    """
    cell = re.match(r"backbone\.net\.layers\.(?:(\d+)\.RC|2\.NC\.(\d+))\.", name)
    if cell is None:
        return None
    return int(cell[1]) if cell[1] else int(cell[2]) + 3


def mimdet_layer(name: str) -> int | None:
    """Rule of MIMDet: positions 0, encoder block i is layer i + 1, and nothing else decays.

    The stem is new, and the decoder comes after the encoder.
    """
    if name == "backbone.bottom_up.encoder.pos_embed":
        return 0
    block = re.match(r"backbone\.bottom_up\.encoder\.blocks\.(\d+)\.", name)
    return int(block[1]) + 1 if block else None


def classifier_layer(name: str, depths: Sequence[int]) -> int | None:
    """Rule of classifiers: timm's ViT, Swin and PVTv2 and our CMT, as FastMIM fine-tunes them.

    Tokens, positions, stem and first patch embedding are layer 0, the blocks of all stages are
    counted from 1, and last norm and head lie above. What halves the map before a stage shares the
    layer of the block before it (in CMT, with the stage's positions, of the block after it), and so
    does the norm behind a stage of PVTv2. timm's own rule differs for Swin.

    Args:
        name: dotted name of the parameter, with any modules in front of the network.
        depths: blocks of each stage; a single number for a ViT.
    """
    before = [0, *accumulate(depths)]  # blocks before each stage, and in all
    if found := re.search(r"(?:\b(?:layers|stages)\.(\d)\.)?\bblocks\.(\d+)\.", name):
        return before[int(found[1] or 0)] + int(found[2]) + 1
    if found := re.search(r"\bblocks_([a-d])\.(\d+)\.", name):
        return before["abcd".index(found[1])] + int(found[2]) + 1
    if found := re.search(r"\b(?:patch_embed|relative_pos)_([a-d])\b", name):
        return before["abcd".index(found[1])] + 1
    if found := re.search(r"\b(?:layers|stages)\.(\d)\.downsample\.", name):
        return before[int(found[1])]
    if (found := re.search(r"\bstages\.(\d)\.norm\.", name)) and int(found[1]) < len(depths) - 1:
        return before[int(found[1]) + 1]
    return 0 if re.search(r"\b(?:cls_token|pos_embed|patch_embed|stem_\w+)\b", name) else None


def get_layer_lr_decay_rate(
    name: str, layer_of: LayerRule, lr_decay_rate: float, num_layers: int
) -> float:
    """Learning-rate factor of a parameter.

    With the first argument left open (`functools.partial`) it is the `lr_factor_func` of
    Detectron2's `get_default_optimizer_params` and of `get_fpn_model_parameters`.

    Args:
        name: dotted name of the parameter in the bare model.
        layer_of: the rule of the network's family.
        lr_decay_rate: factor from one layer to the one below, in (0, 1].
        num_layers: layers of the network, without layer 0.

    Returns:
        ``lr_decay_rate ** (num_layers + 1 - layer)``, in (0, 1]; 1 above the last layer.

    Raises:
        ValueError: if `lr_decay_rate` is out of range; if the name has the ``module.`` of a
            distributed wrapper, with which no rule would know it; or if its layer is beyond
            `num_layers`, so that it would learn faster than what is new.

    Reference:
        Clark et al. 2020 (ELECTRA), arXiv 2003.10555; for images Bao et al. 2021 (BEiT), arXiv
        2106.08254.
    """
    if not 0 < lr_decay_rate <= 1:
        raise ValueError(
            f"lr_decay_rate must be in (0, 1], got {lr_decay_rate} "
            "(optimizer.params.lr_factor_func); 1 is no decay"
        )
    if name.startswith("module."):
        raise ValueError(
            f"names of parameters must be those in the bare model, got {name}; make the parameter "
            "groups before the model is wrapped for distributed training"
        )
    # Detectron2 gives parameters of the model itself the name of no module and a dot first.
    layer = layer_of(name.removeprefix("."))
    if layer is None:
        return 1.0
    if layer > num_layers:
        raise ValueError(
            f"num_layers must count all layers, got {num_layers}, but {name} is in layer {layer} "
            "and would get a factor of 1 or more (optimizer.params.lr_factor_func)"
        )
    return lr_decay_rate ** (num_layers + 1 - layer)


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Learning-rate factor of a ViT detector's parameter; Detectron2's name and arguments.

    Args:
        name: dotted name of the parameter in the bare model.
        lr_decay_rate: factor from one layer to the one below, in (0, 1].
        num_layers: blocks of the ViT.

    Returns:
        The factor of `get_layer_lr_decay_rate` by the rule `vit_layer`.

    Raises:
        ValueError: see `get_layer_lr_decay_rate`.

    Reference:
        Li et al. 2022, arXiv 2203.16527.
    """
    return get_layer_lr_decay_rate(name, vit_layer, lr_decay_rate, num_layers)


def make_classifier_lr_factor(
    lr_decay_rate: float, depths: Sequence[int]
) -> Callable[[str], float]:
    """Make the `lr_factor_func` of a classifier's config: parameter name -> factor.

    Args:
        lr_decay_rate: factor from one layer to the one below, in (0, 1].
        depths: blocks of each stage; a single number for a ViT.

    Returns:
        `get_layer_lr_decay_rate` by the rule `classifier_layer`.

    Reference:
        Bao et al. 2021, arXiv 2106.08254; Guo et al. 2022 (FastMIM), arXiv 2212.06593.
    """
    return partial(
        get_layer_lr_decay_rate,
        layer_of=partial(classifier_layer, depths=tuple(depths)),
        lr_decay_rate=lr_decay_rate,
        num_layers=sum(depths),
    )
