import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import landscape, tree

A = {'w': jnp.asarray([0.0, 2.0]), 'b': jnp.asarray(1.0)}
B = {'w': jnp.asarray([4.0, 0.0]), 'b': jnp.asarray(5.0)}


def measures(p):
  return {
    'train': {'loss': p['w'].sum(), 'error': p['w'] > 1},
    'test': p['b'] ** 2,
  }


def test_path_of_a_pytree_of_metrics_literally():
  found = landscape.path(measures, A, B, points=3)
  assert found.t.tolist() == [0.0, 0.5, 1.0]
  assert found.values['train']['loss'].tolist() == [2.0, 3.0, 4.0]
  assert found.values['train']['error'].tolist() == [[0, 1], [1, 0], [1, 0]]
  assert found.values['train']['error'].dtype == 'float32'
  assert found.values['test'].tolist() == [1.0, 9.0, 25.0]


def test_path_under_jit_vmap_and_grad():
  run = functools.partial(landscape.path, measures, points=5)
  plain = run(A, B).values
  jitted = jax.jit(run)(A, B).values
  jax.tree.map(np.testing.assert_allclose, plain, jitted)
  two = jax.tree.map(lambda x, y: jnp.stack([x, y]), A, B)
  many = jax.vmap(run, (0, None))(two, B).values
  np.testing.assert_allclose(many['test'][0], plain['test'])
  np.testing.assert_allclose(many['test'][1], np.full(5, 25.0))
  slope = jax.grad(lambda a: run(a, B).values['train']['loss'].sum())(A)
  np.testing.assert_allclose(slope['w'], np.full(2, 2.5))


def test_a_point_is_edited_before_the_metric():
  double = lambda p, t: {**p, 'b': p['b'] * 2 + t}
  loss = lambda p: p['b']
  found = landscape.path(loss, A, B, points=3, edit=double)
  assert found.values.tolist() == [2.0, 6.5, 11.0]


def test_functions_that_cannot_be_traced():
  def edit(p, t):
    return {**p, 'b': jnp.asarray(float(p['b']) + float(t))}

  found = landscape.path(measures, A, B, points=3, edit=edit, traced=False)
  assert found.values['test'].tolist() == [1.0, 3.5**2, 36.0]
  assert found.values['train']['error'].dtype == 'float32'
  plain = landscape.path(measures, A, B, points=3, traced=False)
  scanned = landscape.path(measures, A, B, points=3)
  jax.tree.map(np.testing.assert_array_equal, plain, scanned)


def test_one_trace_for_all_points_and_leaves_on_demand():
  traces = []

  def loss(p):
    traces.append(1)
    return p['b']

  stored = tree.Stored(lambda: np.asarray(9.0), (), np.dtype('float64'))
  found = landscape.path(loss, {'b': stored}, {'b': jnp.asarray(1.0)}, points=9)
  assert len(traces) == 1
  assert found.values.tolist() == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_heights_literally():
  values = {
    'bump': jnp.asarray([0.0, 3.0, 2.0]),
    'slope': jnp.asarray([4.0, 2.0, 0.0]),
    'valley': jnp.asarray([1.0, -1.0, 1.0]),
    'two': jnp.asarray([[0.0, 1.0], [1.0, 1.0], [0.0, 3.0]]),
  }
  rise = landscape.heights(values)
  assert jax.tree.map(lambda x: x.tolist(), rise.above_mean) == {
    'bump': 2.0,
    'slope': 2.0,
    'two': [1.0, 1.0],
    'valley': 0.0,
  }
  assert jax.tree.map(lambda x: x.tolist(), rise.above_chord) == {
    'bump': 2.0,
    'slope': 0.0,
    'two': [1.0, 0.0],
    'valley': 0.0,
  }


def test_heights_on_a_grid_that_is_not_equidistant():
  t = jnp.asarray([0.0, 0.25, 1.0])
  values = jnp.asarray([0.0, 2.0, 4.0])
  assert landscape.heights(values, t=t).above_chord == 1.0
  assert landscape.heights(values).above_chord == 0.0


def test_barrier_equals_heights_of_path():
  wave = lambda p: {'x': jnp.sin(3 * p['w']).sum(), 'y': p['b'] ** 2}
  walked = landscape.path(wave, A, B, points=11)
  rise = landscape.heights(walked.values, t=walked.t)
  found = landscape.barrier(wave, A, B, points=11)
  again = (found.losses, found.above_mean, found.above_chord)
  for ours, theirs in zip((walked.values, *rise), again):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  y = np.sin(3 * np.linspace([0.0, 2.0], [4.0, 0.0], 11)).sum(1)
  chord = np.linspace(y[0], y[-1], 11)
  np.testing.assert_allclose(rise.above_chord['x'], (y - chord).max())
  np.testing.assert_allclose(rise.above_mean['x'], y.max() - y[[0, -1]].mean())


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match='path: points=1, expected at least 2'):
    landscape.path(measures, A, B, points=1)
  with pytest.raises(ValueError, match="path: leaf 'b' has shape"):
    landscape.path(measures, A, {**B, 'b': jnp.ones(3)})
  with pytest.raises(ValueError, match="values 'x' have 1 points, expected 2"):
    landscape.heights({'x': jnp.ones(1)})
  with pytest.raises(ValueError, match='values have 0 points'):
    landscape.heights(jnp.asarray(1.0))
  with pytest.raises(ValueError, match="'x' have 4 points, expected 3, as t"):
    landscape.heights({'x': jnp.ones(4)}, t=jnp.ones(3))
