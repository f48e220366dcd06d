"""Models with factored weights: equal to dense ones, without their products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, deltas, jaxprs, models, tree

DTYPE = jax.dtypes.canonicalize_dtype('float64')
TOLERANCE = 1e-12 if np.float64 == DTYPE else 1e-4
DRAW = np.random.default_rng(0).standard_normal


def draw(*shape: int) -> jax.Array:
  return jnp.asarray(DRAW(shape), DTYPE)


def factors(shape: Any, view: tree.Matrix, rank: int = 2) -> adapters.Factors:
  groups, m, n = view.sizes(shape)
  a, b = draw(groups, rank, m), draw(groups, n, rank)
  if not view.batch:
    a, b = a[0], b[0]
  return adapters.Factors(a, b, 0.5, shape, view)


def sizes(jaxpr: Any) -> set[int]:
  """Returns the sizes of all values of a program and its inner ones."""
  found = set()
  for eqn in jaxpr.eqns:
    found |= {int(np.prod(v.aval.shape)) for v in eqn.outvars}
    for inner in jaxprs.inner(eqn):
      found |= sizes(inner)
  return found


def network(p: Any, x: Any, flag: bool = True) -> Any:
  """Uses weights in many ways: products but for the last."""
  h = jax.jit(lambda w, x: x @ w)(p['plain'], x)  # [2, 11]
  h = h + jnp.einsum('oi,bi->bo', p['torch'], x)
  heads = jnp.einsum('bi,hik->bhk', h, p['heads'])
  h = jnp.tanh(jnp.einsum('bhk,hik->bi', heads, p['heads'])) if flag else h
  tied = jnp.tanh(h @ p['tied'].T) @ p['tied']

  def layer(h: Any, w: Any) -> Any:
    return jax.checkpoint(lambda h, w: jnp.tanh(h @ w))(h, w), None

  h, _ = jax.lax.scan(layer, tied, p['layers'])
  return {'y': h, 'rows': p['table'][jnp.asarray([3, 1])]}


VIEWS = {
  'plain': ((13, 11), tree.Matrix(rows=(0,), columns=(1,))),
  'torch': ((11, 13), tree.Matrix(rows=(1,), columns=(0,))),
  'heads': ((3, 11, 5), tree.Matrix(rows=(1,), columns=(2, 0))),
  'tied': ((17, 11), tree.Matrix(rows=(1,), columns=(0,))),
  'layers': ((4, 11, 11), tree.Matrix(batch=(0,), rows=(1,), columns=(2,))),
  'table': ((7, 19), tree.Matrix(rows=(0,), columns=(1,))),
}
FACTORS = {k: factors(*x) for k, x in VIEWS.items()}
BASE = {k: draw(*shape) for k, (shape, _) in VIEWS.items()}
X = draw(2, 13)


def test_a_factored_model_is_the_dense_one() -> None:
  run = jax.jit(lambda p, x: adapters.call(network, p, x, True))
  dense = jax.jit(network)(adapters.dense(FACTORS), X)
  found = run(FACTORS, X)
  for name, x in dense.items():
    np.testing.assert_allclose(found[name], x, rtol=0, atol=TOLERANCE)
  # No product of factors is computed, except for the look-up of rows.
  program = jax.make_jaxpr(run)(FACTORS, X)
  products = {int(np.prod(s)) for k, (s, _) in VIEWS.items() if k != 'table'}
  assert not sizes(program.jaxpr) & {*products, 11 * 11}
  assert 7 * 19 in sizes(program.jaxpr)


def test_loras_beside_a_base() -> None:
  delta = {k: FACTORS[k] for k in ('plain', 'torch', 'heads', 'layers', 'tied')}
  delta['table'] = 0.1 * BASE['table']

  def loss(delta: Any, dense: bool) -> Any:
    if dense:
      found = network(deltas.apply(BASE, delta), X)
    else:
      found = adapters.call(network, BASE, X, delta=delta)
    return jnp.sum(jnp.square(found['y'])) + jnp.sum(found['rows'])

  both = jax.jit(
    lambda d: [jax.value_and_grad(loss)(d, dense) for dense in (True, False)]
  )(delta)
  wanted, found = both
  np.testing.assert_allclose(found[0], wanted[0], rtol=TOLERANCE)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=10 * TOLERANCE * np.abs(y).max()
    ),
    found[1],
    wanted[1],
  )


def test_loras_of_the_language_model_under_vmap() -> None:
  model = models.LanguageModel(
    vocabulary=13, width=8, depth=1, heads=2, hidden=12
  )
  tokens = jnp.asarray([[1, 5, 2, 12]], jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)['params']
  params = jax.tree.map(lambda x: jnp.asarray(DRAW(x.shape), x.dtype), params)
  bases = adapters.orthogonal_bases(
    params, rank=2, tasks=range(2), key=jax.random.key(1), leaves='block'
  )
  loras = jax.tree.map(lambda x: x + 0.1, bases)
  apply_fn = lambda p, x: model.apply({'params': p}, x)
  one = lambda lora: adapters.call(apply_fn, params, tokens, delta=lora)
  found = jax.jit(jax.vmap(one))(loras)
  dense = adapters.dense(jax.tree.map(lambda x: x[1], loras))
  full = tree.map_named(lambda name, x: dense.get(name), params)
  wanted = jax.jit(apply_fn)(deltas.apply(params, full), tokens)
  np.testing.assert_allclose(found[1], wanted, rtol=0, atol=1e-4)
  assert np.abs(found[0] - found[1]).max() > 1e-2


@pytest.mark.parametrize(
  ('delta', 'message'),
  [
    ({'other': FACTORS['plain']}, 'no such leaf'),
    (adapters.stack([{'plain': FACTORS['plain']}]), 'is a stack'),
    ({'plain': FACTORS['torch']}, r'shape \(11, 13\), the model \(13, 11\)'),
  ],
)
def test_mistakes(delta: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as found:
    adapters.call(network, BASE, X, delta=delta)
  assert len(str(found.value)) < 200
