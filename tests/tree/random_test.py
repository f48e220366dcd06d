"""Random words: their definition, where they may be drawn, their statistics.

Statistics are standard normal where words are uniform and independent: of all
that are computed here, about 4000, none exceeds 5.5 with probability 0.9998.
Weak generators show that each statistic detects what it is for.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import tree
from wsl.tree import _random

Draw: TypeAlias = Callable[..., np.ndarray]
LIMIT = 5.5
SIZE = 2**18
KEYS = {
  'threefry': [
    jax.random.key_data(tree.name_key(jax.random.key(seed), name)).tolist()
    for seed, name in ((0, 'a'), (0, 'b'), (1, 'a'))
  ],
  'near': [[0, 0], [0, 1], [1, 0], [0, 2**31]],
}


@functools.partial(jax.jit, static_argnames=('shape', 'start'))
def bits(key: Any, shape: tuple[int, ...], start: int = 0) -> Any:
  return tree.random_bits(key, shape, start=start)


def draw(key: Any, size: int = SIZE, start: int = 0) -> np.ndarray:
  return np.asarray(bits(jnp.asarray(key, np.uint32), (size,), start))


def mix(x: int) -> int:
  for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
    x = (x ^ x >> shift) * factor % 2**32
  return x ^ x >> 14


def word(key: tuple[int, int], i: int) -> int:
  """The definition, in Python's integers."""
  low, high = i % 2**32, i >> 32
  shift = mix((high + 0x9E3779B9) % 2**32)
  a = (key[0] + shift) % 2**32
  b = key[1] ^ key[0] * 0x9E3779B9 % 2**32 ^ mix(shift)
  y = mix(low ^ a)
  return (y + mix(y ^ b)) % 2**32


def test_words_are_those_of_the_definition() -> None:
  key = (0x12345678, 0x9ABCDEF0)
  words = jnp.asarray(key, np.uint32)
  traced = jax.jit(lambda start: tree.random_bits(words, (6,), start=start))
  for start in (0, 5, 2**32 - 2, 2**32, 7 * 2**32 + 2**31, 2**63 + 2**32 - 1):
    wanted = [word(key, start + i) for i in range(6)]
    assert draw(key, 6, start).tolist() == wanted
    low_high = jnp.asarray([start % 2**32, start >> 32], np.uint32)
    assert traced(low_high).tolist() == wanted
  # Written out: a saved run must find its masks again.
  assert draw((0, 0), 3).tolist() == [146975875, 1889848326, 4097515033]


@pytest.mark.parametrize('shape', [(), (0,), (7,), (3, 4, 5), (2, 0, 3)])
def test_an_index_is_the_position_in_row_major_order(shape: Any) -> None:
  size = math.prod(shape)
  flat = draw((3, 4), size, 2**32 - 9)
  np.testing.assert_array_equal(
    bits(jnp.asarray([3, 4], np.uint32), shape, 2**32 - 9),
    flat.reshape(shape),
  )


def test_leaves_above_2_to_the_32_entries() -> None:
  key = jnp.asarray([3, 4], np.uint32)
  for shape in ((3, 2**31), (5, 2**16, 2**15 + 1), (2**20, 2**13)):
    # Only the entries that are read are computed.
    row = shape[0] - 1
    last = (
      jax.jit(lambda s=shape, r=row: tree.random_bits(key, s)[r].ravel()[-9:])
      .lower()
      .compile()
    )
    assert last.memory_analysis().temp_size_in_bytes < 2**16
    start = math.prod(shape) - 9
    assert start > 2**32
    np.testing.assert_array_equal(last(), draw(key, 9, start))
  with pytest.raises(ValueError, match=r'shape \(4294967297,\) has an axis'):
    jax.eval_shape(lambda: tree.random_bits(key, (2**32 + 1,)))


