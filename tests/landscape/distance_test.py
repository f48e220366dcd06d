import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import landscape, tree


def test_reduction_literally():
  a = {'w': jnp.asarray([3.0, 0.0]), 'n': jnp.asarray(1)}
  b = {'w': jnp.asarray([0.0, 4.0]), 'n': jnp.asarray(9)}
  moved = {'w': jnp.asarray([4.0, 0.0]), 'n': jnp.asarray(9)}
  assert landscape.l2_reduction(a, b, moved) == 0.8  # from 5 to 1
  assert landscape.l2_reduction(a, b, b) == 0.0
  assert landscape.l2_reduction(a, b, a) == 1.0
  np.testing.assert_allclose(landscape.l2_reduction(a, moved, b), -4.0)
  assert landscape.l2_reduction(a, a, a) == 0.0


def test_reduction_against_numpy_and_under_jit():
  draw = np.random.RandomState(0)
  a, b, c = ({'w': draw.randn(4, 3), 'v': draw.randn(5)} for _ in range(3))
  flat = lambda x: np.concatenate([x['v'], x['w'].ravel()])
  far, near = (np.linalg.norm(flat(a) - flat(x)) for x in (b, c))
  found = landscape.l2_reduction(a, b, c)
  assert found.dtype == 'float64'
  np.testing.assert_allclose(found, (far - near) / far)
  jitted = jax.jit(landscape.l2_reduction)(a, b, c)
  np.testing.assert_allclose(jitted, (far - near) / far)
  assert jax.jit(landscape.l2_reduction)(a, a, a) == 0.0


def test_chosen_leaves_and_leaves_on_demand():
  stored = tree.Stored(lambda: np.asarray([3.0]), (1,), np.dtype('float64'))
  a = {'w': stored, 'mean': jnp.asarray([100.0])}
  b = {'w': jnp.asarray([1.0]), 'mean': jnp.asarray([-100.0])}
  c = {'w': jnp.asarray([2.0]), 'mean': jnp.asarray([-100.0])}
  assert landscape.l2_reduction(a, b, c, leaves='^w$') == 0.5
  assert landscape.l2_reduction(a, b, c) < 1e-3


def test_variance_ratio_literally():
  a = {'x': jnp.asarray([1.0, 3.0]), 'y': [jnp.zeros((2, 2))]}
  b = {'x': jnp.asarray([3.0, 1.0]), 'y': [jnp.zeros((2, 2))]}
  merged = {'x': jnp.asarray([1.0, 2.0]), 'y': [jnp.zeros((2, 2))]}
  found = landscape.variance_ratio(merged, a, b)
  assert found['x'] == 0.75
  assert found['y'][0] == 1.0
  alone = landscape.variance_ratio(merged, a)
  assert alone['x'] == 0.75
  other = landscape.variance_ratio(a, {**a, 'x': jnp.zeros(2)})
  assert other['x'] == jnp.inf


@pytest.mark.parametrize('correlation', [-1.0, 0.0, 0.4, 1.0])
def test_the_midpoint_of_units_of_correlation_c_has_ratio_half_one_plus_c(
  correlation,
):
  draw = np.random.RandomState(1)
  q = np.linalg.qr(draw.randn(100, 8))[0]
  shared, independent = q[:, :4], q[:, 4:]
  other = correlation * shared + np.sqrt(1 - correlation**2) * independent
  var = lambda z: {'layer': jnp.asarray((z**2).sum(0))}
  found = landscape.variance_ratio(
    var((shared + other) / 2), var(shared), var(other)
  )
  np.testing.assert_allclose(found['layer'], (1 + correlation) / 2, atol=1e-12)


def test_bad_arguments_are_named():
  w = {'w': jnp.ones(3)}
  with pytest.raises(ValueError, match="l2_reduction: leaf 'w' has shape"):
    landscape.l2_reduction(w, {'w': jnp.ones(4)}, w)
  with pytest.raises(ValueError, match="l2_reduction: leaf 'w' has shape"):
    landscape.l2_reduction(w, w, {'w': jnp.ones(4)})
  with pytest.raises(ValueError, match='variance_ratio: no ends given'):
    landscape.variance_ratio(w)
  with pytest.raises(ValueError, match=r"layer 'w' has variances \(4,\) in"):
    landscape.variance_ratio(w, w, {'w': jnp.ones(4)})
  with pytest.raises(ValueError, match='variance_ratio: end 1: no leaf'):
    landscape.variance_ratio(w, w, {'v': jnp.ones(3)})
