"""`train.nonfinite`: what becomes of a training whose loss or gradients are not finite."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from toy_runs import load_script

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase, hooks
from mimdet.engine.hooks import RepeatableRandomness
from mimdet.engine.nonfinite import (
    NonFinitePolicy,
    Rewind,
    check_nonfinite,
    train_with_rewinds,
)
from mimdet.engine.trainer import build_trainer


class Batches:
    """Batch i is two samples with the image id i and the same pixels in every run."""

    def __init__(self, *left_out: int):
        self._left_out, self._start = left_out, 0

    def set_start(self, iteration: int) -> None:
        self._start = iteration

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for i in range(self._start, 100):
            if i not in self._left_out:
                image = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
                yield [{"image_id": i, "image": image}, {"image_id": i, "image": image + 1}]


class Model(nn.Module):
    """Has a batch that it cannot bear, in one of three ways, and running statistics."""

    def __init__(self, bad: int, kind: str = "loss"):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear = nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.bad, self.kind = bad, kind
        self.seen: list[int] = []

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        is_bad = batch[0]["image_id"] == self.bad
        self.seen.append(batch[0]["image_id"])
        images = torch.cat([sample["image"] for sample in batch])
        features = self.norm(images * math.nan if is_bad and self.kind == "loss" else images)
        loss = self.linear(features).square().mean()
        if is_bad and self.kind == "raises":
            raise FloatingPointError("boxes are not finite")
        if is_bad and self.kind == "gradient":
            loss = loss + (loss - loss.detach()).sqrt()  # 0, with an infinite slope
        return {"loss": loss}


def trainer_of(
    model: Model, loader: Batches, choice: str = "skip", limit: int = 10, rewound=None, **options
):
    randomness = RepeatableRandomness(loader, passed=rewound.position if rewound else None)
    policy = NonFinitePolicy(choice, limit, randomness, rewound)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = build_trainer(model, loader, optimizer, policy=policy, **options)
    trainer.register_hooks([randomness, policy])
    return trainer


@pytest.mark.parametrize("kind", ["loss", "raises", "gradient"])
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulation_steps": 2}, {"amp_enabled": True, "amp_dtype": "bfloat16"}],
    ids=str,
)
def test_a_batch_that_is_left_out_leaves_no_trace(kind, options):
    with_bad, without = Model(bad=2, kind=kind), Model(bad=-1)
    trainer = trainer_of(with_bad, Batches(), **options)
    trainer.train(0, 5)
    expected = trainer_of(without, Batches(2), **options)
    expected.train(0, 4)
    for name, value in without.state_dict().items():
        assert torch.equal(with_bad.state_dict()[name], value), name
    momenta = [t.optimizer.state_dict()["state"] for t in (trainer, expected)]
    for i, entry in momenta[1].items():
        assert torch.equal(momenta[0][i]["momentum_buffer"], entry["momentum_buffer"])
    assert trainer.storage.latest()["nonfinite_batches"] == (1, 4)


def test_the_message_names_iteration_losses_and_images(caplog):
    trainer_of(Model(bad=1), Batches()).train(0, 2)
    assert (
        "Loss became infinite or NaN at iteration=1! loss_dict = {'loss': nan}; on rank 0, images "
        "['1', '1']. train.nonfinite=skip, batch 1 of its kind"
    ) in caplog.text


def test_more_batches_than_allowed_stop_the_run_that_was_resumed_too(caplog):
    first = trainer_of(Model(bad=0), Batches(), limit=1)
    first.train(0, 1)
    second = trainer_of(Model(bad=1), Batches(), limit=1)
    second.load_state_dict(first.state_dict())
    with pytest.raises(FloatingPointError, match=r"batch 2 of this kind.*nonfinite_max=1"):
        second.train(1, 3)


class Seen(HookBase):
    """Keeps the image ids of iterations that were completed."""

    def __init__(self, seen: dict[int, int]):
        self.seen = seen

    def after_step(self) -> None:
        self.seen[self.trainer.iter] = self.trainer.model.model.seen[-1]


def run_with_rewinds(folder: Path, bad: int, iterations: int, limit: int = 3, resume: bool = False):
    """The image id of each iteration, and the final state."""
    seen: dict[int, int] = {}
    models = []

    def train(rewound: Rewind | None) -> None:
        models.append(Model(bad))
        trainer = trainer_of(models[-1], Batches(), "rewind", limit, rewound)
        checkpointer = DetectionCheckpointer(models[-1], str(folder), trainer=trainer)
        trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 2), Seen(seen)])
        resuming = (resume or rewound is not None) and checkpointer.has_checkpoint()
        checkpointer.resume_or_load("", resume=resuming)
        trainer.train(trainer.iter + 1 if resuming else 0, iterations)

    train_with_rewinds(train, seed=0)
    return seen, models[-1].state_dict(), len(models) - 1


def test_rewinding_goes_back_to_the_last_checkpoint_and_on_past_the_batch(tmp_path):
    seen, state, rewinds = run_with_rewinds(tmp_path, bad=5, iterations=9)
    # Iteration 5 has failed, the checkpoint is that of iteration 3: batches 4 and 5 are left out.
    assert seen == {0: 0, 1: 1, 2: 2, 3: 3, 4: 6, 5: 7, 6: 8, 7: 9, 8: 10}
    assert rewinds == 1
    # A run that is killed and resumed knows what was left out.
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    again, resumed, _ = run_with_rewinds(tmp_path, bad=5, iterations=9, resume=True)
    assert again == {i: image for i, image in seen.items() if i > 5}
    assert all(torch.equal(resumed[name], value) for name, value in state.items())
    saved = torch.load(tmp_path / "model_0000007.pth", weights_only=True)["trainer"]["hooks"]
    assert saved["NonFinitePolicy"] == {"count": 1}


def test_rewinding_without_a_checkpoint_starts_anew_behind_the_batch(tmp_path):
    seen, _, rewinds = run_with_rewinds(tmp_path, bad=1, iterations=3)
    assert seen == {0: 2, 1: 3, 2: 4}
    assert rewinds == 1


def test_rewinding_ends_where_it_does_not_help(tmp_path):
    with pytest.raises(FloatingPointError, match="train.nonfinite=rewind leaves out at most"):
        run_with_rewinds(tmp_path, bad=1, iterations=3, limit=0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.nonfinite=ignore", "train.nonfinite must be one of ['stop', 'skip', 'rewind']"),
        ("train.nonfinite_max=-1", "train.nonfinite_max must be a whole number from 0 on, got -1"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(override, message, capsys):
    script = load_script("lazyconfig_train_net.py")
    config = str(Path(script.__file__).parent / "configs/toy/mae_vit_toy.py")
    with pytest.raises(SystemExit):
        script.parse_args(["--config-file", config, override])
    assert message in " ".join(capsys.readouterr().err.split())


def test_configs_of_others_need_not_have_the_keys():
    check_nonfinite(OmegaConf.create({"train": {}}))
