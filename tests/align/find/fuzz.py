"""Random programs, each a few layers of ``[4, 6]``: every symmetry must hold.

  python -m tests.align.find.fuzz 0 100

draws the programs of seeds 0 .. 99, and prints those whose outputs change under
a random element of the group that was found, in float64, and a count.
"""

from collections.abc import Callable
import sys
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import align

Layer: TypeAlias = Callable[[Any, jax.Array], jax.Array]
BOUND = 1e-9  # of the relative change; a wrong symmetry changes far more
_WIDTH = 6


class Program(NamedTuple):
  """A random function.

  Attributes:
    apply: ``apply(params, x)``.
    params: float64.
    layers: the names of its layers.
  """

  apply: Callable[[Any, jax.Array], Any]
  params: dict[str, jax.Array]
  layers: list[str]


class Draw:
  """Draws the choices of a program, and the shapes of its leaves."""

  def __init__(self, seed: int) -> None:
    self.rng = np.random.default_rng(seed)
    self.shapes: dict[str, tuple[int, ...]] = {}

  def leaf(self, *shape: int, name: str = 'p') -> str:
    name = f'{name}{len(self.shapes)}'
    self.shapes[name] = shape
    return name

  def one(self, *choices: Any) -> Any:
    return choices[self.rng.integers(len(choices))]

  def act(self) -> Callable[[jax.Array], jax.Array]:
    return self.one(jnp.tanh, jax.nn.relu, lambda z: z, jnp.sin, jax.nn.silu)

  def cut(self, size: int, parts: int) -> list[int]:
    """Draws the ends of parts of an axis, all but the last."""
    inner = self.rng.permutation(np.arange(1, size))[: parts - 1]
    return sorted(inner.tolist())


def inputs() -> jax.Array:
  return jnp.asarray(np.random.default_rng(7).normal(size=(4, 3)))


def program(seed: int) -> Program:
  """Draws a program of one to three layers."""
  draw = Draw(seed)
  first, last, act = draw.leaf(3, _WIDTH), draw.leaf(_WIDTH, 2), draw.act()
  makers = [draw.one(*LAYERS) for _ in range(draw.rng.integers(1, 4))]
  layers = [maker(draw) for maker in makers]
  keep = [draw.one(True, False) for _ in layers]

  def apply(p: Any, x: jax.Array) -> Any:
    h = act(x @ p[first])
    for layer, add in zip(layers, keep):
      h = layer(p, h) + (h if add else 0)
    return h @ p[last]

  params = {
    name: jnp.asarray(draw.rng.normal(size=shape) * 0.5)
    for name, shape in draw.shapes.items()
  }
  return Program(apply, params, [maker.__name__ for maker in makers])


def error(seed: int) -> tuple[float, str, align.Symmetry]:
  """Returns the largest change of the outputs of a program, and its group."""
  apply, params, _ = program(seed)
  symmetry = align.find_symmetry(apply, params, inputs())
  report = _check(symmetry, apply, params, seed)
  found = [(report.error, report.group, symmetry)]
  gains = [name for name in params if name.startswith('gain')]
  if gains:
    pattern = '|'.join(f'^{name}$' for name in gains)
    absorbed = align.absorb_norms(params, symmetry=symmetry, leaves=pattern)
    before, after = (apply(p, inputs()) for p in (params, absorbed.params))
    change = jnp.abs(before - after).max() / jnp.abs(before).max()
    found.append((float(change), 'absorbed gains', symmetry))
    if absorbed.gains:
      rest = align.find_symmetry(apply, params, inputs(), ones=absorbed.gains)
      fixed = {n: absorbed.params[n] for n in gains if n not in absorbed.kept}
      ones = lambda p, x: apply(p | fixed, x)
      report = _check(rest, ones, absorbed.params, seed)
      found.append((report.error, f'ones: {report.group}', rest))
  return max(found, key=lambda one: one[0])


def _check(symmetry: align.Symmetry, apply: Any, params: Any, seed: int) -> Any:
  return align.check(
    symmetry, apply, params, inputs(), key=jax.random.key(seed)
  )


# Plain layers.


def dense(d: Draw) -> Layer:
  w, act = d.leaf(6, 6), d.act()
  return lambda p, h: act(h @ p[w])


