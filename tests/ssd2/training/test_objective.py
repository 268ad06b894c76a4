"""Algorithm 1: the one masked pass of App. A against every block of every sequence on its own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import DEMO_TOKENIZER, plain_logits, tiny_config, tiny_model
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ssd2.algorithm.noise_schedule import alpha_bar
from ssd2.demo.generator import Item
from ssd2.errors import PromptTooLong
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import Tokenizer
from ssd2.training.data import collate, encode_item
from ssd2.training.draws import Partner, sample_timesteps
from ssd2.training.objective import Batch, causal_loss, diffusion_loss, diffusion_losses, masked_logits, projected_with

VOCAB, BLOCK, EOS, PAD = 32, 4, 2, 0
PROMPT_LENGTHS, BLOCKS = (3, 7, 5), (2, 3, 1)
WAYS = [
    pytest.param(context_timestep, answer_position, self_condition)
    for context_timestep in ("quantised", "none")
    for answer_position in (None, 20)
    for self_condition in (False, True)
]


def make_batch() -> Batch:
    """Three sequences with prompts and answers of different lengths; the answers end in EOS."""
    generator = torch.Generator().manual_seed(3)
    prompts = torch.full((3, max(PROMPT_LENGTHS)), PAD)
    answers = torch.full((3, max(BLOCKS) * BLOCK), PAD)
    prompt_mask, answer_mask = torch.zeros_like(prompts).bool(), torch.zeros_like(answers).bool()
    for row, (prompt_length, blocks) in enumerate(zip(PROMPT_LENGTHS, BLOCKS, strict=True)):
        prompts[row, -prompt_length:] = torch.randint(3, VOCAB, (prompt_length,), generator=generator)
        answers[row, : blocks * BLOCK] = torch.randint(3, VOCAB, (blocks * BLOCK,), generator=generator)
        answers[row, blocks * BLOCK - 3 : blocks * BLOCK] = EOS
        prompt_mask[row, -prompt_length:] = True
        answer_mask[row, : blocks * BLOCK] = True
    return Batch(prompts, prompt_mask, answers, answer_mask)


def make_noise() -> Tensor:
    return torch.randn(3, max(BLOCKS) * BLOCK, VOCAB, generator=torch.Generator().manual_seed(4))


T_OF_ROWS = torch.tensor([1, 437, 980])


T_OF_BLOCKS = torch.tensor([[1, 437, 999], [980, 20, 611], [300, 700, 700]])


def loss_of_a_block(
    model: SSD2,
    context: Tensor,
    first_position: int,
    target: Tensor,
    noise: Tensor,
    t: int,
    self_condition: bool,
    is_right: Tensor | None = None,
) -> Tensor:
    """Algorithm 1 at one c: the sum over a block, with nothing else in the batch; `is_right` makes it the partner's."""
    r = [math.cos((x / 1000 + 1e-4) / (1 + 1e-4) * math.pi / 2) ** 2 for x in (0, t)]
    alpha_bar_t, k = r[1] / r[0], model.config.simplex_value
    x_0 = k * (2 * torch.eye(VOCAB)[target] - 1)  # line 1
    x_t = math.sqrt(alpha_bar_t) * x_0 + math.sqrt(1 - alpha_bar_t) * k * noise  # lines 3 and 4
    self_cond = None
    if self_condition or is_right is not None:
        with torch.no_grad():  # line 9
            self_cond = plain_logits(model, context, first_position, x_t, None, t)
    if is_right is not None:
        places = zip(self_cond.argmax(-1).tolist(), is_right.tolist(), target.tolist(), strict=True)
        self_cond = k * (2 * torch.eye(VOCAB)[[true if right else own for own, right, true in places]] - 1)
    probabilities = plain_logits(model, context, first_position, x_t, self_cond, t).log_softmax(-1)  # lines 7 and 10
    return -probabilities[torch.arange(BLOCK), target].sum()


def partner_of(
    is_right: Tensor, earlier: Tensor, strays: Tensor | None = None, is_noised: Tensor | None = None
) -> Partner:
    """A partner without stray tokens and noised rows, unless told otherwise."""
    none = torch.zeros(len(is_right), dtype=torch.bool)
    return Partner(
        is_right,
        torch.full(is_right.shape, -1) if strays is None else strays,
        none if is_noised is None else is_noised,
        earlier,
    )


