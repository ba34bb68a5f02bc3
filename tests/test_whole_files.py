"""A file is complete or not there."""

import os

import pytest

from mimdet.whole_files import complete_or_not_there, written_whole


@pytest.mark.parametrize("mode, content", [("w", "täg"), ("wb", b"\0\1")])
def test_a_file_takes_its_place_when_the_block_ends(tmp_path, mode, content):
    path = tmp_path / "file"
    path.write_text("old")
    with written_whole(path, mode) as file:
        file.write(content)
        file.flush()
        assert path.read_text() == "old"
        assert (tmp_path / f"file.tmp{os.getpid()}").exists()
    assert path.read_bytes() == (content.encode() if mode == "w" else content)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), written_whole(path) as file:
        file.write("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_at_the_end_leaves_the_old_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), written_whole(path) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_files_written_by_their_names_take_their_places_together(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with complete_or_not_there(path) as unfinished:
        assert os.path.basename(unfinished) == "model.onnx"
        for name in (unfinished, f"{unfinished}.data"):
            with open(name, "w") as file:
                file.write("new")
        assert path.read_text() == "old"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "model.onnx": "new",
        "model.onnx.data": "new",
    }
    with pytest.raises(KeyboardInterrupt), complete_or_not_there(path) as unfinished:
        os.remove(unfinished)
        raise KeyboardInterrupt
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_not_there_is_named(tmp_path):
    missing = tmp_path / "none/model.onnx"
    with pytest.raises(FileNotFoundError, match="there is no folder .*none for .*make it first"):
        with complete_or_not_there(missing):
            pass
