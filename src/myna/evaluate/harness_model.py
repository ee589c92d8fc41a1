"""A model of ours behind lm-evaluation-harness's interface; importing this registers it as `myna`.

The harness asks three things of a model: what endings cost (`loglikelihood`), what whole texts cost
(`loglikelihood_rolling`), and how a prompt goes on (`generate_until`). The first two stand on `question_scores`, the
third on `TextEngine`.

Context and ending are encoded together and then cut apart, as the harness does for its own models. One thing differs:
text that spells a control token is ordinary text here.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string

from myna.device import apply_precision, resolve_device, resolve_precision
from myna.errors import DataError, UsageError
from myna.evaluate.continuations import Question, Score, question, question_scores
from myna.evaluate.finite import finite
from myna.generate.sampling import Sampling
from myna.generate.text import Continuation, TextEngine
from myna.model.network import Network
from myna.model.open import open_model
from myna.progress import Progress
from myna.settings import DeviceName
from myna.text.tokenizer import Tokenizer

MODEL_ARGS = ("pretrained", "tokenizer", "device", "precision", "batch_size", "seed")
TEXTS_AT_ONCE = 32
MAX_TOKENS = 256  # the harness's own, for a task that names none


class MynaLM(LM):
    """A network and its tokenizer, for the harness.

    Args:
        autocast_dtype: compute in this precision where autocast allows.
        batch_size: whole windows of the model to compute at once, and texts to write at once. None: as many as
            fit the usual batch, and 32 texts.
        seed: of what is sampled; each request has a stream of its own.
    Attributes:
        cut: requests so far that did not fit the model's window.
    """

    def __init__(
        self,
        model: Network,
        tokenizer: Tokenizer,
        *,
        autocast_dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.own_tokenizer, self.dtype, self.seed = model, tokenizer, autocast_dtype, seed
        self.batch_positions = batch_size * self.max_length if batch_size else None
        self.texts_at_once = batch_size or TEXTS_AT_ONCE
        self.cut = 0
        self._device = model.device

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "MynaLM":
        """Opens the model that `--model_args pretrained=RUN,...` names."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> "MynaLM":
        """The same, from a dictionary.

        Args:
            arg_dict: `pretrained` (what every command takes as MODEL), `tokenizer`, `device`, `precision`, `seed`.
            additional_config: the harness's own `batch_size` and `device`.
        Raises:
            UsageError: an argument that is not known, or has a value that cannot be. Others: see `open_model`.
        """
        given = {key: value for key, value in (additional_config or {}).items() if value is not None}
        given = {key: value for key, value in given.items() if key != "max_batch_size"} | dict(arg_dict)
        if unknown := [key for key in given if key not in MODEL_ARGS]:
            raise UsageError(f"--model_args has no {unknown[0]}; it takes: {', '.join(MODEL_ARGS)}")
        if not given.get("pretrained"):
            raise UsageError(
                "--model_args names no model; give pretrained=RUN: a run, a checkpoint or a folder"
            )
        batch_size = _batch_size(given.get("batch_size"))
        device = _device(str(given.get("device", "auto")))
        precision = resolve_precision(given.get("precision", "auto"), device)
        apply_precision(precision, device)
        opened = open_model(str(given["pretrained"]), device)
        return cls(
            opened.model,
            opened.tokenizer_or(given.get("tokenizer")),
            autocast_dtype=precision.dtype,
            batch_size=batch_size,
            seed=given.get("seed", 0),
        )

    @property
    def max_length(self) -> int:
        """Positions that the model sees."""
        return self.model.config.block_size

    @property
    def eot_token_id(self) -> int:
        """The id that begins a document: the context of a text that has none."""
        return self.own_tokenizer.eot

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Of each (context, ending), the ending's log-probability, and whether greedy decoding would write it.

        Raises:
            DataError: an ending without a token. ModelError: the model's output is not finite.
        """
        pairs = self._encoded([request.args for request in requests])
        questions = [self._question(pair, request) for pair, request in zip(pairs, requests, strict=True)]
        self.cut += sum(asked.cut > 0 for asked in questions)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for number, score in self._scores(questions, "requests"):
            found[number] = -score.nats, score.greedy
            self.cache_hook.add_partial("loglikelihood", requests[number].args, found[number])
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """The log-probability of each text from a document's beginning; each token once, in windows end to end."""
        texts = [request.args[0] for request in requests]
        owners, questions = [], []
        for number, ids in enumerate(self.own_tokenizer.encode_batch(texts)):
            for window in get_rolling_token_windows(ids, self.eot_token_id, self.max_length, 1):
                owners.append(number)
                questions.append(
                    question(
                        [make_disjoint_window(window)], block_size=self.max_length, eot=self.eot_token_id
                    )
                )
        sums = [0.0] * len(requests)
        for number, score in self._scores(questions, "windows"):
            sums[owners[number]] -= score.nats
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """How each prompt goes on, up to a stop text, the end of the document or the most tokens.

        Of a longer prompt the last ids are kept that leave room for the new ones.

        Raises:
            UsageError: an option of generation that we don't have. ModelError: the output is not finite.
        """
        texts = [""] * len(requests)
        engine = TextEngine(self.model, self.own_tokenizer, autocast_dtype=self.dtype)
        waiting = deque(enumerate(requests))
        running: dict[Continuation, int] = {}
        with Progress("harness texts", len(requests)) as progress:
            while waiting or running:
                while waiting and len(running) < self.texts_at_once:
                    number, request = waiting.popleft()
                    prompt, options = request.args
                    sampling = self._sampling(options)
                    ids = self.own_tokenizer.encode(prompt)
                    room = max(1, self.max_length - sampling.max_tokens)
                    self.cut += len(ids) > room
                    (text,) = engine.add(ids[-room:], sampling, first_row=number)
                    if text.finish_reason is None:
                        running[text] = number
                for piece in engine.step():
                    if piece.new.error:
                        raise piece.new.error
                    number = running[piece.continuation]
                    texts[number] += piece.text
                    if piece.continuation.finish_reason:
                        del running[piece.continuation]
                        self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
                        progress.advance(1)
        return texts

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        """The harness's options of generation as ours.

        Raises:
            UsageError: one that we don't have, or a value that cannot be.
        """
        given = dict(normalize_gen_kwargs(dict(options), MAX_TOKENS))
        stops = [stop for stop in given.pop("until") if stop]
        temperature = float(given.pop("temperature", 1.0))
        if not given.pop("do_sample"):
            temperature = 0.0
        tokens = given.pop("max_gen_toks")
        if given.get("top_k") == 0:  # transformers' way to keep all
            del given["top_k"]
        if given.get("num_beams") == 1:
            del given["num_beams"]
        if unknown := [
            name for name in given if name not in ("top_k", "top_p", "min_p", "repetition_penalty")
        ]:
            raise UsageError(
                f"the task asks for the generation option {unknown[0]}, which this model does not have"
            )
        return Sampling(max_tokens=tokens, temperature=temperature, stop=stops, seed=self.seed, **given)

    def _encoded(self, texts: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Context and ending as ids. A space that ends the context goes to the ending: tokens begin with spaces."""
        bare = [context.rstrip() for context, _ in texts]
        whole = self.own_tokenizer.encode_batch([context + ending for context, ending in texts])
        contexts = self.own_tokenizer.encode_batch(bare)
        return ((context, ids[len(context) :]) for context, ids in zip(contexts, whole, strict=True))

    def _question(self, pair: tuple[list[int], list[int]], request: Instance) -> Question:
        context, ending = pair
        if not ending:
            raise DataError(
                f"the task {request.task_name}, item {request.doc_id}: the ending {request.args[1]!r} adds no token"
            )
        return question([(context, ending)], block_size=self.max_length, eot=self.eot_token_id)

    def _scores(self, questions: Sequence[Question], what: str) -> Iterator[tuple[int, Score]]:
        """The scores of questions of one row, by their numbers, in any order."""
        with Progress(f"harness {what}", len(questions)) as progress:
            batches = question_scores(
                self.model, questions, batch_positions=self.batch_positions, autocast_dtype=self.dtype
            )
            for batch in batches:
                for number, (score,) in batch.items():
                    finite({"log-probability": score.nats})
                    yield number, score
                progress.advance(len(batch))


def _device(given: str) -> torch.device:
    """The device. `cuda:0` is what the harness says where nothing was named: the best that is there, as for its own."""
    name, _, number = given.partition(":")
    if name not in get_args(DeviceName) or not (number or "0").isdecimal():
        raise UsageError(
            f"--device is {given}; give {', '.join(get_args(DeviceName))}, or a GPU as in cuda:1"
        )
    return resolve_device("auto" if given == "cuda:0" else cast(DeviceName, name), int(number or 0))


def _batch_size(given: object) -> int | None:
    """
    >>> _batch_size("auto"), _batch_size("auto:4"), _batch_size("8")
    (None, None, 8)
    """
    if given is None or str(given).startswith("auto"):
        return None
    if not str(given).isdecimal() or int(str(given)) < 1:
        raise UsageError(f"batch_size is {given}; give auto, or 1 or more")
    return int(str(given))


register_model("myna")(MynaLM)
