"""Operations of ``stitch``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.operations import aligning, inputs
from wsl import stitch


def parts(dtype: Any) -> list[inputs.Table]:
  tables = (_adapters, _fits, _losses, _routes, _fusion)
  return [table(dtype) for table in tables]


def _adapters(dtype: Any) -> inputs.Table:
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  draw = lambda *shape: inputs.normal(dtype, *shape, seed=5)
  plain = stitch.Adapter(weight=draw(4, 5), bias=draw(5))
  low = stitch.Adapter(
    weight=draw(4, 5), bias=draw(5), down=draw(4, 2), up=draw(2, 5)
  )
  return {
    'stitch.apply_adapter': (stitch.apply_adapter, (plain, x)),
    'stitch.apply_adapter, low rank': (stitch.apply_adapter, (low, x)),
    'stitch.fold, low rank': (stitch.fold, (low,)),
    'stitch.invert': (stitch.invert, (plain,)),
    'stitch.compose_maps': (stitch.compose_maps, (plain, plain)),
    'stitch.resize': (lambda x: stitch.resize(x, (2, 2)), (draw(2, 9, 4),)),
    **{
      f'stitch.orthogonal, {kind}': (
        lambda x, kind=kind: stitch.orthogonal(x, kind=kind), (draw(4, 4),)
      )
      for kind in ('cayley', 'exponential', 'polar')
    },
  }  # fmt: skip


def _fits(dtype: Any) -> inputs.Table:
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  y = inputs.normal(dtype, inputs.N, 5, seed=4)
  same = inputs.normal(dtype, inputs.N, 4, seed=4)
  options = {
    'affine': {},
    'low_rank': {'rank': 2, 'key': inputs.KEY},
    'orthogonal': {},
  }
  found: inputs.Table = {
    f'stitch.fit, {kind}': (
      lambda x, y, kind=kind, more=more: stitch.fit(x, y, kind=kind, **more),
      (x, same),
    )
    for kind, more in options.items()
  }
  return found | {
    'stitch.translate': (lambda x, y: stitch.translate(x, y), (x, same)),
    'stitch.translate, affine': (
      lambda x, y: stitch.translate(x, y, kind='affine'), (x, y)
    ),
    'stitch.relative': (stitch.relative, (x, x[:3])),
    'stitch.relative, basis': (
      lambda x, a: stitch.relative(x, a, kind='basis'), (x, x[:3])
    ),
    'stitch.fit_each': (
      lambda x, y: stitch.fit_each({(0, 0): aligning.cross(x, y)}), (x, y)
    ),
    'stitch.fit_moments': (
      lambda x, y: stitch.fit_moments(aligning.cross(x, y)), (x, y)
    ),
  }  # fmt: skip


def _twice(x: Any) -> tuple[Any, Any]:
  return x, x


def _fusion(dtype: Any) -> inputs.Table:
  p = jax.nn.softmax(inputs.normal(dtype, 2, 4, 3, seed=6))
  labels, aligned = jnp.asarray([0, 2, 1, 1]), jnp.asarray([0, -1, 2, 3])
  return {
    'stitch.transfer_probabilities': (
      lambda p, a, y: stitch.transfer_probabilities(
        p, a, jnp.asarray([1, -1, 0]), y, size=5
      ),
      (p[0], aligned, labels),
    ),
    'stitch.fuse_probabilities': (
      lambda p, y: stitch.fuse_probabilities(p, y, combine='mean'), (p, labels)
    ),
    'stitch.fusion_loss': (stitch.fusion_loss, (p[0], labels, p[1])),
  }  # fmt: skip


def _losses(dtype: Any) -> inputs.Table:
  p = inputs.params(dtype, 1)
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  labels = jnp.asarray(inputs.LABELS)
  old = inputs.normal(dtype, inputs.M, inputs.H, seed=6)
  bct = stitch.bct_loss(inputs.features, old)
  bt2 = stitch.bt2_loss(
    lambda p, x: (*_twice(inputs.features(p, x)[0]), inputs.mlp(p, x)), old
  )
  hoc = stitch.hoc_loss(inputs.features)
  basis = stitch.random_basis(inputs.KEY, new=inputs.H, old=inputs.H, extra=2)
  basis = jax.tree.map(lambda v: v.astype(dtype), basis)
  batch = (x, labels)
  o = inputs.normal(dtype, inputs.N, inputs.H, seed=9)
  return {
    'stitch.bct_loss': (lambda p, b: bct(p, b, inputs.KEY), (p, batch)),
    'stitch.bt2_loss': (
      lambda p, b: bt2(p, b, inputs.KEY), ((p, basis), (*batch, o, o))
    ),
    'stitch.hoc_loss': (lambda p, b: hoc(p, b, inputs.KEY), (p, (*batch, o))),
    'stitch.basis_transform': (stitch.basis_transform, (basis, o, o)),
    'stitch.class_means': (
      lambda x: stitch.class_means(x, labels, classes=inputs.M), (x,)
    ),
    'stitch.naswot': (lambda x: stitch.naswot([x]), (x,)),
  }  # fmt: skip


def _routes(dtype: Any) -> inputs.Table:
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  draw = lambda seed, *shape: inputs.normal(dtype, *shape, seed=seed)
  block = lambda kernel, h: jnp.tanh(inputs.dense(kernel, h))
  nets = {}
  for i, name in enumerate('ab'):
    parts = {'embed': draw(i, 4, 5), 'head': draw(i, 5, 3)}
    parts['blocks'] = draw(i, 2, 5, 5)
    nets[name] = stitch.Segmented(parts, inputs.dense, block, inputs.dense)
  family = stitch.Family(nets, {})
  routes = [
    stitch.Route((stitch.Piece(a, 0, 1), stitch.Piece(b, 1, 2)), ('',))
    for a in 'ab'
    for b in 'ab'
  ]
  apply_fn, rows = stitch.program(family, routes)
  h = inputs.normal(dtype, inputs.N, 5, seed=3)
  row = jax.tree.map(lambda r: np.asarray(r)[1], rows)
  return {
    'stitch.apply': (stitch.apply, (nets['a'], x)),
    'stitch.features': (stitch.features, (nets['a'], x)),
    'stitch.advance': (lambda n, h: stitch.advance(n, h, 0, 1), (nets['a'], h)),
    'stitch.random_route': (
      lambda f, b: stitch.random_route(apply_fn, rows)(f, b, inputs.KEY),
      (family, (x, jnp.asarray(inputs.LABELS))),
    ),
    'stitch.penalty_loss': (
      lambda a, b, w, batch: stitch.penalty_loss(
        (a, b), {(0, 0): stitch.Adapter(weight=w)}, batch, inputs.KEY
      ),
      (nets['a'], nets['b'], draw(9, 5, 5), (x, jnp.asarray(inputs.LABELS))),
    ),
    'stitch.program': (apply_fn, (family, row, x)),
  }
