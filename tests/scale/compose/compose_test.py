"""Identities of composition, in float64 to 1e-10."""

import functools
from typing import Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, scale, tree

T = 3
GRANULARITIES = (
  'all',
  'task',
  'leaf',
  'entry',
  ('head', 2, 0),
  ('random', 3),
  [('^block', 'blocks'), ('.*', None)],
)


def params(seed: int) -> Any:
  draw = lambda i, *shape: (
    0.5
    * jax.random.normal(
      jax.random.fold_in(jax.random.key(seed), i), shape, jnp.float64
    )
  )
  return {
    'block_0': {'w': draw(0, 4, 4), 'b': draw(1, 4)},
    'block_1': {'w': draw(2, 4, 4), 'b': draw(3, 4)},
    'out': draw(4, 4, 4),
  }


def apply_fn(p: Any, x: Any) -> Any:
  for i in range(2):
    x = jnp.tanh(x @ p[f'block_{i}']['w'] + p[f'block_{i}']['b'][None])
  return x @ p['out']


BASE = params(0)
MODELS = [
  jax.tree.map(lambda x, y: x + 0.3 * y, BASE, params(1 + t)) for t in range(T)
]
BANK = scale.bank(BASE, MODELS)
X = jax.random.normal(jax.random.key(9), (5, 4), jnp.float64)


def start(by: Any, value: float = 0.0) -> scale.Coefs:
  return scale.init(BANK, by=by, value=value, key=jax.random.key(7))


def draw(coefs: Any, seed: int = 3) -> Any:
  """Replaces all coefficients by random ones."""
  flat, build = flatten_util.ravel_pytree(coefs)
  return build(jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype))


def loss(p: Any) -> Any:
  return jnp.sum(jnp.sin(apply_fn(p, X)))


def close(a: Any, b: Any, atol: float = 1e-10) -> None:
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b
  )


