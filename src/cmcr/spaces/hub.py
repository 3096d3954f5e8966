"""Published encoders: opened by name or from a folder, safely, at a recorded revision, or refused with a way out.

Everything is read from one folder: that of the caller, or the snapshot of one commit in the cache of the model hub. So
all files of an encoder are of one revision, and nothing is looked up behind the caller's back. Weights are read from
safetensors, or as tensors only from the pickled files that the authors of CLAP and ULIP published; no code of a model
repository is ever run.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    FormatError,
    MissingDependencyError,
    ReadError,
    missing_dependency,
)
from cmcr.files import reading

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")  # the latter is what transformers 5 writes
BPE_FILES = ("tokenizer.json", "vocab.json+merges.txt")
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
TOKENIZER_ALONE = ("*.json", "*.txt", "*.model")  # to fetch where the weights of a repository are of no use
MODEL_FILES = (*TOKENIZER_ALONE, "model*.safetensors")

# Counters and index tables: no weights. Old files hold some that models no longer have, others leave them out.
_DERIVED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """The files of one published model.

    Attributes:
        source: the name or folder that was asked for.
        folder: where the files are.
        revision: the commit of the files, None for a folder that is no snapshot of the hub's cache.
    """

    source: str
    folder: Path
    revision: str | None

    def __str__(self) -> str:
        return f"{self.source} at revision {self.revision}" if self.revision else self.source


def find_snapshot(
    model: str | Path,
    revision: str | None = None,
    *,
    local_files_only: bool = False,
    files: Sequence[str] = MODEL_FILES,
) -> Snapshot:
    """Find the files of a model, fetching them if need be.

    Args:
        model: a folder, or the name of a repository on the hub, such as `"openai/clip-vit-base-patch32"`.
        revision: commit, tag or branch of the repository; None is its main branch. A folder has none.
        local_files_only: never fetch anything.
        files: patterns of the files to fetch; a name without `*` is of a file that the repository must have.

    Raises:
        ArtefactNotFoundError: no such folder or repository, or its files are neither here nor within reach: the message
            says what to fetch and where to put it.
        ConfigError: an unknown revision, or a revision of a folder.
        MissingDependencyError: huggingface_hub (part of the extra `encoders`) is not installed.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"revision: the folder {folder} has none, got {revision!r}. Leave it out.")
        in_cache = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
        return Snapshot(str(model), folder, folder.name if in_cache else None)
    if isinstance(model, Path) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model):
        raise ArtefactNotFoundError(
            f"{model}: no such folder, and not the name of a repository, which looks like 'owner/model'."
        )
    folder = _fetch(model, revision, local_files_only, files)
    return Snapshot(model, folder, folder.name)


def _fetch(repository: str, revision: str | None, local_files_only: bool, files: Sequence[str]) -> Path:
    """Return the folder of the snapshot in the hub's cache."""
    purpose = f"{repository}, which is no folder here"
    hub = import_library("huggingface_hub", purpose=purpose)
    errors = import_library("huggingface_hub.errors", purpose=purpose)

    def found(local: bool) -> Path:
        return Path(
            hub.snapshot_download(repository, revision=revision, local_files_only=local, allow_patterns=list(files))
        )

    # A commit never changes, so one that is whole in the cache is taken without asking the hub, which offline would be
    # asked again and again for half a minute.
    if not local_files_only and _COMMIT.fullmatch(revision or ""):
        with suppress(errors.LocalEntryNotFoundError):
            cached = found(True)
            if _whole(cached, files):
                return cached
    try:
        return found(local_files_only)
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"revision: {repository} has no commit, tag or branch {revision!r}.") from error
    except errors.RepositoryNotFoundError as error:
        raise ArtefactNotFoundError(
            f"{repository}: the hub has no such repository, or it is private or gated. Check the name; if it is not "
            "public, ask for access and run: hf auth login"
        ) from error
    except (OSError, ValueError) as error:  # offline, unreachable, or a cache that cannot be written
        at = f" --revision {revision}" if revision else ""
        include = "".join(f" --include '{pattern}'" for pattern in files)
        name = repository.split("/")[-1]
        cached_name = f"models--{repository.replace('/', '--')}"
        raise ArtefactNotFoundError(
            f"{repository} (revision {revision or 'main'}) is on this machine neither as a folder nor in the cache, and "
            f"could not be fetched ({_first_line(error)}).\n"
            f"On a machine with a network run\n"
            f"    hf download {repository}{at}{include} --local-dir {name}\n"
            f"then copy the folder {name} here and give its path instead of the name. Or leave out --local-dir and copy "
            f"{cached_name} from the cache there into the cache here, {hub.constants.HF_HUB_CACHE}."
        ) from error


