"""map_candidates equals a loop, in order, by one compiled program."""

import operator
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, mesh, tree
from wsl.mesh._map import candidates as candidates_lib
from wsl.mesh._map import program
from wsl.tree._ranks import samples

pytestmark = pytest.mark.needs_devices(8)
N = 11
CANDIDATES = {
  'coef': np.linspace(0.1, 1.0, N).astype(np.float32),
  'key': jax.random.split(jax.random.key(0), N),
  'order': np.arange(N, dtype=np.int32),
}
X = np.arange(16, dtype=np.float32).reshape(8, 2) / 7


def polynomial(x: Any, candidate: Any) -> Any:
  """Elementwise, so that no order of summation depends on the batch."""
  noise = jax.random.normal(candidate['key'], x.shape, x.dtype)
  moved = x * candidate['coef'] + noise
  return {'moved': moved, 'order': candidate['order']}


def expected() -> Any:
  fn = jax.jit(lambda c: polynomial(X, c))
  each = [fn(jax.tree.map(lambda x, i=i: x[i], CANDIDATES)) for i in range(N)]
  return jax.tree.map(lambda *xs: np.stack(xs), *each)


def same(found: Any, wanted: Any) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    assert isinstance(x, np.ndarray)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
  ('shape', 'batch'),
  [
    ('candidates:8', 2),
    ('candidates:2,model:4', 4),
    ('candidates:2,data:2,model:2', 1),
    ('candidates:1', None),
  ],
)
def test_it_equals_a_loop_bit_for_bit(shape: str, batch: Any) -> None:
  m = mesh.make(shape)
  x, traces = mesh.shard(X, None, m), []

  def fn(candidate: Any) -> Any:
    traces.append(candidate)
    return polynomial(x, candidate)

  wanted = expected()
  same(mesh.map_candidates(fn, CANDIDATES, mesh=m, batch=batch), wanted)
  same(mesh.map_candidates(fn, CANDIDATES, mesh=m, batch=batch), wanted)
  assert len(traces) == 1
  (compiled,) = program._PROGRAMS[fn].values()
  assert compiled.run._cache_size() == 1
  (constant,) = compiled.constants
  assert constant.sharding == x.sharding


def test_batches_are_reported_in_order() -> None:
  m, seen = mesh.make('candidates:2'), []
  fn = lambda c: (2 * c['coef'], c['order'])
  mesh.map_candidates(fn, CANDIDATES, mesh=m, batch=4, progress=seen.append)
  assert [b.done for b in seen] == [8, N]
  assert {b.total for b in seen} == {N}
  first, last = (b.indices.tolist() for b in seen)
  assert (first, last) == ([0, 1, 2, 3, 6, 7, 8, 9], [4, 5, 10])
  for b in seen:
    np.testing.assert_array_equal(b.results[1], b.indices)
    np.testing.assert_array_equal(
      b.results[0], 2 * CANDIDATES['coef'][b.indices]
    )


def test_fast_batches_share_a_call() -> None:
  m, seen = mesh.make('candidates:2'), []
  fn = lambda c: {'order': c['order'], 'coef': c['coef'] + 1}
  call = lambda: mesh.map_candidates(
    fn, CANDIDATES, mesh=m, batch=1, progress=seen.append
  )
  first = call()
  assert [len(b.indices) for b in seen[:2]] == [2, 2]
  (compiled,) = program._PROGRAMS[fn].values()
  assert compiled.most == 6
  for pace, calls in ((1.0, 6), (0.06, 2), (1e-9, 1)):
    # The pace changes as calls are measured, so the rest may share one.
    compiled.pace = pace
    seen.clear()
    same(call(), first)
    assert len(seen) <= calls
    indices = np.concatenate([b.indices for b in seen])
    assert sorted(indices.tolist()) == list(range(N))
    order = np.concatenate([b.results['order'] for b in seen])
    np.testing.assert_array_equal(order, indices)


def test_a_candidate_that_diverges_affects_no_other() -> None:
  m = mesh.make('candidates:4')
  fn = lambda c: {'loss': jnp.log(c), 'step': 1}
  found = mesh.map_candidates(fn, np.float32([1, 2, -1, 0, 3]), mesh=m, batch=1)
  assert mesh.finite(found).tolist() == [True, True, False, False, True]
  np.testing.assert_allclose(found['loss'][[0, 1, 4]], np.log([1, 2, 3]), 1e-6)
  with pytest.raises(ValueError, match='finite: results: no candidates given'):
    mesh.finite({})


def test_loops_and_partials_need_no_changes() -> None:
  m, traces = mesh.make('candidates:2,model:2'), []

  def power(w: Any, c: Any, *, steps: int = 3) -> Any:
    traces.append(steps)
    body = lambda h, _: (h * c + w, h.sum())
    return jax.lax.scan(body, jnp.zeros_like(w), None, length=steps)

  c = np.float32([1, 2, 3])
  for w in (X, 2 * X):
    fn = jax.tree_util.Partial(power, mesh.shard(w, None, m))
    last, sums = mesh.map_candidates(fn, c, mesh=m)
    np.testing.assert_allclose(
      last, w * (1 + c + c**2)[:, None, None], rtol=1e-6
    )
    assert sums.shape == (3, 3)
  assert len(traces) == 1  # bound arrays are arguments


