"""Curves between models, and their connectivity."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import align, landscape, train, tree

A = {'w': jnp.asarray([0.0, 2.0]), 'n': jnp.asarray([1, 2])}
B = {'w': jnp.asarray([4.0, 0.0]), 'n': jnp.asarray([1, 2])}
BENDS = np.array([[1.0, -3.0], [7.0, 5.0], [-2.0, 0.5]])
CURVE = landscape.Curve(A, {'w': jnp.asarray(BENDS), 'n': None}, B)
CORNERS = np.concatenate([[A['w']], BENDS, [B['w']]])


@jax.jit
def points(curve, t):
  return landscape.bezier(curve, t), landscape.polygon(curve, t)


@pytest.mark.parametrize('t', [0.0, 0.3, 0.5, 0.875, 1.0])
def test_points_against_numpy(t):
  smooth, broken = points(CURVE, t)
  # De Casteljau: repeated interpolation of neighbours.
  corners = CORNERS
  while len(corners) > 1:
    corners = (1 - t) * corners[:-1] + t * corners[1:]
  np.testing.assert_allclose(smooth['w'], corners[0], atol=1e-14)
  places = np.linspace(0, 1, 5)
  wanted = [np.interp(t, places, CORNERS[:, i]) for i in range(2)]
  np.testing.assert_allclose(broken['w'], wanted, atol=1e-14)
  assert smooth['n'].tolist() == broken['n'].tolist() == [1, 2]


def test_the_straight_curve_is_the_line():
  line = landscape.curve(A, B, bends=3)
  assert line.bends['n'] is None
  for t in (0.0, 0.25, 0.6):
    wanted = landscape.interpolate(A, B, t)['w']
    for found in points(line, t):
      np.testing.assert_allclose(found['w'], wanted, atol=1e-14)


def test_half_precision_is_rounded_once():
  half = [{'w': x['w'].astype(jnp.bfloat16)} for x in (A, B)]
  line = jax.jit(landscape.curve, static_argnames='bends')(*half, bends=2)
  assert line.bends['w'].dtype == 'float32'
  found = points(line, 0.3)[0]['w']
  assert found.dtype == 'bfloat16'
  wanted = np.asarray([1.2, 1.4]).astype(jnp.bfloat16)
  np.testing.assert_array_equal(found, wanted)


def test_trained_bends_avoid_a_barrier():
  """Two minima of a ring: the chord has a barrier, the arc has none."""
  a, b = ({'w': jnp.asarray([x, 0.1])} for x in (-1.0, 1.0))
  ring = lambda p, batch, key: jnp.square(jnp.sum(p['w'] ** 2) - 1.01)
  height = lambda p: ring(p, None, None)
  straight = landscape.curve(a, b, bends=2)
  optimizer = optax.adam(0.05)
  state, _ = train.advance(
    landscape.curve_loss(ring, a, b),
    train.start(straight.bends, optimizer=optimizer),
    jnp.zeros(1), optimizer=optimizer, steps=200, batch_size=1,
    key=jax.random.key(0),
  )  # fmt: skip
  bent = straight._replace(bends=state.params)
  before, after = (
    landscape.curve_path(height, curve, points=21).values
    for curve in (straight, bent)
  )
  assert landscape.connectivity(before) < -0.9
  assert abs(landscape.connectivity(after)) < 0.1
  assert landscape.heights(after).above_chord < 0.1
  np.testing.assert_allclose(after[np.array([0, -1])], 0.0, atol=1e-14)


def test_a_point_is_edited_before_the_metric():
  edit = lambda p, t: {**p, 'w': p['w'] + t}
  found = landscape.curve_path(
    lambda p: p['w'][0], CURVE, points=3, on=landscape.polygon, edit=edit,
    traced=False,
  )  # fmt: skip
  assert found.t.tolist() == [0.0, 0.5, 1.0]
  assert found.values.tolist() == [0.0, 7.5, 5.0]


def test_running_moments_are_estimated_on_the_curve():
  """The mean of w^2 x is not the average of those of the ends."""
  x = jnp.asarray([[1.0, 2.0], [3.0, 5.0]])
  features = lambda w, x: w[None] ** 2 * x
  ends = [
    {'w': end['w'], 'mean': features(end['w'], x).mean(0)} for end in (A, B)
  ]

  def reset(p, t):
    update = lambda mean, x: 0.9 * mean + 0.1 * features(p['w'], x).mean(0)
    return {**p, 'mean': align.reset_batch_stats(update, p['mean'], [x])}

  shift = lambda p: jnp.abs(features(p['w'], x).mean(0) - p['mean']).max()
  line = landscape.curve(*ends, bends=1)
  plain, mended = (
    landscape.curve_path(shift, line, points=3, edit=edit).values
    for edit in (None, reset)
  )
  assert plain[1] > 1
  np.testing.assert_allclose(mended, 0.0, atol=1e-12)


def test_connectivity_against_its_definition():
  draw = np.random.default_rng(0).normal(size=(6, 3))
  found = landscape.connectivity({'x': jnp.asarray(draw)})['x']
  for column, value in zip(draw.T, found):
    mean = (column[0] + column[-1]) / 2
    place = max(range(6), key=lambda i: abs(column[i] - mean))
    assert math.isclose(value, mean - column[place], abs_tol=1e-14)
  # Equal ends on a flat segment.
  flat = landscape.path(lambda p: p['w'].sum() ** 2, A, A, points=5).values
  assert landscape.connectivity(flat) == 0


def test_wrong_arguments_are_named():
  with pytest.raises(ValueError, match='curve: bends=0, expected at least 1'):
    landscape.curve(A, B, bends=0)
  other = {'w': jnp.zeros(3), 'n': B['n']}
  with pytest.raises(ValueError, match=r"curve: leaf 'w' has shape \(2,\)"):
    landscape.curve(A, other)
  with pytest.raises(ValueError, match='curve_path: points=1, expected at lea'):
    landscape.curve_path(lambda p: 0.0, CURVE, points=1)
  with pytest.raises(ValueError, match='connectivity: the values have 1 point'):
    landscape.connectivity(jnp.zeros(1))
  whole = {'n': jnp.arange(2)}
  with pytest.raises(ValueError, match='there is nothing to bend'):
    landscape.bezier(landscape.curve(whole, whole), 0.5)


def test_ends_on_demand():
  stored = tree.Stored(lambda: np.ones(2), (2,), np.dtype('float64'))
  line = landscape.curve({'w': stored}, {'w': jnp.full(2, 3.0)}, bends=1)
  assert line.bends['w'].tolist() == [[2.0, 2.0]]
