"""The index of a dataset, read by one process of each machine and shared by all of them."""

from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.utils import comm
from detectron2.utils.registry import locate
from mimdet.data.coco.read import forget_files
from mimdet.data.coco.register import load_coco_folder
from mimdet.data.shared_records import once_per_machine, read_once
from mimdet.engine.follow_data import dataset_names, nodes

# Not load_sem_seg_folder: it only lists two folders, and the evaluator of each process asks the
# catalog, in which loading enters the dataset, for the label maps.
_INDEXES = (get_detection_dataset_dicts, load_coco_folder)


def share_index(loader: DictConfig) -> DictConfig:
    """The config of a loader, with shared records in the place of what reads an index.

    All processes of the job call this. What the reading tells of a dataset besides (its classes)
    the other processes get to know too.

    Args:
        loader: a part of a config, such as `dataloader.train`; not changed.
    """
    if comm.get_world_size() == 1:
        return loader
    names = dataset_names(loader)
    loader = loader.copy()  # whose interpolations still find the rest of the config
    known: list[tuple[DictConfig, Any]] = []
    for node in list(nodes(loader)):
        for key in list(node):
            if not OmegaConf.is_missing(node, key) and _reads_index(node[key]):
                node[key] = _records(node[key], known)
    # Entered into the catalog by the process that has read, as a by-product of `_records` above.
    metadata = once_per_machine(lambda: {n: MetadataCatalog.get(n).as_dict() for n in names})
    for name, entries in metadata.items():
        MetadataCatalog.get(name).set(**entries)
    forget_files()  # gigabytes of objects, of which the records are a copy
    return loader


def _reads_index(node: Any) -> bool:
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return (locate(target) if isinstance(target, str) else target) in _INDEXES


def _records(node: DictConfig, known: list[tuple[DictConfig, Any]]) -> Any:
    """Of a call; those of an equal one where the config refers to it twice."""
    for other, records in known:
        if other == node:
            return records
    records = read_once(partial(instantiate, node))
    known.append((node, records))
    return records
