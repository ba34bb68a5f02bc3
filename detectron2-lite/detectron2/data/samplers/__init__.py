"""Which images a process sees, in which order."""

from detectron2.data.samplers.distributed_sampler import *
