"""What an earlier training left is not mixed with a new one, and nothing of it is deleted."""

import pytest
from omegaconf import OmegaConf

from mimdet.engine.used_folder import is_used, move_aside, refuse_used, remove_unfinished

RUN = (
    *("model_0000004.pth", "model_final.pth", "last_checkpoint", "metrics.json", "seed.txt"),
    *("config.yaml", "config.yaml.1", "log.txt", "log.txt.rank1", "results.json"),
    *("results.1.json", "coco_instances_results.json", "instances_predictions.pth"),
    "events.out.tfevents.1.host",
)
OTHERS = ("notes.md", "mae.pth", "run.lock")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in (*RUN, *OTHERS):
        (tmp_path / name).write_text(name)
    return tmp_path


def config(folder, **train):
    return OmegaConf.create({"train": {"output_dir": str(folder), **train}})


@pytest.mark.parametrize("name", ["model_0000004.pth", "last_checkpoint", "metrics.json"])
def test_a_folder_with_results_of_a_training_is_refused_with_the_ways_out(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert is_used(tmp_path)
    with pytest.raises(ValueError, match="is used: .* by --resume, .*train.overwrite=True"):
        refuse_used(str(tmp_path))


def test_a_run_that_ended_before_its_first_iteration_and_an_evaluation_are_no_training(tmp_path):
    for name in ("config.yaml", "log.txt", "seed.txt", "results.json", "run.lock"):
        (tmp_path / name).write_text("x")
    (tmp_path / "metrics.json").write_text("")
    refuse_used(str(tmp_path))


def test_the_files_of_a_training_move_whole_and_all_others_stay(folder):
    assert move_aside(config(folder)) == str(folder / "earlier_1")
    assert {p.name: p.read_text() for p in (folder / "earlier_1").iterdir()} == {n: n for n in RUN}
    assert {p.name for p in folder.iterdir()} == {*OTHERS, "pictures", "earlier_1"}
    assert move_aside(config(folder)) is None
    (folder / "metrics.json").write_text("second")
    assert move_aside(config(folder)) == str(folder / "earlier_2")
    assert (folder / "earlier_1/metrics.json").read_text() == "metrics.json"


def test_what_the_new_training_starts_from_is_not_moved(folder):
    path = str(folder / "pictures" / ".." / "model_final.pth")
    for key, start in (
        ("train.init_checkpoint", {"init_checkpoint": path}),
        ("train.starting_weights.1.path", {"starting_weights": [{"path": ""}, {"path": path}]}),
    ):
        with pytest.raises(ValueError, match=f"would move .* this training starts .{key}"):
            move_aside(config(folder, **start))
    assert {*RUN} <= {p.name for p in folder.iterdir()}
    move_aside(config(folder, init_checkpoint=str(folder / "mae.pth")))


def test_only_unfinished_files_of_saves_are_removed(tmp_path):
    unfinished = {"model_0000004.pth.tmp12", "model_final.pth.tmp1", "last_checkpoint.tmp7"}
    others = {"model_0000004.pth", "results.json.tmp12", "model_0000004.pth.tmp", "mine.pth.tmp12"}
    for name in unfinished | others:
        (tmp_path / name).write_text("")
    assert set(remove_unfinished(tmp_path)) == unfinished
    assert {p.name for p in tmp_path.iterdir()} == others
