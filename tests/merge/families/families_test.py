"""Families: one contract for all of them, and the definition of each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import adapters, deltas, merge, search, tree

T, NEAR = battery.T, 1e-10 if np.float64 == battery.FLOAT else 3e-5
VIEW = tree.Matrix(rows=(1,), columns=(0,))
WEIGHTS = np.asarray([0.5, -0.25, 0.0, 1.5])


def draw(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def lora(seed: int, rank: int, scale: float = 1.0) -> adapters.Factors:
  a, b = jnp.asarray(draw(seed, rank, 5)), jnp.asarray(draw(seed + 9, 8, rank))
  return adapters.Factors(a, b, scale, (8, 5), VIEW)


def numbers(x: Any) -> dict[str, np.ndarray]:
  return {name: np.asarray(v, np.float64) for name, v in tree.named(x).items()}


def near(found: Any, wanted: Any, atol: float = NEAR) -> None:
  wanted = numbers(wanted)
  for name, x in numbers(found).items():
    np.testing.assert_allclose(x, wanted[name], rtol=0, atol=atol, err_msg=name)


def families() -> dict[str, tuple[Any, Any]]:
  """Returns families of T models, and the part that their members share."""
  x = battery.stacked(T)
  loras = adapters.stack([{'w': lora(t, 1 + t % 2, t + 0.5)} for t in range(T)])
  twins = merge.twins(x, density=0.5)
  archive = search.archive(x, jnp.ones((T, 3)), size=T)
  return {
    'tall_masks': (merge.tall_masks(x, threshold=0.4), None),
    'emr': (merge.emr(x), None),
    'twins': (twins, twins.shared),
    'rmm': (merge.rmm(x, basis=1, rank=4), None),
    'loras': (loras, None),
    'tsv_compress': (merge.tsv_compress(x, form='factors'), None),
    'an archive': (archive.models, None),
  }


def test_a_mixture_is_the_sum_of_members_in_every_family() -> None:
  for name, (family, shared) in families().items():
    members = [numbers(merge.materialize(family, t)) for t in range(T)]
    rest = 0.0 if shared is None else 1 - WEIGHTS.sum()
    found = numbers(merge.materialize(family, WEIGHTS))
    for leaf, x in found.items():
      wanted = sum(w * m[leaf] for w, m in zip(WEIGHTS, members))
      wanted = wanted + (rest * numbers(shared)[leaf] if rest else 0.0)
      np.testing.assert_allclose(x, wanted, atol=30 * NEAR, err_msg=name)


def test_members_of_stacks_are_their_entries() -> None:
  x = battery.stacked(T)
  one = lambda v: jax.tree.map(lambda v: v[2], v)
  near(merge.materialize(x, jnp.asarray(2)), one(x))
  found = merge.tsv_compress(x, form='factors')
  near(merge.materialize(found, 2), one(merge.tsv_compress(x)))
  loras = [{'w': lora(t, 1 + t % 2, t + 0.5)} for t in range(T)]
  want = {'w': adapters.dense(loras[2]['w'])}
  near(merge.materialize(adapters.stack(loras), 2), want)


def truncated(x: np.ndarray, rank: int) -> np.ndarray:
  u, s, vt = np.linalg.svd(x, full_matrices=False)
  return (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]


def test_twins_are_the_definition() -> None:
  x = numbers(battery.stacked(T))
  share = {name: 0.3 * v.sum(0) for name, v in x.items()}
  shared = tree.nest(jax.tree.map(jnp.asarray, share), separator='/')
  shared['step'] = None
  family = merge.twins(battery.stacked(T), density=0.5, shared=shared)
  for t in range(2):
    wanted = {
      name: share[name] + truncated(v[t] - share[name], 2)
      if v.ndim == 3
      else v[t]
      for name, v in x.items()
    }
    near(merge.materialize(family, t), wanted)
  large = merge.twins(
    battery.stacked(T), density=0.25, shared=shared, compress='magnitude'
  )
  rest = np.abs(x['block_0/w'] - share['block_0/w'][None]).reshape(T, -1)
  kept = np.asarray(large.exclusive['block_0']['w']).reshape(T, -1)
  floor = np.sort(rest, 1)[:, -8:-7]
  np.testing.assert_array_equal(kept != 0, rest >= floor)


@pytest.mark.same_under_defaults('the definition runs under both')
def test_whole_twins_are_the_experts_whatever_is_shared() -> None:
  x = battery.stacked(T)
  for options in (
    {'shared': jax.tree.map(lambda v: 9 * v[1], x)},
    {'compress': 'magnitude'},
    {'compress': 'random', 'key': battery.KEY},
  ):
    family = merge.twins(x, density=1.0, **options)
    near(
      merge.materialize(family, 3), jax.tree.map(lambda v: v[3], x), 10 * NEAR
    )


def restored(x: np.ndarray, p: int) -> np.ndarray:
  """Projects ``[T, n, r]`` on p directions for each of n units."""
  mean = x.mean(0)
  rest = truncated(np.moveaxis(x - mean, 0, 1), p)
  return mean + np.moveaxis(rest, 1, 0)


def test_rmm_is_the_definition() -> None:
  loras = [lora(t, 3, 0.5 + t) for t in range(T)]
  stack = adapters.stack([{'w': x} for x in loras])
  a = np.stack([np.asarray(x.a).T for x in loras]).astype(np.float64)
  b = np.stack([x.scale * np.asarray(x.b) for x in loras]).astype(np.float64)
  exact = np.einsum('tor,tir->toi', b, a)
  for p in (0, 1, 2, 3):
    family = merge.rmm(stack, basis=p)
    wanted = np.einsum('tor,tir->toi', restored(b, p), restored(a, p))
    for t in range(2):
      near(merge.materialize(family, t), {'w': wanted[t]}, 30 * NEAR)
  np.testing.assert_allclose(wanted, exact, atol=1e-12)  # p = min(r, T - 1)


@pytest.mark.same_under_defaults('shapes do not depend on dtypes')
def test_rmm_has_the_size_of_its_formula() -> None:
  r, models, p = 16, 8, 3
  shapes = lambda n: jax.ShapeDtypeStruct((models, r, n), np.float32)
  stack = adapters.Factors(
    shapes(12),
    jax.ShapeDtypeStruct((models, 20, r), np.float32),
    jax.ShapeDtypeStruct((models,), np.float32),
    (20, 12),
    VIEW,
  )
  family = jax.eval_shape(lambda x: merge.rmm({'w': x}, basis=p), stack)
  entries = sum(x.size for x in jax.tree.leaves(family))
  ratio = (p * (r + models) + r) / (r * models)
  assert entries == ratio * (12 + 20) * r * models
  assert ratio == 0.6875


@pytest.mark.same_under_defaults('the axes do not depend on the dtype')
def test_views_are_compressed_matrix_by_matrix() -> None:
  view = tree.Matrix(batch=(0,), rows=(1,), columns=(2, 3))  # scanned queries
  x = draw(5, T, 2, 4, 2, 3)
  tau, matrices = {'q': jnp.asarray(x)}, {'q': view}
  flat = x.reshape(T, 2, 4, 6)
  family = merge.tsv_compress(tau, kept=0.5, form='factors', matrices=matrices)
  wanted = truncated(flat, 2)[3].reshape(2, 4, 2, 3)
  near(merge.materialize(family, 3), {'q': wanted})
  shared = flat.mean(0)
  twins = merge.twins(tau, density=0.5, matrices=matrices)
  wanted = (shared + truncated(flat - shared, 2))[1].reshape(2, 4, 2, 3)
  near(merge.materialize(twins, 1), {'q': wanted})
  family = merge.rmm(tau, basis=3, rank=4, matrices=matrices)
  near(merge.materialize(family, 1), {'q': x[1]}, 100 * NEAR)


def test_a_router_is_the_linear_discriminant() -> None:
  tasks = np.arange(60) % 3
  h = draw(0, 60, 4) + 3 * np.eye(4)[tasks]
  router = merge.fit_router(
    jnp.asarray(h), jnp.asarray(tasks), count=4, shrink=0.1
  )
  means = np.stack([h[tasks == t].mean(0) for t in range(3)])
  inside = h - means[tasks]
  s = inside.T @ inside / 60
  s += 0.1 * np.trace(s) / 4 * np.eye(4)
  logits = h @ np.linalg.solve(s, means.T)
  logits += np.log(1 / 3) - 0.5 * np.diag(means @ np.linalg.solve(s, means.T))
  wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  found = merge.route(router, jnp.asarray(h))
  np.testing.assert_allclose(found[:, :3], wanted, atol=10 * NEAR)
  assert not np.asarray(found[:, 3]).any()  # the last task has no inputs
  assert (np.argmax(found, 1) == tasks).mean() > 0.9


def test_each_input_has_a_model_of_its_own() -> None:
  x = {'w': jnp.asarray(draw(1, 3, 4, 2))}
  base = {'w': jnp.asarray(draw(2, 4, 2))}
  family = merge.twins(x, density=1.0)
  inputs = jnp.asarray(draw(3, 5, 4))
  tasks = np.asarray([2, 0, 1, 1, 2])

  def one(weights: Any, row: Any) -> Any:
    params = deltas.apply(base, merge.materialize(family, weights))
    return row @ params['w']

  found = jax.vmap(one)(jnp.eye(3)[tasks], inputs)
  experts = np.asarray(base['w']) + np.asarray(x['w'])
  wanted = np.einsum('bi,bio->bo', inputs, experts[tasks])
  np.testing.assert_allclose(found, wanted, atol=10 * NEAR)


def test_cat_is_the_weighted_sum_in_factors() -> None:
  loras = [{'w': lora(t, 1 + t, 0.5 + t), 'b': jnp.ones(3)} for t in range(2)]
  stack = adapters.stack(loras)
  wanted = merge.materialize(stack, [0.5, -2.0])
  found = jax.jit(lambda w: merge.cat(stack, weights=w))(np.asarray([0.5, -2]))
  assert found['w'].a.shape == (4, 5)
  near({'w': adapters.dense(found['w']), 'b': found['b']}, wanted, 10 * NEAR)
  each = {'w': jnp.asarray([0.5, -2.0]), 'b': jnp.ones(2)}
  leaves = merge.cat(stack, weights=each)
  near(leaves['w'].b, found['w'].b)
  assert leaves['b'].tolist() == [2.0] * 3
  total = lambda w: jnp.sum(adapters.dense(merge.cat(stack, weights=w)['w']))
  slope = jax.grad(total)(jnp.ones(2))
  sums = [float(jnp.sum(adapters.dense(x['w']))) for x in loras]
  np.testing.assert_allclose(slope, sums, atol=100 * NEAR)


def test_passthrough_copies_and_scales() -> None:
  model = {'w': jnp.asarray([1.0, -3.0]), 'step': jnp.asarray(7)}
  found = merge.passthrough(model, scale={'w': 0.5, '.*': 1.0})
  assert found['w'].tolist() == [0.5, -1.5]
  assert found['step'] == 7
  assert merge.passthrough(model)['w'].tolist() == [1.0, -3.0]


@pytest.mark.same_under_defaults('messages do not depend on dtypes')
def test_bad_loras_are_named() -> None:
  one, other = lora(0, 2), {'w': jnp.ones((8, 5))}
  for loras, message in (
    ([], 'no LoRAs given'),
    ([{'w': one}, {}], "leaf 'w' is in only one of LoRAs 0 and 1"),
    ([{'w': one}, other], "leaf 'w' of LoRA 1 is an array of shape \\(8, 5\\)"),
  ):
    with pytest.raises(ValueError, match=message):
      adapters.stack(loras)
