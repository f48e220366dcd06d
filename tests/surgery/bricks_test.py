"""Bricks: values in and out, and nothing else touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, merge, surgery, tree

RNG = np.random.default_rng(0)
P = {
  'mlp': {
    'gate_up': jnp.asarray(RNG.normal(size=(3, 8)), jnp.bfloat16),
    'down': jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32),
  },
  'norm': jnp.asarray(RNG.normal(size=3), jnp.float32),
}
DOWN, GATE_UP = (np.asarray(P['mlp'][n]) for n in ('down', 'gate_up'))
INPUT, UNIT = align.Factor('x', 3, 'an input'), align.Factor('h', 4)
SYMMETRY = align.Symmetry(
  (INPUT, UNIT),
  (
    ('mlp/down', ((('h',),), (('x',),))),
    ('mlp/gate_up', ((('x',),), (('h',), ('h',)))),
    ('norm', ((('x',),),)),
  ),
)


def bits(x):
  return np.asarray(x).tobytes()


def test_a_brick_has_the_entries_of_its_units():
  brick = surgery.brick_of_units(SYMMETRY, [3, 1])
  found = surgery.retrieve_brick(P, brick)
  np.testing.assert_array_equal(found['mlp/down'], DOWN[[3, 1]])
  np.testing.assert_array_equal(found['mlp/gate_up'], GATE_UP[:, [3, 1, 7, 5]])
  assert sorted(found) == ['mlp/down', 'mlp/gate_up']


def test_an_update_changes_no_other_bit():
  brick = surgery.brick_of_units(SYMMETRY, [3, 1])
  values = jax.tree.map(lambda x: x + 1, surgery.retrieve_brick(P, brick))
  new = surgery.update_brick(P, brick, values)
  assert new['norm'] is P['norm']
  for name, axis, kept, changed in (
    ('down', 0, [0, 2], [1, 3]), ('gate_up', 1, [0, 2, 4, 6], [1, 3, 5, 7])
  ):  # fmt: skip
    old, now = P['mlp'][name], new['mlp'][name]
    assert now.dtype == old.dtype
    take = lambda x, i, axis=axis: np.take(np.asarray(x), i, axis)
    assert bits(take(now, kept)) == bits(take(old, kept))
    assert (take(now, changed) != take(old, changed)).all()
  again = surgery.update_brick(new, brick, surgery.retrieve_brick(P, brick))
  assert all(
    map(lambda a, b: bits(a) == bits(b), *map(jax.tree.leaves, (again, P)))
  )


def test_grown_units_stand_behind_each_part():
  brick = surgery.brick_of_units(SYMMETRY, [2])
  more = surgery.retrieve_brick(P, brick)
  new = surgery.grow_brick(P, brick, more)['mlp']
  np.testing.assert_array_equal(
    new['gate_up'], GATE_UP[:, [0, 1, 2, 3, 2, 4, 5, 6, 7, 6]]
  )
  np.testing.assert_array_equal(new['down'], DOWN[[0, 1, 2, 3, 2]])


def test_bricks_of_two_models_are_merged():
  other = jax.tree.map(lambda x: 3 * x, P)
  brick = surgery.brick_of_entries(P, 'down', [0], axis=-2)
  values = tree.stack([surgery.retrieve_brick(p, brick) for p in (P, other)])
  mean = merge.weighted_mean(values, [0.5, 0.5])
  new = surgery.update_brick(P, brick, mean)
  np.testing.assert_array_equal(new['mlp']['down'][0], 2 * P['mlp']['down'][0])


def test_leaves_on_demand_and_jit():
  brick = surgery.brick_of_units(SYMMETRY, [[0, 1], [2, 3]])
  now = surgery.retrieve_brick(P, brick)
  lazy = surgery.retrieve_brick(tree.defer(P), brick)
  assert tree.on_demand(lazy)
  traced = jax.jit(lambda p: surgery.retrieve_brick(p, brick))(P)
  for other in (tree.read(lazy), traced):
    assert all(bits(now[n]) == bits(other[n]) for n in now)
  assert now['mlp/down'].shape == (2, 2, 3)


def test_bad_bricks_are_named():
  brick = surgery.brick_of_units(SYMMETRY, [0])
  values = surgery.retrieve_brick(P, brick)
  stack = surgery.brick_of_units(SYMMETRY, [[0]])
  twice = align.Symmetry((UNIT,), (('w', ((('h',),), (('h',),))),))
  for call, message in (
    (lambda: surgery.retrieve_brick({'mlp': {}}, brick), "no leaf 'mlp/down'"),
    (lambda: surgery.update_brick(P, stack, values), 'a stack of bricks'),
    (lambda: surgery.update_brick(P, brick, {}), "no values for leaf 'mlp/d"),
    (
      lambda: surgery.update_brick(P, brick, values | {'mlp/down': np.ones(3)}),
      r'shape \(3,\), expected \(1, 3\)',
    ),
    (
      lambda: surgery.grow_brick(
        P, brick, values | {'mlp/gate_up': np.ones((3, 3))}
      ),
      r'shape \(3, 3\), expected',
    ),
    (lambda: surgery.brick_of_units(twice, [0]), "leaf 'w' has the units"),
    (lambda: surgery.brick_of_entries(P, 'none', [0]), 'no leaf matches'),
    (lambda: surgery.brick_of_entries(P, 'norm', [0], axis=1), 'no axis 1'),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert len(str(error.value)) <= 200
