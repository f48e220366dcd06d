"""Programs applied to parameters: copies, means, residuals, gates, forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import checkpoint, mesh, recipes, stitch, surgery, tree

BLOCKS = r'block_(\d+)/'
SHAPES = {
  'attention': {'kernel': (3, 3)},
  'mlp': {'kernel': (3, 4)},
  'norm': {'scale': (3,)},
}


@functools.cache
def deep(depth=4, dtype='float64'):
  rng = np.random.default_rng(depth)
  draw = lambda shape: rng.normal(size=shape).astype(dtype)
  is_shape = lambda x: isinstance(x, tuple)
  params = {
    f'block_{i}': jax.tree.map(draw, SHAPES, is_leaf=is_shape)
    for i in range(depth)
  }
  return params | {'embedding': {'table': draw((5, 3))}}


def apply(program, depth=4, params=None, **rest):
  params = deep(depth) if params is None else params
  return surgery.apply_program(params, program, blocks=BLOCKS, **rest)


def same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_the_identity_program_returns_the_arrays_themselves():
  new = apply(surgery.program_of(4, range(4)))
  for name, leaf in tree.named(deep(4)).items():
    assert tree.named(new)[name] is leaf


def test_a_program_applied_twice_gives_bit_equal_leaves():
  program = surgery.recursive(4, loops=2, init='average', rank=1)
  same(apply(program), apply(program))


def test_stack_repeats_the_whole_network():
  new = apply(surgery.stack(4, times=3))
  assert len(new) == 13  # 12 blocks and the embedding
  for i in range(12):
    same(new[f'block_{i}'], deep()[f'block_{i % 4}'])
  each = apply(surgery.stack(4, times=3, order='each'))
  for i in range(12):
    same(each[f'block_{i}'], deep()[f'block_{i // 3}'])


FORMS = {
  'dots': (
    lambda x, i: f'model.layers.{i}.{x}',
    r'model\.layers\.(\d+)\.',
  ),
  'slashes in keys': (lambda x, i: f'h/{i}/{x}', r'^h/(\d+)/'),
  'numbers beside': (lambda x, i: f'm1/layer{i}_v2/{x}', r'layer(\d+)_'),
}


@pytest.mark.parametrize('form', FORMS)
def test_flat_names_are_renumbered(form):
  name_of, blocks = FORMS[form]
  params = {
    name_of(x, i): np.full(1, 10.0 * i) for i in range(12) for x in 'ab'
  }
  params['head'] = np.ones(1)
  program = surgery.skip(12, start=1, stop=11)
  new = surgery.apply_program(params, program, blocks=blocks)
  values = {name: x.item() for name, x in new.items()}
  wanted = {name_of(x, i): 110.0 * i for i in range(2) for x in 'ab'}
  assert values == wanted | {'head': 1.0}


@pytest.mark.parametrize('kind', [list, tuple])
def test_lists_and_tuples_of_blocks_stay_what_they_are(kind):
  params = {
    'blocks': kind({'w': (np.full(1, i),)} for i in range(3)),
    'norms': (np.ones(1), np.zeros(1)),
  }
  program = surgery.program_of(3, [2, 0, 0, 1])
  new = surgery.apply_program(params, program, blocks=r'blocks/(\d+)/')
  assert type(new['blocks']) is kind
  assert [x['w'][0].item() for x in new['blocks']] == [2, 0, 0, 1]
  assert type(new['norms']) is tuple


def test_integer_keys_stay_integers():
  params = {'blocks': {i: {'w': np.full(1, i)} for i in range(2)}}
  program = surgery.program_of(2, [1, 1, 0])
  new = surgery.apply_program(params, program, blocks=r'blocks/(\d+)/')
  assert {i: x['w'].item() for i, x in new['blocks'].items()} == {
    0: 1,
    1: 1,
    2: 0,
  }


def test_stacked_leaves_equal_numbered_ones():
  blocks = [deep()[f'block_{i}'] for i in range(4)]
  stacked = {'layers': tree.stack(blocks), 'head': np.ones(2)}
  program = surgery.recursive(
    4, loops=2, init='stepwise', rank=1, untied='norm'
  )
  new = surgery.apply_program(stacked, program, blocks='^layers/')
  wanted = apply(program)
  listed = tree.stack([wanted[f'block_{i}'] for i in range(4)])
  same(new['layers'], listed)


def embed(p, x):
  return jnp.asarray(x) @ p['table']


def block(p, h):
  """A pre-normalised branch, which ends in the kernel of the mlp."""
  inner = jnp.tanh(p['norm']['scale'][None] * h @ p['attention']['kernel'])
  return h + inner @ p['mlp']['kernel'][:, :3]


def head(p, h):
  return h


def by_hand_forward(params):
  h = embed(params['embedding'], np.eye(5))
  for i in range(len(params) - 1):
    h = block(params[f'block_{i}'], h)
  return h


def test_a_segmented_network_and_its_parameters_get_the_same_blocks():
  network = stitch.cut(
    deep(),
    embed=(lambda p, x: embed(p['embedding'], x), '^emb'),
    blocks=(block, BLOCKS),
    head=(head, '$^'),
  )
  assert network.stacked
  program = surgery.program_of(4, [0, 2, 2, 1, 3])
  new = surgery.apply_program(network, program)
  assert new.depth == 5
  wanted = by_hand_forward(apply(program))
  np.testing.assert_allclose(stitch.apply(new, np.eye(5)), wanted, rtol=1e-12)


def test_a_tuple_of_blocks_takes_its_functions_along():
  fns = (lambda p, h: h + p, lambda p, h: h * p)
  params = {'embed': {}, 'blocks': (np.ones(1), np.full(1, 3.0)), 'head': {}}
  model = stitch.Segmented(params, head, fns, head)
  program = surgery.program_of(2, [1, 0, 1])
  new = surgery.apply_program(model, program)
  assert stitch.apply(new, np.full(1, 2.0)).item() == (2 * 3 + 1) * 3
  mean = surgery.Program(2, (surgery.Layer((0, 1)),))
  with pytest.raises(ValueError, match='layer 0 averages blocks'):
    surgery.apply_program(model, mean)


def by_hand(program, matrices=('attention/kernel', 'mlp/kernel')):
  """Returns the blocks of a recursive program, in numpy."""
  names = [*matrices, 'norm/scale']
  leaves = [tree.named(deep()[f'block_{i}']) for i in range(4)]
  result = []
  for layer in program.layers:
    block = {}
    for name in names:
      own = leaves[layer.own][name] if layer.own is not None else None
      x = np.mean([leaves[s][name] for s in layer.sources], 0)
      if name in matrices and layer.rank:
        u, s, vt = np.linalg.svd(own - x, full_matrices=False)
        r = layer.rank
        x = x + (u[:, :r] * s[:r]) @ vt[:r]
      if name == 'norm/scale' and program.untied:
        x = own
      block[name] = x
    result.append(block)
  return result


@pytest.mark.parametrize('init', ['stepwise', 'average', 'lower'])
@pytest.mark.parametrize('rank', [0, 1, 9])
def test_recursive_layers_are_shared_weights_and_residuals(init, rank):
  program = surgery.recursive(
    4, loops=2, init=init, rank=rank, untied='norm' if rank else None
  )
  new = apply(program)
  for i, block in enumerate(by_hand(program)):
    for name, wanted in block.items():
      found = tree.named(new[f'block_{i}'])[name]
      np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
      if rank == 9:  # more than full: the network itself
        own = tree.named(deep()[f'block_{i}'])[name]
        np.testing.assert_allclose(found, own, rtol=1e-12, atol=1e-13)


def test_the_full_rank_without_untied_vectors_is_another_network():
  program = surgery.recursive(4, loops=2, init='lower', rank=9)
  norm = apply(program)['block_3']['norm']['scale']
  same(norm, deep()['block_1']['norm']['scale'])
  assert np.any(norm != deep()['block_3']['norm']['scale'])


def test_the_average_is_nearest_to_the_blocks_that_share_it():
  own = [deep()[f'block_{i}']['mlp']['kernel'] for i in range(4)]

  def distance(init):
    new = apply(surgery.recursive(4, loops=2, init=init))
    return sum(
      np.sum((new[f'block_{i}']['mlp']['kernel'] - own[i]) ** 2)
      for i in range(4)
    )

  assert distance('average') < 0.9 * min(
    distance('lower'), distance('stepwise')
  )


def test_tied_parameters_are_few_and_their_gradients_are_sums():
  program = surgery.recursive(4, loops=2, init='lower', rank=1, untied='norm')
  tied = surgery.tie(deep(), program, blocks=BLOCKS)
  assert len(tied.shared) == 2
  assert [len(own) for own in tied.own] == [0, 0, 3, 3]

  def loss(tied):
    return sum(
      (i + 1) * jnp.sum(surgery.untie(tied)[f'block_{i}']['mlp']['kernel'])
      for i in range(4)
    )

  slope = jax.jit(jax.grad(loss))(tied)
  place = ('block_', '/mlp/kernel')
  np.testing.assert_allclose(slope.shared[0][place], 1 + 3)
  np.testing.assert_allclose(slope.shared[1][place], 2 + 4)
  factors = tied.own[2][place]
  wanted = np.broadcast_to(3 * np.sum(factors.b, 0)[:, None], (1, 3))
  np.testing.assert_allclose(slope.own[2][place].a, wanted, rtol=1e-12)


def test_gates_scale_the_leaves_that_they_name():
  layers = (surgery.Layer((0,)), surgery.Layer((1,), gate=0.5))
  new = apply(surgery.Program(4, layers, gated='mlp/'))
  same(new['block_0'], deep()['block_0'])
  own = deep()['block_1']
  same(new['block_1'], own | {'mlp': {'kernel': own['mlp']['kernel'] * 0.5}})


def test_an_inserted_identity_preserves_the_function():
  program = surgery.insert_identity(4, after=[0, 2, 2], gated='^.*mlp/')
  wanted = by_hand_forward(deep())
  np.testing.assert_array_equal(by_hand_forward(apply(program)), wanted)
  # Without the gates the copies change it.
  copies = surgery.program_of(4, [0, 0, 1, 2, 2, 2, 3])
  assert np.max(np.abs(by_hand_forward(apply(copies)) - wanted)) > 1e-3


def test_programs_compose():
  first = surgery.program_of(4, [3, 1, 1, 0, 2])
  averaged = surgery.Program(
    5, (surgery.Layer((0, 1)), surgery.Layer((4,)), surgery.Layer((2, 3, 4)))
  )
  second = surgery.compose_programs(averaged, surgery.stack(3, times=2))
  both = surgery.compose_programs(first, second)
  assert both.layers[3].sources == (3, 1)
  one_by_one = apply(second, params=apply(first))
  for x, y in zip(*map(jax.tree.leaves, (apply(both), one_by_one))):
    np.testing.assert_allclose(x, y, rtol=1e-12)
  means = surgery.Program(3, (surgery.Layer((0, 2)),))
  both = surgery.compose_programs(second, surgery.skip(6, start=3, stop=6))
  both = surgery.compose_programs(both, means)
  # Block 0 of two, and the mean of three: sources repeat to a common number.
  wanted = apply(means, params=apply(averaged, params=deep(5)))
  found = apply(both, params=deep(5))
  for x, y in zip(*map(jax.tree.leaves, (found, wanted))):
    np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.needs_devices(8)
def test_sharded_leaves_stay_sharded():
  on = mesh.make({'model': 8})
  spread = jax.NamedSharding(on, jax.P(None, 'model'))
  blocks = {f'block_{i}': {'w': np.ones((3, 8)) * i} for i in range(4)}
  sharded = jax.device_put(blocks, spread)
  for rank in (0, 1):
    program = surgery.recursive(4, loops=2, init='average', rank=rank)
    new = surgery.apply_program(sharded, program, blocks=BLOCKS)
    wanted = surgery.apply_program(blocks, program, blocks=BLOCKS)
    for i in range(4):
      leaf = new[f'block_{i}']['w']
      assert leaf.sharding.is_equivalent_to(spread, 2)
      np.testing.assert_allclose(leaf, wanted[f'block_{i}']['w'], rtol=1e-12)
  copies = surgery.apply_program(
    sharded, surgery.stack(4, times=2), blocks=BLOCKS
  )
  assert copies['block_5']['w'] is sharded['block_1']['w']


def test_files_are_read_leaf_by_leaf_and_written_renumbered(tmp_path):
  flat = tree.flatten(deep(4, 'float32'))
  checkpoint.save(tmp_path / 'model', flat)
  lazy = checkpoint.load(tmp_path / 'model', lazy=True)
  program = surgery.recursive(4, loops=2, init='average', rank=1)
  new = surgery.apply_program(lazy, program, blocks=r'block_(\d+)\.')
  assert tree.on_demand(new)
  checkpoint.save(tmp_path / 'new', new)
  found = checkpoint.load(tmp_path / 'new')
  wanted = surgery.apply_program(flat, program, blocks=r'block_(\d+)\.')
  assert set(found) == set(wanted)
  for name, leaf in wanted.items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-6, atol=1e-6)
  copied = surgery.apply_program(
    lazy, surgery.stack(4, times=2), blocks=r'block_(\d+)\.'
  )
  name = 'block_5.mlp.kernel'
  assert copied[name] is lazy['block_1.mlp.kernel']


def test_passthrough_is_that_of_recipes(tmp_path):
  layers = {f'model.layers.{i}.w': np.full(2, i + 0.5) for i in range(4)}
  ends = {'model.embed_tokens.w': np.ones(2), 'lm_head.w': np.zeros(2)}
  both = {'a': layers | ends}
  both['b'] = {name: x + 10 for name, x in both['a'].items()}
  for slices in ([(0, 3), (1, 2), (2, 4)], [(0, 3), (5, 7), (2, 4)]):
    # Blocks 4 .. 7 are those of the second network.
    sources = [('ab'[a >= 4], [a % 4, (b - 1) % 4 + 1]) for a, b in slices]
    parts = [[{'model': m, 'layer_range': x}] for m, x in sources]
    recipe = recipes.parse(
      {
        'merge_method': 'passthrough',
        'slices': [{'sources': part} for part in parts],
      }
    )
    folders = {
      model: recipes.Folder(tmp_path, both[model.path], None)
      for model in recipes.models(recipe)
    }
    built = recipes.build(recipe, folders).params
    blocks = r'layers\.(\d+)\.'
    whole = surgery.concatenate_blocks([*both.values()], blocks=blocks)
    program = surgery.passthrough(8, slices=slices)
    new = surgery.apply_program(whole, program, blocks=blocks)
    assert {k: list(x) for k, x in new.items()} == {
      k: list(tree.read(x)) for k, x in built.items()
    }


def test_networks_of_another_kind_are_not_concatenated():
  other = {'block_0': {'gate': np.ones(2)}}
  with pytest.raises(ValueError, match="leaf 'block_#/gate' of network 1"):
    surgery.concatenate_blocks([deep(), other], blocks=BLOCKS)
  with pytest.raises(ValueError, match='no networks given'):
    surgery.concatenate_blocks([], blocks=BLOCKS)
