"""A run says at once that it cannot write its files."""

import pytest

from mimdet.engine.output_folder import make_output_folder


def test_the_folder_is_made_with_those_above_it_and_left_empty(tmp_path):
    make_output_folder(str(tmp_path / "a/b"))
    assert list((tmp_path / "a/b").iterdir()) == []


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")  # not even root can make a folder there
    with pytest.raises(OSError, match="train.output_dir='.*/file/a' cannot be written .* choose"):
        make_output_folder(str(tmp_path / "file/a"))


def test_a_folder_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"train.output_dir is empty \(''\); name a folder"):
        make_output_folder("")
