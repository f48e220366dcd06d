"""Versions and devices of a run."""

import os
import platform
from typing import Any

import flax
import jax
import numpy as np
import optax

import wsl


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the libraries used."""
  modules = {'wsl': wsl, 'jax': jax, 'flax': flax, 'optax': optax, 'numpy': np}
  found = {name: str(m.__version__) for name, m in modules.items()}
  return {'python': platform.python_version(), **found}


def device(mesh: jax.sharding.Mesh | None = None) -> dict[str, Any]:
  """Returns the kind and number of devices and processes, and the mesh."""
  first = jax.devices()[0]
  axes = {} if mesh is None else mesh.shape
  return {
    'platform': first.platform,
    'kind': first.device_kind,
    'devices': jax.device_count(),
    'processes': jax.process_count(),
    'cores': os.cpu_count(),
    'mesh': ','.join(f'{axis}:{n}' for axis, n in axes.items()) or None,
  }
