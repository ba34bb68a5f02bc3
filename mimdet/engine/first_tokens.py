"""What a sampling encoder has seen of the first images of a training."""

import contextlib
from pathlib import Path

from detectron2.engine import HookBase
from mimdet.evaluation.kept_tokens import save_kept_tokens, watch_tokens


class FirstTokens(HookBase):
    """Writes ``kept_tokens_training.npz`` after the first iteration, of a model that samples.

    Args:
        output_dir: of the run.
    """

    def __init__(self, output_dir: str):
        self._path = Path(output_dir, "kept_tokens_training.npz")
        self._watch = contextlib.ExitStack()

    def before_train(self) -> None:
        """Watch the first batch."""
        self._seen = self._watch.enter_context(watch_tokens(self.trainer.model))

    def after_step(self) -> None:
        """Write what was seen, once; where the disk is full there is no such picture."""
        self._watch.close()
        if self._seen:
            with contextlib.suppress(OSError):
                save_kept_tokens(self._seen, self._path)
            self._seen = []
