"""Texts to the token ids of CLIP's byte-pair encoding, with transformers' tokenizer, opened at the first text."""

from __future__ import annotations

import errno
from pathlib import Path
from threading import Lock
from typing import Any

from cmcr.data.texts import read_text
from cmcr.errors import ArtefactNotFoundError, FormatError, missing_dependency
from cmcr.spaces.cut_texts import CutTexts

_PUBLISHED = "openai/clip-vit-base-patch32"  # any model of CLIP has the same vocabulary
_FILES = "vocab.json and merges.txt (or tokenizer.json)"


class ClipTokens:
    """Cut texts into tokens (callable from several threads).

    Args:
        folder: holds the tokenizer's files; None looks for `openai/clip-vit-base-patch32` among the models that
            huggingface_hub has already downloaded. Nothing is ever fetched.
        vocabulary: tokens that the text tower knows; the last two are the start and the end of a text.
        context: the most tokens of a text, start and end included.
    """

    def __init__(self, folder: Path | None, vocabulary: int, context: int) -> None:
        self._folder = folder
        self._start, self._end = vocabulary - 2, vocabulary - 1
        self.context = context
        self._tokenizer: Any = None
        self._opening = Lock()

    def __call__(self, text: Any, cut: CutTexts) -> list[int]:
        """Cut one text; what does not fit is left out and counted.

        Returns:
            2 to `context` token ids: start, text, end.

        Raises:
            SampleError: not a text that can be read, see `read_text`.
            ArtefactNotFoundError, FormatError: no tokenizer there, or one of another vocabulary.
            MissingDependencyError: transformers is not installed.
        """
        text = read_text(text)
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = self._open()
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) > self.context - 2:
            cut.add(text)
        return [self._start, *ids[: self.context - 2], self._end]

    def counter(self) -> CutTexts:
        """Begin to count the texts of a call that do not fit."""
        return CutTexts("ulip", self.context - 2)

    def _open(self) -> Any:
        try:
            from transformers import CLIPTokenizer
        except ImportError as error:
            raise missing_dependency("transformers", extra="encoders", purpose="the texts of ULIP") from error
        place = str(self._folder or _PUBLISHED)
        try:
            if self._folder and not any((self._folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
                raise OSError(f"no {_FILES} in it")
            tokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True)
        except Exception as error:  # the readers of transformers and tokenizers fail in many ways
            raise ArtefactNotFoundError(
                errno.ENOENT,
                f"no CLIP tokenizer here ({error!s:.120}). Fetch {_FILES} of {_PUBLISHED} into a folder and give it as "
                "tokenizer=",
                place,
            ) from error
        found = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if found != (self._start, self._end):
            raise FormatError(
                f"{place}: expected a tokenizer that starts and ends texts with {self._start} and {self._end}, as these "
                f"weights do, got {found}. Give the folder with CLIP's own files as tokenizer=."
            )
        return tokenizer
