"""A config is chosen by the name of its variant."""

from collections.abc import Callable, Mapping

import ml_collections

from wsl import tree


def choose(
  variants: Mapping[str, Callable[[], ml_collections.ConfigDict]], name: str
) -> ml_collections.ConfigDict:
  """Returns a new config that knows its variant.

  Args:
    variants: what makes each variant's config.
    name: which one.

  Returns:
    The config, its field ``variant`` the name.

  Raises:
    ValueError: if there is no such variant, naming the nearest.
  """
  if name not in variants:
    hint = tree.nearest(name, list(variants))
    raise ValueError(
      f"no variant '{name}'{hint}: there are {', '.join(variants)}"
    )
  config = variants[name]()
  config.variant = name
  return config
