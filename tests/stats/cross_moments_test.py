"""Cross moments against numpy, for any split into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stats, types


def left(both):
  return [both['x']]


def right(both):
  return [both['y']]


def moments(x, y, *, cuts=(), similarity=True) -> types.CrossMoments:
  xs, ys = np.split(np.asarray(x), cuts), np.split(np.asarray(y), cuts)
  batches = [{'x': jnp.asarray(a), 'y': jnp.asarray(b)} for a, b in zip(xs, ys)]
  return stats.cross_moments(left, right, batches, similarity=similarity)[0, 0]


def draws(n=50, d=4, m=6, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((n, d)) + 3
  y = rng.standard_normal((n, m)) ** 2 + x[:, :1]
  return x, y


def assert_moments(found, means, x, y, **tolerances) -> None:
  """Compares moments with given means and the products of rows about them."""
  n = len(x)
  for value, expected in (
    (found.mean_x, means[0]),
    (found.mean_y, means[1]),
    (found.xx, x.T @ x / n),
    (found.xy, x.T @ y / n),
    (found.yy, y.T @ y / n),
  ):
    np.testing.assert_allclose(value, expected, **tolerances)


def test_moments_are_those_of_numpy() -> None:
  x, y = draws()
  found = moments(x, y)
  a, b = x - x.mean(0), y - y.mean(0)
  norms = [(a * a).sum(1), (b * b).sum(1)]
  assert_moments(found, (x.mean(0), y.mean(0)), a, b, rtol=0, atol=1e-11)
  fourth = (norms[0] ** 2, norms[0] * norms[1], norms[1] ** 2)
  for value, expected in zip(found.norms, fourth, strict=True):
    np.testing.assert_allclose(value, expected.mean(), rtol=0, atol=1e-11)
  assert found.count == 50


@pytest.mark.parametrize('cuts', [(25,), (10, 20, 30, 40)])
def test_the_split_into_batches_does_not_matter(cuts) -> None:
  x, y = draws()
  whole, cut = moments(x, y), moments(x, y, cuts=cuts)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_a_large_mean_holds_in_float32() -> None:
  x, y = draws(n=400)
  exact = moments(x, y)
  big = [np.asarray(v + 1e3, np.float32) for v in (x, y)]
  found = moments(*big, cuts=(200,))
  assert found.xx.dtype == jnp.float32
  np.testing.assert_allclose(found.xx, exact.xx, atol=2e-3)
  np.testing.assert_allclose(found.xy, exact.xy, atol=2e-3)
  np.testing.assert_allclose(found.norms, exact.norms, rtol=2e-3)
  # Sums that are not taken about a point lose the variance altogether.
  exact_xx = np.asarray(exact.xx)
  raw = big[0].T @ big[0] / np.float32(400)
  raw -= big[0].mean(0)[:, None] * big[0].mean(0)
  assert np.abs(raw - exact_xx).max() > 1e-2


def test_without_similarity_only_what_an_adapter_needs() -> None:
  found = moments(*draws(), similarity=False)
  assert found.yy is None
  assert found.norms is None
  np.testing.assert_allclose(found.xy, moments(*draws()).xy, rtol=1e-13)


def test_all_axes_but_the_last_are_rows() -> None:
  x, y = draws(n=24)
  image = moments(x.reshape(2, 3, 4, 4), y.reshape(2, 12, 6))
  np.testing.assert_allclose(image.xy, moments(x, y).xy, atol=1e-13)
  assert image.count == 24


def test_half_precision_is_summed_in_float32() -> None:
  x, y = draws()
  x = jnp.asarray(x, jnp.bfloat16)
  found = moments(x, np.asarray(y, np.float32))
  assert found.xy.dtype == jnp.float32
  exact = moments(np.asarray(x, np.float64), y)
  np.testing.assert_allclose(found.xx, exact.xx, atol=1e-5)


@pytest.mark.needs_devices(8)
def test_rows_on_eight_devices_are_summed_over_all_of_them() -> None:
  x, y = draws(n=48)
  mesh = jax.sharding.Mesh(jax.devices(), ('data',))
  spread = jax.sharding.NamedSharding(mesh, jax.P('data'))
  x, y = (jax.device_put(jnp.asarray(v), spread) for v in (x, y))
  found = stats.cross_moments(left, right, [{'x': x, 'y': y}])[0, 0]
  expected = moments(x, y)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_pairs_of_one_source_share_its_covariance_and_one_program() -> None:
  traces = []

  def source(x):
    traces.append(x.shape)
    return [x, 2 * x, 3 * x]

  def target(x):
    return [x[:, :1], x[:, :2]]

  data = [jnp.asarray(draws(n=10, seed=i)[0]) for i in range(4)]
  found = stats.cross_moments(source, target, data, pairs=[(2, 0), (2, 1)])
  assert sorted(found) == [(2, 0), (2, 1)]
  assert found[2, 0].xx is found[2, 1].xx
  assert found[2, 1].xy.shape == (4, 2)
  assert len(traces) == 2  # shapes, and the one program


def test_functions_that_bind_arrays_compile_once() -> None:
  traces = []

  def scaled(params, x):
    traces.append(x.shape)
    return [x * params]

  data = [jnp.ones((3, 2))]
  for value in (1.0, 2.0, 3.0):
    fn = jax.tree_util.Partial(scaled, jnp.asarray(value))
    found = stats.cross_moments(fn, fn, data)
    assert found[0, 0].mean_x.tolist() == [value, value]
  assert len(traces) <= 2 + 2 * 3


@pytest.mark.parametrize(
  ('batches', 'pairs', 'message'),
  [
    ([], None, 'no batches given'),
    ([jnp.ones((0, 2))], None, 'holds no examples'),
    (jnp.ones((4, 2)), None, r'pass \[inputs\]'),
    (
      [jnp.ones((4, 2))],
      [(1, 0)],
      r'no pair \(1, 0\): the source has features 0',
    ),
    ([jnp.ones((4, 2))], [], 'no pairs of features'),
    ([jnp.ones((4, 2))], [(0, 1)], r'pair \(0, 1\) have 4 and 2 rows'),
  ],
)
def test_bad_input(batches, pairs, message) -> None:
  source = lambda x: [x]
  target = lambda x: [x, x[:2]]
  with pytest.raises(ValueError, match=message):
    stats.cross_moments(source, target, batches, pairs=pairs)
