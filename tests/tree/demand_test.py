"""Sums over a tree, and leaves on demand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import traces
from wsl import tree
from wsl.tree._reads import gpu, interpreter


def double(x: Any) -> Any:
  return 2 * x


def shift(x: Any, y: Any, *, by: Any, sign: str = 'plus') -> Any:
  by = jnp.asarray(by).astype(x.dtype)
  return x + y + by if sign == 'plus' else x + y - by


def scaled(x: Any, *, by: Any) -> Any:
  return x * by.astype(x.dtype)


def shifted(x: Any, *, by: Any) -> Any:
  return jnp.divide(x, by), by


def pad(x: Any, *, width: int) -> Any:
  return jnp.concatenate([x, jnp.zeros(width, x.dtype)])


def square(x: Any) -> Any:
  return jnp.sum(x * x)


def count(x: Any, y: Any, *, above: Any) -> Any:
  return jnp.sum(x + y > above)


def stored(x: Any, reads: list[int]) -> tree.Stored:
  def fetch() -> np.ndarray:
    reads.append(1)
    return np.asarray(x)

  return tree.Stored(fetch, np.shape(x), np.asarray(x).dtype)


def test_map_computes_now_or_later() -> None:
  reads: list[int] = []
  x = {'a': jnp.arange(3.0), 'b': stored([1.0, 2.0], reads), 'n': None}
  y = tree.map(double, x)
  assert y['a'].tolist() == [0.0, 2.0, 4.0]
  assert y['n'] is None
  assert not reads
  assert tree.on_demand(y)
  assert not tree.on_demand(y['a'])
  assert (y['b'].shape, y['b'].dtype, y['b'].ndim) == ((2,), np.float64, 1)
  assert y['b'].size == 2
  assert tree.read(y)['b'].tolist() == [2.0, 4.0]
  assert reads == [1]


def test_a_chain_is_one_program_and_reads_each_leaf_once() -> None:
  reads: list[int] = []
  x = stored(np.arange(5.0), reads)
  y = tree.map(double, x)
  z = tree.map(shift, y, x, by=1.5)
  before = traces.programs()
  assert tree.read(tree.map(double, z)).tolist() == [3.0, 9.0, 15.0, 21.0, 27.0]
  assert len(reads) == 1
  assert traces.programs() == before + 1
  # Another leaf of this shape and another number: the same program.
  other = stored(np.ones(5), reads)
  again = tree.map(
    double, tree.map(shift, tree.map(double, other), other, by=2.0)
  )
  assert tree.read(again).tolist() == [10.0] * 5
  assert traces.programs() == before + 1


def affine(x: Any, *, scale: Any, by: Any) -> Any:
  return x * jnp.asarray(scale, x.dtype) + jnp.asarray(by, x.dtype)


@pytest.mark.parametrize('kind', [float, np.float32, jnp.asarray])
def test_equal_numbers_are_inputs_of_their_own(kind: Any) -> None:
  x, one = jnp.ones(11), kind(3.0)
  found = tree.apply_kernel(affine, x, scale=kind(0.5), by=kind(2.0))
  before = traces.programs()
  # One object twice, in one kernel and in the two of a chain.
  same = tree.apply_kernel(affine, x, scale=one, by=one)
  assert traces.programs() == before
  assert (found[0], same[0]) == (2.5, 6.0)
  chain = lambda a, b, c, d: tree.read(
    tree.apply_kernel(
      affine,
      tree.apply_kernel(affine, tree.defer(x), scale=a, by=b),
      scale=c,
      by=d,
    )
  )
  assert chain(*map(kind, (1.0, 2.0, 3.0, 4.0)))[0] == 13.0
  before = traces.programs()
  assert chain(one, one, one, one)[0] == 21.0
  assert traces.programs() == before


def test_strings_and_static_values_are_static_arguments() -> None:
  x = {'a': jnp.ones(2)}
  minus = tree.map(shift, x, x, by=1.0, sign='minus')
  assert minus['a'].tolist() == [1.0, 1.0]
  assert tree.map(pad, x, width=tree.Static(2))['a'].shape == (4,)


def test_the_shape_of_a_chain_is_known_without_reading() -> None:
  reads: list[int] = []
  x = tree.map(pad, stored(np.ones(3), reads), width=tree.Static(2))
  assert x.shape == (5,)
  assert not reads


def test_maps_work_in_a_trace() -> None:
  total = jax.jit(lambda x: tree.total(square, tree.map(double, x)))
  assert float(total({'a': jnp.ones(3)})) == 12.0
  slope = jax.grad(lambda x: tree.norm(tree.map(double, x)))({'a': jnp.ones(4)})
  assert slope['a'].tolist() == [1.0] * 4


def test_total_adds_up_on_the_host_in_wide_types() -> None:
  x = {
    'a': jnp.asarray([3e4], jnp.float32),
    'b': jnp.asarray([1.0], jnp.float32),
  }
  total = tree.total(square, x)
  assert total.dtype == np.float64
  assert total == 9e8 + 1  # lost in float32
  counted = tree.total(count, x, x, above=1.0)
  assert counted.dtype == np.int64
  assert counted == 2


def test_total_of_leaves_on_demand_reads_each_once() -> None:
  reads: list[int] = []
  x = {'a': stored([1.0, 2.0], reads), 'b': stored([3.0], reads)}
  assert tree.total(square, x) == 14.0
  assert len(reads) == 2


def test_total_of_nothing() -> None:
  for empty in ({}, {'n': None}):
    with pytest.raises(ValueError, match='total: the tree has no leaf'):
      tree.total(square, empty)


@pytest.mark.parametrize('size', [0, 1, 8191, 8192, 8193, 30_000])
def test_norm_and_sum_entries(size: int) -> None:
  x = np.random.default_rng(size).normal(size=(2, size))
  np.testing.assert_allclose(
    tree.sum_entries(jnp.asarray(x)), x.sum(1), atol=1e-10
  )
  norm = tree.norm({'a': jnp.asarray(x), 's': jnp.asarray(2.0)})
  np.testing.assert_allclose(norm, np.sqrt((x**2).sum() + 4), rtol=1e-13)
  one = {'a': jnp.asarray(x), 's': jnp.asarray(-2.0)}
  for function in (tree.norm, jax.jit(tree.norm, static_argnames='ord')):
    found = function(one, ord=1)
    np.testing.assert_allclose(found, abs(x).sum() + 2, rtol=1e-13)
  with pytest.raises(ValueError, match=r'norm\(ord=3\): expected 1 or 2'):
    tree.norm(one, ord=3)


def test_norm_of_low_precision_is_taken_in_float32() -> None:
  x = jnp.full((1, 10_000), 0.1, jnp.bfloat16)
  exact = np.linalg.norm(np.asarray(x, np.float64))
  np.testing.assert_allclose(tree.norm({'w': x}), exact, rtol=1e-5)
  np.testing.assert_allclose(jax.jit(tree.norm)({'w': x}), exact, rtol=1e-5)


def test_wide() -> None:
  for dtype, wanted in [
    (jnp.bfloat16, jnp.float32),
    (jnp.float16, jnp.float32),
    (jnp.float32, jnp.float32),
    (jnp.float64, jnp.float64),
  ]:
    assert tree.wide(jnp.ones(2, dtype)).dtype == wanted


def test_programs_outside_of_traces_are_not_tuned_on_a_gpu(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  """The options of a compilation are an error inside of jit and grad."""
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  untuned = gpu._run
  calls: list[Any] = []
  counted = lambda *args: calls.append(1) or untuned(*args)
  monkeypatch.setattr(gpu, '_run', counted)
  x = jnp.asarray([1.0, -2.0])
  twice = lambda x: tree.map(double, {'a': x})['a']
  expected = [2.0, -4.0]
  assert twice(x).tolist() == expected
  assert len(calls) == 1
  assert jax.jit(lambda: twice(x))().tolist() == expected  # a constant
  assert len(calls) == 2
  assert jax.jit(twice)(x).tolist() == expected
  assert jax.vmap(twice)(x).tolist() == expected
  assert jax.grad(lambda x: twice(x).sum())(x).tolist() == [2.0, 2.0]
  assert jax.vmap(lambda _: twice(x))(x).shape == (2, 2)
  assert len(calls) == 3  # the last is one of a constant


def test_numbers_are_transferred_to_a_gpu_once(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  x = {name: jnp.asarray([1.0, -2.0]) for name in 'abc'}
  by = np.asarray([3.0, -0.0])
  gpu._transferred.cache_clear()
  with jax.transfer_guard_device_to_device('disallow'):
    assert tree.map(scaled, x, by=by)['c'].tolist() == [3.0, 0.0]
  assert gpu._transferred.cache_info().misses == 1
  # Numbers that are equal have results of their own.
  program = ((shifted, (0,), (), (('by', 1),)),)
  for number in (0.0, -0.0, 0, False, 1, True, 1.0, 1j):
    with jax.numpy_dtype_promotion('standard'):
      found = gpu.run(program, [x['a'], number])
      wanted = interpreter.run(program, [x['a'], number])
    for one, other in zip(found, wanted):
      assert jax.typeof(one) == jax.typeof(other)
      assert one.tobytes() == other.tobytes()


def test_shapes_of_narrowed_hyperparameters() -> None:
  """A number of float64 is rounded to its leaf's dtype, without a warning."""
  with jax.enable_x64(False):
    node = tree.apply_kernel(
      scaled, tree.defer(jnp.ones(3)), by=np.full(3, 2.0)
    )
    assert node.shape_dtype == jax.ShapeDtypeStruct((3,), np.float32)
