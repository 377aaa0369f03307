"""The packaged encoder, tiny models written on the spot, and models that cannot be loaded."""

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pharos_embedder import model as model_module
from pharos_embedder.cpu_layers import PackedLinear, has_packing
from pharos_embedder.devices import DeviceChoice
from pharos_embedder.encoding import EncoderService, encode
from pharos_embedder.model import (
    GPU_TOKEN_BUDGET_MAX,
    GPU_TOKEN_BUDGET_MIN,
    EncoderUnavailable,
    TransformerEncoder,
    gpu_token_budget,
    load_encoder,
)
from pharos_embedder.ports import Stopped, unchecked

EXACT = DeviceChoice(device="cpu", dtype="float32", why="tests", threads=2)
HALF = msgspec.structs.replace(EXACT, dtype="bfloat16")

TEXTS = [
    "def read(path): return path.read_text()",
    "class Reader:\n    def read(self) -> str: ...",
    "the quick brown fox jumps over the lazy dog",
    "",
    "import os\n" * 400,
]


@pytest.fixture(scope="module")
def packaged() -> TransformerEncoder:
    return load_encoder("all-MiniLM-L6-v2", EXACT)


def test_the_packaged_encoder_gives_unit_vectors_without_a_network(packaged: TransformerEncoder) -> None:
    vectors = encode(TEXTS, packaged)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_the_shipped_limits_of_its_tokenizer_are_lifted(packaged: TransformerEncoder) -> None:
    lengths = [len(ids) for ids in packaged.tokenize(TEXTS)]
    assert packaged.max_tokens == 256
    assert lengths[-1] == 256  # the shipped file says 128
    assert max(lengths[:-1]) < 20  # and pads to it
    assert lengths[3] == 2


def test_a_pass_can_be_ended_between_two_layers_and_the_next_one_is_whole(
    packaged: TransformerEncoder,
) -> None:
    layers: list[int] = []

    def midway() -> None:
        layers.append(1)
        if len(layers) == 3:
            raise Stopped

    batch = packaged.tokenize(TEXTS)
    with pytest.raises(Stopped):
        packaged.forward(batch, midway)
    assert len(layers) == 3
    assert np.array_equal(packaged.forward(batch), packaged.forward(batch, unchecked))
    assert len(layers) == 3


def test_a_batch_does_not_change_its_vectors(packaged: TransformerEncoder) -> None:
    together = encode(TEXTS, packaged)
    alone = np.stack([encode([text], packaged)[0] for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)


def test_vectors_are_the_mean_of_the_last_hidden_states(packaged: TransformerEncoder) -> None:
    # The reference, read from the model's card: mean of the last hidden states over the tokens that are
    # present.
    folder = model_module.model_folder("")
    reference = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    for text, vector in zip(TEXTS, encode(TEXTS, packaged), strict=True):
        ids = torch.tensor(packaged.tokenize([text]))
        with torch.inference_mode():
            mean = reference(input_ids=ids).last_hidden_state[0].mean(dim=0)
        expected = (mean / mean.norm()).numpy()
        assert float(expected @ vector) > 0.99999


def test_bf16_gives_the_same_directions_and_the_same_version(packaged: TransformerEncoder) -> None:
    half = load_encoder("", HALF)
    assert half.version == packaged.version
    assert half.version.startswith("all-MiniLM-L6-v2@")
    cosine = (encode(TEXTS, half) * encode(TEXTS, packaged)).sum(axis=1)
    assert cosine.min() > 0.999


def by_transformers(ids: list[list[int]]) -> NDArray[np.float32]:
    """(B, D) unit vectors of the packaged model, by the library alone."""
    folder = model_module.model_folder("")
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    width = max(len(each) for each in ids)
    tokens = torch.tensor([each + [0] * (width - len(each)) for each in ids])
    present = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in ids])
    with torch.inference_mode():
        hidden = model.eval()(input_ids=tokens, attention_mask=present).last_hidden_state
    sums = (hidden * present[..., None]).sum(dim=1)
    vectors: NDArray[np.float32] = torch.nn.functional.normalize(sums, dim=1).numpy()
    return vectors


