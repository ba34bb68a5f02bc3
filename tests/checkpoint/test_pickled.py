"""Checkpoints run no code, whatever Detectron2's own checkpointer would do with the file."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from mimdet.checkpoint.pickled import read_pickle
from mimdet.checkpoint.strict import StrictCheckpointer


class MakesFolder:
    """Makes a folder when it is unpickled, as a sign that code of the file was executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def unpickled(self, f):
    """How upstream reads a file."""
    with open(f, "rb") as file:
        return pickle.load(file) if f.endswith(".pkl") else torch.load(f, weights_only=False)


@pytest.fixture(autouse=True)
def _upstream(monkeypatch):
    monkeypatch.setattr(DetectionCheckpointer, "_load_file", unpickled)


def write(content, path) -> str:
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    return str(path)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize("name", ["model.pkl", "model.pth", "model.pyth", "model"])
def test_code_in_a_file_is_named_and_does_not_run(tmp_path, name):
    path = write({"model": MakesFolder(tmp_path / "sign")}, tmp_path / name)
    with pytest.raises(ValueError, match=r"init_checkpoint\), but it contains posix.mkdir, and lo"):
        StrictCheckpointer(layer()).load(path)
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_of_a_pickle_are_loaded(tmp_path, protocol, core):
    arrays = OrderedDict((name, value.numpy()) for name, value in layer().state_dict().items())
    content = {"model": arrays, "__author__": "somebody", "best": np.float64(1.5)}
    data = pickle.dumps(content, protocol)
    if protocol < 4:  # later ones keep the length of a name beside it
        data = data.replace(b"numpy._core", core)
    (tmp_path / "model.pkl").write_bytes(data)
    model = nn.Linear(3, 2)
    StrictCheckpointer(model).load(str(tmp_path / "model.pkl"))
    assert torch.equal(model.weight, layer().weight)
    assert torch.equal(model.bias, layer().bias)


def test_names_of_pycls_are_matched_by_their_ends(tmp_path):
    model = nn.ModuleDict({"net": nn.Linear(3, 2)})
    path = write({"model_state": layer().state_dict()}, tmp_path / "model.pyth")
    StrictCheckpointer(model).load(path)
    assert torch.equal(model["net"].weight, layer().weight)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", r"a.pkl must be a pickled dict of arrays \(k\), but it is empty: fetch it again"),
        (b"not a pickle\n", "is text, without weights"),
        (b"<html>", "is a web page"),
        (bytes(range(129, 140)), "cannot be read as one"),
        (
            pickle.dumps({"model": {"a": np.zeros(9)}})[:60],
            "is cut short or damaged: fetch it again",
        ),
        (pickle.dumps({"conv1_w": np.zeros(3)}), "has no 'model'; names of Caffe2 are not conv"),
        (pickle.dumps([1]), "has no 'model'"),
        (pickle.dumps({"model": eval}), "contains builtins.eval, and loading that could execute"),
    ],
)
def test_a_pickle_that_is_no_checkpoint_is_refused(tmp_path, data, message):
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_pickle(str(tmp_path / "a.pkl"), "k")
