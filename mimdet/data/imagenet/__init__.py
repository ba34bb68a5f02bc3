"""Images for pretraining and classification: where they are, how they are read, endless batches."""

from mimdet.data.imagenet.loader import ImageTrainLoader
from mimdet.data.imagenet.mapper import ImageMapper
from mimdet.data.imagenet.read import read_image
from mimdet.data.imagenet.sources import load_images, load_labelled_images

__all__ = [
    "ImageMapper",
    "ImageTrainLoader",
    "load_images",
    "load_labelled_images",
    "read_image",
]
