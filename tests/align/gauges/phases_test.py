"""Phases: complex numbers of pairs of entries, as under RoPE."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.gauges.rope import (
  D,
  F,
  H,
  interleaved,
  on_all,
  PLAIN,
  POSITIONS,
  RNG,
  rotate_half,
  S,
  shapes,
  split,
  X,
)
from tests.align.gauges.rotary import (
  attention,
  BY_HAND,
  looked_up,
)
from wsl import align


def phases(symmetry):
  return [a for a in symmetry.actions if a.kind == 'phase']


def dimension(symmetry):
  sizes = [symmetry.action_shape(a.name) for a in phases(symmetry)]
  units = [a.unit for a in phases(symmetry)]
  return sum(
    int(np.prod(s[:-1])) * (1 if unit else 2) for s, unit in zip(sizes, units)
  )


@functools.cache
def found(name):
  apply, sizes, _ = BY_HAND[name]
  return align.find_symmetry(apply, shapes(**sizes), X)


@pytest.mark.parametrize('name', BY_HAND)
def test_phases_by_hand(name):
  *_, wanted = BY_HAND[name]
  symmetry = found(name)
  assert dimension(symmetry) == wanted
  assert align.from_json(align.to_json(symmetry)) == symmetry
  # What the phases contain is not listed again.
  rest = [a for a in symmetry.actions if a.kind in ('sign', 'scale')]
  over = {f for a in phases(symmetry) for f in a.over}
  leaves = {p.leaf for a in phases(symmetry) for p in a.powers}
  inside = [a for a in rest if {p.leaf for p in a.powers} <= leaves]
  assert not {a.factor for a in inside} & over


CHECKED = (
  'rotate half', 'interleaved', 'complex', 'partly', 'axes of heads', 'scan',
  'fused and partly', 'latent', 'biases', 'norms', 'other frequencies',
)  # fmt: skip


@pytest.mark.parametrize('name', CHECKED)
def test_phases_keep_the_output(name):
  apply, sizes, _ = BY_HAND[name]
  symmetry, key = found(name), jax.random.key(0)
  report = align.check(symmetry, apply, shapes(**sizes), X, key=key)
  assert report.errors['every phase'] < 1e-12
  assert report.error < 1e-11


def both_positive(x, angle):
  """RoPE with a wrong sign of one sine."""
  a, b = jnp.split(x, 2, -1)
  cos, sin = jnp.cos(on_all(angle)), jnp.sin(on_all(angle))
  return jnp.concatenate([a * cos + b * sin, b * cos + a * sin], -1)


def two_angles(x, angle):
  """The cosines of one part belong to other angles."""
  a, b = jnp.split(x, 2, -1)
  cos, sin = jnp.cos(on_all(angle)), jnp.sin(on_all(angle))
  return jnp.concatenate([a * cos - b * sin, b * cos**2 + a * sin], -1)


def rows_and_columns(x, angle):
  """The angles of one part vary along the batch, those of the other do not."""
  a, b = jnp.split(x, 2, -1)
  (c, s), (d, t) = (
    (jnp.cos(y), jnp.sin(y)) for y in (on_all(angle), angle[:, None])
  )
  return jnp.concatenate([a * c - b * s, b * d + a * t], -1)


def shifted(x, angle):
  """One part is that of the position before."""
  a, b = jnp.split(split(x, angle), 2, -1)
  return jnp.concatenate([a, jnp.roll(b, 1, 1)], -1)


MASK = jnp.asarray([1.0, 1, 1, 1, 0, 0])
SQUARE = jnp.asarray(RNG.normal(size=(S, S, D)))
WITHOUT = {
  'wrong sign': attention(both_positive),
  'two angles': attention(two_angles),
  'rows and columns': attention(rows_and_columns),
  'shifted': attention(shifted),
  'layouts that differ': attention(split, interleaved),
  'frequencies in another order': attention(
    after=lambda p, q, k: (q, k[..., ::-1])
  ),
  'nonlinear': attention(after=lambda p, q, k: (jnp.tanh(q), k)),
  'a number added': attention(after=lambda p, q, k: (q + 1.0, k)),
  'real parts only': attention(after=lambda p, q, k: (q[..., :F], k[..., :F])),
  'a mask of entries': attention(
    after=lambda p, q, k: (
      q * jnp.where(jnp.arange(6) < 4, 1.0, 0.0)[None, None, None],
      k,
    )
  ),
  'keys are values': lambda p, x: attention()({**p, 'v': p['k']}, x),
  'keys are an output': lambda p, x: (attention()(p, x), x @ p['k']),
}


@pytest.mark.parametrize('name', WITHOUT)
def test_without_phases(name):
  symmetry = align.find_symmetry(WITHOUT[name], shapes(**PLAIN), SQUARE)
  assert not phases(symmetry)


def test_positions_may_be_inputs():
  for rope in (split, rotate_half, interleaved):
    symmetry = align.find_symmetry(
      attention(rope), shapes(**PLAIN), X, POSITIONS
    )
    assert dimension(symmetry) == 2 * H * F
  symmetry = align.find_symmetry(looked_up, shapes(**PLAIN), X, POSITIONS)
  assert dimension(symmetry) == 2 * H * F


def test_gains_that_are_one_leave_angles():
  apply, sizes, _ = BY_HAND['gain of entries']
  symmetry = align.find_symmetry(apply, shapes(**sizes), X, ones='^g$')
  (action,) = phases(symmetry)
  assert action.unit
  assert dimension(symmetry) == H * F


def values(sizes, seed=0):
  draw = np.random.default_rng(seed)
  return {n: draw.normal(size=s) for n, s in sizes.items()}


@pytest.mark.parametrize('name', ['rotate half', 'interleaved', 'norms'])
def test_elements_are_complex_numbers(name):
  *_, sizes, _ = BY_HAND[name]
  symmetry, model = found(name), values(BY_HAND[name][1])
  (action,) = phases(symmetry)
  shape = symmetry.action_shape(action.name)
  assert shape == (H, F, 2)
  table = np.random.default_rng(1).normal(size=shape)
  z = table[..., 0] + 1j * table[..., 1]
  z = z / abs(z) if action.unit else z
  gauge = align.identity(symmetry) | {action.name: jnp.asarray(table)}
  moved = align.permute(model, gauge, symmetry=symmetry)
  for p in action.powers:
    x, y = (np.asarray(m[p.leaf]).reshape(D, H, -1, 6) for m in (model, moved))
    if name == 'interleaved':
      x, y = (m[..., ::2] + 1j * m[..., 1::2] for m in (x, y))
    else:
      x, y = (m[..., :F] + 1j * m[..., F:] for m in (x, y))
    factor = z if p.power == 1 else 1 / z.conj()
    np.testing.assert_allclose(y, factor[None, :, None] * x, 1e-12, 1e-12)
  assert len({p.power for p in action.powers}) == (1 if action.unit else 2)
  still = {*sizes} - {p.leaf for p in action.powers}
  assert all((moved[n] == model[n]).all() for n in still)


def test_elements_form_a_group():
  apply, sizes, _ = BY_HAND['rotate half']
  symmetry = align.find_symmetry(
    apply, shapes(**sizes), X, gauges=('permutation', 'phase')
  )
  model, draw = values(sizes), np.random.default_rng(2)

  def element():
    groups = {g.name: symmetry.table_shape(g.name) for g in symmetry.groups}
    orders = {
      n: draw.permuted(np.broadcast_to(np.arange(s[-1]), s), axis=-1)
      for n, s in groups.items()
    }
    names = [a.name for a in phases(symmetry)]
    tables = {n: draw.normal(size=symmetry.action_shape(n)) for n in names}
    return {n: jnp.asarray(x) for n, x in (orders | tables).items()}

  g, h = element(), element()
  g |= {'k:1.0': jnp.asarray([1, 0])}  # exchanges the heads of keys
  move = lambda p, x: align.permute(p, x, symmetry=symmetry)
  close = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), a, b
  )
  both = align.compose(g, h, symmetry=symmetry)
  close(move(model, both), move(move(model, g), h))
  close(move(move(model, g), align.invert(g, symmetry=symmetry)), model)


def test_a_wrong_power_is_noticed():
  apply, sizes, _ = BY_HAND['rotate half']
  symmetry = found('rotate half')
  (action,) = phases(symmetry)
  wrong = action._replace(
    powers=tuple(p._replace(power=1) for p in action.powers)
  )
  symmetry = dataclasses.replace(symmetry, actions=(wrong,))
  report = align.check(
    symmetry, apply, shapes(**sizes), X, key=jax.random.key(0)
  )
  assert report.errors['every phase'] > 1e-3


def test_older_files_have_no_phases():
  text = align.to_json(found('rotate half'))
  symmetry = align.from_json(text)
  old = [[*a[:4], False] for a in symmetry.actions if a.kind != 'phase']
  content = json.loads(text) | {'actions': old}
  (action,) = align.from_json(json.dumps(content)).actions
  assert action.kind == 'linear'
  assert action.over == ()
