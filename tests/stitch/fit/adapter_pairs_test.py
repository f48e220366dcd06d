"""Moments and adapters of all pairs of positions, in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stats, stitch

TRACES: list[str] = []


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def embed(params, x):
  TRACES.append('embed')
  return jnp.tanh(x @ params)


def block(params, h):
  return h + jnp.tanh(h @ params)


def head(params, h):
  return h @ params


def network(width, depth, seed=0) -> stitch.Segmented:
  params = {
    'embed': draw(3, width, seed=seed),
    'blocks': draw(depth, width, width, seed=seed + 1) / width,
    'head': draw(width, 2, seed=seed + 2),
  }
  return stitch.Segmented(params, embed, block, head)


A, B = network(4, 2), network(5, 3, seed=7)
BATCHES = [draw(6, 2, 3, seed=i) for i in range(4)]


def rows(model):
  each = [stitch.features(model, x) for x in BATCHES]
  return [
    jnp.concatenate(values).reshape(-1, values[0].shape[-1])
    for values in zip(*each)
  ]


def test_moments_equal_those_of_the_collected_features() -> None:
  found = stitch.moments(A, B, BATCHES)
  assert sorted(found) == [(p, q) for p in range(3) for q in range(4)]
  xs, ys = rows(A), rows(B)
  for (p, q), both in found.items():
    a, b = (np.asarray(v - v.mean(0)[None]) for v in (xs[p], ys[q]))
    np.testing.assert_allclose(both.xy, a.T @ b / 48, atol=1e-12)
    assert both.grid is None
  assert found[1, 0].xx is found[1, 2].xx


def test_adapters_equal_separate_fits_to_the_collected_features() -> None:
  pairs = [(1, 0), (2, 3), (1, 2)]
  found = stitch.fit_pairs(A, B, BATCHES, pairs=pairs)
  assert list(found) == pairs
  xs, ys = rows(A), rows(B)
  for p, q in pairs:
    alone = stitch.fit(xs[p], ys[q])
    np.testing.assert_allclose(found[p, q].weight, alone.weight, atol=1e-9)
    np.testing.assert_allclose(found[p, q].bias, alone.bias, atol=1e-9)


def test_each_network_is_traced_once_for_all_pairs_and_batches() -> None:
  TRACES.clear()
  stitch.fit_pairs(network(4, 3), network(3, 3, seed=2), iter(BATCHES))
  # Two traces of each network for its shapes, one for its values.
  assert len(TRACES) <= 6
  TRACES.clear()
  stitch.fit_pairs(network(4, 3, seed=5), network(3, 3, seed=6), BATCHES)
  assert len(TRACES) <= 4


def test_a_self_stitch_keeps_the_output() -> None:
  adapters = stitch.fit_pairs(A, A, BATCHES, pairs=[(1, 1)])
  route = stitch.Route(
    (stitch.Piece('a', 0, 1), stitch.Piece('b', 1, 2)), ('s',)
  )
  net = stitch.stitch(A, A, route=route, adapters={'s': adapters[1, 1]})
  x = draw(5, 2, 3, seed=9)
  np.testing.assert_allclose(
    stitch.apply(net, x), stitch.apply(A, x), atol=1e-10
  )


def test_low_rank_pairs_draw_different_updates() -> None:
  found = stitch.fit_pairs(
    A, B, BATCHES, kind='low_rank', rank=2, key=jax.random.key(0)
  )
  assert np.abs(found[0, 1].down - found[1, 1].down).max() > 0.01


def tokens(params, x):
  """Embeds images [B, 4, 4, 3] as 4 tokens."""
  h = x.reshape(len(x), 2, 2, 2, 2, 3).mean((2, 4))
  return h.reshape(len(x), 4, 3) @ params


def test_image_features_to_tokens_of_another_resolution_and_width() -> None:
  images = [draw(3, 4, 4, 3, seed=i) for i in range(4)]
  b = stitch.Segmented(B.params, tokens, block, head)
  adapters = stitch.fit_pairs(A, b, images, pairs=[(0, 0), (1, 0), (2, 3)])
  adapter = adapters[1, 0]
  assert adapter.grid == (4,)
  assert adapter.weight.shape == (4, 5)
  x = jnp.concatenate(images)
  source, target = stitch.features(A, x)[1], stitch.features(b, x)[0]
  found = stitch.apply_adapter(adapter, source)
  expected = stitch.apply_adapter(stitch.fit(source, target), source)
  np.testing.assert_allclose(found, expected, atol=1e-9)
  assert stitch.fit_pairs(A, A, images, pairs=[(1, 1)])[1, 1].grid is None


def test_similarities_of_all_pairs() -> None:
  found = stitch.moments(A, A, BATCHES)
  for p in range(3):
    np.testing.assert_allclose(stats.cka(found[p, p]), 1, atol=1e-12)
    np.testing.assert_allclose(stats.residual(found[p, p]), 0, atol=1e-10)
  assert stats.cka(found[0, 2]) < 1


@pytest.mark.parametrize('call', [stitch.moments, stitch.fit_pairs])
def test_errors_of_batches_and_positions(call) -> None:
  with pytest.raises(ValueError, match='no batches given'):
    call(A, B, [])
  with pytest.raises(ValueError, match=r'pair \(3, 0\).*source has 0 .. 2'):
    call(A, B, BATCHES, pairs=[(3, 0)])


@pytest.mark.parametrize(
  ('kind', 'message'), [('afine', "no kind 'afine'"), ('low_rank', 'and a key')]
)
def test_hyperparameters_are_checked_before_any_batch_is_read(
  kind, message
) -> None:
  batches = (pytest.fail('a batch is read') for _ in range(1))
  with pytest.raises(ValueError, match=message):
    stitch.fit_pairs(A, B, batches, kind=kind)


def test_errors_name_the_positions() -> None:
  with pytest.raises(ValueError, match=r'positions \(1, 2\): an identity'):
    stitch.fit_pairs(A, B, BATCHES, pairs=[(1, 2)], kind='identity')
  with pytest.raises(ValueError, match=r'positions \(2, 0\): .*depend'):
    stitch.fit_pairs(A, B, [BATCHES[0][:1]], pairs=[(2, 0)], ridge=0.0)
