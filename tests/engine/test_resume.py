"""The seed of a run, its loader, and the scalars that are written after a resume."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from mimdet.data.detection_loader import DetectionTrainLoader
from mimdet.engine.hooks import RepeatableRandomness
from mimdet.engine.resume import (
    RecentScalars,
    build_train_loader,
    is_resuming,
    settle_checkpoint,
    settle_seed,
)


def config(folder, **train):
    return OmegaConf.create({"train": {"output_dir": str(folder), **train}})


# --- The seed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [{"seed": -1}, {"seed": None}, {}])
def test_a_drawn_seed_is_that_of_the_resumed_run_too(train, tmp_path):
    first, resumed, anew = (config(tmp_path, **train) for _ in range(3))
    settle_seed(first, resume=False)
    settle_seed(resumed, resume=True)
    settle_seed(anew, resume=False)
    assert first.train.seed == resumed.train.seed != anew.train.seed
    assert 0 <= first.train.seed < 2**31


def test_a_seed_of_the_config_stays_as_it_is(tmp_path):
    settle_seed(config(tmp_path, seed=4), resume=False)
    cfg = config(tmp_path, seed=3)
    settle_seed(cfg, resume=True)
    assert cfg.train.seed == 3


def test_all_processes_take_the_seed_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "all_gather", lambda seed: [11, seed])
    cfg = config(tmp_path, seed=-1)
    settle_seed(cfg, resume=False)
    assert cfg.train.seed == 11


def test_a_file_that_holds_no_seed_is_refused(tmp_path):
    (tmp_path / "seed.txt").write_text("4.5\n")
    with pytest.raises(ValueError, match=r"seed.txt must hold the seed .* got '4.5'; .*train.seed"):
        settle_seed(config(tmp_path, seed=-1), resume=True)


def load_state(**state) -> None:
    np.random.seed(0)
    hook = RepeatableRandomness([], total_batch_size=4)
    hook.load_state_dict({**hook.state_dict(), **state})


@pytest.mark.parametrize(
    "state, message",
    [
        ({"seed": 5}, "began with another seed (train.seed)"),
        ({"batch": 2}, "had a dataloader.train.total_batch_size of 2, and now it is 4. It goes on"),
        ({"processes": 8}, "had 8 processes, and now there are 1. It goes on at the same position"),
    ],
)
def test_what_a_resumed_run_cannot_repeat_is_said(state, message, caplog):
    with caplog.at_level(logging.WARNING):
        load_state()
        assert not caplog.text
        load_state(**state)
    assert message in caplog.text


def test_a_checkpoint_that_does_not_tell_the_batch_size_is_resumed_in_silence(caplog):
    load_state(batch=None)
    assert not caplog.text


# --- The checkpoint -------------------------------------------------------------------------------


def save(folder, *names: str) -> None:
    for i, name in enumerate(names):
        torch.save({"model": {}, "iteration": i}, folder / name)
        (folder / "last_checkpoint").write_text(name)


def tag(folder) -> str:
    return (folder / "last_checkpoint").read_text()


def test_the_tagged_checkpoint_stays_whatever_else_is_there(tmp_path):
    save(tmp_path, "model_0000009.pth", "model_0000004.pth")
    assert settle_checkpoint(str(tmp_path)) == []
    assert tag(tmp_path) == "model_0000004.pth"
    assert is_resuming(config(tmp_path), resume=True)
    assert not is_resuming(config(tmp_path), resume=False)


def test_without_any_checkpoint_a_start_anew_is_said(tmp_path):
    (note,) = settle_checkpoint(str(tmp_path))
    assert note == f"There is no checkpoint in {tmp_path} to go on from: training starts anew"
    assert not is_resuming(config(tmp_path), resume=True)


def test_without_last_checkpoint_the_newest_is_found(tmp_path):
    save(tmp_path, "model_0000009.pth", "model_0000004.pth")
    (tmp_path / "last_checkpoint").unlink()
    assert is_resuming(config(tmp_path), resume=True)
    assert settle_checkpoint(str(tmp_path), from_older=False) == [
        f"{tmp_path}/last_checkpoint is missing. Training goes on from the newest whole "
        "checkpoint, model_0000009.pth"
    ]
    assert tag(tmp_path) == "model_0000009.pth"


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "cannot be read: it is cut short"),
        (lambda path: path.write_bytes(b""), "cannot be read: it is empty"),
        (lambda path: path.write_text("no checkpoint"), "cannot be read: it is text"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_unless_that_is_forbidden(
    tmp_path, damage, said
):
    save(tmp_path, "model_0000004.pth", "model_0000009.pth")
    damage(tmp_path / "model_0000009.pth")
    with pytest.raises(ValueError) as caught:
        settle_checkpoint(str(tmp_path), from_older=False)
    problem = f"{tmp_path}/model_0000009.pth {said}"
    assert str(caught.value).startswith(problem)
    assert str(caught.value).endswith(
        "The newest whole checkpoint is model_0000004.pth, and train.resume_from_older=False "
        "forbids to go on from it"
    )
    assert tag(tmp_path) == "model_0000009.pth"
    (note,) = settle_checkpoint(str(tmp_path))
    assert note.startswith(problem)
    assert note.endswith("Training goes on from the newest whole checkpoint, model_0000004.pth")
    assert tag(tmp_path) == "model_0000004.pth"


@pytest.mark.parametrize("has_tag", [True, False])
def test_damaged_checkpoints_alone_are_never_a_start_from_nothing(tmp_path, has_tag):
    save(tmp_path, "model_0000009.pth")
    (tmp_path / "model_0000009.pth").write_bytes(b"PK")
    if not has_tag:
        (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(ValueError, match="--resume finds no whole checkpoint: .*overwrite=True"):
        settle_checkpoint(str(tmp_path))


def test_a_tag_without_its_files_is_refused(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(ValueError, match="no whole checkpoint: .*model_0000009.pth is missing"):
        settle_checkpoint(str(tmp_path))


# --- The loader -----------------------------------------------------------------------------------


def records() -> list[dict]:
    return [{"image_id": i, "width": i % 4, "height": 2} for i in range(9)]


def loader_config(target):
    factors = L(torch.linspace)(start=1, end=2, steps=9)
    loader = L(build_detection_train_loader)(
        dataset=L(records)(),
        mapper=None,
        total_batch_size="${size}",
        sampler=L(RepeatFactorTrainingSampler)(repeat_factors=factors),
    )
    loader._target_ = target
    return DictConfig({"size": 2, "train": loader}, flags={"allow_objects": True})


@pytest.mark.parametrize(
    "target",
    [
        build_detection_train_loader,
        "detectron2.data.build_detection_train_loader",
        "detectron2.data.build.build_detection_train_loader",
    ],
)
def test_detectron2s_loader_is_replaced_and_the_config_stays(target):
    cfg = loader_config(target)
    assert isinstance(build_train_loader(cfg.train), DetectionTrainLoader)
    assert cfg.train._target_ == target


def test_another_loader_is_left_alone():
    assert build_train_loader(L(torch.linspace)(start=1, end=2, steps=2)).tolist() == [1, 2]


# --- Scalars --------------------------------------------------------------------------------------


class Puts(HookBase):
    """Stores scalars of each kind, and keeps what a writer would write."""

    def __init__(self):
        self.written = {}

    def after_step(self) -> None:
        storage, i = self.trainer.storage, self.trainer.iter
        storage.put_scalar("noisy", (7 * i) % 5)
        storage.put_scalar("lr", i, smoothing_hint=False)
        if i == 2:
            storage.put_scalar("AP", i, smoothing_hint=False)
            storage.put_scalar("rare", i)
        latest = storage.latest_with_smoothing_hint(4)
        names = ("noisy", "lr", "AP", "rare")
        self.written[i] = {name: latest[name] for name in names if name in latest}
        if i == 5:
            self.state = self.trainer.state_dict()


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch) -> dict:
        return {"loss": self.weight.sum()}


def trained(start: int, state: dict | None = None) -> Puts:
    model, puts = One(), Puts()
    trainer = SimpleTrainer(model, [0] * 20, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([RecentScalars(4), puts])
    if state:
        trainer.load_state_dict(state)
    trainer.train(start, 12)
    return puts


def test_medians_after_a_resume_are_those_of_the_uninterrupted_run():
    whole = trained(0)
    resumed = trained(6, whole.state)
    for i in range(6, 12):
        # What was written before the interruption is not written again.
        assert resumed.written[i] == {name: whole.written[i][name] for name in ("noisy", "lr")}


def test_a_scalar_that_pauses_after_a_resume_is_not_kept():
    hook = RecentScalars(4)
    with EventStorage(5) as storage:
        storage.put_scalars(time=0.1, loss=1.0)
        hook.trainer = SimpleNamespace(storage=storage)
        assert {*hook.state_dict()} == {"loss"}
