"""Auxiliary state: carried, resumed, batched, and checked."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import problem
from wsl import train

SGD = optax.sgd(0.05)
ADVANCE = functools.partial(
  train.advance, optimizer=SGD, batch_size=6, key=jax.random.key(1)
)


class Net(nn.Module):
  """A linear map after batch normalisation."""

  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=False, momentum=0.5)(x)
    return nn.Dense(1, param_dtype=x.dtype)(x)


def loss(params, batch_stats, batch, key):
  del key
  x, y = batch
  variables = {'params': params, 'batch_stats': batch_stats}
  out, new = Net().apply(variables, x, mutable=['batch_stats'])
  return jnp.mean(jnp.square(out[:, 0] - y)), new['batch_stats']


def begin(seed=0):
  data, _ = problem.data(dtype=jnp.float32)
  variables = Net().init(jax.random.key(seed), data[0])
  state = train.start(
    variables['params'], optimizer=SGD, aux=variables['batch_stats']
  )
  return state, data


def test_batch_norm_keeps_its_running_statistics():
  state, (x, y) = begin()
  state, losses = ADVANCE(loss, state, (x, y), steps=3, batch_size=20)
  assert losses[-1] < losses[0]
  # Each step halves the distance to the moments of all examples.
  found = state.aux['BatchNorm_0']
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  close(found['mean'], (1 - 0.5**3) * x.mean(0))
  close(found['var'], 0.5**3 + (1 - 0.5**3) * x.var(0))


def counted(params, aux, batch, key):
  """Sums the first inputs of all batches, and counts the batches."""
  new = {'count': aux['count'] + 1, 'sum': aux['sum'] + batch[0].sum(0)}
  return problem.noisy(params, batch, key), new


def sums():
  return {'count': jnp.zeros((), jnp.int32), 'sum': jnp.zeros(3)}


def test_an_epoch_adds_up():
  (x, y), _ = problem.data(18)
  state = train.start(problem.zero(), optimizer=SGD, aux=sums())
  state, _ = ADVANCE(counted, state, (x, y), steps=6)
  assert state.aux['count'] == 6
  assert state.aux['count'].dtype == jnp.int32
  np.testing.assert_allclose(state.aux['sum'], 2 * x.sum(0), rtol=1e-12)


def test_segments_equal_one_run():
  data, _ = problem.data()
  first = train.start(problem.zero(), optimizer=SGD, aux=sums())
  whole, losses = ADVANCE(counted, first, data, steps=11)
  half, some = ADVANCE(counted, first, data, steps=4)
  state, rest = ADVANCE(counted, half, data, steps=7)
  problem.same(state, whole)
  problem.same(jnp.concatenate([some, rest]), losses)


def test_the_loss_of_a_line_search_reads_the_auxiliary_state():
  data, _ = problem.data()
  optimizer = optax.lbfgs()
  state = train.start(problem.zero(), optimizer=optimizer, aux=sums())
  state, losses = ADVANCE(
    counted, state, data, steps=5, optimizer=optimizer, batch_size=20
  )
  assert state.aux['count'] == 5
  assert losses[-1] < losses[0]


def test_seeds_are_one_vmap():
  _, data = begin()
  run = lambda state: ADVANCE(loss, state, data, steps=5)
  states = [begin(seed)[0] for seed in range(2)]
  many, losses = jax.vmap(run)(jax.tree.map(lambda *x: jnp.stack(x), *states))
  for i, state in enumerate(states):
    alone, alone_losses = run(state)
    np.testing.assert_allclose(losses[i], alone_losses, rtol=1e-5)
    problem.close(jax.tree.map(lambda x, i=i: x[i], many.aux), alone.aux, 1e-4)


@pytest.mark.parametrize(
  ('fn', 'aux', 'message'),
  [
    (counted, None, 'missing 1 required positional'),
    (lambda p, batch, key: (0.0, 1), None, r'no auxiliary .* start\(aux='),
    (
      lambda p, aux, batch, key: jnp.sum(p['w']),
      sums(),
      r'expected \(loss, aux',
    ),
    (
      lambda p, aux, *_: (jnp.sum(p['w']), {}),
      sums(),
      "aux 'count' is missing",
    ),
    (
      lambda p, aux, *_: (jnp.sum(p['w']), aux | {'sum': jnp.zeros(2)}),
      sums(),
      r"aux 'sum' as .*\[2\], start was given .*\[3\]",
    ),
    (
      lambda p, aux, *_: (jnp.sum(p['w']), aux | {'count': 0.5}),
      sums(),
      "aux 'count' as .*start was given int32",
    ),
  ],
)
def test_bad_auxiliary_state_is_named(fn, aux, message):
  data, _ = problem.data()
  state = train.start(problem.zero(), optimizer=SGD, aux=aux)
  with pytest.raises((ValueError, TypeError), match=message):
    ADVANCE(fn, state, data, steps=2)
