"""Balanced models: the smallest norm under scales and linear maps."""

import jax
import numpy as np
import pytest

from tests.align.gauges import networks as models
from tests.align.gauges.moved import (
  distance,
  element,
  host,
  move,
)
from wsl import align, tree
from wsl import models as language

KEY = jax.random.key(0)


def test_balanced_scales_are_geometric_means():
  (apply, params, x), *_ = models.BY_HAND['relu']
  symmetry = align.find_symmetry(apply, params, x)
  model = host(params)
  found = align.balance(model, symmetry=symmetry)
  into = np.square(model['a']).sum(0) + np.square(model['b'])
  out = np.square(model['c']).sum(1)
  (name,) = found.gauge
  np.testing.assert_allclose(found.gauge[name], (out / into) ** 0.25, 1e-13)
  a, b, c = (np.asarray(found.params[n]) for n in 'abc')
  np.testing.assert_allclose(
    np.square(a).sum(0) + np.square(b), np.square(c).sum(1), 1e-12
  )
  np.testing.assert_allclose(
    apply(found.params, x), apply(models.values(params), x), 1e-12
  )


@pytest.mark.parametrize(
  'name',
  ['attention', 'embedding', 'stream without norm', 'convolutions', 'reglu',
   'batch norm', 'rms stream with gains'],
)  # fmt: skip
def test_the_balanced_model_is_a_minimum(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  model = host(params)
  found = align.balance(model, symmetry=symmetry)
  assert not found.kept
  assert {symmetry.action[n].kind for n in found.gauge} <= {'scale', 'linear'}
  whole = align.identity(symmetry) | found.gauge
  balanced = move(model, whole, symmetry)
  again = align.balance(balanced, symmetry=symmetry)
  for table in again.gauge.values():
    one = np.ones(()) if table.ndim < 2 or name == 'convolutions' else None
    if one is None:
      one = np.eye(table.shape[-1])
    np.testing.assert_allclose(
      table, np.broadcast_to(one, table.shape), 0, 1e-9
    )
  # No element near the identity has a smaller norm, and the quadratic increase
  # is that of a minimum: of second order in the size of the element.
  if name in ('batch norm', 'rms stream with gains'):
    return  # scales with a constraint in place of a minimum
  norm = lambda p: sum(np.square(x).sum() for x in p.values())
  rng = np.random.default_rng(0)
  for size in (1e-1, 1e-3):
    near = {
      n: np.exp(size * rng.normal(size=x.shape))
      if symmetry.action[n].kind == 'scale'
      else np.eye(x.shape[-1]) + size * rng.normal(size=x.shape)
      for n, x in found.gauge.items()
    }
    moved = move(balanced, align.identity(symmetry) | near, symmetry)
    increase = norm(moved) - norm(balanced)
    assert 0 < increase < 300 * size**2 * norm(balanced)


def test_dead_units_are_balanced():
  (apply, params, x), *_ = models.BY_HAND['relu']
  symmetry = align.find_symmetry(apply, params, x)
  model = {n: x.copy() for n, x in host(params).items()}
  model['c'][1] = 0  # no minimum: the ingoing norm becomes 1
  model['a'][:, 2] = model['b'][2] = 0
  model['c'][2] = 0  # nothing to balance
  found = align.balance(model, symmetry=symmetry)
  (table,) = found.gauge.values()
  into = np.square(model['a']).sum(0) + np.square(model['b'])
  np.testing.assert_allclose(table[1], into[1] ** -0.5, 1e-12)
  assert table[2] == 1


def test_scales_that_share_a_factor_are_balanced():
  """Without phases, RoPE leaves scales of heads and of frequencies.

  Inverse numbers on all of both cancel: the Hessian of the norm is singular.
  """
  net = language.LanguageModel(5, width=8, depth=1, heads=2, hidden=4)
  tokens = jax.ShapeDtypeStruct((1, 3), np.int32)
  shapes = jax.eval_shape(net.init, KEY, tokens)
  kinds = ('scale',)
  symmetry = align.find_symmetry(net.apply, shapes, tokens, gauges=kinds)
  draw = np.random.default_rng(3).normal
  params = {n: draw(size=x.shape) for n, x in tree.named(shapes).items()}
  moved = move(params, element(symmetry, 1, kinds), symmetry)
  flat = symmetry.actions[0].powers[0].leaf
  assert sum(flat == p.leaf for a in symmetry.actions for p in a.powers) > 4
  first, second = (
    align.balance(x, symmetry=symmetry, gauges=kinds) for x in (params, moved)
  )
  assert not first.kept
  assert distance(host(first.params), host(second.params)) < 1e-12
  assert distance(params, host(second.params)) > 0.1