def added_identity(d: Draw) -> Layer:
  w, act = d.leaf(6, 6), d.act()
  return lambda p, h: act(h @ (p[w] + jnp.eye(6)))


def units(d: Draw) -> Layer:
  w = d.leaf(6)
  return lambda p, h: h * p[w][None]


def low_rank(d: Draw) -> Layer:
  a, b, act = d.leaf(6, 3), d.leaf(3, 6), d.act()
  return lambda p, h: act(h @ p[a]) @ p[b]


def gated(d: Draw) -> Layer:
  a, b, o, act = d.leaf(6, 5), d.leaf(6, 5), d.leaf(5, 6), d.act()
  return lambda p, h: (act(h @ p[a]) * (h @ p[b])) @ p[o]


def normed(d: Draw) -> Layer:
  g, w, act = d.leaf(6, name='gain'), d.leaf(6, 6), d.act()
  mean = d.one(0.0, 1.0)

  def layer(p, h):
    h = h - mean * h.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 0.1)
    return act((h * p[g][None]) @ p[w])

  return layer


def norm_of_groups(d: Draw) -> Layer:
  rows = d.one(2, 3)

  def layer(p, h):
    y = h.reshape(4, rows, -1)
    y = y - y.mean(2, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(2, keepdims=True) + 0.1)
    return y.reshape(4, 6)

  return layer


def heads_of_gates(d: Draw) -> Layer:
  w, act = d.leaf(2, 3, 3), d.act()

  def layer(p, h):
    y = h.reshape(4, 2, 3)
    return (act(jnp.einsum('bhi,hij->bhj', y, p[w])) * y).reshape(4, 6)

  return layer


def joined_features(d: Draw) -> Layer:
  w, v, act = d.leaf(6, 4), d.leaf(6, 2), d.act()
  return lambda p, h: jnp.concatenate([act(h @ p[w]), jnp.sin(h @ p[v])], 1)


def partly_kept(d: Draw) -> Layer:
  w = d.leaf(4, 2)
  return lambda p, h: jnp.concatenate([jnp.tanh(h[:, :4]), h[:, :4] @ p[w]], 1)


def rolled(d: Draw) -> Layer:
  return lambda p, h: jnp.concatenate([h[:, 3:], h[:, :3]], 1)


# Caches, loops, branches, solves.


def cached(d: Draw) -> Layer:
  start = d.one(jnp.zeros, jnp.ones)

  def layer(p, h):
    zeros = start((4, 3, 6), h.dtype)
    return jax.lax.dynamic_update_slice(zeros, h[:, None], (0, 1, 0)).sum(1)

  return layer


def written(d: Draw) -> Layer:
  act = d.act()
  return lambda p, h: jnp.zeros((4, 6), h.dtype).at[:2].set(h[:2]) + act(h)


def added_rows(d: Draw) -> Layer:
  act = d.act()
  return lambda p, h: jnp.ones((4, 6), h.dtype).at[1:3].add(h[1:3]) * act(h)


def scanned(d: Draw) -> Layer:
  w, act = d.leaf(6, 6), d.act()
  start = d.one(jnp.zeros, jnp.ones)

  def layer(p, h):
    step = lambda c, x: (act(x[None] + c @ p[w]), c[0])
    return jax.lax.scan(step, start((4, 6), h.dtype), h)[d_out]

  d_out = d.one(0, 1)
  return layer


def scanned_layers(d: Draw) -> Layer:
  w, v, act = d.leaf(2, 6, 3), d.leaf(2, 3, 6), d.act()

  def layer(p, h):
    step = lambda c, x: (c + act(c @ x[0]) @ x[1], None)
    return jax.lax.scan(step, h, (p[w], p[v]))[0]

  return layer


def branched(d: Draw) -> Layer:
  ones = lambda: jnp.ones((4, 6))
  return lambda p, h: jax.lax.cond(h.sum() > 0, lambda: h, ones)


def ragged(d: Draw) -> Layer:
  w, act = d.leaf(2, 6, 6), d.act()
  sizes = np.array([1, 3], np.int32)
  return lambda p, h: act(jax.lax.ragged_dot(h, p[w], jnp.asarray(sizes)))


def transformed(d: Draw) -> Layer:
  return lambda p, h: jnp.real(jnp.fft.fft(h, axis=0))


