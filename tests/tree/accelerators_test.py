"""Eager calls on accelerators: few programs, and the results of a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import deltas as deltas_lib
from wsl import merge, surgery, tree
from wsl.tree import _nodes
from wsl.tree._ranks import samples
from wsl.tree._reads import devices, gpu, together

pytestmark = pytest.mark.cpu_only('it takes a CPU for an accelerator')
T = 3


def concrete(x: Any) -> Any:
  """Returns the array of a leaf, as if an accelerator held it."""
  array = x.array if isinstance(x, _nodes.Stored) else x
  known = isinstance(array, jax.Array) and not isinstance(
    array, jax.core.Tracer
  )
  return array if known else None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """Takes the CPU for a GPU; returns the kernels of the started programs."""
  found: list[str] = []

  def counted(run: Callable[..., Any]) -> Callable[..., Any]:
    def call(program: Any, *args: Any) -> Any:
      found.append(program[-1][0].__name__)
      return run(program, *args)

    return call

  monkeypatch.setattr(devices, 'on_accelerator', concrete)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(gpu, '_run', counted(gpu._run))
  monkeypatch.setattr(gpu, '_run_each', counted(gpu._run_each))
  return found


def stack(
  leaves: int, *shape: int, dtype: Any = np.float32
) -> dict[str, jax.Array]:
  rng = np.random.default_rng(leaves)
  draw = lambda: rng.standard_normal((T, *shape)) ** 3
  return {
    f'block_{i}/w': jnp.asarray(draw().astype(dtype)) for i in range(leaves)
  }


KEY = jax.random.key(1)
# Methods, and the programs that each starts for leaves of two shapes.
METHODS: dict[str, tuple[Callable[[Any], Any], int]] = {
  'fisher': (lambda d: merge.fisher(d, fishers=d, normalize=True), 5),
  'consensus': (lambda d: merge.consensus(d, threshold=0.4, min_tasks=2), 4),
  'ties leaf': (lambda d: merge.ties(d, density=0.2, scope='leaf'), 5),
  'breadcrumbs': (
    lambda d: merge.breadcrumbs(d, density=0.3, outliers=0.1),
    3,
  ),
  'dare': (lambda d: merge.dare(d, rate=0.5, key=KEY), 3),
}


@pytest.mark.parametrize('name', METHODS)
def test_merges_start_few_programs_and_no_bit_changes(
  name: str, request: pytest.FixtureRequest
) -> None:
  deltas = stack(9, 4, 5) | {'head': stack(1, 7)['block_0/w']}
  method, most = METHODS[name]
  expected = method(deltas)
  started = request.getfixturevalue('started')
  found = method(deltas)
  assert 2 <= len(started) <= most, started
  for path, leaf in tree.named(expected).items():
    one = tree.named(found)[path]
    assert one.dtype == leaf.dtype
    np.testing.assert_array_equal(one, leaf, err_msg=path)


def test_ties_of_sixty_leaves(request: pytest.FixtureRequest) -> None:
  deltas = stack(60, 4, 5)
  expected = merge.ties(deltas, density=0.2)
  started = request.getfixturevalue('started')
  found = merge.ties(deltas, density=0.2)
  assert sorted(started) == ['_mean_nonzero'] * 5 + ['_search'] + ['_votes'] * 5
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_apply_adds_and_checks_leaves_together(started: list[str]) -> None:
  base, delta = stack(4, 5), stack(4, 5)
  found = deltas_lib.apply(base, delta, coef=0.5)
  assert started == ['_add', '_count_bad']
  np.testing.assert_array_equal(found['block_3/w'], 1.5 * base['block_3/w'])
  delta['block_2/w'] = delta['block_2/w'].at[0, 0].set(np.nan)
  with pytest.raises(ValueError, match=r"leaf 'block_2/w' has 1 NaN"):
    deltas_lib.apply(base, delta, coef=0.5)
  jax.jit(lambda x: deltas_lib.apply(base, x, coef=0.5))(delta)


def by_sorting(leaves: list[np.ndarray], k: int) -> np.ndarray:
  rows = [np.abs(np.float64(x)).reshape(len(x), -1) for x in leaves]
  return np.sort(np.concatenate(rows, axis=1), axis=1)[:, -k]


def test_a_search_of_unequal_leaves_is_one_program(
  started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(samples, 'SIZES', (16, 1 << 16))
  leaves = [*stack(2, 40).values(), *stack(2, 7, 5).values()]
  leaves[1] = jnp.round(leaves[1])  # ties
  leaves[2] = leaves[3].astype(jnp.bfloat16)
  with traces.fresh('small samples'):
    for k in (1, 60, 150):
      found = tree.kth_magnitude(list(map(tree.defer, leaves)), k)
      assert found.dtype == np.float32
      np.testing.assert_array_equal(found, by_sorting(leaves, k))
    ks = [np.full((1, T), k) for k in (1, 2, 30, 35)]
    rows = tree.kth_in_leaves(leaves, ks)
    for x, k, row in zip(leaves, ks, rows):
      assert row.dtype == np.float32
      np.testing.assert_array_equal(row[0], by_sorting([x], k[0, 0]))
  assert set(started) == {'_search'}
  assert len(started) == 4


@pytest.mark.parametrize('wide', ['first', 'all'])
def test_float64_without_x64(started: list[str], wide: str) -> None:
  x = np.random.default_rng(0).normal(size=(3, T, 30))
  with jax.enable_x64(True):
    leaves = [jnp.asarray(v) for v in x]
    if wide == 'first':
      leaves[1:] = [v.astype(np.float32) for v in leaves[1:]]
  with jax.enable_x64(False):
    found = tree.kth_magnitude(leaves, 20)
    twice = tree.map(_twice, leaves)
  assert found.dtype == twice[0].dtype == np.float64
  np.testing.assert_array_equal(found, by_sorting(leaves, 20))
  np.testing.assert_array_equal(twice[0], 2 * x[0])
  assert [y.dtype for y in twice] == [y.dtype for y in leaves]


def test_leaves_in_files_are_read_one_at_a_time(started: list[str]) -> None:
  reads: list[str] = []

  def stored(name: str, x: Any) -> tree.Stored:
    fetch = lambda: reads.append(name) or np.asarray(x)
    return tree.Stored(fetch, x.shape, np.dtype(x.dtype))

  deltas = stack(6, 4, 5)
  names = list(deltas)[:2]
  lazy = deltas | {n: stored(n, deltas[n]) for n in names}
  found = tree.read(tree.map(_twice, jax.tree.map(tree.defer, lazy)))
  assert started == ['_twice'] * 3
  assert reads == names
  for name, x in deltas.items():
    np.testing.assert_array_equal(found[name], 2 * x)
  level = tree.kth_magnitude(lazy, 50)
  np.testing.assert_array_equal(level, by_sorting(list(deltas.values()), 50))


@pytest.mark.filterwarnings('error')
def test_numbers_of_float64_are_rounded_to_the_dtype_of_their_leaves(
  started: list[str],
) -> None:
  leaves = list(stack(2, 4, 5).values())
  with jax.enable_x64(False):
    found = tree.map(_scaled, leaves, by=np.full((T, 4, 5), 2.0))
  assert started == ['_scaled']
  assert found[1].dtype == np.float32
  np.testing.assert_array_equal(found[1], 2 * leaves[1])


def _scaled(x: Any, *, by: Any) -> Any:
  return x * by.astype(x.dtype)


def _twice(x: Any) -> Any:
  return x * 2


def _loop(x: Any) -> Any:
  return jax.lax.fori_loop(0, x[0, 0].astype(int), lambda _, y: y + 1, x)


def _product(x: Any) -> Any:
  return tree.matmul(x, x.mT)


def _inverse(x: Any) -> Any:
  return jnp.linalg.cholesky(jnp.eye(len(x)) + 0 * x)


def test_loops_products_and_decompositions_are_not_repeated(
  started: list[str],
) -> None:
  """Their programs would take as many times as long to compile."""
  leaves = [jnp.full((2, 2), i) for i in (1.0, 2.0)]
  for kernel in (_loop, _product, _inverse):
    started.clear()
    tree.map(kernel, leaves)
    assert started == [kernel.__name__] * 2
  np.testing.assert_array_equal(tree.map(_loop, leaves)[1], leaves[1] + 2)


def test_batches_are_bounded_in_bytes(
  started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  leaves = list(stack(6, 4, 5).values())
  monkeypatch.setattr(together, '_BYTES', 4 * leaves[0].nbytes + 1)
  found = tree.map(_twice, leaves)
  assert started == ['_twice'] * 3
  np.testing.assert_array_equal(found[5], 2 * leaves[5])


def test_traced_numbers_and_known_leaves(started: list[str]) -> None:
  deltas = stack(2, 4, 5)
  expected = merge.trim(deltas, density=0.25)
  found = jax.jit(lambda p: merge.trim(deltas, density=p))(0.25)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_placements() -> None:
  leaf = tree.apply_kernel(_twice, tree.defer(jnp.ones(2)))
  assert devices.places(leaf) is None  # it is on a CPU
  assert not tree.on_accelerators([jnp.ones(2)])
  assert devices.common([]) is devices.common([None]) is None
  on_cpu = jnp.ones(2)
  assert devices.common([on_cpu] * 2) == next(iter(on_cpu.devices()))


def test_leaves_on_the_host_are_searched_one_by_one() -> None:
  sizes, ks = (30, 5000, 6000), (3, 2, 5999)
  rng = np.random.default_rng(0)
  leaves = [np.float32(rng.normal(size=(1, n))) for n in sizes]
  found = tree.kth_in_leaves(leaves, [np.full((1, 1), k) for k in ks])
  for x, k, rows in zip(leaves, ks, found):
    np.testing.assert_array_equal(rows[0], by_sorting([x], k))
  params = {f'{n}': x[0] for n, x in zip(sizes, leaves)}
  masks = surgery.magnitude_masks(params, sparsity=0.5, scope='leaf', leaves='')
  assert [int(mask.sum()) for mask in masks.values()] == [15, 2500, 3000]
