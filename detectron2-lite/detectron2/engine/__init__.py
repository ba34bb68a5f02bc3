"""Training loop, hooks, and the set-up of a run."""

from detectron2.engine import hooks
from detectron2.engine.defaults import *
from detectron2.engine.hooks import *
from detectron2.engine.launch import *
from detectron2.engine.train_loop import *
