"""What a page calls the tasks, metrics and scalars of Detectron2."""

TASKS = {
    "bbox": "Boxes",
    "segm": "Masks",
    "sem_seg": "Semantic segmentation",
    "accuracy": "Classification",
}

# The one metric of a task that its summary shows, and the metric's name there.
HEADLINES = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "sem_seg/mIoU": "mIoU",
    "accuracy/top1": "top-1 accuracy",
}

METRICS = {
    "AP": "AP, mean over IoU 0.50 to 0.95",
    "AP50": "AP at IoU 0.50",
    "AP75": "AP at IoU 0.75",
    "APs": "AP of small objects (below 32² pixels)",
    "APm": "AP of medium objects (32² to 96²)",
    "APl": "AP of large objects (above 96²)",
    "APr": "AP of rare classes",
    "APc": "AP of common classes",
    "APf": "AP of frequent classes",
    "mIoU": "mean IoU of the classes",
    "fwIoU": "IoU weighted by frequency",
    "mACC": "mean accuracy of the classes",
    "pACC": "accuracy of the pixels",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}

PARTS_OF_TIME = {
    "data": "waiting for data",
    "forward": "forward pass",
    "backward": "backward pass",
    "optimizer": "optimiser",
    "other": "other (hooks, logs, checkpoints)",
    "evaluation": "evaluation",
}

# Kinds of false alarms of `mimdet.report.errors`.
MISTAKES = {
    "classification": "wrong class",
    "localisation": "misplaced",
    "both": "wrong class and place",
    "duplicate": "duplicate",
    "background": "nothing there",
}

OUTCOMES = {
    "finished": ("finished", "good"),
    "ended early": ("ended early", "good"),
    "failed": ("failed", "bad"),
    "stopped": ("stopped by hand", "warn"),
    "preempted": ("ended by a notice, to be resumed", "warn"),
    "running": ("no end recorded: still running, or killed", "warn"),
    "unknown": ("no record of how it ended", "warn"),
}


def metric(name: str) -> str:
    """The name of a metric such as "AP50", in words."""
    return METRICS.get(name, name)
