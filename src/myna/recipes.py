"""The named runs: functions that return a Recipe. `myna train NAME` looks here.

Sources of the numbers, beyond those of myna.train.recipe ("the lecture" is named in myna/__init__.py):

    [3] GPT-2, table 2: layers and widths of the four sizes (12/768, 24/1024, 36/1280, 48/1600). Heads are 64 wide.
    [4] GPT-3, table 2.1: layers, widths, heads (Small 12/768/12, Medium 24/1024/16, Large 24/1536/16, XL 24/2048/24);
        learning rate and batch (Small 6e-4 and 0.5M tokens, Medium 3e-4 and 0.5M, Large 2.5e-4 and 0.5M, XL 2e-4 and
        1M). For GPT-2, OpenAI published the batch (512 sequences of 1024, which is 0.5M tokens), but no learning rate.
        So each GPT-2 takes the learning rate of the GPT-3 nearest in size. GPT-2 XL also takes GPT-3 XL's batch. Every
        GPT-3 trained on 300 billion tokens with 2048 positions; the cosine ends after 260 billion (appendix B).
    [5] nanoGPT's CPU run on Tiny Shakespeare: 4 layers, 4 heads, width 128, 64 positions, batches of 12 sequences.
    [6] modded-nanogpt, records/track_3_optimization, the plain script at 3,250 steps of 524,288 tokens, whose mean
        validation loss over ten runs on FineWeb is 3.2787.
"""

from collections.abc import Callable
from dataclasses import replace

from myna.errors import UsageError, unknown_name
from myna.settings import NO_OPTIONS
from myna.train.optimizers.adamw import AdamWOptions
from myna.train.optimizers.muon import MuonOptions
from myna.train.recipe import Recipe


def pydoc() -> Recipe:
    """The demo: GPT-2's network learns Python's own documentation, which is on every machine. Minutes on two CPU cores.

    The optimizer is Muon, as in `speedrun-124m`. Trials chose the numbers that differ: the learning rate, batch,
    momentum, head's rate and constant fraction (docs/log.md, "The demo"). A few passes over the text are too few to
    learn it by heart, so there is no dropout. Compiling would take longer than it saves.
    """
    return replace(
        _demo("pydoc"), constant_fraction=0.45, optimizer_options=MuonOptions(momentum=0.9, head_factor=0.4)
    )


def pydoc_speedrun() -> Recipe:
    """The demo with NanoChat's network instead of GPT-2's. Muon and its schedule are those of `speedrun-124m`."""
    return replace(_demo("pydoc-speedrun"), network="nanochat", network_options=NO_OPTIONS)


def _demo(name: str) -> Recipe:
    recipe = Recipe(
        name=name,
        corpus=("pydoc",),
        tokenizer="train:4096",
        n_layer=4,
        n_head=4,
        n_embd=256,
        block_size=256,
        sequence_length=256,
        steps=360,
        batch_tokens=4096,
        compile=False,
        eval_every=60,
        sample_every=60,
        sample_prompt="Return True if",
        sample_temperature=0.6,
        checkpoint_every=180,
    )
    return _by_muon(recipe, learning_rate=0.028)


def shakespeare() -> Recipe:
    """Tiny Shakespeare in GPT-2's tokens. The text has only 300,000, so the network is small and has dropout."""
    return Recipe(
        name="shakespeare",
        corpus=("shakespeare",),
        n_layer=6,
        n_head=6,
        n_embd=384,
        block_size=256,
        sequence_length=256,
        dropout=0.2,
        steps=600,
        batch_tokens=8192,
        learning_rate=1e-3,
        warmup_steps=50,
        eval_every=50,
        sample_every=200,
        sample_prompt="ROMEO:\n",
        checkpoint_every=200,
    )


