"""The region proposal network."""

from detectron2._missing import missing_names
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead

__all__ = ["RPN", "StandardRPNHead"]

__getattr__ = missing_names(
    __name__,
    """
    PROPOSAL_GENERATOR_REGISTRY RPN_HEAD_REGISTRY RRPN build_proposal_generator build_rpn_head rrpn
    """,
)
