"""`train.nonfinite` holds for pretraining and classifiers as for detectors."""

import re
from pathlib import Path

import pytest
import torch
from toy_runs import REPOSITORY, metrics, train_net

from mimdet.data.imagenet import ImageMapper

TINY = (
    "train.device=cpu",
    "train.log_period=1",
    "train.max_iter=5",
    "train.eval_period=0",
    "train.checkpointer={period: 1, max_to_keep: 9}",
    "dataloader.train.total_batch_size=4",
    "dataloader.train.num_workers=0",
    "dataloader.train.mapper._target_=test_nonfinite.OneOfNaN",
    "train.amp.enabled=False",
    "train.seed=0",
    "preflight=False",  # it looks at a sample
)
CONFIGS = {
    "toy/mae_vit_toy": [],
    "pretrain/fastmim_vit_base": [
        *("model.encoder.embed_dim=32", "model.encoder.depth=1", "model.encoder.num_heads=2"),
        *("model.decoder_embed_dim=32", "model.img_size=64"),
    ],
    "toy/finetune_cmt_toy": ["imagenet.root=synthetic:10", "dataloader.evaluator=null"],
}
SOURCE = "dataloader.train.dataset.source=synthetic:10"


class OneOfNaN(ImageMapper):
    """Image 3 of the ten has no finite pixel; 20 images are seen, so it is in one batch or two."""

    def __call__(self, record):
        sample = super().__call__(record)
        if record["file_name"].endswith(":3"):
            sample["image"] = sample["image"] * float("nan")
        return sample


# torch's schedulers want an update before them, and here the first may be left out.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")


@pytest.fixture(params=CONFIGS)
def run(request, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    config = str(REPOSITORY / f"configs/{request.param}.py")
    source = [] if "finetune" in request.param else [SOURCE]

    def train(choice: str) -> list[dict]:
        train_net(
            *(*TINY, *source, *CONFIGS[request.param]),
            *(f"train.output_dir={tmp_path / 'out'}", f"train.nonfinite={choice}"),
            config=config,
        )
        weights = torch.load(tmp_path / "out/model_final.pth", weights_only=True)["model"]
        assert all(weight.isfinite().all() for weight in weights.values())
        return [line for line in metrics(tmp_path / "out") if "total_loss" in line]

    return train


def test_skip_leaves_the_batch_out_and_counts_it(run, tmp_path):
    lines = run("skip")
    count = lines[-1]["nonfinite_batches"]
    assert count in (1, 2)
    assert len({line["iteration"] for line in lines}) == 5 - count
    log = (tmp_path / "out/log.txt").read_text()
    assert re.search(r"NaN at iteration=\d.*:3'.*train.nonfinite=skip, batch 1 of its kind", log)


def test_rewind_goes_on_past_the_batch(run):
    lines = run("rewind")
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[-1]["nonfinite_batches"] >= 1


def test_stop_names_iteration_and_images(run):
    with pytest.raises(FloatingPointError, match=r"NaN at iteration=\d.*:3'"):
        run("stop")
