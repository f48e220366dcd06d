"""Soft permutations: hard matrices equal ``permute``; the map is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align import nested
from wsl import align
from wsl.align import _soft

F = align.Factor

# Two more groups depend on an outer group that has another dependent, as the
# query and value units of a head.
SYMMETRY = align.Symmetry(
  factors=(
    *nested.FACTORS,
    F('t:1', 2, outer=('q:1.0',)),
    F('u:1', 2, outer=('s:0', 's:1.0', 's:1.1')),
  ),
  axes=(
    *nested.AXES,
    ('t', ((('q:1.0', 'q:1.1'),), (('t:1',),))),
    ('u', ((('s:0', 's:1.0', 's:1.1'),), (('u:1',),))),
  ),
  interleaved=nested.INTERLEAVED,
)
SHAPES = nested.SHAPES | {'t': (12, 2), 'u': (12, 2)}


def _params(seed=0):
  rng = np.random.default_rng(seed)
  return {n: jnp.asarray(rng.normal(size=s)) for n, s in SHAPES.items()}


def _matrices(seed):
  rng = np.random.default_rng(seed)
  sizes = {g.name: _soft.shape(g, SYMMETRY) for g in SYMMETRY.groups}
  return {n: jnp.asarray(rng.normal(size=s)) for n, s in sizes.items()}


@jax.jit
def _apply(params, matrices):
  return _soft.apply(params, matrices, symmetry=SYMMETRY)


def test_shapes_pair_new_and_old_indices_of_free_outer_factors():
  shapes = {g.name: _soft.shape(g, SYMMETRY) for g in SYMMETRY.groups}
  assert shapes == {
    'q:1.0': (3, 3),
    'r:0': (6, 6),
    'q:1.1': (3, 3, 4, 4),
    't:1': (3, 3, 2, 2),
    's:1.0': (2, 3, 3),
    's:1.1': (2, 3, 3, 2, 2),
    'u:1': (2, 3, 2, 3, 2, 2, 2),
  }


@pytest.mark.parametrize('seed', range(3))
def test_hard_matrices_permute(seed):
  g = align.random(SYMMETRY, jax.random.key(seed), gauges=('permutation',))
  matrices = _soft.harden(g, symmetry=SYMMETRY, dtype=np.float64)
  wanted = align.permute(_params(), g, symmetry=SYMMETRY)
  jax.tree.map(
    np.testing.assert_array_equal, _apply(_params(), matrices), wanted
  )


def test_only_pairs_of_the_outer_permutation_contribute():
  g = align.random(SYMMETRY, jax.random.key(3), gauges=('permutation',))
  matrices = _soft.harden(g, symmetry=SYMMETRY, dtype=np.float64)
  used = matrices['q:1.0'][:, :, None, None]
  noise = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 4)))
  changed = matrices | {'q:1.1': matrices['q:1.1'] + (1 - used) * noise}
  before, after = _apply(_params(), matrices), _apply(_params(), changed)
  jax.tree.map(np.testing.assert_array_equal, before, after)
  broken = matrices | {'q:1.1': matrices['q:1.1'] + used * noise}
  assert not np.allclose(_apply(_params(), broken)['q'], before['q'])


def test_soft_matrices_against_loops():
  params, m = _params(), jax.tree.map(np.asarray, _matrices(1))
  found = _apply(params, m)
  heads, units, other = m['q:1.0'], m['q:1.1'], m['t:1']
  x = np.asarray(params['q']).reshape(5, 3, 4)
  wanted = np.zeros((5, 3, 4))
  t, wanted_t = np.asarray(params['t']).reshape(3, 4, 2), np.zeros((3, 4, 2))
  for u in range(3):
    for o in range(3):
      wanted[:, u] += heads[u, o] * x[:, o] @ units[u, o].T
      wanted_t[u] += heads[u, o] * units[u, o] @ t[o] @ other[u, o].T
  np.testing.assert_allclose(found['q'], wanted.reshape(5, 12), rtol=1e-12)
  np.testing.assert_allclose(found['t'], wanted_t.reshape(12, 2), rtol=1e-12)
  r = m['r:0'] @ np.asarray(params['r']) @ m['r:0'].T
  np.testing.assert_allclose(found['r'], r, rtol=1e-12)
  f = np.asarray(params['f'])[:5] @ m['r:0'].T
  np.testing.assert_allclose(found['f'][:5], f, rtol=1e-12)
  layers, s = m['s:1.0'], np.asarray(params['s']).reshape(2, 3, 2)
  wanted_s = np.einsum('lhg,lhgij,lgj->lhi', layers, m['s:1.1'], s)
  np.testing.assert_allclose(found['s'].reshape(2, 3, 2), wanted_s, rtol=1e-12)


def test_linear_in_each_group_and_in_the_model():
  m, n = _matrices(1), _matrices(2)
  p, q = _params(1), _params(2)
  add = lambda a, b: jax.tree.map(jnp.add, a, b)
  close = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-10), a, b
  )
  close(_apply(add(p, q), m), add(_apply(p, m), _apply(q, m)))
  leaves = {x: p[x] for x in ('b', 'q', 's', 't', 'u')}
  one = _apply(leaves, m)
  two = _apply(leaves, m | {'q:1.1': n['q:1.1']})
  both = _apply(leaves, m | {'q:1.1': m['q:1.1'] + n['q:1.1']})
  for x in 'bqt':
    close(both[x], one[x] + two[x])


def test_jit_vmap_and_gradient():
  m = jax.tree.map(lambda *x: jnp.stack(x), _matrices(1), _matrices(2))
  p = jax.tree.map(lambda *x: jnp.stack(x), _params(1), _params(2))
  mapped = jax.jit(jax.vmap(_apply))(p, m)
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
  jax.tree.map(
    lambda x, y: close(x[1], y), mapped, _apply(_params(2), _matrices(2))
  )
  # The gain of a unit of the plain group r: rows of products with the target.
  target = jnp.asarray(np.random.default_rng(5).normal(size=(23, 6)))
  loss = lambda x: jnp.sum(
    _apply({'f': p['f'][0]}, _matrices(1) | {'r:0': x})['f'][:5] * target[:5]
  )
  wanted = np.asarray(target[:5]).T @ np.asarray(p['f'][0][:5])
  close(jax.grad(loss)(_matrices(1)['r:0']), wanted)


def test_rounding_inverts_hardening():
  g = align.random(SYMMETRY, jax.random.key(7), gauges=('permutation',))
  matrices = _soft.harden(g, symmetry=SYMMETRY)
  noise = jax.tree.map(lambda x: 0.1 * x.astype(np.float32), _matrices(3))
  blurred = jax.tree.map(jnp.add, matrices, noise)
  found = _soft.round(blurred, symmetry=SYMMETRY, solver=align.assign_scipy)
  jax.tree.map(np.testing.assert_array_equal, found, g)
  assert all(table.dtype == np.int32 for table in found.values())


def test_integer_leaves_are_unchanged_and_dtypes_are_kept():
  params = {'r': jnp.ones((6, 6), jnp.bfloat16), 'b': jnp.arange(12)}
  matrices = jax.tree.map(lambda x: x.astype(np.float32), _matrices(1))
  found = _apply(params, matrices)
  assert found['r'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(found['b'], np.arange(12))
