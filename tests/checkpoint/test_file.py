"""Files of torch.save and of others: what is read, what is refused, and what the error says."""

import argparse
import collections
import datetime
import decimal
import enum
import gzip
import io
import json
import logging
import os
import pathlib
import pickle
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mimdet.checkpoint.file import read_checkpoint, read_tensors


class Config(dict):
    """As configs of training scripts are: a dict with attributes."""


class Settings:
    """As a training script may keep beside its weights."""

    def __init__(self):
        self.rate = 0.1
        self.also = Config(a=1)


class Color(enum.Enum):
    """A call, to pickle."""

    RED = 1


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


HARMLESS = {
    "numpy scalar": np.float64(1.5),
    "numpy integer": np.int64(3),
    "numpy truth": np.bool_(True),
    "numpy text": np.str_("a"),
    "numpy array": np.arange(3.0),
    "numpy array of objects": np.array([None, "a"], dtype=object),
    "numpy dtype": np.dtype("float32"),
    "numpy type": np.float32,
    "namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("a/b")),
    "path": pathlib.Path("a/b"),
    "windows path": pathlib.PureWindowsPath("a/b"),
    "datetime": datetime.datetime(2022, 1, 2, tzinfo=datetime.UTC),
    "date": datetime.date(2022, 1, 2),
    "duration": datetime.timedelta(seconds=3),
    "decimal": decimal.Decimal("1.5"),
    "uuid": uuid.UUID(int=3),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1.0], maxlen=3),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "complex": 1 + 2j,
    "device": torch.device("cpu"),
    "size": torch.Size([1, 2]),
    "config": Config(lr=0.1, inner=Config(a=1)),
    "settings": Settings(),
    "omegaconf": OmegaConf.create({"a": {"b": [1, 2]}}),
    "class": nn.LayerNorm,
    "function": os.path.join,
}
HOSTILE = {
    "os.system": Call(os.system, "true"),
    "eval": Call(eval, "1"),
    "a class that does something": Call(logging.FileHandler, "HOSTILE.log"),
    "getattr": Call(getattr, "a", "upper"),
    "a call inside of what is only described": [Settings(), Call(exec, "1")],
    "an Enum": Color.RED,
}


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_weights_are_read_whatever_harmless_value_is_beside_them(value, tmp_path):
    weights = {"a": torch.arange(3.0)}
    torch.save({"model": weights, "beside": value, "deeper": [{"x": value}]}, tmp_path / "a.pth")
    assert torch.equal(read_tensors(str(tmp_path / "a.pth"), "key")["a"], weights["a"])


@pytest.mark.parametrize("value", ["numpy scalar", "path", "datetime", "namespace"])
def test_so_they_are_in_the_format_before_torch_1_6(value, tmp_path):
    content = {"model": {"a": torch.ones(3)}, "beside": HARMLESS[value]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert list(read_tensors(str(tmp_path / "a.pth"), "key")) == ["a"]


@pytest.mark.parametrize("value", ["numpy scalar", "decimal", "datetime", "path", "uuid"])
def test_values_themselves_come_as_they_were(value, tmp_path):
    torch.save({"beside": HARMLESS[value]}, tmp_path / "a.pth")
    assert read_checkpoint(str(tmp_path / "a.pth"), "key")["beside"] == HARMLESS[value]


def test_objects_of_foreign_classes_come_as_plain_dicts(tmp_path):
    torch.save({"config": Config(a=1), "settings": Settings()}, tmp_path / "a.pth")
    read = read_checkpoint(str(tmp_path / "a.pth"), "key")
    assert dict(read["config"]) == {"a": 1}
    assert not isinstance(read["settings"], Settings)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_that_calls_anything_is_refused_and_nothing_is_called(
    value, is_zip, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    content = {"model": {"a": torch.ones(3)}, "beside": value}
    torch.save(content, "a.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"a\.pth must be .* \(key\), but it contains .* execute"):
        read_checkpoint("a.pth", "key")
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize("is_zip", [True, False])
def test_names_and_shapes_are_had_from_a_mapped_file(is_zip, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(3, 4)}, path, _use_new_zipfile_serialization=is_zip)
    assert read_checkpoint(str(path), "key", mapped=True)["a"].shape == (3, 4)


def saved(**options) -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"a": torch.ones(1000)}}, file, **options)
    return file.getvalue()


def zipped(**files: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


def script() -> bytes:
    """A zip like those of torch.jit.save."""
    return zipped(**{"a/data.pkl": "", "a/constants.pkl": "", "a/code/x.py": ""})


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "empty: fetch it again"),
        (b"<!DOCTYPE html><html>too many have viewed this file</html>", "a web page"),
        (b"\xef\xbb\xbf\n  <html lang='de'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a pointer of Git LFS"),
        (b'{"error": "not found"}', "JSON text"),
        (b"Access denied\n", "text, without weights"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "text, without weights"),
        ("Zugriff verweigert für dich, ".encode() * 40, "text, without weights"),
        (gzip.compress(saved()), "a gzip archive: unpack it first"),
        (tarred(), "a tar archive: unpack it first"),
        (saved()[:-100], "cut short or damaged"),
        (saved()[:1000], "cut short or damaged"),
        (saved(_use_new_zipfile_serialization=False)[:-1000], "cut short or damaged"),
        (zipped(**{"model.pth": "x", "README": "y"}), "a zip archive of other files (model.pth,"),
        (script(), "a TorchScript program"),
        (safetensors(), "a safetensors file"),
        (pickle.dumps({"model": 1}), "a pickle that torch.save has not written"),
        (b"\x93NUMPY\x01\x00", "an array of numpy.save"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_of_a_file_that_is_no_checkpoint_the_error_says_what_it_is(content, what, tmp_path):
    (tmp_path / "mae.pth").write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_tensors(str(tmp_path / "mae.pth"), "mae_checkpoint.path")
    start = (
        f"{tmp_path}/mae.pth must be a torch checkpoint of tensors (mae_checkpoint.path), but it "
    )
    assert str(error.value).startswith(f"{start}is {what}")


def test_of_unknown_bytes_the_error_says_so(tmp_path):
    (tmp_path / "a.pth").write_bytes(bytes(range(129, 256)) * 4)
    with pytest.raises(ValueError, match="cannot be read as one"):
        read_tensors(str(tmp_path / "a.pth"), "key")


def test_a_folder_and_a_missing_file_are_no_checkpoints(tmp_path):
    for path in (tmp_path, tmp_path / "a.pth"):
        with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .* \(key\)"):
            read_tensors(str(path), "key")


def test_a_folder_is_told_from_a_missing_file_and_its_files_are_named(tmp_path):
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"folder; name a file in it, like model_final\.pth"
    ):
        read_checkpoint(str(tmp_path), "key")


def test_a_file_without_tensors_says_what_it_must_hold(tmp_path):
    path = Path(tmp_path / "a.pth")
    torch.save({"model": {"a": 1}}, path)
    with pytest.raises(ValueError, match=r"holds no tensors \(key\)"):
        read_tensors(str(path), "key")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold a state dict or a dict with one under 'model'"):
        read_tensors(str(path), "key")


def test_pickles_of_arrays_are_read_by_their_name(tmp_path):
    arrays = {"a": np.arange(3.0), "b": np.arange(2), "c": np.array(["text"])}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}))
    tensors = read_tensors(str(tmp_path / "a.pkl"), "key")
    assert {name: t.dtype for name, t in tensors.items()} == {"a": torch.float64, "b": torch.int64}
