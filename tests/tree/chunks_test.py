"""Leaves in chunks equal whole leaves, bit by bit; what cannot is refused."""

from collections.abc import Callable
import threading
from typing import Any
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, tree
from wsl.tree._chunks import buffers, cut, programs, windows

SHAPES = {
  'matrix': (300, 7),
  'vector': (70,),
  'scalar': (),
  'one': (1,),
  'ones': (3, 1, 2),
  'empty': (0, 4),
  'conv': (5, 4, 3, 2),
}
KEY = jax.random.key(0)


def lazy(x: np.ndarray) -> tree.Stored:
  """Returns a leaf that can be read in slices only."""

  def read_into(start: int, out: np.ndarray) -> None:
    out[:] = x.reshape(-1)[start : start + out.size]

  return tree.Stored(lambda: x, x.shape, x.dtype, read_into)


def model(seed: int, dtype: Any) -> dict[str, Any]:
  rng = np.random.default_rng(seed)
  return {
    name: np.asarray(rng.normal(size=shape)).astype(dtype)
    for name, shape in SHAPES.items()
  }


def models(dtype: Any, number: int = 4) -> list[dict[str, Any]]:
  return [jax.tree.map(lazy, model(seed, dtype)) for seed in range(number)]


def streamed(x: dict[str, Any], nbytes: int) -> dict[str, np.ndarray]:
  """Joins the parts of each leaf."""
  parts: dict[str, list[np.ndarray]] = {}
  for name, values in tree.stream(x, chunk_bytes=nbytes):
    assert values.ndim == 1
    parts.setdefault(name, []).append(values)
  assert list(parts) == list(x)
  return {
    name: np.concatenate(values).reshape(x[name].shape)
    for name, values in parts.items()
  }


def is_cut(leaf: Any) -> bool:
  return cut.is_cut(windows.Item('', leaf, leaf.shape), 1 << 10)


def check_equal(x: dict[str, Any], nbytes: int = 1 << 10) -> None:
  found = streamed(x, nbytes)
  for name, wanted in tree.read(x).items():
    wanted = np.asarray(wanted)
    assert found[name].dtype == wanted.dtype
    assert found[name].tobytes() == wanted.tobytes(), name


METHODS: dict[str, Callable[[Any], Any]] = {
  'sum': merge.sum,
  'mean': merge.mean,
  'weighted_mean': lambda d: merge.weighted_mean(d, [0.2, 0.3, 0.5]),
  'trim': lambda d: merge.mean(merge.trim(d, density=0.4)),
  'ties': lambda d: merge.ties(d, density=0.5),
  'ties max': lambda d: merge.ties(d, density=0.5, reduce='max'),
  'ties leaf': lambda d: merge.ties(d, density=0.5, scope='leaf'),
  'breadcrumbs': lambda d: merge.mean(
    merge.breadcrumbs(d, density=0.5, outliers=0.1)
  ),
  'dare': lambda d: merge.mean(merge.dare(d, rate=[0.2, 0.5, 0.9], key=KEY)),
  'dare ties': lambda d: merge.ties(
    merge.dare(d, rate=0.5, key=KEY), density=1.0
  ),
  'magmax': merge.magmax,
  'emr': lambda d: merge.materialize(merge.emr(d), 1),
  'consensus': lambda d: merge.consensus(d, threshold=0.5, min_tasks=2),
  'fisher': lambda d: merge.fisher(
    d, fishers=tree.map(jnp.abs, d), normalize=True
  ),
}


# Sums, masks by rank, random masks and statistics; float64 differs from float32
# in nothing but its width.
WIDE = ('sum', 'ties', 'dare', 'fisher')


@pytest.mark.parametrize(
  ('name', 'dtype'),
  [
    *((name, dtype) for name in METHODS for dtype in ('bfloat16', 'float32')),
    *((name, 'float64') for name in WIDE),
  ],
)
def test_chunks_equal_whole_leaves(name: str, dtype: str) -> None:
  base, *others = models(jnp.dtype(dtype))
  delta = METHODS[name](deltas.stack(base, others))
  merged = deltas.apply(base, delta, coef=0.7)
  assert is_cut(merged['matrix'])
  assert is_cut(merged['conv'])
  check_equal(merged)


@pytest.mark.parametrize('name', ['ties', 'sum'])
def test_chunks_of_many_models(name: str) -> None:
  # Above 32 models a sum is a loop, of which chunks are the carry.
  base, *others = [
    {'matrix': x['matrix']} for x in models(np.dtype('float32'), 41)
  ]
  merged = deltas.apply(base, METHODS[name](deltas.stack(base, others)), coef=2)
  assert is_cut(merged['matrix'])
  check_equal(merged)


def test_a_loop_that_mixes_positions_is_refused() -> None:
  def rolled(x: Any) -> Any:
    step = lambda i, y: y + jnp.roll(x, i)
    return jax.lax.fori_loop(0, 3, step, jnp.zeros_like(x))

  def summed(x: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda i, y: y + x.sum(), x.sum()) * x

  x = lazy(np.ones((40, 5), np.float32))
  for kernel in (rolled, summed):
    assert not is_cut(tree.apply_kernel(kernel, x))


def test_chunks_by_a_threshold_of_signed_scores() -> None:
  base, *others = models(np.dtype('float32'))
  merged = merge.pcb(deltas.stack(base, others), density=0.5)
  assert is_cut(merged['matrix'])
  check_equal(merged)


