"""One compiled function runs every route, with the values of its network."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch
from wsl.stitch._routes import interpreter

WIDTHS = {'a': 3, 'b': 4, 'c': 5}
DEPTHS = {'a': 3, 'b': 2, 'c': 3}


def embed(params, x):
  return x @ params


def residual(params, h):
  return h + jnp.tanh(h @ params['w'])


def dense(params, h):
  return jnp.tanh(h @ params['w'])


def head(params, h):
  return h @ params


def normal(rng, *shape):
  return jnp.asarray(rng.normal(size=shape))


def stacked(rng, name):
  width, depth = WIDTHS[name], DEPTHS[name]
  params = {
    'embed': normal(rng, 6, width),
    'blocks': {'w': normal(rng, depth, width, width)},
    'head': normal(rng, width, 2),
  }
  return stitch.Segmented(params, embed, residual, head)


def tapered(rng):
  """A network with widths 5, 7, 5, 4: one width repeats."""
  sizes = (5, 7, 5, 4)
  params = {
    'embed': normal(rng, 6, 5),
    'blocks': tuple(
      {'w': normal(rng, d, e)} for d, e in itertools.pairwise(sizes)
    ),
    'head': normal(rng, 4, 2),
  }
  return stitch.Segmented(params, embed, (dense,) * 3, head)


@pytest.fixture(scope='module')
def family():
  rng = np.random.default_rng(0)
  adapter = lambda d, e: stitch.Adapter(normal(rng, d, e), normal(rng, e))
  return stitch.Family(
    {'a': stacked(rng, 'a'), 'b': stacked(rng, 'b'), 'c': tapered(rng)},
    {
      'a-b': adapter(3, 4),
      'b-a': adapter(4, 3),
      'b-c': adapter(4, 5),
      'c-a': adapter(7, 3),
    },
  )


def route(*pieces, adapters=()):
  return stitch.Route(tuple(stitch.Piece(*p) for p in pieces), adapters)


ROUTES = (
  route(('a', 0, 3)),
  route(('b', 0, 2)),
  route(('c', 0, 3)),
  route(('a', 0, 1), ('b', 1, 2), adapters=('a-b',)),
  route(('a', 0, 2), ('b', 0, 2), adapters=('a-b',)),
  route(('b', 0, 0), ('c', 2, 3), adapters=('b-c',)),
  route(('b', 0, 1), ('c', 0, 3), adapters=('b-c',)),
  route(('c', 0, 1), ('a', 1, 3), adapters=('c-a',)),
  route(('a', 0, 1), ('b', 1, 1), ('a', 2, 3), adapters=('a-b', 'b-a')),
  route(('a', 0, 1), ('b', 0, 2), ('c', 2, 3), adapters=('a-b', 'b-c')),
  route(('c', 0, 3), ('b', 1, 2), adapters=('',)),
  route(('a', 0, 1), ('a', 2, 3), adapters=('',)),
)
INPUTS = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 6)))


def by_hand(family, which, x):
  """Runs a route by its definition, in numpy."""
  models = family.models
  h = np.asarray(x) @ np.asarray(models[which.pieces[0].model].params['embed'])
  for i, (name, start, stop) in enumerate(which.pieces):
    if i and which.adapters[i - 1]:
      adapter = family.adapters[which.adapters[i - 1]]
      h = h @ np.asarray(adapter.weight) + np.asarray(adapter.bias)
    for j in range(start, stop):
      if name == 'c':
        h = np.tanh(h @ np.asarray(models['c'].params['blocks'][j]['w']))
      else:
        w = np.asarray(models[name].params['blocks']['w'][j])
        h = h + np.tanh(h @ w)
  return h @ np.asarray(models[which.pieces[-1].model].params['head'])


def test_all_routes_share_one_compilation(family):
  run, rows = stitch.program(family, ROUTES)
  assert rows.shape == (len(ROUTES), 3, 4)
  assert rows.dtype == np.int32
  before = interpreter.run._cache_size()
  for which, row in zip(ROUTES, rows, strict=True):
    found = run(family, row, INPUTS)
    assert found.dtype == jnp.float64
    expected = by_hand(family, which, INPUTS)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    network = stitch.materialize(family, which)
    np.testing.assert_allclose(
      stitch.apply(network, INPUTS), expected, rtol=1e-10, atol=1e-10
    )
  # An equal program with other values is not compiled again.
  again, _ = stitch.program(family, ROUTES)
  again(jax.tree.map(jnp.negative, family), rows[0], INPUTS)
  assert interpreter.run._cache_size() == before + 1


def test_gradients_equal_those_of_the_materialized_route(family):
  run, rows = stitch.program(family, ROUTES)

  def of_program(family, row, x):
    return jnp.sum(jnp.square(run(family, row, x)))

  def of_network(family, x):
    network = stitch.materialize(family, ROUTES[9])
    return jnp.sum(jnp.square(stitch.apply(network, x)))

  gradient = jax.jit(jax.grad(of_program, (0, 2)))
  found = gradient(family, rows[9], INPUTS)
  expected = jax.jit(jax.grad(of_network, (0, 1)))(family, INPUTS)
  chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-10)
  # A network off the route is not run: its NaNs do not propagate.
  models = dict(family.models)
  models['b'] = jax.tree.map(lambda x: x * jnp.nan, models['b'])
  broken = stitch.Family(models, family.adapters)
  chex.assert_tree_all_finite(gradient(broken, rows[7], INPUTS))
  assert gradient._cache_size() == 1


def test_rows_may_be_mapped(family):
  run, rows = stitch.program(family, ROUTES)

  @jax.jit
  def all_routes(family, x):
    return jax.lax.map(lambda row: run(family, row, x), jnp.asarray(rows))

  found = all_routes(family, INPUTS)
  for which, outputs in zip(ROUTES, found, strict=True):
    np.testing.assert_allclose(
      outputs, by_hand(family, which, INPUTS), rtol=1e-10, atol=1e-10
    )


def test_errors_name_the_network_or_joint(family):
  with pytest.raises(ValueError, match='no routes given'):
    stitch.program(family, ())
  with pytest.raises(ValueError, match='runs backwards'):
    stitch.program(family, [route(('a', 0, 2), ('a', 1, 3), adapters=('',))])
  wrong = route(('b', 0, 1), ('c', 1, 3), adapters=('b-c',))
  run, rows = stitch.program(family, [wrong])
  with pytest.raises(
    ValueError, match=r"'b' at 1 to 'c' at 1: adapter 'b-c' returns \(2, 5, 5\)"
  ):
    run(family, rows[0], INPUTS)
  other = family.models['b']
  narrow = {**other.params, 'head': other.params['head'][:, :1]}
  models = {
    **family.models,
    'b': stitch.Segmented(narrow, embed, residual, head),
  }
  run, rows = stitch.program(family, ROUTES[:2])
  with pytest.raises(ValueError, match=r"head of 'b' returns .* 'a'"):
    run(stitch.Family(models, {}), rows[0], INPUTS)
