"""Tests of the oracle on correct and wrong symmetries written by hand."""

import jax
import numpy as np
import pytest

from tests.align.find import harness, oracle
from wsl import align, tree

F = align.Factor


def mlp():
  factors = (
    F('h', 7),
    F('i', 5, 'an input'),
    F('k', 6),
    F('o', 4, 'an output'),
  )
  leaves = {
    'params/Dense_0/bias': ['h'],
    'params/Dense_0/kernel': ['i', 'h'],
    'params/Dense_1/bias': ['k'],
    'params/Dense_1/kernel': ['h', 'k'],
    'params/Dense_2/bias': ['o'],
    'params/Dense_2/kernel': ['k', 'o'],
  }
  axes = {n: tuple(((a,),) for a in labels) for n, labels in leaves.items()}
  return align.Symmetry(factors, tuple(axes.items()))


def heads():
  """Three heads with units of 4 (queries, keys) and 2 (values) in each."""
  factors = (
    F('i', 3, 'an input'),
    F('h', 3),
    F('e', 4, outer=('h',)),
    F('v', 2, outer=('h',)),
    F('o', 2, 'an output'),
  )
  i, o = (('i',),), (('o',),)
  key, value = (('h', 'e'),), (('h', 'v'),)
  axes = {'k': (i, key), 'o': (value, o), 'q': (i, key), 'v': (i, value)}
  return align.Symmetry(factors, tuple(axes.items()))


BY_HAND = {'mlp': mlp, 'heads': heads}
every = pytest.mark.parametrize('name', BY_HAND)


@every
def test_the_correct_symmetry_passes(name):
  symmetry = BY_HAND[name]()
  harness.assert_sound(name, symmetry)
  wanted = harness.log10_order(name)
  np.testing.assert_allclose(symmetry.log10_order, wanted, rtol=1e-12)


@every
def test_every_changed_label_fails(name):
  symmetry = BY_HAND[name]()
  for group in symmetry.groups:
    for leaf, place in oracle.places(symmetry)[group.name]:
      wrong = oracle.split_label(symmetry, leaf, place)
      with pytest.raises(AssertionError):
        harness.assert_sound(name, wrong, ['float64'])


@every
def test_every_dropped_pin_fails(name):
  symmetry = BY_HAND[name]()
  for factor in symmetry.factors:
    if factor.pinned:
      wrong = oracle.unpin(symmetry, factor.name)
      with pytest.raises(AssertionError):
        harness.assert_sound(name, wrong, ['float64'])


def test_units_exchanged_between_heads_fail():
  whole = F('h', 12)
  right = heads()
  axes = tuple(
    (n, tuple((('h',),) if a == (('h', 'e'),) else a for a in axes))
    for n, axes in right.axes
  )
  factors = (*(f for f in right.factors if f.name in 'io'), whole)
  values = F('h2', 3), F('v', 2, outer=('h2',))
  axes = tuple(
    (n, tuple((('h2', 'v'),) if a == (('h', 'v'),) else a for a in axes))
    for n, axes in axes
  )
  wrong = align.Symmetry((*factors, *values), axes)
  with pytest.raises(AssertionError):
    harness.assert_sound('heads', wrong, ['float64'])


@every
def test_index_arithmetic_equals_permute(name):
  symmetry = BY_HAND[name]()
  params = harness.build(name).params
  g = align.random(symmetry, jax.random.key(0), gauges=('permutation',))
  moved = align.permute(params, g, symmetry=symmetry)
  wanted = oracle.move(params, g, symmetry)
  jax.tree.map(np.testing.assert_array_equal, moved, wanted)
  assert any(
    not np.array_equal(x, tree.named(params)[n])
    for n, x in tree.named(moved).items()
  )
