"""What the tests do otherwise where upstream Detectron2 provides `detectron2`: hooks of pytest."""

import pytest

import detectron2

IS_LITE = "lite" in detectron2.__version__

# Warnings of upstream's own code, which are no errors of what is tested.
WARNINGS = (
    "ignore:The 'warn' method is deprecated:DeprecationWarning",  # evaluation of COCO and LVIS
    "ignore:torch.meshgrid:UserWarning",  # anchors
    "ignore:`torch.cuda.amp.GradScaler:FutureWarning",  # AMPTrainer
    "ignore:unclosed file:ResourceWarning",  # LazyConfig.load
)


def pytest_configure(config):
    """Pass over the warnings of upstream's own code."""
    if not IS_LITE:
        for line in WARNINGS:
            config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items):
    """Leave out tests of lite's own improvements."""
    if IS_LITE:
        return
    for item in items:
        if item.get_closest_marker("lite"):
            item.add_marker(pytest.mark.skip(reason="an improvement of detectron2-lite"))
