"""Slices: a cut equals a mask, and cuts nest."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.surgery import nested_networks as networks
from wsl import align, checkpoint, models, surgery, tree

SIZES = [
  {networks.OF_HIDDEN: 3},
  {networks.OF_HEADS: 3, networks.OF_VALUES: 1},
  {networks.OF_RESIDUAL: 2, networks.OF_HEADS: 1, networks.OF_HIDDEN: 1},
  dict.fromkeys(
    [networks.OF_RESIDUAL, networks.OF_HEADS, networks.OF_HIDDEN], 0.5
  ),
]


def cut(params: Any, widths: Any) -> Any:
  size = surgery.slice_size(networks.symmetry(), widths=widths)
  return networks.to_numpy(
    surgery.slice(params, size, symmetry=networks.symmetry())
  )


def mask(params: Any, widths: Any) -> Any:
  size = surgery.slice_size(networks.symmetry(), widths=widths)
  return networks.to_numpy(
    surgery.mask_units(params, size, symmetry=networks.symmetry())
  )


def outputs(params: Any) -> np.ndarray:
  return networks.network(params, networks.inputs(), xp=np)


@pytest.mark.parametrize('widths', SIZES)
def test_a_slice_computes_what_the_masked_whole_computes(widths: Any) -> None:
  params = networks.params()
  found = cut(params, widths)
  np.testing.assert_allclose(
    outputs(found), outputs(mask(params, widths)), rtol=1e-12, atol=1e-12
  )
  assert np.abs(outputs(found) - outputs(params)).max() > 0.1


def test_units_that_the_function_counts_are_an_exception() -> None:
  """The scale of attention depends on the number of units of a head."""
  params, widths = networks.params(), {networks.OF_KEYS: 2}
  found, wanted = outputs(cut(params, widths)), outputs(mask(params, widths))
  assert np.abs(found - wanted).max() > 1e-3


def test_a_slice_has_the_leading_units_of_each_segment() -> None:
  """The fused kernel is cut in each head of queries, keys and values."""
  params = networks.params()
  heads, keys, values = networks.HEADS, networks.KEYS, networks.VALUES
  found = cut(params, {networks.OF_HEADS: 2, networks.OF_KEYS: 1})['qkv']
  q, k, v = np.split(params['qkv'], [heads * keys, 2 * heads * keys], axis=1)
  wanted = [
    y.reshape(-1, heads, n)[:, :2, :m].reshape(networks.RESIDUAL, -1)
    for y, n, m in ((q, keys, 1), (k, keys, 1), (v, values, values))
  ]
  np.testing.assert_array_equal(found, np.concatenate(wanted, 1))


def test_one_fraction_keeps_the_units_of_heads() -> None:
  size = surgery.slice_size(networks.symmetry(), widths=0.5)
  kept = {networks.OF_KEYS: networks.KEYS, networks.OF_VALUES: networks.VALUES}
  halves = {
    networks.OF_HEADS: networks.HEADS // 2,
    networks.OF_HIDDEN: networks.HIDDEN // 2,
    networks.OF_RESIDUAL: networks.RESIDUAL // 2,
  }
  assert size.widths == kept | halves
  assert surgery.granularities(networks.symmetry(), factors=[2]) == (size,)


def test_a_slice_of_a_slice_is_the_slice() -> None:
  symmetry = networks.symmetry()
  larger, smaller = (
    surgery.slice_size(symmetry, widths=widths)
    for widths in (
      {networks.OF_HIDDEN: 6, networks.OF_HEADS: 3, networks.OF_VALUES: 1},
      {networks.OF_HIDDEN: 2, networks.OF_HEADS: 2, networks.OF_VALUES: 1},
    )
  )
  middle = surgery.slice(networks.params(), larger, symmetry=symmetry)
  found = surgery.slice(
    middle, smaller, symmetry=surgery.slice_symmetry(symmetry, larger)
  )
  wanted = surgery.slice(networks.params(), smaller, symmetry=symmetry)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  params = networks.params()
  whole = surgery.full_size(symmetry)
  same = surgery.slice(params, whole, symmetry=symmetry)
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_the_symmetry_of_a_slice_is_that_of_its_function() -> None:
  symmetry = networks.symmetry()
  size = surgery.slice_size(symmetry, widths={networks.OF_HEADS: 3})
  small = surgery.slice(networks.params(), size, symmetry=symmetry)
  found = surgery.slice_symmetry(symmetry, size)
  again = align.find_symmetry(networks.network, small, networks.inputs())
  assert found == again


def test_a_traced_size_compiles_once() -> None:
  symmetry, traces = networks.symmetry(), []

  @jax.jit
  def squares(params: Any, size: surgery.Size) -> Any:
    traces.append(1)
    part = surgery.mask_units(params, size, symmetry=symmetry)
    return jax.tree.map(lambda x: (x * x).sum(), part)

  params = networks.params()
  for widths in SIZES:
    size = surgery.slice_size(symmetry, widths=widths)
    found = squares(params, size)
    wanted = {name: (x * x).sum() for name, x in mask(params, widths).items()}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), found, wanted)
  assert len(traces) == 1


def test_dtypes_integers_and_leaves_on_demand() -> None:
  """Leaves keep their dtype, and are cut when they are read."""
  h, x = align.Factor('h', 4), align.Factor('x', 2, 'an input')
  symmetry = align.Symmetry(
    (h, x), (('n', ((('h',),),)), ('w', ((('x',),), (('h',),))))
  )
  size = surgery.slice_size(symmetry, widths={'h': 3})
  reads = []

  def fetch() -> np.ndarray:
    reads.append(1)
    return np.arange(8, dtype=np.float16).reshape(2, 4)

  leaf = tree.Stored(fetch, (2, 4), np.dtype(np.float16))
  params = {'n': jnp.arange(4, dtype=jnp.int8), 'w': leaf}
  for operation, wanted in (
    (surgery.slice, ([0, 1, 2], [[0, 1, 2], [4, 5, 6]])),
    (surgery.mask_units, ([0, 1, 2, 0], [[0, 1, 2, 0], [4, 5, 6, 0]])),
  ):
    found = operation(params, size, symmetry=symmetry)
    assert not reads
    assert tree.on_demand(found)
    whole = tree.read(found)
    assert (whole['n'].dtype, whole['w'].dtype) == (jnp.int8, jnp.float16)
    assert (whole['n'].tolist(), whole['w'].tolist()) == wanted
    reads.clear()


@pytest.mark.needs_devices(8)
def test_a_cut_of_one_axis_keeps_the_sharding_of_another() -> None:
  h, x = align.Factor('h', 4), align.Factor('x', 8, 'an input')
  symmetry = align.Symmetry((h, x), (('w', ((('x',),), (('h',),))),))
  mesh = jax.make_mesh(
    (8,), ('model',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = jax.NamedSharding(mesh, jax.P('model'))
  w = jax.device_put(jnp.ones((8, 4)), rows)
  size = surgery.slice_size(symmetry, widths={'h': 2})
  found = surgery.slice({'w': w}, size, symmetry=symmetry)['w']
  assert found.sharding.is_equivalent_to(rows, 2)


def blocks(params: Any, x: Any) -> Any:
  """A residual network in a list of blocks, and a norm with moments."""
  for block in params['blocks']:
    h = np.tanh(x @ block['up'])
    scale, mean, var = (block[n] for n in ('scale', 'mean', 'var'))
    x = x + ((h - mean) / np.sqrt(var + 1e-5) * scale) @ block['down']
  return x


def residual() -> tuple[Any, align.Symmetry]:
  rng = np.random.default_rng(0)
  factors, axes, trees = [align.Factor('x', 4, 'an input')], [], []
  for i in range(3):
    h = f'blocks/{i}/up:1'
    factors.append(align.Factor(h, 6))
    vectors = {n: ((h,),) for n in ('mean', 'scale', 'var')}
    matrices = {'down': ((h,),), 'up': (('x',),)}
    second = {'down': ((('x',),),), 'up': (((h,),),)}
    block = {n: rng.uniform(0.5, 1, 6) for n in vectors}
    block |= {'down': rng.normal(size=(6, 4)), 'up': rng.normal(size=(4, 6))}
    trees.append(block)
    every = {n: (a,) for n, a in vectors.items()}
    every |= {n: (a, *second[n]) for n, a in matrices.items()}
    axes += [(f'blocks/{i}/{n}', every[n]) for n in sorted(every)]
  return {'blocks': trees}, align.Symmetry(tuple(factors), tuple(axes))


def test_depth_and_the_moments_of_normalisation() -> None:
  params, symmetry = residual()
  size = surgery.slice_size(symmetry, widths=0.5, depths={r'blocks/(\d+)/': 2})
  x = np.random.default_rng(1).normal(size=(5, 4))
  found = networks.to_numpy(surgery.slice(params, size, symmetry=symmetry))
  whole = networks.to_numpy(surgery.mask_units(params, size, symmetry=symmetry))
  assert len(found['blocks']) == 2
  assert found['blocks'][1]['var'].shape == (3,)
  np.testing.assert_allclose(blocks(found, x), blocks(whole, x), rtol=1e-12)
  assert np.abs(blocks(found, x) - blocks(params, x)).max() > 0.1
  small = surgery.slice_symmetry(symmetry, size)
  align.check_leaves(small, tree.named(found), 'slice')
  assert [g.size for g in small.groups] == [3, 3]
  # A dict of blocks, as Flax names them, at a traced depth.
  named = {f'block_{i}': block for i, block in enumerate(params['blocks'])}
  of_dict = align.from_json(
    align.to_json(symmetry).replace('"blocks/', '"block_')
  )
  size = surgery.slice_size(of_dict, depths={r'block_(\d+)': 1})
  cut_dict = surgery.slice(named, size, symmetry=of_dict)
  assert list(cut_dict) == ['block_0']
  kept = jax.jit(
    lambda n: surgery.mask_units(
      named, size._replace(depths={r'block_(\d+)': n}), symmetry=of_dict
    )
  )(1)
  assert not np.any(kept['block_1']['up'])
  assert np.all(kept['block_0']['up'])


def layer_norm(p: Any, x: Any) -> Any:
  h = x @ p['w']
  centred = h - h.mean(-1, keepdims=True)
  spread = np.sqrt((centred**2).mean(-1, keepdims=True))
  return (centred / spread * p['scale']) @ p['head']


def group_norm(p: Any, x: Any) -> Any:
  """Normalises groups of three units; there are as many as there are units."""
  h = (x @ p['w']).reshape(len(x), -1, 3)
  centred = h - h.mean(-1, keepdims=True)
  spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
  return ((centred / spread).reshape(len(x), -1) * p['scale']) @ p['head']


def test_norms_that_count_units_and_groups_that_are_whole() -> None:
  rng = np.random.default_rng(0)
  params = {
    'head': rng.normal(size=(12, 2)),
    'scale': rng.normal(size=12),
    'w': rng.normal(size=(5, 12)),
  }
  x = rng.normal(size=(7, 5))
  g = align.Factor('g', 4)
  u = align.Factor('u', 3, '', ('g',))
  pinned = align.Factor('x', 5, 'an input'), align.Factor('y', 2, 'an output')
  units = (('g', 'u'),)
  symmetry = align.Symmetry(
    (g, u, *pinned),
    (
      ('head', (units, (('y',),))),
      ('scale', (units,)),
      ('w', ((('x',),), units)),
    ),
  )
  size = surgery.slice_size(symmetry, widths={'g': 2})
  found = networks.to_numpy(surgery.slice(params, size, symmetry=symmetry))
  whole = networks.to_numpy(surgery.mask_units(params, size, symmetry=symmetry))
  np.testing.assert_allclose(
    group_norm(found, x), group_norm(whole, x), rtol=1e-12
  )
  assert np.abs(layer_norm(found, x) - layer_norm(whole, x)).max() > 0.1


def test_a_checkpoint_is_cut_as_it_is_read(tmp_path: Any) -> None:
  params = networks.params()
  checkpoint.save(tmp_path / 'whole.safetensors', params)
  lazy = checkpoint.load(tmp_path / 'whole.safetensors', lazy=True)
  size = surgery.slice_size(networks.symmetry(), widths={networks.OF_HEADS: 2})
  small = surgery.slice(lazy, size, symmetry=networks.symmetry())
  assert tree.on_demand(small)
  checkpoint.save(tmp_path / 'small.safetensors', small)
  found = checkpoint.load(tmp_path / 'small.safetensors')
  wanted = cut(params, {networks.OF_HEADS: 2})
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.usefixtures('full_precision')
def test_a_slice_of_a_vision_transformer_runs_in_a_smaller_one() -> None:
  """Whole heads and hidden units, of each block its own number."""
  whole = models.ViT(
    outputs=3, patch=2, width=8, depth=2, heads=4, expansion=2, pool='mean'
  )
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
  shapes = jax.eval_shape(whole.init, jax.random.key(0), x)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  symmetry = align.find_symmetry(whole.apply, shapes, x)
  names = tree.in_order(g.name for g in symmetry.groups if not g.outer)
  heads = [name for name in names if 'attention/key/bias' in name]
  hidden = [name for name in names if 'mlp' in name]
  widths = dict.fromkeys(heads, 3) | dict(zip(hidden, (5, 9)))
  size = surgery.slice_size(symmetry, widths=widths)
  small = whole.clone(heads=3, head_size=2, hidden=(5, 9))
  found = jax.jit(
    lambda p: small.apply(surgery.slice(p, size, symmetry=symmetry), x)
  )(params)
  wanted, other = jax.jit(
    lambda p: jax.vmap(lambda p: whole.apply(p, x))(
      tree.stack([surgery.mask_units(p, size, symmetry=symmetry), p])
    )
  )(params)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  assert np.abs(wanted - other).max() > 0.1