def solved(d: Draw) -> Layer:
  w = d.leaf(6, 6)
  return lambda p, h: jnp.linalg.solve(p[w] + 4 * jnp.eye(6), h.T).T


def solved_rows(d: Draw) -> Layer:
  return lambda p, h: jnp.linalg.solve(h @ h.T + 3 * jnp.eye(4), h)


def inverted(d: Draw) -> Layer:
  w = d.leaf(6, 6)
  return lambda p, h: h @ jnp.linalg.inv(p[w] + 3 * jnp.eye(6))


# Fused projections: parts of equal or unequal sizes, in front of, inside of or
# behind the heads.


def parts_of_heads(d: Draw) -> Layer:
  heads, size = d.one(2, 3), d.one(3, 4, 5)
  at = d.cut(size, d.one(2, 3) if size > 3 else 2)
  acts = [d.act() for _ in (*at, size)]
  sizes = np.diff([0, *at, size]).tolist()
  shape = d.one((6, heads * size), (6, heads, size))
  w, b = d.leaf(*shape), d.leaf(heads * size)
  outs = [d.leaf(heads * n, 6) for n in sizes]
  bias = d.one(True, False)

  def layer(p, h):
    y = h @ p[w].reshape(6, -1) + (p[b][None] if bias else 0)
    y = jnp.split(y.reshape(4, heads, size), at, -1)
    flat = [act(part).reshape(4, -1) for act, part in zip(acts, y)]
    return sum(part @ p[o] for part, o in zip(flat, outs))

  return layer


def parts_that_multiply(d: Draw) -> Layer:
  heads, size, act = d.one(2, 3), d.one(2, 3), d.act()
  w, o = d.leaf(6, heads * 3 * size), d.leaf(heads * size, 6)
  order = d.rng.permutation(3)
  front = d.one(0, 1, 2)
  gain = d.leaf(*d.one((size,), (heads, size), (heads, 1), (3, 1, size)))
  use = d.one(True, False)

  def layer(p, h):
    sizes = [heads, size]
    sizes.insert(front, 3)
    y = (h @ p[w]).reshape(4, *sizes)
    a, b, c = (jnp.take(y, i, front + 1) for i in order)
    if use and p[gain].ndim < 3:
      b = b * jnp.expand_dims(p[gain], range(3 - p[gain].ndim))
    return (act(a * b) + c).reshape(4, -1) @ p[o]

  return layer


def nested_parts(d: Draw) -> Layer:
  heads, groups, a, b, c = 2, d.one(1, 2), d.one(1, 2), d.one(2, 3), d.one(1, 2)
  inner = groups * (a + b)
  w, acts = d.leaf(6, heads * (inner + c)), [d.act() for _ in range(3)]
  u, v = d.leaf(heads * groups * a, 6), d.leaf(heads * groups * b, 6)
  o = d.leaf(heads * c, 6)

  def layer(p, h):
    y = (h @ p[w]).reshape(4, heads, -1)
    z = y[..., :inner].reshape(4, heads, groups, a + b)
    one = acts[0](z[..., :a]).reshape(4, -1) @ p[u]
    two = acts[1](z[..., a:]).reshape(4, -1) @ p[v]
    return one + two + acts[2](y[..., inner:]).reshape(4, -1) @ p[o]

  return layer


def stream_of_heads(d: Draw) -> Layer:
  at, turn, acts = d.one(1, 2), d.one(True, False), (d.act(), d.act())

  def layer(p, h):
    a, b = jnp.split(h.reshape(4, 2, 3), [at], -1)
    parts = [acts[0](a), acts[1](b)]
    return jnp.concatenate(parts[::-1] if turn else parts, -1).reshape(4, 6)

  return layer


def refused_parts(d: Draw) -> Layer:
  """Parts of heads are changed, and read by one map that is fused alike."""
  heads, a, b = 2, d.one(1, 2, 3), d.one(2, 3)
  w, o = d.leaf(6, heads * (a + b)), d.leaf(heads * (a + b), 6)
  acts, tied = (d.act(), d.act()), d.one(True, False)
  turn = d.one(True, False)

  def layer(p, h):
    y = (h @ p[w]).reshape(4, heads, a + b)
    parts = [acts[0](y[..., :a]), acts[1](y[..., a:])]
    y = jnp.concatenate(parts[::-1] if turn else parts, -1).reshape(4, -1)
    return y @ (p[w].T if tied else p[o])

  return layer


