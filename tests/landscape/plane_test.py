"""Planes, random directions, surfaces and phases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import landscape, tree


def model(seed, dtype=np.float64):
  rng = np.random.default_rng(seed)
  return {
    'w': jnp.asarray(rng.normal(size=(3, 2)), dtype),
    'b': jnp.asarray(rng.normal(size=2), dtype),
    'n': jnp.arange(2),
  }


A, B, C = map(model, range(3))


def flat(params):
  return np.concatenate([np.ravel(params['w']), params['b']])


@jax.jit
def through(*corners):
  """Returns the plane, the coordinates of the corners, and their points."""
  found = landscape.plane(*corners)
  places = [landscape.plane_coordinates(found, corner) for corner in corners]
  return found, places, [landscape.plane_point(found, *at) for at in places]


def test_three_models_are_at_their_coordinates():
  found, places, points = through(A, B, C)
  u, v = flat(found.first), flat(found.second)
  np.testing.assert_allclose([u @ u, u @ v, v @ v], [1, 0, 1], atol=1e-14)
  for corner, point in zip((A, B, C), points):
    np.testing.assert_allclose(flat(point), flat(corner), atol=1e-13)
    assert point['n'].tolist() == [0, 1]
  length = np.linalg.norm(flat(B) - flat(A))
  np.testing.assert_allclose(places[1], [length, 0], atol=1e-13)
  assert places[2][1] > 0


def test_half_precision_models():
  half = [model(i, jnp.bfloat16) for i in range(3)]
  found, places, points = through(*half)
  assert found.first['w'].dtype == places[1][0].dtype == 'float32'
  assert points[2]['w'].dtype == 'bfloat16'
  np.testing.assert_array_equal(points[2]['w'], half[2]['w'])


def test_a_model_outside_has_the_coordinates_of_its_projection():
  # A basis that is not orthogonal.
  slanted = landscape.Plane(A, *({**x, 'n': None} for x in (B, C)))
  basis = np.stack([flat(slanted.first), flat(slanted.second)], 1)
  other = model(5)
  wanted = np.linalg.lstsq(basis, flat(other) - flat(A), rcond=None)[0]
  found = jax.jit(landscape.plane_coordinates)(slanted, other)
  np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_random_directions_have_the_norms_of_filters():
  kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
  params = {'w': A['w'], 'c': jnp.asarray(kernel), 'b': A['b']}
  draw = lambda p: landscape.random_plane(
    p, matrices=tree.flax, key=jax.random.key(0)
  )
  found = jax.jit(draw)(params)
  for direction in (found.first, found.second):
    for name, axes in (('w', 0), ('c', (0, 1, 2))):
      own, theirs = (
        np.sqrt(np.square(x[name]).sum(axes)) for x in (direction, params)
      )
      np.testing.assert_allclose(own, theirs, rtol=1e-12)
    assert not np.any(direction['b'])
  assert abs(found.first['w'] - found.second['w']).max() > 0.1
  with pytest.raises(ValueError, match="'c'"):
    landscape.random_plane(params, key=jax.random.key(0))


def test_a_surface_of_several_metrics():
  found = through(A, B, C)[0]
  x, y = np.linspace(-1, 2, 3), np.array([0.0, 1.5])
  run = lambda plane: landscape.surface(
    lambda p: {'loss': jnp.sum(p['w'] ** 2), 'bias': p['b']},
    plane, x=x, y=y, chunk=4, edit=lambda p: {**p, 'b': 2 * p['b']},
  )  # fmt: skip
  values = jax.jit(run)(found)
  assert values['bias'].shape == (3, 2, 2)
  u, v = found.first, found.second
  for i, j in np.ndindex(3, 2):
    point = [x[i] * np.asarray(u[k]) + y[j] * np.asarray(v[k]) for k in 'wb']
    point = [np.asarray(A[k]) + step for k, step in zip('wb', point)]
    np.testing.assert_allclose(values['loss'][i, j], (point[0] ** 2).sum())
    np.testing.assert_allclose(values['bias'][i, j], 2 * point[1])


def test_wrong_arguments_are_named():
  middle = landscape.interpolate(A, B, 0.3)
  with pytest.raises(ValueError, match='plane: the three models are on on'):
    landscape.plane(A, B, middle)
  with pytest.raises(ValueError, match='on one line'):
    landscape.plane(A, A, B)
  with pytest.raises(ValueError, match="plane: leaf 'b' has dtype float64"):
    landscape.plane(A, B, {**C, 'b': C['b'].astype(jnp.float32)})
  flat_plane = landscape.Plane(A, A, B)
  with pytest.raises(ValueError, match=r'surface: y has shape \(\), expected'):
    landscape.surface(lambda p: 0.0, flat_plane, x=[0.0], y=1.0)
  with pytest.raises(ValueError, match='surface: chunk=0, expected at least 1'):
    landscape.surface(lambda p: 0.0, flat_plane, x=[0.0], y=[1.0], chunk=0)


def test_phases_of_every_combination():
  metrics = [(2.0, 0.5), (-1.0, 0.0, 1.0), (0.2, 0.8)]
  rows = np.array([*itertools.product(*metrics), (0.1, np.nan, 1.0)])
  label = jax.jit(
    lambda x: landscape.phases(*x, low_loss=0.5, barrier=0.1, similar=0.8)
  )
  for row, code in zip(rows, np.asarray(label(jnp.asarray(rows.T)))):
    loss, mc, cka = row
    if np.isnan(mc):
      assert code == -1
      continue
    wanted = ('I' if mc < 0 else 'II') if loss > 1 else 'III'
    if loss < 1 and mc >= 0:
      wanted = 'IV-B' if cka > 0.5 else 'IV-A'
    assert landscape.PHASES[code] == wanted
  with pytest.raises(ValueError, match=r'connectivity has shape \(2,\), but'):
    landscape.phases(
      jnp.zeros(3), jnp.zeros(2), jnp.zeros(3),
      low_loss=0.5, barrier=0.1, similar=0.8,
    )  # fmt: skip
