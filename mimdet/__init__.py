"""mimdet: detection with backbones pre-trained by masked image modelling."""

__version__ = "0.1.0"