def heads_that_mix(d: Draw) -> Layer:
  """One part of each head is combined with a part of another head."""
  how = d.one('roll', 'sum', 'matrix', 'flip')
  w, m, o = d.leaf(6, 3 * 5), d.leaf(3, 3), d.leaf(3 * 3, 6)
  u, act = d.leaf(3 * 2, 6), d.act()

  def layer(p, h):
    y = (h @ p[w]).reshape(4, 3, 5)
    a, b = y[..., :3], y[..., 3:]
    if how == 'roll':
      b = jnp.roll(b, 1, 1)
    elif how == 'sum':
      b = b - b.mean(1, keepdims=True)
    elif how == 'matrix':
      b = jnp.einsum('bhd,hg->bgd', b, p[m])
    else:
      b = b[:, ::-1]
    return act(a).reshape(4, -1) @ p[o] + jnp.sin(b).reshape(4, -1) @ p[u]

  return layer


def two_readings(d: Draw) -> Layer:
  """One leaf is read as heads of parts and as another product."""
  w, u, v = d.leaf(6, 12), d.leaf(12, 6), d.leaf(12, 6)
  at, rows, acts = d.one(1, 2, 3, 4), d.one(2, 3, 4, 6), (d.act(), d.act())

  def layer(p, h):
    y = h @ p[w]
    a, b = jnp.split(y.reshape(4, 2, 6), [at], -1)
    one = jnp.concatenate([acts[0](a), b], -1).reshape(4, 12) @ p[u]
    z = y.reshape(4, rows, -1)
    return one + acts[1](z - z.mean(2, keepdims=True)).reshape(4, 12) @ p[v]

  return layer


# Attention over the four rows.