@pytest.mark.parametrize(("choice", "least"), [(EXACT, 0.99999), (HALF, 0.9995)], ids=["fp32", "bf16"])
def test_code_gets_the_vectors_of_the_model_as_transformers_runs_it(
    choice: DeviceChoice, least: float
) -> None:
    source = Path(model_module.__file__).read_text()
    texts = [source[start : start + 300 + 90 * n] for n, start in enumerate(range(0, 12_000, 2_000))]
    encoder = load_encoder("", choice)
    packed = [each for each in encoder._model.modules() if isinstance(each, PackedLinear)]
    assert len(packed) == (6 * 6 + 1 if has_packing(torch.float32) else 0)
    found = EncoderService(encoder, lanes=2).encode_documents(texts)
    assert (found * by_transformers(encoder.tokenize(texts))).sum(axis=1).min() > least


def test_lanes_give_the_vectors_of_one_pass_after_the_other(packaged: TransformerEncoder) -> None:
    service = EncoderService(packaged, lanes=2)
    texts = [text * times for times in (1, 2, 5) for text in TEXTS]
    assert np.allclose(service.encode_documents(texts, token_budget=300), encode(texts, packaged), atol=1e-5)


def test_a_query_is_nearest_to_the_text_that_answers_it(packaged: TransformerEncoder) -> None:
    service = EncoderService(packaged)
    documents = service.encode_documents(
        ["open a file and read it line by line", "multiply two matrices", "send an email with an attachment"]
    )
    assert int(np.argmax(documents @ service.encode_queries(["matrix product"])[0])) == 1


def test_a_huge_text_is_cut_before_it_is_tokenized(packaged: TransformerEncoder) -> None:
    assert len(packaged.tokenize(["word " * 2_000_000])[0]) == 256


def tiny_model(folder: Path, *, kind: str = "bert", seed: int = 0) -> Path:
    """A model of two small layers and a vocabulary of words, as saved by transformers."""
    words = {
        word: index for index, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "x"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    if kind == "qwen3":
        sizes |= {"num_key_value_heads": 2, "head_dim": 4}
    if kind == "t5":
        sizes = {
            "vocab_size": len(words),
            "d_model": 16,
            "d_kv": 4,
            "d_ff": 32,
            "num_layers": 1,
            "num_heads": 4,
        }
    library = cast(Any, transformers)
    config = library.AutoConfig.for_model(kind, pad_token_id=0, **sizes)
    library.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def describe(folder: Path, modules: list[str], *, pooling: dict[str, object] | None = None) -> None:
    """Makes it a sentence-transformers model."""
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": n,
                    "path": "" if kind == "Transformer" else f"{n}_{kind}",
                    "type": f"st.models.{kind}",
                }
                for n, kind in enumerate(modules)
            ]
        )
    )
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def hidden_states(folder: Path, ids: list[int]) -> NDArray[np.float32]:
    loaded = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        states: NDArray[np.float32] = loaded(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    return states


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda h: h[0]),
        ({"pooling_mode_mean_tokens": True}, lambda h: h.mean(axis=0)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda h: h.mean(axis=0)),
        ({"pooling_mode_max_tokens": True}, lambda h: h.max(axis=0)),
        ({"pooling_mode_lasttoken": True}, lambda h: h[-1]),
        ({"pooling_mode": "cls"}, lambda h: h[0]),
        ({"pooling_mode": "lasttoken"}, lambda h: h[-1]),
        ({}, lambda h: h.mean(axis=0)),
    ],
)
def test_pooling_is_what_the_model_says(tmp_path: Path, config: dict[str, object], expected: object) -> None:
    folder = tiny_model(tmp_path / "tiny")
    describe(folder, ["Transformer", "Pooling", "Normalize"], pooling=config)
    encoder = load_encoder(str(folder), EXACT)
    vectors = encode(["a b", "a b c x a"], encoder)  # padded together
    assert callable(expected)
    for text, vector in zip(["a b", "a b c x a"], vectors, strict=True):
        pooled = expected(hidden_states(folder, encoder.tokenize([text])[0]))
        assert np.allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "qwen3"])
