"""The routers with parameters, inputs and the order of their groups."""

from tests.align.find.experts import moe, routers
from tests.align.find.zoo import base

_LAYER = {n: moe.SHAPES[n] for n in (*moe.ROUTED, 'scale', 'shift')}
_SCAN = {n: (3, *moe.SHAPES[n]) for n in (*moe.ROUTED, 'scale')}
FREED = {
  'mixtral': (
    routers.mixtral,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'renormalised': (
    routers.renormalised,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'switch': (
    routers.switch,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'threshold': (
    routers.threshold,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'top_k_threshold': (
    routers.top_k_threshold,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'expert_choice': (
    routers.expert_choice,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'expert_choice_one_hot': (
    routers.expert_choice_one_hot,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'deepseek': (
    routers.deepseek,
    moe.draw(*moe.ROUTED, 'bias'),
    moe.X,
    moe.NESTED,
  ),
  'argsort': (
    routers.argsort,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'argsort_descending': (
    routers.argsort_descending,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'sorted_pairs': (
    routers.sorted_pairs,
    moe.draw(*moe.ROUTED, 'bias'),
    moe.X,
    moe.NESTED,
  ),
  'gathered': (
    routers.gathered,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.ALIKE,
  ),
  'taken': (
    routers.taken,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.ALIKE,
  ),
  'per_token': (
    routers.per_token,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.ALIKE,
  ),
  'sliced': (
    routers.sliced,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.ALIKE,
  ),
  'scattered': (
    routers.scattered,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'added': (
    routers.added,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'along': (
    routers.along,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'segments': (
    routers.segments,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'capacity': (
    routers.capacity,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'gshard': (
    routers.gshard,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'load_balance': (
    routers.load_balance,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
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
  'branched': (routers.branched, moe.draw(*moe.ROUTED), moe.X, moe.NESTED),
  'looped': (routers.looped, moe.draw(*moe.ROUTED), moe.X, moe.NESTED),
  'differentiated': (
    routers.differentiated,
    moe.draw(*moe.ROUTED),
    moe.X,
    moe.NESTED,
  ),
  'switch_module': (
    *base.linen(routers.Switch(), *moe.X),
    moe.X,
    moe.NESTED * moe.f(3),
  ),
}
