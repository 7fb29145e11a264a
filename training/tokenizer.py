"""open_clip's tokenizers: what cuts a prompt into tokens, by name and by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import open_clip
from torch import Tensor

from training.errors import UnusableInputError


def tokenizer_name(architecture: Mapping[str, Any]) -> str:
    """Say which tokenizer `tokenizer_of` returns, for the record."""
    text = architecture["text_cfg"]
    name = text.get("hf_tokenizer_name") or "CLIP byte-pair encoding (open_clip.SimpleTokenizer)"
    return f"{name}, {text.get('context_length', 77)} tokens"


def tokenizer_sha256(architecture: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what cuts a text into tokens, whatever file it came in.

    It is of JSON: settings, tokens by id and merges by rank, or Hugging Face's ``tokenizer.json``.

    Raises
    ------
    ValueError
        A tokenizer from Hugging Face without that form.
    """
    text = architecture["text_cfg"]
    tokenizer = _tokenizer(text)
    content: dict[str, Any] = {"settings": text.get("tokenizer_kwargs", {})}
    if text.get("hf_tokenizer_name"):
        backend = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
        if backend is None:
            name = text["hf_tokenizer_name"]
            raise ValueError(f"tokenizer {name!r} has no tokenizer.json; expected one, a fast one")
        content["tokenizer.json"] = json.loads(backend.to_str())
    else:
        content["tokens"] = sorted(tokenizer.encoder, key=tokenizer.encoder.__getitem__)
        content["merges"] = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tokenizer(text: Mapping[str, Any]) -> Any:
    keys = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if text.get("hf_tokenizer_name"):
        return open_clip.tokenizer.HFTokenizer(text["hf_tokenizer_name"], **keys)
    return open_clip.SimpleTokenizer(**keys)


def tokenizer_of(architecture: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    """Return the model's tokenizer: texts to ids (K, context length).

    It raises `UnusableInputError` for a text that does not fit; cut short, a prompt could lose the
    word that matters.
    """
    text = architecture["text_cfg"]
    room = text.get("context_length", 77) - 2  # the start and the end of the text take one each
    tokenizer = _tokenizer(text)
    if text.get("hf_tokenizer_name"):

        def count(sentence: str) -> int:
            return len(tokenizer.tokenizer.encode(sentence, add_special_tokens=False))
    else:

        def count(sentence: str) -> int:
            return len(tokenizer.encode(sentence))

    def tokenize(texts: list[str]) -> Tensor:
        for sentence in texts:
            if count(sentence) > room:
                shown = sentence if len(sentence) <= 80 else f"{sentence[:79]}…"
                raise UnusableInputError(
                    "a prompt",
                    found=f"more than {room} tokens: {shown!r}",
                    expected=f"what fits the model's context, {room} tokens",
                    remedy="Shorten it.",
                )
        return tokenizer(texts)

    return tokenize
