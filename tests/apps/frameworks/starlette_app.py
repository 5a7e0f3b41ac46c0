import messages  # noqa: F401
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import ipc


async def who(request):
    return JSONResponse(list(await ipc.gather("who")))


async def job(request):
    return JSONResponse(await ipc.broadcast("job", 1.5))


app = Starlette(routes=[Route("/", who), Route("/job", job)], lifespan=ipc.lifespan)
