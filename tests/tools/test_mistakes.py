"""Every tool: a missing file ends it with one line, and overrides stand on either side of flags."""

from pathlib import Path

import pytest
import torch
from toy_runs import CONFIG, REPOSITORY, load_script

TOOLS = {path.stem for path in (REPOSITORY / "tools").glob("*.py")}
MAE = str(REPOSITORY / "configs/toy/mae_vit_toy.py")
COCO = str(REPOSITORY / "configs/baselines/mask_rcnn_r50_fpn_1x.py")
DRAW = f"draw_predictions --output out --config-file {CONFIG} toy.root={{toy}}"
RECONSTRUCT = f"draw_reconstructions --output out --config-file {MAE} train.device=cpu"
VAL = "{toy}/annotations/instances_val.json"


def source(tool: str) -> str:
    return (REPOSITORY / "tools" / f"{tool}.py").read_text()


def run(command: str, folders: dict[str, Path]) -> None:
    tool, *arguments = command.format(**folders).split()
    load_script(f"tools/{tool}.py").main(arguments)


# The tool, its arguments, and what its one line says. A name with "lost" is of nothing.
MISSING = [
    ("analyze_model lost.py", "a config file must be given, and 'lost.py' is none"),
    ("plan_memory lost.py", "a config file must be given, and 'lost.py' is none"),
    ("print_param_groups --config-file lost.py", "a config file must be given"),
    ("draw_predictions --output out --config-file lost.py", "a config file must be given"),
    (DRAW, "the weights must be given: train.init_checkpoint=MODEL.pth"),
    (DRAW + " train.init_checkpoint=lost.pth", "Checkpoint lost.pth not found!"),
    (DRAW + "/lost", "needs the annotations {toy}/lost/annotations/instances_val.json"),
    (DRAW + " dataloader.test.dataset.image_root=lost", "needs the image folder lost"),
    (
        f"draw_predictions --output out --config-file {COCO} train.init_checkpoint=lost.pth",
        "instances_val2017.json",
    ),
    (
        "draw_reconstructions --output out --images synthetic:1 --config-file lost.py",
        "a config file must be given",
    ),
    ("predict lost.pth photos --output out", "lost.pth"),
    ("export lost.pth model.onnx --images photos", "lost.pth"),
    (RECONSTRUCT + " --images lost", "'lost' is none of them"),
    (RECONSTRUCT + " --images synthetic:1", "the weights must be given"),
    (
        RECONSTRUCT + " --images synthetic:1 train.init_checkpoint=lost.pth",
        "Checkpoint lost.pth not found!",
    ),
    ("check_dataset lost.json {toy}/val", "the annotation file lost.json does not exist"),
    (f"check_dataset {VAL} {{toy}}/lost", "{toy}/lost must be the folder of the images"),
    ("convert_checkpoint lost.pth ours.pth", "there is no checkpoint lost.pth"),
    ("inspect_checkpoint lost.pth", "there is no checkpoint lost.pth"),
    ("export_checkpoint lost.pth --full full.pth", "there is no checkpoint lost.pth"),
    ("export_checkpoint {mae} --encoder lost/e.pth", "there is no folder"),
    ("ratio lost.pth --data {toy}", "lost.pth"),
    ("report lost", "a report needs the folder of a run, and lost is none"),
    ("compare lost gone", "a comparison needs folders of runs, and "),
    ("sweep lost.py optimizer.lr=1,2", "a config file must be given, and 'lost.py' is none"),
    ("make_toy_dataset {file}/lost", "Not a directory: '{file}"),
    ("prepare_ade20k lost", "lost must be the folder ADEChallengeData2016"),
]


@pytest.fixture
def folders(toy_root, tmp_path, monkeypatch):
    """What the commands name in braces; they run in an empty folder."""
    (tmp_path / "file").write_text("")
    torch.save({"model": {"mask_token": torch.zeros(1)}}, tmp_path / "mae.pth")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    return {"toy": toy_root, "file": tmp_path / "file", "mae": tmp_path / "mae.pth"}


@pytest.mark.parametrize("command, message", MISSING, ids=[c.split()[0] for c, _ in MISSING])
def test_a_missing_file_ends_a_tool_with_one_line(command, message, folders, capsys):
    with pytest.raises(SystemExit) as caught:
        run(command, folders)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "usage: " not in error
    assert message.format(**folders) in error.splitlines()[-1]  # before it there may be warnings
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("name", ["{file}", "{file}/out"])
@pytest.mark.parametrize("tool", sorted(t for t in TOOLS if "add_output(" in source(t)))
def test_an_output_in_the_place_of_a_file_is_refused_at_once(tool, name, folders, capsys):
    with pytest.raises(SystemExit) as caught:
        run(f"{tool} --output {name}", folders)
    assert caught.value.code == 2
    assert "must be a folder, and {file} is a file".format(**folders) in capsys.readouterr().err


def test_every_tool_is_among_them_but_the_demo_which_reads_no_file_of_its_user():
    assert {command.split()[0] for command, _ in MISSING} == TOOLS - {"demo"}


@pytest.mark.parametrize(
    "command",
    [
        f"analyze_model {CONFIG} {{}} --size 64 64 {{}}",
        f"print_param_groups {{}} --config-file {CONFIG} --names {{}}",
        f"draw_predictions {{}} --config-file {CONFIG} --output out {{}}",
        f"draw_reconstructions {{}} --config-file {MAE} --output out --images synthetic:1 {{}}",
    ],
    ids=lambda command: command.split()[0],
)
def test_overrides_stand_before_and_after_the_flags_of_a_tool(command, folders, capsys):
    for overrides in (("model.lost=1", ""), ("", "model.lost=1")):
        with pytest.raises(SystemExit):
            run(command.format(*overrides), folders)
        (line,) = capsys.readouterr().err.splitlines()
        assert "there is no 'model.lost'" in line


def test_overrides_stand_before_and_after_the_flags_of_the_demo(monkeypatch, capsys):
    demo = load_script("tools/demo.py")
    monkeypatch.setattr(demo, "_run", lambda command: None)
    monkeypatch.setattr(demo, "results_table", str)
    demo.main(["train.seed=1", "--output", "out", "train.max_iter=2"])
    training = [line for line in capsys.readouterr().out.splitlines() if "--resume" in line]
    assert training and all("train.seed=1 train.max_iter=2" in line for line in training)
