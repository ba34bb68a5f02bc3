"""Bad input of the training script: one clear error each, and nothing half-written."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_runs import CONFIG, RATIO, TINY, train_net

ENCODER = "backbone.bottom_up.encoder."


class MakesFolder:
    """Makes a folder when it is unpickled, as a sign that code of the file was executed."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def failure(toy_root, tmp_path, capsys):
    """Run the script with bad arguments -> the message of its error."""
    output = tmp_path / "out"

    def run(*overrides, flags=(), config=CONFIG, output_dir=output) -> str:
        folders = (f"toy.root={toy_root}", f"train.output_dir={output_dir}")
        with pytest.raises((Exception, SystemExit)) as caught:
            train_net(*flags, *TINY, *folders, *overrides, config=config)
        written = [path.name for path in output.rglob("*")]
        assert not [n for n in written if ".tmp" in n or ".pth" in n or n == "last_checkpoint"]
        error = caught.value
        if not isinstance(error, SystemExit):
            return str(error.args[0])
        assert error.code == 2
        # before it stands the name of whatever program runs the tests
        return capsys.readouterr().err.splitlines()[-1].split(": error: ", 1)[1]

    return run


# --- The command line and the config --------------------------------------------------------------


def test_a_missing_config_is_named(failure, tmp_path):
    config = str(tmp_path / "nowhere.py")
    assert failure(config=config).startswith(
        f"a config file must be given, and {config!r} is none; mimdet's own are in "
    )


def test_no_config_at_all_is_refused(failure):
    assert failure(config="").startswith("a config file must be given, and '' is none")


def test_a_typo_in_an_override_gives_the_nearest_key_before_anything_is_written(failure, tmp_path):
    assert failure("train.max_itr=7") == (
        "an override must name a key of the config, and there is no 'train.max_itr' (from "
        "'train.max_itr=7'); the nearest one is 'train.max_iter'. Write +train.max_itr=... to "
        "create a new key on purpose"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_iter", r"must be key=value, got 'train\.max_iter'"),
        ("train.init_checkpoint=a=b.pth", r"must be key=value, .* with = .* needs quotes"),
        ("train.eval_weights=mean", r"train\.eval_weights must be one of .*, got 'mean'"),
        ("train.max_iter=1,2", r"'train\.max_iter=1,2' is a sweep .* write a list as key=\[1,2\]"),
        ("~train.seed", r"'~train\.seed' deletes a key, which is not supported"),
        (
            "+train.seed.x=1",
            r"cannot set 'train\.seed\.x': 'train\.seed' is not a config but a int",
        ),
    ],
)
def test_an_override_outside_the_grammar_is_refused(failure, tmp_path, override, message):
    assert re.search(message, failure(override))
    assert not (tmp_path / "out").exists()


def test_a_saved_config_that_would_run_code_is_refused(failure, tmp_path):
    sign, config = tmp_path / "sign", tmp_path / "config.yaml"
    config.write_text(f"seed: 1\ntrain: !!python/object/apply:os.mkdir ['{sign}']\n")
    message = failure(config=config)
    assert f"tag !!python/object/apply:os.mkdir is not allowed ({config}, line 2)" in message
    assert message.endswith("load the Python config file instead")
    assert not sign.exists()


@pytest.mark.parametrize("ratio", [0, 1.5])
def test_a_sample_ratio_out_of_range_is_refused(failure, ratio):
    assert failure(f"{RATIO}={ratio}") == (
        f"sample_ratio must be in (0, 1], got {ratio} (model.backbone.bottom_up.sample_ratio); "
        "1.0 keeps all tokens, and a range is [lowest, highest]"
    )


def test_a_sample_ratio_that_keeps_no_token_is_refused(failure):
    message = failure(f"{RATIO}=0.001")
    assert re.match(
        r"sample_ratio must keep at least one token, got 0\.001 for \d+ tokens", message
    )


def test_an_output_folder_that_cannot_be_made_is_refused(failure, tmp_path):
    (tmp_path / "file").write_text("")  # below a file not even root can make a folder
    output = tmp_path / "file" / "out"
    message = failure(output_dir=output)
    assert message.startswith(f"train.output_dir='{output}' cannot be written (")
    assert message.endswith("choose a folder in which this user may create files")


def test_an_empty_output_folder_is_refused(failure):
    message = failure(output_dir="")
    assert message.startswith("train.output_dir is empty (''); name a folder for the checkpoints")


# --- The data -------------------------------------------------------------------------------------


@pytest.fixture
def copy(toy_root, tmp_path):
    """A copy of the toy data to damage: its folder, and the overrides that select it."""
    root = tmp_path / "data"
    shutil.copytree(toy_root, root)
    name = f"dataloader.train.dataset.name={tmp_path.name}"
    return root, (f"toy.root={root}", name)


def edit_annotations(root: Path, change: Callable[[dict], object]) -> Path:
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_a_missing_data_folder_is_named(failure, copy):
    root, overrides = copy
    shutil.rmtree(root)
    assert f"needs the annotations {root}/annotations/instances_train.json" in failure(*overrides)


def test_missing_annotations_are_named(failure, copy, tmp_path):
    root, overrides = copy
    path = root / "annotations/instances_train.json"
    path.unlink()
    assert failure(*overrides) == (
        f"dataset {tmp_path.name!r} needs the annotations {path}, and there is no such file "
        "(dataloader.*.dataset.json_file)"
    )


