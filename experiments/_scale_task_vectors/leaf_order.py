"""The leaves of an encoder in order of use."""

import jax
import jax.numpy as jnp

from experiments._shared import suites
from wsl import tree


def order(suite: suites.Suite) -> list[str]:
  """Returns the names of the encoder's leaves in order of use."""
  encoder = suites.shapes(suite)['encoder']
  image = jnp.asarray(suite.tasks.train.x[0, :1])
  jaxpr = jax.make_jaxpr(suite.encode)(encoder, image).jaxpr
  names = list(tree.named(encoder))
  place = {var: i for i, var in enumerate(jaxpr.invars[: len(names)])}
  # A dict keeps the order of first use, and drops repeated uses.
  used = dict.fromkeys(
    names[place[var]]
    for equation in jaxpr.eqns
    for var in equation.invars
    if isinstance(var, jax.extend.core.Var) and var in place
  )
  return [*used, *(name for name in names if name not in used)]


def matrices(suite: suites.Suite) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of leaves of two or more axes, in order of use."""
  encoder = tree.named(suites.shapes(suite)['encoder'])
  shapes = {name: tuple(encoder[name].shape) for name in order(suite)}
  return {name: shape for name, shape in shapes.items() if len(shape) > 1}