def test_families_of_models_give_the_same_in_bf16_in_and_out_of_a_batch(tmp_path: Path, kind: str) -> None:
    folder = tiny_model(tmp_path / kind, kind=kind)
    exact, half = load_encoder(str(folder), EXACT), load_encoder(str(folder), HALF)
    texts = ["a b c", "a", "x x b a c a b", "c b a"]
    reference = encode(texts, exact)
    assert np.allclose(np.linalg.norm(reference, axis=1), 1.0, atol=1e-5)
    alone = np.stack([encode([text], exact)[0] for text in texts])
    assert np.allclose(reference, alone, atol=1e-4)
    assert (encode(texts, half) * reference).sum(axis=1).min() > 0.995


def test_the_length_is_the_least_of_what_is_said(tmp_path: Path) -> None:
    bert = tiny_model(tmp_path / "bert")
    assert load_encoder(str(bert), EXACT).max_tokens == 40
    roberta = load_encoder(str(tiny_model(tmp_path / "roberta", kind="roberta")), EXACT)
    assert roberta.max_tokens == 39
    assert encode(["a " * 100], roberta).shape == (1, 16)
    describe(bert, ["Transformer"])
    (bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    assert load_encoder(str(bert), EXACT).max_tokens == 12


def test_prompts_and_lower_case_are_what_the_model_says(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    describe(folder, ["Transformer"])
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "a ", "passage": "b "}, "default_prompt_name": None})
    )
    encoder = load_encoder(str(folder), EXACT)
    assert (encoder.query_prompt, encoder.document_prompt) == ("a ", "b ")
    assert encoder.tokenize(["X"]) == encoder.tokenize(["x"])
    query = EncoderService(encoder).encode_queries(["c"])[0]
    assert np.allclose(query, encoder.forward(encoder.tokenize(["a c"]))[0], atol=1e-6)
    assert np.allclose(encode(["c"], encoder), encoder.forward(encoder.tokenize(["b c"])), atol=1e-6)


def test_the_version_changes_with_whatever_changes_a_vector(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    versions = [load_encoder(str(folder), EXACT).version]
    describe(folder, ["Transformer", "Pooling"], pooling={"pooling_mode": "cls"})
    versions.append(load_encoder(str(folder), EXACT).version)
    tiny_model(folder, seed=1)
    versions.append(load_encoder(str(folder), EXACT).version)
    assert len(set(versions)) == 3
    assert load_encoder(str(folder), HALF).version == versions[-1]
    assert all(version.startswith("tiny@") for version in versions)


def test_a_model_that_cannot_be_used_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = tiny_model(tmp_path / "dense")
    describe(unknown, ["Transformer", "Pooling", "Dense"])
    pooled = tiny_model(tmp_path / "pooled")
    describe(pooled, ["Transformer", "Pooling"], pooling={"pooling_mode": ["cls", "max"]})
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    for name, sentence in [
        (str(unknown), "its module 'Dense' is not supported"),
        (str(pooled), "its way of pooling is not supported"),
        (str(broken), "its files cannot be used"),
        (str(tiny_model(tmp_path / "t5", kind="t5")), "not a text encoder"),
        ("/no/such/folder", "there is no such folder"),
        ("not a name at all", "no such public model on Hugging Face"),
    ]:
        with pytest.raises(EncoderUnavailable, match=sentence):
            load_encoder(name, EXACT)


def test_a_model_that_does_not_fit_its_device_says_what_to_do() -> None:
    class Large:
        def to(self, device: str) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(EncoderUnavailable, match="cuda:0 has no memory for it; choose a smaller one"):
        model_module._placed("large", Large(), "cuda:0")


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderUnavailable, match="fetch it once with a network"):
        load_encoder("nobody/nothing-of-that-name", EXACT)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (0, GPU_TOKEN_BUDGET_MIN),
        (1 << 30, (1 << 30) // 4 // (4 * (6 * 384 + 2 * 1536))),
        (80 << 30, GPU_TOKEN_BUDGET_MAX),
    ],
)
def test_the_budget_of_a_gpu_follows_its_free_memory(free: int, expected: int) -> None:
    assert gpu_token_budget(free, 384, 1536) == expected


def test_a_model_whose_numbers_are_too_large_for_fp16_is_loaded_in_fp32(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    half = msgspec.structs.replace(EXACT, dtype="float16")
    assert load_encoder(str(folder), half).choice == half
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] *= 60_000.0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(str(folder), half)
    assert encoder.choice.dtype == "float32"
    assert "too large" in encoder.choice.why
    assert np.isfinite(encode(["a b c"], encoder)).all()
