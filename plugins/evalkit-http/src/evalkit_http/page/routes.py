"""The page at /, its files, and reports of jobs."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from fastapi.responses import FileResponse, Response

from evalkit_http.page.reports import make_report
from evalkit_http.security import requires
from evalkit_http.service.routes import Here

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# A report brings its own policy for scripts; in a sandbox it is of no origin and cannot ask this server for anything.
REPORT_POLICY = "sandbox allow-scripts allow-popups allow-downloads; frame-ancestors 'none'"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATIC = files("evalkit_http.page") / "static"
NAMES = frozenset(entry.name for entry in STATIC.iterdir())

router = APIRouter()


@router.get("/", include_in_schema=False)
def index() -> Response:
    """The page."""
    return _file("index.html")


@router.get("/page/{name}", include_in_schema=False)
def asset(name: Annotated[str, Path(max_length=100)]) -> Response:
    """A file of the page."""
    if name not in NAMES:
        raise HTTPException(404, "there is no such file")
    return _file(name)


@router.get(
    "/jobs/{job_id}/report",
    dependencies=[Depends(requires("read"))],
    tags=["jobs"],
    response_class=FileResponse,
    responses={
        404: {"description": "There is no such job, or nothing makes reports."},
        409: {"description": "No run."},
    },
)
async def report(job_id: str, here: Here, request: Request) -> FileResponse:
    """A completed job's run as one self-contained HTML page, made by `evalkit report` when it is first asked for."""
    path = await make_report(job_id, here)
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def _file(name: str) -> Response:
    kind = TYPES[name[name.rindex(".") :]]
    return Response((STATIC / name).read_bytes(), media_type=kind, headers={"content-security-policy": POLICY})
