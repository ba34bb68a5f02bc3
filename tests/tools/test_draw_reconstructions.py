"""The command that draws reconstructions."""

import pytest
import torch
from toy_runs import REPOSITORY, load_script

from detectron2.config import LazyConfig, instantiate

main = load_script("tools/draw_reconstructions.py").main
CONFIG = str(REPOSITORY / "configs/toy/mae_vit_toy.py")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": instantiate(LazyConfig.load(CONFIG).model).state_dict()}, path)
    return path


def test_a_picture_is_written_for_each_image(weights, tmp_path, capsys):
    output = tmp_path / "pictures"
    arguments = ["--images", "synthetic:5", "--num-images", "2", "--output", str(output)]
    main(["--config-file", CONFIG, *arguments, f"train.init_checkpoint={weights}"])
    names = ["synthetic_train_0.png", "synthetic_train_1.png"]
    assert sorted(p.name for p in output.iterdir()) == names
    assert str(output / names[0]) in capsys.readouterr().out


@pytest.mark.parametrize(
    "images, opts, message",
    [
        ("synthetic:5", [], "the weights must be given: train.init_checkpoint=MODEL.pth"),
        ("no/such", [], "'no/such' is none of them"),
        ("synthetic:5", ["model.depht=3"], "the nearest one is 'model.depth'"),
    ],
)
def test_what_cannot_work_is_refused(images, opts, message, tmp_path, capsys):
    arguments = ["--config-file", CONFIG, "--images", images, "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*arguments, *opts])
    assert message in capsys.readouterr().err
