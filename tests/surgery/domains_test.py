"""Experts of domains: a masked perceptron in two parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, surgery

N, C, WIDTH = 10, 3, 4
RNG = np.random.default_rng(0)
P = {
  'up': jnp.asarray(RNG.normal(size=(WIDTH, N))),
  'down': jnp.asarray(RNG.normal(size=(N, WIDTH))),
  'bias': jnp.asarray(RNG.normal(size=WIDTH)),
}
X = jnp.asarray(RNG.normal(size=(6, WIDTH)))
UNIT, INPUT = align.Factor('h', N), align.Factor('x', WIDTH, 'an input')
SYMMETRY = align.Symmetry(
  (UNIT, INPUT),
  (
    ('bias', ((('x',),),)),
    ('down', ((('h',),), (('x',),))),
    ('up', ((('x',),), (('h',),))),
  ),
)


APPLY = jax.jit(surgery.apply_experts, static_argnums=0)


def hidden(p, x):
  return jax.nn.relu(x @ p['up'])


def mlp(p, x):
  return hidden(p, x) @ p['down'] + p['bias'][None]


def test_an_expert_and_the_shared_one_are_the_masked_perceptron():
  activity = np.stack(
    [surgery.unit_activity(hidden, P, [X[i::C]]) for i in range(C)]
  )
  np.testing.assert_allclose(
    activity[0], np.abs(hidden(P, X[::C])).mean(0), rtol=1e-12
  )
  masks = surgery.domain_masks(activity, keep=0.7)
  assert masks.sum(1).tolist() == [7, 7, 7]
  shared = masks.all(0).sum()
  assert 0 < shared < 7
  experts = surgery.split_domains(P, masks, symmetry=SYMMETRY)
  assert experts.shared['up'].shape == (WIDTH, shared)
  assert experts.routed['up'].shape == (C, WIDTH, 7 - shared)
  h = np.asarray(hidden(P, X))
  for c in range(C):
    gates = jnp.zeros((6, C)).at[:, c].set(1)
    y = APPLY(mlp, experts, gates, X)
    wanted = (h * masks[c]) @ np.asarray(P['down']) + np.asarray(P['bias'])
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-13)
    assert np.abs(y - mlp(P, X)).max() > 1e-3
  # All units: every expert is the perceptron, whatever the gates.
  whole = surgery.domain_masks(activity, keep=1.0)
  experts = surgery.split_domains(P, whole, symmetry=SYMMETRY)
  y = surgery.apply_experts(
    mlp, experts, jnp.asarray(RNG.normal(size=(6, C))), X
  )
  np.testing.assert_allclose(y, mlp(P, X), rtol=1e-12)


def test_scores_and_loss_of_a_router_are_the_definition():
  h, masks = RNG.normal(size=(5, N)), RNG.uniform(size=(C, N)) < 0.5
  u = np.zeros_like(h)
  for q in (9, 8, 6, 4, 2):
    u += h > np.sort(h, -1)[:, ::-1][:, q - 1 : q]
  o = u @ masks.T / (3 * N)
  o = 10 * (o - o.mean(-1, keepdims=True))
  scores = jax.jit(surgery.domain_scores)
  found = scores(jnp.asarray(h), jnp.asarray(masks))
  np.testing.assert_allclose(found, o, rtol=1e-12, atol=1e-13)
  logits = RNG.normal(size=(5, C))
  soft = lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True)
  hard = 0.5 * np.eye(C)[o.argmax(-1)] + 0.5 / C
  logp = np.log(soft(logits))
  wanted = -(0.75 * hard * logp + 0.25 * soft(o) * logp).sum(-1).mean()
  loss = jax.jit(surgery.router_loss)(jnp.asarray(logits), found)
  np.testing.assert_allclose(loss, wanted, rtol=1e-12)


def test_bad_arguments_are_named():
  masks = np.ones((2, N), bool)
  masks[0, 0] = False
  for call, message in (
    (lambda: surgery.domain_masks(np.ones(3), keep=0.5), r'shape \(3,\)'),
    (lambda: surgery.domain_masks(np.ones((2, 3)), keep=0.1), r'keep=0\.1\)'),
    (lambda: surgery.domain_masks(np.ones((2, 3)), keep=1.5), r'keep=1\.5\)'),
    (
      lambda: surgery.split_domains(P, masks, symmetry=SYMMETRY),
      'the same number of units',
    ),
    (
      lambda: surgery.router_loss(jnp.ones((2, 3)), jnp.ones(3)),
      'one score for each logit',
    ),
    (
      lambda: surgery.domain_scores(jnp.ones((2, 4)), jnp.ones((2, 4))),
      'n >= 5',
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert len(str(error.value)) <= 200
