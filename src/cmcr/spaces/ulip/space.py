"""ULIP-2 with PointBERT as a space: point clouds, and the pictures and texts of the same file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from cmcr.data.images import read_image
from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import FormatError
from cmcr.spaces.hub import BPE_FILES, TOKENIZER_ALONE, find_snapshot, open_processor, require_files, token_batch
from cmcr.spaces.points.groups import UpAxis
from cmcr.spaces.points.space import PointCloudSpace
from cmcr.spaces.tower import Tower
from cmcr.spaces.ulip.pictures import pixels_of
from cmcr.spaces.ulip.weights import ULIP_FILE

_NUM_POINTS = {3: 8192, 6: 10_000}  # points that the published files were trained with, by channels of a point
_TOKENIZER = "openai/clip-vit-base-patch32"  # any model of CLIP has the same vocabulary


class UlipSpace(PointCloudSpace):
    """ULIP-2 with PointBERT (a `Space`), from a published file, or its tensors as safetensors.

    All sizes but those of the groups are read from the weights: points of 3 or 6 channels, any depth and width, with or
    without the image and text towers.

    Point clouds: turned so that y is up, thinned to `num_points` evenly spaced in their order, centred on the mean, scaled
    to a largest radius of 1; then groups around centres found by farthest point sampling from point 0. The order of a
    cloud's points therefore matters a little, as in the published code. Pictures: shorter side to 224, middle crop,
    ImageNet's mean and deviation, what is transparent on white. Texts: CLIP's tokens; longer ones are cut with a warning.

    Args:
        model: path to the file.
        device: where to compute; None takes a GPU if there is one.
        num_points: the most points of a cloud to use; None is what the published file was trained with, 8192, or 10000 for
            coloured points. Smaller clouds are used as they are.
        up_axis: the axis of your clouds that points up, `"x"`, `"y"` or `"z"`.
        num_group: groups per cloud; the published files have 512.
        group_size: points per group; the published files have 32.
        tokenizer: folder with CLIP's tokenizer, needed for texts only; None looks among the models that huggingface_hub has
            already downloaded.

    Raises:
        ConfigError: a setting out of range.
        ArtefactNotFoundError, FormatError, ReadError: the weights are missing, not those of a ULIP file, or unreadable.
        DeviceError: a device that this machine does not have.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        num_points: int | None = None,
        up_axis: UpAxis = "y",
        num_group: int = 512,
        group_size: int = 32,
        tokenizer: str | Path | None = None,
    ) -> None:
        chosen = choose_device(device or "auto")
        networks, self.temperature = ULIP_FILE.open(Path(model))
        channels = networks["point_cloud"].channels
        super().__init__(
            "ulip",
            networks,
            chosen,
            channels=channels,
            trained_points=_NUM_POINTS[channels],
            num_points=num_points,
            up_axis=up_axis,
            num_group=num_group,
            group_size=group_size,
        )
        self._tokenizer_source = tokenizer or _TOKENIZER
        self._tokenizer: Any = None
        self._opening = Lock()

    def _tower(self, modality: str) -> Tower:
        width, network = self.widths[modality], self._networks[modality]
        if modality == "image":
            return Tower(width, lambda item: pixels_of(read_image(item), network.size), partial(self._embed, network))
        if modality == "text":
            return Tower(width, read_text, self._embed_texts)
        return super()._tower(modality)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        network = self._networks["text"]
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = self._opened_tokenizer(network.vocabulary)
        ids, _ = token_batch(self._tokenizer, texts, network.context, self.name)
        rows: Tensor = network(ids.to(self._device))
        return rows

    def _opened_tokenizer(self, vocabulary: int) -> Any:
        """Open CLIP's tokenizer, at the first text: point clouds and pictures work without it. Nothing is ever fetched."""
        snapshot = find_snapshot(self._tokenizer_source, local_files_only=True, files=TOKENIZER_ALONE)
        require_files(snapshot, BPE_FILES)
        tokenizer = open_processor(snapshot, "CLIPTokenizer")
        expected, found = (vocabulary - 2, vocabulary - 1), (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if found != expected:
            raise FormatError(
                f"{snapshot}: expected a tokenizer that starts and ends texts with {expected}, as these weights do, got "
                f"{found}. Give the folder with CLIP's own files as tokenizer=."
            )
        return tokenizer