@pytest.mark.parametrize('scope', ['leaf', 'global'])
def test_chunks_of_slerp(scope: str) -> None:
  a, b = models(jnp.bfloat16, 2)
  merged = merge.slerp(a, b, t=0.3, scope=scope)
  assert is_cut(merged['matrix']) == (scope == 'global')
  check_equal(merged)


def mirror(x: Any) -> Any:
  return x[::-1]


def softmax(x: Any) -> Any:
  return jax.nn.softmax(x, -1)


def scaled(x: Any) -> Any:
  return x / x.shape[-1] + x.ndim


def positions(x: Any) -> Any:
  index = jnp.arange(x.size, dtype=np.int32).reshape(x.shape)
  return x + (index % 7).astype(x.dtype)


def columns(x: Any) -> Any:
  index = jax.lax.broadcasted_iota(np.int32, x.shape, x.ndim - 1)
  return x * index.astype(x.dtype)


def by_column(x: Any, scale: Any) -> Any:
  return x * scale[None]


def tanh(x: Any) -> Any:
  return jnp.tanh(jnp.exp(x) - jnp.sin(3 * x)) ** 3


def choose(x: Any, y: Any) -> Any:
  both = jnp.stack([x, y])
  ranked = jnp.sort(both, axis=0)
  return jnp.where(jnp.argmax(both, 0) == 1, ranked[0], ranked[-1] / 2)


@pytest.mark.parametrize('kernel', [mirror, softmax])
def test_programs_that_mix_positions_are_whole(kernel: Any) -> None:
  x = tree.map(kernel, {'w': lazy(model(0, np.float32)['matrix'])})
  assert not is_cut(x['w'])
  check_equal(x)


def test_a_weight_for_each_column_is_whole() -> None:
  x = lazy(model(0, np.float32)['matrix'])
  y = tree.map(by_column, {'w': x}, scale=np.arange(7.0, dtype=np.float32))
  assert not is_cut(y['w'])
  check_equal(y)


@pytest.mark.parametrize('kernel', [scaled, positions, columns, tanh])
def test_entrywise_programs_are_cut(kernel: Any) -> None:
  stored = {k: lazy(v) for k, v in model(0, np.float32).items() if v.ndim}
  x = tree.map(kernel, stored)
  assert is_cut(x['matrix'])
  check_equal(x)
  check_equal(x, 1 << 20)


def test_leading_axes_may_be_sorted_and_reduced() -> None:
  a, b = models(np.float32, 2)
  x = tree.map(choose, a, b)
  assert is_cut(x['matrix'])
  check_equal(x)


def test_arrays_in_memory_and_stored_leaves_may_be_mixed() -> None:
  a, b = models(np.float32, 2)
  for x in (model(2, np.float32), jax.tree.map(jnp.asarray, model(2, 'f4'))):
    check_equal(tree.map(choose, a, x))
  plain = tree.Stored(lambda: np.ones(8), (8,), np.dtype(np.float64))
  check_equal({'a': plain, 'b': np.arange(5), **b, 'c': jnp.ones((2, 3))})


def test_leaves_of_all_shapes_share_a_program() -> None:
  sizes = []
  for n in (900, 1200, 1500):
    x, y = ({'v': lazy(np.full(n, v, np.float32))} for v in (1, 2))
    streamed(tree.map(choose, x, y), 1 << 11)
    sizes.append(len(programs._shared))
  assert len(set(sizes)) == 1


def test_small_leaves_share_a_window() -> None:
  x = {f'{i}': lazy(np.full(10, i, np.float32)) for i in range(40)}
  y = tree.map(tanh, x)
  items = [windows.Item(name, x, x.shape) for name, x in y.items()]
  assert len(list(cut.cut(items, 1 << 10))) == 2
  check_equal(y)


def test_a_result_does_not_share_a_reused_buffer() -> None:
  x = {f'{i}': lazy(np.full(600, i, np.float32)) for i in range(30)}
  y = tree.map(same, x)
  for tree_ in (x, y):
    parts = list(tree.stream(tree_, chunk_bytes=1 << 10))
    for name, values in parts:
      assert (values == float(name)).all()


def same(x: Any) -> Any:
  return x


def test_inputs_are_read_ahead_by_another_thread() -> None:
  readers = set()

  def read_into(start: int, out: np.ndarray) -> None:
    readers.add(threading.get_ident())
    out[:] = start

  leaf = tree.Stored(lambda: None, (1000,), np.dtype(np.float32), read_into)
  parts = tree.stream({'w': tree.map(tanh, leaf)}, chunk_bytes=1 << 9)
  assert sum(values.size for _, values in parts) == 1000
  assert len(readers) == 1
  assert threading.get_ident() not in readers


def test_an_error_of_a_reader_is_raised() -> None:
  def fail(start: int, out: np.ndarray) -> None:
    raise OSError(f'disk {start}')

  leaf = tree.Stored(lambda: None, (100,), np.dtype(np.float32), fail)
  with pytest.raises(OSError, match='disk 0'):
    list(tree.stream({'w': tree.map(tanh, leaf)}))


def test_arrays_without_parts_are_released_before_the_next_are_read() -> None:
  read: list[Any] = []

  def fetch() -> np.ndarray:
    assert all(array() is None for array in read)
    array = np.ones(1000, np.float32)
    read.append(weakref.ref(array))
    return array

  leaf = tree.Stored(fetch, (1000,), np.dtype(np.float32))
  items = [
    windows.Item(name, tree.map(jnp.negative, leaf), (1000,)) for name in 'abc'
  ]
  pool = buffers.Buffers()
  for window in cut.cut(items, 1 << 10):
    assert isinstance(window, windows.Window)
    window.fill(pool)
  assert len(read) == 3
