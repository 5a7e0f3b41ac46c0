import messages  # noqa: F401
from a2wsgi import WSGIMiddleware
from flask import Flask

from asgi_ipc import ipc

flask = Flask(__name__)


@flask.get("/")
def who():
    return list(ipc.blocking.gather("who"))


@flask.get("/job")
def job():
    return list(ipc.blocking.broadcast("job", 1.5))


app = ipc.wrap(WSGIMiddleware(flask))
