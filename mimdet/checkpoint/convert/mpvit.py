"""MPViT's released checkpoints <-> our names.

The release registers the two position encodings of a path (`cpe`, `crpe`) again in each of the
path's blocks and in their attention, so its files hold every one under several names. Ours have
them once, at the path. Its classifiers have no prefix and a head that detectors do not use.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mimdet.checkpoint.convert.report import brief

_PREFIX = "backbone.bottom_up.backbone."
_NETWORK = re.compile(r"(?:backbone\.)?((?:stem|patch_embed_stages|mhca_stages)\..+)")
_HEAD = re.compile(r"(?:backbone\.)?cls_head\..+")
# A path, a place in one of its blocks, and the encoding that is registered there again.
_ALIAS = re.compile(r"(.*mhca_blks\.\d+\.)MHCA_layers\.\d+\.(?:factoratt_crpe\.)?(cr?pe\..+)")


def is_mpvit_classification(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a released classifier, with or without its head."""
    return any(re.match(r"(backbone\.)?mhca_stages\.0\.mhca_blks\.0\.", n) for n in state_dict)


def convert_mpvit_classification(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a classifier into the backbone of a detector; the head is dropped.

    Args:
        state_dict: all tensors of the classifier.

    Raises:
        ValueError: if a name belongs to no part of MPViT, or two names of one encoding differ.
    """
    networks = {name: _NETWORK.fullmatch(name) for name in state_dict if not _HEAD.fullmatch(name)}
    if unknown := [name for name, match in networks.items() if match is None]:
        raise ValueError(
            "a classifier of MPViT must hold stem, patch_embed_stages, mhca_stages and cls_head, "
            f"but it holds {brief(unknown)} too"
        )
    return merge_aliases({_PREFIX + match[1]: state_dict[name] for name, match in networks.items()})


def has_aliases(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether position encodings of MPViT are there under the names of their blocks."""
    return any(_ALIAS.fullmatch(name) for name in state_dict)


def merge_aliases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a released detector: keep each position encoding once, under its path's name.

    Args:
        state_dict: all tensors of the detector.

    Raises:
        ValueError: if two names of one encoding hold different values.
    """
    merged: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        own = _ALIAS.sub(r"\1\2", name)
        first = merged.setdefault(own, value)
        if first is not value and not torch.equal(first, value):
            raise ValueError(
                f"the blocks of a path of MPViT share their position encodings, but {name} differs "
                f"from {own}; the file is damaged or of another model"
            )
    return merged


def add_aliases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a detector of ours into the names of the release; the inverse of `merge_aliases`.

    Args:
        state_dict: all tensors of a detector of `configs/mpvit`.
    """
    block_of = re.compile(r"(.*mhca_blks\.\d+\.)MHCA_layers\.\d+\.")
    path_of_block = {m[0]: m[1] for name in state_dict if (m := block_of.match(name))}
    aliased = dict(state_dict)
    for name, value in state_dict.items():
        if match := re.fullmatch(r"(.*mhca_blks\.\d+\.)(cr?pe\..+)", name):
            path, encoding = match.groups()
            for block in (b for b, p in path_of_block.items() if p == path):
                aliased[block + encoding] = value
                if encoding.startswith("crpe."):
                    aliased[f"{block}factoratt_crpe.{encoding}"] = value
    return aliased
