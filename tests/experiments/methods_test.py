"""Methods as a config writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._shared import merge_methods, suites
from wsl import deltas, merge, scale

DEFAULT = {'default': (0.5, 1.0)}


def models(tasks=3):
  keys = jax.random.split(jax.random.key(0), 2)
  names = ('block_0', 'block_1')
  base = {n: {'w': jax.random.normal(k, (4, 5))} for n, k in zip(names, keys)}
  stack = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(1), (tasks, *x.shape)), base
  )
  return base, stack


def merged(name, arguments, tasks=3, **supplied):
  (method,) = merge_methods.parse([name], arguments, DEFAULT)
  base, stack = models(tasks)
  result = merge_methods.apply(
    method, method.candidates[0], base, stack, supplied
  )
  return base, stack, result


def equal(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), a, b)


def test_every_combination_is_a_candidate():
  arguments = {
    'dare': {'rate': (0.1, 0.5, 0.9)},
    'ties': {'density': [0.2, 0.5], 'scope': 'leaf'},
  }
  (method,) = merge_methods.parse(['dare+ties'], arguments, DEFAULT)
  assert [call.__name__ for call in method.calls] == ['dare', 'ties']
  assert len(method.candidates) == 6
  assert method.candidates[1] == {
    'dare': {'rate': 0.1},
    'ties': {'density': 0.5, 'scope': 'leaf'},
  }
  assert method.coefs == (0.5, 1.0)
  assert method.statistics == ()


def test_functions_are_applied_from_left_to_right():
  key = jax.random.key(7)
  _, stack, found = merged('dare+sum', {'dare': {'rate': 0.5}}, key=key)
  equal(found, merge.sum(merge.dare(stack, rate=0.5, key=key)))
  band = {'density': 0.5, 'outliers': 0.1}
  _, stack, found = merged('breadcrumbs+sum', {'breadcrumbs': band})
  equal(found, merge.sum(merge.breadcrumbs(stack, **band)))
  lines = {'depth': r'block_(\d+)/', 'start': 0.2, 'end': 1.0}
  _, stack, found = merged('sum+by_depth', {'by_depth': lines})
  equal(found, scale.by_depth(merge.sum(stack), **lines))


def test_a_stream_runs_over_the_models():
  _, stack, found = merged('trim+running_mean', {'trim': {'density': 0.5}})
  equal(found, merge.mean(merge.trim(stack, density=0.5)))


def test_functions_of_models_get_the_examples_of_their_kind():
  arguments = {
    'regmean_plus': {'shrink': 0.9},
    'frank_wolfe': {'steps': 1},
  }
  names = ('mean', 'regmean_plus', 'frank_wolfe')
  found = merge_methods.parse(names, arguments, DEFAULT)
  assert [m.data for m in found] == ['none', 'unlabelled', 'labelled']
  base, stack = models()
  examples = suites.Examples(jnp.ones((3, 2, 4)), jnp.ones((3, 2)), None)
  functions = {
    'blocks': ('block_0',),
    'apply_fn': lambda params, x: x @ params['block_0']['w'],
    'loss_fn': lambda params, batch: (
      jnp.sum(params['block_1']['w']) + batch.y[0]
    ),
  }
  for method in found[1:]:
    merge_methods.apply(
      method,
      method.candidates[0],
      base,
      stack,
      {'examples': examples},
      functions,
    )


def test_slerp_goes_between_two_models():
  base, stack, found = merged('slerp', {'slerp': {'t': 0.25}}, tasks=2)
  a, b = (
    jax.tree.map(lambda x, d, t=t: x + d[t], base, stack) for t in range(2)
  )
  equal(deltas.apply(base, found), merge.slerp(a, b, t=0.25))
  (method,) = merge_methods.parse(['slerp'], {'slerp': {'t': 0.5}}, DEFAULT)
  with pytest.raises(ValueError, match='takes 2 models, there are 3'):
    merge_methods.check(method, base, 3, {})


def test_statistics_are_asked_for_by_their_argument_name():
  names = ['regmean', 'mean', 'fisher']
  found = merge_methods.parse(names, {'regmean': {'shrink': 0.9}}, DEFAULT)
  assert [m.statistics for m in found] == [('grams',), (), ('fishers',)]
  assert merge_methods.statistics(found) == ['fishers', 'grams']


def test_what_a_method_says_comes_with_its_place():
  base, _ = models()
  arguments = {'iso_c': {'matrices': 'nothing'}}
  (method,) = merge_methods.parse(['iso_c'], arguments, DEFAULT)
  with pytest.raises(
    ValueError, match=r"^methods: 'iso_c': iso_c: matrices: no leaf matches"
  ):
    merge_methods.check(method, base, 3, {})
  assert jnp.isfinite(base['block_0']['w']).all()
