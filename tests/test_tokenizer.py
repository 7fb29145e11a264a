"""The tokenizer's hash: of what decides a prompt's tokens, and of nothing else."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest

from mammoclip_sdk.bundle import sha256
from training.clip import tokenizer_sha256

CLIP = {"text_cfg": {"context_length": 77}}


def test_it_is_the_hash_of_clips_published_merges() -> None:
    with gzip.open(open_clip.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [
        line.split() for line in lines[1 : 49152 - 256 - 2 + 1]
    ]  # as OpenAI's CLIP takes them
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    tokens = letters + [f"{letter}</w>" for letter in letters] + ["".join(pair) for pair in merges]
    tokens += ["<start_of_text>", "<end_of_text>"]
    content = {"settings": {}, "tokens": tokens, "merges": merges}
    assert tokenizer_sha256(CLIP) == sha256(json.dumps(content, sort_keys=True).encode())


def test_the_length_of_a_text_does_not_change_its_tokens() -> None:
    assert tokenizer_sha256({"text_cfg": {"context_length": 32}}) == tokenizer_sha256(CLIP)


def test_other_settings_are_another_tokenizer() -> None:
    canonical = {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}
    assert tokenizer_sha256(canonical) != tokenizer_sha256(CLIP)


def test_another_merge_is_another_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tokenizer_sha256(CLIP)
    make = open_clip.SimpleTokenizer

    def swapped(**settings: Any) -> Any:
        tokenizer = make(**settings)
        first, second = list(tokenizer.bpe_ranks)[:2]
        tokenizer.bpe_ranks |= {first: 1, second: 0}
        return tokenizer

    monkeypatch.setattr(open_clip, "SimpleTokenizer", swapped)
    assert tokenizer_sha256(CLIP) != before


def hub(content: str | None) -> Any:
    """Stands for open_clip's tokenizer from the Hugging Face hub."""
    backend = None if content is None else SimpleNamespace(to_str=lambda: content)
    return lambda name, **settings: SimpleNamespace(
        tokenizer=SimpleNamespace(backend_tokenizer=backend)
    )


def test_a_tokenizer_from_the_hub_is_known_by_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for content in ('{"model": {"vocab": {"a": 0}}}', '{"model": {"vocab": {"a": 1}}}'):
        monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", hub(content))
        found.add(tokenizer_sha256({"text_cfg": {"hf_tokenizer_name": "words"}}))
        again = json.dumps(json.loads(content), indent=2)
        monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", hub(again))
        found.add(tokenizer_sha256({"text_cfg": {"hf_tokenizer_name": "words"}}))
    assert len(found) == 2


def test_one_without_such_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", hub(None))
    with pytest.raises(ValueError, match=r"'words' has no tokenizer\.json; expected one"):
        tokenizer_sha256({"text_cfg": {"hf_tokenizer_name": "words"}})
