"""Random bits by a counter: the word of entry i is a hash of i and a key.

``jax.random.bits`` runs 20 rounds of threefry for each pair of words and holds
them all in memory. Masks over models need no cryptographic strength: two rounds
of an integer hash of the entry's index are as fast as memory, and since a word
depends on nothing but the key and the index, XLA evaluates it where it is used,
in any slice, on any device and for any sharding. All arithmetic is modulo 2^32,
the same on every backend. Keys are derived by threefry, from the leaf's name.
"""

from collections.abc import Sequence
import math
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _separate

_ODD = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio


def name_key(key: types.PRNGKey, name: str) -> types.PRNGKey:
  """Derives the key of a leaf from its name, independent of other leaves.

  Example:
    >>> key = jax.random.key(0)
    >>> bool(name_key(key, 'a') == name_key(key, 'b'))
    False
  """
  return jax.random.fold_in(key, _code(name))


def name_words(
  key: types.PRNGKey, names: Sequence[str], number: int
) -> dict[str, types.Array]:
  """Derives the words of several keys for each of many leaves, by one call.

  Args:
    key: a key.
    names: the names of the leaves.
    number: N, the number of keys of each leaf.

  Returns:
    For each name ``[N, 2]`` of uint32. Row i is the data of
    ``fold_in(name_key(key, name), i)``.

  Example:
    >>> key = jax.random.key(0)
    >>> one = jax.random.fold_in(name_key(key, 'b'), 2)
    >>> words = name_words(key, ['a', 'b'], 3)['b'][2]
    >>> words.tolist() == jax.random.key_data(one).tolist()
    True
  """
  codes = np.asarray([_code(name) for name in names], np.uint32)
  words = _fold(key, codes, np.arange(number, dtype=np.uint32))
  if isinstance(words, jax.core.Tracer):
    rows: Any = _separate.separate(words, range(len(names)))
  else:  # rows of a jax array are taken by a program of as many results
    rows = np.asarray(words)
  return dict(zip(names, rows, strict=True))


@jax.jit
def _fold(key: types.PRNGKey, *numbers: types.Array) -> types.Array:
  """Folds each of the first numbers into a key, each of the others into it."""
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  first, second = numbers
  keys = jax.vmap(fold, (0, None))(fold(key, first), second)
  return jax.random.key_data(keys)


def _code(name: str) -> np.uint32:
  """Returns the number that stands for a name in its key."""
  return np.uint32(zlib.crc32(name.encode()))


def random_bits(
  key: types.PRNGKey, shape: tuple[int, ...], *, start: Any = 0
) -> types.Array:
  r"""Returns uniform random words of 32 bits, one for each entry of a shape.

  .. math:: w_i = y_i + h(y_i \oplus b), \qquad y_i = h(i_0 \oplus a)

  for the 64-bit index :math:`i = 2^{32} i_1 + i_0` of the entry in row-major
  order, a bijective hash h, and two words (a, b): those of the key, shifted by
  hashes of :math:`i_1`.

  Args:
    key: a key, or its two words, ``[2]`` of uint32. Words of different keys are
      independent if the keys come from ``jax.random.fold_in`` or ``split``.
    shape: the shape of the result, of at most 2^32 entries along each axis.
    start: the index of the first entry: an int, or its low and high 32 bits,
      ``[2]`` of uint32, which may be traced. The words of entries n, n + 1, ...
      of an array are those of a flat array with ``start=n``.

  Returns:
    uint32, of the given shape.

  Raises:
    ValueError: if an axis is longer than 2^32.

  Example:
    >>> key = jax.random.key(0)
    >>> whole = random_bits(key, (2, 3)).ravel()
    >>> bool((random_bits(key, (4,), start=2) == whole[2:]).all())
    True

  Reference:
    The hash h is ``triple32`` of Wellons, "Hash Function Prospector", 2018,
    https://github.com/skeeto/hash-prospector. The sum with y, as in Davies and
    Meyer's construction, makes w a function with collisions: h alone is a
    permutation, whose words are drawn without replacement.
  """
  words = jnp.asarray(jax.random.key_data(key), np.uint32)
  low, a, b = _counters(words, shape, start)
  y = _mix(low ^ a)
  return y + _mix(y ^ b)


