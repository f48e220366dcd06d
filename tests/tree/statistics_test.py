"""Statistics of leaves in files: passes over chunks, computed once, later."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, tree
from wsl.merge import _stack
from wsl.tree._chunks import stream

SHAPES = {'a': (40, 30), 'b': (7,), 'c': (), 'd': (3, 5, 11), 'e': (0, 2)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(stream, 'CHUNK_BYTES', 1 << 10)


def stored(x: Any, reads: list[str], *, in_slices: bool) -> Any:
  """Returns leaves that note each read of them."""

  def one(name: str, x: np.ndarray) -> tree.Stored:
    def fetch() -> np.ndarray:
      reads.append(name)
      return x

    def read_into(start: int, out: np.ndarray) -> None:
      reads.append(name)
      out[:] = x.reshape(-1)[start : start + out.size]

    return tree.Stored(
      fetch, x.shape, x.dtype, read_into if in_slices else None
    )

  return tree.map_named(one, x)


def models(dtype: Any, number: int, *, in_slices: bool) -> list[Any]:
  result = []
  for t in range(number):
    rng = np.random.default_rng(t)
    x = {
      k: np.asarray(rng.normal(size=s)).astype(dtype) for k, s in SHAPES.items()
    }
    result.append(stored(x, [], in_slices=in_slices))
  return result


def both(compute: Any, dtype: Any) -> tuple[Any, Any]:
  """Returns a statistic of files in chunks, and of whole leaves."""
  return tuple(compute(models(dtype, 4, in_slices=s)) for s in (True, False))


DTYPES = ['bfloat16', 'float32', 'float64', 'complex64']


def test_norms_do_not_count_integers() -> None:
  model = {'w': np.ones(4, np.float32), 'step': np.asarray(10**10)}
  assert tree.norm(model) == 2
  assert tree.norm(model, ord=1) == 4


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ord', [1, 2])
def test_norms(dtype: str, ord: int) -> None:
  chunked, whole = both(lambda m: tree.norm(m[0], ord=ord), jnp.dtype(dtype))
  np.testing.assert_allclose(chunked, whole, rtol=1e-6)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ranks', ['one', 'several'])
def test_ranks_are_exact(dtype: str, ranks: str) -> None:
  def kth(m: Any) -> Any:
    stack = deltas.stack(m[0], m[1:])
    size = sum(tree.sizes(m[0]).values())
    ks = [1, size // 3, size] if ranks == 'several' else [size // 5]
    return [np.asarray(tree.kth_magnitude(stack, k)).tolist() for k in ks]

  chunked, whole = both(kth, jnp.dtype(dtype))
  assert chunked == whole


def test_ranks_of_many_equal_entries() -> None:
  values = np.repeat([0.5, 1.0, 2.0], [500, 500, 200]).astype(np.float32)
  x = {'w': np.random.default_rng(0).permutation(values)[None]}
  for k, wanted in [(1, 2.0), (200, 2.0), (201, 1.0), (700, 1.0), (701, 0.5)]:
    leaves = stored(x, [], in_slices=True)
    assert float(tree.kth_magnitude(leaves, k)[0]) == wanted


# All pairs of a dtype, a scope and a dialect.
@pytest.mark.parametrize(
  ('scope', 'dtype', 'dialect'),
  [
    ('global', 'bfloat16', 'paper'),
    ('leaf', 'bfloat16', 'official'),
    ('leaf', 'float32', 'paper'),
    ('global', 'float32', 'official'),
    ('global', 'float64', 'paper'),
    ('leaf', 'float64', 'official'),
  ],
)
def test_ties_is_the_same_bit_for_bit(
  scope: str, dtype: str, dialect: str
) -> None:
  def ties(m: Any) -> Any:
    tau = deltas.stack(m[0], m[1:])
    merged = merge.ties(tau, density=0.3, scope=scope, dialect=dialect)
    return tree.read(deltas.apply(m[0], merged))

  chunked, whole = both(ties, jnp.dtype(dtype))
  for name, x in whole.items():
    assert np.asarray(x).tobytes() == np.asarray(chunked[name]).tobytes()


def test_slerp_and_fisher() -> None:
  def slerp(m: Any) -> Any:
    return tree.read(merge.slerp(m[0], m[1], t=0.3, scope='global'))

  def fisher(m: Any) -> Any:
    squares = tree.stack([tree.map(_square, x) for x in m[1:]])
    tau = deltas.stack(m[0], m[1:])
    return tree.read(merge.fisher(tau, fishers=squares, normalize=True))

  for method in (slerp, fisher):
    chunked, whole = both(method, np.dtype(np.float32))
    for name, x in whole.items():
      # The sums of chunks round in another order.
      np.testing.assert_allclose(chunked[name], x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('method', ['slerp', 'dare', 'l1', 'l2'])
def test_large_leaves_are_read_twice_in_chunks(
  method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(_stack, 'LARGE', 20)

  def merged(m: Any) -> Any:
    if method == 'slerp':
      return merge.slerp(m[0], m[1], t=0.3)
    tau = deltas.stack(m[0], m[1:])
    if method == 'dare':
      key = jax.random.key(0)
      tau = merge.dare(tau, rate=0.5, key=key, rescale='l1')
    else:
      tau = merge.rescale(merge.trim(tau, density=0.4), tau, norm=method)
    return deltas.apply(m[0], merge.mean(tau))

  lazy = [models(np.dtype(np.float32), 4, in_slices=s) for s in (True, False)]
  chunked, whole = map(merged, lazy)
  for name in ('a', 'd'):
    assert tree.chunk_memory(chunked[name]) is not None
    assert tree.chunk_memory(whole[name]) is None
  whole = tree.read(whole)
  for name, x in tree.read(chunked).items():
    np.testing.assert_allclose(x, whole[name], rtol=1e-6, atol=4e-6)


def _square(x: Any) -> Any:
  return x * x


def test_a_statistic_is_computed_once_and_on_the_first_read() -> None:
  calls = []

  def compute() -> Any:
    calls.append(1)
    return np.float64(2)

  reads: list[str] = []
  x = stored({'a': np.ones(3), 'b': np.ones(2)}, reads, in_slices=True)
  two = tree.statistic(compute, x, shape=(), dtype=np.float64, passes=4)
  assert tree.on_demand(two)
  assert isinstance(two, tree.Statistic)
  assert (two.shape, two.dtype, two.ndim, two.size) == ((), np.float64, 0, 1)
  y = tree.map(_scale, x, by=two)
  assert (y['a'].shape, y['a'].dtype) == ((3,), np.float64)
  assert not calls
  assert not reads
  for _ in range(2):
    read = dict(tree.stream(y))
    assert read['a'].tolist() == [2.0] * 3
  assert tree.read(y)['b'].tolist() == [2.0] * 2
  assert len(calls) == 1


def _scale(x: Any, *, by: Any) -> Any:
  return x * jnp.asarray(by).astype(x.dtype)


def test_a_statistic_of_arrays_is_computed_now() -> None:
  x = {'a': jnp.ones(3)}
  found = tree.statistic(lambda: 3, x, shape=(), dtype=np.int32)
  assert found == 3


def test_statistics_in_a_trace() -> None:
  x = {'w': jnp.asarray([[4.0, -1.0, 0.2], [2.0, 3.0, 0.1]])}
  wanted = merge.ties(x, density=0.7)['w']
  found = jax.jit(lambda x: merge.ties(x, density=0.7))(x)['w']
  np.testing.assert_array_equal(found, wanted)
  assert tree.spans_processes(x['w']) is False


class _Placed:
  """An array in a file; counts the questions where it is placed."""

  asked = 0

  def __init__(self, spans: bool):
    self._spans = spans

  def __call__(self) -> np.ndarray:
    return np.ones(3, np.float32)

  @property
  def sharding(self) -> types.SimpleNamespace:
    type(self).asked += 1
    return types.SimpleNamespace(is_fully_addressable=not self._spans)


@pytest.mark.parametrize('spans', [False, True])
def test_inputs_of_a_shared_statistic_are_asked_once(
  spans: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
  # Asked again for every leaf, 182 leaves of 3 models took 20 s.
  monkeypatch.setattr(_Placed, 'asked', 0)
  fetch = lambda i: _Placed(spans and i == 39)
  leaf = lambda i: tree.Stored(fetch(i), (3,), np.dtype('float32'))
  x = {f'{i}': leaf(i) for i in range(40)}
  total = tree.statistic(lambda: 3, x, shape=(), dtype=np.int32)
  y = jax.tree.leaves(tree.map(_scale, x, by=total))
  assert tree.spans_processes(*y) is spans
  assert _Placed.asked <= 40


def test_a_sum_of_integers_shares_windows_of_leaves() -> None:
  x = {f'{i}': np.full((1, 10), i + 1.0, np.float32) for i in range(50)}
  lazy = stored(x, [], in_slices=True)
  entries = tree.Entries(lead=1, neutral=0.0)
  chunked = tree.total(_count, lazy, entries=entries, above=25.0)
  assert chunked.tolist() == [250]
  assert chunked.dtype == np.int64
  assert tree.total(_count, x, above=25.0).tolist() == [250]


def _count(x: Any, *, above: Any) -> Any:
  return tree.sum_entries((x > above).astype(np.int32))
