"""Operations that mix, cut, move or compare along the axis of units."""

import jax
import jax.numpy as jnp

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
hidden = adversarial.hidden
NONE = ()

# Elementwise operations, reductions and sums over units keep all 6! orders.
KEPT = {
  'plain': hidden(lambda p, h: h, f(6)),
  'uniform_constant': hidden(lambda p, h: h * jnp.full((1, 6), 2.0), f(6)),
  'compared_with_mean': hidden(
    lambda p, h: jnp.where(h > h.mean(-1, keepdims=True), h, -h), f(6)
  ),
  'softmax_over_units': hidden(lambda p, h: jax.nn.softmax(h) * h, f(6)),
  'log_sum_exp': hidden(
    lambda p, h: h - jax.nn.logsumexp(h, axis=-1, keepdims=True), f(6)
  ),
  'norm_over_batch': hidden(lambda p, h: h - h.mean(0, keepdims=True), f(6)),
  'product_of_units': hidden(
    lambda p, h: h + jnp.prod(h, -1, keepdims=True), f(6)
  ),
  'any_of_units': hidden(
    lambda p, h: jnp.where(jnp.any(h > 0.5, -1, keepdims=True), h, 2.0 * h),
    f(6),
  ),
  'cast_down_and_up': hidden(
    lambda p, h: h.astype(jnp.float32).astype(h.dtype), f(6), narrow=True
  ),
  'cast_to_integers': hidden(
    lambda p, h: h + jnp.floor(3.0 * h).astype(jnp.int32).astype(h.dtype), f(6)
  ),
  'mask_of_parameters': hidden(
    lambda p, h: jnp.where(p['m'][None] > 0, h, 0.3 * h), f(6), m=(6,)
  ),
  'sizes_of_one': hidden(
    lambda p, h: h * p['s'] + p['t'] * h.sum(-1, keepdims=True), f(6),
    s=(1, 6), t=(1, 1),
  ),
  'complex_parameters': hidden(
    lambda p, h: jnp.abs(jax.lax.complex(p['r'][None] * h, p['i'][None])), f(6),
    r=(6,), i=(6,),
  ),
  'updated_rows': hidden(lambda p, h: h.at[1].multiply(2.0), f(6)),
  'row_by_index': hidden(
    lambda p, h: jax.lax.dynamic_index_in_dim(
      h, jnp.argmax(jnp.abs(h).sum(-1)), 0
    ),
    f(6),
  ),
  'segments_of_rows': hidden(
    lambda p, h: jax.ops.segment_sum(h, jnp.asarray([0, 1, 0, 2]), 3), f(6)
  ),
  'cumulated_rows': hidden(lambda p, h: jnp.cumsum(h, 0), f(6)),
  'sorted_rows': hidden(lambda p, h: jnp.sort(h, 0), f(6), least=1),
}  # fmt: skip

# Functions that depend on the position of a unit.
PLACED = {
  'ramp': hidden(
    lambda p, h: h * jnp.arange(6, dtype=h.dtype)[None], 1
  ),
  # Constants with equal entries: units with equal constants are free.
  'blocks': hidden(
    lambda p, h: h * jnp.asarray([[1.0, 1, 2, 2, 2, 2]], h.dtype),
    f(2) * f(4), least=1,
  ),
  'even_blocks': hidden(
    lambda p, h: h * jnp.repeat(jnp.asarray([1.0, 2, 3], h.dtype), 2)[None],
    f(2) ** 3, least=1,
  ),
  'alternating': hidden(
    lambda p, h: h * jnp.tile(jnp.asarray([1.0, 2], h.dtype), 3)[None],
    f(3) ** 2, least=1,
  ),
  'half_masked': hidden(
    lambda p, h: jnp.where(jnp.arange(6)[None] < 3, h, 0.0), f(3) ** 3, least=1
  ),
  'roll': hidden(lambda p, h: jnp.roll(h, 1, -1), f(6), least=1),
  # Units that have to keep their neighbours.
  'roll_added': hidden(lambda p, h: h + jnp.roll(h, 1, -1), 12, least=1),
  'reversed': hidden(lambda p, h: h[:, ::-1], f(6), least=1),
  'reversed_added': hidden(
    lambda p, h: h + h[:, ::-1], 2**6 * f(3), least=1
  ),
  'cumulated': hidden(lambda p, h: jnp.cumsum(h, -1), 1),
  'cumulated_maximum': hidden(
    lambda p, h: jax.lax.cummax(h, axis=1), 1
  ),
  'associative_scan': hidden(
    lambda p, h: jax.lax.associative_scan(jnp.add, h, axis=1), 1
  ),
  'differences': hidden(
    lambda p, h: h[:, 1:] - h[:, :-1], 1, b=(5, 2)
  ),
  'convolved': hidden(
    lambda p, h: jax.vmap(lambda v: jnp.convolve(v, p['k'], mode='same'))(h),
    2, least=1, k=(3,),
  ),
  'fourier': hidden(lambda p, h: jnp.fft.fft(h).real, 2**4, least=1),
  'fourier_of_rows': hidden(
    lambda p, h: jnp.fft.fft(h, axis=0).real, f(6), least=1
  ),
  'dropout': hidden(
    lambda p, h: h * jax.random.uniform(jax.random.key(0), h.shape, h.dtype), 1
  ),
  'triangle': hidden(lambda p, h: h @ jnp.tril(p['w']), 1, w=(6, 6)),
  'window_maximum': hidden(
    lambda p, h: jax.lax.reduce_window(
      h, -jnp.inf, jax.lax.max, (1, 2), (1, 2), 'VALID'
    ),
    f(3) * f(2) ** 3, least=1, b=(3, 2),
  ),
  'batch_as_large_as_units': adversarial.case(
    lambda p, x: (lambda h: (h + h.T) @ p['b'])(jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2)}, 1, inputs=(base.normal(6, 3),),
  ),
  'slice_at_a_place_computed': adversarial.case(
    lambda p, x, i: jax.lax.dynamic_slice(
      jnp.tanh(x @ p['a']), (jnp.int32(0), i), (4, 3)
    ) @ p['b'],
    {'a': (3, 6), 'b': (3, 2)}, 1,
    inputs=(base.normal(4, 3), jnp.int32(2)),
  ),
}  # fmt: skip

