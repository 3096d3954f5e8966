"""The application: every route of the JSON API, the page, and errors as answers."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections.abc import AsyncIterator, Callable, Collection
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from cmcr._version import __version__
from cmcr.errors import ArtefactError, CmcrError, MissingDependencyError, SampleError, words_of
from cmcr.search import query
from cmcr.search.items import Item
from cmcr.web import answers, media, schemas
from cmcr.web.answers import Answer
from cmcr.web.guard import Guard, problem
from cmcr.web.heatmaps import heatmap
from cmcr.web.served import Served

STATIC = FilePath(__file__).parent / "static"

_KEEP = {"cache-control": "private, max-age=3600"}  # by browsers: the hash of the index is in the addresses
_TOLD = 5  # of what is wrong with a request, which may be every number of a vector
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}
_UPLOADED = {"application/octet-stream": {"schema": _FILE}, "multipart/form-data": {"schema": _FORM}}


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": schemas.Problem} for code in codes}


def _bytes_of(kind: str, said: str) -> dict[str, Any]:
    return {"content": {kind: {"schema": _FILE}}, "description": said}


async def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


router = APIRouter(responses=_refusals(400, 403, 413, 422, 503, 504))
Here = Annotated[Served, Depends(_served)]
Number = Annotated[int, Path(ge=0, lt=schemas.MOST_ITEMS, description="Of an item of the index.")]


def create_app(served: Served, hosts: Collection[str] = ()) -> FastAPI:
    """Make the application.

    Args:
        served: what it answers from.
        hosts: names by which it may be called, beside the loopback names.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(served.watch())
        yield
        watching.cancel()
        await asyncio.to_thread(served.close)

    app = FastAPI(
        title="cmcr",
        summary="Search any modality with any other.",
        version=__version__,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},  # nothing leaves
    )
    mimetypes.add_type("text/javascript", ".js")  # Windows may know another, and browsers run no other
    app.state.served = served
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
    app.add_middleware(Guard, limits=served.limits, hosts=hosts, metrics=served.metrics)
    app.add_exception_handler(CmcrError, _unusable)
    app.add_exception_handler(MemoryError, _unusable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    return app


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Give the page."""
    return FileResponse(STATIC / "index.html")


@router.get("/api/index", response_model=schemas.IndexFacts)
async def index(served: Here) -> Answer:
    """Say what can be asked, and of what."""
    return answers.facts(served.now, served.limits)


@router.post("/api/search", response_model=schemas.Found, responses=_refusals(404))
async def search(asked: schemas.Search, served: Here) -> Answer:
    """Find what is near to the parts of a query, modality by modality."""
    now, options = served.now, asked.model_dump(exclude={"parts", "point"})
    question = query.Query(await served.parts(asked.parts, now), **options)
    return await served.searches.run(answers.found, now, question, asked.point)


@router.post(
    "/api/uploads/{modality}",
    response_model=schemas.Upload,
    responses=_refusals(415),
    openapi_extra={"requestBody": {"required": True, "content": _UPLOADED}},
)
async def upload(
    modality: Annotated[str, Path(max_length=100)],
    request: Request,
    served: Here,
    name: Annotated[str, Query(max_length=300, description="Of the file: the ending says the format of a cloud.")] = "",
) -> Answer:
    """Take a picture, a sound or a point cloud to ask with, as the body or as `file` of a form."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=8) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise HTTPException(422, "expected a form with a file named 'file'.")
            name, content = name or file.filename or "", await file.read()
    else:
        content = await request.body()
    hash_, rows = await served.take(modality, name, content)
    return {"upload": hash_, "modality": modality, "size": len(content), "spaces": list(rows)}


@router.get("/api/items/{item}", response_model=schemas.Item, responses=_refusals(404))
async def item(item: Number, served: Here) -> Answer:
    """Describe an item."""
    now = served.now
    return answers.item(now, await served.readings.run(served.item, now, item), item)


@router.get(
    "/api/items/{item}/media",
    response_class=FileResponse,
    responses={
        200: _bytes_of("*/*", "The file of the item"),
        206: _bytes_of("*/*", "The part of the file that `Range` asks for"),
        **_refusals(404, 416),
    },
)
async def item_media(item: Number, served: Here) -> Response:
    """Give the file of an item."""
    found = await served.readings.run(served.item, served.now, item)
    return media.file_response(found, _KEEP)


@router.get(
    "/api/items/{item}/thumbnail",
    response_class=Response,
    responses={200: _bytes_of("image/jpeg", "A picture of at most 320 pixels a side"), **_refusals(404)},
)
async def item_thumbnail(item: Number, served: Here) -> Response:
    """Give the picture of an item, small."""
    return await _made(served, item, media.thumbnail, "image/jpeg")


@router.get(
    "/api/items/{item}/points",
    response_class=Response,
    responses={
        200: _bytes_of("application/octet-stream", "x, y, z of at most 4,096 points: little-endian float32"),
        **_refusals(404),
    },
)
async def item_points(item: Number, served: Here) -> Response:
    """Give points of the point cloud or the mesh of an item."""
    return await _made(served, item, media.points, "application/octet-stream")


async def _made(served: Served, number: int, make: Callable[[Item], bytes], kind: str) -> Response:
    now = served.now
    content = await served.readings.run(lambda: make(served.item(now, number)))
    return Response(content, media_type=kind, headers=_KEEP)


@router.post("/api/heatmap", response_model=schemas.Heatmap, responses=_refusals(404))
async def where_in_picture(asked: schemas.HeatmapRequest, served: Here) -> Answer:
    """Compare what the parts say with the regions of a picture."""
    now = served.now
    item = await served.readings.run(served.item, now, asked.item)
    parts = await served.parts(asked.parts, now)
    return await served.encodings.run(heatmap, now, item, parts, served.cells)


@router.get("/api/map", response_model=schemas.Map)
async def corpus_map(served: Here) -> Answer:
    """Give some items of every corpus as points in the plane."""
    return await served.readings.run(answers.drawn_map, served.now)


@router.get("/healthz", response_model=schemas.Health)
async def healthz(served: Here) -> Answer:
    """Tell that the server answers, and whether it could open the latest update of the index."""
    status = "ready" if served.problem is None else "outdated"
    return {"status": status, "index": served.now.hash[:12], "problem": served.problem}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(served: Here) -> Response:
    """Count requests and times, in the text format of Prometheus."""
    gauges = {
        "encodings_waiting_or_running": served.encodings.inside,
        "searches_waiting_or_running": served.searches.inside,
        "embeddings_kept": len(served.rows),
    }
    return PlainTextResponse(served.metrics.text(gauges), media_type="text/plain; version=0.0.4")


async def _unusable(request: Request, error: Exception) -> Response:
    """Tell what was wrong with what the user gave; what is wrong with the index itself is the server's fault."""
    kind, said = type(error).__name__, words_of(error)
    if isinstance(error, MemoryError):
        return problem(413, "TooLarge", "it needs more memory than there is. Give something smaller.")
    if isinstance(error, MissingDependencyError):
        return problem(415, kind, said)
    if isinstance(error, ArtefactError):
        return problem(500, kind, said)
    gone = isinstance(error, SampleError) and request.method == "GET"  # a file that the index names
    return problem(404 if gone else 422, kind, said)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = []
    for wrong in error.errors()[:_TOLD]:
        where = ".".join(str(part) for part in wrong["loc"][1:])
        got = "" if wrong["type"] in ("missing", "value_error", "json_invalid") else f", got {wrong.get('input')!r:.80}"
        said.append(f"{where}: {wrong['msg'].removeprefix('Value error, ')}{got}")
    return problem(422, "ValidationError", "; ".join(said))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    kind = HTTPStatus(error.status_code).phrase.replace(" ", "")
    return problem(error.status_code, kind, str(error.detail), dict(error.headers or {}))
