"""Learning rates that grow with the batch."""

import pytest

from mimdet.solver.learning_rate import scaled_lr


@pytest.mark.parametrize(
    "base_lr, batch, lr", [(1.5e-4, 4096, 2.4e-3), (1.5e-4, 256, 1.5e-4), (1e-3, 64, 2.5e-4)]
)
def test_the_learning_rate_is_proportional_to_the_batch(base_lr, batch, lr):
    assert scaled_lr(base_lr, batch) == pytest.approx(lr)


def test_the_batch_that_a_learning_rate_is_meant_for_can_be_another():
    assert scaled_lr(0.02, 64, reference_batch_size=16) == pytest.approx(0.08)
