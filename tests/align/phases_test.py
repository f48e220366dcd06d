"""Phases: complex numbers of pairs of entries, as under RoPE."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align

RNG = np.random.default_rng(0)
B, S, D, H, F = 2, 5, 4, 2, 3  # batch, positions, inputs, heads, frequencies
X = jnp.asarray(RNG.normal(size=(B, S, D)))
POSITIONS = jnp.asarray([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])


def shapes(**sizes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}


PLAIN = {'q': (D, 12), 'k': (D, 12), 'v': (D, 12), 'o': (12, D)}
GROUPED = {**PLAIN, 'q': (D, 24), 'o': (24, D)}


def angles(positions=None, count=F):
  frequencies = 100.0 ** -(jnp.arange(count, dtype=X.dtype) / count)
  if positions is None:
    return jnp.arange(S, dtype=X.dtype)[:, None, None] * frequencies[None, None]
  positions = positions.astype(X.dtype)[:, :, None, None]
  return positions * frequencies[None, None, None]


def turn(a, b, angle):
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return a * cos - b * sin, b * cos + a * sin


def on_all(angle):
  return angle if angle.ndim == 4 else angle[None]


def split(x, angle):
  a, b = jnp.split(x, 2, -1)
  return jnp.concatenate(turn(a, b, on_all(angle)), -1)


def rotate_half(x, angle):
  half = x.shape[-1] // 2
  angle = on_all(jnp.concatenate([angle, angle], -1))
  other = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def rolled(x, angle):
  half = x.shape[-1] // 2
  sign = jnp.where(jnp.arange(2 * half) < half, -1.0, 1.0)
  angle = on_all(jnp.concatenate([angle, angle], -1))
  other = jnp.roll(x, half, -1) * sign[None, None, None]
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def interleaved(x, angle):
  pair = turn(x[..., ::2], x[..., 1::2], on_all(angle))
  return jnp.stack(pair, -1).reshape(x.shape)


def pairs(x, angle):
  y = x.reshape(*x.shape[:-1], -1, 2)
  pair = turn(y[..., 0], y[..., 1], on_all(angle))
  return jnp.stack(pair, -1).reshape(x.shape)


def repeated(x, angle):
  other = jnp.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
  angle = on_all(jnp.repeat(angle, 2, -1))
  return x * jnp.cos(angle) + other * jnp.sin(angle)


def complexly(x, angle):
  half = x.shape[-1] // 2
  z = jax.lax.complex(x[..., :half], x[..., half:])
  angle = on_all(angle)
  z = z * jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
  return jnp.concatenate([z.real, z.imag], -1)


def partly(x, angle):
  turned = split(x[..., :4], angle[..., :2])
  return jnp.concatenate([turned, x[..., 4:]], -1)


def partly_interleaved(x, angle):
  turned = interleaved(x[..., :4], angle[..., :2])
  return jnp.concatenate([turned, x[..., 4:]], -1)


def heads(y):
  return y.reshape(*y.shape[:2], -1, 2 * F)


def scores(q, k):
  return jnp.einsum('bqhd,bkhd->bhqk', q, k)


def attend(q, k, v, score=scores):
  """Grouped heads repeat the keys and values."""
  count = q.shape[2] // k.shape[2]
  k, v = jnp.repeat(k, count, 2), jnp.repeat(v, count, 2)
  y = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(score(q, k)), v)
  return y.reshape(*y.shape[:2], -1)


def attention(rope=split, other=None, before=None, after=None, score=scores):
  """Attention with changes of queries and keys before and after RoPE."""

  def apply(p, x, positions=None):
    q, k, v = (heads(x @ p[n]) for n in 'qkv')
    if before:
      q, k = before(p, q, k)
    angle = angles(positions)
    q, k = rope(q, angle), (other or rope)(k, angle)
    if after:
      q, k = after(p, q, k)
    return attend(q, k, v, score) @ p['o']

  return apply


def library(p, x):
  q, k, v = (heads(x @ p[n]) for n in 'qkv')
  q, k = split(q, angles()), split(k, angles())
  with jax.numpy_dtype_promotion('standard'):
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def head_axes(p, x):
  """Heads are an axis of the leaves, and come first."""
  q, k, v = (jnp.einsum('bsd,hde->bhse', x, p[n]) for n in 'qkv')
  rope = lambda y: rotate_half(y.swapaxes(1, 2), angles()).swapaxes(1, 2)
  weights = jax.nn.softmax(rope(q) @ rope(k).mT)
  return jnp.einsum('bhqk,bhke,hed->bqd', weights, v, p['o'])


def mapped(p, x):
  """One head, mapped over heads."""

  def head(w):
    rope = lambda y: split(y[:, :, None], angles())[:, :, 0]
    weights = jax.nn.softmax(rope(x @ w['q']) @ rope(x @ w['k']).mT)
    return weights @ (x @ w['v']) @ w['o']

  return jax.vmap(head)(p).sum(0)


def multi_query(p, x):
  q, k, v = heads(x @ p['q']), (x @ p['k'])[:, :, None], (x @ p['v'])
  q, k = split(q, angles()), split(k, angles())[:, :, 0]
  weights = jax.nn.softmax(jnp.einsum('bqhd,bkd->bhqk', q, k))
  y = jnp.einsum('bhqk,bkd->bqhd', weights, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def scanned(p, x):
  apply = attention()
  step = lambda h, w: (h + apply(w, h), None)
  h, _ = jax.lax.scan(step, x @ p['e'], {n: p[n] for n in 'qkvo'})
  return h @ p['u']


def neox(p, x):
  """Queries, keys and values inside of heads, two thirds of them rotated."""
  y = (x @ p['w'] + p['b'][None, None]).reshape(B, S, H, 18)
  q, k, v = jnp.split(y, 3, -1)
  return attend(partly(q, angles()), partly(k, angles()), v) @ p['o']


def latent(p, x):
  """Keys of positions are shared by the heads."""
  q = (x @ p['q']).reshape(B, S, H, 7)
  c = x @ p['c']
  kv = (c[..., :4] @ p['kv']).reshape(B, S, H, 6)
  rope = lambda y: split(y, angles(count=2))
  turned = jnp.broadcast_to(rope(c[..., None, 4:]), (B, S, H, 4))
  q = jnp.concatenate([q[..., :3], rope(q[..., 3:])], -1)
  k = jnp.concatenate([kv[..., :3], turned], -1)
  return attend(q, k, kv[..., 3:]) @ p['o']


def unit(x):
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def norm_of(gain):
  return lambda p, q, k: (unit(q) * gain(p), unit(k))


def merged(p, x):
  return attention()({**p, 'q': p['q'] + p['a'] @ p['b']}, x)


def looked_up(p, x, positions):
  """Tables of cosines and sines, of which rows are looked up."""
  table = angles(jnp.arange(9)[None])[0, :, 0]
  table = jnp.concatenate([table, table], -1)
  cos, sin = (f(table)[positions][:, :, None] for f in (jnp.cos, jnp.sin))

  def rope(y, angle):
    other = jnp.concatenate([-y[..., F:], y[..., :F]], -1)
    return y * cos + other * sin

  return attention(rope)(p, x)


SINGLE = {n: (H, D, 6) for n in 'qkv'} | {'o': (H, 6, D)}
BIAS = lambda p, q, k: (q + p['b'].reshape(1, 1, H, 6), k + p['c'][None, None])
SIZES = jnp.exp(0.1 * on_all(jnp.concatenate([angles()] * 2, -1)))
SUMS = lambda x: x.sum(-1).transpose(0, 3, 1, 2)
TWICE = lambda x: jnp.concatenate([x, x])[None, None, None]
# The dimension by hand: 2 for each frequency and head of keys, the angle and
# the modulus; 1 if norms fix the modulus.
BY_HAND = {
  'split': (attention(), PLAIN, 2 * H * F),
  'rotate half': (attention(rotate_half), GROUPED, 2 * H * F),
  'rolled': (attention(rolled), PLAIN, 2 * H * F),
  'interleaved': (attention(interleaved), GROUPED, 2 * H * F),
  'pairs': (attention(pairs), PLAIN, 2 * H * F),
  'repeated': (attention(repeated), PLAIN, 2 * H * F),
  'complex': (attention(complexly), PLAIN, 2 * H * F),
  'partly': (attention(partly), GROUPED, 2 * H * 2),
  'partly interleaved': (attention(partly_interleaved), PLAIN, 2 * H * 2),
  'library': (library, GROUPED, 2 * H * F),
  'axes of heads': (head_axes, SINGLE, 2 * H * F),
  'mapped heads': (mapped, SINGLE, 2 * H * F),
  # All heads read one key.
  'multi-query': (
    multi_query, {**PLAIN, 'k': (D, 6), 'v': (D, 6)}, 2 * F,
  ),
  # In each of 3 layers.
  'scan': (
    scanned,
    {n: (3, 4, 12) for n in 'qkv'}
    | {'o': (3, 12, 4), 'e': (D, 4), 'u': (4, D)},
    3 * 2 * H * F,
  ),
  'fused and partly': (neox, {'w': (D, 36), 'b': (36,), 'o': (12, D)}, 8),
  'latent': (
    latent, {'q': (D, 14), 'c': (D, 8), 'kv': (4, 12), 'o': (6, D)}, 2 * 2,
  ),
  'biases': (
    attention(before=BIAS), {**PLAIN, 'b': (12,), 'c': (H, 6)}, 2 * H * F,
  ),
  'bias after': (
    attention(after=lambda p, q, k: (q + p['b'][None, None], k)),
    {**PLAIN, 'b': (H, 6)}, 2 * H * F,
  ),
  # A bias that the heads share.
  'shared bias': (
    attention(before=lambda p, q, k: (q + p['b'][None, None, None], k)),
    {**PLAIN, 'b': (6,)}, 2 * F,
  ),
  'norms': (attention(before=norm_of(lambda p: 1.0)), PLAIN, H * F),
  'gain of pairs': (
    attention(before=norm_of(lambda p: TWICE(p['g']))),
    {**PLAIN, 'g': (F,)}, H * F,
  ),
  'gain of entries': (
    attention(before=norm_of(lambda p: p['g'][None, None, None])),
    {**PLAIN, 'g': (6,)}, 0,
  ),
  'merged LoRA': (merged, {**PLAIN, 'a': (D, 2), 'b': (2, 12)}, 2 * H * F),
  'sum of products': (
    attention(score=lambda q, k: SUMS(q[:, :, None] * k[:, None])),
    PLAIN, 2 * H * F,
  ),
  # Any turns of queries and keys, and factors of both parts, commute.
  'other frequencies': (
    attention(other=lambda x, a: split(x, -1.7 * a)), PLAIN, 2 * H * F,
  ),
  'factors of positions': (
    attention(after=lambda p, q, k: (q * SIZES, k / SIZES)), PLAIN, 2 * H * F,
  ),
}  # fmt: skip


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
