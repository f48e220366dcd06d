"""Methods as a config writes them."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import merge_vision as configs
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


def test_a_merge_of_models_gets_all_of_them():
  spherical = {'weights': ((1.0, 2.0, 1.0),)}
  base, stack, found = merged('multislerp', {'multislerp': spherical})
  models = [
    jax.tree.map(lambda x, d, t=t: x + d[t], base, stack) for t in range(3)
  ]
  want = merge.multislerp(models, weights=[1.0, 2.0, 1.0], base=base)
  equal(deltas.apply(base, found), want)


def test_a_merge_within_a_merge_has_its_own_candidates():
  arguments = {'knots': {'method': 'ties'}, 'ties': {'density': (0.2, 0.5)}}
  (method,) = merge_methods.parse(['knots'], arguments, DEFAULT)
  assert [c['ties']['density'] for c in method.candidates] == [0.2, 0.5]
  base, stack = models()
  found = merge_methods.apply(method, method.candidates[1], base, stack, {})
  ties = lambda z: merge.ties(z, density=0.5)
  equal(found, merge.knots(stack, method=ties))
  with pytest.raises(ValueError, match=r"'knots': no 'tise'.*mean 'ties'"):
    merge_methods.parse(['knots'], {'knots': {'method': 'tise'}}, DEFAULT)


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('emr', {}),
    ('twins', {'density': 1.0, 'compress': 'magnitude'}),
    ('rmm', {'basis': 2, 'rank': 4}),
    ('tall_masks', {'threshold': 0.5}),
  ],
)
def test_a_family_has_a_member_for_each_task(name, arguments):
  _, stack, found = merged(name, {name: arguments})
  assert merge_methods.is_family(found)
  if name in ('twins', 'rmm'):  # both are exact here
    member = merge.materialize(found, 1)
    equal(member, jax.tree.map(lambda x: x[1], stack))
  assert not merge_methods.is_family(stack)


# Public functions of merge that a comparison of models of several tasks has no
# place for.
_NOT_COMPARED = {
  'steps of others': (
    *('trim', 'elect_sign', 'mean_nonzero', 'rescale', 'localize'),
    *('fold', 'materialize', 'fit_router', 'route', 'weighted_mean'),
  ),
  'of two models': ('slerp', 'nuslerp', 'nearswap', 'arcee_fusion'),
  'of checkpoints of one run': ('metric_weighted',),
  'streams of continual_merge': (
    *('running_mean', 'exponential_mean', 'order_sensitivity'),
  ),
  'of parameters that a search finds': ('layerwise',),
  'of LoRAs': ('cat',),
  'of one model': ('passthrough',),
}


def test_every_merge_is_compared_or_has_a_reason():
  public = {
    name
    for name, value in vars(merge).items()
    if inspect.isfunction(value) and not name.startswith('_')
  }
  methods = configs.get_config('digits').methods
  compared = {name for method in methods for name in method.split('+')}
  reasons = {name for names in _NOT_COMPARED.values() for name in names}
  assert not compared & reasons
  assert public == (compared | reasons) - {'by_depth'}