def loss_block_by_block(
    model: SSD2,
    batch: Batch,
    noise: Tensor,
    self_condition: bool,
    t_of_blocks: Tensor | None = None,
    partner_is_right: Tensor | None = None,
) -> Tensor:
    t_of_blocks = T_OF_ROWS[:, None].expand(-1, max(BLOCKS)) if t_of_blocks is None else t_of_blocks
    total = torch.zeros(())
    for row, (prompt_length, blocks) in enumerate(zip(PROMPT_LENGTHS, BLOCKS, strict=True)):
        text = torch.cat([batch.prompt_ids[row, -prompt_length:], batch.answer_ids[row]])
        first = model.config.answer_position - prompt_length if model.config.answer_position else 0
        for block in range(blocks):
            c, in_block = prompt_length + block * BLOCK, slice(block * BLOCK, (block + 1) * BLOCK)
            total = total + loss_of_a_block(
                model,
                text[:c],
                first,
                text[c : c + BLOCK],
                noise[row, in_block],
                int(t_of_blocks[row, block]),
                self_condition,
                None if partner_is_right is None else partner_is_right[row, in_block],
            )
    return total / (BLOCK * sum(BLOCKS))


@pytest.mark.parametrize(("context_timestep", "answer_position", "self_condition"), WAYS)
def test_the_masked_pass_is_the_loss_of_the_blocks_one_by_one(
    context_timestep: str, answer_position: int | None, self_condition: bool
) -> None:
    model = tiny_model(1, context_timestep=context_timestep, answer_position=answer_position)
    batch, noise = make_batch(), make_noise()
    loss = diffusion_loss(model, batch, T_OF_ROWS, noise, self_condition=self_condition)
    expected = loss_block_by_block(model, batch, noise, self_condition)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("self_condition", [False, True])
def test_with_a_t_for_each_block_too(self_condition: bool) -> None:
    model, batch, noise = tiny_model(1, context_timestep="none"), make_batch(), make_noise()
    loss = diffusion_loss(model, batch, T_OF_BLOCKS, noise, self_condition=self_condition)
    expected = loss_block_by_block(model, batch, noise, self_condition, T_OF_BLOCKS)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert abs(loss - loss_block_by_block(model, batch, noise, self_condition, T_OF_BLOCKS.flip(1))) > 1e-3


@pytest.mark.parametrize("t", [T_OF_ROWS, T_OF_BLOCKS], ids=["sequence", "block"])
def test_the_partner_objective_feeds_back_own_tokens_of_which_some_are_put_right(t: Tensor) -> None:
    model, batch, noise = tiny_model(1, context_timestep="none"), make_batch(), make_noise()
    t_of_blocks = t if t.ndim == 2 else t[:, None].expand(-1, max(BLOCKS))
    losses = []
    for share in (0.0, 0.5, 1.0):
        is_right = torch.rand(batch.answer_ids.shape, generator=torch.Generator().manual_seed(6)) < share
        found = diffusion_losses(model, batch, t, noise, self_condition=False, partner=partner_of(is_right, t))
        loss = found.sum() / batch.answer_mask.sum()
        expected = loss_block_by_block(model, batch, noise, False, t_of_blocks, is_right)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        losses.append(loss.item())
    assert len({round(loss, 4) for loss in losses}) == 3


def test_a_decode_with_a_partner_projects_own_tokens_but_for_right_and_stray_ones() -> None:
    own, answer_ids = torch.zeros(1, 4, VOCAB), torch.tensor([[7, 8, 9, 10]])
    own[0, :, 3] = 1.0
    is_right, strays = torch.tensor([[False, True, False, True]]), torch.tensor([[-1, -1, 12, 13]])
    assert projected_with(own, answer_ids, partner_of(is_right, T_OF_ROWS, strays)).tolist() == [[3, 8, 12, 10]]