def shakespeare_char() -> Recipe:
    """Tiny Shakespeare byte by byte. On two CPU cores, the whole run takes five minutes.

    After half a minute of training, the model writes its first real words.

    Every number was found by timed trials (docs/log.md, "Tiny Shakespeare against the clock"):

    - Two layers, 192 wide. nanoGPT's CPU run has four, 128 wide [5]. Deeper networks need longer before they use more
      than the last byte. Wider ones learn more from each byte, but not enough for the extra time.
    - 64 positions, as in nanoGPT's run. With longer contexts the loss falls later, and ends no lower in this time.
    - The weights are averaged. So at any step, the loss is as low as in a run whose learning rate has decayed by then.
    - The learning rate is 2.5e-3. At 3e-3 the last loss was higher. At 6e-3 networks learn nothing but pairs of bytes.
      beta1 0.8 was better than 0.9 and 0.65, beta2 0.99 better than 0.95, and batches of 2,048 tokens better than 1,024
      and 4,096.
    - The learning rate ends near zero, since no training follows.
    - Weight decay limits overfitting in the 14 passes over the text; dropout costs too much time on a CPU. With less
      weight decay, the last loss was higher. With more, the loss in the middle of the run was higher.
    - Not compiled: compiling makes the step no faster.
    """
    return Recipe(
        name="shakespeare-char",
        corpus=("shakespeare",),
        tokenizer="bytes",
        n_layer=2,
        n_head=3,
        n_embd=192,
        block_size=64,
        sequence_length=64,
        steps=6900,
        batch_tokens=2048,
        learning_rate=2.5e-3,
        final_learning_rate_fraction=0.02,
        warmup_steps=50,
        optimizer_options=AdamWOptions(weight_decay=0.45, beta1=0.8, beta2=0.99),
        average_decay=0.995,
        compile=False,
        eval_every=460,
        sample_every=2300,
        sample_prompt="ROMEO:\n",
        checkpoint_every=2300,
    )


def gpt2_124m() -> Recipe:
    """GPT-2 small [3] with GPT-3 Small's schedule [4], 10 billion tokens of FineWeb-Edu: the lecture's run."""
    return Recipe(name="gpt2-124m")


def gpt2_355m() -> Recipe:
    """GPT-2 medium [3] with GPT-3 Medium's learning rate [4]."""
    return Recipe(name="gpt2-355m", n_layer=24, n_head=16, n_embd=1024, learning_rate=3e-4)


def gpt2_774m() -> Recipe:
    """GPT-2 large [3] with GPT-3 Large's learning rate [4]."""
    return Recipe(name="gpt2-774m", n_layer=36, n_head=20, n_embd=1280, learning_rate=2.5e-4)


def gpt2_1558m() -> Recipe:
    """GPT-2 XL [3] with GPT-3 XL's learning rate and batch of a million tokens [4], over 32 billion tokens.

    That is a third of FineWeb-Edu's sample of 100 billion tokens. Warmup is GPT-3's 375 million tokens.
    """
    return Recipe(
        name="gpt2-1558m",
        corpus=("fineweb-edu:sample-100BT",),
        n_layer=48,
        n_head=25,
        n_embd=1600,
        learning_rate=2e-4,
        batch_tokens=1_048_576,
        steps=30_518,
        warmup_steps=358,
    )


def gpt2_124m_40b() -> Recipe:
    """GPT-2 small over four epochs of FineWeb-Edu's 10 billion tokens: the lecture's long run.

    The lecture compares it with GPT-3 Small.
    """
    return Recipe(name="gpt2-124m-40b", steps=4 * 19_073)


# What the GPT-3 recipes share. With steps of 524,288 tokens they train on 300 billion tokens, and the decay ends after
# 260 billion. The 300 billion are less than one epoch of FineWeb's sample of 350 billion. The batch doesn't grow.
# GPT-3's did, over 4 to 12 billion tokens, but the paper doesn't say over how many for which size (docs/train.md, "A
# batch that grows").
GPT3 = Recipe(
    corpus=("fineweb:sample-350BT",),
    block_size=2048,
    sequence_length=2048,
    steps=572_205,
    decay_steps=495_911,
)


def gpt3_124m() -> Recipe:
    """GPT-3 Small [4]: GPT-2's network with 2048 positions, 300 billion tokens."""
    return replace(GPT3, name="gpt3-124m")


def gpt3_350m() -> Recipe:
    """GPT-3 Medium [4]."""
    return replace(GPT3, name="gpt3-350m", n_layer=24, n_head=16, n_embd=1024, learning_rate=3e-4)


def gpt3_760m() -> Recipe:
    """GPT-3 Large [4]: heads are 96 wide."""
    return replace(GPT3, name="gpt3-760m", n_layer=24, n_head=16, n_embd=1536, learning_rate=2.5e-4)


def gpt3_1_3b() -> Recipe:
    """GPT-3 XL [4], with 16 heads of 128: the paper says 24 heads, which do not divide its width of 2048."""
    return replace(
        GPT3,
        name="gpt3-1.3b",
        n_layer=24,
        n_head=16,
        n_embd=2048,
        learning_rate=2e-4,
        batch_tokens=1_048_576,
        steps=286_103,
        decay_steps=247_956,
        warmup_steps=358,
    )