def bernoulli(
  key: types.PRNGKey, share: Any, shape: tuple[int, ...], *, start: Any = 0
) -> types.Array:
  r"""Marks each entry with a given probability.

  .. math:: m_i = 1[\, w_i < \operatorname{round}(2^{32} p) \,]

  so that none is marked at p = 0 and all at p = 1.

  Args:
    key: as in ``random_bits``.
    share: p, a number between 0 and 1; may be traced.
    shape: the shape of the result.
    start: as in ``random_bits``.

  Returns:
    Bools, of the given shape.

  Example:
    >>> key = jax.random.key(0)
    >>> [int(bernoulli(key, p, (1000,)).sum()) for p in (0.0, 0.25, 1.0)]
    [0, 228, 1000]
  """
  # The float32 of p times 2^32 is exact. At p = 1 it exceeds the words.
  words = random_bits(key, shape, start=start)
  scaled = jnp.round(jnp.asarray(share, np.float32) * np.float32(2**32))
  every = scaled >= np.float32(2**32)
  bounded = jnp.where((scaled > 0) & ~every, scaled, 0)
  return (words < bounded.astype(np.uint32)) | every


def _counters(
  words: types.Array, shape: tuple[int, ...], start: Any
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the low word of each index, and the key of its block of 2^32."""
  size = math.prod(shape)
  low, high = _flat_index(shape)
  first: Any
  if isinstance(start, int):
    first = np.asarray([start % 2**32, start >> 32], np.uint32)
    crosses = start % 2**32 + size > 2**32
  else:
    first, crosses = jnp.asarray(start, np.uint32), True
  low = low + first[0]
  if not crosses:
    # An array, since numpy warns where a scalar product wraps around.
    a, b = _block_key(words, first[1:])
    return low, a[0], b[0]
  carry = low < first[0]
  if high is not None:
    return low, *_block_key(words, first[1] + high + carry.astype(np.uint32))
  # At most one border between blocks: choose one of two scalar keys.
  keys = _block_key(words[:, None], first[1] + np.arange(2, dtype=np.uint32))
  a, b = (jnp.where(carry, word[1], word[0]) for word in keys)
  return low, a, b


def _flat_index(shape: tuple[int, ...]) -> tuple[types.Array, Any]:
  """Returns low and high words of row-major indices; high None if all are 0."""
  if any(n > 2**32 for n in shape):
    raise ValueError(f'random_bits: shape {shape} has an axis above 2^32')
  if math.prod(shape) <= 2**32:
    return jax.lax.iota(np.uint32, math.prod(shape)).reshape(shape), None
  low = jnp.zeros(shape, np.uint32)
  high = jnp.zeros(shape, np.uint32) if math.prod(shape) > 2**32 else None
  stride = math.prod(shape)
  for axis, n in enumerate(shape):
    stride //= max(n, 1)
    position = jax.lax.broadcasted_iota(np.uint32, shape, axis)
    step = position * np.uint32(stride % 2**32)
    low = low + step
    if high is not None:
      carry = (low < step).astype(np.uint32)
      high = high + _high_product(position, stride) + carry
  return low, high


def _high_product(x: types.Array, factor: int) -> types.Array:
  """Returns bits 32 to 63 of ``x * factor``, by products of 16-bit halves."""
  half = np.uint32(2**16 - 1)
  x0, x1 = x & half, x >> np.uint32(16)
  f0, f1 = np.uint32(factor & 0xFFFF), np.uint32(factor >> 16 & 0xFFFF)
  middle = x1 * f0 + (x0 * f0 >> np.uint32(16))
  other = x0 * f1 + (middle & half)
  product = x1 * f1 + (middle >> np.uint32(16)) + (other >> np.uint32(16))
  return product + x * np.uint32(factor >> 32)


def _block_key(
  words: types.Array, high: Any
) -> tuple[types.Array, types.Array]:
  """Derives the two words of one block of 2^32 entries from the key's."""
  shift = _mix(high + _ODD)  # 0 is a fixed point of the hash
  # Streams of one b and of near a would be one stream in another order: a key
  # that differs in its first word only differs in b as well.
  return words[0] + shift, words[1] ^ words[0] * _ODD ^ _mix(shift)


def _mix(x: types.Array) -> types.Array:
  """Permutes words of 32 bits so that each input bit flips half of them.

  Wellons' ``triple32``: a flipped bit of x flips each bit of the result with
  probability 1/2 within a root mean square error of 2 %.
  """
  for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
    x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
  return x ^ (x >> np.uint32(14))
