"""Converting files: what is read, recognised, renamed, refused and written."""

import os
import stat

import pytest
import torch
from golden_models import load
from mmdet_weights import filled

from mimdet.checkpoint import convert_file as module
from mimdet.checkpoint.convert import SOURCES, Source, detect_source
from mimdet.checkpoint.convert.vitdet_mmdet import from_native, to_native
from mimdet.checkpoint.convert_file import convert_file


@pytest.fixture(scope="module")
def theirs() -> dict[str, torch.Tensor]:
    """A small detector under the names of the unofficial ViTDet."""
    shapes = load("vitdet/keys_unofficial_vitae_base.json.gz")
    return filled({name: [min(n, 4) for n in shape] for name, shape in shapes.items()})


@pytest.fixture
def paths(tmp_path) -> tuple[str, str]:
    return str(tmp_path / "theirs.pth"), str(tmp_path / "ours.pth")


def assert_same(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize("wrapper", ["state_dict", "state_dict_ema", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_of_the_release_are_taken_off(theirs, paths, wrapper, prefix):
    names = {prefix + name: value for name, value in theirs.items()}
    torch.save(names if wrapper is None else {"meta": {"epoch": 25}, wrapper: names}, paths[0])
    convert_file(*paths)
    written = torch.load(paths[1], weights_only=True)
    assert list(written) == ["model"]
    assert_same(written["model"], to_native(theirs))


def test_weights_are_taken_before_their_moving_average(theirs, paths):
    average = {name: value + 1 for name, value in theirs.items()}
    torch.save({"state_dict_ema": average, "state_dict": theirs}, paths[0])
    convert_file(*paths)
    assert_same(torch.load(paths[1], weights_only=True)["model"], to_native(theirs))


@pytest.mark.parametrize("weights, is_average", [(None, True), ("ema", True), ("raw", False)])
def test_of_a_run_with_ema_the_average_is_taken_and_the_report_says_so(
    theirs, paths, weights, is_average
):
    ours = to_native(theirs)
    average = {name: value * 2 for name, value in ours.items()}
    torch.save({"model": ours, "trainer": {"hooks": {"EMA": average}}}, paths[0])
    report = convert_file(*paths, to="vitdet_mmdet", weights=weights)
    expected = from_native(average) if is_average else theirs
    assert_same(torch.load(paths[1], weights_only=True)["state_dict"], expected)
    assert report.startswith(f"{paths[0]}{', its averaged weights (EMA)' * is_average}: 357")


def test_an_average_that_is_asked_for_must_be_there(theirs, paths):
    torch.save({"model": theirs}, paths[0])
    with pytest.raises(ValueError, match="has no average of its weights: the run had no"):
        convert_file(*paths, weights="ema")


def test_there_and_back_gives_the_same_file(theirs, paths, tmp_path):
    torch.save({"state_dict": theirs}, paths[0])
    convert_file(*paths)
    back = str(tmp_path / "back.pth")
    convert_file(paths[1], back, to="vitdet_mmdet")
    assert_same(torch.load(back, weights_only=True)["state_dict"], theirs)


def test_report_counts_tensors_and_numbers(theirs, paths):
    torch.save(theirs, paths[0])
    numbers = sum(value.numel() for value in theirs.values())
    report = convert_file(*paths)
    # 4 joint biases with 4 zeros each more; 2 tables in each of 12 blocks are scaled
    assert report.splitlines() == [
        f"{paths[0]}: 361 tensors taken, {numbers:,} numbers (vitdet_mmdet)",
        f"{paths[1]}: 357 tensors written, {numbers + 16:,} numbers (our names); "
        "329 with the values of the file, 28 computed from them",
    ]


def test_renames_run_first_and_in_order(theirs, paths):
    odd = {name.replace("backbone.blocks.", "net.layer"): v for name, v in theirs.items()}
    torch.save(odd, paths[0])
    with pytest.raises(ValueError, match=r"276 have none: net.layer0"):
        convert_file(*paths)
    renames = [(r"^net\.layer(\d+)", r"encoder.\1"), (r"^encoder\.", "backbone.blocks.")]
    convert_file(*paths, renames=renames)
    assert_same(torch.load(paths[1], weights_only=True)["model"], to_native(theirs))


def test_renames_that_merge_names_are_refused(theirs, paths):
    torch.save(theirs, paths[0])
    with pytest.raises(ValueError, match="keep names apart, but gives backbone.blocks.0"):
        convert_file(*paths, renames=[(r"blocks\.\d+", "blocks.0")])


def test_what_is_dropped_on_purpose_needs_no_place(theirs, paths):
    torch.save(theirs | {"head.weight": torch.ones(1), "head.bias": torch.ones(1)}, paths[0])
    with pytest.raises(ValueError, match="2 have none: head.bias, head.weight"):
        convert_file(*paths)
    convert_file(*paths, drop=["head.*"])
    assert_same(torch.load(paths[1], weights_only=True)["model"], to_native(theirs))


def test_a_pattern_that_drops_nothing_is_refused(theirs, paths):
    torch.save(theirs, paths[0])
    with pytest.raises(ValueError, match=r"--drop must match a name, 'head.\*' matches none"):
        convert_file(*paths, drop=["head.*"])


@pytest.mark.parametrize("rename", [("(", "x"), ("a", r"\1"), ("(?P<n>.)", r"\g<m>")])
def test_a_rename_that_is_no_substitution_is_refused(theirs, paths, rename):
    torch.save(theirs, paths[0])
    with pytest.raises(ValueError, match="must be a substitution: "):
        convert_file(*paths, renames=[rename])


def test_unknown_names_are_refused_and_say_what_they_look_like(paths):
    torch.save({"stem.conv.weight": torch.ones(1), "head.bias": torch.ones(1)}, paths[0])
    with pytest.raises(
        ValueError, match=r"known source \(.*vitdet_mmdet.*2 tensors, most below stem, head"
    ):
        convert_file(*paths)
    assert not os.path.exists(paths[1])


def test_names_are_not_guessed_when_the_source_is_given(theirs, paths):
    torch.save({"stem.conv.weight": torch.ones(1)}, paths[0])
    with pytest.raises(ValueError, match="have none: stem.conv.weight"):
        convert_file(*paths, source="vitdet_mmdet")


@pytest.mark.parametrize("arguments", [{"source": "other"}, {"to": "other"}])
def test_an_unknown_source_is_refused(theirs, paths, arguments):
    torch.save(theirs, paths[0])
    with pytest.raises(ValueError, match="a source must be one of .*vitdet_mmdet.*, got 'other'"):
        convert_file(*paths, **arguments)


def test_a_source_without_a_way_back_is_refused(theirs, paths, monkeypatch):
    monkeypatch.setattr(module, "SOURCES", (Source("one_way", lambda d: True, dict),))
    torch.save(theirs, paths[0])
    with pytest.raises(ValueError, match="one_way must have a way back .* but it has none"):
        convert_file(*paths, to="one_way")


def test_an_existing_output_is_kept_unless_told_otherwise(theirs, paths):
    torch.save(theirs, paths[0])
    torch.save({"mine": 1}, paths[1])
    with pytest.raises(
        FileExistsError, match="ours.pth must not exist, or be another .*--overwrite"
    ):
        convert_file(*paths)
    assert torch.load(paths[1], weights_only=True) == {"mine": 1}
    convert_file(*paths, overwrite=True)
    assert "model" in torch.load(paths[1], weights_only=True)


def test_the_input_is_never_overwritten(theirs, paths):
    torch.save(theirs, paths[0])
    with pytest.raises(FileExistsError, match="another file than"):
        convert_file(paths[0], paths[0], overwrite=True)


def test_missing_files_and_folders_are_named(theirs, paths, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint .*theirs.pth"):
        convert_file(*paths)
    torch.save(theirs, paths[0])
    with pytest.raises(FileNotFoundError, match="no folder .*none for .*none/ours.pth; make it"):
        convert_file(paths[0], str(tmp_path / "none/ours.pth"))


def test_a_failed_write_leaves_the_old_file_and_no_other(theirs, paths, tmp_path, monkeypatch):
    def full_disk(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    torch.save(theirs, paths[0])
    torch.save({"mine": 1}, paths[1])
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        convert_file(*paths, overwrite=True)
    assert torch.load(paths[1], weights_only=True) == {"mine": 1}
    assert {p.name for p in tmp_path.iterdir()} == {"theirs.pth", "ours.pth"}


def test_output_is_readable_by_whom_new_files_are(theirs, paths, tmp_path):
    torch.save(theirs, paths[0])
    convert_file(*paths)
    modes = {stat.S_IMODE(os.stat(path).st_mode) for path in paths}
    assert len(modes) == 1


def test_sources_are_told_apart(theirs):
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert [source.name for source in SOURCES if source.detect(theirs)] == ["vitdet_mmdet"]
    assert detect_source(theirs).name == "vitdet_mmdet"
    assert detect_source(to_native(theirs)) is None
