"""`--plan`: what a training needs, what fits, and that nothing is written."""

import re

import pytest
from toy_runs import CONFIG, RATIO, TINY, isolated, load_script

from mimdet.config import load_config
from mimdet.engine import propose
from mimdet.engine.disk_plan import DiskPlan, plan_disk
from mimdet.engine.memory_plan import GIB, StepMemory
from mimdet.engine.propose import parse_memory

script = load_script("lazyconfig_train_net.py")


@pytest.mark.parametrize("text", ["24GB", "24", "24 gib", "24.0G"])
def test_a_memory_is_read_as_cards_are_sold(text):
    assert parse_memory(text) == 24 * GIB


@pytest.mark.parametrize("text", ["", "0GB", "24TB", "-1", "much"])
def test_another_text_is_no_memory(text):
    with pytest.raises(ValueError, match="--memory must be a size such as 24GB, got"):
        parse_memory(text)


def _ten_or_four_per_image(cfg, images, checkpointing, ratio):
    """GiB kept: 10 an image, 4 if they are recomputed; half of that for half of the tokens."""
    return StepMemory(state=0, kept=int((4 if checkpointing else 10) * images * 2 * ratio * GIB))


@pytest.mark.parametrize(
    "gigabytes, changes",
    [
        (100, ""),
        (97, "checkpointing=True"),  # 8 images with the margin of 1.2, and 1 for the process
        (39, "checkpointing=True accumulation_steps=2"),
        (12, "checkpointing=True accumulation_steps=4"),
        (5, "checkpointing=True accumulation_steps=8 sample_ratio=0.25"),
        (3, "none, one image needs 3.4 GiB at least"),
    ],
)
def test_what_changes_least_is_proposed_first(monkeypatch, gigabytes, changes):
    monkeypatch.setattr(propose, "step_memory", _ten_or_four_per_image)
    *table, proposal = propose.propose(load_config(CONFIG, []), 1, gigabytes * GIB - 1)
    for change in changes.split(" ") if "=" in changes else [changes]:
        assert change in proposal
    assert proposal.count("=") == changes.count("=") + ("checkpointing" in changes)
    if gigabytes == 97:  # which auto does by itself
        parts = [
            f"model.backbone.bottom_up.{part}.checkpointing" for part in ("encoder", "decoder")
        ]
        cfg = load_config(CONFIG, [f"{part}=auto" for part in parts])
        assert propose.propose(cfg, 1, gigabytes * GIB - 1)[-1] == "proposal: as it is"
    if gigabytes == 39:
        assert table[-3:-1] == ["| on | 0.5 | 7 | 7 |", "| off | 0.25 | 6 | 6 |"]


def test_a_plan_tells_what_a_training_would_do_and_starts_nothing(
    toy_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(script, "launch", pytest.fail)
    output = tmp_path / "run"
    words = ["--config-file", CONFIG, "--plan", "--memory", "2GB", *TINY, f"{RATIO}=0.25"]
    with isolated():
        script.run([*words, f"toy.root={toy_root}", f"train.output_dir={output}"])
    printed = capsys.readouterr().out
    for told in (
        r"4 classes: ",
        r"16 images, 4 iterations of 2: 0.5 epochs",
        rf"learning rate 0.001 \(optimizer.lr of {re.escape(CONFIG)}\)",
        r"memory: about 1\.\d GiB of the 2\.0 GiB of cpu: .* activations of 2 images of 128x224",
        r"disk: about 50 MiB of the .* GiB free in .*: 2 checkpoints of 26 MB",
    ):
        assert re.search(f"^preflight: {told}", printed, re.MULTILINE), told
    assert printed.splitlines()[-1] == "proposal: as it is"
    assert not output.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--memory", "24GB"], "--memory goes with --plan"),
        (["--plan", "--eval-only"], "--plan is of a training"),
        (["--plan", "--memory", "all"], "--memory must be a size such as 24GB, got 'all'"),
    ],
)
def test_words_that_contradict_a_plan_are_refused(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        script.parse_args(["--config-file", CONFIG, *words])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_checkpoints_are_counted_with_the_one_that_is_being_written(trained, tmp_path):
    every = [f"train.output_dir={trained}", "train.max_iter=40", "train.checkpointer.period=10"]
    plan = plan_disk(load_config(CONFIG, every), resuming=True)
    assert plan.number == 4 + 2 and plan.present > 0
    assert plan.checkpoint == pytest.approx((trained / "model_final.pth").stat().st_size, rel=0.01)
    few = [f"train.output_dir={tmp_path}/not/yet", "train.checkpointer.max_to_keep=3"]
    plan = plan_disk(load_config(CONFIG, [*every, *few]), resuming=False)
    assert plan.number == 3 + 2 and plan.present == 0 and plan.free > 0


@pytest.mark.parametrize("free, warned, refused", [(1100, 0, 0), (700, 1, 0), (50, 1, 1)])
def test_a_disk_that_is_too_small_is_told_before_the_training(free, warned, refused):
    plan = DiskPlan("output/run", checkpoint=100, number=10, logs=5, present=0, free=free)
    assert plan.needed == 1005
    assert len(plan.warnings()) == warned and len(plan.errors()) == refused


def test_a_training_without_room_for_a_checkpoint_is_refused(
    toy_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000}))
    words = ["--config-file", CONFIG, *TINY, f"toy.root={toy_root}", f"train.output_dir={tmp_path}"]
    with pytest.raises(SystemExit) as caught, isolated():
        script.run(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "0 MiB free, and a single checkpoint of this model takes" in error
