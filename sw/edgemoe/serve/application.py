"""The paths of the Open Inference Protocol v2, and what is answered there."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from edgemoe.runtime.accelerator import Accelerator
from edgemoe.runtime.open_inference import HEADER_LENGTH, ProtocolError, input_info, output_infos, path_of
from edgemoe.serve.engine import Busy, Engine, Found
from edgemoe.serve.message import largest_body, read_request, write_response
from edgemoe.serve.metrics import CONTENT_TYPE, Metrics
from edgemoe.version import __version__
from edgemoe.web.access import Doorkeeper, TokenKeeper

__all__ = ["Limits", "Server", "Served"]

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "edgemoe_bundle")
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"
_ENDING = "this server is being ended; ask another one"
_RETRY_SOON = {"Retry-After": "1"}
_DISCARDED = 16 << 20  # bytes too many that are read, and not kept: before, few clients look at an answer
_DISCONNECTED = 499  # nobody reads it; by this number nginx counts them too


@dataclass(frozen=True)
class Limits:
    """What a server lets requests do.

    Attributes:
        queue: requests of a model that may wait for the device
        timeout: seconds that a request may take, from its headers on
        most_images: pictures of a request
    """

    queue: int = 16
    timeout: float = 30.0
    most_images: int = 16


@dataclass(frozen=True)
class Served:
    """A bundle to serve: its opened device, which stays the caller's to close, and its file, for ``/bundle``."""

    accelerator: Accelerator
    path: Path | None = None


