import django
import messages  # noqa: F401
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

from asgi_ipc import ipc


def who(request):  # a plain view, in a thread
    return JsonResponse(list(ipc.blocking.gather("who")), safe=False)


async def job(request):
    return JsonResponse(await ipc.broadcast("job", 1.5), safe=False)


class Workers(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json(list(await ipc.gather(content)))


urlpatterns = [path("", who), path("job", job)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="secret")
django.setup()
websockets = URLRouter([path("workers", Workers.as_asgi())])
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websockets})
