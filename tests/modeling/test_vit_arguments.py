"""The constructors of all plain ViTs share their arguments, and explain each of them."""

import inspect
import re

import pytest

from mimdet.layers import block
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet
from mimdet.modeling.backbone.mimdet import MIMDetDecoder, MIMDetEncoder
from mimdet.modeling.backbone.vitae import ViTAE
from mimdet.modeling.backbone.vitdet import ViT
from mimdet.pretraining.mae import ViTEncoder

SHARED = re.findall(r"^\* `(\w+)`", block.__doc__, re.MULTILINE)
PUBLISHED = {
    "dpr": "drop_path_rate",
    "use_act_checkpoint": "checkpointing",
    "with_cp": "checkpointing",
}
VITS = [MIMDetEncoder, MIMDetDecoder, BenchmarkingViTDet, ViT, ViTAE, ViTEncoder]


def arguments(vit: type) -> list[str]:
    return list(inspect.signature(vit).parameters)


@pytest.mark.parametrize("vit", VITS)
def test_shared_arguments_stand_in_one_order(vit):
    shared = [PUBLISHED.get(name, name) for name in arguments(vit)]
    order = [SHARED.index(name) for name in shared if name in SHARED]
    assert len(order) >= 7
    assert order == sorted(order)


@pytest.mark.parametrize("vit", VITS)
def test_every_argument_is_explained_by_the_class_or_for_all_together(vit):
    own = re.findall(r"^        (\w+): ", vit.__doc__, re.MULTILINE)
    assert set(own) <= {*arguments(vit), "ValueError"}
    assert set(arguments(vit)) <= {*own, *SHARED}
    assert "mimdet.layers.block" in vit.__doc__


def test_published_names_are_given_where_the_shared_ones_are_explained():
    assert all(f"`{name}`" in block.__doc__ for name in PUBLISHED)
