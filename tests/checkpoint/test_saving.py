"""Checkpoints are saved whole, and where that fails one sentence says why."""

import errno
import os

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from mimdet.checkpoint.saving import WholeCheckpointer, ends_in_one_sentence


def checkpointer(folder) -> WholeCheckpointer:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return WholeCheckpointer(model, str(folder), optimizer=optimizer)


def test_a_checkpoint_is_that_of_detectron2(tmp_path):
    ours = checkpointer(tmp_path)
    ours.save("model_0000004", iteration=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000004.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    theirs = DetectionCheckpointer(nn.Linear(2, 2), str(tmp_path))
    rest = theirs.resume_or_load("", resume=True)
    assert rest["iteration"] == 4 and rest["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert torch.equal(theirs.model.weight, ours.model.weight)


def test_without_a_folder_or_the_order_to_save_nothing_is_written(tmp_path):
    checkpointer("").save("model")
    WholeCheckpointer(nn.Linear(2, 2), str(tmp_path), save_to_disk=False).save("model")
    assert not list(tmp_path.iterdir())


class Full:
    """`torch.save` on a disk that takes `size` bytes."""

    def __init__(self, code: int, size: int = 100):
        self.code, self.size = code, size

    def __call__(self, content, file) -> None:
        file.write(b"x" * self.size)
        try:
            raise OSError(self.code, os.strerror(self.code))
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos") from None


@pytest.mark.parametrize(
    "code, reason",
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EDQUOT, "Disk quota exceeded"),
        (errno.EFBIG, "File too large"),
    ],
)
def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_checkpoint(
    tmp_path, monkeypatch, code, reason
):
    ours = checkpointer(tmp_path)
    ours.save("model_0000004", iteration=4)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(torch, "save", Full(code))
    with pytest.raises(SystemExit) as caught:
        ours.save("model_0000009", iteration=9)
    assert caught.value.code == (
        f"error: {tmp_path / 'model_0000009.pth'} cannot be written: {reason}; the last good "
        f"checkpoint is {tmp_path / 'model_0000004.pth'}: go on with --resume"
    )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_was_deleted_is_named(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as caught:
        checkpointer(folder).save("model_0000004")
    assert caught.value.code == (
        f"error: {folder / 'model_0000004.pth'} cannot be written: No such file or directory; "
        f"there is no checkpoint in {folder} to go on from"
    )


def test_a_fault_of_the_code_stays_what_it_is(tmp_path):
    ours = checkpointer(tmp_path)
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        ours.save("model_0000004", hook=lambda: None)
    assert not list(tmp_path.iterdir())


def test_what_is_read_elsewhere_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), ends_in_one_sentence(str(tmp_path)):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/1.jpg")
    results = str(tmp_path / "results.json")
    with pytest.raises(SystemExit, match="results.json cannot be written: Permission denied; "):
        with ends_in_one_sentence(str(tmp_path)):
            raise PermissionError(errno.EACCES, "Permission denied", results)
