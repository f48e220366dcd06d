import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import landscape, tree

A = {'w': jnp.asarray([0.0, 2.0]), 'b': [jnp.asarray(1.0)], 'n': jnp.asarray(3)}
B = {'w': jnp.asarray([4.0, 0.0]), 'b': [jnp.asarray(5.0)], 'n': jnp.asarray(7)}


@pytest.mark.parametrize(
  ('t', 'w', 'b'),
  [
    (0.0, [0.0, 2.0], 1.0),
    (0.25, [1.0, 1.5], 2.0),
    (1, [4.0, 0.0], 5.0),
    (-0.5, [-2.0, 3.0], -1.0),
  ],
)
def test_interpolate_literally(t, w, b):
  for fn in (landscape.interpolate, jax.jit(landscape.interpolate)):
    point = fn(A, B, t)
    assert point['w'].tolist() == w
    assert point['b'][0] == b
    assert point['n'] == 3


def test_interpolate_keeps_dtypes_and_computes_wider():
  a, b = jnp.asarray([1.0], 'bfloat16'), jnp.asarray([1.0078125], 'bfloat16')
  point = landscape.interpolate(a, b, 0.9)
  assert point.dtype == 'bfloat16'
  assert point[0] == b[0]  # in bfloat16, 0.1 a + 0.9 b rounds to a
  double = landscape.interpolate(jnp.zeros(1), jnp.ones(1), jnp.float32(0.5))
  assert double.dtype == 'float64'


def test_interpolate_under_vmap_grad_and_on_demand():
  many = jax.vmap(landscape.interpolate, (None, None, 0))(
    A, B, jnp.asarray([0.0, 0.5])
  )
  assert many['w'].tolist() == [[0.0, 2.0], [2.0, 1.0]]
  slope = jax.grad(lambda t: landscape.interpolate(A, B, t)['w'].sum())(0.3)
  np.testing.assert_allclose(slope, 2.0)
  stored = tree.Stored(lambda: np.ones(2), (2,), np.dtype('float64'))
  middle = landscape.interpolate({'w': stored}, {'w': jnp.zeros(2)}, 0.5)
  assert tree.on_demand(middle)
  assert tree.read(middle)['w'].tolist() == [0.5, 0.5]


def ends(first, last):
  return {'x': jnp.asarray(first)}, {'x': jnp.asarray(last)}


def test_barrier_of_a_bump_literally():
  # L(x) = 1 - x^2 + x between -1 and 1: at t the loss is 4t - 4t^2 + 2t - 1.
  loss = lambda p: 1 - p['x'] ** 2 + p['x']
  found = landscape.barrier(loss, *ends(-1.0, 1.0), points=5)
  assert found.t.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
  assert found.losses.tolist() == [-1.0, 0.25, 1.0, 1.25, 1.0]
  assert found.above_mean == 1.25
  assert found.above_chord == 1.0


def test_barrier_of_a_convex_loss_is_zero_over_the_chord_only():
  loss = lambda p: p['x'] ** 2
  found = landscape.barrier(loss, *ends(0.0, 2.0), points=3)
  assert found.losses.tolist() == [0.0, 1.0, 4.0]
  assert found.above_mean == 2.0  # the higher end minus the mean of the ends
  assert found.above_chord == 0.0


def test_both_definitions_agree_for_equal_ends():
  bump = lambda p: jnp.exp(-(p['x'] ** 2))
  found = landscape.barrier(bump, *ends(-2.0, 2.0), points=9)
  np.testing.assert_allclose(found.above_mean, found.above_chord)
  np.testing.assert_allclose(found.above_mean, 1 - np.exp(-4.0))
  valley = landscape.barrier(lambda p: -bump(p), *ends(-2.0, 2.0))
  assert valley.above_mean == valley.above_chord == 0.0


def test_the_barrier_is_symmetric():
  loss = lambda p: jnp.sin(3 * p['w']).sum() + p['b'][0] ** 2
  there = landscape.barrier(loss, A, B)
  back = landscape.barrier(loss, B, A)
  assert there.t.shape == (25,)
  np.testing.assert_allclose(there.losses, back.losses[::-1])
  np.testing.assert_allclose(there.above_mean, back.above_mean)
  np.testing.assert_allclose(there.above_chord, back.above_chord)


def test_the_ends_of_the_path_are_the_models():
  loss = lambda p: p['w'].sum()
  found = landscape.barrier(loss, A, B, points=4)
  assert found.losses[0] == loss(A)
  assert found.losses[-1] == loss(B)


def test_barrier_of_several_measures_under_jit_and_vmap():
  both = lambda p: jnp.stack([p['x'] ** 2, 1 - p['x'] ** 2])
  run = lambda a, b: landscape.barrier(both, a, b, points=3)
  found = jax.jit(run)(*ends(-1.0, 1.0))
  assert found.losses.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
  assert found.above_mean.tolist() == [0.0, 1.0]
  assert found.above_chord.tolist() == [0.0, 1.0]
  a, b = ends([-1.0, 0.0], [1.0, 0.0])
  assert jax.vmap(run)(a, b).above_mean.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_losses_are_float32_or_wider():
  a, b = jnp.zeros(1, 'bfloat16'), jnp.ones(1, 'bfloat16')
  assert landscape.barrier(jnp.sum, a, b).losses.dtype == 'float32'
  errors = lambda p: (p > 0.3).sum()
  found = landscape.barrier(errors, a, b, points=3)
  assert found.losses.dtype == 'float32'
  assert found.losses.tolist() == [0.0, 1.0, 1.0]
  assert found.above_chord == 0.5


def test_the_loss_is_traced_once_for_all_points():
  traces = []

  def loss(p):
    traces.append(1)
    return p['x']

  landscape.barrier(loss, *ends(0.0, 1.0), points=11)
  assert len(traces) == 1


W = jnp.zeros((2, 3))


@pytest.mark.parametrize(
  ('a', 'b', 'parts'),
  [
    ({'w': W}, {'w': W, 'v': W}, ["'v'", 'model a', 'model b']),
    ({'kernel': W}, {'kernels': W}, ["'kernel'", "did you mean 'kernels'?"]),
    ({'w': W}, {'w': W.T}, ["leaf 'w' has shape (2, 3) in a but (3, 2) in b"]),
    (
      {'w': W},
      {'w': W.astype('float32')},
      ["leaf 'w' has dtype float64 in a but float32 in b"],
    ),
    ([W], (W,), ['is a tuple', 'a list', 'tree.like']),
  ],
)
def test_differences_of_models_are_named(a, b, parts):
  with pytest.raises(ValueError) as error:
    landscape.interpolate(a, b, 0.5)
  assert str(error.value).startswith('interpolate: ')
  assert all(part in str(error.value) for part in parts)
  with pytest.raises(ValueError, match='barrier: '):
    landscape.barrier(lambda p: 0.0, a, b)


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match=r'interpolate: t has shape \(2,\)'):
    landscape.interpolate(A, B, jnp.zeros(2))
  with pytest.raises(ValueError, match='points=1, expected at least 2'):
    landscape.barrier(lambda p: 0.0, A, B, points=1)
