"""What a CPU does faster than torch does it by itself, without another dependency.

`tune` changes a model in place: linear layers whose weights are laid out once as oneDNN wants them, with GELU
in the same pass, and in bf16 attention as two products. What each is worth: docs/experiments.md.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any, Final, cast

import torch
import transformers
from transformers.activations import GELUActivation
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask

_SLICED: Final = "pharos_sliced"
_SLICE_BYTES: Final = 4 << 20
"""Attention scores of a slice: those of two chunks of 256 tokens at 12 heads, within the caches."""

_KEPT_BYTES: Final = 64 << 20
"""Freed memory that the process keeps for the next layer; above it, it goes back to the system."""

_HEAP_BYTES_MAX: Final = 32 << 20  # the most that glibc allows: what is larger is mapped, and unmapped

_M_TRIM_THRESHOLD: Final = -1  # of malloc.h
_M_MMAP_THRESHOLD: Final = -3


def tune(model: transformers.PreTrainedModel) -> None:
    """Make *model*, which lies on a CPU and only ever infers, give the same vectors but for rounding, sooner.

    Of an architecture that is not known here only what is certain is changed: its plain linear layers, and
    attention where it takes that from transformers' registry.
    """
    _keep_freed_memory()
    if not has_packing(model.dtype):
        return
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if type(layer) is torch.nn.Linear:  # others of its kind are read from outside
                setattr(owner, name, PackedLinear(layer, gelu=_takes_gelu(owner, name)))
    if model.dtype == torch.bfloat16 and model._supports_attention_backend:
        model.set_attn_implementation(_SLICED)


def has_packing(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of *dtype* for this processor. Nothing is known of others than x86."""
    there = cast(Any, torch.backends.mkldnn).is_available()
    if not there or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if dtype == torch.bfloat16:  # from AVX-512 on, though only those with bf16 of their own choose it
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class PackedLinear(torch.nn.Module):
    """A linear layer with its weights in oneDNN's own order, which torch would make anew in each pass, or
    never.

    The operator is the one that torch's compiler calls; it needs no compiler itself. ``weight`` can be asked
    for its dtype and shape, and its numbers cannot be read.
    """

    def __init__(self, layer: torch.nn.Linear, *, gelu: bool) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()
        self._after = "gelu" if gelu else "none"

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, F) to (…, G)."""
        made = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, self._after, [], "none")
        return cast(torch.Tensor, made)


def _takes_gelu(owner: torch.nn.Module, name: str) -> bool:
    """Whether *owner* only applies the exact GELU to what its layer *name* gives; then it need not any more.

    That is how BERT and its kin write it (``BertIntermediate`` and others of that name).
    """
    made = type(owner).__name__.endswith("Intermediate") and name == "dense"
    if not made or type(getattr(owner, "intermediate_act_fn", None)) is not GELUActivation:
        return False
    owner.intermediate_act_fn = torch.nn.Identity()
    return True


def _keep_freed_memory() -> None:
    """Have the C library keep what a layer frees for the next one.

    Otherwise it hands tens of megabytes back to the system and takes them again, zeroed page by page, a dozen
    times in a pass: up to 8 % of it.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES_MAX)
    library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _sliced_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as two batched products, a few sequences at a time: (B, H, T, d) to (B, T, H, d).

    torch's fused kernel for CPUs does not use the bf16 instructions well at 32 to 64 dimensions a head: it
    takes 38 % of the time for 10 % of the arithmetic. This takes half of that, at the accuracy of the eager
    path. oneDNN's softmax takes two thirds of the time of torch's, and a third where the length is no
    multiple of 16.
    """
    if any(others.get(name) is not None for name in ("position_bias", "softcap", "s_aux")):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    batch, heads, length, depth = query.shape
    scale = depth**-0.5 if scaling is None else scaling
    output = torch.empty(batch, length, heads, value.shape[-1], dtype=query.dtype, device=query.device)
    unused = torch.empty((), dtype=query.dtype, device=query.device)  # beta=0: baddbmm does not read it
    step = max(1, _SLICE_BYTES // (heads * length * length * query.element_size()))
    for start in range(0, batch, step):
        part = slice(start, start + step)
        q = query[part].reshape(-1, length, depth)
        k = key[part].reshape(-1, key.shape[2], depth)
        v = value[part].reshape(-1, value.shape[2], value.shape[3])
        scores = torch.baddbmm(unused, q, k.transpose(1, 2), beta=0, alpha=scale)  # (b·H, T, T)
        if attention_mask is not None:
            scores.view(-1, heads, length, key.shape[2]).add_(attention_mask[part])
        shares = torch.softmax(scores.to_mkldnn(), dim=-1).to_dense()
        output[part] = torch.bmm(shares, v).view(-1, heads, length, value.shape[-1]).transpose(1, 2)
    return output, None


transformers.AttentionInterface.register(_SLICED, _sliced_attention)
transformers.AttentionMaskInterface.register(_SLICED, eager_mask)
