"""`--data DIR` for a segmentor: its config made to fit a folder of images and label maps."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detectron2.config import LazyCall
from mimdet.config import AUTO
from mimdet.data.label_folders import (
    IGNORED,
    LabelFolders,
    classes_by_labels,
    find_label_folders,
)
from mimdet.data.sem_seg import labels_in, load_sem_seg_folder, pair_files
from mimdet.engine.follow_data import number_of_classes, replace_dataset
from mimdet.progress import progress


def is_segmentor(cfg: DictConfig) -> bool:
    """Whether the model of a config learns the class of each pixel from label maps."""
    return OmegaConf.select(cfg, "model.sem_seg_head") is not None


def use_label_maps(cfg: DictConfig, folder: str, notes: list[str]) -> int:
    """Give the config of a segmentor the data of a folder, in place.

    Datasets, evaluator and number of classes follow from the data, the output folder from the name
    of the folder. Label 255 stands for pixels that do not count.

    Args:
        cfg: a segmentor's config as its file has it.
        folder: see `find_label_folders`.
        notes: gets a sentence on each decision.

    Returns:
        The number of images to train on.

    Raises:
        FileNotFoundError, ValueError: see `find_label_folders`, `pair_files`; and if the labels
            cannot be those of classes.
    """
    found = find_label_folders(folder)
    notes += found.notes
    classes = found.classes or _classes_by_labels(found, notes)
    name = Path(folder).resolve().name
    for loader, split, part in (("train", "train", found.train), ("test", "val", found.val)):
        dataset = dict(
            name=f"{name}_{split}",
            image_root=part.image_root,
            sem_seg_root=part.sem_seg_root,
            classes=classes,
            ignore_label=IGNORED,
            share=None if part.share is None else list(part.share),
        )
        number = len(pair_files(part.image_root, part.sem_seg_root, part.share))
        notes.append(
            f"{split}: {number} images of {part.image_root} with the label maps of "
            f"{part.sem_seg_root}"
        )
        replace_dataset(cfg.dataloader[loader], LazyCall(load_sem_seg_folder)(**dataset))
    cfg.dataloader.evaluator.dataset_name = "${dataloader.test.dataset.name}"
    for key in number_of_classes(cfg):
        OmegaConf.update(cfg, key, AUTO)
    cfg.train.output_dir = f"output/{name}"
    cfg.train.best_metric = "sem_seg/mIoU"
    return len(pair_files(found.train.image_root, found.train.sem_seg_root, found.train.share))


def _classes_by_labels(found: LabelFolders, notes: list[str]) -> list[str]:
    """Classes 0, 1, ... of the labels that are there, called by their numbers."""
    roots = dict.fromkeys((part.image_root, part.sem_seg_root) for part in found.parts)
    records = [record for pair in roots for record in pair_files(*pair)]
    values = progress(labels_in(records), len(records), "reading", "label map")
    classes = classes_by_labels(set().union(*values), found.train.sem_seg_root)
    notes.append(
        f"{len(classes)} classes by the labels that are there, 0 to {len(classes) - 1}; "
        "classes.txt, one name a line, would name them"
    )
    return classes
