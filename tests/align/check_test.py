"""``align.check`` names the group that breaks the symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align


def _apply(p, x):
  h = jnp.tanh(x @ p['a'] + p['b'][None])
  return jnp.tanh(h @ p['c']) @ p['d']


PARAMS = {
  'a': jnp.ones((3, 5)),
  'b': jnp.zeros(5),
  'c': jnp.ones((5, 4)),
  'd': jnp.ones((4, 2)),
}
X = jnp.asarray([[1.0, -2.0, 0.5]])
KEY = jax.random.key(0)


def test_a_true_symmetry_passes():
  symmetry = align.find_symmetry(_apply, PARAMS, X)
  report = align.check(symmetry, _apply, PARAMS, X, key=KEY)
  assert report.error < 1e-12
  assert sorted(report.errors) == ['a:1', 'all', 'c:1', 'every sign']
  shapes = jax.eval_shape(lambda: PARAMS)
  assert align.check(symmetry, _apply, shapes, X, key=KEY).error < 1e-12


def test_the_group_that_breaks_is_named():
  # Zero biases and equal weights would hide that b is not permuted with a.
  symmetry = align.find_symmetry(_apply, PARAMS, X)
  alone = align.Factor('b:0', 5, 'still')
  axes = tuple(
    (name, ((('b:0',),),) if name == 'b' else rows)
    for name, rows in symmetry.axes
  )
  wrong = align.Symmetry((*symmetry.factors, alone), axes)
  report = align.check(wrong, _apply, PARAMS, X, key=KEY)
  assert report.error > 1e-3
  assert report.errors['a:1'] > 1e-3
  assert report.errors['c:1'] < 1e-12


def test_dependent_groups_are_permuted_inside_outer_ones():
  def heads(p, x):
    return jnp.einsum(
      'bhd,hdo->bo', jnp.tanh((x @ p['q']).reshape(1, 2, 4)), p['o']
    )

  params = {'q': jnp.ones((3, 8)), 'o': jnp.ones((2, 4, 2))}
  symmetry = align.find_symmetry(heads, params, X)
  assert [g.outer for g in symmetry.groups] == [(), ('o:0',)]
  assert align.check(symmetry, heads, params, X, key=KEY).error < 1e-12


def test_integer_leaves_and_flags_stay_as_they_are():
  def apply(p, x, train):
    assert train is True
    return _apply(p, x) * p['n'].astype(x.dtype)

  params = PARAMS | {'n': jnp.asarray(3)}
  symmetry = align.find_symmetry(apply, params, X, True)
  report = align.check(symmetry, apply, params, X, True, key=KEY)
  assert report.error < 1e-12


def test_errors():
  symmetry = align.find_symmetry(_apply, PARAMS, X)
  less = {n: x for n, x in PARAMS.items() if n != 'b'}
  with pytest.raises(ValueError, match="no leaf 'b' as in the symmetry"):
    align.check(symmetry, _apply, less, X, key=KEY)
  nan = lambda p, x: jnp.log(-1.0 - jnp.square(_apply(p, x)))
  with pytest.raises(ValueError, match=r'check: .* returns NaN'):
    align.check(symmetry, nan, PARAMS, X, key=KEY)
  shapes = jax.eval_shape(lambda: PARAMS | {'n': jnp.asarray(3)})
  apply = lambda p, x: _apply(p, x) * p['n'].astype(x.dtype)
  symmetry = align.find_symmetry(apply, shapes, X)
  with pytest.raises(
    ValueError, match="check: leaf 'n' of params is not floating"
  ):
    align.check(symmetry, apply, shapes, X, key=KEY)


def test_permuting_on_the_host_equals_permute():
  from tests.align import permutation_test
  from wsl.align._check import on_host

  symmetry, params = permutation_test.SYMMETRY, permutation_test._params()
  g = align.random(symmetry, KEY)
  moved = align.permute(params, g, symmetry=symmetry)
  host = on_host.permute(params, g, symmetry)
  jax.tree.map(np.testing.assert_array_equal, moved, host)
