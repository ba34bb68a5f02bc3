"""Videos: predictions frame by frame, drawn into a copy. Needs PyAV (``pip install av``)."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from mimdet.analysis.predictor import ClassMap, Prediction, Predictor
from mimdet.analysis.visualize import draw_prediction
from mimdet.whole_files import complete_or_not_there

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


def annotate_video(
    predictor: Predictor, file: str, target: Path | None, batch: int = 1
) -> Iterator[tuple[int, Prediction | ClassMap]]:
    """Predict for each frame, and write a copy with the predictions drawn.

    Args:
        predictor: detects, or tells the class of each pixel.
        file: the video.
        target: an mp4 file, H.264; None writes no copy.
        batch: frames that pass through the model together.

    Yields:
        The frame's number, from 0, and what was predicted.

    Raises:
        ModuleNotFoundError: if PyAV is not installed.
        OSError: if the file is no video.
    """
    av = _pyav()
    try:
        source = av.open(file)
        stream = source.streams.video[0]
    except (av.FFmpegError, IndexError) as e:
        raise OSError(f"{file} cannot be read as a video ({e})") from e
    with source, _writer(av, target, stream.average_rate) as write:
        frames = (frame.to_ndarray(format="rgb24") for frame in source.decode(stream))
        number = itertools.count()
        while pixels := list(itertools.islice(frames, batch)):
            for frame, found in zip(pixels, predictor.predict(pixels), strict=True):
                write(frame, found)
                yield next(number), found


@contextlib.contextmanager
def _writer(av: ModuleType, target: Path | None, rate: object) -> Iterator:
    """A function that adds a frame to the copy; the file is complete when the context ends."""
    if target is None:
        yield lambda frame, found: None
        return
    with complete_or_not_there(target) as unfinished, av.open(unfinished, "w") as container:
        stream = container.add_stream("h264", rate=rate, options={"crf": "23"})
        stream.pix_fmt = "yuv420p"  # what every player reads; it needs even sides

        def write(frame: np.ndarray, found: Prediction | ClassMap) -> None:
            picture = np.asarray(draw_prediction(frame, found))
            height, width = (side // 2 * 2 for side in picture.shape[:2])
            # Known with the first picture only, which may be enlarged; the encoder opens with it.
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            picture = np.ascontiguousarray(picture[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))

        yield write
        # Called without a frame it gives out the pictures that it still holds back.
        container.mux(stream.encode())


def _pyav() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            "videos need PyAV, which is not installed: pip install av", name="av"
        ) from e
    return av