def test_merges_of_sharded_closures() -> None:
  """Their programs broadcast zeros, whose types name the axes of the mesh."""
  m = mesh.make('candidates:2,model:4')
  stack = {'w': np.arange(24, dtype=np.float32).reshape(3, 4, 2) % 5 - 2}
  taus = mesh.shard(stack, jax.P(None, 'model'), m)
  fn = lambda c: c * merge.mean_nonzero(taus)['w']
  found = mesh.map_candidates(fn, np.float32([1, 2]), mesh=m)
  wanted = np.asarray(merge.mean_nonzero(stack)['w'])
  np.testing.assert_array_equal(found, np.stack([wanted, 2 * wanted]))


def test_groups_of_devices_search_independently(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  """Some ranks take more passes than others: no group waits for another."""
  # In a loop, XLA's collective-permute on CPUs waits for all devices of the
  # program, and other collectives for those of their group.
  monkeypatch.setattr(samples, 'SIZES', (16, 1 << 16))
  m = mesh.make('candidates:2,model:4')
  draw = np.random.default_rng(0).normal
  taus = [draw(size=(3, 8, 64)), draw(size=(3, 24))]
  where = jax.sharding.NamedSharding(m, jax.P(None, 'model'))
  shards = [jax.device_put(x.astype(np.float32), where) for x in taus]
  fn = lambda k: tree.kth_magnitude(shards, k)
  ranks = np.int32([8 * 64 + 24, 150])
  found = mesh.map_candidates(fn, ranks, mesh=m)
  every = np.concatenate([np.reshape(x, (3, -1)) for x in shards], axis=1)
  every = np.sort(np.abs(every), axis=1)
  np.testing.assert_array_equal(found, every[:, every.shape[1] - ranks].T)
  (compiled,) = program._PROGRAMS[fn].values()
  given = compiled.constants, [], [ranks], np.int32(0), np.int32(1)
  text = compiled.run.lower(*given).compile().as_text()
  loop = '\n'.join(x for x in text.splitlines() if '/while/body/' in x)
  assert 'all-reduce(' in loop
  assert 'collective-permute' not in loop


def test_arrays_of_a_closure_are_no_constants() -> None:
  m = mesh.make('candidates:2,model:4')
  big = np.arange(4096, dtype=np.float32).reshape(64, 64)
  w, plain = mesh.shard(big, None, m), jnp.asarray(big)
  fn = lambda c: (w * c + plain).sum()
  found = mesh.map_candidates(fn, np.float32([1, 2]), mesh=m)
  np.testing.assert_allclose(found, big.sum() * np.float32([2, 3]), rtol=1e-5)
  (compiled,) = program._PROGRAMS[fn].values()
  given = compiled.constants, [], [np.float32([1, 2])]
  assert {x.shape for x in compiled.constants} == {big.shape}
  lowered = compiled.run.lower(*given, np.int32(0), np.int32(1))
  constants = re.findall(r'constant dense.*', lowered.as_text())
  assert not [line for line in constants if '64x64' in line]
  assert 'all-gather' not in lowered.compile().as_text()


def test_functions_of_one_owner_differ() -> None:
  """Builtins of a module, methods of an object, and a compiled function."""
  m, c = mesh.make('candidates:1'), np.float32([-1, 2])

  class Model:
    def double(self, c: Any) -> Any:
      return 2 * c

    def half(self, c: Any) -> Any:
      return c / 2

  model, big = Model(), jnp.ones((64, 64), np.float32)
  compiled = jax.jit(lambda c: (big * c).sum())
  for fn, wanted in (
    (operator.neg, [1, -2]),
    (operator.abs, [1, 2]),
    (model.double, [-2, 4]),
    (model.half, [-0.5, 1]),
    (compiled, [-4096, 8192]),
  ):
    assert mesh.map_candidates(fn, c, mesh=m).tolist() == wanted
  (found,) = program._PROGRAMS[compiled].values()
  assert [x.shape for x in found.constants] == [big.shape]
  assert len(program._PROGRAMS[model]) == 2


def test_whole_models_stay_sharded() -> None:
  m = mesh.make('candidates:2,model:4')
  models = jax.device_put(
    np.ones((4, 8, 3), np.float32),
    jax.sharding.NamedSharding(m, jax.P('candidates', 'model')),
  )
  found = mesh.map_candidates(jnp.sum, models, mesh=m, batch=1)
  assert found.tolist() == [24.0] * 4
  placed = candidates_lib._placed(models, 0, m, 'candidates')
  assert placed.sharding == models.sharding


def test_a_function_of_a_deleted_closure_is_released() -> None:
  m = mesh.make('candidates:1')
  before = len(program._PROGRAMS)
  fn = lambda c: c + 1
  mesh.map_candidates(fn, np.float32([1]), mesh=m)
  assert len(program._PROGRAMS) == before + 1
  del fn
  assert len(program._PROGRAMS) == before


@pytest.mark.parametrize(
  ('candidates', 'settings', 'message'),
  [
    ({}, {}, 'no candidates given, at least one is needed'),
    ({'a': np.ones((0, 2))}, {}, 'no candidates given'),
    ({'a': np.float32(1)}, {}, "leaf 'a' is one value: give every leaf"),
    (
      {'a': np.ones(3), 'b': np.ones(2)},
      {},
      "leaf 'b' has 2 candidates, leaf 'a' 3: give each leaf one entry",
    ),
    (
      np.ones(3),
      {'axis': 'model'},
      "the mesh has no axis 'model': name one of",
    ),
    (np.ones(3), {'axis': ['a']}, r"the mesh has no axis '\['a'\]': name"),
    *(
      (np.ones(3), {'batch': n}, r'map_candidates\(batch=.*\): give an integer')
      for n in (0, 2.0, '2', True)
    ),
    (np.ones(3), {'progress': 3}, 'progress is no function: 3'),
    (np.asarray(['a']), {}, "leaf '' is of <U1, no numbers"),
    (
      jax.ShapeDtypeStruct((3,), np.float32),
      {},
      "leaf '' is of object, no numbers",
    ),
  ],
)
def test_bad_arguments(candidates: Any, settings: Any, message: str) -> None:
  m = mesh.make('candidates:1')
  with pytest.raises(ValueError, match=message) as raised:
    mesh.map_candidates(lambda c: c, candidates, mesh=m, **settings)
  assert str(raised.value).startswith('map_candidates')


def test_candidates_are_not_narrowed() -> None:
  m = mesh.make('candidates:1')
  for x in (np.asarray([2**40, 1]), np.asarray([1e300, 1.0])):
    if jax.config.jax_enable_x64:
      np.testing.assert_array_equal(
        mesh.map_candidates(abs, x, mesh=m, batch=np.int64(1)), x
      )
    else:
      with pytest.raises(ValueError, match=r"leaf '' has values of .* not fit"):
        mesh.map_candidates(abs, x, mesh=m)
  with pytest.raises(ValueError, match=r'map_candidates: fn is no function'):
    mesh.map_candidates(3, np.ones(2), mesh=m)


def test_traced_candidates_are_refused() -> None:
  m = mesh.make('candidates:1')
  call = jax.jit(lambda c: mesh.map_candidates(jnp.negative, c, mesh=m))
  with pytest.raises(
    ValueError, match='candidates are traced: call it outside'
  ):
    call(np.ones(3))


def test_batches_become_smaller_until_they_fit(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  tried, find = [], program.find
  monkeypatch.setattr(candidates_lib, '_sizes', lambda *_: iter((6, 3, 2, 1)))

  def limited(fn: Any, x: Any, m: Any, axis: str, batch: int) -> Any:
    tried.append(batch)
    if batch > 2:
      raise RuntimeError('RESOURCE_EXHAUSTED: out of memory')
    return find(fn, x, m, axis, batch)

  monkeypatch.setattr(program, 'find', limited)
  call = lambda batch: mesh.map_candidates(
    jnp.negative, np.float32([1, 2, 3]), mesh=mesh.make(1, 'candidates'),
    batch=batch,
  )  # fmt: skip
  assert call(None).tolist() == [-1, -2, -3]
  assert tried == [6, 3, 2]
  with pytest.raises(RuntimeError, match='RESOURCE_EXHAUSTED'):
    call(6)


def test_a_function_without_results() -> None:
  found = mesh.map_candidates(
    lambda c: {}, np.ones(3), mesh=mesh.make(1, 'candidates')
  )
  assert found == {}


@pytest.mark.parametrize('batch', [1, 2])
def test_operations_on_sharded_arrays_of_a_closure(batch: int) -> None:
  """JAX notes the mesh of such an array in operations that broadcast it."""
  m = mesh.make('candidates:2,model:4')
  x = mesh.shard(X, None, m)
  called = jax.jit(lambda x, c: jnp.zeros_like(x) + x * c)

  def fn(c: Any) -> Any:
    rows = x[c.astype(jnp.int32) + jnp.arange(3, dtype=jnp.int32)]
    each = jax.lax.map(lambda row: row * c, x, batch_size=4)
    many = jax.vmap(lambda k: k * x * c)(jnp.ones(3, x.dtype))
    grad = jax.grad(lambda y: (jax.nn.relu(y) * c).sum())(x)
    return rows, each, many, grad, called(x, c)

  found = mesh.map_candidates(fn, np.float32([1, 2, 3]), mesh=m, batch=batch)
  c = np.float32([1, 2, 3])[:, None, None]
  rows = np.stack([X[i : i + 3] for i in (1, 2, 3)])
  wanted = (
    rows,
    X * c,
    (X * c)[:, None] + np.zeros((3, 1, 1)),
    (X > 0) * c,
    X * c,
  )
  for a, b in zip(found, wanted):
    np.testing.assert_array_equal(a, b)
