"""The routers with parameters, inputs and the order of their groups."""

from tests.align.find.experts import moe, routers
from tests.align.find.zoo import base

_LAYER = {n: moe.SHAPES[n] for n in (*moe.ROUTED, 'scale', 'shift')}
_SCAN = {n: (3, *moe.SHAPES[n]) for n in (*moe.ROUTED, 'scale')}
# Routers of the parameters ROUTED alone: units have an order in each expert, or
# one order for all experts.
_NESTED = [
  routers.mixtral,
  routers.renormalised,
  routers.switch,
  routers.threshold,
  routers.top_k_threshold,
  routers.expert_choice,
  routers.expert_choice_one_hot,
  routers.argsort,
  routers.argsort_descending,
  routers.scattered,
  routers.added,
  routers.along,
  routers.segments,
  routers.capacity,
  routers.gshard,
  routers.load_balance,
  routers.branched,
  routers.looped,
  routers.scanned_experts,
  routers.softplus,
  routers.log_sigmoid,
  routers.root_softplus,
  routers.masked_second,
  routers.zeroed_second,
  routers.excluded_second,
]
_ALIKE = [routers.gathered, routers.taken, routers.per_token, routers.sliced]
FREED = {
  **{
    router.__name__: (router, moe.draw(*moe.ROUTED), moe.X, order)
    for order, group in ((moe.NESTED, _NESTED), (moe.ALIKE, _ALIKE))
    for router in group
  },
  **{
    router.__name__: (router, moe.draw(*moe.ROUTED, 'bias'), moe.X, moe.NESTED)
    for router in (routers.deepseek, routers.sorted_pairs)
  },
  # The cotangent of a sum is constant: the outputs of the last weights, which
  # it multiplies, may be permuted.
  'differentiated': (
    routers.differentiated,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED * base.factorial(moe.W),
  ),
  'jittered': (
    routers.jittered,
    moe.draw(*moe.ROUTED),
    (*moe.X, 1 + 0.1 * base.normal(moe.B, moe.W, seed=3)),
    moe.NESTED,
  ),
  'noisy': (
    routers.noisy,
    moe.draw(*moe.ROUTED, noise=(moe.W, moe.E)),
    (*moe.X, base.normal(moe.B, 1, seed=3)),
    moe.NESTED,
  ),
  'normed': (
    routers.normed,
    moe.draw(*moe.ROUTED, 'scale', **{'in': (moe.W, 3), 'out': (3, moe.W)}),
    moe.X,
    moe.NESTED * moe.f(3),
  ),
  'layer_normed': (
    routers.layer_normed,
    base.draw({'layers': [_LAYER, _LAYER]}),
    moe.X,
    moe.NESTED**2,
  ),
  'scanned': (
    routers.scanned,
    base.draw({'layers': _SCAN}),
    moe.X,
    moe.NESTED**3,
  ),
  'scanned_twice': (
    routers.scanned_twice,
    base.draw({'layers': _SCAN}),
    moe.X,
    moe.NESTED**3,
  ),
  'shared_lookup': (
    routers.shared_lookup,
    moe.draw(*moe.ROUTED, other=(moe.W, moe.E)),
    moe.X,
    moe.NESTED,
  ),
  'soft_prompts': (
    routers.soft_prompts,
    moe.draw(*moe.ROUTED, queries=(3, moe.W)),
    moe.X,
    moe.NESTED * moe.f(3) * moe.f(moe.W),
  ),
  'switch_module': (
    *base.linen(routers.Switch(), *moe.X),
    moe.X,
    moe.NESTED * moe.f(3),
  ),
}
