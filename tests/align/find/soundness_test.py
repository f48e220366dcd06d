"""The symmetries of the zoo are sound, complete and tight.

Sound: random elements of the group leave the output for random parameters
unchanged. Complete: the order of the group is the one known from theory. Tight:
the output changes if any label or pin is dropped.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.find import harness, oracle, zoo
from wsl import align, tree

every_model = pytest.mark.parametrize('name', zoo.ZOO)
# Wreaths, sums, square maps, stacked layers, and trees of other libraries.
VARIED = (
  'dense_net',
  'equinox_attention',
  'fused_reshape',
  'group_norm',
  'llama',
  'lstm_concatenated',
  'nnx_attention',
  'scan_transformer',
  'soft_moe',
)
# The smallest relative change that counts as one; rounding is below 1e-12.
SEEN = 1e-7


@every_model
def test_random_elements_keep_the_output(name):
  dtypes = ('float64', 'float32') if name in VARIED else ('float64',)
  harness.assert_sound(name, harness.symmetry_of(name), dtypes)


@every_model
def test_the_order_is_that_of_theory(name):
  found = harness.symmetry_of(name).log10_order
  assert np.isclose(found, harness.log10_order(name), rtol=1e-9)


@every_model
def test_every_axis_is_accounted_for(name):
  symmetry = harness.symmetry_of(name)
  leaves = tree.named(harness.build(name).params)
  assert list(symmetry.leaf) == list(leaves)
  for leaf, x in leaves.items():
    widths = [
      sum(int(np.prod([f.size for f in segment])) for segment in axis)
      for axis in symmetry.plan(leaf)
    ]
    assert widths == list(x.shape), leaf
  occurring = oracle.places(symmetry)
  assert len(symmetry.factor) == len(symmetry.factors)
  for factor in symmetry.factors:
    assert factor.size > 1
    assert occurring[factor.name]
    # A reason is a phrase, not a code.
    assert not factor.pinned or len(factor.pinned.split()) > 1, factor


@every_model
def test_outer_factors_surround_the_inner_ones(name):
  symmetry = harness.symmetry_of(name)
  for leaf in symmetry.leaf:
    for block in oracle.blocks(symmetry.plan(leaf)):
      names = [f.name for f in block]
      for factor in block:
        for i, outer in enumerate(factor.outer):
          assert names.count(outer) == 1, (leaf, factor)
          assert {*symmetry.factor[outer].outer} <= {*factor.outer[:i]}


@pytest.mark.parametrize('name', VARIED)
def test_permute_equals_index_arithmetic_and_inverts(name):
  params, symmetry = harness.build(name).params, harness.symmetry_of(name)
  rng = np.random.default_rng(1)
  g = {x.name: harness.draw(x, symmetry, rng) for x in symmetry.groups}

  def there_and_back(params, g):
    moved = align.permute(params, g, symmetry=symmetry)
    inverse = align.invert(g, symmetry=symmetry)
    return moved, align.permute(moved, inverse, symmetry=symmetry)

  moved, back = harness.quick(there_and_back, params, g)(params, g)
  wanted = oracle.move(params, g, symmetry)
  jax.tree.map(np.testing.assert_array_equal, moved, wanted)
  jax.tree.map(np.testing.assert_array_equal, back, params)


@every_model
def test_symmetry_survives_json(name):
  symmetry = harness.symmetry_of(name)
  assert align.from_json(align.to_json(symmetry)) == symmetry


@every_model
def test_each_label_is_needed(name):
  # Permuting one occurrence of a group alone changes the output.
  symmetry, blind = harness.symmetry_of(name), harness.build(name).blind
  params, run = harness.compiled(name)
  wanted, rng = run(params), np.random.default_rng(0)
  places = oracle.places(symmetry)
  for group in symmetry.groups:
    table = harness.draw(group, symmetry, rng)
    for leaf, place in places[group.name]:
      seen = leaf not in blind and f'{leaf}:{place[1]}' not in blind
      if seen and len(places[group.name]) > 1:
        changed = oracle.move_once(params, table, symmetry, leaf, place)
        assert harness.error(run(changed), wanted) > SEEN, (leaf, place)


@every_model
def test_permuting_a_pinned_factor_changes_the_output(name):
  # Otherwise a symmetry is missing.
  symmetry = harness.symmetry_of(name)
  params, run = harness.compiled(name)
  wanted = run(params)
  for factor in symmetry.factors:
    if factor.pinned:
      turn = {factor.name: np.roll(np.arange(factor.size), 1)}
      free = oracle.unpin(symmetry, factor.name)
      moved = run(oracle.move(params, turn, free))
      assert harness.error(moved, wanted) > SEEN, factor


@pytest.mark.parametrize('name', ['transformer', 'group_norm', 'lstm'])
def test_gradients_are_equivariant(name):
  model, symmetry = harness.build(name), harness.symmetry_of(name)
  # Orthogonal elements: gradients under scales are divided by them.
  kinds = ('permutation', 'sign', 'rotation')
  g = align.random(symmetry, jax.random.key(2), gauges=kinds)
  move = lambda p: align.permute(p, g, symmetry=symmetry)
  loss = lambda p: jnp.sum(jnp.sin(model.apply(p, *model.inputs)))
  slope = harness.quick(jax.grad(loss), model.params)
  there, here = slope(move(model.params)), move(slope(model.params))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
    there,
    here,
  )


def test_a_changed_label_is_noticed():
  symmetry = harness.symmetry_of('transformer')
  query = 'params/Block_1/MultiHeadDotProductAttention_0/query/kernel'
  for group in symmetry.groups:
    for leaf, place in oracle.places(symmetry)[group.name]:
      if leaf == query:
        wrong = oracle.split_label(symmetry, leaf, place)
        with pytest.raises(AssertionError):
          harness.assert_sound('transformer', wrong)


def test_an_unpinned_output_is_noticed():
  symmetry = harness.symmetry_of('mlp')
  (name,) = symmetry.leaf['params/Dense_2/kernel'][1][0]
  assert symmetry.factor[name].pinned
  with pytest.raises(AssertionError):
    harness.assert_sound('mlp', oracle.unpin(symmetry, name))


def test_a_wrong_dependence_on_heads_is_noticed():
  # Heads share the scales of keys, so their units have one order.
  symmetry = harness.symmetry_of('llama_key_norm')
  head, units = symmetry.leaf['layers/0/k'][1][0]
  assert symmetry.factor[units].outer == ()
  factor = symmetry.factor[units]._replace(outer=(head,))
  wrong = oracle.replace(symmetry, factor)
  tables = np.asarray([[0, 1, 2, 3], [1, 2, 3, 0]])
  params, run = harness.compiled('llama_key_norm')
  moved = params
  for leaf, place in oracle.places(symmetry)[units]:
    if leaf in ('layers/0/q', 'layers/0/k'):
      moved = oracle.move_once(moved, tables, wrong, leaf, place)
  assert harness.error(run(moved), run(params)) > SEEN
