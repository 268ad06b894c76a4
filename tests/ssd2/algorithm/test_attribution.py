"""Where a token comes from, on logits that are written down."""

from __future__ import annotations

import torch
from torch import Tensor

from ssd2.algorithm.attribution import BlockOrigins, Origin, origins
from ssd2.algorithm.collaboration import UserLogits

V = 8


def sure_of(*token_ids: int, by: float = 6.0) -> Tensor:
    """Logits of a pass that is sure of a token at each position; of none where it is -1. [1, P, V]."""
    logits = torch.zeros(1, len(token_ids), V)
    for position, token_id in enumerate(token_ids):
        if token_id >= 0:
            logits[0, position, token_id] = by
    return logits


def of(tokens: list[int], every: Tensor, alone: list[Tensor], *, turned: Tensor | None = None) -> list[Origin]:
    in_reverse = [every if turned is None else turned] if len(alone) > 1 else []
    user = UserLogits(every, sure_of(*[-1] * len(tokens)), (*alone, *in_reverse))
    return origins(torch.tensor(tokens), user, len(alone))


def test_a_token_comes_from_the_passage_that_raises_it_most() -> None:
    alone = [sure_of(3, -1), sure_of(3, 5, by=7.0), sure_of(-1, -1)]
    assert [origin.source for origin in of([3, 5], sure_of(3, 5), alone)] == [1, 1]


def test_a_raise_of_one_nat_at_most_is_of_no_passage() -> None:
    assert of([3], sure_of(3), [sure_of(3, by=1.05)])[0].source is None, "0.83 nats"
    assert of([3], sure_of(3), [sure_of(3, by=1.5)])[0].source == 0


def test_without_passes_alone_every_token_is_of_no_passage() -> None:
    assert origins(torch.tensor([3, 4]), UserLogits(sure_of(3, 4), sure_of(-1, -1)), 0) == [Origin()] * 2


def test_passages_disagree_where_two_are_sure_of_different_tokens() -> None:
    both = sure_of(3) + sure_of(5, by=5.0)
    (origin,) = of([3], both, [sure_of(3), sure_of(-1), sure_of(5)])
    assert (origin.source, origin.differs, list(origin.parties)) == (0, True, [0, 2])


def test_passages_that_say_the_same_or_say_it_unsurely_do_not_disagree() -> None:
    both = sure_of(3) + sure_of(5, by=5.0)
    for other in (sure_of(3), sure_of(5, by=1.8)):  # a probability of 0.46
        (origin,) = of([3], both, [sure_of(3), other])
        assert (origin.differs, list(origin.parties)) == (False, [])


def test_a_passage_that_is_not_about_the_question_beside_the_others_is_no_party() -> None:
    """Alone it is taken for the answer; all together make its token less likely than it is without any."""
    (origin,) = of([3], sure_of(3), [sure_of(3), sure_of(5)])
    assert (origin.source, origin.differs, list(origin.parties)) == (0, True, [])


def test_of_two_passages_about_the_same_the_order_may_decide() -> None:
    for every, turned in ((sure_of(3), sure_of(5)), (sure_of(5), sure_of(3))):
        (origin,) = of([3], every, [sure_of(3), sure_of(5)], turned=turned)
        assert list(origin.parties) == [0, 1]


def test_where_the_token_is_of_no_passage_nothing_disagrees() -> None:
    both = sure_of(3) + sure_of(5, by=5.0)
    assert of([1], both, [sure_of(3), sure_of(5)])[0] == Origin()


def test_private_context_is_a_source_and_never_a_party() -> None:
    both = sure_of(3) + sure_of(5, by=5.0)
    user = UserLogits(both, sure_of(-1), (sure_of(3), sure_of(5)))
    (origin,) = origins(torch.tensor([5]), user, 1)
    assert (origin.source, origin.differs) == (1, False)


def test_an_origin_is_of_the_timestep_at_which_the_token_was_last_changed() -> None:
    """Later all passes read the token in the noised block."""
    block, none = BlockOrigins(1), sure_of(-1, -1)
    block.see(torch.tensor([1, 4]), UserLogits(sure_of(1, 4), none, (sure_of(-1, 4),)))
    block.see(torch.tensor([3, 4]), UserLogits(sure_of(3, 4), none, (sure_of(3, 4),)))
    seen = sure_of(3, 4, by=20.0)
    block.see(torch.tensor([3, 4]), UserLogits(seen, seen, (seen,)))
    assert [origin.source for origin in block.found] == [0, 0]
    again = BlockOrigins(1)
    again.see(torch.tensor([3, 4]), UserLogits(seen, seen, (seen,)))
    assert [origin.source for origin in again.found] == [None, None]


def test_what_lies_ahead_is_each_passes_own() -> None:
    block, none = BlockOrigins(2), sure_of(-1, -1, -1)
    both = sure_of(3, 4, 1) + sure_of(5, 6, 1, by=5.0)
    block.see(torch.tensor([3, 4, 1]), UserLogits(both, none, (sure_of(3, 4, 1), sure_of(5, 6, 1), both)))
    assert [list(map(list, origin.ahead[:2])) for origin in block.found] == [
        [[3, 4, 1], [5, 6, 1]],
        [[4, 1], [6, 1]],
        [],
    ]