def test_a_missing_image_folder_is_named(failure, copy, tmp_path):
    root, overrides = copy
    shutil.rmtree(root / "train")
    assert failure(*overrides) == (
        f"dataset {tmp_path.name!r} needs the image folder {root / 'train'}, and there is no such "
        "folder (dataloader.*.dataset.image_root)"
    )


def test_missing_images_are_named(failure, copy):
    root, overrides = copy
    for path in (root / "train").iterdir():
        path.unlink()
    message = rf"image \d+ \({root}/train/\d+\.jpg\) must exist, .* check the image root"
    assert re.match(message, failure(*overrides))


def test_truncated_images_are_named(failure, copy):
    root, overrides = copy
    for path in (root / "train").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    message = (
        rf"image \d+ .*{root}/train/\d+\.jpg.* must be a complete image file, .* replace the file"
    )
    assert re.match(message, failure(*overrides))


def test_truncated_annotations_are_named(failure, copy):
    root, overrides = copy
    path = root / "annotations/instances_train.json"
    path.write_bytes(path.read_bytes()[:500])
    message = failure(*overrides)
    assert message.startswith(f"{path} must be JSON: it ends too early; it was cut short, fetch it")


def test_an_annotation_without_a_category_is_named(failure, copy):
    root, overrides = copy
    path = edit_annotations(root, lambda content: content["annotations"][3].pop("category_id"))
    message = failure(*overrides)
    assert message.startswith(
        f"{path}: annotations have a category_id that is not in categories (1: annotation 4: None)"
    )


def test_an_annotation_of_an_unknown_category_is_named(failure, copy):
    root, overrides = copy
    path = edit_annotations(root, lambda content: content["annotations"][3].update(category_id=77))
    assert failure(*overrides).startswith(
        f"{path}: annotations have a category_id that is not in categories (1: annotation 4: 77); "
        "refused: add the category"
    )


# --- Checkpoints ----------------------------------------------------------------------------------


def test_an_mae_file_without_a_decoder_is_refused(failure, trained, tmp_path):
    weights = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    encoder = {n.removeprefix(ENCODER): v for n, v in weights.items() if n.startswith(ENCODER)}
    torch.save({"model": encoder}, tmp_path / "mae.pth")
    assert failure(f"mae_checkpoint.path={tmp_path / 'mae.pth'}") == (
        f"{tmp_path / 'mae.pth'} must hold MAE's decoder for backbone.bottom_up.decoder, but it is "
        "an encoder-only file (mae_checkpoint.path); use the full MAE checkpoint, or train the "
        "decoder from its initial weights with mae_checkpoint.decoder_from_scratch=True"
    )


def test_a_missing_mae_file_is_named(failure, tmp_path):
    path = tmp_path / "nowhere.pth"
    message = failure(f"mae_checkpoint.path={path}")
    assert message == f"there is no checkpoint {path} (mae_checkpoint.path)"


def test_a_checkpoint_of_the_other_fill_is_refused(failure, trained):
    other = "model.backbone.bottom_up.decoder.fill=mask"
    assert failure(other, f"train.init_checkpoint={trained / 'model_final.pth'}") == (
        "the model fills dropped tokens by fill='mask', the checkpoint is of a model with "
        "fill='conv'; use the config of that release (names ending in _convfill have fill='conv', "
        "the others fill='mask')"
    )


def test_an_evaluation_without_a_checkpoint_is_refused_before_anything_is_written(
    failure, tmp_path
):
    message = "--eval-only needs the weights to evaluate: train.init_checkpoint=MODEL.pth"
    assert failure(flags=["--eval-only"]) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [(), ("--eval-only",)])
def test_a_missing_checkpoint_is_named(failure, tmp_path, flags):
    path = tmp_path / "nowhere.pth"
    message = failure(f"train.init_checkpoint={path}", flags=flags)
    assert message.startswith(f"Checkpoint {path} not found!")


@pytest.mark.parametrize("key", ["train.init_checkpoint", "mae_checkpoint.path"])
def test_a_text_file_is_no_checkpoint(failure, tmp_path, key):
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint\n")
    assert failure(f"{key}={path}").startswith(
        f"{path} must be a torch checkpoint of tensors ({key}), but it is text"
    )


@pytest.mark.parametrize("key", ["train.init_checkpoint", "mae_checkpoint.path"])
def test_a_checkpoint_that_was_cut_short_is_refused(failure, trained, tmp_path, key):
    path = tmp_path / "short.pth"
    path.write_bytes((trained / "model_final.pth").read_bytes()[:100_000])
    assert failure(f"{key}={path}").startswith(
        f"{path} must be a torch checkpoint of tensors ({key}), but it is cut short"
    )


@pytest.mark.parametrize("key", ["train.init_checkpoint", "mae_checkpoint.path"])
@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_a_checkpoint_that_would_run_code_is_refused_with_the_name_of_that_code(
    failure, tmp_path, key, name
):
    sign, path = tmp_path / "sign", tmp_path / name
    content = {"model": MakesFolder(sign)}
    if name.endswith(".pth"):
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    message = failure(f"{key}={path}")
    assert not sign.exists()
    assert message.startswith(str(path))
    assert "posix.mkdir" in message
    assert "could execute code" in message


def test_a_refused_checkpoint_comes_without_advice_to_load_it_all_the_same(tmp_path, toy_root):
    path = tmp_path / "model.pth"
    torch.save({"model": MakesFolder(tmp_path / "sign")}, path)
    folders = (f"toy.root={toy_root}", f"train.output_dir={tmp_path / 'out'}")
    for key in ("train.init_checkpoint", "mae_checkpoint.path"):
        with pytest.raises(ValueError) as caught:
            train_net(*TINY, *folders, f"{key}={path}")
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
