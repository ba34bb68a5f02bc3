"""What the model of a config takes over from its data, so that nobody says it twice."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from mimdet.config import AUTO, all_keys
from mimdet.data.shared_records import once_per_machine

# Where a detector's config says its number of classes; its heads follow, unless told otherwise.
_PLACES = ("model.num_classes", "model.roi_heads.num_classes")


def follow_data(cfg: DictConfig) -> None:
    """Fit the heads of a detector to its training data, in place.

    ``num_classes="auto"`` becomes the number of classes of the training data, and a detector whose
    data come without masks, by ``dataloader.train.mapper.use_instance_mask=False`` or a dataset
    with ``missing_masks="boxes"``, loses its mask branch and becomes a detector of boxes.

    Of the processes of a machine the first reads what the others need to know, so all call this.

    Args:
        cfg: a config whose `dataloader` and `model` are not built yet.

    Raises:
        ValueError: if the classes are to follow from the data, and the data do not tell them.
    """
    if has_mask_head(cfg) and not uses_masks(cfg):
        # ROI heads of boxes alone have none of the three.
        for part in ("mask_in_features", "mask_pooler", "mask_head"):
            cfg.model.roi_heads[part] = None
        for node in nodes(cfg.dataloader.train):
            for key in ("use_instance_mask", "recompute_boxes"):  # from masks, after a crop
                if key in node:
                    node[key] = False
    for key, number in number_of_classes(cfg).items():
        if number == AUTO:
            number = once_per_machine(lambda: len(classes_of_training(cfg)))
            OmegaConf.update(cfg, key, number)


def number_of_classes(cfg: DictConfig) -> dict[str, Any]:
    """Key -> number of classes, for each place where the config of a model says it.

    A head has its own place only where its number does not follow from another one.
    """
    keys = [key for key in _PLACES if OmegaConf.select(cfg, key) is not None]
    for part in ("model.head", "model.roi_heads", "model.sem_seg_head"):
        for key in all_keys(OmegaConf.select(cfg, part), f"{part}."):
            parent, _, name = key.rpartition(".")
            if name == "num_classes" and not OmegaConf.is_interpolation(
                OmegaConf.select(cfg, parent), name
            ):
                keys.append(key)
    return {key: OmegaConf.select(cfg, key) for key in keys}


def uses_masks(cfg: DictConfig) -> bool:
    """Whether the mapper of the training data is to read masks, and the data to have some."""
    train = list(nodes(cfg.dataloader.get("train")))
    if any(node.get("missing_masks") == "boxes" for node in train):
        return False
    return all(node.use_instance_mask for node in train if "use_instance_mask" in node)


def has_mask_head(cfg: DictConfig) -> bool:
    """Whether the detector of a config learns masks."""
    return OmegaConf.select(cfg, "model.roi_heads.mask_head") is not None


def nodes(config: Any) -> Iterator[DictConfig]:
    """All dicts of a config, from the outermost inwards."""
    if isinstance(config, DictConfig):
        yield config
        for key in config:
            if not OmegaConf.is_missing(config, key):
                yield from nodes(config[key])
    elif isinstance(config, ListConfig):
        for entry in config:
            yield from nodes(entry)


def dataset_names(loader: DictConfig) -> list[str]:
    """Names of the registered datasets that the config of a loader reads."""
    names: list[str] = []
    for node in nodes(loader.get("dataset")):
        for key in ("name", "names"):
            value = node.get(key)
            if isinstance(value, str):
                names.append(value)
            elif isinstance(value, ListConfig):
                names.extend(value)
    return names


def classes_of(name: str) -> list[str]:
    """Names of the classes of a registered dataset: objects', or those of its label maps."""
    metadata = MetadataCatalog.get(name)
    return list(metadata.get("thing_classes") or metadata.get("stuff_classes") or ())


def replace_dataset(loader: DictConfig, dataset: DictConfig) -> None:
    """Put `dataset` where the loader names its data, perhaps inside a wrapper such as of pairs.

    Raises:
        ValueError: if it names none.
    """
    for node in nodes(loader):
        inner = node.get("dataset")
        if isinstance(inner, DictConfig) and {"name", "names"} & set(inner):
            node.dataset = dataset
            return
    raise ValueError("--data needs a config whose datasets have names, and this one's have none")


def classes_of_training(cfg: DictConfig) -> list[str]:
    """Names of the classes of the training data, which are read if nobody has done it yet.

    Raises:
        ValueError: if they have none.
    """
    loader = cfg.dataloader.train
    names = dataset_names(loader)
    if not all(classes_of(name) for name in names):
        if all(name in DatasetCatalog.list() for name in names):
            for name in names:
                DatasetCatalog.get(name)
        else:
            instantiate(loader.dataset)
    for name in names:
        if classes := classes_of(name):
            return classes
    raise ValueError(
        f"num_classes={AUTO} needs training data that tell their classes, and dataset "
        f"{', '.join(names) or 'without a name'} (dataloader.train.dataset) does not; write the "
        "number"
    )