def _rotate(x: jax.Array, layout: str) -> jax.Array:
  """Rotary positions of ``[rows, heads, size]``, size even."""
  n = x.shape[-1] // 2
  angle = jnp.arange(4.0)[:, None] * 0.5 ** jnp.arange(float(n))[None]
  cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
  if layout == 'pairs':
    a, b = x[..., ::2], x[..., 1::2]
    y = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1)
    return y.reshape(x.shape)
  if layout == 'wrong':  # no rotation: a sign is changed
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos + b * sin, b * cos + a * sin], -1)
  a, b = jnp.split(x, 2, -1)
  if layout == 'half':
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
  cos, sin = (jnp.concatenate([t, t], -1) for t in (cos, sin))
  return x * cos + jnp.concatenate([-b, a], -1) * sin


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Attention of ``[rows, heads, size]``; keys may have fewer heads."""
  q = q.reshape(4, k.shape[1], -1, q.shape[-1])
  scores = jax.nn.softmax(jnp.einsum('qhgd,khd->hgqk', q, k) / 2)
  return jnp.einsum('hgqk,khd->qhgd', scores, v).reshape(4, -1)


def attention(d: Draw) -> Layer:
  """Queries, keys and values, fused or not, rotary or not."""
  heads, groups = d.one(1, 2, 3), d.one(1, 2)
  size, rest, values = d.one(2, 4), d.one(0, 0, 1, 2), d.one(2, 3)
  full = size + rest
  if d.one(True, False):
    values = full
  fusion = d.one('none', 'plain', 'heads', 'units')
  groups = groups if fusion != 'heads' else 1
  layout = d.one('none', 'half', 'turned', 'pairs', 'wrong')
  sizes = [heads * groups * full, heads * full, heads * values]
  ends = np.cumsum(sizes)[:-1].tolist()
  norm = d.one(True, False, False)
  w = d.leaf(6, sum(sizes))
  b, o = d.leaf(sum(sizes)), d.leaf(heads * groups * values, 6)
  gain = d.leaf(full, name='gain')
  bias = d.one(True, False)
  units_first = fusion == 'units' and groups == 1 and values == full

  def turn(x):
    if norm:
      x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 0.1)
      x = x * jnp.expand_dims(gains[0], (0, 1))
    if layout == 'none':
      return x
    a = _rotate(x[..., :size], layout)
    return jnp.concatenate([a, x[..., size:]], -1) if rest else a

  gains: list[Any] = [None]

  def layer(p, h):
    gains[0] = p[gain]
    if fusion == 'none':
      parts = [h @ x for x in jnp.split(p[w], ends, -1)]
    else:
      parts = [h @ p[w] + (p[b][None] if bias else 0)]
    if fusion == 'heads':
      y = parts[0].reshape(4, heads, -1)
      q, k, v = jnp.split(y, [full, 2 * full], -1)
    elif units_first:
      y = parts[0].reshape(4, heads, full, 3)
      q, k, v = (y[..., i] for i in range(3))
    else:
      if fusion != 'none':
        parts = jnp.split(parts[0], ends, -1)
      q, k, v = (
        y.reshape(4, n, -1)
        for y, n in zip(parts, (heads * groups, heads, heads))
      )
    return _attend(turn(q), turn(k), v) @ p[o]

  return layer


def grouped_attention(d: Draw) -> Layer:
  """Falcon: groups of (several queries, one key, one value)."""
  groups, queries, size = d.one(1, 2), d.one(1, 2), d.one(2, 4)
  layout = d.one('none', 'half', 'turned')
  w = d.leaf(6, groups * (queries + 2) * size)
  o, flat = d.leaf(groups * queries * size, 6), d.one(True, False)

  def layer(p, h):
    y = (h @ p[w]).reshape(4, groups, queries + 2, size)
    q, k, v = y[:, :, :-2], y[:, :, -2], y[:, :, -1]
    q = q.reshape(4, -1, size)
    if layout != 'none':
      q, k = _rotate(q, layout), _rotate(k, layout)
    if flat:
      v = jnp.repeat(v, queries, 1)
      k = jnp.repeat(k, queries, 1)
    return _attend(q, k, v) @ p[o]

  return layer


def latent_attention(d: Draw) -> Layer:
  """DeepSeek: keys and values of a latent, a rotary key for all heads."""
  heads, still, turned, values = 2, d.one(2, 3), 2, d.one(2, 3)
  latent = d.one(2, 3)
  q = d.leaf(6, heads * (still + turned))
  down = d.leaf(6, latent + turned)
  up = d.leaf(latent, heads * (still + values))
  o = d.leaf(heads * values, 6)
  joined = d.one(True, False)

  def layer(p, h):
    qs = (h @ p[q]).reshape(4, heads, -1)
    qr = _rotate(qs[..., still:], 'half')
    c, kr = jnp.split(h @ p[down], [latent], -1)
    kr = _rotate(kr[:, None], 'half')
    y = (c @ p[up]).reshape(4, heads, -1)
    ks, v = y[..., :still], y[..., still:]
    if joined:
      qs = jnp.concatenate([qs[..., :still], qr], -1)
      kr = jnp.broadcast_to(kr, (4, heads, turned))
      return _attend(qs, jnp.concatenate([ks, kr], -1), v) @ p[o]
    scores = jnp.einsum('qhd,khd->hqk', qs[..., :still], ks)
    scores = scores + jnp.einsum('qhd,kd->hqk', qr, kr[:, 0])
    mixed = jnp.einsum('hqk,khd->qhd', jax.nn.softmax(scores), v)
    return mixed.reshape(4, -1) @ p[o]

  return layer


LAYERS = (
  dense, added_identity, units, low_rank, gated, normed, normed, norm_of_groups,
  heads_of_gates, joined_features, partly_kept, rolled, cached, written,
  added_rows, scanned, scanned_layers, branched, ragged, transformed, solved,
  solved_rows, inverted, parts_of_heads, parts_of_heads, parts_that_multiply,
  parts_that_multiply, nested_parts, stream_of_heads, refused_parts,
  heads_that_mix, two_readings, attention, attention, attention,
  grouped_attention, latent_attention,
)  # fmt: skip


def main(start: int, count: int) -> None:
  jax.config.update('jax_enable_x64', True)
  groups, wrong = 0, 0
  for seed in range(start, start + count):
    if seed % 50 == 0:
      jax.clear_caches()
    try:
      change, group, symmetry = error(seed)
    except Exception as failure:
      wrong += 1
      print('FAILED', seed, program(seed).layers, repr(failure)[:300])
      continue
    groups += bool(symmetry.groups or symmetry.actions)
    if not change < BOUND:
      wrong += 1
      print('WRONG', seed, program(seed).layers, change, group, flush=True)
  print(f'{count} programs, {groups} with a group, {wrong} wrong')


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
