"""Separate experts and stacks of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import surgery, tree

FLAT = {
  f'layers.{i}.experts.{e}.{name}.weight': jnp.full(shape, 10 * i + e)
  for i in range(2)
  for e in range(3)
  for name, shape in {'w1': (4, 2), 'w2': (2, 4)}.items()
} | {'layers.0.gate.weight': jnp.ones((3, 2))}


def test_stacks_are_separate_experts():
  found = surgery.stack_experts(FLAT)
  assert {n: x.shape for n, x in found.items()} == {
    'layers.0.experts.w1.weight': (3, 4, 2),
    'layers.0.experts.w2.weight': (3, 2, 4),
    'layers.1.experts.w1.weight': (3, 4, 2),
    'layers.1.experts.w2.weight': (3, 2, 4),
    'layers.0.gate.weight': (3, 2),
  }
  stack = found['layers.1.experts.w1.weight']
  np.testing.assert_array_equal(stack[:, 0, 0], [10, 11, 12])
  back = surgery.unstack_experts(found)
  assert back.keys() == FLAT.keys()
  for name, x in FLAT.items():
    np.testing.assert_array_equal(back[name], x)


def test_nested_names_and_leaves_on_demand():
  nested = tree.nest(FLAT, separator='.')
  found = surgery.stack_experts(tree.defer(nested))
  assert tree.on_demand(found['layers']['1']['experts']['w2']['weight'])
  back = surgery.unstack_experts(found)
  assert jax.tree.structure(back) == jax.tree.structure(nested)


def test_missing_and_unequal_experts_are_named():
  lack = {n: x for n, x in FLAT.items() if n != 'layers.1.experts.1.w1.weight'}
  last = {n: x for n, x in FLAT.items() if n != 'layers.1.experts.2.w2.weight'}
  other = FLAT | {'layers.0.experts.1.w1.weight': jnp.ones((4, 3))}
  for params, message in (
    ({'a': jnp.ones(2)}, 'no leaf matches'),
    (lack, "'layers.1.experts.w1.weight' has no expert 1 of 3"),
    (last, "has 3 experts, 'layers.1.experts.w2.weight' 2"),
    (other, r"'layers.0.experts.w1.weight' have shapes \[\(4, 2\), \(4, 3\)\]"),
  ):
    with pytest.raises(ValueError, match=message) as error:
      surgery.stack_experts(params)
    assert len(str(error.value)) <= 200
  for experts, message in (('none/', 'no leaf matches'), ('exp', "with '.'")):
    with pytest.raises(ValueError, match=message):
      surgery.unstack_experts(FLAT, experts=experts)
