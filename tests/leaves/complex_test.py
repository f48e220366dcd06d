"""Complex parameters: the value of two real leaves, or refused by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import align, landscape, scale, stats, stitch, train

KEY = jax.random.key(0)
X = np.random.default_rng(9).normal(size=(12, 4))


def model(seed: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)
  return {'v': draw(6, 3), 'w': draw(4, 6)}


def halves(params: Any) -> dict[str, Any]:
  """Returns the same model with two real leaves for each complex one."""
  parts = {name: (x.real, x.imag) for name, x in params.items()}
  return {f'{n}{k}': part[k] for n, part in parts.items() for k in (0, 1)}


def net(p: Any, x: Any) -> Any:
  h = jnp.abs(jnp.matmul(jnp.asarray(x, p['w'].dtype), p['w']))
  return jnp.abs(jnp.matmul(jnp.asarray(h, p['v'].dtype), p['v']))


def of_halves(p: Any, x: Any) -> Any:
  whole = lambda name: jax.lax.complex(*(p[f'{name}{k}'] for k in (0, 1)))
  return net({name: whole(name) for name in 'vw'}, x)


A, B, C = (model(seed) for seed in range(3))
SYMMETRY = align.find_symmetry(net, A, X)
OF_HALVES = align.find_symmetry(of_halves, halves(A), X)
GIVEN = {'symmetry': SYMMETRY, 'key': KEY}
BANK = scale.bank(A, [B, C])
HALVES = scale.bank(halves(A), [halves(B), halves(C)])


def loss_of(function: Callable[..., Any]) -> Callable[..., Any]:
  return lambda p, batch, key: jnp.mean(jnp.square(function(p, batch)))


@pytest.mark.parametrize('stream', [False, True])
def test_real_coefficients_of_complex_vectors_are_learned(stream: bool) -> None:
  found, wanted = (
    scale.fit(
      loss_of(function),
      base,
      bank,
      scale.init(bank, by='task', value=0.1),
      [X],
      optimizer=optax.sgd(1e-5),
      steps=3,
      key=KEY,
      stream=stream,
    )
    for function, base, bank in (
      (net, A, BANK),
      (of_halves, halves(A), HALVES),
    )
  )
  np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-12)
  values = (x.coefs.values['task'] for x in (found, wanted))
  np.testing.assert_allclose(*values, rtol=1e-12)


def test_scores_of_complex_vectors_are_slopes_of_the_loss() -> None:
  params = jax.tree.map(jnp.asarray, A)
  gradient = jax.grad(lambda p: loss_of(net)(p, X, None))(params)
  found = scale.select(BANK, gradient, budget=1, by='block')
  for t, name in enumerate(BANK.names):
    for leaf in A:
      direction = {k: (B, C)[t][k] - A[k] if k == leaf else 0 * A[k] for k in A}
      at = lambda s, d=direction: loss_of(net)(
        jax.tree.map(lambda x, y: x + s * y, params, d), X, None
      )
      slope = jax.grad(at)(0.0)
      np.testing.assert_allclose(found.scores[leaf][name], abs(slope))


def test_linear_models_are_those_of_the_halves() -> None:
  found = scale.linear_model(net, A)(B, X)
  wanted = scale.linear_model(of_halves, halves(A))(halves(B), X)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gains_of_units_are_those_of_the_halves() -> None:
  gains = align.unit_gains(A, B, symmetry=SYMMETRY)
  (wanted,) = align.unit_gains(
    halves(A), halves(B), symmetry=OF_HALVES
  ).values()
  (found,) = gains.values()
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  found, wanted = (
    list(align.mismatch(a, b, symmetry=symmetry).values())
    for a, b, symmetry in (
      (A, B, SYMMETRY),
      (halves(A), halves(B), OF_HALVES),
    )
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  found = align.agreement([A, B, C])
  wanted = align.agreement([*map(halves, (A, B, C))])
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  np.testing.assert_allclose(
    landscape.l2_reduction(A, B, C),
    landscape.l2_reduction(*map(halves, (A, B, C))),
    rtol=1e-12,
  )


def test_a_check_perturbs_complex_leaves() -> None:
  assert align.check(SYMMETRY, net, A, X, key=KEY).error < 1e-12
  # The units of v alone are no symmetry, at zeros that would hide it.
  rows = {'v': ((('h',),), (('c',),)), 'w': ((('x',),), (('u',),))}
  factors = (
    align.Factor('h', 6),
    *(align.Factor(n, s, 'pinned') for n, s in (('c', 3), ('x', 4), ('u', 6))),
  )
  wrong = align.Symmetry(
    factors,
    tuple(
      (leaf, tuple((segment,) for (segment,) in axes))
      for leaf, axes in rows.items()
    ),
  )
  zeros = jax.tree.map(np.zeros_like, A)
  assert align.check(wrong, net, zeros, X, key=KEY).error > 1e-3


FEATURES = X @ A['w']
LABELS = np.arange(12) % 3
REFUSED: dict[str, Callable[..., Any]] = {
  'activation_matching': lambda: align.activation_matching(
    A, B, symmetry=SYMMETRY, apply_fn=net, batches=[X]
  ),
  'fisher': lambda: stats.fisher(net, A, [X]),
  'gram': lambda: stats.gram(net, A, [X]),
  'joint_gram': lambda: stats.joint_gram(net, [A, B], [X]),
  'match_many': lambda: align.match_many([A, B], **GIVEN),
  'merge_many': lambda: align.merge_many([A, B], **GIVEN),
  'moments': lambda: stats.moments(net, A, [X]),
  'singular_alignment': lambda: landscape.singular_alignment(A, B),
  'sinkhorn': lambda: align.sinkhorn(A, B, **GIVEN, steps=2),
  'start': lambda: train.start(A, optimizer=optax.sgd(0.1)),
  'learned_matching': lambda: align.learned_matching(
    A, B, **GIVEN, loss_fn=lambda p, x: jnp.sum(net(p, x)), batches=[X]
  ),
  'straight_through': lambda: align.straight_through(
    A, B, **GIVEN, loss_fn=lambda p, x: jnp.sum(net(p, x)), batches=[X]
  ),
  'weight_matching': lambda: align.weight_matching(A, B, **GIVEN),
  'Adapter': lambda: stitch.Adapter(weight=A['w']),
  'cross_moments': lambda: stitch.fit(FEATURES, FEATURES),
}
REAL_FEATURES: dict[str, Callable[..., Any]] = {
  'class_means': lambda: stitch.class_means(FEATURES, LABELS, classes=3),
  'naswot': lambda: stitch.naswot([FEATURES]),
  'rbf_cka': lambda: stats.rbf_cka(FEATURES, FEATURES),
  'relative': lambda: stitch.relative(FEATURES, FEATURES[:3]),
  'retrieval': lambda: stitch.retrieval((FEATURES, LABELS), (X, LABELS)),
  'tip_adapter': lambda: scale.tip_adapter(FEATURES, LABELS, classes=3),
  'translate': lambda: stitch.translate(FEATURES, FEATURES, kind='orthogonal'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_other_functions_refuse_complex_leaves(name: str) -> None:
  with pytest.raises(ValueError, match=rf"^{name}: leaf '\w+' is complex") as e:
    REFUSED[name]()
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('name', REAL_FEATURES)
def test_complex_features_are_refused(name: str) -> None:
  with pytest.raises(ValueError, match=r'^features of complex128.*separate'):
    REAL_FEATURES[name]()