@pytest.mark.parametrize("t", [T_OF_ROWS, T_OF_BLOCKS], ids=["sequence", "block"])
def test_a_noised_row_reads_through_its_noise_what_was_projected_earlier(t: Tensor) -> None:
    """As a decode: x_t is of the projected tokens, drawn when fewer were known, and not of the true ones."""
    model, batch, noise = tiny_model(1, context_timestep="none", feedback_share=0.9), make_batch(), make_noise()
    is_right = torch.rand(batch.answer_ids.shape, generator=torch.Generator().manual_seed(6)) < 0.5
    is_noised = torch.arange(len(batch.answer_ids)) % 2 == 0
    partner = partner_of(is_right, (t + 1000) // 2, is_noised=is_noised)
    found = diffusion_losses(model, batch, t, noise, self_condition=False, partner=partner)
    for row in range(len(batch.answer_ids)):
        expected = _loss_of_a_row(model, batch, t, noise, partner, row)
        torch.testing.assert_close(found.view_as(batch.answer_ids)[row], expected, atol=1e-5, rtol=1e-5)


def _loss_of_a_row(model: SSD2, batch: Batch, t: Tensor, noise: Tensor, partner: Partner, row: int) -> Tensor:
    def noised(token_ids: Tensor, times: Tensor) -> Tensor:
        times = times if times.ndim == 2 else times[:, None].expand(-1, max(BLOCKS))
        share = alpha_bar(times.repeat_interleave(BLOCK, -1))[..., None]
        return share.sqrt() * (10 * F.one_hot(token_ids, VOCAB) - 5.0) + (1 - share).sqrt() * 5 * noise[[row]]

    one = Batch(*(getattr(batch, name)[[row]] for name in batch.__dataclass_fields__))
    at, earlier = t[[row]], partner.earlier[[row]]
    own = masked_logits(model, one, noised(one.answer_ids, earlier), None, earlier, BLOCK).argmax(-1)
    projected = torch.where(partner.is_right[[row]], one.answer_ids, own)
    k = math.log(0.9 / 0.1 * (VOCAB - 1)) / 2  # as sharp as in a decode
    x_t = noised(projected if partner.is_noised[row] else one.answer_ids, at)
    logits = masked_logits(model, one, x_t, k * (2.0 * F.one_hot(projected, VOCAB) - 1), at, BLOCK)
    return F.cross_entropy(logits[0], one.answer_ids[0], reduction="none") * one.answer_mask[0]


@pytest.mark.parametrize("self_condition", [False, True])
def test_its_gradient_is_theirs_too(self_condition: bool) -> None:
    model = tiny_model(2).requires_grad_(True)
    batch, noise = make_batch(), make_noise()
    diffusion_loss(model, batch, T_OF_ROWS, noise, self_condition=self_condition).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ("w_pred.weight" in gradients) == self_condition
    model.zero_grad(set_to_none=True)
    loss_block_by_block(model, batch, noise, self_condition).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_self_conditioning_and_timestep_matter_to_the_loss() -> None:
    model, batch, noise = tiny_model(1), make_batch(), make_noise()
    losses = {
        round(diffusion_loss(model, batch, t, noise, self_condition=r).item(), 5)
        for t in (T_OF_ROWS, T_OF_ROWS.flip(0))
        for r in (False, True)
    }
    assert len(losses) == 4


def test_ids_and_noise_behind_the_last_block_do_not_change_the_loss() -> None:
    model, batch, noise = tiny_model(1), make_batch(), make_noise()
    loss = diffusion_loss(model, batch, T_OF_ROWS, noise, self_condition=True)
    padding, noise_there = ~batch.answer_mask, noise.clone()
    noise_there[padding] = 3.0
    changed = replace(batch, answer_ids=batch.answer_ids.masked_fill(padding, 17))
    torch.testing.assert_close(diffusion_loss(model, changed, T_OF_ROWS, noise_there, self_condition=True), loss)


def test_padding_left_of_a_prompt_does_not_change_the_loss() -> None:
    model, batch, noise = tiny_model(1), make_batch(), make_noise()
    loss = diffusion_loss(model, batch, T_OF_ROWS, noise, self_condition=False)
    changed = replace(batch, prompt_ids=batch.prompt_ids.masked_fill(~batch.prompt_mask, 17))
    torch.testing.assert_close(diffusion_loss(model, changed, T_OF_ROWS, noise, self_condition=False), loss)
    wider = replace(
        batch,
        prompt_ids=torch.nn.functional.pad(batch.prompt_ids, (5, 0)),
        prompt_mask=torch.nn.functional.pad(batch.prompt_mask, (5, 0)),
    )
    torch.testing.assert_close(diffusion_loss(model, wider, T_OF_ROWS, noise, self_condition=False), loss)


def test_the_eos_that_fills_a_block_is_in_the_loss() -> None:
    model, batch, noise = tiny_model(1), make_batch(), make_noise()
    loss = diffusion_loss(model, batch, T_OF_ROWS, noise, self_condition=False)
    filling = (batch.answer_ids == EOS) & batch.answer_mask
    without = replace(batch, answer_mask=batch.answer_mask & ~filling)
    assert int(filling.sum()) == 9
    assert abs(diffusion_loss(model, without, T_OF_ROWS, noise, self_condition=False) - loss) > 1e-3


def test_another_block_size_can_be_trained_than_the_models_own() -> None:
    batch, noise = make_batch(), make_noise()
    losses = [
        diffusion_loss(tiny_model(1, block_size=own), batch, T_OF_ROWS, noise, self_condition=False, block_size=given)
        for own, given in ((4, None), (2, 4))
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_the_causal_loss_is_that_of_every_next_token_with_nothing_else_in_the_batch() -> None:
    model, batch = tiny_model(1), make_batch()
    total, tokens = torch.zeros(()), 0
    for row in range(3):
        text = torch.cat([batch.prompt_ids[row, -PROMPT_LENGTHS[row] :], batch.answer_ids[row, : BLOCKS[row] * BLOCK]])
        for end in range(1, len(text)):
            alone = model.next_token_logits(text[None, :end], torch.ones(1, end, dtype=torch.bool))
            total, tokens = total - alone[0, -1].log_softmax(-1)[text[end]], tokens + 1
    torch.testing.assert_close(causal_loss(model, batch), total / tokens, atol=1e-5, rtol=1e-5)


def items(*answers: str) -> list[Item]:
    return [Item("public", (), "When does the mill open?" * (i + 1), answer) for i, answer in enumerate(answers)]


def test_answers_are_filled_with_eos_to_the_block_border_and_padded_behind_it() -> None:
    tokenizer, config = Tokenizer.from_file(DEMO_TOKENIZER), tiny_config(vocab_size=1782, max_positions=160)
    examples = [encode_item(item, tokenizer, config) for item in items("At 9", "At 9:30, and on Sunday at 11:15.")]
    for example, text in zip(examples, ("At 9", "At 9:30, and on Sunday at 11:15."), strict=True):
        tokens = len(tokenizer.encode(text))
        assert list(example.answer_ids[:tokens]) == tokenizer.encode(text)
        assert set(example.answer_ids[tokens:]) == {EOS}
        assert len(example.answer_ids) % BLOCK == 0
        assert 1 <= len(example.answer_ids) - tokens <= BLOCK
    batch = collate(examples, config)
    short = len(examples[0].answer_ids)
    assert short < batch.answer_ids.shape[1] == len(examples[1].answer_ids)
    assert batch.answer_mask.sum(-1).tolist() == [len(example.answer_ids) for example in examples]
    assert set(batch.answer_ids[0, short:].tolist()) == {PAD}
    assert batch.prompt_mask[0].tolist() == sorted(batch.prompt_mask[0].tolist())
    assert batch.prompt_ids[0][batch.prompt_mask[0]].tolist() == list(examples[0].prompt_ids)


def test_an_answer_that_ends_at_the_border_gets_a_block_of_eos() -> None:
    tokenizer = Tokenizer.from_file(DEMO_TOKENIZER)
    tokens = len(tokenizer.encode("At nine"))
    config = tiny_config(vocab_size=1782, block_size=tokens, max_positions=160)
    assert encode_item(items("At nine")[0], tokenizer, config).answer_ids[tokens:] == (EOS,) * tokens


def test_an_example_that_does_not_fit_the_positions_is_refused() -> None:
    config = tiny_config(vocab_size=1782, max_positions=16)
    with pytest.raises(PromptTooLong, match="max_positions 16"):
        encode_item(items("At 9 and at 10 and at 11 and at 12.")[0], Tokenizer.from_file(DEMO_TOKENIZER), config)


def test_timesteps_are_uniform_over_1_to_t() -> None:
    drawn = torch.stack([sample_timesteps(8, torch.Generator().manual_seed(seed)) for seed in range(2000)])
    assert 1 <= drawn.min() <= 5
    assert 996 <= drawn.max() <= 1000
    counts = torch.histc(drawn[:, 0].float(), bins=10, min=0.5, max=1000.5)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    assert all((row.sort().values // 125.125).tolist() == list(range(8)) for row in drawn[:50])
