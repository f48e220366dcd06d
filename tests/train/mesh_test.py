"""advance and evaluate on a mesh: equal to one device, nothing is gathered."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train import problem
from wsl import mesh, train, tree
from wsl.train import _evaluate, _loop, _shards

pytestmark = pytest.mark.needs_devices(8)
ADAM, KEY = optax.adam(0.05), jax.random.key(1)
ADVANCE = functools.partial(
  train.advance, optimizer=ADAM, steps=4, batch_size=8, key=KEY
)
X = np.random.RandomState(0).randn(24, 6).astype(np.float32)
DATA = X, (X[:, 0] > 0).astype(np.int32)


def start() -> tuple[Any, Any]:
  """Returns two linear maps, and the running moments between them."""
  draw = np.random.RandomState(1).randn
  params = {'first': draw(6, 8) / 2, 'scale': np.ones(8), 'last': draw(8, 4)}
  aux = {'mean': np.zeros(8), 'variance': np.ones(8)}
  return jax.tree.map(np.float32, (params, aux))


def net(params: Any, moments: Any, x: Any) -> Any:
  hidden = x @ params['first'] - moments['mean'][None]
  hidden = hidden * (params['scale'] / jnp.sqrt(moments['variance']))[None]
  return jnp.tanh(hidden) @ params['last']


def loss(params: Any, aux: Any, batch: Any, key: Any) -> Any:
  """Batch normalisation by the moments of the batch, as Flax computes it."""
  del key
  hidden = batch[0] @ params['first']
  moments = {'mean': hidden.mean(0), 'variance': hidden.var(0)}
  logits = net(params, moments, batch[0])
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
  new = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, aux, moments)
  return losses.mean(), new


def classify(state: Any, x: Any) -> Any:
  return net(*state, x)


def collectives(compiled: Any) -> set[str]:
  """Returns the kinds of communication in a compiled program."""
  kinds = 'all-gather|all-reduce|all-to-all|reduce-scatter'
  return set(re.findall(rf' ({kinds})(?:-start)?\(', compiled.as_text()))


@pytest.mark.cpu_only('it reads the program of eight virtual devices')
def test_a_sharded_training_equals_one_device() -> None:
  m = mesh.make('data:2,model:4')
  data = mesh.shard(DATA, jax.P('data'), m)
  found = {}
  for name, place in (
    ('one', lambda x: x),
    ('mesh', lambda x: mesh.shard(x, 'model', m)),
  ):
    params, aux = map(place, start())
    state = train.start(params, optimizer=ADAM, aux=aux)
    given = data if name == 'mesh' else DATA
    found[name] = ADVANCE(loss, state, given)
  problem.close(found['mesh'], found['one'], rtol=1e-3)

  # Parameters, moments and running statistics stay where they were.
  done = found['mesh'][0]
  specs = jax.tree.map(lambda x: x.sharding.spec, done)
  assert specs.params['first'] == jax.P(None, 'model')
  assert specs.params['last'] == jax.P('model')
  assert specs.opt_state[0].mu == specs.opt_state[0].nu == specs.params
  assert specs.aux['variance'] == jax.P('model')
  where = _shards.places(done), _shards.split(data, caller='test')
  step = _loop._advance.lower(
    tree.partial(loss), done, data, KEY, ADAM, 4, 8, where
  ).compile()
  assert collectives(step) == {'all-reduce'}

  # 24 examples in batches of 5: 4 of them, 2 of each device, and none is moved.
  got = [(s.params, s.aux) for s, _ in found.values()]
  means = [
    train.evaluate(classify, state, given, batch_size=5)
    for state, given in zip(got, (DATA, data))
  ]
  problem.close(*means, rtol=2e-4)
  metric = jax.tree_util.Partial(_evaluate._classify, tree.partial(classify))
  counted = _evaluate._average.lower(metric, got[1], data, 5, where[1])
  assert collectives(counted.compile()) == {'all-reduce'}


def test_seeds_are_candidates() -> None:
  m = mesh.make('candidates:2,data:2,model:2')
  (x, y), _ = problem.data(24)
  data = mesh.shard((x, y), jax.P('data'), m)

  def run(key: Any, data: Any) -> Any:
    params = {'w': jax.random.normal(key, 3, x.dtype)}
    state = train.start(params, optimizer=ADAM)
    state, losses = ADVANCE(problem.noisy, state, data, key=key)
    return {'params': state.params, 'losses': losses}

  keys = jax.random.split(KEY, 3)
  one = lambda key: run(key, data)
  found = mesh.map_candidates(one, keys, mesh=m, batch=2)
  wanted = jax.vmap(lambda key: run(key, (x, y)))(keys)
  problem.close(found, wanted, rtol=2e-4)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (('data', 'data'), 'advance: batch_size=6, but .* over 4 devices: choose'),
    (('data', None), r"first axis of data leaf '1' is sharded differently"),
  ],
)
def test_wrong_shards(data: Any, message: str) -> None:
  m = mesh.make('data:4')
  parts = [mesh.shard(x, jax.P(a), m) for x, a in zip(problem.data()[0], data)]
  state = train.start(problem.zero(), optimizer=ADAM)
  with pytest.raises(ValueError, match=message):
    ADVANCE(problem.squares, state, tuple(parts), batch_size=6)


def test_places_of_what_is_on_no_mesh() -> None:
  one = mesh.shard(jnp.ones(4), 'model', mesh.make('model:1'))
  assert _shards.places((np.ones(3), jnp.ones(2), one)) == (None,) * 3
