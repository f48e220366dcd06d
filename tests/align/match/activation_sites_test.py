"""Activation sites: activations are permuted with the units of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.find import zoo
from wsl import align
from wsl.align._activations import activation_sites


def _expected(x, group, g, symmetry):
  """Permutes activations ``[rows, *outer, size]`` like a leaf."""
  names = (*group.outer, group.name)
  factors = tuple(symmetry.factor[name] for name in names)
  axes = (((('rows',),), *(((name,),) for name in names)),)
  rows = align.Factor('rows', len(x), 'rows')
  small = align.Symmetry((rows, *factors), (('x', axes[0]),))
  tables = {name: g[name] for name in names if name in g}
  return align.permute({'x': x}, tables, symmetry=small)['x']


@pytest.mark.parametrize(
  'name', ['mlp', 'scan_transformer', 'fused_reshape', 'dense_net', 'lstm']
)
def test_activations_are_permuted_with_their_units(name):
  model = zoo.build(name)
  symmetry = align.find_symmetry(model.apply, model.params, *model.inputs)
  activations = jax.jit(
    lambda p: activation_sites.activations(
      symmetry, model.apply, p, *model.inputs
    )
  )
  g = align.random(symmetry, jax.random.key(0), gauges=('permutation',))
  original = activations(model.params)
  permuted = activations(align.permute(model.params, g, symmetry=symmetry))
  assert list(original) == [group.name for group in symmetry.groups]
  for group in symmetry.groups:
    x = original[group.name]
    assert x.shape[1:] == symmetry.table_shape(group.name)
    assert np.std(x) > 0
    wanted = _expected(x, group, g, symmetry)
    np.testing.assert_allclose(
      permuted[group.name], wanted, rtol=1e-4, atol=1e-6
    )


def test_the_site_of_hidden_units_is_after_the_nonlinearity():
  apply = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
  rng = np.random.default_rng(0)
  params = {'a': rng.normal(size=(3, 4)), 'b': rng.normal(size=(4, 2))}
  x = jnp.asarray(rng.normal(size=(5, 3)))
  symmetry = align.find_symmetry(apply, params, x)
  found = activation_sites.activations(symmetry, apply, params, x)
  np.testing.assert_allclose(found['a:1'], np.tanh(x @ params['a']))


def test_layers_of_a_scan_are_stacked():
  def apply(p, x):
    step = lambda h, w: (h + jnp.tanh(h @ w[0]) @ w[1], None)
    return jax.lax.scan(step, x @ p['a'], (p['u'], p['v']))[0] @ p['b']

  rng = np.random.default_rng(0)
  shapes = {'a': (3, 4), 'b': (4, 2), 'u': (6, 4, 5), 'v': (6, 5, 4)}
  p = {n: jnp.asarray(rng.normal(size=s)) for n, s in shapes.items()}
  x = jnp.asarray(rng.normal(size=(7, 3)))
  symmetry = align.find_symmetry(apply, p, x)
  found = activation_sites.activations(symmetry, apply, p, x)
  h, hidden = x @ p['a'], []
  for u, v in zip(p['u'], p['v']):
    hidden.append(jnp.tanh(h @ u))
    h = h + hidden[-1] @ v
  np.testing.assert_allclose(found['u:2'], jnp.stack(hidden, 1), rtol=1e-9)


def test_a_symmetry_of_another_function_is_refused():
  apply = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  other = align.Symmetry((align.Factor('z:0', 4),), (('z', ((('z:0',),),)),))
  with pytest.raises(ValueError, match="has no group 'z:0'"):
    activation_sites.activations(other, apply, params, jnp.ones((1, 3)))
