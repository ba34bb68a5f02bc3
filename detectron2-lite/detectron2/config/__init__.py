from detectron2._missing import missing_names
from detectron2.config.lazy import LazyCall, LazyConfig, instantiate

__all__ = ["LazyCall", "LazyConfig", "instantiate"]

__getattr__ = missing_names(
    __name__,
    """
    CfgNode compat config configurable defaults downgrade_config get_cfg global_cfg set_global_cfg
    upgrade_config
    """,
)
