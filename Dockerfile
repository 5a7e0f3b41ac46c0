# The demo, served by four workers that talk to each other.
#
#     docker build -t asgi-ipc-demo .
#     docker run --rm -p 127.0.0.1:8000:8000 asgi-ipc-demo
#
# The demo checks the Host header. Behind another name or port than 127.0.0.1:8000 or
# localhost:8000, add `-e DEMO_ALLOWED_HOSTS=demo.example.org,127.0.0.1:9000`.
#
# `make image-check` builds and tries this file on a machine without a container engine.

ARG PYTHON_VERSION=3.13

# Both stages start from the same image: the venv holds links to its interpreter.
FROM docker.io/library/python:${PYTHON_VERSION}-slim AS base


FROM base AS build
WORKDIR /src
# The base image's pip fills the venv from outside, so the final image carries no pip.
RUN python -m venv --without-pip /venv
# The compiler of the native engine stays in this stage. The interpreter's own headers are in the image.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY asgi_ipc ./asgi_ipc
# By way of a wheel: the image runs what users install, not a source folder. The group `demo` in
# pyproject.toml is the one list of the demo's packages.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
 && python -m pip --python /venv/bin/python install --no-cache-dir "$(echo /dist/*.whl)[standard]" --group demo


FROM base
# Log lines leave as they are written. The user can't write beside the sources, so
# Python need not try to; the venv was compiled when it was installed.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=build /venv /venv
# Beside the package, not in it: the wheel has no demo.
WORKDIR /srv
COPY demo ./demo
# Numeric: an orchestrator that insists on non-root can't judge a name.
USER 10001:10001
EXPOSE 8000
# One answer from one worker; the launcher itself replaces those that die. The Host
# header that http.client sends, 127.0.0.1:8000, is one that the demo accepts.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=4); c.request('GET', '/workers'); raise SystemExit(c.getresponse().status != 200)"]
# Exec form, no shell and no init between: the launcher is PID 1, gets SIGTERM itself
# and ends with status 0, and as PID 1 it reaps the orphans of its workers.
CMD ["asgi-ipc", "serve", "demo:app", "--host", "0.0.0.0", "--port", "8000", "--workers", "4"]
