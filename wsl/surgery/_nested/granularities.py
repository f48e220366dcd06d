"""Granularities: one size for all layers, or one for each (Mix'n'Match)."""

from collections.abc import Iterator, Sequence
import itertools
import math

from wsl import align, tree
from wsl.surgery._nested import size as size_lib

FACTORS = (1, 2, 4, 8)


def granularities(
  symmetry: align.Symmetry,
  *,
  groups: str = '',
  factors: Sequence[float] = FACTORS,
) -> tuple[size_lib.Size, ...]:
  r"""Returns sizes that divide the width of all elastic groups alike.

  .. math:: w_g(q) = \max(1, \lfloor n_g / q \rfloor), \quad q \in F

  Args:
    symmetry: the symmetry of the whole model.
    groups: the elastic groups, a regular expression searched in their names,
      such as ``'mlp'`` for the hidden units of a transformer; all by default.
      Groups that depend on another one, such as the units of a head, are not
      elastic: whole heads are.
    factors: F, each at least 1; 1 is the whole model.

  Returns:
    A size for each factor.

  Raises:
    ValueError: if no group matches, or a factor is below 1.

  Example:
    >>> from wsl import align
    >>> h = align.Factor('w:0', 16)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> [size.widths['w:0'] for size in granularities(symmetry)]
    [16, 8, 4, 2]

  Reference:
    Devvrit et al., "MatFormer: Nested Transformer for Elastic Inference", 2023,
    arXiv:2310.07707.
  """
  names = elastic_groups(symmetry, groups, 'granularities')
  return tuple(
    mix_and_match(symmetry, [q] * len(names), groups=groups) for q in factors
  )


def mix_and_match(
  symmetry: align.Symmetry, choices: Sequence[float], *, groups: str = ''
) -> size_lib.Size:
  r"""Returns the size with a granularity of its own in each layer.

  .. math:: w_\ell = \max(1, \lfloor n_\ell / q_\ell \rfloor)

  A network trained at a few granularities also works at their mixtures, which
  were never trained.

  Args:
    symmetry: the symmetry of the whole model.
    choices: the factor q, at least 1, of each elastic group in the order of
      their names, where ``block_2`` precedes ``block_10``.
    groups: the elastic groups, as in ``granularities``.

  Returns:
    The size.

  Raises:
    ValueError: if there are not as many choices as groups, or one is below 1.

  Example:
    >>> from wsl import align
    >>> a, b = align.Factor('a:0', 16), align.Factor('b:0', 16)
    >>> leaves = (('a', ((('a:0',),),)), ('b', ((('b:0',),),)))
    >>> mix_and_match(align.Symmetry((a, b), leaves), [1, 4]).widths
    {'a:0': 16, 'b:0': 4}

  Reference:
    Devvrit et al., "MatFormer: Nested Transformer for Elastic Inference", 2023,
    arXiv:2310.07707.
  """
  names = elastic_groups(symmetry, groups, 'mix_and_match')
  if len(choices) != len(names):
    raise ValueError(
      f'mix_and_match: {len(choices)} choices for {len(names)} groups: '
      f'{names[:4]}'
    )
  for q in choices:
    if not q >= 1:
      raise ValueError(f'mix_and_match: factor {q}, expected 1 or more')
  # In floating point 96 / (96 / 29) is below 29: round down with a margin.
  widths = {
    name: max(1, math.floor(symmetry.factor[name].size / q + 1e-6))
    for name, q in zip(names, choices)
  }
  return size_lib.slice_size(symmetry, widths=widths)


def gradual_choices(
  layers: int, *, factors: Sequence[float] = FACTORS
) -> Iterator[tuple[float, ...]]:
  """Yields the choices of Mix'n'Match whose widths never grow with depth.

  A reconstruction of the paper's rule that granularities change gradually; its
  details are not confirmed.

  Args:
    layers: the number of elastic groups.
    factors: the granularities.

  Yields:
    The factor of each layer, non-decreasing, for ``mix_and_match``. Reverse one
    for widths that never fall.

  Example:
    >>> list(gradual_choices(2, factors=(1, 2)))
    [(1, 1), (1, 2), (2, 2)]

  Reference:
    Devvrit et al., "MatFormer: Nested Transformer for Elastic Inference", 2023,
    arXiv:2310.07707.
  """
  yield from itertools.combinations_with_replacement(sorted(factors), layers)


def elastic_groups(
  symmetry: align.Symmetry, groups: str, caller: str
) -> list[str]:
  """Returns the names of the groups that match, in the order of layers."""
  pattern = tree.compiled(groups)
  known = size_lib.outermost(symmetry)
  names = [name for name in known if pattern.search(name)]
  if not names:
    raise ValueError(
      f"{caller}: groups='{groups}' matches no group: the first are {known[:3]}"
    )
  return tree.in_order(names)