class _Refusal(Exception):
    """A request that gets no result: status, message and headers of its answer."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


class Server:
    """Serves bundles. A context manager; ``close`` ends its threads, when what was accepted is finished.

    Args:
        served: the bundles; several of one model are its versions 1, 2, ..., of which the last is meant by default
        limits: for requests
        token: that requests must bear; None: only the names in ``host`` protect it
        host: the address, or the name, that it listens on
        tell: told in one line what failed on the device

    Attributes:
        app: the ASGI application
        open_requests: inferences that were accepted and have no response yet
        is_draining: it accepts nothing any more
    """

    def __init__(
        self,
        served: Sequence[Served],
        limits: Limits = Limits(),  # noqa: B008
        token: str | None = None,
        host: str = "127.0.0.1",
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._limits, self._tell, self._metrics = limits, tell, Metrics()
        self.open_requests, self.is_draining = 0, False
        self._models: dict[str, list[Engine]] = {}
        self._paths: dict[Engine, Path | None] = {}
        for each in served:
            versions = self._models.setdefault(each.accelerator.bundle.model.name, [])
            engine = Engine(each.accelerator, str(len(versions) + 1), limits.queue, limits.timeout, self._ran)
            versions.append(engine)
            self._paths[engine] = each.path
        self._files = {engine: _state_of(path) for engine, path in self._paths.items()}
        self._digests = {engine: engine.bundle.sha256 for engine in self._paths}
        self._metrics.watch([*self._paths])
        self._metrics.ready.set_function(self._is_ready)
        self._metrics.open_requests.set_function(lambda: self.open_requests)
        # A stranger's page does not know the token, so that names matter only where there is none.
        keeper = Middleware(Doorkeeper, host=host, verb="serve") if token is None else None
        self.app = Starlette(
            routes=self._routes(),
            middleware=[keeper or Middleware(TokenKeeper, token=token, open_paths=(_LIVE, _READY))],
            exception_handlers={HTTPException: _no_such_thing, _Refusal: _refused},
        )

    def _routes(self) -> list[Route]:
        plain = {
            "/v2": self._about,
            _LIVE: self._live,
            _READY: self._health,
            "/metrics": self._show_metrics,
        }
        of_model = {"": self._metadata, "/ready": self._model_ready, "/config": self._config, "/bundle": self._bundle}
        roots = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        routes = [Route(path, answer, methods=["GET"]) for path, answer in plain.items()]
        routes += [Route(root + path, answer, methods=["GET"]) for root in roots for path, answer in of_model.items()]
        routes += [Route(root + "/infer", self._infer, methods=["POST"]) for root in roots]
        return [*routes, Route("/v2/repository/index", self._index, methods=["POST"])]

    # Health and metadata

    async def _about(self, request: Request) -> Response:
        return JSONResponse({"name": "edgemoe", "version": __version__, "extensions": _EXTENSIONS})

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _health(self, request: Request) -> Response:
        return _ready(self._is_ready())

    def _is_ready(self) -> bool:
        return not self.is_draining and not any(engine.is_stuck for engine in self._paths)

    async def _model_ready(self, request: Request) -> Response:
        return _ready(not self.is_draining and not self._engine(request).is_stuck)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _index(self, request: Request) -> Response:
        state = "READY" if self._is_ready() else "UNAVAILABLE"
        entries = [
            {"name": engine.name, "version": engine.version, "state": state, "reason": ""} for engine in self._paths
        ]
        return JSONResponse(entries)

    async def _metadata(self, request: Request) -> Response:
        engine = self._engine(request)
        model = engine.bundle.model
        return JSONResponse(
            {
                "name": engine.name,
                "versions": [each.version for each in self._models[engine.name]],
                "platform": "edgemoe",
                "inputs": [input_info(model).document()],
                "outputs": [info.document() for info in output_infos(model)],
                "parameters": self._properties(engine),
            }
        )

    def _properties(self, engine: Engine) -> dict[str, Any]:
        """What is particular to edgemoe."""
        return {
            "sha256": self._digests[engine],
            "device": engine.accelerator.device,
            "config": engine.bundle.config.name,
            "clock_mhz": engine.accelerator.clock_mhz,
            "max_batch_size": self._limits.most_images,
            "tasks": ",".join(engine.bundle.tasks),
        }

    async def _config(self, request: Request) -> Response:
        """Triton's form of the same, without the number of images in the shapes."""
        engine = self._engine(request)
        infos = [input_info(engine.bundle.model)], output_infos(engine.bundle.model)
        inputs, outputs = (
            [{"name": info.name, "data_type": f"TYPE_{info.datatype}", "dims": list(info.shape)} for info in each]
            for each in infos
        )
        properties = {key: {"string_value": str(value)} for key, value in self._properties(engine).items()}
        return JSONResponse(
            {
                "name": engine.name,
                "platform": "edgemoe",
                "max_batch_size": self._limits.most_images,
                "input": inputs,
                "output": outputs,
                "parameters": properties,
            }
        )

    async def _bundle(self, request: Request) -> Response:
        engine = self._engine(request)
        path = self._paths[engine]
        if path is None or self._files[engine] is None or _state_of(path) != self._files[engine]:
            raise _Refusal(404, "this server has not the bundle's file any more; give it to edgemoe.open")
        return FileResponse(path, media_type="application/octet-stream")

    def _engine(self, request: Request) -> Engine:
        name, version = request.path_params["name"], request.path_params.get("version")
        for engine in reversed(self._models.get(name, [])):
            if version in (None, engine.version):
                return engine
        known = ", ".join(path_of(engine.name, engine.version) for engine in self._paths)
        raise _Refusal(404, f"there is no such model, or no such version of it; there is {known}")

    # Inference

    async def _infer(self, request: Request) -> Response:
        engine, begin = self._engine(request), time.monotonic()
        self.open_requests += 1
        try:
            response = await self._answer(engine, request, begin)
        except _Refusal as refusal:
            response = await _refused(request, refusal)
        except asyncio.CancelledError:  # the server was told twice to end
            response = await _refused(request, _Refusal(503, _ENDING, _RETRY_SOON))
        except Exception as error:  # whatever it is, it must end neither the server nor in a traceback
            self._tell(f"{engine.name}: {type(error).__name__}: {error}")
            response = JSONResponse({"error": f"the request failed: {error}"}, 500)
        finally:
            self.open_requests -= 1
        self._metrics.answered(engine, response.status_code, time.monotonic() - begin)
        return response

    async def _answer(self, engine: Engine, request: Request, begin: float) -> Response:
        if self.is_draining:
            raise _Refusal(503, _ENDING, {**_RETRY_SOON, "Connection": "close"})
        end = begin + self._limits.timeout
        try:
            with engine.place() as place:
                body = await self._body(engine, request, end)
                length, most = request.headers.get(HEADER_LENGTH), self._limits.most_images
                wanted = await asyncio.to_thread(read_request, engine.bundle, body, length, most)
                result = place.fill(wanted)
        except Busy as busy:
            raise _Refusal(503, str(busy), {"Retry-After": str(busy.seconds)}) from None
        except ProtocolError as error:
            raise _Refusal(400, str(error)) from None
        if wanted.timeout is not None:
            end = min(end, begin + wanted.timeout)
        found = await self._result(request, result, end, begin)
        content, headers = await asyncio.to_thread(write_response, engine.name, engine.version, wanted, found)
        return Response(content, headers=headers)

    async def _body(self, engine: Engine, request: Request, end: float) -> bytes:
        """What was sent, if it is not too much and comes in time."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refusal(400, "this server reads no compressed requests")
        most, content = largest_body(engine.bundle, self._limits.most_images), bytearray()
        too_large = _Refusal(400, f"a request may have {most:,} bytes")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > most + _DISCARDED:
            raise too_large
        try:
            async with _within(end):
                size = 0
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        content += chunk
                    elif size > most + _DISCARDED:
                        raise too_large
                if size > most:
                    raise too_large
        except ClientDisconnect:
            raise _Refusal(_DISCONNECTED, "the client left") from None
        except TimeoutError:
            raise _Refusal(408, "the request did not come in time", {"Connection": "close"}) from None
        return bytes(content)

    async def _result(self, request: Request, result: Future[Found], end: float, begin: float) -> Found:
        """What the device makes of a request, unless it takes too long or nobody waits for it any more."""
        found: asyncio.Future[Found] = asyncio.wrap_future(result)
        left = asyncio.ensure_future(_departure(request))
        try:
            both: set[asyncio.Future[Any]] = {found, left}
            await asyncio.wait(both, timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if found.done():
                return found.result()
            if left.done():
                raise _Refusal(_DISCONNECTED, "the client left")
            raise _Refusal(504, f"the request was not finished within {end - begin:g} s")
        finally:
            found.cancel()
            left.cancel()

    def _ran(self, engine: Engine, found: Found | BaseException) -> None:
        self._metrics.ran(engine, found)

    # The end

    def drain(self) -> None:
        """Be ready no more and accept nothing; what was accepted goes on."""
        self.is_draining = True

    def close(self) -> None:
        """Finish what waits, and end the threads; a second call does nothing."""
        self.drain()
        for engine in self._paths:
            engine.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _departure(request: Request) -> None:
    """Until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def _within(end: float) -> AsyncIterator[None]:
    """Raise TimeoutError in the block when its time is over; ``asyncio.timeout`` is Python 3.11's."""
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    handle = asyncio.get_running_loop().call_later(max(end - time.monotonic(), 0.0), expire)
    try:
        yield
    except asyncio.CancelledError:
        if expired:
            raise TimeoutError from None
        raise
    finally:
        handle.cancel()


def _state_of(path: Path | None) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written; None: there is no such file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _ready(is_ready: bool) -> Response:
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, _Refusal)
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


async def _no_such_thing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))
