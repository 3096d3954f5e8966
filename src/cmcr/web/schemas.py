"""What the JSON API takes and gives, field by field; `/openapi.json` is made of it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cmcr.search.query import MOST_RESULTS

MOST_ITEMS = 2**53
"""Numbers of items are below it, as JavaScript's whole numbers are."""

Word = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]
ItemNumber = Annotated[int, Field(ge=0, lt=MOST_ITEMS)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(_Asked):
    """One thing a query is made of: exactly one of text, upload, item and vector."""

    modality: Word
    text: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    upload: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(None, description="As an upload answers.")
    item: ItemNumber | None = Field(None, description="The number of an item of the index.")
    vector: Annotated[list[Number], Field(min_length=1, max_length=65_536)] | None = Field(
        None, description="An embedding in `space`."
    )
    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    space: Word | None = Field(None, description="Whose encoder reads it, or whose embedding it is.")

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        given = [name for name in ("text", "upload", "item", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of text, upload, item and vector, got {' and '.join(given) or 'none'}"
            )
        if self.text is not None and self.modality != "text":
            raise ValueError(f"text is of the modality 'text', got {self.modality!r}")
        return self


Parts = Annotated[list[Part], Field(min_length=1, max_length=16)]


class Search(_Asked):
    """A question to the index."""

    parts: Parts
    targets: Annotated[tuple[Word, ...], Field(min_length=1, max_length=16)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 10
    offset: Annotated[int, Field(ge=0, le=MOST_RESULTS)] = 0
    where: Annotated[tuple[Word, ...], Field(max_length=16)] = ()
    group_duplicates: bool = False
    hub_correction: bool = False
    mixed: bool = False
    point: bool = Field(False, description="Whether to place the query on the map.")


class HeatmapRequest(_Asked):
    """Where in a picture of the index is what the parts say?"""

    item: ItemNumber
    parts: Parts


class Item(BaseModel):
    """An item of the index."""

    item: int
    id: str
    modality: str
    space: str
    text: str | None
    columns: dict[str, Any]
    media_url: str | None
    thumbnail_url: str | None
    points_url: str | None


class Hit(Item):
    """An item that was found."""

    cosine: float
    duplicates: list[int]


class Ranking(BaseModel):
    """The hits of one modality of one space; cosines of two scales must not be compared."""

    modality: str
    space: str
    scale: str
    items: int
    approximate: bool
    hub_corrected: bool
    hits: list[Hit]


class Found(BaseModel):
    """What was found, and where the query lies on the map, if that was asked."""

    rankings: list[Ranking]
    point: tuple[float, float] | None
    seconds: float


class Upload(BaseModel):
    """A file that may be asked with, by its hash, as long as the server lives and has room for it."""

    upload: str
    modality: str
    size: int
    spaces: list[str]


class Heatmap(BaseModel):
    """Cosines of the query with cells of a picture, row by row from its top left."""

    rows: int
    columns: int
    scale: str
    cosines: list[list[float]]


class MapCorpus(BaseModel):
    """Some items of a corpus, and their points on the map."""

    space: str
    modality: str
    items: list[int]
    points: list[tuple[float, float]]


class Map(BaseModel):
    """The corpora in two dimensions."""

    corpora: list[MapCorpus]


class SpaceFacts(BaseModel, from_attributes=True):
    """A space of the connection."""

    name: str
    modalities: list[str]
    width: int


class CorpusFacts(BaseModel):
    """Items of one modality embedded in one space."""

    space: str
    modality: str
    rows: int
    live: int


class IndexFacts(BaseModel):
    """What can be asked, and of what."""

    hash: str
    version: str
    items: int
    spaces: list[SpaceFacts]
    modalities: list[str]
    corpora: list[CorpusFacts]
    columns: list[str]
    back_end: str
    limits: dict[str, int | float] = Field(description="What a request may be at most.")


class Health(BaseModel):
    """Whether the server answers, and what it could not do."""

    status: str
    index: str
    problem: str | None


class Problem(BaseModel):
    """Why a request was not answered: what was expected, what came, what to do."""

    error: str
    message: str
