"""Traits of the arrays that a scan carries from step to step."""

from collections.abc import Sequence
from typing import NamedTuple

from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib


class Step(NamedTuple):
  """The traits that a scan's body may assume of its arguments.

  Attributes:
    carry: the traits of the carry, an induction hypothesis.
    slices: the traits of the slices of the scanned arrays.
  """

  carry: list[traits_lib.Traits]
  slices: list[traits_lib.Traits]


def first(
  consts: Sequence[operands_lib.Operand],
  carry: Sequence[operands_lib.Operand],
  stacks: Sequence[operands_lib.Operand],
) -> Step:
  """Assumes that the carry keeps the traits of its initial value."""
  # The slices at one step are new to the carry, which depends on those of
  # earlier steps only: given all of these, they still have a density.
  earlier = [
    x for x in stacks if not traits_lib.separate_steps(x.traits, x.shape)
  ]
  roots = traits_lib.union([x.traits for x in [*consts, *carry, *earlier]])
  slices = [traits_lib.scan_slice(x.traits) for x in stacks]
  known = [
    traits_lib.Traits(
      roots,
      nonzero=operands_lib.nonzero(x),
      distinct=x.traits.distinct,
      alive=x.traits.alive,
      bounded=operands_lib.bounded(x),
    )
    for x in carry
  ]
  return Step(known, slices)


def common(step: Step, results: Sequence[operands_lib.Operand]) -> Step:
  """Keeps the assumed traits that the carry of the next step has too."""
  carry = [
    traits_lib.common(old, new.traits)._replace(
      roots=old.roots, bounded=old.bounded and operands_lib.bounded(new)
    )
    for old, new in zip(step.carry, results)
  ]
  return step._replace(carry=carry)
