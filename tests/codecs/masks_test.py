"""TALL masks and EMR in bits."""

from typing import Any

import jax
import numpy as np
import pytest

from wsl import codecs, merge, tree


def family(kind: str, *, lazy: bool = False) -> merge.TallMasks:
  draw = np.random.default_rng(0).standard_normal
  stack: Any = {
    name: draw((3, *shape)).astype(np.float32)
    for name, shape in {'a': (3, 5), 'b': (4,)}.items()
  }
  stack = tree.defer(stack) if lazy else stack
  return merge.emr(stack) if kind == 'emr' else merge.tall_masks(
    stack, threshold=0.4
  )  # fmt: skip


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('kind', ['tall_masks', 'emr'])
def test_a_family_is_restored_bit_by_bit(kind: str, lazy: bool) -> None:
  packed = codecs.masks(family(kind, lazy=lazy))
  assert packed.codec == kind
  assert tree.on_demand(packed.leaves) == lazy
  found, wanted = tree.read(codecs.decode(packed)), family(kind)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)
  one = merge.materialize(codecs.decode(packed), 1)
  for x, y in zip(*map(jax.tree.leaves, (one, merge.materialize(wanted, 1)))):
    np.testing.assert_array_equal(tree.read(x), tree.read(y))


def test_bits_are_those_of_numpy() -> None:
  wanted = family('tall_masks')
  packed = codecs.masks(wanted).leaves.masks['a']
  flat = np.asarray(wanted.masks['a']).reshape(3, -1)
  np.testing.assert_array_equal(packed.data, np.packbits(flat, axis=-1))
  size = codecs.size(codecs.masks(wanted))
  share = flat.mean(1)
  bound = -15 * np.sum(
    share * np.log2(share) + (1 - share) * np.log2(1 - share)
  )
  np.testing.assert_allclose(size.leaves['masks/a'].bound, bound)
  assert size.leaves['masks/a'].bits == 3 * 16  # 15 bits, to whole bytes
  assert size.leaves['merged/a'].bits == 32 * 15
  assert size.entries == 3 * 19


def test_packs_are_decoded_in_a_trace() -> None:
  wanted = family('tall_masks')
  restore = lambda packed, task: merge.materialize(codecs.decode(packed), task)
  found = jax.jit(restore)(codecs.masks(wanted), 2)
  one = merge.materialize(wanted, 2)
  np.testing.assert_array_equal(found['a'], one['a'])


def test_other_families_are_refused() -> None:
  with pytest.raises(ValueError, match='masks: got a dict, expected a family'):
    codecs.masks({'w': np.ones((2, 3))})  # type: ignore[arg-type]
  wrong = family('emr')._replace(masks={'w': np.ones((2, 3))})
  with pytest.raises(ValueError, match="'w' has dtype float64, not bool"):
    codecs.masks(wrong)
