"""Checkpoints that upstream Detectron2 resumes: whatever wrote them, and by its own rules."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from mimdet.engine.hooks import EMA, RepeatableRandomness
from mimdet.engine.trainer import build_trainer

# On upstream these would be upstream's own files, of trainers that refuse the CPU.
pytestmark = pytest.mark.lite

logger = logging.getLogger(__name__)


class Loss(nn.Module):
    """Mean square of a linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(torch.stack(batch)).square().mean()}


class Score(HookBase):
    """Stores what an evaluation would."""

    def after_step(self):
        self.trainer.storage.put_scalar("bbox/AP", 40.0 - self.trainer.iter)


class Batches:
    """The same batch again and again."""

    seed = 0

    def __iter__(self):
        batch = list(torch.ones(4, 3))
        return iter([batch] * 100)


def fp16_trainer(model: nn.Module, loader: Any, optimizer: torch.optim.Optimizer) -> AMPTrainer:
    """Loss scaling as for float16 on a GPU; the CPU computes it in bfloat16."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return AMPTrainer(model, loader, optimizer, precision=torch.bfloat16, grad_scaler=scaler)


TRAINERS = {
    "float32": build_trainer,
    "float16": fp16_trainer,
    "bfloat16": lambda *args: build_trainer(*args, amp_enabled=True, amp_dtype="bfloat16"),
    "accumulation": lambda *args: build_trainer(*args, accumulation_steps=2),
    "accumulation in bfloat16": lambda *args: build_trainer(
        *args, accumulation_steps=2, amp_enabled=True, amp_dtype="bfloat16"
    ),
}


def trained(trainer_of: Any, folder: Path, iterations: int = 3) -> tuple[nn.Module, SimpleTrainer]:
    """A run with every hook that has a state, which leaves `model_final.pth`."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model, loader = Loss(), Batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = trainer_of(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(model, str(folder), trainer=trainer)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    trainer.register_hooks(
        [
            RepeatableRandomness(loader),
            EMA(model, 0.5),
            hooks.LRScheduler(optimizer, schedule),
            Score(),
            hooks.BestCheckpointer(1, checkpointer, "bbox/AP"),
            hooks.PeriodicCheckpointer(checkpointer, 10),
        ]
    )
    start = 0
    if checkpointer.has_checkpoint():
        checkpointer.resume_or_load("", resume=True)
        start = trainer.iter + 1
    trainer.train(start, iterations)
    return model, trainer


def resume_as_upstream(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    registered: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
) -> int:
    """Resume from a file as upstream does; the iteration that is done.

    The model is loaded by name; of the other entries only `trainer` is known and the rest is
    ignored. The state of every hook that is registered goes to its `load_state_dict`. The trainer
    for mixed precision always has an enabled scaler, which takes its state.
    """
    checkpoint = torch.load(path, weights_only=True)
    incompatible = model.load_state_dict(checkpoint["model"], strict=False)
    assert not incompatible.missing_keys and not incompatible.unexpected_keys
    trainer = checkpoint["trainer"]
    for name, state in trainer.get("hooks", {}).items():
        if name in registered:
            registered[name].load_state_dict(state)
        else:
            logger.warning("no hook %s", name)
    optimizer.load_state_dict(trainer["optimizer"])
    if scaler is not None:
        scaler.load_state_dict(trainer["grad_scaler"])
    return trainer["iteration"]


@pytest.mark.parametrize("mode", TRAINERS)
@pytest.mark.parametrize("name", ["model_final.pth", "model_best.pth"])
def test_upstream_resumes_from_a_file_of_every_mode(tmp_path, monkeypatch, caplog, mode, name):
    monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda: 7)  # both runs' seed
    model, trainer = trained(TRAINERS[mode], tmp_path)
    other = Loss()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    ema, scheduler = EMA(other, 0.5), torch.optim.lr_scheduler.StepLR(optimizer, 2)
    scaler = torch.amp.GradScaler("cpu") if isinstance(trainer, AMPTrainer) else None
    stateless = object()  # upstream's own hooks, which have no load_state_dict
    registered = {
        "RepeatableRandomness": RepeatableRandomness(Batches()),
        "EMA": ema,
        "LRScheduler": scheduler,
        **dict.fromkeys(("Score", "BestCheckpointer", "PeriodicCheckpointer"), stateless),
    }
    done = resume_as_upstream(tmp_path / name, other, optimizer, registered, scaler)
    assert done == (2 if name == "model_final.pth" else 0)
    assert not caplog.records
    if name == "model_final.pth":
        torch.testing.assert_close(other.state_dict(), model.state_dict())
        assert optimizer.state_dict()["state"][0]["momentum_buffer"].abs().sum() > 0
    if scaler is not None:
        assert scaler.get_scale() == (1024.0 if mode == "float16" else 65536.0)


@pytest.mark.parametrize("mode", TRAINERS)
def test_a_resumed_run_goes_on_from_its_own_files(tmp_path, mode):
    whole, _ = trained(TRAINERS[mode], tmp_path / "whole", iterations=5)
    trained(TRAINERS[mode], tmp_path / "parts", iterations=3)
    resumed, trainer = trained(TRAINERS[mode], tmp_path / "parts", iterations=5)
    assert trainer.start_iter == 3
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


def test_earlier_files_resume_too(tmp_path):
    trained(TRAINERS["bfloat16"], tmp_path)
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    earlier = copy.deepcopy(checkpoint)
    best = {"best_metric": 3.0, "best_iter": 0}
    earlier["trainer"]["hooks"]["BestCheckpointer"] = earlier["BestCheckpointer.model_best"] = best
    earlier["trainer"]["grad_scaler"] = {}
    torch.save(earlier, tmp_path / "model_final.pth")
    _, trainer = trained(TRAINERS["bfloat16"], tmp_path, iterations=4)
    assert trainer.start_iter == 3
