import messages  # noqa: F401
import socketio

from asgi_ipc import ipc

sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


@sio.event
async def who(sid):
    return list(await ipc.gather("who"))


@sio.event
async def job(sid):
    return list(await ipc.broadcast("job", 1.5))


app = ipc.wrap(socketio.ASGIApp(sio))
