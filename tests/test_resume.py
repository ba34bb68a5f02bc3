"""A run that was interrupted ends as the one that was not, bit for bit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from toy_runs import TINY, metrics, train_net

# Everything that chance or the past could reach; one worker in the first run, none in the second.
OPTIONS = (
    *TINY[:3],
    *TINY[4:],
    "train.max_iter=6",
    "train.eval_period=0",
    "train.checkpointer={period: 2, max_to_keep: 9}",
    "train.seed=-1",
    "train.ema.decay=0.9",
    "train.accumulation_steps=2",
    "train.amp={enabled: True, dtype: bfloat16}",
    "train.clip_grad.max_norm=1.0",
    "dataloader.evaluator=null",
)
CLOCK = ("time", "data_time", "rank_data_time", "eta_seconds", "[metric]images_per_second")


def tensors(value, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a checkpoint by their place in it."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from tensors(entry, f"{name}/{key}")


def results(folder: Path) -> tuple[dict[str, torch.Tensor], dict[int, dict]]:
    """The tensors of the final checkpoint, and the scalars of the iterations."""
    final = dict(tensors(torch.load(folder / "model_final.pth", weights_only=True)))
    lines = {
        line["iteration"]: {k: v for k, v in line.items() if k not in CLOCK}
        for line in metrics(folder)
    }
    return final, lines


def interrupted_copy(folder: Path, copy: Path, checkpoint: str) -> None:
    """The folder of a run as a kill after one of its checkpoints leaves it."""
    copy.mkdir()
    for name in ("seed.txt", "config.yaml", checkpoint):
        shutil.copy(folder / name, copy)
    (copy / "last_checkpoint").write_text(checkpoint)


def test_an_interrupted_detector_ends_with_the_same_weights_average_optimizer_and_metrics(
    toy_root, tmp_path
):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = (*OPTIONS, f"toy.root={toy_root}")
    train_net(*options, f"train.output_dir={whole}", "dataloader.train.num_workers=1")
    interrupted_copy(whole, resumed, "model_0000001.pth")
    train_net("--resume", *options, f"train.output_dir={resumed}", "dataloader.train.num_workers=0")
    (weights, lines), (found, found_lines) = results(whole), results(resumed)
    assert found.keys() == weights.keys()
    assert any("EMA" in name for name in found) and any("exp_avg" in name for name in found)
    assert [name for name in weights if not torch.equal(found[name], weights[name])] == []
    assert found_lines == {i: line for i, line in lines.items() if i >= 2}
