"""The folder into which a run writes."""

import os
import tempfile


def make_output_folder(path: str) -> None:
    """Make `train.output_dir`, and find out whether files can be written into it.

    Raises:
        ValueError: if it has no name.
        OSError: if it cannot be written.
    """
    if not path:
        raise ValueError(
            f"train.output_dir is empty ({path!r}); name a folder for the checkpoints and logs of "
            "this run: train.output_dir=output/my_run"
        )
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise OSError(
            f"train.output_dir={path!r} cannot be written ({e}); choose a folder in which this "
            "user may create files"
        ) from e