def same(a: Any, b: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('by', ['all', 'leaf', 'entry', ('random', 3)])
def test_p1_zero_is_the_base_exactly(by: Any) -> None:
  same(scale.compose(BASE, BANK, start(by)), BASE)


def test_p2_one_hot_is_the_expert() -> None:
  stack = deltas.stack(BASE, MODELS)
  for t in range(T):
    one_hot = jnp.asarray(np.eye(T)[t])
    coefs = jax.tree.map(lambda x, c=one_hot: c, start('leaf'))
    found = scale.compose(BASE, BANK, coefs)
    close(found, MODELS[t], 1e-15)
    vector = jax.tree.map(lambda x, t=t: x[t], stack)
    same(found, deltas.apply(BASE, vector))


@pytest.mark.parametrize('by', GRANULARITIES)
def test_p3_equal_coefficients_are_task_arithmetic(by: Any) -> None:
  total = merge.sum(deltas.stack(BASE, MODELS))
  wanted = deltas.apply(BASE, total, coef=0.3)
  close(scale.compose(BASE, BANK, start(by, 0.3)), wanted, 1e-15)
  close(scale.compose(BASE, BANK, 0.3), wanted, 1e-15)


@pytest.mark.parametrize('by', GRANULARITIES)
def test_p4_the_gradient_is_an_inner_product(by: Any) -> None:
  coefs = draw(start(by))
  direct = jax.grad(lambda c: loss(scale.compose(BASE, BANK, c)))(coefs)
  gradient = jax.grad(loss)(scale.compose(BASE, BANK, coefs))
  close(direct, scale.pull_back(BANK, gradient, coefs))


def test_p4_by_the_definition() -> None:
  gradient = tree.named(jax.grad(loss)(BASE))
  stack = tree.named(deltas.stack(BASE, MODELS))
  found = scale.pull_back(BANK, jax.grad(loss)(BASE), start('leaf'))
  for name, g in gradient.items():
    wanted = [float((g * stack[name][t]).sum()) for t in range(T)]
    np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize('by', GRANULARITIES)
def test_gradients_of_coefficients_are_finite_differences(by: Any) -> None:
  flat, build = flatten_util.ravel_pytree(draw(start(by)))
  f = jax.jit(lambda v: loss(scale.compose(BASE, BANK, build(v))))
  direction = jax.random.normal(jax.random.key(5), flat.shape, flat.dtype)
  h = 1e-5
  difference = (f(flat + h * direction) - f(flat - h * direction)) / (2 * h)
  np.testing.assert_allclose(
    jax.grad(f)(flat) @ direction, difference, rtol=1e-7
  )
  forward = jax.jvp(f, (flat,), (direction,))[1]
  np.testing.assert_allclose(forward, difference, rtol=1e-7)


def test_p5_permuting_vectors_permutes_coefficients() -> None:
  order = np.asarray([2, 0, 1])
  permuted = scale.bank(BASE, [MODELS[t] for t in order])
  coefs = draw(start('leaf'))
  moved = jax.tree.map(lambda x: x[order], coefs)
  close(scale.compose(BASE, BANK, coefs), scale.compose(BASE, permuted, moved))


def test_p6_the_linearised_model_is_linear() -> None:
  linear = scale.linearise(apply_fn, BASE)
  f0 = apply_fn(BASE, X)
  a, b = draw(start('leaf'), 1), draw(start('leaf'), 2)
  rise = lambda c: linear(scale.combine(BANK, c), X) - f0
  both = jax.tree.map(lambda x, y: 2.0 * x - 3.0 * y, a, b)
  close(rise(both), 2.0 * rise(a) - 3.0 * rise(b))


def test_p7_cached_tangents_give_the_linearised_model() -> None:
  linear = scale.linearise(apply_fn, BASE)
  f0 = apply_fn(BASE, X)
  coefs = draw(start('leaf'))
  wanted = f0
  for name in coefs.values:
    for t in range(T):
      one = jax.tree.map(jnp.zeros_like, coefs)
      one.values[name] = jnp.asarray(np.eye(T)[t])
      tangent = linear(scale.combine(BANK, one), X) - f0
      wanted = wanted + coefs[name][t] * tangent
  close(linear(scale.combine(BANK, coefs), X), wanted)


def test_p8_linearising_errs_by_the_square() -> None:
  linear = scale.linearise(apply_fn, BASE)
  coefs = draw(start('leaf'))

  def error(eps: float) -> float:
    small = jax.tree.map(lambda x: eps * x, coefs)
    model = apply_fn(scale.compose(BASE, BANK, small), X)
    return float(abs(model - linear(scale.combine(BANK, small), X)).max())

  assert error(1e-3) / error(1e-4) == pytest.approx(100, rel=0.02)


def test_p9_a_partition_of_equal_cells_is_leafwise() -> None:
  leafwise = draw(start('leaf'))
  cells = start(('random', 5))
  for name, x in leafwise.values.items():
    cells.values[name] = jnp.broadcast_to(x[:, None], (T, 5))
  close(scale.compose(BASE, BANK, cells), scale.compose(BASE, BANK, leafwise))


def test_p9_gathering_by_index_is_summing_one_hot_masks() -> None:
  cells = draw(start(('random', 5)))
  found = tree.named(scale.compose(BASE, BANK, cells))
  members = {}
  for name, x in tree.named(BASE).items():  # read the masks off a unit bank
    masks = []
    for k in range(5):
      one = jax.tree.map(
        lambda v, k=k: jnp.zeros_like(v).at[0, k].set(1), cells
      )
      ones = jax.tree.map(lambda v: jnp.ones((T, *v.shape)), BASE)
      unit = scale.as_bank(BASE, ones)
      masks.append(tree.named(scale.combine(unit, one))[name])
    assert np.array_equal(sum(masks), np.ones(x.shape))
    members[name] = masks
  stack = tree.named(deltas.stack(BASE, MODELS))
  for name, x in tree.named(BASE).items():
    wanted = x
    for t in range(T):
      for k, mask in enumerate(members[name]):
        wanted = wanted + cells[name][t, k] * mask * stack[name][t]
    np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-10)
  first, second = (np.argmax(members[f'block_{i}/w'], 0) for i in range(2))
  assert (first.ravel() != second.ravel()).any()  # leaves have their own


