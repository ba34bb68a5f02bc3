"""The region proposal network."""

from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
