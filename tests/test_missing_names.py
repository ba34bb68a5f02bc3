"""The explanations of detectron2-lite name parts of mimdet; those must exist."""

import re

import pytest

pytestmark = pytest.mark.lite


def test_what_an_explanation_recommends_of_mimdet_is_there():
    from detectron2._missing import LEFT_OUT
    from detectron2.utils.registry import locate

    recommended = {name for why in LEFT_OUT.values() for name in re.findall(r"mimdet[\w.]+", why)}
    assert len(recommended) >= 7
    for name in recommended:
        locate(name)
