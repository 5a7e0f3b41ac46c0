import messages  # noqa: F401
from quart import Quart, jsonify

from asgi_ipc import ipc

app = Quart(__name__)


@app.while_serving
async def membership():
    async with ipc.lifespan(app):
        yield


@app.get("/")
async def who():
    return jsonify(list(await ipc.gather("who")))


@app.get("/job")
async def job():
    return jsonify(await ipc.broadcast("job", 1.5))