# Order statistics do not depend on the order of their operands.
SELECTED = {
  'argmax': hidden(
    lambda p, h: jnp.argmax(h, -1).astype(h.dtype), 1, b=NONE
  ),
  'argmax_reads_a_table': hidden(
    lambda p, h: p['t'][jnp.argmax(h, -1)], f(6), least=1, b=NONE, t=(6, 2)
  ),
  'one_hot_of_argmax': hidden(
    lambda p, h: jax.nn.one_hot(jnp.argmax(h, -1), 6, dtype=h.dtype),
    f(6), least=1,
  ),
  'sort': hidden(lambda p, h: jnp.sort(h, -1), f(6), least=1),
  'sort_of_pairs': hidden(
    lambda p, h: jax.lax.sort((h, p['g'][None] * h), num_keys=1)[1],
    f(6), least=1, g=(6,),
  ),
  'ranks': hidden(
    lambda p, h: jnp.argsort(jnp.argsort(h, -1), -1).astype(h.dtype),
    f(6), least=1,
  ),
  'ranks_used_raw': hidden(
    lambda p, h: jnp.argsort(h, -1).astype(h.dtype), 1
  ),
  'top_values': hidden(
    lambda p, h: jax.lax.top_k(h, 3)[0], f(6), least=1, b=(3, 2)
  ),
  'top_indices': hidden(
    lambda p, h: jax.lax.top_k(h, 3)[1].astype(h.dtype), 1, b=(3, 2)
  ),
  'top_gate': hidden(
    lambda p, h: jnp.where(h >= jax.lax.top_k(h, 2)[0][:, -1:], h, 0.0),
    f(6), least=1,
  ),
  'median': hidden(
    lambda p, h: h - jnp.median(h, -1, keepdims=True), f(6), least=1
  ),
  'gathered_by_a_constant': hidden(
    lambda p, h: h[:, jnp.asarray([0, 2, 2, 5])], f(3) * 2 * 2, least=1,
    b=(4, 2),
  ),
  'set_at_a_place': hidden(
    lambda p, h: h.at[:, 0].set(0.5), f(5), least=1
  ),
  'segment_sum': hidden(
    lambda p, h: jax.ops.segment_sum(h.T, jnp.asarray([0, 0, 1, 1, 1, 2]), 3).T,
    f(2) * f(3), least=1, b=(3, 2),
  ),
}  # fmt: skip

# Cuts and sums of axes.
CUT = {
  'padded': hidden(
    lambda p, h: jnp.pad(h, ((0, 0), (0, 2))), f(6) * f(2), least=1, b=(8, 2)
  ),
  'every_other': hidden(
    lambda p, h: h[:, ::2] @ p['c'] + h[:, 1::2] @ p['d'],
    f(3) ** 2, least=1, b=NONE, c=(3, 2), d=(3, 2),
  ),
  'overlapping_slices': hidden(
    lambda p, h: h[:, :4] @ p['c'] + h[:, 2:] @ p['d'],
    f(2) ** 3, b=NONE, c=(4, 2), d=(4, 2),
  ),
  'shifted_slices': hidden(
    lambda p, h: (h[:, :5] * h[:, 1:]) @ p['c'], 2, least=1, b=NONE, c=(5, 2)
  ),
  'itself_twice': hidden(
    lambda p, h: jnp.concatenate([h, h], -1), f(6) * 2**6, least=f(6), b=(12, 2)
  ),
  'cut_elsewhere': hidden(
    lambda p, h: (lambda c: c[:, :7] @ p['c'] + c[:, 7:] @ p['d'])(
      jnp.concatenate([h, jnp.sin(h @ p['u'])], -1)
    ),
    f(6) * f(4), b=NONE, u=(6, 5), c=(7, 2), d=(4, 2),
  ),
  'sums_of_other_cuts': hidden(
    lambda p, h: jnp.concatenate([h, h @ p['u']], -1)
    * jnp.concatenate([p['s'], p['t']])[None],
    f(5) * f(4), least=f(5) * f(4), b=(10, 2), u=(6, 4), s=(5,), t=(5,),
  ),
  'halves_added': hidden(
    lambda p, h: h[:, :3] + 2.0 * h[:, 3:], f(3), b=(3, 2)
  ),
  'halves_gated': hidden(
    lambda p, h: (lambda a, b: a * jax.nn.sigmoid(b))(*jnp.split(h, 2, -1)),
    f(3), b=(3, 2),
  ),
  'concatenated_then_reshaped': hidden(
    lambda p, h: jnp.concatenate([h, h @ p['u']], -1)
    .reshape(-1, 2, 6).sum(1),
    f(6), least=1, u=(6, 6),
  ),
  'stacked_and_summed': hidden(
    lambda p, h: jnp.stack([h, h @ p['u']]).sum(0), f(6), u=(6, 6)
  ),
  'stacked_and_read': hidden(
    lambda p, h: jnp.einsum('kbn,kno->bo', jnp.stack([h, h @ p['u']]), p['c']),
    f(6) ** 2, least=f(6), b=NONE, u=(6, 6), c=(2, 6, 3),
  ),
}  # fmt: skip

CASES = KEPT | PLACED | SELECTED | CUT
