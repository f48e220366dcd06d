"""Meshes from shapes and text, and the messages of those that cannot be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import merge, mesh

KEY = jax.random.key(0)


@pytest.mark.parametrize(
  ('shape', 'names'),
  [
    ({'candidates': 2, 'model': 4}, None),
    ((2, 4), ('candidates', 'model')),
    ('2,4', 'candidates, model'),
    ('candidates:2,model:4', None),
    ('candidates=2, model=4', None),
    ('candidates:-1,model:4', None),
    ({'candidates': 2, 'model': -1}, None),
  ],
)
@pytest.mark.needs_devices(8)
def test_forms_of_one_mesh(shape: Any, names: Any) -> None:
  found = mesh.make(shape, names)
  assert dict(found.shape) == {'candidates': 2, 'model': 4}
  assert set(found.axis_types) == {jax.sharding.AxisType.Auto}
  assert found.devices.flatten().tolist() == jax.devices()[:8]


@pytest.mark.needs_devices(8)
def test_a_mesh_of_some_devices() -> None:
  assert mesh.make(2, 'model').devices.tolist() == jax.devices()[:2]
  last = jax.devices()[6:8]
  assert mesh.make('model:-1', devices=last).devices.tolist() == last


@pytest.mark.parametrize(
  ('shape', 'names', 'message'),
  [
    ('model:4096', None, r'model=4096 needs 4096 devices, there (is|are) \d+ '),
    ('a:4096,b:-1', None, r'a=4096, b=0 needs 4096 devices, there'),
    ('model:0', None, 'sizes are positive, and at most one is -1'),
    ('a:-1,b:-1', None, 'sizes are positive, and at most one is -1'),
    ('model', None, "expected text such as 'candidates:2,model:4'"),
    (
      '2,4',
      None,
      "2 sizes and the names \\['', ''\\]: give each size one name",
    ),
    ('2,4', 'model', "2 sizes and the names \\['model'\\]"),
    ((1, 1), ('a', 'a'), "2 sizes and the names \\['a', 'a'\\]"),
    (8, None, r'1 sizes and the names \[\]'),
    ({}, None, r'0 sizes and the names \[\]'),
    ((1, 1), (1, 2), r'2 sizes and the names \[1, 2\]'),
    ({'a': 2.5}, None, r"shape is \{'a': 2.5\}: give integers"),
    ((1.5,), 'a', r'shape is \(1.5,\): give integers'),
    (None, None, 'shape is None: give integers'),
    (float('nan'), 'a', 'shape is nan: give integers'),
    (True, 'a', 'shape is True: give integers'),
    (b'a:1', None, "shape is b'a:1': give integers"),
    ('model:1', 'x', 'two names for an axis: leave names out'),
    (10**30, 'a', 'a=10+ needs 10+ devices, there'),
  ],
)
def test_bad_shapes(shape: Any, names: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as raised:
    mesh.make(shape, names)
  assert str(raised.value).startswith('make')
  assert len(str(raised.value)) <= 200


def test_bad_devices() -> None:
  for devices, message in (
    ([0, 1], 'devices are none: give some of'),
    (2, 'devices are none: give some of'),
    (jax.devices()[:1] * 2, 'a device is given twice'),
    ([], 'needs 1 devices, there are 0'),
  ):
    with pytest.raises(ValueError, match=f'^make: .*{message}'):
      mesh.make('a:1', devices=devices)
  one = np.asarray(jax.devices()[:1]).reshape(1, 1)
  assert mesh.make(np.int64(1), 'a', devices=one).devices.shape == (1,)


@pytest.mark.needs_devices(8)
def test_merges_explain_explicit_axes() -> None:
  """Where JAX refuses them; elementwise programs are executed."""
  m = jax.make_mesh((8,), ('model',))
  where = jax.sharding.NamedSharding(m, jax.P(None, 'model'))
  x = {'w': jax.device_put(jnp.arange(32.0).reshape(2, 16), where)}
  assert merge.sum(x)['w'].tolist() == (16 + 2 * np.arange(16.0)).tolist()
  message = (
    r"explicit axes \('model',\), the default of jax.make_mesh: shard it"
  )
  with pytest.raises(ValueError, match=message) as raised:
    merge.sce(x, select=0.5)
  assert len(str(raised.value)) <= 200
  with pytest.raises(ValueError, match=message):
    jax.jit(lambda x: merge.della(x, density=0.5, epsilon=0.1, key=KEY))(x)


def test_explicit_axes_are_refused() -> None:
  explicit = jax.make_mesh((1,), ('candidates',))
  calls = (
    lambda m: mesh.shardings({'w': jax.numpy.ones(4)}, None, m),
    lambda m: mesh.map_candidates(abs, jax.numpy.ones(4), mesh=m),
  )
  for call in calls:
    with pytest.raises(ValueError, match=r'by mesh\.make') as raised:
      call(explicit)
    assert "axis 'candidates' of the mesh is Explicit" in str(raised.value)
    with pytest.raises(ValueError, match=r'mesh is a dict: make one by mesh\.'):
      call({'candidates': 1})
