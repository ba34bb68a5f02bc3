"""The card of a run's checkpoints."""

from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from detectron2.data import MetadataCatalog
from mimdet.checkpoint.card import Card
from mimdet.engine.follow_data import classes_of, dataset_names
from mimdet.evaluation.protocol import model_settings, versions


def make_card(cfg: DictConfig, model: nn.Module) -> Card:
    """Describe a run for its checkpoints.

    Args:
        cfg: of the run, into whose output folder `default_setup` has written ``config.yaml``, and
            whose training data are registered.
        model: of the run, not wrapped.
    """
    names = dataset_names(cfg.dataloader.train)
    metadata = MetadataCatalog.get(names[0]) if names else {}
    classes = classes_of(names[0]) if names else []
    own = metadata.get("file_category_ids", {})
    ids = {k: i for i, k in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
    return Card(
        config=Path(cfg.train.output_dir, "config.yaml").read_text(encoding="utf-8"),
        classes=classes,
        category_ids=[own.get(ids[k], ids[k]) for k in range(len(classes))] if ids else [],
        protocol=model_settings(model),
        # torch's version is a type of its own, which a checkpoint could not be loaded with
        versions={package: str(version) for package, version in versions().items()},
    )
