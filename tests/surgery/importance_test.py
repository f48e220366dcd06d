"""Importance of units, and the order that sorts a network by it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.surgery import nested_networks as networks
from wsl import align, stats, surgery

HEADS, KEYS, VALUES = networks.HEADS, networks.KEYS, networks.VALUES


def columns(params: Any) -> list[np.ndarray]:
  """Returns the columns of the fused kernel, ``[rows, heads, units]``."""
  parts = np.split(params['qkv'], [HEADS * KEYS, 2 * HEADS * KEYS], axis=1)
  return [y.reshape(len(y), HEADS, -1) for y in parts]


def sums(a: Any, b: Any) -> dict[str, np.ndarray]:
  """Returns the sums of a * b over the weights of each unit."""
  c = {name: a[name] * b[name] for name in a}
  q, k, v = (y.sum(0) for y in columns(c))
  out = c['out'].sum(2)
  residual = c['embed'].sum(0) + c['qkv'].sum(1) + c['out'].sum((0, 1))
  residual += c['up'].sum(1) + c['down'].sum(0) + c['head'].sum(1)
  return {
    networks.OF_HIDDEN: c['up'].sum(0) + c['bias'] + c['down'].sum(1),
    networks.OF_RESIDUAL: residual,
    networks.OF_HEADS: (q + k).sum(1) + (v + out).sum(1),
    networks.OF_VALUES: v + out,
    networks.OF_KEYS: q + k,
  }


def check(found: Any, wanted: Any) -> None:
  assert {*found} == {*wanted}
  for name, table in wanted.items():
    np.testing.assert_allclose(found[name], table, rtol=1e-12, err_msg=name)


def test_importance_sums_over_all_weights_of_a_unit() -> None:
  params, other = networks.params(), networks.params(1)
  options = {'symmetry': networks.symmetry()}
  sign = jax.tree.map(np.sign, params)
  squares = jax.tree.map(np.square, params)
  check(surgery.weight_importance(params, **options), sums(params, sign))
  check(
    surgery.weight_importance(params, power=2, **options),
    sums(params, params),
  )
  slopes = {name: np.abs(t) for name, t in sums(params, other).items()}
  check(surgery.gradient_importance(params, other, **options), slopes)
  fishers = jax.tree.map(np.square, other)
  half = {name: t / 2 for name, t in sums(squares, fishers).items()}
  check(surgery.fisher_importance(params, fishers, **options), half)


def test_the_gradient_predicts_the_loss_without_a_unit() -> None:
  """To first order: a gate on a hidden unit, from the map that reads it."""
  params, x = networks.params(), networks.inputs()
  loss = lambda p: np.square(networks.network(p, x, xp=np)).mean()
  slopes = jax.jit(jax.grad(lambda p: (networks.network(p, x) ** 2).mean()))(
    params
  )
  found = surgery.gradient_importance(
    params, slopes, symmetry=networks.symmetry(), leaves='down'
  )
  for unit in range(networks.HIDDEN):
    gate = np.ones((networks.HIDDEN, 1))
    gate[unit] = 1 - 1e-6
    change = loss(params) - loss(params | {'down': params['down'] * gate})
    np.testing.assert_allclose(
      found[networks.OF_HIDDEN][unit], abs(change) / 1e-6, rtol=1e-3
    )


def test_activations_measure_what_a_removed_unit_changes() -> None:
  params, x = networks.params(), networks.inputs()
  grams = stats.gram(networks.network, params, [x], leaves='down|out|head')
  found = surgery.activation_importance(
    params, grams, symmetry=networks.symmetry()
  )
  # The change of the perceptron's outputs without each hidden unit.
  h = x @ params['embed']
  q, k, v = (
    (h @ y.reshape(len(y), -1)).reshape(*h.shape[:2], HEADS, -1)
    for y in columns(params)
  )
  scores = np.exp(np.einsum('bqhd,bkhd->bhqk', q, k) / KEYS**0.5)
  weights = scores / scores.sum(-1, keepdims=True)
  mixed = np.einsum('bhqk,bkhe->bqhe', weights, v)
  squares = np.square(params['out']).sum(-1) * np.square(mixed).mean((0, 1))
  h = h + np.einsum('bqhe,her->bqr', mixed, params['out'])
  hidden = np.tanh(h @ params['up'] + params['bias'])
  wanted = np.square(hidden[..., None] * params['down']).sum(-1).mean((0, 1))
  np.testing.assert_allclose(found[networks.OF_HIDDEN], wanted, rtol=1e-9)
  np.testing.assert_allclose(found[networks.OF_VALUES], squares, rtol=1e-9)
  np.testing.assert_allclose(
    found[networks.OF_HEADS], squares.sum(1), rtol=1e-9
  )
  assert not np.any(found[networks.OF_KEYS])  # no Gram matrix reads them


def sort(params: Any, **options: Any) -> Any:
  symmetry = networks.symmetry()
  table = surgery.weight_importance(params, symmetry=symmetry)
  order = surgery.importance_order(table, symmetry=symmetry, **options)
  return networks.to_numpy(align.permute(params, order, symmetry=symmetry))


def test_a_sorted_network_computes_the_same_and_leads_with_its_best() -> None:
  params, x = networks.params(), networks.inputs()
  found = sort(params)
  np.testing.assert_allclose(
    networks.network(found, x, xp=np),
    networks.network(params, x, xp=np),
    rtol=1e-9,
  )
  table = surgery.weight_importance(found, symmetry=networks.symmetry())
  for name, importance in table.items():
    assert np.all(np.diff(importance, axis=-1) <= 1e-12), name
  assert not np.array_equal(found['qkv'], params['qkv'])


def test_aligned_networks_have_equal_slices() -> None:
  """Sorting undoes a permutation, and so does aligning."""
  symmetry = networks.symmetry()
  params = networks.params()
  pi = align.random(symmetry, jax.random.key(3), gauges=('permutation',))
  moved = networks.to_numpy(align.permute(params, pi, symmetry=symmetry))
  size = surgery.slice_size(
    symmetry, widths={networks.OF_HEADS: 2, networks.OF_HIDDEN: 3}
  )
  cut = lambda p: networks.to_numpy(surgery.slice(p, size, symmetry=symmetry))
  back = align.permute(
    moved, align.invert(pi, symmetry=symmetry), symmetry=symmetry
  )
  x = networks.inputs()
  run = lambda p: networks.network(p, x, xp=np)
  np.testing.assert_allclose(run(cut(back)), run(cut(params)), rtol=1e-9)
  np.testing.assert_allclose(
    run(cut(sort(moved))), run(cut(sort(params))), rtol=1e-9
  )
  assert np.abs(run(cut(moved)) - run(cut(params))).max() > 0.1


@pytest.mark.parametrize('banded', [True, False])
def test_slices_are_kept_where_sorting_is_within_their_bands(
  banded: bool,
) -> None:
  symmetry, x = networks.symmetry(), networks.inputs()
  sizes = surgery.granularities(symmetry, factors=(1, 2, 4))
  params = networks.params()
  found = sort(params, within=sizes if banded else ())
  for size in sizes[1:]:
    a, b = (
      networks.network(
        networks.to_numpy(surgery.slice(p, size, symmetry=symmetry)), x, xp=np
      )
      for p in (params, found)
    )
    assert np.allclose(a, b, rtol=1e-9) == banded
  assert np.abs(found['up'] - params['up']).max() > 0.1


def scanned(p: Any, x: Any) -> Any:
  """Residual perceptrons whose layers are stacked in each leaf."""

  def layer(h: Any, w: Any) -> Any:
    return h + jnp.tanh(h @ w['up']) @ w['down'], None

  return jax.lax.scan(layer, x, p)[0]


def test_stacked_layers_are_sorted_one_by_one_and_cut_alike() -> None:
  rng = np.random.default_rng(0)
  params = {
    'down': rng.normal(size=(2, 6, 3)), 'up': rng.normal(size=(2, 3, 6))
  }  # fmt: skip
  x = rng.normal(size=(4, 3))
  symmetry = align.find_symmetry(scanned, params, x)
  (group,) = symmetry.groups
  table = surgery.weight_importance(params, symmetry=symmetry)
  order = surgery.importance_order(table, symmetry=symmetry)
  found = networks.to_numpy(align.permute(params, order, symmetry=symmetry))
  kept = surgery.slice_size(symmetry, widths=0.5)
  assert kept.widths == {group.name: 3}
  cut = networks.to_numpy(surgery.slice(found, kept, symmetry=symmetry))
  for i in range(2):
    sums = np.abs(params['up'][i]).sum(0) + np.abs(params['down'][i]).sum(1)
    best = np.argsort(-sums)[:3]
    np.testing.assert_array_equal(cut['up'][i], params['up'][i][:, best])
    np.testing.assert_array_equal(cut['down'][i], params['down'][i][best])
