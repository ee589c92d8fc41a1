"""Another project's whole run, to hold ours against: llm.c's GPT-2 124M on FineWeb.

The run: llm.c, 13 October 2024, 8 H100; 19,560 steps of 524,288 tokens; learning rate 6e-4 after 700 steps of warmup,
then a cosine to 0; weight decay 0.1. The flags are those of llm.c's scripts/run_gpt2_124M.sh.

Source: KellerJordan/modded-nanogpt, records/2024-10-13_llmc/main.log, the lines "tel": validation loss before the
first step, after every 250 steps, and after the last. Validation is llm.c's: the first 10,485,760 tokens of
fineweb_val_000000.bin, in windows of 1,024.
"""

LLMC_STEP_TOKENS = 524_288
LLMC_EVAL_STEPS = 250
LLMC_STEPS = 19_560
LLMC_RECIPE: dict[str, float | str] = {
    "batch_tokens": LLMC_STEP_TOKENS,
    "batch_ramp_tokens": 0.0,
    "learning_rate": 6e-4,
    "warmup_steps": 700,
    "final_learning_rate_fraction": 0.0,
    "weight_decay": 0.1,
    "dropout": 0.0,
    "optimizer": "adamw",
}
# Nats per token.
LLMC_LOSSES = (
    11.0092, 6.171, 5.3743, 4.7097, 4.317, 4.1296, 4.006, 3.9189, 3.8585, 3.8237,
    3.7652, 3.7334, 3.6973, 3.6745, 3.6543, 3.6339, 3.6176, 3.6005, 3.5797, 3.5673,
    3.5535, 3.5404, 3.5298, 3.5182, 3.5069, 3.4992, 3.4912, 3.481, 3.4726, 3.465,
    3.4566, 3.4513, 3.4431, 3.4376, 3.4289, 3.4224, 3.4159, 3.4097, 3.4026, 3.3978,
    3.3924, 3.3865, 3.3809, 3.3751, 3.3706, 3.3647, 3.3615, 3.3551, 3.3509, 3.3462,
    3.3408, 3.3357, 3.3305, 3.3267, 3.3226, 3.3193, 3.3149, 3.3112, 3.3073, 3.3038,
    3.3003, 3.2969, 3.2939, 3.2914, 3.2882, 3.2863, 3.2841, 3.2821, 3.2803, 3.2785,
    3.277, 3.2758, 3.2746, 3.2738, 3.2732, 3.2727, 3.2724, 3.2722, 3.2722, 3.2722,
)  # fmt: skip


def llmc_steps() -> list[int]:
    """The step of each loss.

    >>> llmc_steps()[:3], llmc_steps()[-2:], len(llmc_steps()) == len(LLMC_LOSSES)
    ([0, 250, 500], [19500, 19560], True)
    """
    return [*range(0, LLMC_STEPS, LLMC_EVAL_STEPS), LLMC_STEPS]
