"""Names at their former place."""

import pytest
import torch

import mimdet.checkpoint.load
from mimdet.checkpoint import strict


def test_a_moved_class_is_the_same_class_and_says_where_it_is():
    with pytest.warns(FutureWarning, match=r"is now mimdet\.checkpoint\.strict"):
        assert mimdet.checkpoint.load.StrictCheckpointer is strict.StrictCheckpointer


def test_read_state_dict_takes_off_wrapper_and_prefixes_as_before(tmp_path):
    with pytest.warns(FutureWarning, match=r"is now read_tensors in mimdet\.checkpoint\.file"):
        read_state_dict = mimdet.checkpoint.load.read_state_dict
    torch.save({"model": {"module.encoder.norm.bias": torch.ones(2)}}, tmp_path / "a.pth")
    assert list(read_state_dict(str(tmp_path / "a.pth"))) == ["norm.bias"]


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'load_pretrained'"):
        _ = mimdet.checkpoint.load.load_pretrained
