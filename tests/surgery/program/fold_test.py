"""FoldGPT, and residual blocks turned into parallel branches."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import stitch, surgery

DEPTH = 4
X = np.random.default_rng(1).normal(size=(6, 3))


def same(p, h):
  return h


def linear(p, h):
  return h + h @ p


def network(scale=1.0):
  rng = np.random.default_rng(0)
  blocks = jnp.asarray(scale * rng.normal(size=(DEPTH, 3, 3)))
  return stitch.Segmented(
    {'embed': {}, 'blocks': blocks, 'head': {}}, same, linear, same
  )


def listed(model):
  params = {**model.params, 'blocks': tuple(model.params['blocks'])}
  return stitch.Segmented(params, same, (linear,) * DEPTH, same)


def by_hand(gates):
  h = X
  for gate, block in zip(gates, np.asarray(network().params['blocks'])):
    h = h + gate * (h @ block)
  return h


def test_gates_weight_the_branches():
  gates = np.asarray([1.0, 0.0, 0.5, 2.0])
  for model in (network(), listed(network())):
    found = surgery.gated_apply(model, gates, X)
    np.testing.assert_allclose(found, by_hand(gates), rtol=1e-12)
  with pytest.raises(ValueError, match=r'gates \[3\]: expected one for each'):
    surgery.gated_apply(network(), gates[:3], X)


def loss_fn(outputs, batch):
  return jnp.mean((outputs - batch[1]) ** 2)


def test_gates_rank_blocks_by_what_they_contribute():
  # The target is the network without block 1, and block 3 hardly matters.
  blocks = network().params['blocks'].at[3].multiply(1e-3)
  model = stitch.Segmented(
    {'embed': {}, 'blocks': blocks, 'head': {}}, same, linear, same
  )
  target = surgery.gated_apply(model, np.asarray([1.0, 0.0, 1.0, 1.0]), X)
  gates = surgery.block_gates(
    model,
    loss_fn,
    [(X, target)] * 80,
    optimizer=optax.adam(0.05),
    keep=0.5,
  )
  assert sorted(np.argsort(gates)[:2]) == [1, 3]
  assert np.all(gates[[0, 2]] > 0.9)
  program = surgery.fold(gates, remove=2, group=1)
  assert [x.sources[0] for x in program.layers] == [0, 2]


def test_nothing_removed_in_groups_of_one_is_the_network():
  program = surgery.fold(np.ones(4), remove=0, group=1)
  assert program == surgery.program_of(4, range(4))


def test_groups_share_the_weights_of_their_first_block():
  gates = [0.5, 0.9, 0.1, 0.8, 0.7, 0.6]
  program = surgery.fold(gates, remove=1, group=2, untied='norm')
  found = [(x.sources[0], x.tied, x.own) for x in program.layers]
  wanted = [(0, 0, 0), (0, 0, 1), (3, 1, 3), (3, 1, 4), (5, None, None)]
  assert found == wanted
  params = {
    f'block_{i}': {'w': np.full((4, 4), i), 'norm': np.full(4, i)}
    for i in range(6)
  }
  tied = surgery.tie(params, program, blocks=r'block_(\d+)/')
  # The parameters: three blocks, and norms of the layers that share one.
  sizes = [sum(x.size for x in block.values()) for block in tied.shared]
  assert sizes == [20, 20, 20]
  norms = [x.size for own in tied.own for x in own.values()]
  assert norms == [4, 4]  # the first layer of a group has those of its block
  new = surgery.untie(tied)
  assert [int(new[f'block_{i}']['norm'][0]) for i in range(5)] == [
    0,
    1,
    3,
    4,
    5,
  ]
  assert [int(new[f'block_{i}']['w'][0, 0]) for i in range(5)] == [
    0,
    0,
    3,
    3,
    5,
  ]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'gates': [1.0, np.nan]}, r'gates \[2\]: expected a finite'),
    ({'remove': 2}, 'remove=2'),
    ({'group': 0}, 'group=0'),
  ],
)
def test_arguments_of_fold_are_checked(arguments, message):
  arguments = {'gates': [1.0, 2.0], 'remove': 0, 'group': 1, **arguments}
  gates = arguments.pop('gates')
  with pytest.raises(ValueError, match=message):
    surgery.fold(gates, **arguments)


def test_gates_need_a_share_of_blocks():
  with pytest.raises(ValueError, match='keep=2'):
    surgery.block_gates(
      network(), loss_fn, [(X, X)], optimizer=optax.sgd(0.1), keep=2
    )


@pytest.mark.parametrize('groups', [[(0, 2), (2, 4)], [(0, 1), (1, 4)]])
def test_parallel_branches_have_one_input(groups):
  wanted, blocks = X, np.asarray(network().params['blocks'])
  for start, stop in groups:
    wanted = wanted + sum(wanted @ block for block in blocks[start:stop])
  for model in (network(), listed(network())):
    shallow = surgery.collapse(model, groups=groups)
    assert shallow.depth == 2
    np.testing.assert_allclose(stitch.apply(shallow, X), wanted, rtol=1e-12)


def test_a_block_that_changes_the_shape_is_a_group_of_its_own():
  fns = (lambda p, h: h @ p, linear, linear)
  wide, blocks = jnp.ones((3, 4)), jnp.ones((2, 4, 4))
  params = {'embed': {}, 'blocks': (wide, *blocks), 'head': {}}
  model = stitch.Segmented(params, same, fns, same)
  shallow = surgery.collapse(model, groups=[(0, 1), (1, 3)])
  h = X @ np.ones((3, 4))
  wanted = h + 2 * h @ np.ones((4, 4))
  np.testing.assert_allclose(stitch.apply(shallow, X), wanted, rtol=1e-12)
  whole = surgery.collapse(model, groups=[(0, 3)])
  with pytest.raises(ValueError, match=r'maps \(6, 3\) to \(6, 4\)'):
    stitch.apply(whole, X)


def test_groups_of_one_block_are_the_network():
  shallow = surgery.collapse(network(), groups=[(i, i + 1) for i in range(4)])
  wanted = stitch.apply(network(), X)
  np.testing.assert_allclose(stitch.apply(shallow, X), wanted, rtol=1e-12)


def test_the_gap_is_of_second_order():
  gaps = []
  for scale in (1e-3, 1e-4):
    model = network(scale)
    shallow = surgery.collapse(model, groups=[(0, 4)])
    gaps.append(
      np.max(np.abs(stitch.apply(model, X) - stitch.apply(shallow, X)))
    )
  assert 90 < gaps[0] / gaps[1] < 110


@pytest.mark.parametrize('groups', [[], [(0, 3)], [(0, 2), (3, 4)], [(0, 5)]])
def test_groups_must_partition_the_blocks(groups):
  with pytest.raises(ValueError, match=r'that partition the blocks 0\.\.3'):
    surgery.collapse(network(), groups=groups)
