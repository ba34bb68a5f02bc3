"""Hooks and the loop that calls them, whatever an iteration does."""

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detectron2.utils.events import EventStorage

logger = logging.getLogger(__name__)


class HookBase:
    """Something that happens around the iterations of a trainer.

    The phases are called in this order, and hooks in the order of their registration:

        before_train
        for each iteration: before_step, (forward, backward), after_backward, (update), after_step
        after_train

    In `before_step` and `after_step`, `trainer.iter` is the number of the current iteration. In
    `after_train` it is `trainer.max_iter` unless training has failed.

    Attributes:
        trainer: the trainer of the hook, set by `TrainerBase.register_hooks` (a weak reference).
    """

    trainer: "TrainerBase | None" = None

    def before_train(self) -> None:
        """Called once, before the first iteration."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called between the backward pass and the update of the weights."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def after_train(self) -> None:
        """Called once, after the last iteration, also when training has failed."""

    def state_dict(self) -> dict[str, Any]:
        """What the hook needs to continue in a resumed run; it goes into checkpoints."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; a hook without state has nothing to take."""


class TrainerBase:
    """An iterative trainer with hooks; a subclass defines `run_step`.

    Attributes:
        iter: number of the current iteration, from 0; `max_iter` after a complete training.
        start_iter: iteration at which `train` started.
        max_iter: iteration at which training ends (exclusive).
        storage: the `EventStorage` of the running training.
    """

    max_iter: int
    storage: EventStorage

    def __init__(self):
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Add hooks, which are called in the order in which they are registered.

        Args:
            hooks: the hooks; None entries are left out.

        Raises:
            AssertionError: an entry is not a `HookBase`.
        """
        hooks = [hook for hook in hooks if hook is not None]
        for hook in hooks:
            assert isinstance(hook, HookBase), (
                f"a hook must be a HookBase, got {type(hook).__name__}: {hook!r}"
            )
            # Weak: a circle of trainer and hooks would keep all that they hold, such as the model,
            # until the garbage collector finds it.
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(hooks)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations from `start_iter` up to, not including, `max_iter`.

        `after_train` always runs: after a failure, and also where no iteration is left to do.

        Args:
            start_iter: first iteration; above 0 in a resumed run.
            max_iter: number of iterations of the whole training.

        Raises:
            Exception: whatever an iteration or a hook raises; the first failure if there are more.
        """
        logger.info(f"Starting training from iteration {start_iter}")
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self._run_iterations()
            # Ctrl-C as well: `after_train` writes and closes files. Its traceback is no news for
            # the log.
            except BaseException as error:
                if isinstance(error, Exception):
                    logger.exception("Exception during training:")
                self._after_failed_train()
                raise
            self.after_train()

    def _run_iterations(self) -> None:
        self.before_train()
        for iteration in range(self.start_iter, self.max_iter):
            self.iter = iteration
            self.before_step()
            self.run_step()
            self.after_step()
        self.iter = self.max_iter  # tells after_train that training is complete

    def _after_failed_train(self) -> None:
        """Run `after_train` without letting it hide the failure that ended training."""
        try:
            self.after_train()
        except Exception:
            logger.error("after_train failed too; the exception of the training itself is raised")

    def before_train(self) -> None:
        """Run `before_train` of every hook."""
        for hook in self._hooks:
            hook.before_train()

    def before_step(self) -> None:
        """Run `before_step` of every hook."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Run `after_backward` of every hook."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Run `after_step` of every hook."""
        for hook in self._hooks:
            hook.after_step()

    def after_train(self) -> None:
        """Run `after_train` of every hook, also of those behind a hook that fails.

        Raises:
            Exception: the first failure, after all hooks have run.
        """
        self.storage.iter = self.iter
        call_all(self._final_calls())

    def _final_calls(self) -> list[Callable[[], None]]:
        return [hook.after_train for hook in self._hooks]

    def run_step(self) -> None:
        """Do one iteration."""
        raise NotImplementedError(f"{type(self).__name__} must define run_step()")

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the state of every hook that has one, by name of the hook's class.

        Of several hooks of one class only the first is stored.
        """
        state: dict[str, Any] = {"iteration": self.iter}
        hooks: dict[str, Any] = {}
        for hook in self._hooks:
            hook_state = hook.state_dict()
            if hook_state:
                hooks.setdefault(type(hook).__qualname__, hook_state)
        if hooks:
            state["hooks"] = hooks
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the iteration and the state of the hooks."""
        self.iter = state_dict["iteration"]
        for name, hook_state in state_dict.get("hooks", {}).items():
            hook = next((h for h in self._hooks if type(h).__qualname__ == name), None)
            if hook is None:
                logger.warning(
                    f"The checkpoint holds the state of a hook {name}, which is not registered; "
                    "that state is ignored"
                )
            else:
                hook.load_state_dict(hook_state)


def call_all(functions: Iterable[Callable[[], None]]) -> None:
    """Call all functions even if one fails, log every failure, raise the first at the end."""
    first = None
    for function in functions:
        try:
            function()
        except Exception as error:
            if first is None:
                first = error
            logger.exception(f"Exception in {getattr(function, '__qualname__', function)}:")
    if first is not None:
        raise first
