"""Every merge on meshes of eight devices: equal to one device, no gathers."""

import math
import re
from typing import Any

import jax
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge, mesh, tree, types
from wsl.tree._reads import interpreter

pytestmark = [
  pytest.mark.needs_devices(8),
  pytest.mark.cpu_only('it compiles for eight virtual devices'),
]
# For each mesh the partition of the matrices of a stack [T, m, n]. Meshes of
# two axes are in tests/merge/contract_test.py, called eagerly.
MESHES = {
  'model:8': jax.P(None, None, 'model'),
  'rows:2,data:2,columns:2': jax.P(None, 'rows', ('data', 'columns')),
}
# Methods that sum over no shards, or only count: equal bit for bit. NearSwap is
# not, even on one device: XLA rounds a product and a sum once in some programs,
# twice in others.
EXACT = {
  *('sum', 'mean', 'mean_nonzero', 'elect_sign', 'trim', 'ties'),
  *('ties/leaf', 'breadcrumbs', 'breadcrumbs/leaf', 'dare', 'della', 'ram'),
  *(
    'magmax',
    'tall_masks',
    'materialize',
    'consensus',
    'scale.by_depth',
  ),
}
# They need whole matrices.
GATHER = {
  *('regmean', 'tsv', 'iso_c', 'iso_cts', 'tsv/scanned', 'iso_c/scanned'),
  *('tsv_compress', 'wudi', 'doge', 'knots'),
  *('twins', 'rmm'),
}
# Their searches and sums are those of other rows.
SAME_PROGRAM = {
  *(
    'trim',
    'sce',
    'breadcrumbs',
    'breadcrumbs/leaf',
    'rescale',
    'slerp/scanned',
    'pcb',
  ),
  *('ram_plus', 'slerp', 'localize_and_stitch', 'doge', 'knots'),
  *('twins', 'rmm'),
}


def shard(x: Any, name: str) -> Any:
  """Shards the matrices of a stack; other leaves are replicated."""
  m, spec = mesh.make(name), MESHES[name]

  def place(v: Any) -> Any:
    where = jax.sharding.NamedSharding(m, spec if v.ndim == 3 else jax.P())
    if isinstance(v, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=where)
    return jax.device_put(v, where)

  return jax.tree.map(place, x)


@pytest.mark.parametrize('name', battery.METHODS)
def test_eight_devices_equal_one(name: str) -> None:
  row = battery.METHODS[name]
  given = battery.stacked(battery.T), row.sides(battery.T)
  wanted = battery.expected(name)
  for shape, spec in MESHES.items():
    if shape == 'model:8' and name in SAME_PROGRAM:
      continue
    call = jax.jit(lambda x, sides: row.call(x, sides, **battery.first(row)))
    found = call(*shard(given, shape))
    if name in EXACT:
      jax.tree.map(np.testing.assert_array_equal, found, wanted)
    else:
      battery.same(found, wanted, atol=1e-13)
    if name not in GATHER and hasattr(found, 'keys'):
      kept = tuple(found['block_0']['w'].sharding.spec)
      assert kept[-1] == spec[-1]


# The number of matrices in a call of LAPACK, the last axis but two.
DECOMPOSED = r'\[(?:\d+,)?(\d+),\d+,\d+\]\S* [^=]*custom-call\('

# Larger than the samples and columns that a search for a rank gathers.
SHAPE = (4, 512, 1024)


def _large(x: Any) -> Any:
  """Returns the shape of a larger matrix for each matrix, in float32."""
  shape = SHAPE if x.ndim == 3 else x.shape
  return jax.ShapeDtypeStruct(shape, np.float32)


def gathered(fn: Any, *args: Any) -> list[str]:
  """Lists the collectives of a program whose results have a leaf's size."""
  text = jax.jit(fn).lower(*args).compile().as_text()
  found = re.findall(r'= (.*) (?:all-gather|all-to-all)(?:-start)?\(', text)
  sizes = [
    max(math.prod(map(int, s.split(','))) for s in re.findall(r'\[([\d,]+)', x))
    for x in found
  ]
  return [x for x, n in zip(found, sizes) if n >= math.prod(SHAPE[1:])]