def speedrun_124m() -> Recipe:
    """NanoChat's network in GPT-2's shape, trained by Muon on 1.7 billion tokens of FineWeb.

    This project has not run it yet.

    Every number is from the script [6]: 6 heads of 128, the batch, no warmup, no clipping, and the options of Muon and
    AdamW (see myna.train.optimizers.muon). The learning rate is constant for 30% of the steps and then falls to 0 along
    a line. The script's network is similar to this one, but not the same, so its loss is no promise (docs/speedrun.md
    lists the differences).
    """
    recipe = Recipe(
        name="speedrun-124m",
        corpus=("fineweb",),
        network="nanochat",
        n_head=6,
        steps=3250,
        eval_every=125,
    )
    return _by_muon(recipe, learning_rate=0.025)


def _by_muon(recipe: Recipe, learning_rate: float) -> Recipe:
    """With Muon and the schedule of [6]: constant for 30% of the steps, then a line to 0; no warmup, no clipping."""
    return replace(
        recipe,
        optimizer="muon",
        optimizer_options=NO_OPTIONS,
        learning_rate=learning_rate,
        final_learning_rate_fraction=0.0,
        warmup_steps=0,
        decay="linear",
        constant_fraction=0.3,
        clip_norm=0.0,
    )


def chat_pydoc() -> Recipe:
    """The demo's model learns to answer questions about Python's functions. Minutes on two CPU cores.

    Two trials chose the learning rate (docs/log.md, "chat"). At 6e-4 the answers hardly ever contain the name that was
    asked for. At 1.5e-3 they contain it more often, but the model forgets more of the old text.
    """
    return Recipe(
        name="chat-pydoc",
        corpus=("pydoc-chat",),
        conversations=True,
        init="runs/pydoc",
        tokenizer="from-init",
        n_layer=4,
        n_head=4,
        n_embd=256,
        block_size=256,
        sequence_length=256,
        steps=240,
        batch_tokens=2048,
        learning_rate=1.5e-3,
        warmup_steps=20,
        compile=False,
        eval_every=80,
        sample_every=80,
        sample_prompt="What does shutil.copy do?\nHow do I call os.path.join?\nExplain random.shuffle.",
        sample_temperature=0.0,
        checkpoint_every=240,
    )


def chat_124m() -> Recipe:
    """GPT-2 124M learns to talk from SmolTalk's million conversations.

    All windows of the run together have 0.8 billion tokens. The loss counts only the assistant's part of them. The
    learning rate is a sixth of the one for fresh weights. This project has not run the recipe yet.
    """
    return Recipe(
        name="chat-124m",
        corpus=("smoltalk",),
        conversations=True,
        init="gpt2",
        tokenizer="from-init",
        steps=6000,
        batch_tokens=131_072,
        learning_rate=1e-4,
        final_learning_rate_fraction=0.0,
        warmup_steps=100,
        sample_prompt="What is the capital of France?\nWrite a short poem about the sea.",
        checkpoint_every=1000,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pydoc": pydoc,
    "pydoc-speedrun": pydoc_speedrun,
    "shakespeare": shakespeare,
    "shakespeare-char": shakespeare_char,
    "gpt2-124m": gpt2_124m,
    "gpt2-355m": gpt2_355m,
    "gpt2-774m": gpt2_774m,
    "gpt2-1558m": gpt2_1558m,
    "gpt2-124m-40b": gpt2_124m_40b,
    "gpt3-124m": gpt3_124m,
    "gpt3-350m": gpt3_350m,
    "gpt3-760m": gpt3_760m,
    "gpt3-1.3b": gpt3_1_3b,
    "speedrun-124m": speedrun_124m,
    "chat-pydoc": chat_pydoc,
    "chat-124m": chat_124m,
}

# Training prepares these corpora by itself: they are on the machine already, or are a small download.
SELF_PREPARING = frozenset({"pydoc", "shakespeare", "pydoc-chat"})

# The sizes of the tokenizers that recipes name. A tokenizer train:N has N ids.
VOCABULARIES = {"gpt2": 50257, "bytes": 257}


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, list(RECIPES))
    return RECIPES[name]()


def vocab_size(recipe: Recipe) -> int:
    """How many ids a recipe's tokenizer has. The tokenizer need not exist yet.

    Raises:
        UsageError: the tokenizer is another model's, so its size is not known before training.
    """
    kind, _, size = recipe.tokenizer.partition(":")
    if not size and kind not in VOCABULARIES:
        raise UsageError(
            f"{recipe.name} takes its vocabulary from the model that it starts from; name a recipe with a tokenizer of "
            "its own"
        )
    return int(size) if size else VOCABULARIES[kind]
