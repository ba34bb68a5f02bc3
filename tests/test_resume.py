"""A run that was interrupted ends as the one that was not, bit for bit."""

import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy_runs import CONFIG, SEGMENTOR, TINY, TINY_SEGMENTOR, load_script, metrics, train_net

from mimdet.engine.notice import NOTICE, PREEMPTED

# Everything that chance or the past could reach; one worker in the first run, none in the second.
OPTIONS = (
    *TINY[:3],
    *TINY[4:],
    "train.max_iter=6",
    "train.eval_period=0",
    "train.checkpointer={period: 2, max_to_keep: 9}",
    "train.seed=-1",
    "model.backbone.bottom_up.sample_ratio=[0.25,1.0]",  # drawn anew in each iteration
    "train.ema.decay=0.9",
    "train.accumulation_steps=2",
    "train.amp={enabled: True, dtype: bfloat16}",
    "train.clip_grad.max_norm=1.0",
    "dataloader.evaluator=null",
)
CLOCK = ("time", "data_time", "rank_data_time", "eta_seconds", "[metric]images_per_second")
CLOCK += tuple(f"seconds/{part}" for part in ("data", "forward", "backward", "optimizer"))
CLOCK += ("seconds/evaluation", "memory/process_gib")


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
    lines: dict[int, dict] = defaultdict(dict)
    for line in metrics(folder):
        lines[line["iteration"]] |= {k: v for k, v in line.items() if k not in CLOCK}
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
    found = check_resumes_exactly(tmp_path, *OPTIONS, f"toy.root={toy_root}")
    assert any("EMA" in name for name in found) and any("exp_avg" in name for name in found)


def test_an_interrupted_segmentor_ends_the_same(toy_root, tmp_path):
    options = (*TINY_SEGMENTOR, f"toy.root={toy_root}", "train.max_iter=6", "train.seed=-1")
    options += ("train.checkpointer={period: 2, max_to_keep: 9}", "train.eval_period=0")
    found = check_resumes_exactly(tmp_path, *options, config=SEGMENTOR)
    assert any("running_mean" in name for name in found)


def check_resumes_exactly(tmp_path, *options, config=CONFIG) -> dict[str, torch.Tensor]:
    """Resume a run of six iterations after the second one -> tensors of the final checkpoint."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    workers = "dataloader.train.num_workers"
    train_net(*options, f"train.output_dir={whole}", f"{workers}=1", config=config)
    interrupted_copy(whole, resumed, "model_0000001.pth")
    train_net(*("--resume", *options, f"train.output_dir={resumed}", f"{workers}=0"), config=config)
    (weights, lines), (found, found_lines) = results(whole), results(resumed)
    assert found.keys() == weights.keys()
    assert [name for name in weights if not torch.equal(found[name], weights[name])] == []
    assert found_lines == {i: line for i, line in lines.items() if i >= 2}
    return found


# --- A notice: SIGTERM or SIGUSR1 -----------------------------------------------------------------


@pytest.fixture
def whole(toy_root, tmp_path):
    """The overrides of a run with evaluations, and its results without interruption."""
    options = [*OPTIONS, f"toy.root={toy_root}", "train.seed=3", "dataloader.train.num_workers=0"]
    options.remove("dataloader.evaluator=null")
    options += ["train.eval_period=3", "train.checkpointer={period: 5, max_to_keep: 9}"]
    train_net(*options, f"train.output_dir={tmp_path / 'whole'}")
    return options, results(tmp_path / "whole")


def check_goes_on_like(whole, folder: Path) -> None:
    options, (weights, lines) = whole
    train_net("--resume", *options, f"train.output_dir={folder}")
    found, found_lines = results(folder)
    assert [name for name in weights if not torch.equal(found[name], weights[name])] == []
    assert found_lines == lines


def test_a_run_that_a_notice_ends_goes_on_bit_for_bit(whole, tmp_path, capfd):
    folder = tmp_path / "resumed"
    signalled = [
        "dataloader.train.mapper._target_=distributed_parts.Signalled",
        "+dataloader.train.mapper.iteration=1",
    ]
    with NOTICE.heeded(), pytest.raises(SystemExit) as ended:
        train_net(*whole[0], *signalled, f"train.output_dir={folder}")
    assert ended.value.code == PREEMPTED == 75
    assert (
        "SIGUSR1 has ended the run after iteration 1; to go on" in (folder / "log.txt").read_text()
    )
    assert (folder / "last_checkpoint").read_text() == "model_preempted.pth"
    assert [line["iteration"] for line in metrics(folder)] == [0, 1]
    check_goes_on_like(whole, folder)
    # The next periodic checkpoint has taken its place.
    assert sorted(path.name for path in folder.glob("model_*")) == [
        "model_0000004.pth",
        "model_final.pth",
    ]


def test_a_notice_during_an_evaluation_ends_the_run_at_once_and_the_next_makes_up_for_it(
    whole, tmp_path, monkeypatch
):
    folder, at_the_end = tmp_path / "running", tmp_path / "resumed"
    script = load_script("lazyconfig_train_net.py")
    codes = []

    def end(code: int) -> None:  # the folder is as the end of the process would leave it
        codes.append(code)
        shutil.copytree(folder, at_the_end)

    def do_test(*args) -> dict:
        if not NOTICE.signal:
            os.kill(os.getpid(), signal.SIGTERM)
        while not codes:
            time.sleep(0.001)
        return {}

    with NOTICE.heeded(), monkeypatch.context() as patch:
        patch.setattr(script, "do_test", do_test)
        patch.setattr("mimdet.engine.notice.end_at_once", end)
        with pytest.raises(SystemExit):  # the training goes on here, and ends by the same notice
            train_net(*whole[0], f"train.output_dir={folder}")
    assert codes == [PREEMPTED]
    assert (at_the_end / "last_checkpoint").read_text() == "model_preempted.pth"
    assert [line["iteration"] for line in metrics(at_the_end)] == [0, 1, 2]
    check_goes_on_like(whole, at_the_end)
    assert any("bbox/AP" in line and line["iteration"] == 2 for line in metrics(at_the_end))