def _whole(cached: Path, files: Sequence[str]) -> bool:
    """Tell whether a download was finished, as far as the weights, their shards and files asked for by name show."""
    named = {name for name in files if "*" not in name}
    weights, index = (cached / name for name in WEIGHTS)
    if not weights.is_file():
        if not index.is_file():
            return False
        named |= set(json.loads(index.read_bytes())["weight_map"].values())
    return all((cached / name).is_file() for name in named)


def require_files(snapshot: Snapshot, *choices: Sequence[str]) -> None:
    """Make sure that of each choice at least one file is there.

    Args:
        snapshot: where to look.
        choices: file names that may stand for each other; a name with `+` needs all of its parts.

    Raises:
        FormatError: what is missing; for weights it says that pickled ones are never read.
    """
    there = {path.name for path in snapshot.folder.iterdir() if path.is_file()}
    missing = [names for names in choices if not any(set(name.split("+")) <= there for name in names)]
    if not missing:
        return
    wanted = "; ".join(" or ".join(names).replace("+", " and ") for names in missing)
    hint = (
        " Weights are read from safetensors only, never from pickled files such as pytorch_model.bin; many "
        "repositories keep them in another revision, which the page of the model lists under its pull requests."
    )
    raise FormatError(
        f"{snapshot}: not a whole model, {snapshot.folder} lacks {wanted}.{hint if WEIGHTS in missing else ''}"
    )


def open_model(snapshot: Snapshot, class_name: str) -> Any:
    """Open a model of transformers on the CPU, in evaluation mode, every weight taken from the files, as precise as there.

    Args:
        snapshot: its files.
        class_name: such as `"AutoModel"`.

    Raises:
        FormatError: weights that are damaged, of another shape, missing or of no use to this class.
        MissingDependencyError: transformers is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        model, report = open_processor(snapshot, class_name, use_safetensors=True, output_loading_info=True)
    # transformers fills what is missing with random numbers and only logs it; what is derived it computes.
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key for key in map(str, report[kind]) if not key.endswith(_DERIVED))
        if keys:
            raise FormatError(
                f"{snapshot}: not a {type(model).__name__}, {len(keys)} {kind.replace('_', ' ')}, first {keys[0]}."
            )
    return model.eval().requires_grad_(False)


def open_processor(snapshot: Snapshot, *class_names: str, **options: Any) -> Any:
    """Open a configuration, image processor or tokenizer: by the first of these classes that transformers has.

    Args:
        snapshot: its files.
        class_names: such as `"AutoTokenizer"`.
        **options: for its `from_pretrained`.

    Raises:
        FormatError: its files cannot be read.
        MissingDependencyError: transformers, or a library that it needs for this, is not installed.
    """
    library = import_library("transformers")
    chosen = next(getattr(library, name) for name in class_names if hasattr(library, name))
    try:
        with quiet_transformers():
            return chosen.from_pretrained(snapshot.folder, local_files_only=True, trust_remote_code=False, **options)
    except ImportError as error:
        raise missing_dependency(error.name or "transformers", extra="encoders", purpose=str(snapshot)) from error
    except Exception as error:  # there is no narrower class: its tokenizers raise bare `Exception`
        raise FormatError(
            f"{snapshot}: the files in {snapshot.folder} cannot be read ({_first_line(error)})."
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from logging less than errors, and from showing bars of its own."""
    log = import_library("transformers.utils.logging")
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def open_image_processor(snapshot: Snapshot) -> Any:
    """Open an image processor that computes with Pillow: torchvision's resizing gives other pixels, and differs by version.

    Not by `AutoImageProcessor` where the files name a class: it refuses the feature extractors that older files name.

    Raises:
        FormatError, MissingDependencyError: as `open_processor`.
    """
    library = import_library("transformers")
    path = next(path for name in PROCESSOR if (path := snapshot.folder / name).is_file())
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings = settings.get("image_processor", settings)
    except (ValueError, AttributeError) as error:
        raise FormatError(f"{snapshot}: {path} cannot be read ({error}).") from error
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    name = re.sub("(FeatureExtractor|ImageProcessor)(Fast|Pil)?$", "ImageProcessorPil", kind)
    if name == "Tipsv2ImageProcessorPil":  # which transformers lacks: it resizes and rescales as SigLIP's does
        name = "SiglipImageProcessorPil"
    if hasattr(library, name):
        return open_processor(snapshot, name)
    return open_processor(snapshot, "AutoImageProcessor", backend="pil")