@pytest.mark.needs_devices(8)
def test_shards_draw_their_own_words_without_communication() -> None:
  mesh = jax.make_mesh((8,), ('i',), (jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec('i')
  sharding = jax.sharding.NamedSharding(mesh, spec)
  key = jnp.asarray([3, 4], np.uint32)
  sharded = jax.jit(
    lambda key: tree.random_bits(key, (16, 33)), out_shardings=sharding
  )
  np.testing.assert_array_equal(sharded(key), bits(key, (16, 33)))
  program = sharded.lower(key).compile().as_text()
  assert not any(f'{name}(' in program for name in ('all-gather', 'all-reduce'))


def test_vmap_over_keys_equals_a_loop() -> None:
  keys = jnp.asarray(KEYS['near'], np.uint32)
  mapped = jax.vmap(lambda key: bits(key, (5, 3)))(keys)
  np.testing.assert_array_equal(
    mapped, np.stack([bits(key, (5, 3)) for key in keys])
  )


def test_a_mask_takes_no_memory() -> None:
  x = jax.ShapeDtypeStruct((1024, 1024), np.float32)
  keys = jax.ShapeDtypeStruct((4, 2), np.uint32)
  share = jax.ShapeDtypeStruct((), np.float32)

  def masked(x: Any, keys: Any, share: Any) -> Any:
    mask = jax.vmap(lambda key: tree.bernoulli(key, share, x.shape))(keys)
    kept = jnp.where(mask, x[None], np.float32(0))
    return functools.reduce(jnp.add, jnp.unstack(kept))

  memory = jax.jit(masked).lower(x, keys, share).compile().memory_analysis()
  assert memory.temp_size_in_bytes < x.size / 16  # one bit: x.size / 2


def test_thresholds_are_exact() -> None:
  key = jnp.asarray([5, 6], np.uint32)
  words = draw(key).astype(np.uint64)
  mask = jax.jit(lambda p: tree.bernoulli(key, p, (SIZE,)))
  for share in (0, 2**-33, 2**-32, 2**-20, 0.3, 0.5, 1 - 2**-24, 1):
    bound = np.uint64(np.rint(float(np.float32(share)) * 2**32))
    np.testing.assert_array_equal(mask(np.float32(share)), words < bound)
  for share, wanted in ((-0.5, 0), (np.nan, 0), (1.5, SIZE)):
    assert int(mask(np.float32(share)).sum()) == wanted


def test_keys_of_many_leaves_and_models_are_folded_by_threefry() -> None:
  for key in (jax.random.key(3), jax.random.PRNGKey(3)):
    words = tree.name_words(key, ['b', 'a'], 3)
    assert list(words) == ['b', 'a']
    for name, rows in words.items():
      for i in range(3):
        one = jax.random.fold_in(tree.name_key(key, name), i)
        np.testing.assert_array_equal(rows[i], jax.random.key_data(one))


def uniform(words: np.ndarray) -> np.ndarray:
  """Standardised values: mean 0, variance 1."""
  return (words / 2**32 - 0.5) * math.sqrt(12)


def balance(words: np.ndarray) -> np.ndarray:
  """Each of the 32 bits is set in half of the words."""
  ones = [np.sum(words >> np.uint32(j) & 1) for j in range(32)]
  return (np.asarray(ones) - len(words) / 2) / math.sqrt(len(words) / 4)


def dependence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Correlation of values and of each bit, and counts of pairs of nibbles."""
  found = [np.mean(uniform(x) * uniform(y)) * math.sqrt(len(x))]
  found += list(balance(x ^ y))
  for shift in (0, 14, 28):
    high, low = (v >> np.uint32(shift) & 15 for v in (x, y))
    counts = np.bincount(high * 16 + low, minlength=256)
    mean = len(x) / 256
    chi = np.sum((counts - mean) ** 2) / mean
    # Wilson and Hilferty: the cube root of chi^2 / n is nearly normal.
    spread = 2 / (9 * 255)
    found.append(((chi / 255) ** (1 / 3) - 1 + spread) / math.sqrt(spread))
  return np.asarray(found)


def serial(draw: Draw) -> np.ndarray:
  """Words at several distances in one stream."""
  found = []
  for key in (KEYS['threefry'][0], KEYS['near'][1]):
    words = draw(key, SIZE + 4096)
    lags = (1, 2, 3, 64, 768, 1024, 4096)
    pairs = [(words[:SIZE], words[lag : SIZE + lag]) for lag in lags]
    found += [balance(words), *(dependence(*pair) for pair in pairs)]
  return np.concatenate(found)


def across(draw: Draw) -> np.ndarray:
  """Equal entries of different leaves, models, keys and blocks of 2^32."""
  found = []
  streams = [draw(key) for keys in KEYS.values() for key in keys]
  streams += [draw(KEYS['near'][0], start=n * 2**32) for n in (1, 2, 2**31)]
  for i, x in enumerate(streams):
    found += [dependence(x, y) for y in streams[:i]]
  # The number of models that keep an entry is binomial: check its variance.
  kept = np.sum([x < 2**30 for x in streams], 0)
  n, p = len(streams), 0.25
  square = (kept - n * p) ** 2 / (n * p * (1 - p))
  kurtosis = 3 + (1 - 6 * p * (1 - p)) / (n * p * (1 - p))
  found.append([(square.mean() - 1) * math.sqrt(SIZE / (kurtosis - 1))])
  return np.concatenate(found)


def shifted(draw: Draw) -> np.ndarray:
  """One stream against another at another place: no stream is another's shift.

  Keys that differ in one bit give streams whose words at i and i XOR 1 would
  be equal if the key were added to the counter only.
  """
  found = []
  first = draw(KEYS['near'][0])
  for key in KEYS['near'][1:]:
    other = draw(key)
    for place in (np.arange(SIZE) ^ 1, (np.arange(SIZE) + 1) % SIZE):
      found.append(dependence(first, other[place]))
  return np.concatenate(found)


def avalanche(draw: Draw) -> np.ndarray:
  """A flipped bit of the index or the key flips each bit of half the words."""
  size = 2**12
  rng = np.random.default_rng(0)
  key = np.asarray(KEYS['threefry'][0], np.uint32)
  start = int(rng.integers(2**31)) << 20
  words = draw(key, size, start)
  found = []
  for i in range(12, 44):
    found.append(balance(words ^ draw(key, size, start ^ 1 << i)))
  for i in range(12):
    place = np.arange(size) ^ 1 << i
    half = np.arange(size) >> i & 1 == 0  # each pair once
    found.append(balance((words ^ words[place])[half]))
  for i in range(64):
    flipped = key ^ np.asarray([1 << i & 0xFFFFFFFF, 1 << i >> 32], np.uint32)
    found.append(balance(words ^ draw(flipped, size, start)))
  return np.concatenate(found)


def collisions(draw: Draw) -> np.ndarray:
  """Equal words are as many as in draws with replacement."""
  size = 2**20
  words = draw(KEYS['threefry'][1], size)
  expected = size**2 / 2**33
  pairs = size - len(np.unique(words))
  return np.asarray([(pairs - expected) / math.sqrt(expected)])


def runs(draw: Draw) -> np.ndarray:
  """Counts in blocks of 256 entries have the variance of a binomial."""
  found = []
  words = draw(KEYS['threefry'][2])
  for share in (0.01, 0.1, 0.5, 0.9):
    kept = (words < share * 2**32).reshape(-1, 256).sum(1)
    variance = 256 * share * (1 - share)
    square = (kept - 256 * share) ** 2 / variance
    kurtosis = 3 + (1 - 6 * share * (1 - share)) / variance
    found.append((square.mean() - 1) * math.sqrt(len(square) / (kurtosis - 1)))
  return np.asarray(found)


STATISTICS = {
  f.__name__: f for f in (serial, across, shifted, avalanche, collisions, runs)
}


@pytest.mark.parametrize('statistic', STATISTICS.values(), ids=STATISTICS)
def test_words_are_uniform_and_independent(statistic: Any) -> None:
  found = statistic(draw)
  assert np.abs(found).max() < LIMIT


def indices(size: int, start: int) -> np.ndarray:
  return np.asarray((start % 2**32 + np.arange(size)) % 2**32, np.uint32)


def weyl(key: Any, size: int = SIZE, start: int = 0) -> np.ndarray:
  """Multiplication only, as in a linear congruential generator."""
  a, b = np.asarray(key, np.uint32)
  return (indices(size, start) + a) * np.uint32(0x9E3779B1) ^ b


def hashed(x: np.ndarray) -> np.ndarray:
  return np.asarray(_random._mix(x))


def masked(key: Any, size: int = SIZE, start: int = 0) -> np.ndarray:
  """A good hash of the index alone; the key is added to the words."""
  return hashed(indices(size, start)) ^ np.asarray(key, np.uint32)[0]


def moved(key: Any, size: int = SIZE, start: int = 0) -> np.ndarray:
  """A good hash; the key only moves the index: a permutation, one stream."""
  a, b = np.asarray(key, np.uint32)
  return hashed(indices(size, start) ^ a ^ b)


def short(key: Any, size: int = SIZE, start: int = 0) -> np.ndarray:
  """Fewer steps: one product between two shifts, keyed on both sides."""
  a, b = np.asarray(key, np.uint32)
  x = indices(size, start) ^ a
  x = (x ^ x >> np.uint32(17)) * np.uint32(0xED5AD4BB)
  return x ^ x >> np.uint32(11) ^ b


@pytest.mark.parametrize(
  ('weak', 'detected'),
  [
    (weyl, set(STATISTICS)),
    (masked, {'across', 'avalanche', 'collisions'}),
    (moved, {'across', 'shifted', 'avalanche', 'collisions'}),
    (short, set(STATISTICS)),
  ],
)
def test_weak_generators_are_detected(weak: Draw, detected: set[str]) -> None:
  worst = {k: np.abs(f(weak)).max() for k, f in STATISTICS.items()}
  assert detected <= {k for k, z in worst.items() if z > 2 * LIMIT}