@pytest.mark.parametrize(
  'name', [n for n in battery.METHODS if n not in GATHER | SAME_PROGRAM]
)
def test_accelerators_gather_no_leaf(
  name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Thresholds, norms and angles are reduced where the shards are."""
  monkeypatch.setattr(
    jax.lax, 'platform_dependent', lambda *xs, cpu, default: default(*xs)
  )
  row = battery.METHODS[name]
  given = jax.tree.map(_large, (battery.stacked(4), row.sides(4)))
  call = lambda x, sides: row.call(x, sides, **battery.first(row))
  assert not gathered(call, *shard(given, 'rows:2,data:2,columns:2'))


@pytest.mark.parametrize(
  ('shape', 'spec'),
  [('model:8', (None, None, 'model')), ('a:4,b:2', (None, 'a', 'b'))],
)
def test_a_cpu_counts_where_the_shards_are(shape: str, spec: Any) -> None:
  where = jax.sharding.NamedSharding(mesh.make(shape), jax.P(*spec))
  x = jax.ShapeDtypeStruct(SHAPE, np.float32, sharding=where)
  assert not gathered(lambda x: tree.kth_magnitude({'w': x}, 1000), x)


@pytest.mark.parametrize('spec', [(None, 'a', 'b'), (None, None, ('a', 'b'))])
@pytest.mark.parametrize('method', [merge.iso_c, merge.tsv])
def test_each_device_decomposes_its_own_matrices(
  method: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Whole matrices are exchanged, not gathered, and so is the result."""
  m, run, texts = mesh.make('a:4,b:2'), interpreter.run, []

  def record(*args: Any) -> Any:
    texts.append(run.lower(*args).compile().as_text())
    return run(*args)

  draw = np.random.default_rng(0).normal
  stacks = {f'layer_{i}': draw(size=(2, 4, 8)) for i in range(9)}
  stacks = jax.tree.map(lambda x: x.astype(battery.FLOAT), stacks)
  wanted = method(stacks)
  monkeypatch.setattr(interpreter, 'run', record)
  found = method(mesh.shard(stacks, jax.P(*spec), m))
  battery.same(found, wanted)
  assert {tuple(x.sharding.spec) for x in found.values()} == {spec[1:]}
  (text,) = texts
  assert 'all-gather' not in text
  # Nine matrices, two on each device with copies of the last.
  (shape,) = {tuple(map(int, s)) for s in re.findall(DECOMPOSED, text)}
  assert shape == (2,)


@pytest.mark.parametrize(
  ('shape', 'spec'),
  [('a:4,b:2', (None, 'a', 'b')), ('a:2,b:2,c:2', (None, 'a', ('b', 'c')))],
)
def test_regmean_solves_a_part_of_the_columns_on_each_device(
  shape: str, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  m, run, texts = mesh.make(shape), interpreter.run, []

  def record(*args: Any) -> Any:
    texts.append(run.lower(*args).compile().as_text())
    return run(*args)

  draw = np.random.default_rng(0).normal
  x = draw(size=(2, 9, 4)) * [1, 1, 1, 0]  # an input that is always 0
  gram = types.Gram(np.einsum('tni,tnj->tij', x, x)[:, None], np.ones(2))
  stack, grams = {'w': draw(size=(2, 4, 12))}, {'w': gram}
  wanted = merge.regmean(stack, grams=grams, shrink=0.9)
  sharded = mesh.shard(stack, jax.P(*spec), m)
  monkeypatch.setattr(interpreter, 'run', record)
  found = merge.regmean(sharded, grams=grams, shrink=0.9)
  battery.same(found, wanted)
  assert tuple(found['w'].sharding.spec) == spec[1:]
  # Of 12 columns and 4 of padding each device has two.
  assert 'all-gather' not in texts[-1]
  assert re.search(r'\[(?:1,)?1,4,2\]\S* custom-call\(', texts[-1])


def test_the_check_detects_a_gather() -> None:
  sort = lambda x: jax.numpy.sort(x.reshape(4, -1), axis=1)
  x = shard(jax.ShapeDtypeStruct(SHAPE, np.float32), 'model:8')
  assert gathered(sort, x)
