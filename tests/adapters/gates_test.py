"""Gates of ranks: the published formulas, and the plain LoRA as a limit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import adapters, merge, tree

N, OUT, R, ROWS = 6, 5, 8, 4
DTYPE = jax.dtypes.canonicalize_dtype('float64')
TOLERANCE = 1e-12 if np.float64 == DTYPE else 1e-5
VIEW = tree.Matrix(rows=(0,), columns=(1,))
DRAW = np.random.default_rng(0).standard_normal
A, B, X, W = (
  np.asarray(DRAW(shape), DTYPE)
  for shape in ((R, N), (OUT, R), (ROWS, N), (R, N))
)


def factors(a: Any = A, b: Any = B, scale: float = 0.5) -> adapters.Factors:
  return adapters.Factors(jnp.asarray(a), jnp.asarray(b), scale, (N, OUT), VIEW)


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(('partition', 'active'), [(1, 3), (2, 4)])
def test_smora(partition: int, active: int) -> None:
  router = W[: R // partition]
  bias = np.repeat(np.asarray(0.3 * DRAW(R // partition), DTYPE), partition)

  @jax.jit
  def call(x: Any, router: Any, bias: Any) -> Any:
    gates = adapters.smora_gates(
      x, router, bias=bias, active=active, partition=partition
    )
    return gates, adapters.project(x, factors(), gates=gates)

  gates, found = call(X, router, bias)
  for x, own, y in zip(X, np.asarray(gates), found):
    score = np.repeat(sigmoid(router @ x), partition) + bias
    chosen = np.argsort(-score, kind='stable')[:active]
    weights = np.zeros(R)
    weights[chosen] = active * score[chosen] / score[chosen].sum()
    np.testing.assert_allclose(own, weights, atol=TOLERANCE)
    # One active LoRA of rank q has one gate.
    blocks = own.reshape(-1, partition)
    np.testing.assert_array_equal(blocks, blocks[:, :1].repeat(partition, 1))
    wanted = 0.5 * B @ (weights * (A @ x))
    np.testing.assert_allclose(y, wanted, atol=10 * TOLERANCE)
    plain = adapters.gate(factors(), own)
    wide = 0.5 * np.asarray(plain.b) @ A
    np.testing.assert_allclose(wide @ x, wanted, atol=10 * TOLERANCE)


def test_equal_gates_of_all_ranks_are_the_plain_lora() -> None:

  @jax.jit
  def call(x: Any) -> Any:
    gates = adapters.smora_gates(x, jnp.zeros((R, N), DTYPE), active=R)
    gated = adapters.project(x, factors(), gates=gates)
    return gates, gated, adapters.project(x, factors())

  gates, *both = call(X)
  np.testing.assert_allclose(gates, 1, atol=TOLERANCE)
  plain = 0.5 * X @ A.T @ B.T
  for found in both:
    np.testing.assert_allclose(found, plain, atol=10 * TOLERANCE)


def test_the_router_learns_and_the_bias_balances() -> None:
  def loss(router: Any, bias: Any) -> Any:
    gates = adapters.smora_gates(X, router, bias=bias, active=2)
    return jnp.sum(jnp.square(adapters.project(X, factors(), gates=gates)))

  bias = jnp.zeros(R, DTYPE)
  of_router, of_bias = jax.jit(jax.grad(loss, (0, 1)))(W, bias)
  assert np.all(np.isfinite(of_router))
  assert np.any(of_router)
  assert not np.any(of_bias)

  @jax.jit
  def step(bias: Any) -> Any:
    gates = adapters.smora_gates(X + 1, jnp.asarray(W), bias=bias, active=2)
    return adapters.balance(bias, gates, rate=0.01), gates

  loads = []
  for _ in range(300):
    bias, gates = step(bias)
    loads.append(np.count_nonzero(np.asarray(gates), 0))
  assert loads[0].max() >= 3
  last = np.sum(loads[-100:], 0)
  assert last.min() > 0.6 * last.mean()
  assert last.max() < 1.4 * last.mean()


def test_mora() -> None:
  call = jax.jit(
    lambda x, temperature, threshold: adapters.mora_gates(
      x, factors(), active=4, temperature=temperature, threshold=threshold
    )
  )
  gates = call(X, 0.5, 0.1)
  dropped = 0
  for x, own in zip(X, np.asarray(gates)):
    score = np.abs(A @ x) / np.linalg.norm(A, axis=1) / 0.5
    share = np.exp(score) / np.exp(score).sum()
    chosen = [j for j in np.argsort(-share)[:4] if share[j] >= 0.1]
    dropped += 4 - len(chosen)
    weights = np.zeros(R)
    weights[chosen] = len(chosen) * share[chosen] / share[chosen].sum()
    np.testing.assert_allclose(own, weights, atol=TOLERANCE)
  assert dropped > 0
  # A threshold that no rank reaches leaves the best.
  most = call(X, 1.0, 1.0)
  np.testing.assert_allclose(np.sort(most)[:, -1], 1, atol=TOLERANCE)
  assert np.count_nonzero(np.asarray(most)) == ROWS


def test_all_ranks_of_all_tasks_are_their_sum() -> None:
  tasks = [factors(A[:3], B[:, :3], 2.0), factors(A[3:], B[:, 3:])]
  pool = merge.cat(
    adapters.stack([{'w': x} for x in tasks]), weights=[1.0, 1.0]
  )['w']
  # The smaller LoRA is filled with ranks of zeros, which are never active.
  assert pool.rank == 10

  @jax.jit
  def call(x: Any) -> Any:
    gates = adapters.mora_gates(x, pool, active=10, temperature=np.inf)
    return gates, adapters.project(x, pool, gates=gates)

  gates, found = call(X)
  assert np.count_nonzero(np.asarray(gates[0])) == R
  wanted = sum(x.scale * X @ np.asarray(x.b @ x.a).T for x in tasks)
  np.testing.assert_allclose(found, wanted, atol=10 * TOLERANCE)


def test_narrow_inputs_are_computed_in_float32() -> None:

  def call(x: Any, narrow: Any) -> Any:
    gates = adapters.mora_gates(x, narrow, active=2)
    return gates, adapters.project(x, narrow, gates=gates)

  given = jax.tree.map(
    lambda y: jax.ShapeDtypeStruct(np.shape(y), 'bfloat16'), (X, factors())
  )
  gates, found = jax.eval_shape(call, *given)
  assert gates.dtype == jnp.float32
  assert found.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: adapters.smora_gates(X, W, active=9), 'active=9'),
    (
      lambda: adapters.smora_gates(X, W[:4], active=3, partition=2),
      'a multiple of partition=2',
    ),
    (lambda: adapters.smora_gates(X[:, 1:], W, active=1), 'x has 5'),
    (
      lambda: adapters.smora_gates(X, W, active=1, bias=jnp.zeros(3)),
      r'bias has shape \(3,\)',
    ),
    (lambda: adapters.mora_gates(X, factors(), active=0), 'active=0'),
    (
      lambda: adapters.mora_gates(X, factors(), active=1, temperature=0.0),
      'temperature=0.0',
    ),
    (
      lambda: adapters.mora_gates(X, factors(), active=1, threshold=2.0),
      'threshold=2.0',
    ),
    (
      lambda: adapters.project(X, factors(), gates=jnp.ones((len(X), 1))),
      'give one gate for each rank',
    ),
    (lambda: adapters.gate(factors(), jnp.ones(1)), r'gates have shape \(1,\)'),
    (lambda: adapters.balance(jnp.zeros(3), jnp.ones((5, 1))), 'for each rank'),
    (lambda: adapters.project(X[:, 1:], factors()), 'have 6 inputs'),
    (
      lambda: adapters.project(X, factors(A[None], B[None])),
      'of 1 matrices',
    ),
  ],
)
def test_mistakes(call: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as found:
    call()
  assert len(str(found.value)) < 200
