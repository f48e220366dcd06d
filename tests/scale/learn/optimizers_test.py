"""fit: optimizers that ask for more than the gradient."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.scale import problem
from wsl import scale

BASE, BANK, KEY = problem.BASE, problem.BANK, problem.KEY
BATCH = (problem.X, problem.Y)


def loss(coefs: Any) -> Any:
  return problem.LOSS(scale.compose(BASE, BANK, coefs), BATCH, KEY)


def by_hand(optimizer: Any, steps: int, coefs: Any) -> Any:
  state = optimizer.init(coefs)
  for _ in range(steps):
    value, grad = jax.value_and_grad(loss)(getattr(coefs, 'fast', coefs))
    with jax.numpy_dtype_promotion('standard'):
      updates, state = optax.with_extra_args_support(optimizer).update(
        grad, state, coefs, value=value, grad=grad, value_fn=loss
      )
    coefs = optax.apply_updates(coefs, updates)
  return coefs


def same(a: Any, b: Any) -> None:
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)


@pytest.mark.parametrize(
  'optimizer',
  [optax.lbfgs(), optax.polyak_sgd(0.1), optax.contrib.momo_adam(0.05)],
  ids=['lbfgs', 'polyak', 'momo_adam'],
)
def test_steps_equal_a_loop_by_hand(optimizer: Any) -> None:
  found = problem.run(optimizer=optimizer, steps=3, batches=[BATCH])
  same(found.coefs, by_hand(optimizer, 3, scale.init(BANK, by='leaf')))


def test_a_streamed_bank_passes_the_value() -> None:
  found = [
    problem.run(optimizer=optax.polyak_sgd(0.1), steps=3, stream=stream)
    for stream in (False, True)
  ]
  same(found[0].coefs, found[1].coefs)


def test_a_streamed_bank_has_no_line_search() -> None:
  log: list[int] = []
  models = [
    {k: problem.stored(x, log) for k, x in model.items()}
    for model in problem.MODELS
  ]
  lazy = scale.bank(BASE, models)
  log.clear()
  with pytest.raises(ValueError, match='evaluates the loss again') as error:
    problem.run(bank=lazy, optimizer=optax.lbfgs(), stream=True)
  assert '\n' not in str(error.value)
  assert not log


@pytest.mark.parametrize('stream', [False, True])
def test_lookahead_learns_a_pair(stream: bool) -> None:
  optimizer = optax.lookahead(problem.ADAM, sync_period=2, slow_step_size=0.5)
  pair = optax.LookaheadParams.init_synced(scale.init(BANK, by='leaf'))
  run = lambda coefs: problem.run(
    coefs=coefs, optimizer=optimizer, steps=5, batches=[BATCH], stream=stream
  )
  same(run(pair).coefs, by_hand(optimizer, 5, pair))
  boxed = problem.run(
    coefs=pair,
    optimizer=optax.lookahead(optax.sgd(10.0), 2, 0.5),
    project=scale.box,
    stream=stream,
  )
  assert all(0 <= x.min() <= x.max() <= 1 for x in jax.tree.leaves(boxed.coefs))
  with pytest.raises(ValueError, match='LookaheadParams'):
    run(pair.fast)
