"""How a training ends when a notice comes: with a checkpoint, from which it goes on exactly."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from mimdet.checkpoint.saving import WholeCheckpointer
from mimdet.engine.notice import HOW_TO_GO_ON, NOTICE, PREEMPTED

logger = logging.getLogger(__name__)

_NAME = "model_preempted"  # no number, by which periodic checkpoints are counted


class Preemption(HookBase):
    """Ends training when a notice comes: after the iteration, or at once in an evaluation.

    All processes end in the same iteration, whoever of them has received the notice. In a single
    process that costs nothing. Several exchange one number over the CPU and read the answer an
    iteration later, so that nobody waits for it.

    The checkpoint is `model_preempted.pth`, unless that iteration has one already.
    `last_checkpoint` names it, the periodic ones stay as they are, and the next of them replaces
    it. An evaluation that was due or interrupted is made up for by the run that goes on.

    Register it behind the `PeriodicCheckpointer` and before the `EvalHook`.

    Args:
        checkpointer: that of the training.
        eval_hook: that of the training.
        period: iterations from one checkpoint to the next.
        eval_period: iterations from one evaluation to the next; 0 for none but the last.
        exchange: called on all processes before a checkpoint, for what it needs of each of them.

    Attributes:
        writers: those of the training, on the main process.
    """

    def __init__(
        self,
        checkpointer: WholeCheckpointer,
        eval_hook: HookBase,
        *,
        period: int,
        eval_period: int,
        exchange: Callable[[], None],
    ):
        self._checkpointer, self._eval_hook = checkpointer, eval_hook
        self._period, self._eval_period = period, eval_period
        self._exchange = exchange
        self._in_training = contextlib.ExitStack()
        self._owes_evaluation = False
        self._pending: tuple[dist.Work, Tensor] | None = None
        self._group: dist.ProcessGroup | None = None
        self.writers: Sequence[EventWriter] = ()

    def before_train(self) -> None:
        """Only note a notice from now on; make up for an evaluation that the last run owes."""
        self._in_training.enter_context(NOTICE.answered_by(None))
        if comm.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")  # no other exchange gets in its way
        if self._owes_evaluation:
            self._owes_evaluation = False
            # The trainer is at the next iteration already, and the hook looks at the one that is
            # done.
            self._count(-1)
            self._eval_hook.after_step()
            self._count(+1)

    def _count(self, step: int) -> None:
        self.trainer.iter += step
        self.trainer.storage.iter = self.trainer.iter

    def after_step(self) -> None:
        """End the run if a notice has come.

        Raises:
            SystemExit: with `PREEMPTED`, on all processes.
        """
        is_last = self.trainer.iter + 1 >= self.trainer.max_iter  # is saved; see during_evaluation
        if self._agreed(is_last) and not is_last:
            self._exchange()
            message = self._save()
            logger.info(message)
            comm.synchronize()  # nobody ends while rank 0 still writes
            raise SystemExit(PREEMPTED)
        # The periodic checkpoint of this iteration is whole and named by now: hence the order of
        # hooks.
        if (self.trainer.iter + 1) % self._period == 0 and comm.is_main_process():
            self._file.unlink(missing_ok=True)

    def after_train(self) -> None:
        """Training is over: there is nothing more to be saved."""
        self._in_training.close()

    @contextlib.contextmanager
    def during_evaluation(self) -> Iterator[None]:
        """Let a notice end the run at once within a block in which the weights do not change.

        Rank 0 saves, and ends without asking the others, which may wait for it or for each other.
        """
        self._exchange()
        NOTICE.follows_rank_0 = not comm.is_main_process()
        with NOTICE.answered_by(None if NOTICE.follows_rank_0 else self._save_and_end):
            yield
            # Not in a `finally`: what fails here may fail because rank 0 has ended, and
            # `until_notice` asks for this when it sees that.
            NOTICE.follows_rank_0 = False

    def state_dict(self) -> dict[str, bool]:
        """Whether the evaluation of this iteration is still to be done."""
        return {"owes_evaluation": True} if self._owes_evaluation else {}

    def load_state_dict(self, state_dict: Mapping[str, bool]) -> None:
        """Remember that the interrupted run owes an evaluation."""
        self._owes_evaluation = state_dict["owes_evaluation"]

    def _agreed(self, is_last: bool) -> bool:
        """Whether a notice had come to any process by the end of the iteration before this one.

        A single process tells of this very iteration.
        """
        came = NOTICE.signal is not None
        if self._group is None:
            return came
        before, self._pending = self._pending, None
        if not is_last:  # nobody would read that
            flag = torch.tensor(int(came))
            work = dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True)
            self._pending = work, flag
        if before is None:
            return False
        before[0].wait()
        return bool(before[1])

    def _save_and_end(self) -> None:
        message = self._save()
        # What came since the last log period: PeriodicWriter does not get there any more.
        for writer in self.writers:
            writer.write()
        logger.info(message)
        NOTICE.end()

    def _save(self) -> str:
        """Save what is not saved yet -> a sentence for the user."""
        done = self.trainer.iter + 1
        is_last = done >= self.trainer.max_iter
        self._owes_evaluation = (
            self._eval_period > 0 and done % self._eval_period == 0 and not is_last
        )
        # By the PeriodicCheckpointer, after the last iteration too; or this is the evaluation that
        # is made up for at the start, of the checkpoint from which the run goes on.
        is_saved = is_last or done <= self.trainer.start_iter or done % self._period == 0
        name = NOTICE.signal.name if NOTICE.signal else "A notice to another process"
        text = f"{name} has ended the run after iteration {min(done, self.trainer.max_iter) - 1}"
        if done > self.trainer.start_iter and (self._owes_evaluation or not is_saved):
            # --resume would take them, and never get rid of them.
            if not all(p.isfinite().all() for p in self._checkpointer.model.parameters()):
                return f"{text}, whose weights are not finite: they are not saved; {HOW_TO_GO_ON}"
            self._checkpointer.save(_NAME, iteration=self.trainer.iter)
        return f"{text}; {HOW_TO_GO_ON}"

    @property
    def _file(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{_NAME}.pth")