def test_p10_low_rank_vectors_are_one_concatenated_product() -> None:
  rng = np.random.default_rng(0)
  ranks = (2, 2, 1)
  factors = [
    scale.LowRank(
      jnp.asarray(rng.normal(size=(4, r))), jnp.asarray(rng.normal(size=(r, 4)))
    )
    for r in ranks
  ]
  base = {'w': BASE['block_0']['w']}
  low = scale.bank(base, [{'w': f} for f in factors])
  dense = scale.bank(
    base, [{'w': base['w'] + f.left @ f.right} for f in factors]
  )
  c = jnp.asarray([0.5, -2.0, 3.0])
  wanted = base['w'] + sum(
    c[i] * f.left @ f.right for i, f in enumerate(factors)
  )
  left = jnp.concatenate([c[i] * f.left for i, f in enumerate(factors)], 1)
  right = jnp.concatenate([f.right for f in factors])
  close(left @ right + base['w'], wanted)
  close(scale.compose(base, low, {'w': c})['w'], wanted)
  for by in ('leaf', 'channel', ('random', 3)):
    coefs = draw(scale.init(low, by=by, key=jax.random.key(0)))
    close(scale.compose(base, low, coefs), scale.compose(base, dense, coefs))
    g = {'w': BASE['block_0']['w']}
    close(scale.pull_back(low, g, coefs), scale.pull_back(dense, g, coefs))


@pytest.mark.parametrize('by', ['all', 'channel', ('random', 3)])
@pytest.mark.needs_devices(2)
def test_jit_vmap_and_shards_agree(by: Any) -> None:
  many = [draw(start(by), seed) for seed in range(2)]
  wanted = [scale.compose(BASE, BANK, c) for c in many]
  run = functools.partial(scale.compose, BASE, BANK)
  close(jax.jit(scale.compose)(BASE, BANK, many[0]), wanted[0])
  close(jax.vmap(run)(tree.stack(many)), tree.stack(wanted))
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ('x',))
  place = lambda axis: (
    lambda x: jax.device_put(
      x,
      jax.NamedSharding(
        mesh,
        jax.P(*[None] * axis, 'x') if x.ndim > axis else jax.P(),
      ),
    )
  )
  base = jax.tree.map(place(0), BASE)
  leaves = jax.tree.map(place(1), BANK.leaves)
  sharded = scale.bank(BASE, MODELS)
  sharded.leaves.update(leaves)
  grad = jax.jit(
    lambda b, k, c: jax.grad(lambda c: loss(scale.compose(b, k, c)))(c)
  )
  close(scale.compose(base, sharded, many[0]), wanted[0])
  close(grad(base, sharded, many[0]), grad(BASE, BANK, many[0]))


def test_the_base_may_be_traced_with_or_without_its_bank() -> None:
  coefs = draw(start('leaf'))
  wanted = scale.compose(BASE, BANK, coefs)
  close(jax.jit(lambda b: scale.compose(b, BANK, coefs))(BASE), wanted)
  stack = tree.map_named(lambda name, _: BANK.leaves[name], BASE)
  made = jax.jit(lambda b, s: scale.compose(b, scale.as_bank(b, s), coefs))
  close(made(BASE, stack), wanted)


def test_a_bfloat16_bank_is_summed_in_float32() -> None:
  base = {'w': jnp.ones((4, 4), jnp.bfloat16)}
  rng = np.random.default_rng(0)
  models = [
    {'w': jnp.asarray(1 + 0.1 * rng.normal(size=(4, 4)), jnp.bfloat16)}
    for _ in range(8)
  ]
  bank = scale.bank(base, models, dtype=jnp.bfloat16)
  assert bank.leaves['w'].dtype == jnp.bfloat16
  coefs = scale.init(bank, by='leaf', value=1 / 8)
  assert coefs['w'].dtype == jnp.float32
  found = scale.compose(base, bank, coefs)['w']
  assert found.dtype == jnp.bfloat16
  wide = np.asarray(bank.leaves['w'], np.float64).mean(0)
  total = np.asarray(scale.combine(bank, coefs)['w'])
  assert total.dtype == np.float32
  np.testing.assert_allclose(total, wide, atol=1e-7)
