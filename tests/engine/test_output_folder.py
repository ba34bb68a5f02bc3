"""A run says at once that it cannot write its files, or that they would mix with others."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from omegaconf import OmegaConf

from detectron2.utils import comm
from mimdet.engine.folder_owner import LOCK, Owner
from mimdet.engine.output_folder import (
    evaluation_folder,
    look_at_folder,
    make_output_folder,
    training_folder,
)


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


# --- The folder of a training ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "file/a/b"])
@pytest.mark.parametrize("eval_only", [False, True])
def test_a_file_in_the_place_of_the_folder_is_told_before_anything_starts(
    tmp_path, name, eval_only
):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="must be a folder, and .*/file is a file; choose"):
        look_at_folder(config(tmp_path / name), resume=False, eval_only=eval_only)


def config(folder, **train):
    return OmegaConf.create({"train": {"output_dir": str(folder), **train}})


def refusal(capsys, cfg, resume=False) -> str:
    with pytest.raises(SystemExit) as caught, training_folder(cfg, resume):
        pytest.fail("the training began")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_training_owns_its_folder_and_frees_it(tmp_path):
    with training_folder(config(tmp_path / "new"), resume=False) as notes:
        assert notes == [] and (tmp_path / "new" / LOCK).exists()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_the_place_of_last_checkpoint_is_refused(resume, tmp_path, capsys):
    (tmp_path / "last_checkpoint").mkdir()
    assert "but it is a folder: move it away" in refusal(capsys, config(tmp_path), resume)


def test_the_other_processes_of_a_job_own_nothing(tmp_path, as_rank, monkeypatch):
    as_rank(1, 2)
    monkeypatch.setattr(comm, "all_gather", lambda value: [None, value])
    with training_folder(config(tmp_path), resume=False):
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(comm, "all_gather", lambda value: ["it is used", value])
    with pytest.raises(SystemExit), training_folder(config(tmp_path), resume=False):
        pass


def test_a_folder_in_use_is_refused_before_anything_is_changed(tmp_path, capsys):
    owner = replace(Owner.this(), host="node7")
    (tmp_path / LOCK).write_text(json.dumps(asdict(owner)))
    (tmp_path / "model_0000004.pth.tmp1").write_text("")
    for resume, train in ((False, {}), (True, {}), (False, {"overwrite": True})):
        line = refusal(capsys, config(tmp_path, **train), resume)
        assert line.startswith(f"mimdet: error: train.output_dir='{tmp_path}' is used by another")
        with pytest.raises(ValueError, match="is used by another training, process"):
            look_at_folder(config(tmp_path, **train), resume)
    assert {p.name for p in tmp_path.iterdir()} == {LOCK, "model_0000004.pth.tmp1"}


def test_a_used_folder_is_refused_and_stays_as_it_is(tmp_path, capsys):
    for name in ("metrics.json", "seed.txt", "model_final.pth.tmp1"):
        (tmp_path / name).write_text("3")
    assert "is used: an earlier training" in refusal(capsys, config(tmp_path))
    with pytest.raises(ValueError, match="is used: an earlier training"):
        look_at_folder(config(tmp_path), resume=False)
    assert len(list(tmp_path.iterdir())) == 3
    assert "leave one of them out" in refusal(capsys, config(tmp_path, overwrite=True), resume=True)


def test_overwrite_moves_an_earlier_training_aside_and_does_not_stay_in_the_config(tmp_path):
    (tmp_path / "metrics.json").write_text("{}\n")
    cfg = config(tmp_path, overwrite=True)
    look_at_folder(cfg, resume=False)
    with training_folder(cfg, resume=False) as notes:
        assert notes == [
            f"The files of an earlier training are in {tmp_path}/earlier_1 (train.overwrite)"
        ]
        assert cfg.train.overwrite is False
        assert [p.name for p in (tmp_path / "earlier_1").iterdir()] == ["metrics.json"]


def test_what_killed_runs_left_is_removed_and_said(tmp_path):
    owner = replace(Owner.this(), pid=2**22 + 1)  # larger than any number of a process
    (tmp_path / LOCK).write_text(json.dumps(asdict(owner)))
    (tmp_path / "model_0000004.pth.tmp1").write_text("half")
    with training_folder(config(tmp_path), resume=True) as notes:
        assert [note.split(" (")[0] for note in notes] == [
            f"process {owner.pid} on {owner.host}",
            "What a killed run had not finished is removed: model_0000004.pth.tmp1",
            f"There is no checkpoint in {tmp_path} to go on from: training starts anew",
        ]


def test_a_resumed_training_passes_over_a_damaged_checkpoint_if_it_may(tmp_path, capsys):
    torch.save({"model": {}}, tmp_path / "model_0000004.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    refused = refusal(capsys, config(tmp_path, resume_from_older=False), resume=True)
    assert "model_0000009.pth is missing. The newest whole checkpoint is model_000" in refused
    with training_folder(config(tmp_path), resume=True) as (note,):
        assert note.endswith("goes on from the newest whole checkpoint, model_0000004.pth")
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"


# --- The folder of an evaluation ------------------------------------------------------------------


def test_an_evaluation_takes_the_folder_of_a_training_that_has_ended(tmp_path):
    (tmp_path / "model_final.pth").write_text("")
    cfg = config(tmp_path)
    assert evaluation_folder(cfg) == []
    assert cfg.train.output_dir == str(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model_final.pth"]


def test_an_evaluation_beside_a_training_writes_into_a_folder_of_its_own(tmp_path):
    owner = replace(Owner.this(), host="node7")
    (tmp_path / LOCK).write_text(json.dumps(asdict(owner)))
    cfg = config(tmp_path)
    assert evaluation_folder(cfg) == [
        f"{owner} trains in {tmp_path}: results go to {tmp_path}/evaluation"
    ]
    assert cfg.train.output_dir == str(tmp_path / "evaluation")
    assert (tmp_path / "evaluation").is_dir()
