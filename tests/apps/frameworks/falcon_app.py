import falcon.asgi
import messages  # noqa: F401

from asgi_ipc import ipc


class Who:
    async def on_get(self, request, response):
        response.media = list(await ipc.gather("who"))


class Job:
    async def on_get(self, request, response):
        response.media = await ipc.broadcast("job", 1.5)


api = falcon.asgi.App()
api.add_route("/", Who())
api.add_route("/job", Job())
app = ipc.wrap(api)
