"""The newest whole checkpoint of a folder."""

import os

import pytest
import torch

from mimdet.checkpoint import newest
from mimdet.checkpoint.newest import newest_whole, read_of_run, tagged_checkpoint


class Call:
    """Pickles as a call."""

    def __reduce__(self):
        return os.getcwd, ()


def save(folder, name: str, **content) -> None:
    torch.save({"model": {"a": torch.ones(3)}, **content}, folder / name)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def test_the_latest_iteration_is_the_newest(tmp_path):
    for iteration in (4, 9, 10000004):
        save(tmp_path, f"model_{iteration:07d}.pth", iteration=iteration)
    assert newest_whole(tmp_path).name == "model_10000004.pth"


@pytest.mark.parametrize(
    "iteration, expected",
    [(11, "model_final.pth"), (6, "model_0000009.pth"), (None, "model_0000009.pth")],
)
def test_a_final_file_counts_by_the_iteration_that_it_holds(tmp_path, iteration, expected):
    save(tmp_path, "model_0000009.pth", iteration=9)
    save(tmp_path, "model_final.pth", **({} if iteration is None else {"iteration": iteration}))
    assert newest_whole(tmp_path).name == expected


def test_weights_alone_are_no_checkpoint_to_go_on_from(tmp_path):
    save(tmp_path, "model_final.pth")
    assert newest_whole(tmp_path).name is None


def test_damaged_ones_are_passed_over_and_named(tmp_path):
    for iteration in (4, 9, 14):
        save(tmp_path, f"model_{iteration:07d}.pth", iteration=iteration)
    save(tmp_path, "model_best.pth", iteration=9)
    for name in ("model_0000009.pth", "model_0000014.pth", "model_best.pth"):
        cut(tmp_path / name)
    found = newest_whole(tmp_path)
    assert found.name == "model_0000004.pth"
    assert set(found.damaged) == {"model_0000009.pth", "model_0000014.pth", "model_best.pth"}
    assert found.damaged["model_best.pth"].startswith("cannot be read: it is cut short or damaged")


def test_what_other_programs_have_saved_beside_it_is_not_looked_at(tmp_path):
    save(tmp_path, "mae.pth", iteration=99)
    (tmp_path / "model_0000004.pth.tmp12").write_text("")
    assert newest_whole(tmp_path).name is None


@pytest.mark.parametrize(
    "content, expected",
    [
        ("model_final.pth", "model_final.pth"),
        ("model_final.pth\n", "model_final.pth"),
        ("", ""),
        ("\0\0\0", ""),
        ("../model_final.pth", ""),
    ],
)
def test_a_tag_names_a_file_of_its_folder(tmp_path, content, expected):
    assert tagged_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text(content)
    assert tagged_checkpoint(tmp_path) == expected


@pytest.mark.parametrize("damage", [cut, lambda path: path.unlink()])
def test_a_file_of_a_run_that_cannot_be_read_is_refused_with_the_name_of_a_whole_one(
    tmp_path, damage
):
    save(tmp_path, "model_0000004.pth", iteration=4)
    save(tmp_path, "model_best.pth", iteration=9)
    damage(tmp_path / "model_best.pth")
    with pytest.raises((OSError, ValueError)) as caught:
        read_of_run(str(tmp_path / "model_best.pth"), "train.init_checkpoint")
    assert "(train.init_checkpoint)" in str(caught.value)
    assert str(caught.value).endswith(
        "; the newest whole checkpoint of its folder is model_0000004.pth"
    )


def test_a_folder_in_the_place_of_the_tag_or_of_a_checkpoint_is_named(tmp_path):
    save(tmp_path, "model_0000004.pth", iteration=4)
    (tmp_path / "model_0000009.pth").mkdir()
    found = newest_whole(tmp_path)
    assert (found.name, found.damaged) == (
        "model_0000004.pth",
        {"model_0000009.pth": "is a folder"},
    )
    (tmp_path / "last_checkpoint").mkdir()
    message = r"last_checkpoint must be a file that names a checkpoint .* but it is a folder: move"
    with pytest.raises(ValueError, match=message):
        tagged_checkpoint(tmp_path)


def test_a_file_that_was_refused_is_not_read_again(tmp_path, monkeypatch):
    save(tmp_path, "model_0000004.pth", iteration=4)
    save(tmp_path, "model_0000009.pth", iteration=9, beside=Call())
    read = []
    original = newest.read_checkpoint

    def counted(path, *args, **kwargs):
        read.append(os.path.basename(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(newest, "read_checkpoint", counted)
    with pytest.raises(ValueError, match="newest whole checkpoint .* is model_0000004.pth"):
        read_of_run(str(tmp_path / "model_0000009.pth"), "train.init_checkpoint")
    assert read == ["model_0000009.pth", "model_0000004.pth"]
