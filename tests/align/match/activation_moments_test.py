"""Moments of activations, their gains, and nested assignments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.match.dependent_units import (
  F,
  HEADS,
  INNER,
  OUTER_OF,
  SYMMETRY,
  UNITS,
)
from wsl import align
from wsl.align import _nested_assignment
from wsl.align._activations import activation_moments
from wsl.align._gauges import views


def _assign(gains, symmetry):
  view = views.of(symmetry, ('permutation',))
  return _nested_assignment.assign(
    gains,
    start=view.identity(),
    outer_of=view.outer_of,
    solvers=view.solvers(align.assign_scipy),
  )


def _moments(x, y, sizes, name=UNITS):
  labels = activation_moments.einsum_labels(name, OUTER_OF)
  found, start = None, 0
  for size in sizes:
    rows = slice(start, start + size)
    found = activation_moments.accumulate(found, x[rows], y[rows], labels)
    start += size
  return found


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_streamed_gains_equal_those_of_all_rows(dtype):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 100, 5))
  x[:, 1] += 1000  # a large mean must not cost precision
  y[:, 2] = 7.5  # a constant
  y[:, 3] = 0
  x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
  found = _moments(x, y, [30, 50, 20])
  assert found.rows == 100
  a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
  rtol = 1e-12 if dtype == np.float64 else 1e-4
  np.testing.assert_allclose(
    activation_moments.gains(found, 'inner'),
    a.T @ b / 100,
    rtol=rtol,
    atol=rtol,
  )
  varying = [0, 1, 4]
  wanted = np.zeros((5, 5))
  corner = np.corrcoef(a.T, b[:, varying].T)[:5, 5:]
  wanted[:, varying] = corner
  np.testing.assert_allclose(
    activation_moments.gains(found, 'correlation'), wanted, atol=10 * rtol
  )
  distances = np.sqrt(((a.T[:, None] - b.T[None]) ** 2).sum(-1))
  np.testing.assert_allclose(
    activation_moments.gains(found, 'distance'), -distances, rtol=rtol
  )
  same = _moments(x, x, [30, 50, 20])
  diagonal = np.diag(activation_moments.gains(same, 'distance'))
  scale = np.linalg.norm(a - a.mean(0), axis=0)
  np.testing.assert_allclose(diagonal / scale, 0, atol=np.sqrt(rtol))


def test_distances_of_dependent_groups():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 20, 2, 3, 4))
  found = _moments(jnp.asarray(x), jnp.asarray(y), [15, 5], INNER)
  x, y = x[:, :, :, None, :, None], y[:, :, None, :, None]
  np.testing.assert_allclose(
    activation_moments.gains(found, 'distance'),
    -np.sqrt(((x - y) ** 2).sum(0)),
    rtol=1e-10,
  )


def test_dependent_groups_have_gains_for_every_pair_of_outer_indices():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 20, 2, 3, 4))
  found = _moments(jnp.asarray(x), jnp.asarray(y), [15, 5], INNER)
  wanted = np.einsum('rluj,rlok->luojk', x, y) / 20
  np.testing.assert_allclose(
    activation_moments.gains(found, 'inner'), wanted, atol=1e-12
  )


def test_nested_assignment_against_brute_force():
  rng = np.random.default_rng(2)
  outer = rng.normal(size=(2, 3, 3))
  inner = rng.normal(size=(2, 3, 3, 4, 4))
  found = _assign({HEADS: outer, INNER: inner}, SYMMETRY)
  np.testing.assert_array_equal(found[UNITS], np.arange(5))
  for layer in range(2):
    best = -np.inf
    for heads in itertools.permutations(range(3)):
      value = sum(outer[layer, u, o] for u, o in enumerate(heads))
      for u, o in enumerate(heads):
        gain = inner[layer, u, o]
        value += max(
          sum(gain[i, j] for i, j in enumerate(units))
          for units in itertools.permutations(range(4))
        )
      best = max(best, value)
    heads, units = found[HEADS][layer], found[INNER][layer]
    value = sum(outer[layer, u, heads[u]] for u in range(3)) + sum(
      inner[layer, u, heads[u], i, units[u, i]]
      for u in range(3)
      for i in range(4)
    )
    np.testing.assert_allclose(value, best, rtol=1e-12)


def test_gains_of_independent_outer_groups_are_averaged():
  symmetry = align.Symmetry(
    (F('w:0', 2), F('w:1', 3), F('w:2', 2, outer=('w:0', 'w:1'))),
    (('w', ((('w:0',),), (('w:1',),), (('w:2',),))),),
  )
  truth = align.random(symmetry, jax.random.key(1), gauges=('permutation',))
  rng = np.random.default_rng(3)
  x = rng.normal(size=(50, 2, 3, 2))
  back = align.invert(truth, symmetry=symmetry)
  y = np.stack(
    [
      align.permute({'w': jnp.asarray(r)}, truth, symmetry=symmetry)['w']
      for r in x
    ]
  )
  outer_of = views.of(symmetry, ('permutation',)).outer_of
  labels = activation_moments.einsum_labels('w:2', outer_of)
  moments = activation_moments.accumulate(
    None, jnp.asarray(x), jnp.asarray(y), labels
  )
  gains = activation_moments.gains(moments, 'inner')
  found = _assign({'w:2': gains}, symmetry)
  jax.tree.map(np.testing.assert_array_equal, found, back)