def token_batch(
    tokenizer: Any, texts: Sequence[str], length: int, space: str, *, pad_to_full: bool = False
) -> tuple[Tensor, Tensor]:
    """Turn texts into token ids, as a tokenizer of transformers that truncates and pads on the right does.

    Warns of texts that are cut, in words that do not change, so that Python shows them once, not with every batch.

    Args:
        tokenizer: of transformers; not asked to cut or pad, which would change its state.
        texts: `B` texts.
        length: the most tokens of a text; of a longer one the last token is kept where it marks the end.
        space: the name of the space, for the warning.
        pad_to_full: pad to `length` instead of to the longest text.

    Returns:
        `(B, L)` int64 token ids, and `(B, L)` int64 with 1 for tokens and 0 for padding.
    """
    rows: list[list[int]] = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    if any(len(row) > length for row in rows):
        warnings.warn(f"{space}: the end of texts longer than the {length} tokens it reads is cut.", stacklevel=2)
        ends = set(tokenizer.all_special_ids)
        rows = [r if len(r) <= length else [*r[: length - 1], r[-1] if r[-1] in ends else r[length - 1]] for r in rows]
    padded = length if pad_to_full else max(map(len, rows))
    padding = int(tokenizer.pad_token_id)
    ids = [row + [padding] * (padded - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (padded - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def import_library(
    module: str, library: str | None = None, *, extra: str = "encoders", purpose: str = "published encoders"
) -> Any:
    """Import an optional library; late, because transformers alone takes seconds.

    Args:
        module: such as `"transformers.audio_utils"`.
        library: its name on the package index; None is the first part of `module`.
        extra: of cmcr that brings it.
        purpose: what it is needed for.

    Raises:
        MissingDependencyError: it is not installed; or beside it is a torchvision of another build than torch's, without
            which transformers works and with which it fails, naming anything but that.
    """
    if find_spec("torchvision"):
        try:
            import_module("torchvision")
        except Exception as error:  # what is missing decides which
            raise MissingDependencyError(
                f"torchvision does not fit this torch ({error}), and transformers fails beside it. cmcr needs none: "
                "pip uninstall torchvision"
            ) from error
    try:
        return import_module(module)
    except ImportError as error:
        name = library or module.split(".")[0]
        raise missing_dependency(name, extra=extra, purpose=purpose) from error


class _Discarded:
    """Stands in for numpy's numbers in a file (an accuracy, an optimiser's state): takes anything, does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# Numpy's constructors are listed under the names of today and of before numpy 2; none of them is ever called.
_NUMPY = ("core.multiarray.scalar", "core.multiarray._reconstruct", "dtype", "ndarray", "dtypes.Float64DType")
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *((_Discarded, f"numpy.{name}") for name in _NUMPY),
    *((_Discarded, f"numpy._{name}") for name in _NUMPY if name.startswith("core.")),
]


def read_published_tensors(path: Path, fetch: str) -> dict[str, Tensor]:
    """Read the tensors of a published `.pt` file or of a safetensors file, by name, without the prefix `module.`.

    A `.pt` file is read by torch's restricted reader, which builds tensors, plain containers and the `argparse.Namespace`
    that published files hold; anything else in it is refused, so no file can run code.

    Args:
        path: the file: the weights, or a mapping that holds them as "state_dict", or "module" as DeepSpeed writes it.
        fetch: what to do where the file is not of use, for messages.

    Raises:
        ArtefactNotFoundError: there is no such file.
        FormatError: damaged, another kind of file, or one that holds what is never opened.
        ReadError: the system refuses to read it.
    """
    if not path.is_file():
        raise ArtefactNotFoundError(errno.ENOENT, f"there is no file of weights here. {fetch}", str(path))
    try:
        with reading(path), torch.serialization.safe_globals(_HARMLESS):
            tensors_alone = path.suffix == ".safetensors"
            held: Any = load_file(path) if tensors_alone else torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, ReadError):
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        # Not torch's own words: they advise to open the file with the restriction lifted.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names {refused[1]}" if refused else type(error).__name__
        raise FormatError(
            f"{path}: not a whole file of tensors and plain settings ({reason}). Files that would run code are never "
            f"opened. {fetch}"
        ) from error
    held = held if isinstance(held, Mapping) else {}
    state = next((held[part] for part in ("state_dict", "module") if isinstance(held.get(part), Mapping)), held)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise FormatError(f"{path}: expected tensors by name, or a 'state_dict' of them. {fetch}")
    return {name.removeprefix("module."): value.detach() for name, value in tensors.items()}


def fingerprint(weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> str:
    """Name an encoder by what decides its embeddings: 16 hexadecimal digits.

    The SHA-256 of every tensor's name, dtype, shape and bytes, in the order of the names, and of the preprocessing.

    Args:
        weights: a state dict.
        preprocessing: what else decides, as JSON can hold it; the order of its keys does not matter.
    """
    tensors = []
    for name, tensor in sorted(weights.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        tensors.append([name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(content.data).hexdigest()])
    description = json.dumps({"tensors": tensors, "preprocessing": preprocessing}, sort_keys=True)
    return hashlib.sha256(description.encode()).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
